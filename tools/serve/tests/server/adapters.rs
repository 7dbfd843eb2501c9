//! Adapters: beside the base, and loaded while the server runs.

use crate::fixture::{BASE, TestServer, completion, write_adapter, write_adapter_of};
use serde_json::{Value, json};
use std::fs;

fn text(server: &TestServer, model: &str) -> Value {
    let mut body = completion("banana bobo");
    body["model"] = model.into();
    body["max_tokens"] = 24.into();
    server.ask("/v1/completions", &body)["choices"][0]["text"].clone()
}

#[test]
fn an_adapter_of_the_start_answers_by_either_name() {
    let server = TestServer::with(true, |options, folder| {
        options.adapters = vec![("private".into(), write_adapter(&folder.join("a"), 3))];
    });
    let ids: Vec<Value> =
        server.get("/v1/models").json()["data"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
    assert_eq!(ids, ["tiny-codellama", "codellama-private"]);
    assert_eq!(text(&server, "private"), text(&server, "codellama-private"));
    assert_ne!(text(&server, "private"), text(&server, "tiny-codellama"));
    assert_eq!(
        server.post("/v1/load_lora_adapter", &json!({"lora_name": "x", "lora_path": "y"})).status,
        404
    );
}

#[test]
fn adapters_come_and_go_while_the_server_runs() {
    let server = TestServer::with(false, |options, folder| {
        let root = folder.join("adapters");
        write_adapter(&root.join("a"), 3);
        write_adapter(&root.join("b"), 4);
        write_adapter(&folder.join("outside"), 5);
        write_adapter_of(&root.join("infinite"), |_| f32::MAX / 2.0, 6);
        write_adapter_of(&root.join("nan"), |_| f32::NAN, 6);
        fs::create_dir(root.join("empty")).unwrap();
        options.adapter_dir = Some(root);
    });
    let load = |name: &str, path: &str| {
        server.post("/v1/load_lora_adapter", &json!({"lora_name": name, "lora_path": path})).status
    };
    let unload = |name: &str| server.post("/v1/unload_lora_adapter", &json!({"lora_name": name})).status;
    let base = text(&server, "tiny");
    let outside = server.folder.path().join("outside");
    for (name, path) in [
        ("x", "../outside"),
        ("x", outside.to_str().unwrap()),
        ("x", "a/../../outside"),
        ("x", "/etc"),
        ("x", "empty"),
        ("x", "infinite"),
        ("x", "nan"),
        ("x", "absent"),
        ("x", ""),
        ("x", "."),
        ("", "a"),
        ("a b", "a"),
        ("tiny", "a"),
    ] {
        assert_eq!(load(name, path), 400, "{name} {path}");
    }
    assert_eq!(server.get("/v1/models").json()["data"].as_array().unwrap().len(), 1);
    assert_eq!([load("one", "a"), load("one", "b"), load("two", "b")], [200, 400, 200]);
    let (one, two) = (text(&server, "one"), text(&server, "two"));
    assert!(one != base && two != base && one != two);
    assert_eq!([unload("one"), unload("one"), unload("tiny")], [200, 404, 404]);
    assert_eq!(server.post("/v1/completions", &json!({"model": "one", "prompt": "x"})).status, 404);
    assert_eq!((text(&server, "two"), text(&server, "tiny")), (two, base));
    assert_eq!(load("one", "a"), 200);
    assert_eq!(text(&server, "one"), one);
}

#[test]
fn a_request_whose_adapter_overflows_fails_and_its_neighbours_do_not() {
    let server = TestServer::with(true, |options, folder| {
        let overflowing = write_adapter_of(&folder.join("o"), |_| f32::MAX / 17.0, 3);
        options.adapters =
            vec![("good".into(), write_adapter(&folder.join("g"), 3)), ("overflowing".into(), overflowing)];
    });
    let (base, good) = (text(&server, BASE), text(&server, "good"));
    let overflow = || {
        let mut body = completion("banana");
        body["model"] = "overflowing".into();
        let answer = server.post("/v1/completions", &body);
        assert_eq!(answer.status, 500, "{answer:?}");
        assert!(answer.body.contains("the logit of token"), "{answer:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| (0..8).for_each(|_| overflow()));
        for _ in 0..8 {
            assert_eq!((text(&server, BASE), text(&server, "good")), (base.clone(), good.clone()));
        }
    });
    server.wait_until_idle();
}
