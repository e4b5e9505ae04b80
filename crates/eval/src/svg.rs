//! The drawings of the report, as inline SVG that takes its colours from the page's style.

use std::fmt::Write;

use robomamba_policy::LatencyHistogram;

use crate::Rate;
use crate::html::escape;

/// Points of a line; more are thinned out.
const POINTS_MAX: usize = 600;

/// A success rate as a dot and its 95 % interval as a bar on a scale from 0 to 100 %.
pub fn interval(rate: Rate) -> String {
    let (low, high) = rate.wilson();
    let x = |fraction: f64| 4.0 + 192.0 * fraction;
    format!(
        r#"<svg class="interval" viewBox="0 0 200 20" role="img" aria-label="{label}"><line class="axis" x1="4" y1="10" x2="196" y2="10"/><line class="tick" x1="100" y1="6" x2="100" y2="14"/><line class="tick" x1="4" y1="6" x2="4" y2="14"/><line class="tick" x1="196" y1="6" x2="196" y2="14"/><line class="span" x1="{low:.1}" y1="10" x2="{high:.1}" y2="10"/><circle class="dot" cx="{dot:.1}" cy="10" r="4.5"/></svg>"#,
        label = rate,
        low = x(low),
        high = x(high),
        dot = x(rate.fraction()),
    )
}

/// Frame of a chart: where the data goes inside the drawing.
struct Frame {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Frame {
    fn x(&self, fraction: f64) -> f64 {
        self.left + self.width * fraction
    }

    /// Fraction 0 is at the bottom.
    fn y(&self, fraction: f64) -> f64 {
        self.top + self.height * (1.0 - fraction)
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

/// Latencies in milliseconds over a logarithmic axis, with the deadline.
pub fn latency_histogram(latency: &LatencyHistogram, deadline_ms: f64) -> String {
    let frame = Frame { left: 10.0, top: 22.0, width: 480.0, height: 120.0 };
    let counts: Vec<(f64, u64)> = latency.counts_ms().collect();
    let axis = LogAxis::covering(&counts, deadline_ms);
    let bins = axis.bins(&counts);
    let most = bins.iter().copied().max().unwrap_or(0).max(1) as f64;
    let mut svg = r#"<svg class="chart histogram" viewBox="0 0 500 168" role="img" aria-label="histogram of the control latency">"#.to_string();
    let step = frame.width / bins.len() as f64;
    for (i, &count) in bins.iter().enumerate().filter(|&(_, &count)| count > 0) {
        // A single slow step must stay visible beside thousands of fast ones.
        let height = (frame.height * count as f64 / most).max(1.5);
        let (x, y) = (frame.left + i as f64 * step, frame.bottom() - height);
        let late = if axis.edge_ms(i, bins.len()) >= deadline_ms { " late" } else { "" };
        let _ = write!(
            svg,
            r#"<rect class="bin{late}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{height:.1}"><title>{count} steps</title></rect>"#,
            step - 1.0
        );
    }
    let _ = write!(
        svg,
        r#"<line class="axis" x1="{}" y1="{y}" x2="{}" y2="{y}"/>"#,
        frame.x(0.0),
        frame.x(1.0),
        y = frame.bottom()
    );
    for (tick, label) in axis.ticks() {
        let x = frame.x(axis.fraction(tick));
        let _ = write!(svg, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#, frame.bottom() + 16.0);
    }
    let x = frame.x(axis.fraction(deadline_ms));
    let _ = write!(
        svg,
        r#"<line class="deadline" x1="{x:.1}" y1="16" x2="{x:.1}" y2="{:.1}"/><text class="deadline" x="{:.1}" y="12" text-anchor="end">deadline {deadline_ms:.1} ms</text>"#,
        frame.bottom(),
        x + 4.0
    );
    svg + "</svg>"
}

/// A logarithmic axis in milliseconds.
struct LogAxis {
    low: f64,
    high: f64,
}

impl LogAxis {
    const BINS: usize = 60;

    /// From a tick below all counted latencies and the deadline to one above them.
    fn covering(counts: &[(f64, u64)], deadline: f64) -> Self {
        let values = || counts.iter().map(|&(value, _)| value);
        let low = values().fold(deadline, f64::min).max(1e-3);
        let high = values().fold(deadline * 1.5, f64::max);
        Self { low: low / 1.2, high: high * 1.05 }
    }

    fn fraction(&self, value: f64) -> f64 {
        ((value.max(1e-6) / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0)
    }

    /// Lower edge of bin `i` of `n`.
    fn edge_ms(&self, i: usize, n: usize) -> f64 {
        self.low * (self.high / self.low).powf(i as f64 / n as f64)
    }

    fn bins(&self, counts: &[(f64, u64)]) -> Vec<u64> {
        let mut bins = vec![0; Self::BINS];
        for &(value, count) in counts {
            bins[((self.fraction(value) * Self::BINS as f64) as usize).min(Self::BINS - 1)] += count;
        }
        bins
    }

    /// 1, 2 and 5 times the powers of ten on the axis, with their labels.
    fn ticks(&self) -> Vec<(f64, String)> {
        let powers = -3..=5;
        let ticks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        let inside = ticks.filter(|&tick| (self.low * 1.02..=self.high / 1.02).contains(&tick));
        inside.map(|tick| (tick, format!("{} ms", (tick * 1e6).round() / 1e6))).collect()
    }
}

/// One line of a [`log_log`] chart: its name, and points of positive coordinates from left to right.
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Coordinates `(x, y)`.
    pub points: Vec<(f64, f64)>,
}

/// Lines between points on two logarithmic axes, with `y_unit` behind the numbers of the vertical one.
pub fn log_log(series: &[Series], x_label: &str, y_unit: &str) -> String {
    let frame = Frame { left: 62.0, top: 10.0, width: 430.0, height: 210.0 };
    let all = || series.iter().flat_map(|series| &series.points);
    let (x, y) = (Decades::covering(all().map(|point| point.0)), Decades::covering(all().map(|point| point.1)));
    let mut svg = format!(r#"<svg class="chart histogram" viewBox="0 0 500 254" role="img" aria-label="{x_label}">"#);
    for (tick, fraction) in y.ticks() {
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{}" y1="{at:.1}" x2="{}" y2="{at:.1}"/><text x="56" y="{:.1}" text-anchor="end">{tick} {y_unit}</text>"#,
            frame.x(0.0),
            frame.x(1.0),
            frame.y(fraction) + 3.5,
            at = frame.y(fraction),
        );
    }
    for (tick, fraction) in x.ticks() {
        let at = frame.x(fraction);
        let _ = write!(svg, r#"<text x="{at:.1}" y="{:.1}" text-anchor="middle">{tick}</text>"#, frame.bottom() + 15.0);
    }
    let _ = write!(
        svg,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{x_label}</text>"#,
        frame.x(0.5),
        frame.bottom() + 31.0
    );
    for (index, line) in series.iter().enumerate() {
        let at = |point: &(f64, f64)| (frame.x(x.fraction(point.0)), frame.y(y.fraction(point.1)));
        let places: Vec<(f64, f64)> = line.points.iter().map(at).collect();
        let points: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(svg, r#"<polyline class="line line{index}" points="{}"/>"#, points.join(" "));
        for (x, y) in places {
            let _ = write!(svg, r#"<circle class="line line{index}" cx="{x:.1}" cy="{y:.1}" r="2"/>"#);
        }
    }
    svg + "</svg>" + &legend(series.iter().map(|series| series.name.as_str()))
}

/// The names of lines beside their colours.
pub fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names = names.enumerate().map(|(index, name)| format!(r#"<i class="line{index}"></i>{}"#, escape(name)));
    format!(r#"<p class="legend">{}</p>"#, names.collect::<String>())
}

/// A logarithmic axis from one power of ten to another.
struct Decades {
    low: i32,
    high: i32,
}

impl Decades {
    fn covering(values: impl Iterator<Item = f64>) -> Self {
        let logs: Vec<f64> = values.filter(|&value| value > 0.0).map(f64::log10).collect();
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return Self { low: 0, high: 1 };
        }
        let low = low.floor() as i32;
        Self { low, high: (high.ceil() as i32).max(low + 1) }
    }

    fn fraction(&self, value: f64) -> f64 {
        (value.max(f64::MIN_POSITIVE).log10() - f64::from(self.low)) / f64::from(self.high - self.low)
    }

    /// The powers of ten, with their places.
    fn ticks(&self) -> Vec<(String, f64)> {
        let tick = |power: i32| {
            let value = 10f64.powi(power);
            let text = if power < 0 { format!("{value:.*}", -power as usize) } else { format!("{value:.0}") };
            (text, self.fraction(value))
        };
        (self.low..=self.high).map(tick).collect()
    }
}

/// One line of a [`traces`] chart: its name and a value per control step.
pub struct Line<'a> {
    /// Name in the legend.
    pub name: &'a str,
    /// A value per control step.
    pub values: Vec<f32>,
}

/// Lines over the control steps of an episode; values outside `range` are cut off.
pub fn traces(lines: &[Line], range: (f32, f32), height: f64) -> String {
    let frame = Frame { left: 34.0, top: 8.0, width: 560.0, height };
    let steps = lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
    let mut svg =
        format!(r#"<svg class="chart trace" viewBox="0 0 600 {:.0}" role="img" aria-label="traces">"#, height + 26.0);
    for (value, fraction) in [(range.0, 0.0), ((range.0 + range.1) / 2.0, 0.5), (range.1, 1.0)] {
        let y = frame.y(fraction);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{}" y1="{y:.1}" x2="{}" y2="{y:.1}"/><text x="28" y="{:.1}" text-anchor="end">{value}</text>"#,
            frame.x(0.0),
            frame.x(1.0),
            y + 3.5
        );
    }
    for (index, line) in lines.iter().enumerate() {
        let _ = write!(
            svg,
            r#"<polyline class="line line{index}" points="{}"/>"#,
            points(&frame, &line.values, Axes { low: range.0, high: range.1, steps })
        );
    }
    let y = frame.bottom() + 14.0;
    let _ = write!(
        svg,
        r#"<text x="{}" y="{y}">step 0</text><text x="{}" y="{y}" text-anchor="end">{steps}</text>"#,
        frame.x(0.0),
        frame.x(1.0)
    );
    svg + "</svg>"
}

/// What a plot's axes span: values from `low` to `high`, and control steps.
struct Axes {
    low: f32,
    high: f32,
    steps: usize,
}

fn points(frame: &Frame, values: &[f32], axes: Axes) -> String {
    let Axes { low, high, steps } = axes;
    let stride = values.len().div_ceil(POINTS_MAX).max(1);
    let mut text = String::new();
    for (step, value) in values.iter().enumerate().step_by(stride) {
        let fraction = ((value - low) / (high - low)).clamp(0.0, 1.0);
        let _ = write!(
            text,
            "{:.1},{:.1} ",
            frame.x(step as f64 / steps.max(2).saturating_sub(1) as f64),
            frame.y(fraction.into())
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_latency_is_counted_once_and_the_late_ones_are_marked() {
        let mut latency = LatencyHistogram::default();
        for ms in [0.4, 2.0, 2.1, 2.2, 50.0, 1e4] {
            latency.record(Duration::from_secs_f64(ms / 1e3));
        }
        let counts: Vec<_> = latency.counts_ms().collect();
        assert_eq!(LogAxis::covering(&counts, 33.3).bins(&counts).iter().sum::<u64>(), 6);
        let svg = latency_histogram(&latency, 33.3);
        assert_eq!(svg.matches("bin late").count(), 2);
        assert!(svg.contains(">2 ms<") && svg.contains("deadline 33.3 ms"));
        assert!(latency_histogram(&LatencyHistogram::default(), 33.3).contains("deadline"));
    }

    #[test]
    fn powers_of_ten_are_equally_far_apart() {
        let line = Series { name: "a step".into(), points: vec![(1.0, 0.02), (10.0, 0.2), (1000.0, 20.0)] };
        let svg = log_log(&[line], "history", "ms");
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        // One, two and four decades from 0.01 up in 210 pixels, and none, one and three of 430 to the right.
        let decade = (430.0 / 3.0, 210.0 / 4.0);
        for (point, (x, y)) in points.split_whitespace().zip([(0.0, 0.301), (1.0, 1.301), (3.0, 3.301)]) {
            let (found_x, found_y) = point.split_once(',').unwrap();
            assert!((found_x.parse::<f64>().unwrap() - (62.0 + x * decade.0)).abs() < 0.1, "{svg}");
            assert!((found_y.parse::<f64>().unwrap() - (220.0 - y * decade.1)).abs() < 0.1, "{svg}");
        }
        for label in [">0.01 ms<", ">100 ms<", ">1000<", ">history<", "a step"] {
            assert!(svg.contains(label), "{label} is missing in {svg}");
        }
        assert!(log_log(&[], "nothing", "ms").contains("nothing"));
    }

    #[test]
    fn long_traces_are_thinned_out_and_stay_in_the_frame() {
        let line = Line { name: "dx", values: (0..10_000).map(|i| (i as f32).sin() * 3.0).collect() };
        let svg = traces(&[line], (-1.0, 1.0), 100.0);
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(points.split_whitespace().count() <= POINTS_MAX);
        for point in points.split_whitespace() {
            let (x, y) = point.split_once(',').unwrap();
            assert!(
                (34.0..=594.0).contains(&x.parse::<f64>().unwrap())
                    && (8.0..=108.0).contains(&y.parse::<f64>().unwrap())
            );
        }
    }
}
