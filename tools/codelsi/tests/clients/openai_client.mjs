// Puts OpenAI's own JavaScript client to a server: ADDRESS KEY BASE ADAPTER. Fails by an assertion.

import assert from "node:assert/strict";
import OpenAI from "openai";

const [address, key, base, adapter] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: key, maxRetries: 0 });
const options = { model: base, prompt: "function add(a, b)", max_tokens: 12, temperature: 0 };

const ids = [];
for await (const model of client.models.list()) ids.push(model.id);
assert.ok(ids.includes(base) && ids.includes(adapter), ids.join());

const complete = (more) => client.completions.create({ ...options, ...more });
const { choices, usage } = await complete({});
const text = choices[0].text;
assert.ok(text && usage.total_tokens === usage.prompt_tokens + usage.completion_tokens);

let streamed = "";
for await (const chunk of await complete({ stream: true })) streamed += chunk.choices[0]?.text ?? "";
assert.equal(streamed, text);

const sampled = await complete({ n: 2, temperature: 1, seed: 3 });
assert.equal(sampled.choices.length, 2);
assert.deepEqual(await complete({ n: 2, temperature: 1, seed: 3 }).then((r) => r.choices), sampled.choices);
assert.equal((await complete({ stop: text.slice(1, 3) })).choices[0].text, text.slice(0, text.indexOf(text.slice(1, 3))));

const messages = [{ role: "user", content: "Add two numbers." }];
const chat = { model: adapter, messages, max_tokens: 8, temperature: 0 };
const answer = await client.chat.completions.create({ ...chat, logprobs: true, top_logprobs: 2 });
// A token that ends within a character has a replacement character instead.
const tokens = answer.choices[0].logprobs.content.map((t) => t.token);
assert.ok(tokens.join("") === answer.choices[0].message.content || tokens.some((t) => t.includes("\ufffd")), tokens.join("|"));
let said = "", last;
const stream = await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  said += chunk.choices[0]?.delta?.content ?? "";
  last = chunk;
}
assert.equal(said, answer.choices[0].message.content);
assert.ok(last.usage.completion_tokens > 0 && last.choices.length === 0);

await assert.rejects(complete({ model: "absent" }), OpenAI.NotFoundError);
await assert.rejects(complete({ top_p: 2 }), OpenAI.BadRequestError);
const stranger = new OpenAI({ baseURL: `${address}/v1`, apiKey: "wrong", maxRetries: 0 });
await assert.rejects(async () => { await stranger.models.list(); }, OpenAI.AuthenticationError);
console.log("ok");
