//! Files of episode records, from any simulator or robot, side by side.

use std::collections::BTreeMap;
use std::fmt::Write;

use robomamba_policy::Outcome;

use super::task_table::scores_table;
use crate::html::{escape, page};
use crate::score::{TaskScore, overall, scores};
use crate::{EpisodeRecord, Rate, Table};

/// The records of one file.
pub struct RecordFile {
    /// Name under which it is shown.
    pub name: String,
    /// Its records.
    pub records: Vec<EpisodeRecord>,
}

/// Success of every task, one row per task and a group of columns per file.
pub fn records_table(files: &[RecordFile]) -> Table {
    let several = files.len() > 1;
    let heading = |i: usize, name: &str| if several { format!("{name} ({})", i + 1) } else { name.to_string() };
    let columns = |i: usize| ["n", "k", "rate [95 % interval]", "mean steps"].map(|name| heading(i, name));
    let mut table = Table::new(["task".to_string()].into_iter().chain((0..files.len()).flat_map(columns)));
    let all: Vec<Vec<TaskScore>> = files.iter().map(|file| scores(&file.records)).collect();
    for (suite, task) in tasks(&all) {
        let find = |of: &[TaskScore]| of.iter().find(|score| (&score.suite, &score.task) == (&suite, &task)).cloned();
        table.row([name(&all, &suite, &task)].into_iter().chain(all.iter().flat_map(|of| cells(find(of)))));
    }
    let total = |of: &Vec<TaskScore>| rate_cells(overall(of), String::new());
    table.row(["all".to_string()].into_iter().chain(all.iter().flat_map(total)));
    for (i, file) in files.iter().enumerate().filter(|_| several) {
        table.row([format!("({}) {}", i + 1, file.name)]);
    }
    table
}

/// Suite and name of every task of any file, in the order in which they first occur.
fn tasks(all: &[Vec<TaskScore>]) -> Vec<(String, String)> {
    let mut tasks = Vec::new();
    for score in all.iter().flatten() {
        let task = (score.suite.clone(), score.task.clone());
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    tasks
}

/// The task alone where there is one suite only.
fn name(all: &[Vec<TaskScore>], suite: &str, task: &str) -> String {
    let is_only_suite = all.iter().flatten().all(|score| score.suite == suite);
    if is_only_suite { task.into() } else { format!("{suite}/{task}") }
}

fn cells(score: Option<TaskScore>) -> [String; 4] {
    score.map_or_else(Default::default, |score| rate_cells(score.rate, format!("{:.0}", score.mean_steps)))
}

fn rate_cells(rate: Rate, mean_steps: String) -> [String; 4] {
    [rate.n.to_string(), rate.k.to_string(), rate.to_string(), mean_steps]
}

/// A self-contained page with the success of every task, the causes of failure and all episodes.
pub fn records_page(files: &[RecordFile]) -> String {
    let sections: String = files.iter().map(section).collect();
    let names = files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ");
    let heading = format!("<h1>Success by task</h1><p class=\"soft\">{}</p>\n", escape(&names));
    let note = "<p class=\"note\">Intervals are Wilson's at 95 %.</p>\n";
    page(&escape(&names), &[heading, records_table(files).html(), note.into(), sections].concat())
}

fn section(file: &RecordFile) -> String {
    format!(
        "<h2>{}</h2>{}{}{}",
        escape(&file.name),
        scores_table(&scores(&file.records)),
        outcomes(&file.records),
        episodes(&file.records),
    )
}

/// How many episodes of every task ended in which way.
fn outcomes(records: &[EpisodeRecord]) -> String {
    let mut counts = BTreeMap::<(&str, String), usize>::new();
    for record in records.iter().filter(|record| !record.is_success()) {
        *counts.entry((record.task.as_str(), record.outcome.to_string())).or_default() += 1;
    }
    if counts.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["task", "episodes", "ended with"]);
    for ((task, outcome), count) in counts {
        table.row([task.to_string(), count.to_string(), outcome]);
    }
    format!("<h2>Causes of failure</h2><div class=\"card\">{}</div>\n", table.html())
}

fn episodes(records: &[EpisodeRecord]) -> String {
    let rows = records.iter().fold(String::new(), |mut rows, record| {
        let progress = record.progress.map_or(String::new(), |progress| format!("{:.0} %", 100.0 * progress));
        let latency = record.latency.map_or(String::new(), |latency| format!("{:.2}", latency.p99_ms));
        let class = if record.outcome == Outcome::Succeeded { "good" } else { "bad" };
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td class=\"words\">{}</td><td>{progress}</td><td>{}</td><td>{latency}</td>\
             <td class=\"left\"><span class=\"badge {class}\">{}</span></td></tr>",
            escape(&record.task),
            record.seed,
            escape(&record.instruction),
            record.steps,
            escape(&record.outcome),
        );
        rows
    });
    format!(
        "<div class=\"card\"><details><summary>All {} episodes</summary><div class=\"scroll\"><table><tr><th>task</th>\
         <th>seed</th><th class=\"left\">instruction</th><th>progress</th><th>steps</th><th>p99 in ms</th>\
         <th class=\"left\">outcome</th></tr>{rows}</table></div></details></div>\n",
        records.len(),
    )
}
