//! Counters and histograms, in Prometheus' text form.

use codelsi_model::generate::EngineStats;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper limits of the histograms' buckets, in seconds.
const BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A histogram of durations.
#[derive(Default)]
struct Histogram {
    /// Observations of each bucket alone, the last beyond all limits.
    counts: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let bucket = BUCKETS.iter().position(|&limit| time.as_secs_f64() <= limit).unwrap_or(BUCKETS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn write(&self, out: &mut Exposition, name: &str, help: &str) {
        out.head(name, "histogram", help);
        let mut total = 0;
        for (i, count) in self.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let limit = BUCKETS.get(i).map_or("+Inf".into(), f64::to_string);
            out.line(&format!("{name}_bucket{{le=\"{limit}\"}}"), total as f64);
        }
        out.line(&format!("{name}_sum"), self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9);
        out.line(&format!("{name}_count"), total as f64);
    }
}

/// Times of tokens.
#[derive(Default)]
pub struct Latencies {
    first: Histogram,
    between: Histogram,
}

impl Latencies {
    /// Counts the time from a request to its first token.
    pub fn first_token(&self, time: Duration) {
        self.first.observe(time);
    }

    /// Counts the time between two tokens of a sample.
    pub fn between_tokens(&self, time: Duration) {
        self.between.observe(time);
    }
}

/// Responses by route and status, and the rate of tokens.
pub struct HttpMetrics {
    responses: Mutex<BTreeMap<(String, u16), u64>>,
    /// Tokens generated at the last reading, its time, and the rate then.
    rate: Mutex<(u64, Instant, f64)>,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        HttpMetrics { responses: Mutex::default(), rate: Mutex::new((0, Instant::now(), 0.0)) }
    }
}

impl HttpMetrics {
    /// Counts a response. `route` is one of the server's own routes, never a client's text.
    pub fn count(&self, route: &str, status: u16) {
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        *responses.entry((route.to_owned(), status)).or_default() += 1;
    }

    /// Tokens per second since the reading before, if that is a second ago, else the rate of that one.
    fn tokens_per_second(&self, generated: u64) -> f64 {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, since, latest) = *rate;
        let seconds = since.elapsed().as_secs_f64();
        if seconds < 1.0 {
            return latest;
        }
        let now = generated.saturating_sub(before) as f64 / seconds;
        *rate = (generated, Instant::now(), now);
        now
    }

    /// Writes all metrics.
    pub fn exposition(&self, stats: &EngineStats, latencies: &Latencies) -> String {
        let mut out = Exposition::default();
        out.counter(
            "prefill_tokens_total",
            "Tokens computed for prompts, and for what was preempted.",
            stats.prefill_tokens,
        );
        out.counter("generation_tokens_total", "Generated tokens.", stats.generated_tokens);
        let rate = self.tokens_per_second(stats.generated_tokens);
        out.gauge(
            "generation_tokens_per_second",
            "Generated tokens per second since the last reading.",
            rate,
        );
        out.gauge("num_sequences_running", "Sequences that run.", stats.running as f64);
        out.gauge("num_sequences_waiting", "Sequences that wait.", stats.waiting as f64);
        out.gauge("kv_pages_used", "Pages of the KV cache in use.", stats.pages_used as f64);
        out.gauge("kv_pages_free", "Pages of the KV cache that are free.", stats.pages_free as f64);
        out.gauge("kv_pages_cached", "Free pages that hold a prefix.", stats.pages_cached as f64);
        out.counter(
            "prefix_cache_hit_tokens_total",
            "Prompt tokens found in the prefix cache.",
            stats.prefix_hit_tokens,
        );
        out.counter(
            "num_preemptions_total",
            "Sequences that gave up their pages for a while.",
            stats.preemptions,
        );
        latencies.first.write(&mut out, "codelsi_time_to_first_token_seconds", "Time to the first token.");
        latencies.between.write(&mut out, "codelsi_inter_token_latency_seconds", "Time between two tokens.");
        out.head("codelsi_http_responses_total", "counter", "Responses by route and status.");
        for ((route, status), count) in &*self.responses.lock().unwrap_or_else(PoisonError::into_inner) {
            let name = format!("codelsi_http_responses_total{{route=\"{route}\",status=\"{status}\"}}");
            out.line(&name, *count as f64);
        }
        out.text
    }
}

/// A text that Prometheus reads.
#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes any text");
    }

    fn line(&mut self, name: &str, value: f64) {
        writeln!(self.text, "{name} {value}").expect("a string takes any text");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let name = format!("codelsi_{name}");
        self.head(&name, "counter", help);
        self.line(&name, value as f64);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let name = format!("codelsi_{name}");
        self.head(&name, "gauge", help);
        self.line(&name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_s_buckets_are_cumulative() {
        let latencies = Latencies::default();
        for milliseconds in [1, 3, 20, 1_000_000] {
            latencies.first_token(Duration::from_millis(milliseconds));
        }
        let text = HttpMetrics::default().exposition(&EngineStats::default(), &latencies);
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        let bucket =
            |limit: &str| value(&format!("codelsi_time_to_first_token_seconds_bucket{{le=\"{limit}\"}}"));
        assert_eq!([bucket("0.001"), bucket("0.005"), bucket("300"), bucket("+Inf")], [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(value("codelsi_time_to_first_token_seconds_count"), 4.0);
        assert!((value("codelsi_time_to_first_token_seconds_sum") - 1000.024).abs() < 1e-9);
    }
}
