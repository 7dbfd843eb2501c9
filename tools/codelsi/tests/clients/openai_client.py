"""Puts OpenAI's own Python client to a server: ADDRESS KEY BASE ADAPTER. Fails by an assertion."""

import sys

import openai

address, key, base, adapter = sys.argv[1:]
client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


def joined(tokens, text):
    """True if the tokens are those of the text. One that ends within a character has a replacement character instead."""
    return "".join(tokens) == text or any("\ufffd" in token for token in tokens)


def refused(kind, call, *words):
    try:
        call()
    except kind as error:
        assert all(word in str(error) for word in words), error
        return
    raise AssertionError(f"{kind.__name__} was expected")


def models():
    ids = [model.id for model in client.models.list()]
    assert base in ids and adapter in ids, ids
    assert client.models.retrieve(adapter).id == adapter
    refused(openai.NotFoundError, lambda: client.models.retrieve("absent"), "absent")


def complete(**options):
    defaults = {"model": base, "prompt": "function add(a, b)", "max_tokens": 12, "temperature": 0}
    return client.completions.create(**{**defaults, **options})


def completions():
    first = complete()
    text = first.choices[0].text
    assert first.object == "text_completion" and text
    assert first.choices[0].finish_reason in ("stop", "length")
    assert first.usage.completion_tokens <= 12
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    assert complete().choices[0].text == text
    assert complete(model=adapter).choices[0].text != text, "the adapter changes nothing"

    several = complete(prompt=["function add(a, b)", "const x"], n=1)
    assert [choice.index for choice in several.choices] == [0, 1]
    assert several.choices[0].text == text

    sampled = complete(n=3, temperature=1.0, seed=5)
    texts = [choice.text for choice in sampled.choices]
    assert len(set(texts)) > 1, texts
    again = complete(n=3, temperature=1.0, seed=5)
    assert [choice.text for choice in again.choices] == texts
    assert complete(temperature=1.0).choices[0].text != complete(temperature=1.0).choices[0].text

    stop = text[len(text) // 2 :][:2]
    cut = complete(stop=[stop, "never there"]).choices[0]
    assert cut.text == text[: text.index(stop)] and cut.finish_reason == "stop", (cut, text, stop)


def logprobs():
    plain = complete().choices[0]
    told = complete(logprobs=2).choices[0]
    assert told.text == plain.text
    tokens = told.logprobs
    assert joined(tokens.tokens, told.text), tokens
    assert len(tokens.token_logprobs) == len(tokens.tokens) == len(tokens.top_logprobs)
    assert all(value <= 0 for value in tokens.token_logprobs)
    assert all(len(top) >= 1 for top in tokens.top_logprobs)
    echoed = complete(echo=True, logprobs=1, max_tokens=2).choices[0]
    assert echoed.text.startswith("function add(a, b)"), echoed.text
    assert echoed.logprobs.token_logprobs[0] is None
    # The tokens are those of a SentencePiece text, which begins with a space.
    assert joined(echoed.logprobs.tokens, "<s> " + echoed.text), echoed


def token_ids():
    by_text = complete(logprobs=0, echo=True, max_tokens=1)
    ids = [5, 6, 7, 8]
    by_ids = complete(prompt=ids)
    assert by_ids.usage.prompt_tokens == 4 and by_text.usage.prompt_tokens > 0
    both = complete(prompt=[ids, [9, 10]])
    assert len(both.choices) == 2 and both.choices[0].text == by_ids.choices[0].text


def streaming():
    text = complete().choices[0].text
    parts, usage, reason = [], None, None
    for chunk in complete(stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            parts.append(chunk.choices[0].text)
            reason = chunk.choices[0].finish_reason or reason
        usage = chunk.usage or usage
    assert "".join(parts) == text, (parts, text)
    assert reason in ("stop", "length") and usage.completion_tokens > 0
    assert len(parts) > 1


def chat():
    messages = [
        {"role": "system", "content": "You write TypeScript."},
        {"role": "user", "content": [{"type": "text", "text": "Add two numbers."}]},
    ]

    def ask(**options):
        defaults = {"model": base, "messages": messages, "max_completion_tokens": 10, "temperature": 0}
        return client.chat.completions.create(**{**defaults, **options})

    answer = ask()
    message = answer.choices[0].message
    assert message.role == "assistant" and message.content
    parts = [chunk.choices[0].delta.content or "" for chunk in ask(stream=True)]
    assert "".join(parts) == message.content
    told = ask(logprobs=True, top_logprobs=3).choices[0]
    assert joined([token.token for token in told.logprobs.content], told.message.content)
    assert all(len(token.top_logprobs) == 3 for token in told.logprobs.content)
    two = ask(n=2, temperature=1.0, seed=1)
    assert [choice.index for choice in two.choices] == [0, 1]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    refused(openai.BadRequestError, lambda: ask(tools=[tool]), "tools")
    refused(openai.BadRequestError, lambda: ask(response_format={"type": "json_object"}), "response_format")


def errors():
    refused(openai.NotFoundError, lambda: complete(model="absent"), "absent")
    refused(openai.BadRequestError, lambda: complete(temperature=-1), "temperature")
    refused(openai.BadRequestError, lambda: complete(max_tokens=10**9), "tokens")
    refused(openai.BadRequestError, lambda: complete(prompt=[10**8]), "vocabulary")
    stranger = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
    refused(openai.AuthenticationError, stranger.models.list)


for check in [models, completions, logprobs, token_ids, streaming, chat, errors]:
    check()
    print(f"{check.__name__} ok")
