// The published JavaScript client at `motet mcp`: `mcp_node.mjs URL` or `mcp_node.mjs COMMAND ARGUMENTS...`; prints what it saw.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [first, ...args] = process.argv.slice(2);
const transport = first.startsWith("http")
  ? new StreamableHTTPClientTransport(new URL(first))
  : new StdioClientTransport({ command: first, args });
const client = new Client({ name: "motet-clients", version: "1" });
await client.connect(transport);
const { tools } = await client.listTools();
const told = [];
const calls = [
  ["python", { code: "x = 6" }],
  ["python", { code: "x * 7" }],
  ["python", { code: "1 / 0" }],
  ["python", { code: "import matplotlib.pyplot as p; p.plot([1, 2]); p.show()" }],
  ["search", { query: "owls" }],
  ["open", { id: 0 }],
  ["open", { id: "x", cursor: "y" }],
];
for (const [name, given] of calls) {
  const { content, isError } = await client.callTool({ name, arguments: given }, undefined, { timeout: 110000 });
  told.push({ text: content.map((c) => c.text ?? c.mimeType).join("\n"), error: isError === true });
}
await client.close();
console.log(JSON.stringify({ tools: tools.map((t) => t.name), told }));
