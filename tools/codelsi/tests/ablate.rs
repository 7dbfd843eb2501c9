//! `codelsi ablate` and `--seeds`: one command, a table of variants or seeds; the same seed gives the same table; runs are
//! compared in one report.

use codelsi_eval::report::{ProblemSet, Report};
use codelsi_testing::or_skip;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The last line of a command, which is JSON.
fn codelsi(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_codelsi")).args(args).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// Two steps a variant, and two problems.
const SMALL: [&str; 14] = [
    "--device",
    "cpu",
    "--steps",
    "2",
    "--batch",
    "2",
    "--seq",
    "64",
    "--limit",
    "2",
    "-n",
    "1",
    "--max-tokens",
    "16",
];

fn ablate(what: &str, out: &Path) -> Value {
    let run = ["ablate", what, "--recipe", "demo", "--out", out.to_str().unwrap()];
    codelsi(&[&run[..], &SMALL].concat())
}

/// Names and Pass@1 of a set's models.
fn table(report: &Value) -> Vec<(String, f64)> {
    let models = report["sets"][0].as_array().unwrap().iter();
    models.map(|m| (m["name"].as_str().unwrap().to_owned(), m["pass_at_1"].as_f64().unwrap())).collect()
}

#[test]
fn variants_stand_in_one_table_that_its_seed_decides() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let first = ablate("methods", &path("first"));
    let names: Vec<String> = table(&first).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["base", "LoRA", "rsLoRA", "DoRA", "bottleneck", "mixture", "full"]);
    assert_eq!(table(&ablate("methods", &path("again"))), table(&first));
    let losses = |run: &str| -> Vec<Value> {
        let report = std::fs::read(path(run).join("report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        report["models"].as_array().unwrap().iter().map(|row| row["last_loss"].clone()).collect()
    };
    assert_eq!(losses("first"), losses("again"));
    // The methods are six.
    let distinct: std::collections::BTreeSet<String> = losses("first").iter().map(Value::to_string).collect();
    assert_eq!(distinct.len(), 7, "{distinct:?}");
    assert!(path("first/full/model.safetensors").exists() && path("first/LoRA/adapter_config.json").exists());

    let [first, again, both] = ["first", "again", "both"].map(path);
    codelsi(&["report", first.to_str().unwrap(), again.to_str().unwrap(), "--out", both.to_str().unwrap()]);
    let text = std::fs::read_to_string(both.join("report.md")).unwrap();
    assert!(text.contains("| first LoRA |") && text.contains("| again full − again mixture |"), "{text}");
}

#[test]
fn every_way_to_specialize_stands_in_one_table_with_what_it_gives_away() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = ["ablate", "memorization", "--recipe", "demo", "--out", out.to_str().unwrap()];
    let table = table(&codelsi(&[&run[..], &SMALL, &["--specialized-steps", "2"]].concat()));
    let names: Vec<&str> = table.iter().map(|(name, _)| name.as_str()).collect();
    let ways = [
        "general",
        "specialized",
        "private rows alone",
        "same replay",
        "distilled",
        "most forgotten",
        "gentle, stopped early",
        "interpolated",
        "second update",
        "gated for each token",
    ];
    assert_eq!(names, ways);
    let report = report(&out);
    assert_eq!(report.exposures.iter().map(|e| e.model.as_str()).collect::<Vec<_>>(), ways);
    // Two steps teach no secret: the mean of so many exposures is near that of uniform ranks.
    let bits: Vec<f64> = report.exposures.iter().flat_map(|e| &e.bits).copied().collect();
    let mean = bits.iter().sum::<f64>() / bits.len() as f64;
    assert!(bits.len() == 80 && (0.3..4.0).contains(&mean), "{mean}: {bits:?}");
    assert!(
        report.notes.iter().any(|note| note.contains("fresh replay is the recipe's own way")),
        "{:?}",
        report.notes
    );
    let scales: Vec<&String> =
        report.notes.iter().filter(|note| note.contains("of the second update")).collect();
    assert_eq!(scales.len(), 2, "{:?}", report.notes);
    assert_eq!(
        std::fs::read_to_string(out.join("with canaries.jsonl")).unwrap().matches("serviceKey0(").count(),
        2
    );
}

#[test]
fn seeds_stand_in_one_table_and_a_run_is_repeated_by_its_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let pipeline = |recipe: &str, out: &str, more: &[&str]| {
        let out = path(out);
        let run =
            ["pipeline", "--recipe", recipe, "--out", out.to_str().unwrap(), "--specialized-steps", "2"];
        codelsi(&[&run[..], &SMALL, more].concat())
    };
    let table = pipeline("demo", "run", &["--seed", "7", "--seeds", "2"]);
    assert_eq!(table["seeds"], serde_json::json!([7, 8]));
    let general = &table["sets"][0]["models"][1];
    assert_eq!(
        (general["name"].as_str(), general["estimates"].as_array().map(Vec::len)),
        (Some("general"), Some(2))
    );
    assert!(general["across"]["between"].is_f64(), "{general}");
    let text = std::fs::read_to_string(path("run/seeds.txt")).unwrap();
    assert!(text.contains("general - base") && text.contains("significant with 0 of 2"), "{text}");
    // The recipe holds the seed; the run's folder is another one.
    let recipe = path("run/seed-8/recipe.json");
    codelsi(&[
        "pipeline",
        "--recipe",
        recipe.to_str().unwrap(),
        "--out",
        path("again").to_str().unwrap(),
        "--device",
        "cpu",
    ]);
    for file in ["general/adapter_model.safetensors", "specialized/adapter_model.safetensors"] {
        let [first, again] = ["run/seed-8", "again"].map(|run| std::fs::read(path(run).join(file)).unwrap());
        assert!(first == again, "{file}");
    }
}

/// The report of a run.
fn report(run: &Path) -> Report {
    serde_json::from_slice(&std::fs::read(run.join("report.json")).unwrap()).unwrap()
}

/// Runs `ablate languages` with no program on PATH but the one that the sandbox tests itself with. Returns true if it
/// succeeded, and its stderr.
fn languages(made: &Path, out: &Path, public: &[&Path], problems: &[&Path]) -> (bool, String) {
    let (model, ours) = (made.join("base"), made.join("general-problems.jsonl"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
    command.args(["ablate", "languages", "--judge", "embedded"]).args(SMALL).env("PATH", only_sleep(made));
    command.arg("--model").arg(model).arg("--problems").arg(ours).arg("--out").arg(out);
    command.arg("--public").args(public).arg("--language-problems").args(problems);
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A folder with `sleep` alone.
fn only_sleep(folder: &Path) -> PathBuf {
    let tools = folder.join("tools");
    if std::fs::create_dir(&tools).is_ok() {
        let path = std::env::var_os("PATH").unwrap();
        let sleep = std::env::split_paths(&path).map(|p| p.join("sleep")).find(|p| p.exists()).unwrap();
        std::os::unix::fs::symlink(sleep, tools.join("sleep")).unwrap();
    }
    tools
}

/// Each set's name and its models.
fn sets(report: &Report) -> Vec<(&str, Vec<&str>)> {
    fn models(set: &ProblemSet) -> Vec<&str> {
        set.results.iter().map(|result| result.name.as_str()).collect()
    }
    report.sets.iter().map(|set| (set.name.as_str(), models(set))).collect()
}

#[test]
fn each_language_has_a_set_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let demo = folder.path().join("demo");
    ablate("languages", &demo);
    let found = report(&demo);
    assert!(found.notes.iter().any(|note| note.contains("plain instructions")), "{:?}", found.notes);
    let mut expected = vec![("TypeScript problems", vec!["base", "general"])];
    for (language, own) in
        [("JavaScript", "javascript"), ("Python", "python"), ("Java", "java"), ("C++", "cpp")]
    {
        let set = found.sets.iter().find(|set| set.name == format!("{language} problems"));
        match set {
            Some(set) => expected.push((&set.name, vec!["base", "general", own])),
            // Without its tools a language is left out, and said to be.
            None => {
                or_skip(Err::<(), _>(format!("no judge of {language}")));
                assert!(found.notes.iter().any(|note| note.starts_with(&format!("{language} is left out"))));
            }
        }
    }
    assert_eq!(sets(&found), expected);
    assert!(found.sets[1].differences.iter().all(|pair| pair.from == "base"));

    let made = demo.join("sources");
    let path = |name: &str| made.join(name);
    let (ts, js, py) = (path("public.jsonl"), path("problems-js.jsonl"), path("problems-py.jsonl"));
    let out = folder.path().join("out");
    let (ended, said) = languages(&made, &out, &[&ts], &[&js, &py]);
    assert!(ended, "{said}");
    let ended = report(&out);
    assert_eq!(
        sets(&ended),
        [("TypeScript problems", vec!["base", "general"]), ("JavaScript problems", vec!["base", "general"])]
    );
    let noted = |text: &str| ended.notes.iter().any(|note| note.contains(text));
    assert!(
        noted("no JavaScript row") && noted("Python is left out") && noted("python3"),
        "{:?}",
        ended.notes
    );

    let again = folder.path().join("again");
    // The same problems: rows that repeat any of them are dropped, also those of a language that is left out.
    assert!(languages(&made, &again, &[&ts], &[&js, &py]).0);
    let figures = |report: &Report| -> Vec<_> {
        let results = report.sets.iter().flat_map(|set| &set.results);
        results.map(|r| (r.name.clone(), r.pass_at_1, r.statuses.clone())).collect()
    };
    assert_eq!(figures(&report(&again)), figures(&ended));

    let js_only = path("public-js.jsonl");
    for (public, problems, why) in [
        (&js_only, vec![&py, &js, &js], "second file of JavaScript problems"),
        (&ts, vec![&ts], "public.jsonl"),
        (&path("public-py.jsonl"), vec![&js], "no row in any"),
    ] {
        let problems: Vec<&Path> = problems.into_iter().map(|p| p.as_path()).collect();
        let (ended, said) = languages(&made, &folder.path().join("refused"), &[public], &problems);
        assert!(!ended && said.contains(why), "{why}: {said}");
    }
}
