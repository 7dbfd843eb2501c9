//! Completions of models that loop: nested deep and long in every form, they are examined or counted, and end no process.

use codelsi_eval::failure_modes::{FailureModes, unknown_methods};
use codelsi_eval::problem::Problem;
use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::Duration;

/// A text that repeats its first part, has a middle, and repeats its last part.
const SHAPES: &[(&str, &str, &str)] = &[
    ("(", "1", ")"),
    ("(", "", ""),
    ("[", "", "]"),
    ("{", "", "}"),
    ("{", "", ""),
    ("({a:", "1", "})"),
    ("f(", "x", ")"),
    ("!", "a", ""),
    ("- ", "a", ""),
    ("a=>", "1", ""),
    ("(a)=>", "1", ""),
    ("(a=", "1", ")=>1"),
    ("(a:", "b", ")=>d"),
    ("async a=>", "1", ""),
    ("async(", "a", ")"),
    ("async x=>{await ", "a", "}"),
    ("a?b:", "c", ""),
    ("a?", "b", ":c"),
    ("a?(b):", "c", ""),
    ("a?(b)=>", "c", ":d"),
    ("a?(b):c=>", "c", ":d"),
    ("a=", "b", ""),
    ("a**", "b", ""),
    ("new ", "A", ""),
    ("typeof ", "a", ""),
    ("`${", "x", "}`"),
    ("`${", "", ""),
    ("", "a", "``"),
    ("", "a", "()"),
    ("", "a", ".b(c)"),
    ("", "a", "?.b"),
    ("", "a", "[0]"),
    ("", "a", "+b"),
    ("", "a", "&&b"),
    ("", "a", ",b"),
    ("", "a", "<b"),
    ("a<", "b", ">"),
    ("a<", "", ""),
    ("<T>", "a", ""),
    ("<T>(a)=>", "1", ""),
    ("", "a", "!"),
    ("", "a", " as A"),
    ("if(a){}else ", "{}", ""),
    ("if(a)", ";", ""),
    ("a:", ";", ""),
    ("for(;;)", ";", ""),
    ("do ", ";", " while(a)"),
    ("switch(a){case 1:", "", "}"),
    ("function f(){", "", "}"),
    ("class A{m(){", "", "}}"),
    ("x=class{a=", "1", "}"),
    ("class A extends ", "B", "{}"),
    ("@d ", "class A{}", ""),
    ("namespace A{", "", "}"),
    ("let [", "a", "]=b"),
    ("let {a:", "b", "}=c"),
    ("type T=A<", "B", ">"),
    ("type T=", "'a'", "|'b'"),
    ("type T=", "A", "[]"),
    ("type T=(", "A", ")"),
    ("type T=(a:", "B", ")=>c"),
    ("type T=keyof ", "A", ""),
    ("type T=A extends B?C:", "D", ""),
    ("type T={a:", "A", "}"),
    ("let x:((a:", "", ""),
    ("x as ", "A", ""),
    ("import(", "a", ")"),
    ("/(?:", "a", ")/"),
    ("// a\n", "", ""),
    ("a;", "", ""),
];

#[test]
fn no_completion_is_too_deep() {
    let sizes = if std::env::var_os("CODELSI_FULL").is_some() {
        vec![2_000, 8_000, 16_000]
    } else {
        vec![2_000, 15_000]
    };
    let mut slow = Vec::new();
    for (open, middle, close) in SHAPES {
        for size in &sizes {
            let n = (size - middle.len()) / (open.len() + close.len());
            let nest = format!("{}{middle}{}", open.repeat(n), close.repeat(n));
            for text in [nest.clone(), format!("x={nest}"), format!("type T={nest}")] {
                // A thread of its own, so that a parser that does not end is named.
                let (done, end) = channel();
                spawn(move || {
                    unknown_methods(&text, &BTreeSet::new());
                    let _ = done.send(());
                });
                if end.recv_timeout(Duration::from_secs(30)).is_err() {
                    slow.push(format!("{n} times {open}{middle}{close}"));
                }
            }
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}

#[test]
fn a_program_that_is_too_long_is_counted() {
    let problem = Problem {
        name: "p".into(),
        language: "ts".into(),
        prompt: "function f() {\n".into(),
        tests: "f();".into(),
        stop_tokens: Vec::new(),
    };
    let mut modes = FailureModes::default();
    modes.add(&problem, "", &"(".repeat(6_000));
    modes.add(&problem, "", &"f();".repeat(20_000));
    assert_eq!((modes.invented_methods, modes.unexamined), (0, 1));
    assert_eq!(modes.most_invented(5), "1 too long to examine");
}
