//! `report.html`: one self-contained file that shows what a demonstration did.

pub mod base64;
pub mod svg;

use std::fmt::{Display, Write};

use crate::figures::{Figures, StateBytes, overall};
use crate::film::Still;
use crate::machine::Utc;
use crate::trace::{Trace, outcome_text};
use svg::Line;

/// Everything that the page shows.
pub struct Report<'a> {
    /// When the demonstration began.
    pub time: Utc,
    /// The command line that makes it again.
    pub command: &'a str,
    /// What was measured.
    pub figures: &'a Figures,
    /// Latency of every control step in milliseconds.
    pub latencies_ms: &'a [f64],
    /// The episodes, in order.
    pub traces: &'a [Trace],
    /// Side of the pictures that the policy saw, in pixels.
    pub image_size: usize,
    /// What the policy is: names and values.
    pub policy: &'a [(&'static str, String)],
}

/// Episodes of one family that are shown with pictures: so many failures, and so many successes.
const SHOWN_PER_FAMILY: (usize, usize) = (2, 1);

/// The page.
pub fn html(report: &Report) -> String {
    let sections =
        [heading(report), tiles(report.figures), families(report), latency(report), episodes(report), about(report)];
    page(&format!("RoboMamba demonstration, {}", report.time), &sections.concat())
}

/// A self-contained page with this title and content, in the style of the reports.
pub fn page(title: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{}</style></head><body><main>\n{content}</main></body></html>\n",
        include_str!("style.css"),
    )
}

fn heading(report: &Report) -> String {
    let rate = overall(&report.figures.success);
    let title = match (rate.n, report.traces.len()) {
        (0, 1) => "One episode with an instruction of your own, not scored".into(),
        (0, n) => format!("{n} episodes with an instruction of your own, not scored"),
        (n, _) => format!("{} of {n} held-out episodes solved", rate.k),
    };
    format!(
        "<h1>{title}</h1><p class=\"soft\">RoboMamba on <i>tabletop</i>, from rendered pixels and text, {}</p>\n",
        report.time
    )
}

fn tiles(figures: &Figures) -> String {
    let latency = figures.latency_ms;
    let rate = overall(&figures.success);
    let (low, high) = rate.wilson();
    let tiles = [
        (
            "Success",
            format!("{:.0} %", 100.0 * rate.fraction()),
            format!("95 %: {:.0} to {:.0} %", 100.0 * low, 100.0 * high),
        ),
        (
            "Control latency",
            format!("{:.2} ms", latency.p50),
            format!("p95 {:.2}, p99 {:.2}", latency.p95, latency.p99),
        ),
        (
            "Control rate",
            format!("{:.0} Hz", figures.control_rate_hz),
            format!("whole loop {:.0} Hz", figures.loop_rate_hz),
        ),
        ("Deadline misses", figures.deadline_misses.to_string(), format!("of {} steps", figures.steps)),
        state_tile(figures.state_bytes),
        ("Peak memory", figures.peak_rss_mb.map_or("n/a".into(), |mb| format!("{mb:.0} MB")), "whole process".into()),
    ];
    let tile = |(name, value, note): &(&str, String, String)| {
        format!("<div class=\"tile\"><span>{name}</span><b>{value}</b><span>{note}</span></div>")
    };
    format!("<div class=\"tiles\">{}</div>\n", tiles.iter().map(tile).collect::<String>())
}

fn state_tile(bytes: StateBytes) -> (&'static str, String, String) {
    let kib = |bytes: usize| format!("{:.0} KiB", bytes as f64 / 1024.0);
    let note = if bytes.first == bytes.last {
        "first and last step".into()
    } else {
        format!("last; first {}", kib(bytes.first))
    };
    ("State", kib(bytes.last), note)
}

fn families(report: &Report) -> String {
    let mut rows = String::new();
    for (family, rate) in &report.figures.success {
        let (low, high) = rate.wilson();
        let _ = write!(
            rows,
            "<tr><td>{family}</td><td>{}</td><td>{}</td><td>{:.0} %</td><td>{:.0} to {:.0} %</td><td class=\"bar\">{}</td><td>{:.0}</td></tr>",
            rate.n,
            rate.k,
            100.0 * rate.fraction(),
            100.0 * low,
            100.0 * high,
            svg::interval(*rate),
            report.figures.mean_steps.get(family).copied().unwrap_or(0.0),
        );
    }
    format!(
        "<h2>Success by task family</h2><div class=\"card\"><div class=\"scroll\"><table><tr><th>family</th><th>episodes</th><th>solved</th>\
         <th>rate</th><th>95 % interval</th><th class=\"left\">0 to 100 %</th><th>mean steps</th></tr>{rows}</table></div></div>\
         <p class=\"note\">Intervals are Wilson's. Every scene comes from the held-out split, whose seeds never occur in training.</p>\n"
    )
}

fn latency(report: &Report) -> String {
    let figures = report.figures;
    let Figures { latency_ms, deadline_ms, .. } = figures;
    format!(
        "<h2>Control latency</h2><div class=\"card\">{}<p class=\"note\">Time from observation to action of all {} control steps, on a \
         logarithmic axis: p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, slowest {:.2} ms. The deadline is one period at 30 Hz. The loop with \
         simulation, rendering and logging ran at {:.0} Hz.</p></div>\n",
        svg::latency_histogram(report.latencies_ms, *deadline_ms),
        figures.steps,
        latency_ms.p50,
        latency_ms.p95,
        latency_ms.p99,
        latency_ms.max,
        figures.loop_rate_hz,
    )
}

fn episodes(report: &Report) -> String {
    let cards: String = shown(report.traces).into_iter().map(card).collect();
    let rows: String = report.traces.iter().enumerate().map(|(i, trace)| row(i, trace)).collect();
    format!(
        "<h2>Episodes</h2><p class=\"note\">The first success and up to two failures of every family. The pictures are drawn larger for this \
         page; the policy saw {size}x{size} pixels.</p>{cards}\
         <div class=\"card\"><details><summary>All {} episodes</summary><div class=\"scroll\"><table><tr><th>#</th><th class=\"left\">family</th>\
         <th>seed</th><th class=\"left\">instruction</th><th>sub-goals</th><th>steps</th><th class=\"left\">outcome</th></tr>{rows}</table></div></details></div>\n",
        report.traces.len(),
        size = report.image_size,
    )
}

/// The episodes worth a picture, in order.
fn shown(traces: &[Trace]) -> Vec<&Trace> {
    let same = |index: usize| {
        let trace = &traces[index];
        let kind = (trace.result.family, trace.result.success());
        traces[..index].iter().filter(|other| (other.result.family, other.result.success()) == kind).count()
    };
    let limit = |trace: &Trace| if trace.result.success() { SHOWN_PER_FAMILY.1 } else { SHOWN_PER_FAMILY.0 };
    let mut shown: Vec<&Trace> = traces
        .iter()
        .enumerate()
        .filter(|(index, trace)| same(*index) < limit(trace))
        .map(|(_, trace)| trace)
        .collect();
    shown.sort_by_key(|trace| (trace.result.family, !trace.result.success()));
    shown
}

fn card(trace: &Trace) -> String {
    let result = &trace.result;
    format!(
        "<article class=\"card episode\"><header><h3>{}</h3><span class=\"soft\">{}, seed {}, {} steps</span>{}</header><div class=\"scroll\">\
         <div class=\"film\">{}</div></div><div class=\"plots\">{}{}</div></article>\n",
        escape(&result.instruction),
        result.family,
        result.seed,
        result.steps,
        badge(trace),
        trace.film.iter().map(still).collect::<String>(),
        action_plot(trace),
        confidence_plot(trace),
    )
}

fn still(still: &Still) -> String {
    format!(
        "<figure><img loading=\"lazy\" alt=\"table at step {step}\" src=\"data:image/png;base64,{}\"><figcaption>{step}</figcaption></figure>",
        base64::encode(&still.png),
        step = still.step,
    )
}

fn action_plot(trace: &Trace) -> String {
    let column = |i: usize| trace.actions.iter().skip(i).step_by(trace.action_names.len()).copied().collect();
    let lines: Vec<Line> =
        trace.action_names.iter().enumerate().map(|(i, name)| Line { name, values: column(i) }).collect();
    format!("<div>{}{}</div>", svg::traces(&lines, (-1.0, 1.0), 110.0), legend(&lines))
}

fn confidence_plot(trace: &Trace) -> String {
    if trace.success_probability.is_empty() {
        return String::new();
    }
    let lines = [Line { name: "estimated success probability", values: trace.success_probability.clone() }];
    format!("<div class=\"confidence\">{}{}</div>", svg::traces(&lines, (0.0, 1.0), 110.0), legend(&lines))
}

fn legend(lines: &[Line]) -> String {
    svg::legend(lines.iter().map(|line| line.name))
}

fn row(index: usize, trace: &Trace) -> String {
    let result = &trace.result;
    format!(
        "<tr><td>{}</td><td class=\"left\">{}</td><td>{}</td><td class=\"words\">{}</td><td>{} of {}</td><td>{}</td><td class=\"left\">{}</td></tr>",
        index + 1,
        result.family,
        result.seed,
        escape(&result.instruction),
        result.subgoals_done,
        result.subgoals,
        result.steps,
        badge(trace),
    )
}

fn badge(trace: &Trace) -> String {
    let class = if trace.result.success() { "good" } else { "bad" };
    let (class, text) =
        if trace.is_scored { (class, outcome_text(trace.result.status)) } else { ("neutral", "not scored") };
    format!("<span class=\"badge {class}\">{text}</span>")
}

fn about(report: &Report) -> String {
    let figures = report.figures;
    let mut entries =
        vec![("Machine", figures.machine.to_string()), ("Program", format!("robomamba {}", figures.machine.robomamba))];
    entries.push(("Checkpoint", figures.checkpoint.clone()));
    entries.extend(report.policy.iter().cloned());
    let entries: String =
        entries.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escape(value))).collect();
    format!(
        "<h2>How it was made</h2><div class=\"card\"><dl>{entries}<dt>Command</dt><dd><code>{}</code></dd></dl></div>\
         <p class=\"note\">All steps with pictures, state, action and confidence are in <code>episodes.mcap</code> beside this file; Foxglove opens it.</p>\n",
        escape(report.command)
    )
}

/// Text for use inside HTML elements and attributes.
pub fn escape(text: impl Display) -> String {
    let mut escaped = String::new();
    for c in text.to_string().chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
    }
    escaped
}
