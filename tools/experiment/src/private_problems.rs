//! Problems of the private repository that the run makes itself: functions held out from training, run by a judge.

use crate::problems::{VerifiedProblems, count_lines, make_verified};
use crate::stages::Stages;
use codelsi_engine::Result;
use codelsi_eval::report::CurationSummary;
use codelsi_model::jsonl;
use codelsi_train::data::take_evenly;
use std::time::Instant;

/// With fewer problems nothing can be told apart; held-out rows serve instead.
const MIN_PROBLEMS: usize = 8;

impl Stages<'_> {
    /// Where no private problems are given, holds out at most `most` of the private repository's functions with examples as
    /// problems: evenly spread, and at most half of its functions, so that there is something left to train on. The curation
    /// afterwards drops what repeats one of them. With fewer than 8 the run goes on without, and the report says so.
    ///
    /// # Errors
    /// When a source cannot be read, the judge fails, or the file cannot be written.
    pub fn make_private_problems(&mut self, most: usize) -> Result<()> {
        if self.private_problems().is_some() {
            return Ok(());
        }
        let started = Instant::now();
        let verdicts = self.path("private-problems.verdicts.jsonl");
        let made = make_verified(&self.sources().private, &[], &self.experiment.judge, &verdicts, self.out)?;
        let VerifiedProblems { problems, mut counts, .. } = made;
        let verified = problems.len();
        let most = most.min(counts.functions / 2);
        let told = count_lines(&counts, verified).map(|(n, what)| format!("{n} {what}")).join(", ");
        let dropped: Vec<String> = counts.dropped.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        let held_out = take_evenly(problems, most);
        let used = if held_out.len() < MIN_PROBLEMS { 0 } else { held_out.len() };
        let outcome = match used {
            0 => format!("fewer than {MIN_PROBLEMS} can be held out, so rows are held out instead"),
            used => format!("{used} are held out"),
        };
        let note = format!("Private problems: {told}; {outcome}. Dropped: {}.", dropped.join(", "));
        eprintln!("{note}");
        self.report.notes.push(note);
        counts.dropped.insert("left-for-training".into(), verified - used);
        self.report.curation.push(CurationSummary {
            name: "private problems".into(),
            read: counts.functions,
            kept: used,
            dropped: counts.dropped.into_iter().collect(),
        });
        if used > 0 {
            let path = self.path("private-problems.jsonl");
            jsonl::write(&path, &held_out)?;
            self.made_problems = Some(path);
        }
        self.time("make private problems", started);
        Ok(())
    }
}
