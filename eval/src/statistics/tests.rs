//! Compares the statistics with counting, exact distributions and simulated studies.

use super::paired::Estimate;
use super::*;
use approx::{abs_diff_eq, assert_abs_diff_eq};
use codelsi_engine::rng::RngKey;

#[test]
fn pass_at_k_is_the_share_of_subsets_with_a_correct_sample() {
    // By counting: of the 10 pairs out of 5 samples, 2 correct, 3 hold none.
    assert_abs_diff_eq!(pass_at_k(5, 2, 2), 0.7, epsilon = 1e-12);
    assert_abs_diff_eq!(pass_at_k(20, 3, 1), 0.15, epsilon = 1e-12);
    assert_eq!((pass_at_k(5, 0, 3), pass_at_k(5, 3, 3), pass_at_k(5, 5, 5)), (0.0, 1.0, 1.0));
    assert!(pass_at_k(5, 1, 6).is_nan());
}

#[test]
fn the_sign_test_counts_both_tails() {
    assert_abs_diff_eq!(sign_test(6, 0), 2.0 / 64.0, epsilon = 1e-12);
    assert_abs_diff_eq!(sign_test(0, 6), 2.0 / 64.0, epsilon = 1e-12);
    assert_eq!((sign_test(0, 0), sign_test(4, 4)), (1.0, 1.0));
    assert!(sign_test(3000, 2000) < 1e-40);
}

/// Returns every subset of `k` of `n` elements as a bit set.
fn subsets(n: usize, k: usize) -> impl Iterator<Item = u32> {
    (0..1u32 << n).filter(move |set| set.count_ones() as usize == k)
}

#[test]
fn pass_at_k_is_every_subset_counted() {
    for n in 1..=9 {
        for c in 0..=n {
            for k in 1..=n {
                let correct = (1u32 << c) - 1;
                let hits = subsets(n, k).filter(|set| set & correct != 0).count();
                let exact = hits as f64 / subsets(n, k).count() as f64;
                assert!(abs_diff_eq!(pass_at_k(n, c, k), exact, epsilon = 1e-12), "n {n} c {c} k {k}");
            }
        }
    }
}

#[test]
fn the_sign_test_is_every_pattern_of_signs_counted() {
    for n in 1..=10usize {
        for wins in 0..=n {
            let lopsided = |w: usize| w.abs_diff(n - w) >= wins.abs_diff(n - wins);
            let extreme = (0..1u32 << n).filter(|signs| lopsided(signs.count_ones() as usize)).count();
            let exact = extreme as f64 / f64::from(1u32 << n);
            assert!(abs_diff_eq!(sign_test(wins, n - wins), exact, epsilon = 1e-12), "{wins} of {n}");
        }
    }
}

/// Returns scores of which the first `solved` of `n` are 1.
fn solved(solved: usize, n: usize) -> Vec<f64> {
    (0..n).map(|i| f64::from(i < solved)).collect()
}

/// Returns the reason why a difference that stands alone is noise.
fn noise(difference: &PairedDifference) -> Option<String> {
    verdicts([difference]).remove(0).noise
}

fn assert_interval(interval: ConfidenceInterval, low: f64, high: f64) {
    assert!(
        abs_diff_eq!(interval.low, low, epsilon = 5e-5) && abs_diff_eq!(interval.high, high, epsilon = 5e-5),
        "{interval:?}"
    );
}

/// The figures are those of R's `binom.test`.
#[test]
fn one_sample_per_problem_gives_clopper_s_and_pearson_s_interval() {
    assert_interval(proportion_interval(&solved(62, 159), 1), 0.3137, 0.4704);
    assert_interval(proportion_interval(&solved(0, 40), 1), 0.0, 0.0881);
    assert_interval(proportion_interval(&solved(40, 40), 1), 0.9119, 1.0);
    assert_interval(proportion_interval(&solved(1, 10), 1), 0.0025, 0.4450);
}

#[test]
fn an_interval_knows_how_much_the_samples_of_a_problem_resemble_each_other() {
    // Every sample of a problem alike: 20 samples are worth one. Problems alike: nothing shows what they are worth.
    let alike = proportion_interval(&solved(62, 159), 20);
    assert_eq!(alike, proportion_interval(&solved(62, 159), 1));
    let width = |scores: &[f64]| proportion_interval(scores, 20).width();
    let equal = vec![0.35; 40];
    let spread: Vec<f64> = (0..40).map(|i| f64::from(i % 15) / 20.0).collect();
    assert!(width(&spread) < width(&equal));
    assert_eq!(width(&equal), proportion_interval(&equal, 1).width());
    // Samples that are independent are worth as many as there are: R's binom.test(280, 800).
    let independent: Vec<f64> = (0..40).map(|i| [0.3, 0.35, 0.4][i % 3]).collect();
    let value = mean_and_variance(&independent).0;
    assert_interval(proportion_interval(&independent, 20), value - 0.03304, value + 0.03416);
}

#[test]
fn the_interval_of_failures_mirrors_that_of_successes() {
    let scores: Vec<f64> = (0..30).map(|i| f64::from(i % 6) / 5.0 * f64::from(i % 2)).collect();
    let mirrored: Vec<f64> = scores.iter().map(|score| 1.0 - score).collect();
    let (interval, mirror) = (proportion_interval(&scores, 5), proportion_interval(&mirrored, 5));
    assert_interval(interval, 1.0 - mirror.high, 1.0 - mirror.low);
    let of = |a: &[f64], b: &[f64]| paired_difference(a, b, 5).interval;
    let (forth, back) = (of(&scores, &mirrored), of(&mirrored, &scores));
    assert_interval(forth, -back.high, -back.low);
}

#[test]
fn no_study_is_too_small_for_an_interval() {
    for n in 0..4 {
        for scores in [vec![0.0; n], vec![1.0; n], vec![0.5; n]] {
            let single = proportion_interval(&scores, 2);
            let difference = paired_difference(&scores, &scores, 2);
            for interval in [single, difference.interval] {
                assert!(interval.low <= interval.value && interval.value <= interval.high, "{interval:?}");
                assert!(interval.width() > 0.4, "{n} problems: {interval:?}");
            }
            assert!(difference.p() > 0.999 && difference.detectable > 0.4, "{difference:?}");
        }
    }
}

#[test]
fn pairing_sees_what_separate_intervals_do_not() {
    let a: Vec<f64> = (0..100).map(|i| f64::from(i % 2)).collect();
    let b: Vec<f64> = a.iter().enumerate().map(|(i, v)| if i < 20 { 1.0 } else { *v }).collect();
    let difference = paired_difference(&a, &b, 1);
    assert_eq!((difference.wins, difference.losses), (10, 0));
    assert!(difference.interval.low > 0.0);
    assert_abs_diff_eq!(difference.interval.value, 0.1, epsilon = 1e-12);
    let (low, high) = (proportion_interval(&b, 1).low, proportion_interval(&a, 1).high);
    assert!(low < high, "unpaired intervals overlap");
}

/// Bonett's and Price's interval, of eight wins and two losses with one more of each, but with the unbiased variance.
#[test]
fn a_paired_interval_adds_a_win_and_a_loss() {
    let b: Vec<f64> = solved(8, 40);
    let a: Vec<f64> = (0..40).map(|i| f64::from(i >= 38)).collect();
    let center: f64 = 6.0 / 42.0;
    let mean: f64 = 6.0 / 40.0;
    let squares = 40.0 * (10.0 - 40.0 * mean * mean) / 39.0 + 40.0 * mean * mean + 2.0;
    let half = t_quantile(0.975, 41) * ((squares / 42.0 - center * center) / 42.0).sqrt();
    assert_interval(paired_difference(&a, &b, 1).interval, center - half, center + half);
}

#[test]
fn a_paired_interval_does_not_collapse_where_nothing_differs() {
    for (n, half) in [(10, 0.26), (40, 0.068), (159, 0.0174)] {
        let difference = paired_difference(&solved(n / 2, n), &solved(n / 2, n), 1);
        assert_abs_diff_eq!(difference.interval.high, half, epsilon = half / 50.0);
        assert_eq!(difference.interval.low, -difference.interval.high);
        // The smallest detectable difference lies beyond the half width.
        assert!(difference.detectable > half);
    }
}

#[test]
fn a_true_difference_of_the_detectable_size_shows_four_times_in_five() {
    const STUDIES: u32 = 2000;
    const PROBLEMS: u32 = 159;
    // Of the problems, a share is won and a tenth is lost.
    let study = |study: u32, won: f32| {
        let key = RngKey { seed: 11, step: study, site: 0 };
        let outcome = |i: u32| (key.uniform(i, 0) > 0.9, key.uniform(i, 0) < won);
        let scores = (0..PROBLEMS).map(outcome).map(|(a, b)| (f64::from(a), f64::from(b)));
        let (a, b): (Vec<f64>, Vec<f64>) = scores.unzip();
        paired_difference(&a, &b, 1)
    };
    let won = 0.225;
    let detectable = (0..STUDIES).map(|i| study(i, won).detectable).sum::<f64>() / f64::from(STUDIES);
    assert_abs_diff_eq!(detectable, f64::from(won) - 0.1, epsilon = 0.005);
    let shown = (0..STUDIES).filter(|&i| study(i, won).interval.low > 0.0).count();
    assert_abs_diff_eq!(shown as f64 / f64::from(STUDIES), 0.8, epsilon = 0.03);
}

#[test]
fn the_p_value_is_where_the_interval_ends_at_zero() {
    for wins in [3, 6, 9, 14] {
        let difference = paired_difference(&solved(0, 60), &solved(wins, 60), 1);
        let estimate = Estimate::new(&solved(0, 60), &solved(wins, 60), 1);
        let end = estimate.interval(t_quantile(1.0 - difference.t_test.unwrap() / 2.0, estimate.freedom)).low;
        assert_abs_diff_eq!(end, 0.0, epsilon = 1e-6);
        assert!(difference.p() >= difference.sign_test && difference.p() >= difference.t_test.unwrap());
    }
}

#[test]
fn several_comparisons_in_one_table_are_corrected() {
    // Alone, seven wins without a loss are significant; among three comparisons they are not.
    let gain = paired_difference(&solved(0, 159), &solved(7, 159), 1);
    let same = paired_difference(&solved(9, 159), &solved(9, 159), 1);
    assert_eq!(noise(&gain), None);
    let table = verdicts([&same, &gain, &same]);
    assert_abs_diff_eq!(table[1].p, 3.0 * gain.p(), epsilon = 1e-12);
    let text = table[1].noise.clone().unwrap();
    assert!(
        text.contains("by Holm over 3 comparisons") && text.contains("7 problems better, 0 worse"),
        "{text}"
    );
    assert!(verdicts(&[]).is_empty());
}

#[test]
fn holm_s_p_values_are_the_published_ones() {
    // R's p.adjust(c(.01, .04, .03, .005), "holm").
    let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
    for (ours, published) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        assert_abs_diff_eq!(*ours, published, epsilon = 1e-12);
    }
}

#[test]
fn a_difference_of_an_earlier_version_is_read_and_judged() {
    let text = r#"{"interval":{"value":0.1,"low":0.02,"high":0.2},"wins":9,"losses":0,"sign_test":0.004,"detectable":0.1}"#;
    let clear: PairedDifference = serde_json::from_str(text).unwrap();
    assert_eq!(noise(&clear), None);
    let zero = ConfidenceInterval { low: -0.01, ..clear.interval };
    assert!(noise(&PairedDifference { interval: zero, ..clear }).unwrap().contains("p = 1.000"));
}

/// The paper reports 42.0 % against 39.0 % on 159 problems: 67 solved against 62. The gain is not significant for any
/// overlap of the two sets of solved problems, not even for the most favourable one (no problem lost).
#[test]
fn the_papers_gain_is_not_significant_for_any_overlap_of_solved_problems() {
    let shares = [(62.0 / 159.0, 0.390), (67.0 / 159.0, 0.420)];
    shares.iter().for_each(|(ours, paper)| assert_abs_diff_eq!(ours, paper, epsilon = 0.5 / 159.0));
    for lost in 0..=62 {
        let a: Vec<f64> = (0..159).map(|i| f64::from(i < 62)).collect();
        let b: Vec<f64> = (0..159).map(|i| f64::from(i >= lost && i < lost + 67)).collect();
        let difference = paired_difference(&a, &b, 1);
        assert_eq!((difference.wins, difference.losses), (5 + lost, lost));
        assert!(noise(&difference).is_some_and(|w| w.starts_with("not significant")), "lost {lost}");
    }
}

#[test]
fn a_clear_gain_or_loss_is_significant_and_no_difference_is_not() {
    let (none, some) = (solved(0, 159), solved(12, 159));
    let reason = |a: &[f64], b: &[f64]| noise(&paired_difference(a, b, 1));
    assert_eq!((reason(&none, &some), reason(&some, &none)), (None, None));
    assert!(reason(&some, &some).unwrap().contains("every problem has the same score"));
}
