"""Puts Ollama's own Python client to a server: ADDRESS KEY BASE ADAPTER. Fails by an assertion."""

import sys

import ollama

address, key, base, adapter = sys.argv[1:]
client = ollama.Client(host=address, headers={"Authorization": f"Bearer {key}"})

names = [model.model for model in client.list().models]
assert any(name.removesuffix(":latest") == base for name in names), names
assert any(name.removesuffix(":latest") == adapter for name in names), names
shown = client.show(base)
assert "completion" in shown.capabilities, shown
assert client.ps().models is not None

options = {"num_predict": 10, "temperature": 0, "seed": 1}
prompt = "function add(a, b)"
whole = client.generate(model=base, prompt=prompt, raw=True, options=options)
assert whole.response and whole.done and whole.done_reason in ("stop", "length"), whole
assert whole.eval_count <= 10 and whole.prompt_eval_count > 0 and whole.total_duration > 0
parts = list(client.generate(model=f"{base}:latest", prompt=prompt, raw=True, options=options, stream=True))
assert "".join(part.response for part in parts) == whole.response
assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
other = client.generate(model=adapter, prompt=prompt, raw=True, options=options)
assert other.response != whole.response, "the adapter changes nothing"

messages = [{"role": "user", "content": "Add two numbers."}]
answer = client.chat(model=base, messages=messages, options=options)
assert answer.message.role == "assistant" and answer.message.content
parts = list(client.chat(model=base, messages=messages, options=options, stream=True))
assert "".join(part.message.content for part in parts) == answer.message.content
assert parts[-1].done and parts[-1].eval_count > 0
stop = whole.response[2:4]
cut = client.generate(model=base, prompt=prompt, raw=True, options={**options, "stop": [stop]})
assert cut.response == whole.response[: whole.response.index(stop)]
try:
    client.generate(model="absent", prompt=prompt)
    raise AssertionError("an unknown model was served")
except ollama.ResponseError as error:
    assert error.status_code == 404 and "absent" in error.error, error
print("ok")
