//! Requests of editors' plugins, and the answers that they read.

use crate::fixture::{BASE, TestServer};
use serde_json::{Value, json};

const PREFIX: &str = "export function sum(list: number[]): number {\n    ";
const SUFFIX: &str = "\n    return all;\n}\n";

fn marked() -> String {
    format!("<PRE> {PREFIX} <SUF>{SUFFIX} <MID>")
}

#[test]
fn markers_in_a_raw_prompt_are_markers_and_equal_a_suffix() {
    let server = TestServer::start();
    let text = |body: Value| {
        let answer = server.ask("/v1/completions", &body);
        (answer["choices"][0]["text"].clone(), answer["usage"]["prompt_tokens"].clone())
    };
    let raw = json!({"model": BASE, "prompt": marked(), "max_tokens": 16, "temperature": 0, "stop": ["<PRE>", "<SUF>"]});
    let pair = json!({"prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 16, "temperature": 0});
    assert_eq!(text(raw), text(pair));
    // With a suffix, in chat and in /infill a marker is text, of several tokens.
    let tokens = |path: &str, body: Value, pointer: &str| {
        server.ask(path, &body).pointer(pointer).and_then(Value::as_u64).unwrap()
    };
    let with_suffix = |prompt: &str| {
        let body = json!({"prompt": prompt, "suffix": "b", "max_tokens": 1});
        tokens("/v1/completions", body, "/usage/prompt_tokens")
    };
    assert!(with_suffix("a <PRE>") >= with_suffix("a ") + 5);
    let infill = |prefix: &str| {
        tokens(
            "/infill",
            json!({"input_prefix": prefix, "n_predict": 1, "cache_prompt": false}),
            "/tokens_evaluated",
        )
    };
    assert!(infill("a <PRE>") >= infill("a ") + 5);
}

#[test]
fn infill_answers_in_llama_cpps_shape() {
    let server = TestServer::start();
    let body = json!({
        "id_slot": 0, "input_prefix": PREFIX, "input_suffix": SUFFIX, "prompt": "    let all",
        "input_extra": [{"text": "export const none = 0;\n", "filename": "none.ts", "time": 1}],
        "n_predict": 12, "n_indent": 4, "stop": [], "top_k": 40, "top_p": 0.99, "stream": false,
        "samplers": ["top_k", "top_p", "infill"], "cache_prompt": true, "t_max_prompt_ms": 500,
        "t_max_predict_ms": 5000,
    });
    let whole = server.ask("/infill", &body);
    assert_eq!((&whole["stop"], &whole["truncated"]), (&json!(true), &json!(false)));
    assert!(whole["content"].is_string() && whole["timings"]["predicted_n"].as_u64().unwrap() >= 1);
    let mut chosen = body.clone();
    chosen["response_fields"] =
        json!(["content", "timings/prompt_n", "timings/prompt_ms", "truncated", "tokens_cached"]);
    let chosen = server.ask("/infill", &chosen);
    let keys: Vec<&String> = chosen.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["content", "timings/prompt_n", "timings/prompt_ms", "truncated", "tokens_cached"]);
    let mut streamed = body;
    streamed["stream"] = true.into();
    let events = server.post("/infill", &streamed).events(false);
    let (last, pieces) = events.split_last().unwrap();
    assert!(pieces.iter().all(|event| event["stop"] == false) && last["stop"] == true);
}

#[test]
fn a_warm_up_fills_the_cache_and_extras_that_do_not_fit_are_left_out() {
    let server = TestServer::start();
    let prefix = "banana ".repeat(40);
    let warm = json!({
        "input_prefix": prefix, "input_suffix": "", "input_extra": [], "prompt": "", "n_predict": 0,
        "samplers": [], "cache_prompt": true, "t_max_predict_ms": 1, "response_fields": [""],
    });
    assert_eq!(server.ask("/infill", &warm), json!({}));
    let next = json!({"input_prefix": prefix, "input_suffix": "", "prompt": "", "n_predict": 2});
    assert!(server.ask("/infill", &next)["timings"]["cache_n"].as_u64().unwrap() >= 64);
    let extra = |text: &str| {
        let body =
            json!({"input_prefix": "a", "input_extra": [{"text": text, "filename": "x.ts"}], "n_predict": 1});
        let answer = server.ask("/infill", &body);
        (answer["truncated"].clone(), answer["tokens_evaluated"].as_u64().unwrap())
    };
    let (short, long) = (extra("const a;"), extra(&"const long;".repeat(1000)));
    assert_eq!((short.0, long.0), (json!(false), json!(true)));
    assert!(short.1 > long.1);
}

#[test]
fn llama_cpps_completion_and_mistrals_infilling() {
    let server = TestServer::start();
    let mut body = json!({"prompt": "ba bo", "n_predict": 6, "stop": ["\n\n"], "top_k": 40, "mirostat": 0, "temperature": 0});
    let whole = server.ask("/completion", &body);
    body["stream"] = true.into();
    let events = server.post("/completion", &body).events(false);
    let text: String = events.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!(
        (&json!(text), &events.last().unwrap()["stop_type"]),
        (&whole["content"], &whole["stop_type"])
    );
    for path in ["/v1/fim/completions", "/fim/completions"] {
        let mut body =
            json!({"model": BASE, "prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 8, "temperature": 0});
        let whole = server.ask(path, &body)["choices"][0]["message"]["content"].clone();
        body["stream"] = true.into();
        let events = server.post(path, &body).events(true);
        let delta = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(String::from);
        assert_eq!(json!(events.iter().filter_map(delta).collect::<String>()), whole);
    }
}

#[test]
fn ollamas_clients_find_models_and_read_lines() {
    let server = TestServer::start();
    assert!(server.get("/api/version").json()["version"].is_string());
    let name = format!("{BASE}:latest");
    assert_eq!(server.get("/api/tags").json()["models"][0]["name"], name);
    assert_eq!(server.get("/api/ps").json()["models"][0]["model"], name);
    for body in [json!({"name": BASE}), json!({"model": name})] {
        let show = server.ask("/api/show", &body);
        assert_eq!(show["capabilities"], json!(["completion", "insert"]));
        assert_eq!(
            show["template"],
            "{{- if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{ else }}{{ .Prompt }}{{ end }}"
        );
    }
    let options =
        json!({"temperature": 0, "num_predict": 8, "top_k": null, "num_ctx": 8192, "stop": ["\n\n"]});
    let pair = json!({"model": BASE, "prompt": PREFIX, "suffix": SUFFIX, "raw": false, "options": options, "keep_alive": 1800});
    let raw = json!({"model": name, "prompt": marked(), "raw": true, "options": options});
    let lines = server.post("/api/generate", &pair).lines();
    let (last, pieces) = lines.split_last().unwrap();
    let text =
        |lines: &[Value]| lines.iter().map(|line| line["response"].as_str().unwrap()).collect::<String>();
    assert!(pieces.iter().all(|line| line["done"] == false && line["created_at"].is_string()));
    assert_eq!((&last["done"], &last["response"]), (&json!(true), &json!("")));
    for count in
        ["total_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"]
    {
        assert!(last[count].is_u64(), "{count}: {last}");
    }
    assert!(["stop", "length"].contains(&last["done_reason"].as_str().unwrap()));
    let mut whole = raw;
    whole["stream"] = false.into();
    assert_eq!(server.ask("/api/generate", &whole)["response"], text(pieces));
    let chat = json!({"model": BASE, "messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 4}, "keep_alive": -1});
    let lines = server.post("/api/chat", &chat).lines();
    assert!(lines.iter().all(|line| line["message"]["role"] == "assistant"));
    assert_eq!(lines.last().unwrap()["done"], true);
    assert_eq!(server.ask("/api/generate", &json!({"model": BASE}))["done_reason"], "load");
    assert_eq!(
        server.ask("/api/chat", &json!({"model": BASE, "messages": [], "keep_alive": 0}))["done_reason"],
        "unload"
    );
    let absent = server.post("/api/generate", &json!({"model": "llama3", "prompt": "x"}));
    assert_eq!(absent.status, 404);
    assert!(absent.json()["error"].is_string());
    for (name, value) in [
        ("format", json!("json")),
        ("tools", json!([{}])),
        ("images", json!(["aGk="])),
        ("template", json!("x")),
    ] {
        let mut body = json!({"model": BASE, "prompt": "x"});
        body[name] = value;
        assert_eq!(server.post("/api/generate", &body).status, 400, "{name}");
    }
}

#[test]
fn three_equal_requests_at_once_differ() {
    let server = TestServer::start();
    let body =
        json!({"prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 24, "temperature": 1.2, "stream": true});
    let text = || {
        let events = server.post("/v1/completions", &body).events(true);
        events
            .iter()
            .map(|event| event["choices"][0]["text"].as_str().unwrap().to_owned())
            .collect::<String>()
    };
    let texts = std::thread::scope(|scope| {
        let threads = [(); 3].map(|()| scope.spawn(text));
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2], "{texts:?}");
}
