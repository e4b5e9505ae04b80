//! Checkpoints in LeRobot's layout, and the state from which a killed run continues.
//!
//! ```text
//! <out>/checkpoints/000500/pretrained_model/   the exported policy (averaged weights)
//! <out>/checkpoints/000500/training_state/     weights, moments, carried states, position in the data
//! <out>/checkpoints/last                       symbolic link to the newest
//! ```
//!
//! A checkpoint is written under another name and renamed as a whole, then `last` is switched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use robomamba_model::{Checkpoint, Dtype};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use crate::modules::SequenceState;
use crate::ops::mixer::BlockState;
use crate::optimiser::OptimiserState;
use crate::plan::Cursor;
use crate::{Parameters, Result, TrainError};

const TENSORS: &str = "optimizer_state.safetensors";
const POSITION: &str = "training_step.json";

/// Where a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    /// Optimiser steps taken.
    pub step: u64,
    /// Seconds of training, interruptions not counted.
    pub elapsed_s: f64,
    /// The next batch.
    pub cursor: Cursor,
    /// Seed that the order of the data comes from.
    pub seed: u64,
}

/// Everything that a run needs to continue.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    pub position: Position,
    pub parameters: &'a Parameters,
    pub optimiser: &'a OptimiserState,
    /// State after each segment of the last batch.
    pub carried: &'a [SequenceState],
}

/// The folder of a run's checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    pub(crate) fn of(out: &Path) -> Self {
        Self { dir: out.join("checkpoints") }
    }

    /// Folder of the newest checkpoint, if there is one.
    pub(crate) fn last(&self) -> Option<PathBuf> {
        let last = self.dir.join("last");
        last.join("training_state").join(POSITION).is_file().then_some(last)
    }

    /// Writes a checkpoint, makes it the last one and removes all but the newest `keep` (0 keeps all).
    ///
    /// # Errors
    /// When a file cannot be written; earlier checkpoints are untouched then.
    pub(crate) fn save(&self, policy: &Checkpoint, snapshot: &Snapshot, keep: usize) -> Result<PathBuf> {
        let name = format!("{:06}", snapshot.position.step);
        let (staging, target) = (self.dir.join(format!(".{name}.partial")), self.dir.join(&name));
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(io(&staging))?;
        }
        let state = staging.join("training_state");
        fs::create_dir_all(&state).map_err(io(&state))?;
        policy.save(&staging.join("pretrained_model"), Dtype::F32)?;
        write_tensors(&state.join(TENSORS), snapshot)?;
        let position = serde_json::to_vec_pretty(&snapshot.position).expect("numbers are JSON");
        let path = state.join(POSITION);
        fs::write(&path, position).map_err(io(&path))?;
        if target.exists() {
            fs::remove_dir_all(&target).map_err(io(&target))?;
        }
        fs::rename(&staging, &target).map_err(io(&target))?;
        self.point_to(&name)?;
        self.prune(keep)?;
        Ok(target)
    }

    /// Makes `last` the link to `name` in one step.
    fn point_to(&self, name: &str) -> Result<()> {
        let (link, last) = (self.dir.join(".last.partial"), self.dir.join("last"));
        let _ = fs::remove_file(&link);
        #[cfg(unix)]
        std::os::unix::fs::symlink(name, &link).map_err(io(&link))?;
        #[cfg(windows)]
        std::os::windows::fs::symlink_dir(name, &link).map_err(io(&link))?;
        fs::rename(&link, &last).map_err(io(&last))
    }

    fn prune(&self, keep: usize) -> Result<()> {
        let entries = fs::read_dir(&self.dir).map_err(io(&self.dir))?;
        let is_step = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_step(name))
            .collect();
        names.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
        let old = if keep == 0 { 0 } else { names.len().saturating_sub(keep) };
        for name in &names[..old] {
            let path = self.dir.join(name);
            fs::remove_dir_all(&path).map_err(io(&path))?;
        }
        Ok(())
    }
}

/// Reads back what [`Checkpoints::save`] wrote beside the policy: the weights go into `parameters`.
///
/// # Errors
/// When a file is missing or damaged, or belongs to another model.
pub(crate) fn restore(
    checkpoint: &Path,
    parameters: &mut Parameters,
) -> Result<(Position, OptimiserState, Vec<SequenceState>)> {
    let state = checkpoint.join("training_state");
    let path = state.join(POSITION);
    let position: Position = serde_json::from_slice(&fs::read(&path).map_err(io(&path))?)
        .map_err(|error| TrainError::State { path: path.clone(), reason: error.to_string() })?;
    let path = state.join(TENSORS);
    let bytes = fs::read(&path).map_err(io(&path))?;
    let broken = |reason: String| TrainError::State { path: path.clone(), reason };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
    let read = |name: &str, expected: Option<usize>| -> Result<Vec<f32>> {
        let view =
            file.tensor(name).map_err(|error| broken(format!("{error}; start the run again in a new folder")))?;
        let values: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        match expected {
            Some(expected) if expected != values.len() => Err(broken(format!(
                "`{name}` must hold {expected} values, found {}; the model of this run was another one",
                values.len()
            ))),
            _ => Ok(values),
        }
    };
    let mut optimiser = OptimiserState { step: position.step, first: vec![], second: vec![], ema: vec![] };
    for parameter in &mut parameters.list {
        let (name, len) = (parameter.spec.name.clone(), Some(parameter.values.len()));
        parameter.values = read(&format!("weight/{name}"), len)?;
        optimiser.first.push(read(&format!("first/{name}"), len)?);
        optimiser.second.push(read(&format!("second/{name}"), len)?);
        optimiser.ema.push(read(&format!("ema/{name}"), len)?);
    }
    let mut carried: Vec<SequenceState> = Vec::new();
    while file.tensor(&carried_name("ssm", carried.len(), 0)).is_ok() {
        let (place, mut blocks) = (carried.len(), Vec::new());
        while file.tensor(&carried_name("ssm", place, blocks.len())).is_ok() {
            let ssm = read(&carried_name("ssm", place, blocks.len()), None)?;
            let conv = read(&carried_name("conv", place, blocks.len()), None)?;
            blocks.push(BlockState { ssm, conv });
        }
        carried.push(blocks);
    }
    Ok((position, optimiser, carried))
}

fn carried_name(part: &str, place: usize, block: usize) -> String {
    format!("carried/{place}/{block}/{part}")
}

fn write_tensors(path: &Path, snapshot: &Snapshot) -> Result<()> {
    let mut values: BTreeMap<String, &[f32]> = BTreeMap::new();
    let state = snapshot.optimiser;
    for (i, parameter) in snapshot.parameters.list.iter().enumerate() {
        let name = &parameter.spec.name;
        values.insert(format!("weight/{name}"), &parameter.values);
        values.insert(format!("first/{name}"), &state.first[i]);
        values.insert(format!("second/{name}"), &state.second[i]);
        values.insert(format!("ema/{name}"), &state.ema[i]);
    }
    for (place, blocks) in snapshot.carried.iter().enumerate() {
        for (block, state) in blocks.iter().enumerate() {
            values.insert(carried_name("ssm", place, block), &state.ssm);
            values.insert(carried_name("conv", place, block), &state.conv);
        }
    }
    let bytes: Vec<(String, Vec<u8>)> = values
        .into_iter()
        .map(|(name, values)| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        let view = TensorView::new(safetensors::Dtype::F32, vec![bytes.len() / 4], bytes);
        (name, view.expect("the shape was derived from the length"))
    });
    let file = safetensors::serialize(views, None).expect("names are unique");
    fs::write(path, file).map_err(io(path))
}

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.to_path_buf();
    move |source| TrainError::Io { path, source }
}
