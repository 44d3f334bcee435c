// Chat Completions as the events of a response, for a server that has no Responses API: what a page needs of them, thinking
// and answer and usage. Such a server keeps nothing, so whatever was said before is sent along. Knows no elements.

/** Asks `api` and yields events as /v1/responses would. */
export async function* respond(api, { model, input, reasoning, instructions, temperature, max_output_tokens, seed }, signal) {
  const messages = typeof input === "string" ? [{ role: "user", content: input }] : [...input];
  if (instructions) messages.unshift({ role: "developer", content: instructions });
  const body = { model, messages, temperature, seed, max_completion_tokens: max_output_tokens, reasoning_effort: reasoning.effort, stream_options: { include_usage: true } };
  const items = []; // types of the items so far, in their places
  let finish = null;
  let used = null;
  let response = null;
  for await (const chunk of api.stream("v1/chat/completions", body, signal)) {
    if (chunk.error) return void (yield { ...chunk.error, type: "error" });
    if (!response) {
      response = { id: chunk.id, model: chunk.model, created_at: chunk.created, status: "in_progress" };
      yield { type: "response.created", response };
    }
    if (chunk.usage) used = usage(chunk.usage);
    const choice = chunk.choices[0];
    finish = choice?.finish_reason ?? finish;
    for (const [field, kind, type] of PARTS) {
      const delta = choice?.delta[field];
      if (!delta) continue;
      if (!items.includes(type)) {
        yield { type: "response.output_item.added", output_index: items.length, item: { type, content: [] } };
        items.push(type);
      }
      yield { type: `response.${kind}.delta`, output_index: items.indexOf(type), content_index: 0, delta };
    }
  }
  if (!finish) return;
  const cut = finish === "length";
  yield {
    type: "response.completed",
    response: { ...response, status: cut ? "incomplete" : "completed", incomplete_details: cut ? { reason: "max_output_tokens" } : null, usage: used },
  };
}

// field of a delta, kind of event, type of item
const PARTS = [
  ["reasoning", "reasoning_text", "reasoning"],
  ["content", "output_text", "message"],
  ["refusal", "refusal", "message"],
];

const usage = (u) => ({
  input_tokens: u.prompt_tokens,
  input_tokens_details: { cached_tokens: u.prompt_tokens_details?.cached_tokens ?? 0 },
  output_tokens: u.completion_tokens,
  output_tokens_details: { reasoning_tokens: u.completion_tokens_details?.reasoning_tokens ?? 0 },
  total_tokens: u.total_tokens,
});
