// Every tool, called by the TypeScript SDK's client, which holds results against the tools' output schemas.
// Arguments: the server's command line. It runs with this process's environment. Prints a JSON object.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
const load = (name) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/${name}`)).href);
const { Client } = await load("client/index.js");
const { StdioClientTransport } = await load("client/stdio.js");
const { ElicitRequestSchema } = await load("types.js");

const [command, ...args] = process.argv.slice(2);
const client = new Client({ name: "typescript", version: "0" }, { capabilities: { elicitation: {} } });
const questions = [];
client.setRequestHandler(ElicitRequestSchema, async (request) => {
  questions.push(request.params.message);
  return { action: "accept", content: { confirm: true } };
});
await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" }));

const { tools } = await client.listTools();
const progress = [];
const call = async (name, values = {}) => {
  const onprogress = ({ progress: done, total }) => progress.push([name, done, total]);
  const result = await client.callTool({ name, arguments: values }, undefined, { onprogress, timeout: 120_000 });
  return { isError: result.isError ?? false, ...result.structuredContent };
};
const results = {};
for (const [name, values] of [
  ["backup", { label: "from TypeScript" }],
  ["verify_backup", {}],
  ["list_backups", { log: 3 }],
  ["db_integrity", {}],
  ["restore", { backup: "latest" }],
  ["prune_backups", { dry_run: false, include_undo: true }],
]) {
  results[name] = await call(name, values);
}
const running = await call("backup", { wait_seconds: 0.01 });
results.waited = await call("backup", { job: running.job });
results.refused = await call("verify_backup", { backup: "there_is_none.sql" });
await client.close();
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), results, running, questions, progress }));
