//! Simulates studies whose truth is known, and counts how often the 95 % intervals contain it.
//!
//! A problem has a rate, drawn from a beta distribution; its samples pass at that rate, so two samples of one problem have
//! the correlation of the distribution. Each cell of the grid is one study, repeated.

use super::paired::Estimate;
use super::{ConfidenceInterval, proportion_interval, t_quantile};
use rayon::prelude::*;
use statrs::distribution::{Beta, Binomial, ContinuousCDF, Discrete};
use std::collections::HashMap;

const PROBLEMS: [usize; 3] = [10, 40, 159];
const SAMPLES: [usize; 3] = [1, 5, 20];
const CORRELATIONS: [f64; 3] = [0.0, 0.3, 0.9];
/// Means up to one half; the others are their mirrors, and the intervals of a mirrored study are mirrored.
const MEANS: [f64; 13] = [0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5];
const DIFFERENCES: [f64; 5] = [0.0, 0.02, 0.05, 0.1, 0.3];
/// Points at which a distribution of rates is evaluated.
const RATES: usize = 400;

/// Repetitions of a study.
fn repetitions() -> usize {
    if std::env::var_os("CODELSI_FULL").is_some() { 20_000 } else { 3_000 }
}

/// The rates of problems at equally probable points of their distribution, lowest first.
fn rates(mean: f64, correlation: f64) -> Vec<f64> {
    if correlation == 0.0 || mean == 0.0 || mean == 1.0 {
        return vec![mean; RATES];
    }
    let spread = 1.0 / correlation - 1.0;
    let beta = Beta::new(mean * spread, (1.0 - mean) * spread).unwrap();
    (0..RATES).map(|i| quantile(&beta, (i as f64 + 0.5) / RATES as f64)).collect()
}

/// Returns a quantile of a beta distribution; by bisection where Newton's steps fail, as they do for very small parameters.
fn quantile(beta: &Beta, probability: f64) -> f64 {
    let x = beta.inverse_cdf(probability);
    if (0.0..=1.0).contains(&x) && (beta.cdf(x) - probability).abs() < 1e-6 {
        return x;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if beta.cdf(middle) < probability { low = middle } else { high = middle }
    }
    low
}

fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len() as f64
}

/// Returns the probability of each number of passing samples, by rate.
fn passing(rates: &[f64], samples: usize) -> Vec<Vec<f64>> {
    let of_rate = |&rate: &f64| {
        let binomial = Binomial::new(rate, samples as u64).unwrap();
        (0..=samples as u64).map(|passing| binomial.pmf(passing)).collect()
    };
    rates.iter().map(of_rate).collect()
}

/// Draws from a discrete distribution in constant time (Walker's alias method).
struct Sampler {
    /// Share of its own column that an outcome keeps, and the outcome that has the rest.
    columns: Vec<(f64, usize)>,
}

impl Sampler {
    fn new(probabilities: &[f64]) -> Self {
        let n = probabilities.len();
        let sum: f64 = probabilities.iter().sum();
        let mut share: Vec<f64> = probabilities.iter().map(|p| p * n as f64 / sum).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| share[i] < 1.0);
        let mut columns: Vec<(f64, usize)> = (0..n).map(|i| (1.0, i)).collect();
        while let (Some(&from), Some(to)) = (large.last(), small.pop()) {
            columns[to] = (share[to], from);
            share[from] -= 1.0 - share[to];
            if share[from] < 1.0 {
                large.pop();
                small.push(from);
            }
        }
        Sampler { columns }
    }

    fn draw(&self, random: &mut SplitMix) -> usize {
        let word = random.next();
        let column = (((word >> 32) * self.columns.len() as u64) >> 32) as usize;
        let (kept, other) = self.columns[column];
        if f64::from(word as u32) < kept * 2f64.powi(32) { column } else { other }
    }
}

/// The generator SplitMix64.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Runs `study` for each number of problems and samples and each correlation, in parallel.
fn over_designs(study: impl Fn(usize, usize, f64) + Sync) {
    let designs = PROBLEMS.iter().flat_map(|&n| SAMPLES.map(|m| CORRELATIONS.map(|r| (n, m, r)))).flatten();
    designs.collect::<Vec<_>>().into_par_iter().for_each(|(n, m, correlation)| study(n, m, correlation));
}

fn average(coverage: &[f64]) -> f64 {
    coverage.iter().sum::<f64>() / coverage.len() as f64
}

fn contains(interval: ConfidenceInterval, truth: f64) -> bool {
    interval.low <= truth + 1e-12 && truth <= interval.high + 1e-12
}

/// Returns the share of studies whose interval contains the true mean.
fn proportion_coverage(problems: usize, samples: usize, rates: &[f64]) -> f64 {
    let passing = passing(rates, samples);
    let pooled: Vec<f64> = (0..=samples).map(|k| passing.iter().map(|of_rate| of_rate[k]).sum()).collect();
    let (sampler, truth) = (Sampler::new(&pooled), mean(rates));
    let mut random = SplitMix(problems as u64);
    let mut intervals: HashMap<Vec<usize>, bool> = HashMap::new();
    let study = |_| {
        let mut counts = vec![0; samples + 1];
        (0..problems).for_each(|_| counts[sampler.draw(&mut random)] += 1);
        let scores = |counts: &[usize]| -> Vec<f64> {
            let of = |(k, n): (usize, &usize)| std::iter::repeat_n(k as f64 / samples as f64, *n);
            counts.iter().enumerate().flat_map(of).collect()
        };
        *intervals
            .entry(counts)
            .or_insert_with_key(|counts| contains(proportion_interval(&scores(counts), samples), truth))
    };
    (0..repetitions()).map(study).filter(|covered| *covered).count() as f64 / repetitions() as f64
}

#[test]
fn the_interval_of_a_share_contains_the_truth_and_is_not_too_wide() {
    over_designs(|problems, samples, correlation| {
        let cell = |&p: &f64| proportion_coverage(problems, samples, &rates(p, correlation));
        let coverage: Vec<f64> = MEANS.iter().map(cell).collect();
        let design =
            format!("{problems} problems, {samples} samples, correlation {correlation}: {coverage:.4?}");
        assert!(coverage.iter().all(|c| *c >= 0.93), "{design}");
        let most = if problems == 10 { 0.99 } else { 0.985 };
        assert!(average(&coverage[3..]) <= most, "{design}");
    });
}

/// Relation between the difficulty of a problem for one model and for the other.
#[derive(Clone, Copy, Debug)]
enum Coupling {
    Independent,
    /// Both models find the same problems difficult, in the same order.
    SameOrder,
}

/// Returns the share of studies whose paired interval contains the true difference of two models.
fn paired_coverage(problems: usize, samples: usize, rates: [&[f64]; 2], coupling: Coupling) -> f64 {
    let [a, b] = rates.map(|rates| passing(rates, samples));
    let pooled = |passing: &[Vec<f64>], k: usize| passing.iter().map(|of_rate| of_rate[k]).sum::<f64>();
    let outcomes =
        (0..(samples + 1).pow(2)).map(|outcome| (outcome / (samples + 1), outcome % (samples + 1)));
    let probability = |(i, j): (usize, usize)| match coupling {
        Coupling::Independent => pooled(&a, i) * pooled(&b, j),
        Coupling::SameOrder => a.iter().zip(&b).map(|(a, b)| a[i] * b[j]).sum::<f64>(),
    };
    let sampler = Sampler::new(&outcomes.clone().map(probability).collect::<Vec<_>>());
    let outcomes: Vec<[f64; 2]> =
        outcomes.map(|(i, j)| [i, j].map(|passing| passing as f64 / samples as f64)).collect();
    let truth = mean(rates[1]) - mean(rates[0]);
    let mut random = SplitMix(problems as u64);
    let t = t_quantile(0.975, Estimate::new(&vec![0.0; problems], &vec![0.0; problems], samples).freedom);
    let study = |_: &usize| {
        let drawn = (0..problems).map(|_| outcomes[sampler.draw(&mut random)]);
        let (a, b): (Vec<f64>, Vec<f64>) = drawn.map(|[a, b]| (a, b)).unzip();
        contains(Estimate::new(&a, &b, samples).interval(t), truth)
    };
    (0..repetitions()).filter(study).count() as f64 / repetitions() as f64
}

#[test]
fn the_paired_interval_contains_the_true_difference_and_is_not_too_wide() {
    over_designs(|problems, samples, correlation| {
        let rates: HashMap<u64, Vec<f64>> = MEANS
            .iter()
            .flat_map(|p| DIFFERENCES.map(|d| p + d))
            .map(|p| (p.to_bits(), rates(p, correlation)))
            .collect();
        let of = |p: f64| &rates[&p.to_bits()][..];
        let (mut large, mut total) = (Vec::new(), 0);
        // The other half of the pairs are these with the models exchanged or mirrored.
        for (p, d) in
            MEANS.iter().flat_map(|&p| DIFFERENCES.map(|d| (p, d))).filter(|(p, d)| 2.0 * p + d <= 1.0)
        {
            for coupling in [Coupling::Independent, Coupling::SameOrder] {
                let coverage = paired_coverage(problems, samples, [of(p), of(p + d)], coupling);
                assert!(
                    coverage >= 0.93,
                    "{problems} problems, {samples} samples, correlation {correlation}, {p} against {}, {coupling:?}: {coverage}",
                    p + d
                );
                total += 1;
                large.extend((d >= 0.1).then_some(coverage));
            }
        }
        assert!(
            total > 80 && average(&large) <= 0.99,
            "{problems} problems, {samples} samples, {correlation}: {}",
            average(&large)
        );
    });
}
