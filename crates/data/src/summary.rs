//! What a data set holds, at a glance.

use std::fmt;

use serde::Serialize;

use crate::dataset::Dataset;

/// Episodes of one instruction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskSummary {
    /// The instruction (of an episode's first frame).
    pub task: String,
    /// Number of episodes.
    pub episodes: usize,
    /// Successful ones; None when the data set does not record outcomes.
    pub successes: Option<usize>,
    /// Frames of these episodes.
    pub frames: usize,
    /// Frames of the shortest and the longest of them.
    pub length: (usize, usize),
}

/// Counts over a data set, from its metadata alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Number of episodes.
    pub episodes: usize,
    /// Number of frames.
    pub frames: usize,
    /// Recorded time in seconds.
    pub seconds: f64,
    /// Successful episodes; None when the data set does not record outcomes.
    pub successes: Option<usize>,
    /// Per instruction, in the order of `task_index`.
    pub tasks: Vec<TaskSummary>,
}

impl Summary {
    /// Counts the episodes of a data set.
    pub fn of(dataset: &Dataset) -> Self {
        let tasks = dataset.tasks().filter_map(|task| task_summary(dataset, task)).collect::<Vec<_>>();
        Self {
            episodes: dataset.len(),
            frames: dataset.frames(),
            seconds: dataset.frames() as f64 / f64::from(dataset.fps()),
            successes: tasks.iter().map(|task| task.successes).sum(),
            tasks,
        }
    }
}

fn task_summary(dataset: &Dataset, task: &str) -> Option<TaskSummary> {
    let of_task =
        || dataset.episodes().iter().filter(|episode| episode.tasks.first().is_some_and(|first| first == task));
    let lengths = || of_task().map(|episode| episode.length);
    Some(TaskSummary {
        task: task.into(),
        episodes: lengths().count(),
        successes: of_task().map(|episode| episode.success.map(usize::from)).sum(),
        frames: lengths().sum(),
        length: (lengths().min()?, lengths().max()?),
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let successes = |successes: Option<usize>| successes.map_or("-".into(), |count| count.to_string());
        writeln!(f, "{:>8} {:>9} {:>9} {:>13}  instruction", "episodes", "successes", "frames", "length")?;
        for task in &self.tasks {
            let TaskSummary { episodes, frames, length: (shortest, longest), .. } = task;
            let length = format!("{shortest}..{longest}");
            writeln!(f, "{episodes:>8} {:>9} {frames:>9} {length:>13}  {}", successes(task.successes), task.task)?;
        }
        let Self { episodes, frames, seconds, .. } = self;
        write!(f, "{episodes:>8} {:>9} {frames:>9} {:>11.1} s  in all", successes(self.successes), seconds)
    }
}
