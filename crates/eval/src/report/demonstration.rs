//! The page of a demonstration: film strips, actions, latency.

use robomamba_policy::{LatencyHistogram, Outcome};

use super::task_table::scores_table;
use crate::figures::{Figures, StateBytes};
use crate::film::Still;
use crate::html::{escape, page};
use crate::machine::Utc;
use crate::png::base64;
use crate::score::overall;
use crate::svg::{self, Line};
use crate::trace::Trace;

/// Everything that the page shows.
pub struct Demonstration<'a> {
    /// When the demonstration began.
    pub time: Utc,
    /// The command line that makes it again.
    pub command: &'a str,
    /// What was measured.
    pub figures: &'a Figures,
    /// Latencies of all control steps.
    pub latency: &'a LatencyHistogram,
    /// The episodes, in order.
    pub traces: &'a [Trace],
    /// Side of the images that the policy saw, in pixels.
    pub image_size: usize,
    /// What the policy is: names and values.
    pub policy: &'a [(&'static str, String)],
}

/// Number of failures and of successes of each family that are shown with images.
const SHOWN_PER_FAMILY: (usize, usize) = (2, 1);

/// The page of a demonstration.
pub fn demonstration_page(report: &Demonstration) -> String {
    let sections =
        [heading(report), tiles(report.figures), families(report), latency(report), episodes(report), about(report)];
    page(&format!("RoboMamba demonstration, {}", report.time), &sections.concat())
}

fn heading(report: &Demonstration) -> String {
    let rate = overall(&report.figures.tasks);
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
    let latency = figures.latency;
    let rate = overall(&figures.tasks);
    let (low, high) = rate.wilson();
    let tiles = [
        (
            "Success",
            format!("{:.0} %", 100.0 * rate.fraction()),
            format!("95 %: {:.0} to {:.0} %", 100.0 * low, 100.0 * high),
        ),
        (
            "Control latency",
            format!("{:.2} ms", latency.p50_ms),
            format!("p95 {:.2}, p99 {:.2}", latency.p95_ms, latency.p99_ms),
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

fn families(report: &Demonstration) -> String {
    format!(
        "<h2>Success by task family</h2>{}<p class=\"note\">Intervals are Wilson's. Every scene comes from the held-out \
         split, whose seeds never occur in training.</p>\n",
        scores_table(&report.figures.tasks),
    )
}

fn latency(report: &Demonstration) -> String {
    let figures = report.figures;
    let Figures { latency, deadline_ms, .. } = figures;
    format!(
        "<h2>Control latency</h2><div class=\"card\">{}<p class=\"note\">Time from observation to action of all {} control steps, on a \
         logarithmic axis: p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, slowest {:.2} ms. The deadline is one period at 30 Hz. The loop with \
         simulation, rendering and logging ran at {:.0} Hz.</p></div>\n",
        svg::latency_histogram(report.latency, *deadline_ms),
        figures.steps,
        latency.p50_ms,
        latency.p95_ms,
        latency.p99_ms,
        latency.max_ms,
        figures.loop_rate_hz,
    )
}

fn episodes(report: &Demonstration) -> String {
    let cards: String = shown(report.traces).into_iter().map(card).collect();
    let rows: String = report.traces.iter().enumerate().map(|(i, trace)| row(i, trace)).collect();
    format!(
        "<h2>Episodes</h2><p class=\"note\">The first success and up to two failures of every family. The pictures are drawn larger for this \
         page; the policy saw {size}x{size} pixels.</p>{cards}\
         <div class=\"card\"><details><summary>All {} episodes</summary><div class=\"scroll\"><table><tr><th>#</th><th class=\"left\">family</th>\
         <th>seed</th><th class=\"left\">instruction</th><th>progress</th><th>steps</th><th class=\"left\">outcome</th></tr>{rows}</table></div></details></div>\n",
        report.traces.len(),
        size = report.image_size,
    )
}

/// The episodes worth an image, in order.
fn shown(traces: &[Trace]) -> Vec<&Trace> {
    let same = |index: usize| {
        let trace = &traces[index];
        let kind = (&trace.record.task, trace.record.is_success());
        traces[..index].iter().filter(|other| (&other.record.task, other.record.is_success()) == kind).count()
    };
    let limit = |trace: &Trace| if trace.record.is_success() { SHOWN_PER_FAMILY.1 } else { SHOWN_PER_FAMILY.0 };
    let mut shown: Vec<&Trace> = traces
        .iter()
        .enumerate()
        .filter(|(index, trace)| same(*index) < limit(trace))
        .map(|(_, trace)| trace)
        .collect();
    let first = |trace: &Trace| traces.iter().position(|other| other.record.task == trace.record.task);
    shown.sort_by_key(|trace| (first(trace), !trace.record.is_success()));
    shown
}

fn card(trace: &Trace) -> String {
    let record = &trace.record;
    format!(
        "<article class=\"card episode\"><header><h3>{}</h3><span class=\"soft\">{}, seed {}, {} steps</span>{}</header><div class=\"scroll\">\
         <div class=\"film\">{}</div></div><div class=\"plots\">{}{}</div></article>\n",
        escape(&record.instruction),
        escape(&record.task),
        record.seed,
        record.steps,
        badge(trace),
        trace.film.iter().map(still).collect::<String>(),
        action_plot(trace),
        confidence_plot(trace),
    )
}

fn still(still: &Still) -> String {
    format!(
        "<figure><img loading=\"lazy\" alt=\"table at step {step}\" src=\"data:image/png;base64,{}\"><figcaption>{step}</figcaption></figure>",
        base64(&still.png),
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
    let record = &trace.record;
    format!(
        "<tr><td>{}</td><td class=\"left\">{}</td><td>{}</td><td class=\"words\">{}</td><td>{}</td><td>{}</td><td class=\"left\">{}</td></tr>",
        index + 1,
        escape(&record.task),
        record.seed,
        escape(&record.instruction),
        record.progress.map_or(String::new(), |progress| format!("{:.0} %", 100.0 * progress)),
        record.steps,
        badge(trace),
    )
}

fn badge(trace: &Trace) -> String {
    let class = if trace.record.is_success() { "good" } else { "bad" };
    let (class, text) = match &trace.record.outcome {
        _ if !trace.is_scored => ("neutral", "not scored".into()),
        Outcome::Succeeded => (class, "solved".into()),
        outcome => (class, outcome.to_string()),
    };
    format!("<span class=\"badge {class}\">{}</span>", escape(text))
}

fn about(report: &Demonstration) -> String {
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
