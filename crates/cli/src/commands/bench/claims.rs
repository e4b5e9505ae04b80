//! The promises of the project beside what was measured.

use robomamba_model::Preset;
use serde::Serialize;

use super::steps::StepTimes;
use super::trunks::{HistoryPoint, SequencePoint};
use robomamba_eval::Table;

/// A promise and how it turned out on this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// What is promised.
    pub claim: String,
    /// By how much, in words.
    pub promised: String,
    /// What was measured.
    pub ours: String,
    /// Whether it is kept.
    pub holds: bool,
}

/// Judges every promise for which something was measured; `history` and `sequences` are of the trunk of `trunk`.
pub fn judge(
    steps: &[StepTimes],
    trunk: Preset,
    (history, sequences): (&[HistoryPoint], &[SequencePoint]),
) -> Vec<Claim> {
    let mut claims = Vec::new();
    let one_camera = |preset| {
        let of_preset = steps.iter().filter(move |s| s.preset == preset && s.cameras == 1 && s.precision == "int8");
        of_preset.max_by_key(|s| s.threads)
    };
    for (preset, hz) in [(Preset::Base, 33.0), (Preset::Small, 80.0)] {
        if let Some(step) = one_camera(preset) {
            claims.push(Claim {
                claim: format!("control rate of `{preset}`, int8, {} threads", step.threads),
                promised: format!("{hz:.0} Hz, 99 of 100 steps within {:.1} ms", 1e3 / hz),
                ours: format!("{:.0} Hz, p99 {:.1} ms", 1e3 / step.p50, step.p99),
                holds: step.p99 <= 1e3 / hz,
            });
        }
    }
    claims.extend(flat(history));
    claims.extend(linear(sequences));
    // Milliseconds are promised of the largest trunk only; the matrices of a small one need not come from memory at all.
    if trunk != Preset::Base {
        return claims;
    }
    claims.extend(streaming(history));
    for (tokens, ms) in [(100, 3.0), (1_000, 30.0), (10_000, 300.0)] {
        if let Some(point) = exact(sequences, tokens) {
            claims.push(Claim {
                claim: format!("{tokens} steps at once through the trunk, f32"),
                promised: format!("{ms:.0} ms"),
                ours: format!("{:.0} ms", point.ms),
                holds: point.ms <= ms,
            });
        }
    }
    claims
}

/// Steps of the recurrent trunk beside the time that it takes to read its matrices from memory once.
fn streaming(history: &[HistoryPoint]) -> impl Iterator<Item = Claim> {
    history.iter().filter_map(|point| {
        let reading = point.reading?;
        Some(Claim {
            claim: format!("a step of the trunk, {}", point.precision),
            promised: format!("1.3 times reading its matrices once, {:.2} ms", reading.ms),
            ours: format!("{:.2} ms, {:.2} times", point.step_ms, reading.step),
            holds: reading.step <= 1.3,
        })
    })
}

/// The recurrent trunk after its longest history, in turn with one at its beginning, in the format that changes most.
fn flat(history: &[HistoryPoint]) -> Option<Claim> {
    let mamba = || history.iter().filter(|point| point.trunk == "mamba");
    let longest = mamba().map(|point| point.history).max().filter(|&longest| longest > 1)?;
    let last = || mamba().filter(|point| point.history == longest);
    let largest = last().map(|point| point.to_first - 1.0).max_by(f64::total_cmp)?;
    let bytes = |history| mamba().find(|point| point.history == history).map(|point| point.state_bytes);
    let same_state = bytes(1) == bytes(longest);
    let state = if same_state { "the same state" } else { "another size of state" };
    let growth = last().filter_map(|point| point.resident_growth).max();
    let grown = growth.map_or_else(String::new, |bytes| format!(", {bytes} bytes more memory"));
    Some(Claim {
        claim: format!("cost and memory after {longest} steps"),
        promised: "within 2 % of the first step, the same state, no more memory".into(),
        ours: format!("{:+.1} %, {state}{grown}", 100.0 * largest),
        holds: largest <= 0.02 && same_state && growth.is_none_or(|bytes| bytes <= 0),
    })
}

/// A sequence through the recurrent trunk in f32.
fn exact(sequences: &[SequencePoint], tokens: usize) -> Option<&SequencePoint> {
    sequences.iter().find(|point| point.trunk == "mamba" && point.precision == "f32" && point.tokens == tokens)
}

/// The time per token of the longest sequence against that of a tenth of it.
fn linear(sequences: &[SequencePoint]) -> Option<Claim> {
    let (long, short) = (exact(sequences, 10_000)?, exact(sequences, 1_000)?);
    let ratio = long.ms / short.ms;
    Some(Claim {
        claim: "time grows linearly with the sequence".into(),
        promised: "10,000 tokens at most 11 times as long as 1,000".into(),
        ours: format!("{ratio:.1} times"),
        holds: ratio <= 11.0,
    })
}

pub fn table(claims: &[Claim]) -> Table {
    let mut table = Table::new(["promise", "promised", "measured", "kept"]);
    for claim in claims {
        let kept = if claim.holds { "yes" } else { "no" };
        table.row([claim.claim.clone(), claim.promised.clone(), claim.ours.clone(), kept.into()]);
    }
    table
}
