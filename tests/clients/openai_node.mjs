// The published npm client on a server at a URL; one JSON object on stdout. Run by tests/test_clients.py.
//     node openai_node.mjs URL MODEL chat|responses QUESTION SUM_QUESTION
import OpenAI from "openai";
import { called, functions } from "./two_tools.mjs";

const [baseURL, model, api, question, other] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const schemas = {
  temperature: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
  add: { type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } }, required: ["a", "b"], additionalProperties: false },
};

async function chat() {
  const ask = { model, messages: [{ role: "user", content: other }], temperature: 0, reasoning_effort: "high" };
  const whole = await client.chat.completions.create(ask);
  const stream = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
  let chunks = 0;
  for await (const _ of stream) chunks++;
  const streamed = await stream.finalChatCompletion();
  const tools = Object.entries(schemas).map(([name, parameters]) => ({
    type: "function",
    function: { name, parameters, strict: true, function: functions[name], parse: JSON.parse },
  }));
  const loop = client.chat.completions.runTools({ model, messages: [{ role: "user", content: question }], tools, stream: true });
  const agent = await loop.finalContent();
  return {
    models: (await client.models.list()).data.map((m) => m.id),
    whole: whole.choices[0].message.content, reasoning: whole.choices[0].message.reasoning, usage: whole.usage,
    streamed: streamed.choices[0].message.content, chunks, streamUsage: streamed.usage, agent,
    refused: await refusal(() => client.chat.completions.create({ ...ask, temperature: 9 })),
  };
}

async function responses() {
  const ask = { model, input: other, temperature: 0, reasoning: { effort: "high" } };
  const whole = await client.responses.create(ask);
  const stream = client.responses.stream(ask);
  const kinds = {};
  for await (const event of stream) kinds[event.type] = (kinds[event.type] ?? 0) + 1;
  const streamed = await stream.finalResponse();
  const tools = Object.entries(schemas).map(([name, parameters]) => ({ type: "function", name, parameters, strict: true }));
  let reply = await client.responses.create({ model, input: question, tools });
  for (let calls; (calls = reply.output.filter((i) => i.type === "function_call")).length; ) {
    const input = calls.map((c) => ({
      type: "function_call_output", call_id: c.call_id, output: String(functions[c.name](JSON.parse(c.arguments))),
    }));
    reply = await client.responses.create({ model, input, tools, previous_response_id: reply.id });
  }
  const kept = await client.responses.retrieve(whole.id);
  const items = [];
  for await (const item of client.responses.inputItems.list(whole.id)) items.push(item.type);
  return {
    whole: whole.output_text, usage: whole.usage, streamed: streamed.output_text, kinds, agent: reply.output_text,
    kept: kept.output_text, items, refused: await refusal(() => client.responses.create({ ...ask, temperature: 9 })),
  };
}

async function refusal(ask) {
  try {
    await ask();
  } catch (error) {
    return { name: error.constructor.name, status: error.status, param: error.param };
  }
}

console.log(JSON.stringify({ ...(await (api === "chat" ? chat() : responses())), called }));
