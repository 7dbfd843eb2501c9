//! The parts that all charts share: marks, scales, ticks, number formats.

use std::fmt::Write;

/// An SVG image under construction; lengths are in its own units, a page column is 720 wide.
pub struct Svg {
    width: f64,
    height: f64,
    marks: String,
}

/// The part of a text that is placed at its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub fn new(width: f64, height: f64) -> Self {
        Svg { width, height, marks: String::new() }
    }

    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = write!(
            self.marks,
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        );
    }

    /// Draws a rectangle with a tooltip.
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (w, h): (f64, f64), hint: &str) {
        let hint = escape(hint);
        let _ = write!(
            self.marks,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{h:.1}"><title>{hint}</title></rect>"#,
            w.max(0.0)
        );
    }

    /// Draws a cell filled with its model's colour at opacity `share`; `link` is the id of the page element that it
    /// links to.
    pub fn cell(
        &mut self,
        class: &str,
        (x, y): (f64, f64),
        (w, h): (f64, f64),
        share: f64,
        hint: &str,
        link: Option<String>,
    ) {
        let hint = escape(hint);
        let (open, close) = match link {
            Some(id) => (format!("<a href=\"#{id}\">"), "</a>"),
            None => (String::new(), ""),
        };
        let _ = write!(
            self.marks,
            r#"{open}<rect class="cell" x="{x:.2}" y="{y:.1}" width="{w:.2}" height="{h:.1}"/><rect class="{class}" fill-opacity="{share:.2}" x="{x:.2}" y="{y:.1}" width="{w:.2}" height="{h:.1}"><title>{hint}</title></rect>{close}"#,
        );
    }

    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64, hint: &str) {
        let hint = escape(hint);
        let _ = write!(
            self.marks,
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius}"><title>{hint}</title></circle>"#
        );
    }

    pub fn path(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut d = String::new();
        for (i, (x, y)) in points.into_iter().enumerate() {
            let _ = write!(d, "{}{x:.1},{y:.1}", if i == 0 { "M" } else { "L" });
        }
        let _ = write!(self.marks, r#"<path class="{class}" d="{d}"/>"#);
    }

    pub fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        let _ = write!(
            self.marks,
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        );
    }

    /// Returns the SVG element, with `label` as its description for screen readers.
    pub fn finish(self, label: &str) -> String {
        let (label, marks) = (escape(label), self.marks);
        let (w, h) = (self.width, self.height);
        format!(r#"<svg viewBox="0 0 {w} {h:.0}" role="img" aria-label="{label}">{marks}</svg>"#)
    }
}

/// A linear map from a range of values to a range of positions.
#[derive(Clone, Copy)]
pub struct Scale {
    pub from: (f64, f64),
    pub to: (f64, f64),
}

impl Scale {
    pub fn at(&self, value: f64) -> f64 {
        let span = (self.from.1 - self.from.0).abs().max(f64::MIN_POSITIVE);
        self.to.0 + (value - self.from.0) / span * (self.to.1 - self.to.0)
    }
}

/// Returns about `count` round values over a range, and the number of decimals to print them with.
pub fn ticks(low: f64, high: f64, count: usize) -> (Vec<f64>, usize) {
    let raw = ((high - low) / count as f64).max(1e-9);
    let magnitude = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * magnitude).find(|s| *s >= raw * 0.999);
    let step = step.unwrap_or(10.0 * magnitude);
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    let decimals = (0..6).find(|&d| (step * 10f64.powi(d)).fract().abs() < 1e-6).unwrap_or(6) as usize;
    ((first..=last).map(|i| i as f64 * step).collect(), decimals)
}

/// Returns the CSS class of a model's colour, which is the same in every chart.
pub fn colour(index: usize) -> String {
    format!("c{}", index % 6)
}

/// Shortens a name to at most `max` characters by an ellipsis in its middle.
pub fn short(name: &str, max: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= max {
        return name.to_string();
    }
    let (head, tail) = (max / 2, max - 1 - max / 2);
    chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
}

/// Formats `0.417` as `41.7 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1}\u{202f}%", 100.0 * share)
}

/// Formats a number with thousands separators.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Formats a number of bytes as `50.2 MiB` or `29.2 GiB`.
pub fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

/// Formats `3725.2` seconds as `1 h 02 min`.
pub fn duration(seconds: f64) -> String {
    let rounded = seconds.round() as u64;
    match rounded {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{rounded} s"),
        60..3600 => format!("{} min {:02} s", rounded / 60, rounded % 60),
        _ => format!("{} h {:02} min", rounded / 3600, rounded / 60 % 60),
    }
}

/// Escapes text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
