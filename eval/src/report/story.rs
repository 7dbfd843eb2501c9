//! The result that the experiment is about: what the specialized stage gained, and what it cost.

use super::bars::signed;
use super::chart::{escape, percent};
use super::data::{ModelComparison, ProblemSet, Report};
use crate::evaluate::ModelResult;
use crate::statistics::Verdict;

/// Renders the change from the model before the specialized stage to the one after it, as a card for each set of
/// problems, the private ones first, and as a sentence; nothing if the report does not compare them.
pub fn story(report: &Report) -> String {
    let Some((before, after)) = &report.specialization else { return String::new() };
    let mut changes: Vec<Change> =
        report.sets.iter().filter_map(|set| Change::find(set, before, after)).collect();
    // The last set is that of the private problems, where there is one.
    changes.reverse();
    if changes.is_empty() {
        return String::new();
    }
    let cards: String = changes.iter().map(Change::card).collect();
    let sentences: Vec<String> = changes.iter().map(Change::sentence).collect();
    format!(
        "<div class=\"cards\">{cards}</div><p>{} is one adapter with the same weights for every prompt. {}</p>",
        escape(&capitalized(after)),
        sentences.join(" ")
    )
}

/// The difference between two models on one set of problems, with its verdict.
struct Change<'a> {
    set: &'a ProblemSet,
    compared: &'a ModelComparison,
    verdict: Verdict,
    before: &'a ModelResult,
    after: &'a ModelResult,
}

impl<'a> Change<'a> {
    fn find(set: &'a ProblemSet, before: &str, after: &str) -> Option<Self> {
        let pairs = set.differences.iter().zip(set.verdicts());
        let (compared, verdict) = pairs.into_iter().find(|(c, _)| c.from == before && c.to == after)?;
        let result = |name: &str| set.results.iter().find(|r| r.name == name);
        Some(Change { set, compared, verdict, before: result(before)?, after: result(after)? })
    }

    fn card(&self) -> String {
        let points = |share: f64| signed(100.0 * share, 1);
        let interval = &self.compared.difference.interval;
        format!(
            "<div class=\"card\"><b>{}</b><span>points on {}, {} against {}</span><small>{} … {}, {}</small></div>",
            points(interval.value),
            escape(&self.set.name),
            escape(&self.compared.to),
            escape(&self.compared.from),
            points(interval.low),
            points(interval.high),
            significance(&self.verdict),
        )
    }

    fn sentence(&self) -> String {
        let verb = match (self.verdict.is_significant(), self.compared.difference.interval.value > 0.0) {
            (false, _) => "shows no difference that is more than noise",
            (true, true) => "gains",
            (true, false) => "loses",
        };
        format!(
            "On {} it {verb}: {} against {}, {} of {} problems better and {} worse.",
            escape(&self.set.name),
            percent(self.after.pass_at_1),
            percent(self.before.pass_at_1),
            self.compared.difference.wins,
            self.after.problems,
            self.compared.difference.losses,
        )
    }
}

/// Describes a verdict in the words of the table: significant, with its corrected p-value, or noise.
fn significance(verdict: &Verdict) -> String {
    match verdict.is_significant() {
        true if verdict.p < 0.001 => "p &lt; 0.001".into(),
        true => format!("p = {:.3}", verdict.p),
        false => format!("noise: p = {:.3}", verdict.p),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |c| c.to_uppercase().to_string() + letters.as_str())
}
