// The OpenAI Agents SDK for JavaScript with two tools, on a server at a URL; one JSON object on stdout. Run by tests/test_clients.py.
//     node agents_node.mjs URL MODEL chat|responses whole|stream QUESTION
import { Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, setTracingDisabled, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import { called, functions } from "./two_tools.mjs";

const [baseURL, name, api, how, question] = process.argv.slice(2);
const tools = [
  tool({
    name: "temperature", description: "Degrees in a city at this moment.", parameters: z.object({ city: z.string() }),
    execute: async (given) => String(functions.temperature(given)),
  }),
  tool({
    name: "add", description: "The sum of two numbers.", parameters: z.object({ a: z.number().int(), b: z.number().int() }),
    execute: async (given) => String(functions.add(given)),
  }),
];

setTracingDisabled(true);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const kind = api === "responses" ? OpenAIResponsesModel : OpenAIChatCompletionsModel;
const runner = new Runner({ model: new kind(client, name) });
const agent = new Agent({ name: "thermometer", instructions: "Answer from the tools.", tools });
let pieces = 0;
let result;
if (how === "stream") {
  result = await runner.run(agent, question, { stream: true });
  for await (const event of result) if (event.type === "raw_model_stream_event") pieces++;
  await result.completed;
} else {
  result = await runner.run(agent, question);
}
console.log(JSON.stringify({ final: result.finalOutput, called, pieces, raw: result.rawResponses.map((r) => r.providerData ?? null) }));
