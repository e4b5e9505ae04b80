//! The page of `bench --report`.

use super::backbones::{HistoryPoint, SequencePoint};
use robomamba_eval::svg::{Series, log_log};
use robomamba_eval::{Machine, Utc, escape, page};

/// A page with the tables that are there and a plot of steps and sequences.
pub fn html(
    machine: &Machine,
    tables: &[(&str, Option<String>)],
    history: &[HistoryPoint],
    sequences: &[SequencePoint],
) -> String {
    let mut content =
        format!("<h1>RoboMamba on this machine</h1><p class=\"soft\">{}, {}</p>\n", escape(machine), Utc::now());
    let plots = [steps(history), whole(sequences)].into_iter().flatten().collect::<String>();
    if !plots.is_empty() {
        content += &format!("<div class=\"plots\">{plots}</div>\n");
    }
    for (title, table) in tables.iter().filter_map(|(title, table)| Some((title, table.as_ref()?))) {
        content += &format!("<h2>{title}</h2><div class=\"card scroll wrap\">{table}</div>\n");
    }
    page("RoboMamba benchmark", &content)
}

/// A step against the history before it, in the format that was measured first.
fn steps(history: &[HistoryPoint]) -> Option<String> {
    let precision = &history.first()?.precision;
    let of = |backbone: &str, ms: fn(&HistoryPoint) -> Option<f64>| {
        let points = history.iter().filter(|point| point.backbone == backbone && point.precision == *precision);
        points.filter_map(|point| Some((point.history as f64, ms(point)?))).collect()
    };
    let series = [
        Series { name: "Mamba".into(), points: of("mamba", |point| Some(point.step_ms)) },
        Series { name: "Transformer with a cache".into(), points: of("transformer", |point| Some(point.step_ms)) },
        Series { name: "Transformer, history recomputed".into(), points: of("transformer", |p| p.recomputed_ms) },
    ];
    Some(card(&format!("A step of the backbone, {precision}"), &log_log(&series, "steps before it", "ms")))
}

/// A whole sequence against its length, in the format that was measured first.
fn whole(sequences: &[SequencePoint]) -> Option<String> {
    let precision = &sequences.first()?.precision;
    let of = |backbone: &str| {
        let points = sequences.iter().filter(|point| point.backbone == backbone && point.precision == *precision);
        points.map(|point| (point.tokens as f64, point.ms)).collect()
    };
    let series = [
        Series { name: "Mamba".into(), points: of("mamba") },
        Series { name: "Transformer".into(), points: of("transformer") },
    ];
    Some(card(&format!("A sequence at once, {precision}"), &log_log(&series, "tokens", "ms")))
}

fn card(title: &str, chart: &str) -> String {
    format!("<div class=\"card\"><h2>{title}</h2>{chart}</div>")
}
