//! OpenAI's API.

use crate::fixture::{BASE, TestServer, completion};
use serde_json::{Value, json};

#[test]
fn models_are_listed_and_found() {
    let server = TestServer::start();
    let list = server.get("/v1/models").json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!(BASE)));
    assert_eq!(server.get(&format!("/v1/models/{BASE}")).json()["id"], BASE);
    let absent = server.get("/v1/models/gpt%2F4");
    assert_eq!((absent.status, &absent.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(server.post("/v1/completions", &json!({"model": "gpt-4", "prompt": "x"})).status, 404);
}

/// Joins the pieces of each choice.
fn joined(events: &[Value], piece: impl Fn(&Value) -> &Value) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for choice in events.iter().flat_map(|event| event["choices"].as_array().unwrap()) {
        let index = choice["index"].as_u64().unwrap() as usize;
        texts.resize(texts.len().max(index + 1), String::new());
        texts[index] += piece(choice).as_str().unwrap_or_default();
    }
    texts
}

#[test]
fn streamed_text_is_that_of_one_piece() {
    let server = TestServer::start();
    let body = json!({
        "prompt": ["const a", "function"], "n": 2, "max_tokens": 12, "temperature": 1, "seed": 5,
        "stop": ["zu"], "stream_options": {"include_usage": true},
    });
    let whole = server.ask("/v1/completions", &body);
    let texts: Vec<&str> =
        whole["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 4);
    assert!(texts.iter().all(|text| !text.contains("zu")) && texts[0] != texts[1], "{texts:?}");
    let mut streamed = body;
    streamed["stream"] = true.into();
    let events = server.post("/v1/completions", &streamed).events(true);
    let (last, events) = events.split_last().unwrap();
    assert_eq!(joined(events, |choice| &choice["text"]), texts);
    assert!(events.iter().all(|event| event["object"] == "text_completion" && event["usage"].is_null()));
    let ends = events.iter().filter(|event| event["choices"][0]["finish_reason"].is_string()).count();
    assert_eq!((ends, &last["choices"]), (4, &json!([])));
    assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    server.wait_until_idle();
}

#[test]
fn a_chat_is_streamed_as_deltas() {
    let server = TestServer::start();
    let mut body = json!({
        "model": BASE, "max_completion_tokens": 6, "temperature": 0, "stream_options": {"include_usage": true},
        "messages": [{"role": "system", "content": ""}, {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": " "}, {"role": "user", "content": "shorter"}],
    });
    let whole = server.ask("/v1/chat/completions", &body);
    let message = &whole["choices"][0]["message"];
    assert_eq!((&whole["object"], &message["role"]), (&json!("chat.completion"), &json!("assistant")));
    body["stream"] = true.into();
    let events = server.post("/v1/chat/completions", &body).events(true);
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(joined(&events, |choice| &choice["delta"]["content"]), [message["content"].as_str().unwrap()]);
    let [.., finish, usage] = &events[..] else { panic!("{events:?}") };
    assert!(finish["choices"][0]["finish_reason"].is_string());
    assert_eq!(
        (&usage["choices"], &usage["usage"]["prompt_tokens"]),
        (&json!([]), &whole["usage"]["prompt_tokens"])
    );
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk"));
}

#[test]
fn token_ids_and_text_are_one_prompt_and_the_echo_has_log_probabilities() {
    let server = TestServer::start();
    let body = json!({"prompt": "ba bo", "max_tokens": 3, "temperature": 0, "logprobs": 2, "echo": true});
    let choice = server.ask("/v1/completions", &body)["choices"][0].clone();
    let lists = &choice["logprobs"];
    let tokens: Vec<&str> = lists["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert_eq!(tokens[0], "<s>");
    assert!(choice["text"].as_str().unwrap().starts_with("ba bo"));
    assert_eq!(lists["token_logprobs"][0], Value::Null);
    assert!(lists["token_logprobs"].as_array().unwrap()[1..].iter().all(|p| p.as_f64().unwrap() <= 0.0));
    assert!((1..=3).contains(&lists["top_logprobs"][2].as_object().unwrap().len()));
    for list in ["token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(lists[list].as_array().unwrap().len(), tokens.len(), "{list}");
    }
    // A prompt alone is scored without a new token.
    let scored = json!({"prompt": [1, 5, 6, 7], "max_tokens": 0, "logprobs": 0, "echo": true});
    let scored = server.ask("/v1/completions", &scored);
    assert_eq!(scored["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 4);
    assert_eq!(scored["usage"]["completion_tokens"], 0);
    let ids =
        server.ask("/v1/completions", &json!({"prompt": [[1, 300, 301]], "max_tokens": 4, "temperature": 0}));
    assert_eq!(ids["usage"]["prompt_tokens"], 3);
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "logprobs": true, "top_logprobs": 3});
    let content = &server.ask("/v1/chat/completions", &chat)["choices"][0]["logprobs"]["content"];
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 3);
}

#[test]
fn an_omitted_seed_is_a_fresh_one_and_a_given_one_decides() {
    let server = TestServer::start();
    let text = |seed: Value| {
        let body = json!({"prompt": "x", "max_tokens": 16, "temperature": 1.5, "seed": seed});
        server.ask("/v1/completions", &body)["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    assert_ne!(text(Value::Null), text(Value::Null));
    assert_eq!(text(json!(3)), text(json!(3)));
    assert_ne!(text(json!(3)), text(json!(-3)));
}

#[test]
fn what_cannot_be_honoured_is_refused_and_the_rest_is_ignored() {
    let server = TestServer::start();
    let with = |name: &str, value: Value| {
        let mut body = completion("x");
        body[name] = value;
        let status = server.post("/v1/completions", &body).status;
        body["messages"] = json!([{"role": "user", "content": "x"}]);
        body.as_object_mut().unwrap().remove("prompt");
        assert_eq!(server.post("/v1/chat/completions", &body).status, status, "{name}");
        status
    };
    for (name, value) in [
        ("tools", json!([{"type": "function"}])),
        ("response_format", json!({"type": "json_object"})),
        ("logit_bias", json!({"5": 10})),
        ("best_of", json!(3)),
        ("n", json!(0)),
        ("temperature", json!(-1)),
        ("top_p", json!(2)),
        ("max_tokens", json!(-5)),
        ("max_tokens", json!("many")),
        ("max_tokens", json!(100_000)),
        ("seed", json!("x")),
        ("stop", json!(vec!["x"; 5000])),
        ("stream", json!("yes")),
        ("stream_options", json!(3)),
        ("n", json!(1_000_000)),
    ] {
        assert_eq!(with(name, value.clone()), 400, "{name} {value}");
    }
    for (name, value) in [
        ("tools", json!([])),
        ("response_format", json!({"type": "text"})),
        ("logit_bias", json!({})),
        ("best_of", json!(1)),
        ("top_p", Value::Null),
        ("stop", json!((0..64).map(|i| format!("\nstop{i}")).collect::<Vec<_>>())),
        ("keep_alive", json!(-1)),
        ("lora", json!([{"id": 0}])),
        ("max_tokens", json!(-1)),
        ("frequency_penalty", json!(0.5)),
        ("presence_penalty", json!(-0.5)),
        ("top_k", json!(-1)),
        ("min_p", json!(0.1)),
        ("repetition_penalty", json!(1.1)),
    ] {
        assert_eq!(with(name, value.clone()), 200, "{name} {value}");
    }
}

#[test]
fn a_suffix_is_refused_where_the_model_does_not_infill() {
    let server = TestServer::with(false, |_, _| {});
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "tiny");
    for body in [json!({"prompt": "a", "suffix": "b"}), json!({"prompt": "<PRE> a <SUF>b <MID>"})] {
        let answer = server.post("/v1/completions", &body);
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("infill"), "{answer:?}");
    }
    assert_eq!(server.post("/infill", &json!({"input_prefix": "a"})).status, 400);
    let show = server.ask("/api/show", &json!({"name": "tiny"}));
    assert_eq!(show["capabilities"], json!(["completion"]));
    assert!(!show["template"].as_str().unwrap().contains(".Suffix"));
}

#[test]
fn a_prefix_is_computed_once() {
    let server = TestServer::start();
    let prompt = "banana ".repeat(40);
    let cached = |prompt: &str| {
        let usage = server.ask("/v1/completions", &completion(prompt))["usage"].clone();
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!(cached(&prompt), 0);
    assert!(cached(&format!("{prompt}x")) >= 64);
    assert!(server.metric("codelsi_prefix_cache_hit_tokens_total") >= 64.0);
    assert!(server.metric("codelsi_time_to_first_token_seconds_count") >= 2.0);
}
