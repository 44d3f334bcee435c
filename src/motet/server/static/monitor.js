// What the server's monitor sees, while one looks: alarms by kind, and how evenly tokens go to the experts. Reads GET motet/watch.

import { count, drawing, h, plural } from "./dom.js";

const at = (id) => document.getElementById(id);
const EVERY = 2000; // milliseconds between looks
const HOT = 4; // times an even load, the end of the scale
const COLUMNS = { cv: "CV", max_violation: "MaxVio", entropy: "entropy", effective: "effective", dead: "dead", hot: "hot" };

let looking = 0; // which opening of the panel asks

/** The button that opens the panel. */
export function monitor(api) {
  at("monitor").addEventListener("click", () => {
    at("watch").showModal();
    look(api, ++looking);
  });
}

async function look(api, mine) {
  while (at("watch").open && mine === looking) {
    try {
      show(await api.json("motet/watch"));
    } catch (error) {
      at("watched").textContent = error.message;
    }
    await new Promise((done) => setTimeout(done, EVERY));
  }
}

function show({ on, turns, kinds, alarms, recent, router }) {
  at("watched").textContent = on ? `${plural(turns, "turn")} watched since the server began.` : "Nothing is watched: the server was started with --watch off.";
  at("alarms").replaceChildren(table(["Alarm", "Means", "What follows", "Times", "Last"], Object.entries(kinds).map(([kind, { means, action }]) => {
    const times = alarms.filter((a) => a.kind === kind).reduce((sum, a) => sum + a.count, 0);
    const last = recent.find((r) => r.kind === kind);
    return [kind, means, action, count(times), last ? `${last.channel}, token ${count(last.token)}` : "never"];
  })));
  at("routed").textContent = router.tokens ? `${plural(router.tokens, "token")} seen, older ones fade. Of ${router.experts} experts in a layer:` : "No choice of experts has been counted yet.";
  at("experts").replaceChildren(...(router.tokens ? experts(router) : []));
}

function experts({ channels, layers }) {
  const line = (name, row, note = "") => [name, ...Object.keys(COLUMNS).map((m) => (row[m] === null ? "" : String(Number(row[m].toPrecision(3))))), note];
  return [
    map(layers),
    table(["Layer", ...Object.values(COLUMNS), ""], layers.map((row, n) => line(String(n), row, row.collapsed ? "collapsed" : ""))),
    table(["Channel", ...Object.values(COLUMNS)], Object.entries(channels).map(([name, row]) => line(name, row).slice(0, -1))),
  ];
}

/** A row of cells for each layer, a cell for each expert: the fuller, the more tokens went there. */
function map(layers) {
  const [wide, high] = [layers[0].load.length, layers.length];
  const named = `Load of ${wide} experts in ${plural(high, "layer")}; the tables have the numbers.`;
  const picture = drawing("svg", { viewBox: `0 0 ${wide} ${high}`, preserveAspectRatio: "none", role: "img", "aria-label": named, class: "load", height: Math.min(240, 14 * high) });
  layers.forEach(({ load }, y) => load.forEach((share, x) => {
    const times = share * wide;
    const cell = drawing("rect", { x: x + 0.04, y: y + 0.06, width: 0.92, height: 0.88, "fill-opacity": Math.min(1, 0.06 + times / HOT).toFixed(3) });
    cell.append(drawing("title", {}, `Expert ${x} of layer ${y}: ${times.toFixed(2)} times an even load`));
    picture.append(cell);
  }));
  return picture;
}

function table(heads, rows) {
  const head = h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text))));
  return h("div", { class: "table", tabindex: "0" }, h("table", {}, head, h("tbody", {}, rows.map((row) => h("tr", {}, row.map((text) => h("td", {}, text)))))));
}
