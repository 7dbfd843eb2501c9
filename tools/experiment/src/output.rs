//! What commands print: progress on stderr, results on stdout, one JSON object as the last line where asked for.

use codelsi_model::checkpoint::LoadProgress;
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A command's output.
pub struct Output {
    terminal: bool,
}

impl Output {
    /// Bars when stderr is a terminal, plain lines otherwise.
    pub fn detect() -> Self {
        Output { terminal: std::io::stderr().is_terminal() }
    }

    /// A progress bar over `total` units.
    pub fn bar(&self, name: &str, total: usize) -> Bar {
        let bar = match self.terminal {
            true => ProgressBar::new(total as u64),
            false => ProgressBar::hidden(),
        };
        let style =
            ProgressStyle::with_template("{prefix:>12} {bar:30} {pos}/{len} {per_sec} {msg} eta {eta}");
        bar.set_style(style.expect("the template is well formed"));
        bar.set_prefix(name.to_owned());
        let now = Instant::now();
        Bar { bar, name: name.into(), total, done: Cell::new(0), plain: !self.terminal, said: Cell::new(now) }
    }

    /// Shows weights on their way to a device, and at the end how fast they came.
    pub fn loading(&self) -> LoadProgress {
        let (started, shown) = (Instant::now(), Mutex::new((0, None)));
        let out = Output { terminal: self.terminal };
        Box::new(move |done, total| {
            let mut shown = shown.lock().unwrap_or_else(|e| e.into_inner());
            let (before, bar) = &mut *shown;
            // Several threads tell of what they have read, and may come in another order.
            if done <= *before {
                return;
            }
            *before = done;
            let rate = format!("{:.1} GB/s", done as f64 / started.elapsed().as_secs_f64() / 1e9);
            let bar = bar.get_or_insert_with(|| out.bar("load", total >> 20));
            bar.at(done >> 20, &rate);
            if done == total {
                bar.finish();
                eprintln!("loaded {:.2} GB at {rate}", total as f64 / 1e9);
            }
        })
    }

    /// Prints `value` as one line when `wanted`.
    pub fn json(&self, wanted: bool, value: &serde_json::Value) {
        if wanted {
            println!("{value}");
        }
    }
}

/// Progress of one stage.
pub struct Bar {
    bar: ProgressBar,
    name: String,
    total: usize,
    done: Cell<usize>,
    plain: bool,
    said: Cell<Instant>,
}

impl Bar {
    /// `n` more units are done.
    pub fn add(&self, n: usize) {
        self.at(self.done.get() + n, "");
    }

    /// `done` units are done; `message` stands beside them.
    pub fn at(&self, done: usize, message: &str) {
        self.done.set(done);
        self.bar.set_position(done as u64);
        self.bar.set_message(message.to_owned());
        // Without a terminal, a line every few seconds.
        if self.plain && self.said.get().elapsed() > Duration::from_secs(5) {
            self.said.set(Instant::now());
            eprintln!("{}: {done}/{} {message}", self.name, self.total);
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
