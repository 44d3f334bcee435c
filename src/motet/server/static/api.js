// The server, as this page asks it: one fetch for everything, with the key, and errors as sentences. Streams are read as
// server-sent events. Knows routes and no elements.

const STORED = "motet.key";

/** What went wrong, as a sentence for the reader. `status` 0: nobody answered. */
export class ServerError extends Error {
  constructor(status, message, code = null) {
    super(message);
    Object.assign(this, { status, code });
  }
}

export class Api {
  constructor() {
    this.key = read(sessionStorage) ?? read(localStorage);
  }

  /** Takes a key (null forgets it); `keep`: also when the browser is closed. */
  use(key, keep) {
    this.key = key;
    for (const storage of [sessionStorage, localStorage]) storage.removeItem(STORED);
    if (key) (keep ? localStorage : sessionStorage).setItem(STORED, key);
  }

  async send(path, { method = "GET", body, signal } = {}) {
    const headers = {};
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let reply;
    try {
      reply = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(0, "The server cannot be reached.");
    }
    if (reply.ok) return reply;
    const said = await reply.json().catch(() => null);
    throw new ServerError(reply.status, said?.error?.message ?? `The server answered ${reply.status}.`, said?.error?.code);
  }

  async json(path, options) {
    return (await this.send(path, options)).json();
  }

  /** Asks, and yields the events of the answer. */
  async *stream(path, { body, signal }) {
    const reply = await this.send(path, body ? { method: "POST", body: { ...body, stream: true }, signal } : { signal });
    yield* events(reply.body, signal);
  }

  /** Conversations, latest first: {entries: [{id, title}], next: where older ones go on, or null}. `words`: only those that hold them. */
  async conversations(after, words = "") {
    const asked = new URLSearchParams({ limit: 40, ...(after && { after }), ...(words && { words }) });
    const { data, has_more, last_id } = await this.json(`motet/conversations?${asked}`);
    return { entries: data, next: has_more ? last_id : null };
  }

  /** One of them: {title, turns: [{parent, question, response}]}, parents first. */
  async conversation(id) {
    return this.json(`motet/conversations/${encodeURIComponent(id)}`);
  }

  async rename(id, title) {
    await this.send(`motet/conversations/${encodeURIComponent(id)}`, { method: "PATCH", body: { title } });
  }

  async forget(id) {
    await this.send(`motet/conversations/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  /** A file that code has made. Never of a type that a browser would show: it is to be saved. */
  async file({ container, id }) {
    const path = `v1/containers/${encodeURIComponent(container)}/files/${encodeURIComponent(id)}/content`;
    return new Blob([await (await this.send(path)).arrayBuffer()], { type: "application/octet-stream" });
  }

  /** A picture the model's tools made, as an address the page may show; null for what is none. */
  async picture(url) {
    const data = /^data:(image\/(?:png|jpeg|webp|gif));base64,([A-Za-z0-9+/=\s]+)$/.exec(url);
    if (data) return URL.createObjectURL(new Blob([bytes(data[2])], { type: data[1] }));
    const address = new URL(url, document.baseURI);
    if (address.origin !== location.origin) return null;
    const blob = await (await this.send(address.href)).blob();
    return /^image\/(png|jpeg|webp|gif)$/.test(blob.type) ? URL.createObjectURL(blob) : null;
  }
}

function read(storage) {
  try {
    return storage.getItem(STORED);
  } catch {
    return null;
  }
}

const bytes = (base64) => Uint8Array.from(atob(base64.replace(/\s/g, "")), (c) => c.charCodeAt(0));

/** Server-sent events as their JSON, until the stream ends. Comments and the end mark are passed over. */
export async function* events(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length) {
          const text = data.join("\n");
          data = [];
          if (text !== "[DONE]") yield JSON.parse(text);
        }
      }
    }
  } catch (error) {
    if (signal?.aborted || error.name === "AbortError") throw new DOMException("Stopped.", "AbortError");
    throw error instanceof SyntaxError ? error : new ServerError(0, "The connection broke off.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
