//! Every problem of the demo is solved by the answer it was made from, and by none that lacks a step. The test binary
//! is its own sandbox child, so it has a `main`.

use codelsi_demo::{World, problems};
use codelsi_eval::judge::verdicts::{CompletionRecord, judge_all};
use codelsi_eval::judge::{self, embedded::EmbeddedJudge};
use codelsi_eval::problem::Problem;
use codelsi_eval::sandbox::Sandbox;

fn main() {
    judge::child_entry();
    let judge = EmbeddedJudge::new(Sandbox::checked().expect("the sandbox must hold where the tests run"));
    let world = World::new(1, 40);
    let drafts: Vec<&problems::Problem> = world.general.iter().chain(&world.private_problems).collect();
    let given: Vec<Problem> =
        drafts.iter().map(|p| serde_json::from_value(p.json()).expect("a line of MultiPL-E")).collect();
    let solved = |answer: &dyn Fn(&problems::Problem) -> String| {
        let lines: Vec<CompletionRecord> = drafts
            .iter()
            .map(|p| CompletionRecord { id: p.name.clone(), name: p.name.clone(), completion: answer(p) })
            .collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        judge_all(&judge, &given, &lines, &folder.path().join("verdicts.jsonl"), &|_, _| ())
            .expect("verdicts")
    };
    let all = drafts.len();
    let right = solved(&|p| p.solution.clone());
    assert_eq!(right.statuses.values().sum::<usize>(), all);
    assert_eq!(right.statuses.get(&judge::Status::Ok), Some(&all), "{:?}", right.statuses);
    let wrong = solved(&|p| p.solution.replacen("return ", "return undefined && ", 1));
    assert_eq!(wrong.statuses.get(&judge::Status::Ok), None, "{:?}", wrong.statuses);
    // The answer without its last call.
    let short =
        solved(&|p| p.solution.rsplit_once('.').map_or(String::new(), |(head, _)| format!("{head};\n}}")));
    // JavaScript's loose equality lets a few of these through.
    let passed = short.statuses.get(&judge::Status::Ok).copied().unwrap_or(0);
    assert!(passed * 50 <= all, "{:?}", short.statuses);
    println!("{all} problems: solved by their answers, by {passed} that lack their last call");
}
