//! Records summarised by task.

use serde::Serialize;

use crate::{EpisodeRecord, Rate};

/// What a policy reached in one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskScore {
    /// Collection of tasks.
    pub suite: String,
    /// Task within the suite.
    pub task: String,
    /// Episodes and successes.
    #[serde(flatten)]
    pub rate: Rate,
    /// 95 % Wilson interval of the success probability.
    pub interval: (f64, f64),
    /// Mean number of control steps.
    pub mean_steps: f64,
}

/// The scores of all tasks, in the order in which the records first name them.
pub fn scores(records: &[EpisodeRecord]) -> Vec<TaskScore> {
    let mut tasks: Vec<(&str, &str)> = Vec::new();
    for record in records {
        let task = (record.suite.as_str(), record.task.as_str());
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    tasks.into_iter().map(|(suite, task)| score(suite, task, records)).collect()
}

fn score(suite: &str, task: &str, records: &[EpisodeRecord]) -> TaskScore {
    let (mut rate, mut steps) = (Rate::default(), 0);
    for record in records.iter().filter(|record| record.suite == suite && record.task == task) {
        rate.add(record.is_success());
        steps += record.steps;
    }
    let mean_steps = steps as f64 / rate.n.max(1) as f64;
    TaskScore { suite: suite.into(), task: task.into(), rate, interval: rate.wilson(), mean_steps }
}

/// All tasks together.
pub fn overall(scores: &[TaskScore]) -> Rate {
    scores.iter().fold(Rate::default(), |sum, score| Rate { n: sum.n + score.rate.n, k: sum.k + score.rate.k })
}
