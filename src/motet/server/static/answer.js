// The events of a response, folded: after every event `Answer` is the response as far as it is known, in the shape
// the API gives finished ones, so that a streamed answer and one from the store are shown by the same code.
// Knows the published events of the Responses API; makes no elements and asks nobody.

const OVER = new Set(["completed", "incomplete", "failed", "cancelled"]);
const SHORTEST = 20; // milliseconds; what arrives in less has come in one piece, and says nothing of speed

export class Answer {
  /** @param response what the API gives; without it, one that has not begun */
  constructor(response = {}) {
    this.response = { status: "queued", ...response };
    this.items = response.output ?? [];
    this.sequence = -1; // number of the last event
    this.began = null; // when its first token came, and the last, in milliseconds of this page's clock
    this.ended = null;
    this.timed = true; // false when pieces of it come later than they were made
    this.thinkingMs = 0; // spent thinking, as this page saw it
    this.thinkingAt = null; // the last piece of thinking, while nothing else has come
  }

  get id() {
    return this.response.id;
  }

  get over() {
    return OVER.has(this.response.status);
  }

  get usage() {
    return this.response.usage ?? null;
  }

  /** Tokens of thinking; null while nobody has counted. */
  get thought() {
    return this.usage?.output_tokens_details?.reasoning_tokens ?? null;
  }

  /** Tokens a second from the first to the last; null for what this page has not seen being written, or too briefly. */
  get speed() {
    const n = this.timed ? this.usage?.output_tokens : 0;
    const ms = this.ended - this.began;
    return n > 1 && ms >= SHORTEST ? (1000 * (n - 1)) / ms : null;
  }

  /** Share of the prompt that was not computed again. */
  get cached() {
    const n = this.usage?.input_tokens;
    return n ? (this.usage.input_tokens_details?.cached_tokens ?? 0) / n : null;
  }

  /** What was said to the user. */
  get text() {
    return this.items.filter((i) => i.type === "message").flatMap((i) => i.content).map((p) => p.text ?? p.refusal ?? "").join("\n\n");
  }

  /** What code has made for the reader: {container, id, name, bytes} each; bytes is undefined for files of earlier answers. */
  get files() {
    const found = new Map();
    for (const item of this.items) {
      for (const f of item?.files ?? []) found.set(f.file_id, { container: item.container_id, id: f.file_id, name: f.filename, bytes: f.bytes });
      for (const a of (item?.content ?? []).flatMap((p) => p?.annotations ?? [])) {
        if (a.type === "container_file_citation" && !found.has(a.file_id)) found.set(a.file_id, { container: a.container_id, id: a.file_id, name: a.filename });
      }
    }
    return [...found.values()];
  }

  /** Names of files that were too large to be kept. */
  get filesLost() {
    return this.items.flatMap((item) => item?.files_not_kept ?? []);
  }

  /** Ends it from here: it was stopped, or its stream broke off. */
  end(status, message = null, code = null) {
    if (this.over) return;
    this.response.status = status;
    if (message) this.response.error = { code, message };
  }

  /** Takes in one event. */
  feed(event, now = performance.now()) {
    this.sequence = event.sequence_number ?? this.sequence;
    const kind = event.type.replace(/^response\./, "");
    if (event.response) {
      const { output, ...head } = event.response;
      this.response = { ...this.response, ...head };
      // a server that was killed knows nothing of what it had said; what has arrived stays
      if (this.over && output && (output.length || this.response.status !== "failed")) this.items = output;
      return;
    }
    if (kind === "error") {
      this.end("failed", event.message ?? event.error?.message, event.code ?? event.error?.code);
      return;
    }
    if (kind.endsWith(".delta")) {
      this.began ??= now;
      this.ended = now;
      this.time(kind.startsWith("reasoning"), now);
    }
    if (kind === "output_item.added") this.thinkingAt = event.item.type === "reasoning" ? now : null;
    if (kind === "output_item.added" || kind === "output_item.done") this.items[event.output_index] = event.item;
    else this.inside(kind, event);
  }

  time(thinks, now) {
    if (thinks && this.timed && this.thinkingAt !== null) this.thinkingMs += now - this.thinkingAt;
    this.thinkingAt = thinks ? now : null;
  }

  /** An event about a part of an item. */
  inside(kind, event) {
    const item = this.items[event.output_index];
    if (!item) return;
    switch (kind) {
      case "content_part.added":
      case "content_part.done":
        (item.content ??= [])[event.content_index] = event.part;
        break;
      case "reasoning_summary_part.added":
      case "reasoning_summary_part.done":
        (item.summary ??= [])[event.summary_index] = event.part;
        break;
      case "output_text.delta":
      case "reasoning_text.delta":
        add((item.content ??= []), event.content_index, kind.slice(0, -6), "text", event.delta);
        break;
      case "refusal.delta":
        add((item.content ??= []), event.content_index, "refusal", "refusal", event.delta);
        break;
      case "reasoning_summary_text.delta":
        add((item.summary ??= []), event.summary_index, "summary_text", "text", event.delta);
        break;
      case "output_text.annotation.added":
        (item.content[event.content_index].annotations ??= []).push(event.annotation);
        break;
      case "function_call_arguments.delta":
      case "mcp_call_arguments.delta":
        item.arguments = (item.arguments ?? "") + event.delta;
        break;
      case "code_interpreter_call_code.delta":
        item.code = (item.code ?? "") + event.delta;
        break;
      default: // web_search_call.searching and others of its kind name the item's status
        if (/_call\./.test(kind)) item.status = kind.split(".")[1];
    }
  }
}

function add(parts, index, type, field, delta) {
  const part = (parts[index] ??= { type });
  part[field] = (part[field] ?? "") + delta;
}
