// Puts Ollama's own JavaScript client to a server: ADDRESS KEY BASE ADAPTER. Fails by an assertion.

import assert from "node:assert/strict";
import { Ollama } from "ollama";

const [address, key, base, adapter] = process.argv.slice(2);
const client = new Ollama({ host: address, headers: { Authorization: `Bearer ${key}` } });
const names = (await client.list()).models.map((model) => model.name.replace(/:latest$/, ""));
assert.ok(names.includes(base) && names.includes(adapter), names.join());

const options = { num_predict: 10, temperature: 0, seed: 1 };
const request = { model: base, prompt: "function add(a, b)", raw: true, options };
const whole = await client.generate(request);
assert.ok(whole.response && whole.done && whole.eval_count <= 10);
let streamed = "";
for await (const part of await client.generate({ ...request, stream: true })) streamed += part.response;
assert.equal(streamed, whole.response);

const messages = [{ role: "user", content: "Add two numbers." }];
const answer = await client.chat({ model: adapter, messages, options });
let said = "";
for await (const part of await client.chat({ model: adapter, messages, options, stream: true })) {
  said += part.message.content;
}
assert.equal(said, answer.message.content);
await assert.rejects(client.generate({ ...request, model: "absent" }), /absent/);
console.log("ok");
