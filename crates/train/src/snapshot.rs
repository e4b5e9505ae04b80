//! Checkpoints in LeRobot's layout, and the training state from which a killed run continues.
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

use robomamba_files::PartialFolder;
use robomamba_model::{Checkpoint, Dtype};
use safetensors::tensor::TensorView;
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::modules::batch::SequenceState;
use crate::ops::mixer::BlockState;
use crate::optimiser::OptimiserState;
use crate::sampler::Cursor;
use crate::{Parameters, Result, TrainError};

const TENSORS: &str = "optimizer_state.safetensors";
const ANEW: &str = "start the run again in a new folder";
const POSITION: &str = "training_step.json";

/// Position of a run.
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

/// The state from which a run continues.
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
        let target = self.dir.join(&name);
        let folder = PartialFolder::begin(&target).map_err(io(&target))?;
        let state = folder.path().join("training_state");
        fs::create_dir_all(&state).map_err(io(&state))?;
        policy.save(&folder.path().join("pretrained_model"), Dtype::F32)?;
        write_tensors(&state.join(TENSORS), snapshot)?;
        let position = serde_json::to_vec_pretty(&snapshot.position).expect("numbers are JSON");
        let path = state.join(POSITION);
        robomamba_files::write(&path, &position).map_err(io(&path))?;
        folder.publish().map_err(io(&target))?;
        self.point_to(&name)?;
        self.prune(keep)?;
        Ok(target)
    }

    /// Makes `last` the link to `name` in one step.
    fn point_to(&self, name: &str) -> Result<()> {
        let last = self.dir.join("last");
        robomamba_files::link_folder(&last, Path::new(name)).map_err(io(&last))
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
    let tensors = Tensors::parse(&path, &bytes)?;
    let mut optimiser = OptimiserState { step: position.step, first: vec![], second: vec![], ema: vec![] };
    for parameter in &mut parameters.list {
        let (name, len) = (parameter.spec.name.clone(), Some(parameter.values.len()));
        parameter.values = tensors.read(&format!("weight/{name}"), len)?;
        optimiser.first.push(tensors.read(&format!("first/{name}"), len)?);
        optimiser.second.push(tensors.read(&format!("second/{name}"), len)?);
        optimiser.ema.push(tensors.read(&format!("ema/{name}"), len)?);
    }
    let block = |place: usize, block: usize| {
        let [ssm, conv] = ["ssm", "conv"].map(|part| tensors.find(&carried_name(part, place, block)));
        Some(BlockState { ssm: ssm?, conv: conv? })
    };
    let sequence = |place: usize| -> SequenceState { (0..).map_while(|number| block(place, number)).collect() };
    let carried = (0..).map(sequence).take_while(|blocks| !blocks.is_empty()).collect();
    Ok((position, optimiser, carried))
}

/// Initialises the heads of auxiliary objectives from the training state beside the policy in folder `policy`. Heads
/// that it does not have in this size stay as they are, and so do all heads without a training state.
///
/// # Errors
/// When the training state is damaged.
pub(crate) fn adopt_heads(policy: &Path, parameters: &mut Parameters) -> Result<()> {
    let Some(path) = [Some(policy), policy.parent()]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("training_state").join(TENSORS))
        .find(|path| path.is_file())
    else {
        return Ok(());
    };
    let bytes = fs::read(&path).map_err(io(&path))?;
    let tensors = Tensors::parse(&path, &bytes)?;
    for parameter in parameters.list.iter_mut().filter(|parameter| !parameter.exported) {
        let learnt = tensors.find(&format!("ema/{}", parameter.spec.name));
        if let Some(values) = learnt.filter(|values| values.len() == parameter.values.len()) {
            parameter.values = values;
        }
    }
    Ok(())
}

/// A file of tensors in f32.
struct Tensors<'a> {
    path: &'a Path,
    file: SafeTensors<'a>,
}

impl<'a> Tensors<'a> {
    fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let broken = |error: SafeTensorError| TrainError::State { path: path.into(), reason: error.to_string() };
        Ok(Self { path, file: SafeTensors::deserialize(bytes).map_err(broken)? })
    }

    /// The values of a tensor. If `expected` is known, it must be their number.
    fn read(&self, name: &str, expected: Option<usize>) -> Result<Vec<f32>> {
        let broken = |reason: String| TrainError::State { path: self.path.into(), reason };
        let values = self.find(name).ok_or_else(|| broken(format!("`{name}` is missing; {ANEW}")))?;
        match expected {
            Some(expected) if expected != values.len() => Err(broken(format!(
                "`{name}` must hold {expected} values, found {}; the model of this run was another one",
                values.len()
            ))),
            _ => Ok(values),
        }
    }

    fn find(&self, name: &str) -> Option<Vec<f32>> {
        let view = self.file.tensor(name).ok()?;
        Some(view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }
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
    robomamba_files::write(path, &file).map_err(io(path))
}

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.to_path_buf();
    move |source| TrainError::Io { path, source }
}
