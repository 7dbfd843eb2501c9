//! Every problem of the demo is solved by its reference solution, and by none that lacks a step. The test binary is its
//! own sandbox child, so it has a `main`.

use codelsi_demo::DemoDataset;
use codelsi_demo::problems::GeneratedProblem;
use codelsi_eval::judge::verdicts::{CompletionRecord, judge_all};
use codelsi_eval::judge::{self, embedded::EmbeddedJudge};
use codelsi_eval::problem::Problem;
use codelsi_eval::sandbox::Sandbox;

fn main() {
    judge::child_entry();
    let judge = EmbeddedJudge::new(Sandbox::checked().expect("the sandbox must hold where the tests run"));
    let dataset = DemoDataset::new(1);
    let drafts: Vec<&GeneratedProblem> = dataset.general.iter().chain(&dataset.private_problems).collect();
    let parsed: Vec<Problem> =
        drafts.iter().map(|p| serde_json::from_value(p.json()).expect("a line of MultiPL-E")).collect();
    let judged = |answer: &dyn Fn(&GeneratedProblem) -> String| {
        let lines: Vec<CompletionRecord> = drafts
            .iter()
            .map(|p| CompletionRecord {
                id: p.name.clone(),
                name: p.name.clone(),
                completion: answer(p),
                truncated: false,
            })
            .collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        judge_all(&judge, &parsed, &lines, &folder.path().join("verdicts.jsonl"), &|_, _| ())
            .expect("verdicts")
    };
    let all = drafts.len();
    let right = judged(&|p| p.solution.clone());
    assert_eq!(right.statuses.values().sum::<usize>(), all);
    assert_eq!(right.statuses.get(&judge::Status::Ok), Some(&all), "{:?}", right.statuses);
    assert!(right.exploits.is_empty(), "honest solutions are flagged: {:?}", right.exploits);
    let wrong = judged(&|p| p.solution.replacen("return ", "return undefined && ", 1));
    assert_eq!(wrong.statuses.get(&judge::Status::Ok), None, "{:?}", wrong.statuses);
    // The answer without its last call.
    let short =
        judged(&|p| p.solution.rsplit_once('.').map_or(String::new(), |(head, _)| format!("{head};\n}}")));
    // JavaScript's loose equality lets a few of these through.
    let passed = short.statuses.get(&judge::Status::Ok).copied().unwrap_or(0);
    assert!(passed * 50 <= all, "{:?}", short.statuses);
    println!("{all} problems: solved by their answers, by {passed} that lack their last call");
}
