use super::*;
use crate::evaluate::{FailedSample, ModelResult, ProblemResult};
use crate::failure_modes::FailureModes;
use crate::held_out::HeldOutResult;
use crate::infilling::{InfillProtocol, InfillResult};
use crate::judge::{Status, StatusCounts};
use crate::protocol::{PromptFormat, Protocol};
use crate::statistics::ConfidenceInterval;

fn result(name: &str, solved: usize) -> ModelResult {
    let protocol = Protocol {
        format: PromptFormat::Completion,
        temperature: 0.2,
        top_p: 0.95,
        samples: 5,
        max_tokens: 256,
        seed: 1,
        judge: "embedded".into(),
        judge_choice: String::new(),
        problems: 120,
        problems_hash: "0123456789abcdef".into(),
        limited: Vec::new(),
    };
    // Each model solves what the weaker ones do, and some it loses.
    let correct =
        |i: usize| if (i * 37) % 120 < solved { 5 - (i % 3) } else { usize::from(i.is_multiple_of(11)) };
    let per_problem: Vec<_> = (0..120)
        .map(|i| ProblemResult {
            name: format!("task{i}"),
            samples: 5,
            correct: correct(i),
            needs_node: 0,
            failure: (correct(i) < 5).then(|| FailedSample {
                status: Status::SyntaxError,
                prompt: format!("// Doubles {i} <of> it.\nfunction task{i}() {{\n"),
                completion: format!("  return a<b>({i});\n}}"),
                message: "file.ts(3,10): error TS2304: Cannot find name 'a'.".into(),
            }),
        })
        .collect();
    let passed: usize = per_problem.iter().map(|p| p.correct).sum();
    let scores: Vec<f64> = per_problem.iter().map(|p| p.correct as f64 / 5.0).collect();
    let interval = crate::statistics::proportion_interval(&scores, 5);
    ModelResult {
        name: name.into(),
        pass_at_1: interval.value,
        low: interval.low,
        high: interval.high,
        pass_at_10: None,
        problems: 120,
        samples: 600,
        statuses: StatusCounts::from([
            (Status::Ok, passed),
            (Status::AssertionError, (600 - passed) / 2),
            (Status::SyntaxError, (600 - passed) / 4),
            (Status::Exception, 600 - passed - (600 - passed) / 2 - (600 - passed) / 4),
        ]),
        exploits: 0,
        failure_modes: FailureModes {
            markdown_loops: 600 - passed,
            prose: 3,
            invented_methods: 9,
            invented_private: 0,
            unexamined: 0,
            names: [("Math.average".to_string(), 7), ("sum".to_string(), 2)].into(),
        },
        verbatim: (name != "base").then(|| (31, "return a + b".into())),
        per_problem,
        protocol_hash: protocol.hash(),
        protocol,
        generate_seconds: 31.0,
        judge_seconds: 12.0,
    }
}

fn set(name: &str, solved: [usize; 3]) -> ProblemSet {
    let names = ["base", "general", "specialized"];
    let results: Vec<_> = names.iter().zip(solved).map(|(name, solved)| result(name, solved)).collect();
    let compared = |from: usize, to: usize| ModelComparison {
        from: names[from].into(),
        to: names[to].into(),
        difference: results[to].difference_from(&results[from]).unwrap(),
    };
    ProblemSet { name: name.into(), differences: vec![compared(0, 1), compared(1, 2)], results }
}

fn held_out() -> RepositoryResult {
    let half = ConfidenceInterval { value: 0.5, low: 0.25, high: 0.75 };
    let reading = |model: &str, perplexity| HeldOutResult {
        model: model.into(),
        rows: 24,
        names: Some(half),
        valid: half,
        perplexity: Some(perplexity),
        verbatim: Some((17, "a b".into())),
        ..HeldOutResult::default()
    };
    RepositoryResult {
        repository: "sdk<T>".into(),
        trained: 40,
        shown: (79, 180),
        readings: vec![reading("general", 6.25), reading("specialized", 3.5)],
        valid: None,
        names: Some(crate::statistics::paired_difference(&[0.0; 24], &[0.5; 24], 1)),
    }
}

fn infilled(model: &str, exact: f64) -> InfillResult {
    let interval = |value| ConfidenceInterval { value, low: value / 2.0, high: 1.0 };
    InfillResult {
        model: model.into(),
        protocol: InfillProtocol {
            samples: 1,
            rows: 20,
            max_tokens: 64,
            rows_hash: "ab12".into(),
            ..Default::default()
        },
        limited: 3,
        exact_match: interval(exact),
        edit_similarity: interval(0.75),
        per_row: vec![(exact, 0.75); 20],
    }
}

#[test]
fn infilling_is_told_with_intervals_and_paired_differences() {
    let report =
        Report { infilling: vec![infilled("base", 0.25), infilled("<tuned>", 0.5)], ..Report::default() };
    let (html, text) = (report.html(), report.markdown());
    for part in ["exact match: &lt;tuned&gt; − base +25.0 points", "<td>50.0 [25.0, 100.0]</td>", "rows ab12"]
    {
        assert!(html.contains(part), "{part} in {html}");
    }
    assert!(text.contains("| base | 25.0 [12.5, 100.0] | 75.0 [37.5, 100.0] | 20 × 1 | 3 |"), "{text}");
    assert!(
        text.contains("edit similarity: <tuned> − base +0.0 points") && text.contains("not significant"),
        "{text}"
    );
    let other = InfillProtocol { seed: 5, ..infilled("x", 0.0).protocol };
    let results = [infilled("base", 0.25), InfillResult { protocol: other, ..infilled("x", 0.5) }];
    assert_eq!(infill_differences(&results).len(), 0, "of other protocols there is none");
    assert!(!Report::default().html().contains("Infilling"));
}

/// A report of the demo's shape, with made-up figures.
fn report() -> Report {
    let row = |name: &str, loss: Option<(f64, f64)>| TrainingSummary {
        name: name.into(),
        trainable: Some(if loss.is_some() { 62_586_880 } else { 0 }),
        total: Some(13_078_615_040),
        steps: loss.map(|_| 140),
        tokens: loss.map(|_| 9_200_000),
        first_loss: loss.map(|l| l.0),
        last_loss: loss.map(|l| l.1),
        validation_loss: loss,
        tokens_per_s: loss.map(|_| 2871.4),
        peak_bytes: loss.map(|_| 31_400_000_000),
    };
    let curve = |name: &str, from: f64, to: f64| LossCurve {
        name: name.into(),
        training: (1..=600)
            .map(f64::from)
            .map(|s| (s, to + (from - to) * (-s / 90.0).exp() + 0.02 * (s * 1.7).sin()))
            .collect(),
        validation: [1.0, 300.0, 600.0]
            .map(|s: f64| (s, to + 0.02 + (from - to) * (-s / 90.0).exp()))
            .to_vec(),
    };
    Report {
        title: "CodeLSI".into(),
        subtitle: "Code Llama 13B, 20 000 public instructions, 40 private ones, two A100".into(),
        models: vec![
            row("base", None),
            row("general", Some((0.7062, 0.4268))),
            row("specialized", Some((0.81, 0.31))),
        ],
        compare_with_paper: true,
        specialization: Some(("general".into(), "specialized".into())),
        shows_tradeoff: true,
        sweep: Some(Sweep {
            name: "private rows".into(),
            points: [("0", "general"), ("40", "specialized")]
                .map(|(n, model)| (n.into(), model.into()))
                .to_vec(),
        }),
        held_out: vec![held_out()],
        infilling: vec![infilled("general", 0.25)],
        bytes_sent: 0,
        hosted: HostedTokens { row_tokens: 1_234, prompt_tokens: 56 },
        exposures: vec![Exposure { model: "general".into(), candidates: 1024, bits: vec![1.0, 10.0] }],
        sets: vec![set("general problems", [47, 71, 64]), set("private API <SDK>", [3, 9, 58])],
        curves: vec![curve("general", 0.71, 0.43), curve("specialized", 0.81, 0.31)],
        curation: vec![
            CurationSummary {
                name: "public".into(),
                read: 41_202,
                kept: 20_000,
                dropped: vec![
                    ("duplicate".into(), 11_040),
                    ("too short".into(), 9_811),
                    ("benchmark".into(), 351),
                ],
            },
            CurationSummary {
                name: "private".into(),
                read: 61,
                kept: 40,
                dropped: vec![("duplicate".into(), 21)],
            },
        ],
        timings: [
            ("curate", 14.2),
            ("general LoRA", 3122.0),
            ("specialized LoRA", 41.0),
            ("generate", 611.0),
            ("judge", 92.0),
        ]
        .map(|(name, seconds)| StageTiming { name: name.into(), seconds })
        .to_vec(),
        environment: vec![("device".into(), "cuda:0 (NVIDIA A100)".into())],
        settings: vec![
            ("LoRA".into(), "rank 16, alpha 32, all seven linears".into()),
            ("seed".into(), "42".into()),
        ],
        notes: vec!["The embedded judge does not check types: its figures are upper bounds.".into()],
    }
}

#[test]
fn the_page_is_self_contained_and_holds_every_figure() {
    let html = report().html();
    for outside in ["http", "<script", "<link", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    let general = &report().sets[0].results[1];
    for part in [
        "0.48\u{202f}%",
        "62\u{202f}586\u{202f}880",
        "0.427<small>from 0.706",
        "2\u{202f}871",
        "29.2 GiB",
        "duplicate",
        "11\u{202f}040",
        "private API &lt;SDK&gt;",
        "52 min 02 s",
        "upper bounds",
        "general − base",
        "<a href=\"#failure-0-1\">",
        "<div id=\"failure-0-1\"><pre class=\"task\">// Doubles 1 &lt;of&gt; it.",
        "<h3>base: SyntaxError</h3><pre>  return a&lt;b&gt;(1);",
        "Problems on which the models differ most come first",
        "Cannot find name",
        "Math.average (7)",
        "cuda:0 (NVIDIA A100)",
        "under one hour on two A100",
        "points on private API &lt;SDK&gt;, specialized against general",
        "Specialized is one adapter with the same weights for every prompt. On private API &lt;SDK&gt; it gains",
        "<tr><th>general</th><td>5.5</td><td>10.0</td><td>1 of 2</td></tr>",
        "What each model gains against what it keeps",
        "0.7062 → 0.4268",
        "over private rows",
        "sdk&lt;T&gt;",
        "6.25",
        "50.0 [25.0, 75.0]",
        "40 (show 79 of 180 names) / 24",
        "specialized − general +50.0 points",
        &general.protocol_hash[..12],
        &chart::percent(general.pass_at_1),
    ] {
        assert!(html.contains(part), "no {part}");
    }
    assert!(!html.contains("NaN") && !html.contains("inf"));
    if let Some(path) = std::env::var_os("CODELSI_REPORT_SAMPLE") {
        report().write(path).unwrap();
    }
}

#[test]
fn markdown_has_the_same_figures() {
    let text = report().markdown();
    let general = &report().sets[0].results[1];
    for part in [
        &format!("| general | **{:.1}** |", 100.0 * general.pass_at_1),
        "| general − base | +",
        "0.7062 → 0.4268",
        "| duplicate | 11\u{202f}040 |",
        "| general LoRA | 52 min 02 s |",
        "- The embedded judge does not check types",
        "## private API <SDK>",
        "| device | cuda:0 (NVIDIA A100) |",
        "| sent to anyone | 0 bytes |",
        "| a hosted model would have got | 1\u{202f}234 tokens of training rows and 56 of prompts |",
        "| general | 5.5 | 10.0 | 1 of 2 |",
        "| Pass@1, general | 42.0 % |",
        "| sdk<T> | general | 6.25 |",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    // Every row of a table has its header's columns.
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    for table in text.split("\n\n").filter(|block| block.starts_with('|')) {
        let header = columns(table.lines().next().unwrap());
        assert!(table.lines().all(|line| columns(line) == header), "{table}");
    }
}

#[test]
fn tags_are_balanced() {
    let html = report().html();
    for tag in [
        "section", "figure", "svg", "table", "tr", "td", "div", "details", "summary", "a", "h3", "text",
        "title", "rect", "dl", "pre",
    ] {
        let open = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        let close = html.matches(&format!("</{tag}>")).count();
        let selfclosed = html.matches("\"/>").count();
        assert!(
            open == close || (tag == "rect" && open <= close + selfclosed),
            "{tag}: {open} opened, {close} closed"
        );
    }
}

#[test]
fn what_was_not_measured_is_left_out() {
    let html = Report::default().html();
    assert!(!html.contains("<section>") && !html.contains("<svg"));
    let untrained = Report {
        models: vec![TrainingSummary { name: "base".into(), ..TrainingSummary::default() }],
        ..Report::default()
    };
    assert!(!untrained.html().contains("tokens/s"));
}

#[test]
fn ticks_are_round_and_numbers_readable() {
    assert_eq!(chart::ticks(0.0, 1.0, 5), (vec![0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0], 1));
    assert_eq!(chart::ticks(0.31, 0.84, 5).1, 1);
    assert_eq!(chart::duration(3725.2), "1 h 02 min");
    assert_eq!(chart::duration(59.6), "1 min 00 s");
    assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
    assert_eq!((size(52_638_515), size(3 << 30)), ("50.2 MiB".into(), "3.0 GiB".into()));
    assert_eq!(bars::signed(-0.031 * 100.0, 1), "−3.1");
}

#[test]
fn a_first_spike_does_not_set_the_scale_of_the_losses() {
    let training: Vec<(f64, f64)> =
        (1..=30).map(|i| (f64::from(i), if i == 1 { 90.0 } else { 1.0 })).collect();
    let svg = curves::losses(&[LossCurve { name: "a".into(), training, validation: vec![] }], 0);
    assert!(!svg.contains(">80<") && !svg.contains(">50<"), "{svg}");
    assert!(svg.contains(">1.0"), "{svg}");
}

#[test]
fn a_report_of_an_earlier_version_is_judged_by_today_s_rule() {
    let current = report().sets.remove(0);
    let mut earlier = current.clone();
    earlier
        .results
        .iter_mut()
        .for_each(|result| (result.low, result.high) = (result.pass_at_1, result.pass_at_1));
    earlier.differences.iter_mut().for_each(|compared| compared.difference.t_test = None);
    earlier.recompute();
    assert_eq!(earlier.results, current.results);
    let differences = |set: &ProblemSet| set.differences.iter().map(|c| c.difference).collect::<Vec<_>>();
    assert_eq!(differences(&earlier), differences(&current));
}
