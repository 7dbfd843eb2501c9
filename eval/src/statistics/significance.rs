//! The one rule that decides which differences are noise: in text, table and chart alike.

use super::PairedDifference;

/// Share of tables without a true difference in which one may be claimed.
pub const ALPHA: f64 = 0.05;

/// The verdict on one difference of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// p-value, corrected for the number of differences in the table.
    pub p: f64,
    /// The reason why no gain or loss may be claimed; `None` if the difference is significant.
    pub noise: Option<String>,
}

impl Verdict {
    /// Returns true if a gain or loss may be claimed.
    pub fn is_significant(&self) -> bool {
        self.noise.is_none()
    }
}

/// Judges all differences of one table together: a difference is significant if its [`PairedDifference::p`], corrected by
/// [`holm`] for the number of differences, is at most [`ALPHA`].
pub fn verdicts<'a>(table: impl IntoIterator<Item = &'a PairedDifference>) -> Vec<Verdict> {
    let table: Vec<&PairedDifference> = table.into_iter().collect();
    let corrected = holm(&table.iter().map(|difference| difference.p()).collect::<Vec<_>>());
    let verdict = |(difference, p): (&&PairedDifference, f64)| {
        let noise = (p.is_nan() || p > ALPHA).then(|| noise(difference, p, table.len()));
        Verdict { p, noise }
    };
    table.iter().zip(corrected).map(verdict).collect()
}

fn noise(difference: &PairedDifference, p: f64, comparisons: usize) -> String {
    let PairedDifference { interval, wins, losses, detectable, .. } = difference;
    let (width, detectable) = (100.0 * interval.width(), 100.0 * detectable);
    let corrected = match comparisons {
        1 => String::new(),
        n => format!(" by Holm over {n} comparisons"),
    };
    let reason = match wins + losses {
        0 => "every problem has the same score".into(),
        _ => format!("p = {p:.3}{corrected}; {wins} problems better, {losses} worse"),
    };
    format!(
        "not significant: {reason}; the interval is {width:.1} points wide, and a difference below {detectable:.1} points \
         is not detectable"
    )
}

/// Corrects p-values by Holm's step-down rule, so that the probability of any false claim among all stays at the level.
///
/// ```
/// // The smallest of three is multiplied by three, the next by two; none becomes smaller than one before it.
/// assert_eq!(codelsi_eval::statistics::holm(&[0.25, 0.125, 0.25]), [0.5, 0.375, 0.5]);
/// ```
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let mut corrected = vec![0.0; p.len()];
    let mut largest = 0f64;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max((p.len() - rank) as f64 * p[i]).min(1.0);
        corrected[i] = largest;
    }
    corrected
}
