//! Rate and latency over time, as a picture. Written by hand: two panels of lines need no library.

use std::fmt::Write as _;

use crate::measure::{Measured, Second};

/// The picture's size.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 480.0;
/// Where panels begin, and how large they are.
const LEFT: f64 = 70.0;
const ACROSS: f64 = 800.0;
const UP: f64 = 170.0;
/// Figures on the axis of time, at most.
const FIGURES: f64 = 12.0;

/// A line: its name, its colour, its points by second.
type Line = (&'static str, &'static str, Vec<(f64, f64)>);

/// The picture, as SVG.
pub(crate) fn svg(title: &str, measured: &Measured) -> String {
    let end = measured.seconds.keys().last().map_or(1, |last| last + 1) as f64;
    let rates = |count: fn(&Second) -> u64| {
        let seconds = 0..end as u64;
        let rate = |second| measured.seconds.get(&second).map_or(0.0, |second| count(second) as f64);
        seconds.map(|second| (second as f64 + 0.5, rate(second))).collect()
    };
    let latencies = |percentile| {
        let seconds = measured.seconds.iter();
        let known =
            seconds.filter_map(|(at, second)| Some((*at as f64 + 0.5, f64::from(second.percentile(percentile)?))));
        known.collect()
    };
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let _ = writeln!(picture, "<text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}</text>", escaped(title));
    let counted: [Line; 3] = [
        ("kept", "#1a7f37", rates(|second| second.kept)),
        ("refused", "#9a6700", rates(|second| second.refused)),
        ("put off", "#cf222e", rates(|second| second.deferred)),
    ];
    panel(&mut picture, 50.0, end, "mails a second", &counted);
    let timed: [Line; 2] = [("p50", "#0969da", latencies(50.0)), ("p99", "#8250df", latencies(99.0))];
    panel(&mut picture, 270.0, end, "milliseconds from due to the 250", &timed);
    picture.push_str("</svg>\n");
    picture
}

fn panel(picture: &mut String, top: f64, end: f64, name: &str, lines: &[Line]) {
    let values = lines.iter().flat_map(|(_, _, points)| points.iter().map(|(_, value)| *value));
    let most = round_up(values.fold(1.0, f64::max));
    let bottom = top + UP;
    let (across, up) = (|at: f64| LEFT + at / end * ACROSS, |value: f64| bottom - value / most * UP);
    let _ = writeln!(picture, "<text x=\"{LEFT}\" y=\"{}\">{name}</text>", top - 8.0);
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let y = up(value);
        let _ = writeln!(
            picture,
            "<path d=\"M{LEFT} {y:.1}h{ACROSS}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    let step = step(end);
    for at in (0..).map(|tick| f64::from(tick) * step).take_while(|at| *at <= end) {
        let _ = writeln!(
            picture,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{at:.0} s</text>",
            across(at),
            bottom + 16.0
        );
    }
    for (index, (name, colour, points)) in lines.iter().enumerate() {
        let path: Vec<String> =
            points.iter().map(|(at, value)| format!("{:.1},{:.1}", across(*at), up(*value))).collect();
        let (x, y) = (LEFT + 300.0 + 90.0 * index as f64, top - 8.0);
        let _ = writeln!(
            picture,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{name}</text>",
            path.join(" ")
        );
    }
}

/// The next 1, 2 or 4 with noughts, so that its quarters are readable.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 10.0].map(|step| step * unit).into_iter().find(|step| *step >= value).unwrap_or(value)
}

/// Seconds from one figure to the next on the axis of time: whole ones, and not so many that they touch.
fn step(end: f64) -> f64 {
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
    steps.into_iter().find(|step| end / step <= FIGURES).unwrap_or(end / FIGURES)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_picture_has_a_line_for_each_figure() {
        let mut measured = Measured::default();
        for number in 0..50 {
            measured.kept(Duration::from_millis(100 * number), Duration::from_millis(number), 10);
        }
        let picture = svg("a <b>", &measured);
        assert_eq!(picture.matches("<polyline").count(), 5);
        assert!(picture.contains("a &lt;b>") && picture.ends_with("</svg>\n"));
        assert!(picture.lines().count() < 60 && !picture.contains("NaN"));
        assert!(!svg("nothing", &Measured::default()).contains("NaN"));
    }

    #[test]
    fn axes_end_with_round_figures() {
        for (value, want) in [(1.0, 1.0), (1.2, 2.0), (39.0, 40.0), (41.0, 100.0), (1000.0, 1000.0)] {
            assert!((round_up(value) - want).abs() < 1e-9, "{value}");
        }
        for (end, want) in [(1.0, 1.0), (7.0, 1.0), (13.0, 2.0), (300.0, 30.0), (86_400.0, 7200.0)] {
            assert!((step(end) - want).abs() < 1e-9, "{end}");
        }
    }
}
