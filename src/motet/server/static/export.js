// A conversation as a Markdown file: what is shown of it, thinking and calls included. Texts of the model and of tools stand as
// they were written; where a fence is needed it is longer than any within. Makes no elements and asks nobody.

/** @param turns those that are shown, first to last */
export function markdownOf(title, turns, model) {
  return [`# ${title}`, model && `Model: ${model}`, ...turns.flatMap(turnOf)].filter(Boolean).join("\n\n") + "\n";
}

/** A file name that every system takes. */
export function nameOf(title) {
  const words = title.replace(/[^\p{L}\p{N} _-]+/gu, " ").trim().replace(/\s+/g, "-").slice(0, 60);
  return `${words || "conversation"}.md`;
}

function turnOf({ question, answer }) {
  const { status, error } = answer.response;
  const state = status === "completed" ? "" : `*${error?.message ?? `Not whole: ${status}.`}*`;
  return [question && `## You\n\n${question}`, "## Answer", ...answer.items.map(itemOf), state];
}

function itemOf(item) {
  if (!item) return "";
  switch (item.type) {
    case "message": return (item.content ?? []).map((p) => p?.text ?? p?.refusal ?? "").join("\n\n");
    case "reasoning": {
      const text = [...(item.content ?? []), ...(item.content?.length ? [] : (item.summary ?? []))].map((p) => p?.text ?? "").join("\n\n");
      return text && text.split("\n").map((line) => `> ${line}`).join("\n");
    }
    case "code_interpreter_call": {
      const logs = (item.outputs ?? []).filter((o) => o.type === "logs").map((o) => o.logs).join("\n");
      return [fenced(item.code ?? "", "python"), logs && fenced(logs)].filter(Boolean).join("\n\n");
    }
    default: {
      const { id, status, outputs, ...said } = item;
      return fenced(JSON.stringify(said, null, 2), "json");
    }
  }
}

function fenced(text, language = "") {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}
