//! Progress on stderr.

use codelsi_model::checkpoint::LoadProgress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

/// All progress bars of this process, so that a line is never printed through them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Prints a text on stderr, above the progress bars that are shown.
pub fn note(text: &str) {
    BARS.suspend(|| eprintln!("{text}"));
}

/// The terminal that progress is shown on.
pub struct Output {
    terminal: bool,
}

impl Output {
    /// Shows progress bars if stderr is a terminal, plain lines otherwise.
    pub fn detect() -> Self {
        Output { terminal: std::io::stderr().is_terminal() }
    }

    /// Starts a progress bar over `total` units.
    pub fn bar(&self, name: &str, total: usize) -> Bar {
        let bar = match self.terminal {
            true => BARS.add(ProgressBar::new(total as u64)),
            false => ProgressBar::hidden(),
        };
        // The name and the message are shortened to what the terminal's width leaves.
        let style = ProgressStyle::with_template("{prefix:>16!} {bar:16} {pos}/{len} {eta} {wide_msg}");
        bar.set_style(style.expect("the template is well formed"));
        bar.set_prefix(name.to_owned());
        let now = Instant::now();
        Bar {
            bar,
            name: name.into(),
            total,
            done: Cell::new(0),
            plain: !self.terminal,
            last_line: Cell::new(now),
        }
    }

    /// Returns a callback that shows the loading of weights and, at the end, its rate.
    pub fn load_progress(&self) -> LoadProgress {
        let (started, shown) = (Instant::now(), Mutex::new((0, None)));
        let out = Output { terminal: self.terminal };
        Box::new(move |done, total| {
            let mut shown = shown.lock().unwrap_or_else(|e| e.into_inner());
            let (latest, bar) = &mut *shown;
            // Several threads report, and their reports may arrive out of order.
            if done <= *latest {
                return;
            }
            *latest = done;
            let rate = format!("{:.1} GB/s", done as f64 / started.elapsed().as_secs_f64() / 1e9);
            let bar = bar.get_or_insert_with(|| out.bar("load", total >> 20));
            bar.update(done >> 20, &rate);
            if done == total {
                bar.finish();
                note(&format!("loaded {:.2} GB at {rate}", total as f64 / 1e9));
            }
        })
    }
}

/// Progress of one stage.
pub struct Bar {
    bar: ProgressBar,
    name: String,
    total: usize,
    done: Cell<usize>,
    plain: bool,
    last_line: Cell<Instant>,
}

impl Bar {
    /// Adds `n` units.
    pub fn add(&self, n: usize) {
        self.update(self.done.get() + n, "");
    }

    /// Sets the number of units that are done, and the message next to it.
    pub fn update(&self, done: usize, message: &str) {
        self.done.set(done);
        self.bar.set_position(done as u64);
        self.bar.set_message(message.to_owned());
        // Without a terminal, print a line every few seconds.
        if self.plain && self.last_line.get().elapsed() > Duration::from_secs(5) {
            self.last_line.set(Instant::now());
            eprintln!("{}: {done}/{} {message}", self.name, self.total);
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
