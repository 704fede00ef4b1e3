//! Pieces of SVG: scales, axes, lines. Colours and fonts come from the style of the page.

use std::fmt::Write;

use crate::labels::{Lang, number};

/// The width of a panel. Two of them are beside each other on a desk, one on a phone, so that
/// letters stay readable.
pub(super) const WIDTH: f64 = 460.0;
pub(super) const HEIGHT: f64 = 300.0;

/// Where the frame of a plot lies in its panel.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

pub(super) const FRAME: Frame =
    Frame { left: 58.0, right: WIDTH - 20.0, top: 26.0, bottom: HEIGHT - 42.0 };

/// From a value to a place.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    pub(super) fn linear(low: f64, high: f64, from: f64, to: f64) -> Scale {
        Scale { low, high: if high > low { high } else { low + 1.0 }, from, to, log: false }
    }

    /// For values above zero; smaller ones than `low` lie at its place.
    pub(super) fn log(low: f64, high: f64, from: f64, to: f64) -> Scale {
        let low = low.max(1e-9);
        Scale { low, high: if high > low { high } else { low * 10.0 }, from, to, log: true }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// Round values, at most about `most`.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        if self.log { self.log_ticks(most) } else { self.linear_ticks(most) }
    }

    fn linear_ticks(&self, most: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / most.max(1) as f64;
        let unit = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * unit);
        let step = steps.into_iter().find(|&step| step >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|count| count as f64 * step).collect()
    }

    fn log_ticks(&self, most: usize) -> Vec<f64> {
        let first = self.low.log10().ceil() as i32;
        let last = (self.high.log10() + 1e-9).floor() as i32;
        let step = ((last - first + 1).max(1) as usize).div_ceil(most.max(1)) as i32;
        (first..=last).step_by(step.max(1) as usize).map(|power| 10f64.powi(power)).collect()
    }
}

/// Text that may stand in HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// The opening tag of a panel. `what` is read to those who do not see it.
pub(super) fn open(height: f64, what: &str) -> String {
    let what = escape(what);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{what}\" \
         xmlns=\"http://www.w3.org/2000/svg\">"
    )
}

#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

pub(super) fn text(out: &mut String, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    let text = escape(text);
    let _ = write!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
    );
}

pub(super) fn rect(out: &mut String, x: f64, y: f64, width: f64, height: f64, class: &str) {
    let _ = write!(
        out,
        "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" \
         class=\"{class}\"/>"
    );
}

pub(super) fn line(out: &mut String, from: (f64, f64), to: (f64, f64), class: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = write!(out, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" class=\"{class}\"/>");
}

/// A line through all points.
pub(super) fn path(out: &mut String, points: &[(f64, f64)], class: &str) {
    let mut d = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        let _ = write!(d, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
    }
    let _ = write!(out, "<path d=\"{d}\" class=\"{class}\"/>");
}

/// A mark whose form says which server it is, as its colour does.
pub(super) fn mark(out: &mut String, x: f64, y: f64, server: &str) {
    let shape = match server {
        "serial" => "M-4 -4L4 4M-4 4L4 -4",
        "threads" => "M-4 -4H4V4H-4Z",
        "offload" => "M0 -5L5 0L0 5L-5 0Z",
        "timer" => "M-5 4H5L0 -5Z",
        "py-threads" => "M-4.5 0H4.5M0 -4.5V4.5",
        "py-asyncio" => "M-5 -4H5L0 5Z",
        _ => "M-4.5 0A4.5 4.5 0 1 1 4.5 0A4.5 4.5 0 1 1 -4.5 0Z",
    };
    let _ = write!(
        out,
        "<path d=\"{shape}\" transform=\"translate({x:.1} {y:.1})\" class=\"m s-{server}\"/>"
    );
}

/// The names of the axes, with what a tick is called.
pub(super) struct Axes<'a> {
    pub(super) x: Scale,
    pub(super) y: Scale,
    pub(super) x_title: &'a str,
    pub(super) y_title: &'a str,
    pub(super) x_ticks: Vec<(f64, String)>,
    pub(super) y_ticks: Vec<(f64, String)>,
}

pub(super) fn axes(out: &mut String, frame: Frame, axes: &Axes<'_>) {
    for (value, name) in &axes.y_ticks {
        let y = axes.y.at(*value);
        line(out, (frame.left, y), (frame.right, y), "grid");
        text(out, frame.left - 6.0, y + 4.5, Anchor::End, "tick", name);
    }
    for (value, name) in &axes.x_ticks {
        let x = axes.x.at(*value);
        line(out, (x, frame.bottom), (x, frame.bottom + 4.0), "axis");
        text(out, x, frame.bottom + 18.0, Anchor::Middle, "tick", name);
    }
    line(out, (frame.left, frame.bottom), (frame.right, frame.bottom), "axis");
    let middle = (frame.left + frame.right) / 2.0;
    text(out, middle, frame.bottom + 36.0, Anchor::Middle, "title", axes.x_title);
    text(out, 4.0, frame.top - 11.0, Anchor::Start, "title", axes.y_title);
}

/// Ticks that are called by their number.
pub(super) fn numbers(values: Vec<f64>, lang: Lang) -> Vec<(f64, String)> {
    values.into_iter().map(|value| (value, number(value, lang))).collect()
}

/// `1k`, `200k`: for an axis.
pub(super) fn thousands(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e3 => format!("{}k", v / 1e3),
        v => format!("{v}"),
    }
}

/// `10 µs`, `1 ms`: for an axis whose ticks are powers of ten.
pub(super) fn times(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} s", v / 1e6),
        v if v >= 1e3 => format!("{} ms", v / 1e3),
        v => format!("{v} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_reaches_from_end_to_end_and_not_beyond() {
        let scale = Scale::linear(0.0, 10.0, 100.0, 0.0);
        assert_eq!([0.0, 5.0, 10.0, 20.0].map(|v| scale.at(v)), [100.0, 50.0, 0.0, 0.0]);
        let log = Scale::log(1.0, 1000.0, 0.0, 300.0);
        assert_eq!([0.0, 1.0, 10.0, 1000.0].map(|v| log.at(v).round()), [0.0, 0.0, 100.0, 300.0]);
    }

    #[test]
    fn ticks_are_round_and_few() {
        let scale = |high| Scale::linear(0.0, high, 0.0, 1.0);
        assert_eq!(scale(191_000.0).ticks(4), [0.0, 50_000.0, 100_000.0, 150_000.0]);
        assert_eq!(scale(1.0).ticks(4), [0.0, 0.5, 1.0]);
        assert_eq!(Scale::log(7.0, 60_000.0, 0.0, 1.0).ticks(9), [10.0, 100.0, 1e3, 1e4]);
        assert_eq!(Scale::log(1.0, 1e6, 0.0, 1.0).ticks(4), [1.0, 100.0, 1e4, 1e6]);
    }

    #[test]
    fn a_range_without_width_has_a_place_for_its_value() {
        assert!(Scale::linear(3.0, 3.0, 0.0, 1.0).at(3.0).is_finite());
        assert!(Scale::log(0.0, 0.0, 0.0, 1.0).at(0.0).is_finite());
    }

    #[test]
    fn text_is_escaped() {
        let mut out = String::new();
        text(&mut out, 0.0, 0.0, Anchor::Start, "a", "<b> & \"c\"");
        assert!(out.contains("&lt;b&gt; &amp; &quot;c&quot;"), "{out}");
    }
}
