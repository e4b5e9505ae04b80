//! From planned segments to the tensors of a batch: decoding, cutting into patches, labels.

use std::collections::HashMap;
use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use robomamba_model::{ImageScratch, ImageTransform, ModelConfig};
use robomamba_policy::{CameraSpec, Image, NormStats};

use crate::config::{AugmentConfig, BatchConfig};
use crate::corpus::{Corpus, Recorded};
use crate::encoding::Tokens;
use crate::learner::Labels;
use crate::modules::{Batch, Episodes, Frames, Pictures, Texts};
use crate::ops::grounding::Pointer;
use crate::ops::loss::Target;
use crate::ops::recognition::{CLASSES, Thing};
use crate::plan::{PlannedBatch, Segment, seeded};
use crate::{Result, TrainError};

/// A thing that is nearer to a named place than this fraction of the picture's width is the one that is named.
const SAME_PLACE: f32 = 1e-3;

/// Turns planned batches into tensors.
#[derive(Debug)]
pub(crate) struct Assembler {
    pub corpus: Arc<Corpus>,
    pub config: ModelConfig,
    pub batch: BatchConfig,
    pub augment: AugmentConfig,
    /// Normalisation of state and action, which a fine-tuned model keeps from its first training.
    pub stats: NormStats,
    /// Token ids of every instruction of the corpus.
    pub tokens: Vec<Vec<u32>>,
    pub transforms: Vec<ImageTransform>,
    /// Whether the queries are told where to look.
    pub points: bool,
    /// Whether the patch tokens are told what they show.
    pub shows: bool,
    /// Coordinates that the token of a frame is to tell.
    pub n_pointing: usize,
    /// Colours of things that the token of a frame is to tell, [`CLASSES`] of every point.
    pub n_naming: usize,
    /// The tokens of each source, where encoders and connector do not learn.
    pub known: Option<Vec<Tokens>>,
    pub seed: u64,
}

/// A batch that is ready to be learnt from.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub batch: Batch,
    pub labels: Labels,
    /// Distinct frames.
    pub n_frame: usize,
    /// Steps.
    pub n_step: usize,
}

impl Assembler {
    /// One transform per camera of the model.
    ///
    /// # Errors
    /// When the model's vision encoder cannot take the cameras' images.
    pub(crate) fn transforms(config: &ModelConfig) -> Result<Vec<ImageTransform>> {
        let cameras = config.features.cameras.iter();
        cameras.map(|camera| Ok(ImageTransform::new(&config.vision, camera.height, camera.width)?)).collect()
    }

    /// Assembles the batch `number` of the run, which also seeds its random changes.
    ///
    /// # Errors
    /// When an image is damaged.
    pub(crate) fn assemble(&self, plan: &PlannedBatch, number: u64) -> Result<Ready> {
        let Sights { frames, n_frame, frame, pointing, naming } = match &self.known {
            Some(known) => self.tokens(known, plan),
            None => self.pictures(plan, &mut seeded(self.seed, &[3, number]))?,
        };
        let mut state = Vec::new();
        let mut labels = LabelBuilder::default();
        for segment in plan {
            let recorded = self.recorded(segment);
            let n = self.config.features.state.dim();
            let mut values =
                recorded.episode.state().unwrap_or_default()[segment.start * n..][..segment.len * n].to_vec();
            self.stats.state.normalise(&mut values);
            state.extend(values);
            labels.add(self, recorded, segment);
        }
        let n_step = frame.len();
        let lengths = plan.iter().map(|segment| segment.len).collect();
        let episodes = Episodes { lengths, frame: frame.into(), state };
        Ok(Ready { batch: Batch { frames, episodes }, labels: labels.finish(pointing, naming), n_frame, n_step })
    }

    /// What the steps of `plan` see, to be encoded; the pictures are changed at random.
    fn pictures(&self, plan: &PlannedBatch, rng: &mut ChaCha8Rng) -> Result<Sights> {
        let mut frames = FrameBuilder::new(self);
        for segment in plan {
            let look = Look::random(&self.augment, rng);
            frames.add(self.recorded(segment), segment, &look)?;
        }
        Ok(frames.finish())
    }

    /// The tokens of the steps of `plan`.
    fn tokens(&self, known: &[Tokens], plan: &PlannedBatch) -> Sights {
        let d_model = self.config.backbone.d_model();
        let of_segment = |&Segment { episode: (source, episode), start, len, .. }: &Segment| {
            &known[source][episode][start * d_model..(start + len) * d_model]
        };
        let n_step = plan.iter().map(|segment| segment.len).sum();
        let n_frame = plan.iter().map(|segment| {
            let recorded = self.recorded(segment);
            1 + recorded.run(segment.start + segment.len - 1) - recorded.run(segment.start)
        });
        Sights {
            n_frame: n_frame.sum(),
            frames: Frames::Tokens(plan.iter().flat_map(of_segment).copied().collect()),
            frame: (0..n_step).collect(),
            pointing: Collected::default().finish(),
            naming: Collected::default().finish(),
        }
    }

    fn recorded(&self, segment: &Segment) -> &Recorded {
        &self.corpus.sources[segment.episode.0].episodes[segment.episode.1]
    }
}

/// What the steps of a batch see.
struct Sights {
    frames: Frames,
    /// Distinct frames.
    n_frame: usize,
    /// Frame of each step.
    frame: Vec<usize>,
    pointing: Target,
    naming: Target,
}

/// How the images of an episode are changed: `y = x * gain + bias` per channel on values in `[0, 1]`, and a shift.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Look {
    gain: [f32; 3],
    bias: f32,
    /// Rows and columns in pixels.
    shift: (isize, isize),
}

impl Look {
    fn random(augment: &AugmentConfig, rng: &mut ChaCha8Rng) -> Self {
        let mut around = |size: f32| if size > 0.0 { rng.random_range(-size..=size) } else { 0.0 };
        let contrast = 1.0 + around(augment.contrast);
        let gain = [(); 3].map(|()| contrast * (1.0 + around(augment.colour)));
        let bias = around(augment.brightness) + 0.5 * (1.0 - contrast);
        let reach = augment.shift_px as i32;
        let mut shift = || if reach > 0 { rng.random_range(-reach..=reach) } else { 0 };
        Self { gain, bias, shift: (shift() as isize, shift() as isize) }
    }

    /// Where a point of the picture is after the shift.
    fn place(&self, point: [f32; 2], camera: &CameraSpec) -> [f32; 2] {
        [point[0] - self.shift.1 as f32 / camera.width as f32, point[1] - self.shift.0 as f32 / camera.height as f32]
    }

    fn apply(&self, mut image: Image) -> Image {
        if self.gain != [1.0; 3] || self.bias != 0.0 {
            let tables: [[u8; 256]; 3] = self.gain.map(|gain| {
                std::array::from_fn(|byte| (byte as f32 * gain + self.bias * 255.0).round().clamp(0.0, 255.0) as u8)
            });
            for pixel in image.data_mut().chunks_exact_mut(3) {
                pixel.iter_mut().zip(&tables).for_each(|(byte, table)| *byte = table[usize::from(*byte)]);
            }
        }
        if self.shift == (0, 0) { image } else { self.moved(&image) }
    }

    fn moved(&self, image: &Image) -> Image {
        let (height, width) = (image.height(), image.width());
        let mut moved = Image::black(height, width);
        let source = |i: usize, shift: isize, len: usize| i.saturating_add_signed(shift).min(len - 1);
        for (row, pixels) in moved.data_mut().chunks_exact_mut(width * 3).enumerate() {
            let from = source(row, self.shift.0, height) * width;
            for (column, pixel) in pixels.chunks_exact_mut(3).enumerate() {
                pixel.copy_from_slice(&image.data()[(from + source(column, self.shift.1, width)) * 3..][..3]);
            }
        }
        moved
    }
}

/// Collects the distinct frames.
struct FrameBuilder<'a> {
    assembler: &'a Assembler,
    scratch: Vec<ImageScratch>,
    patches: Vec<f32>,
    instruction: Vec<usize>,
    words: Words,
    pointers: Vec<Pointer>,
    things: Vec<Thing>,
    pointing: Collected,
    naming: Collected,
    frame_of_step: Vec<usize>,
}

impl<'a> FrameBuilder<'a> {
    fn new(assembler: &'a Assembler) -> Self {
        let scratch = assembler.transforms.iter().map(ImageTransform::scratch).collect();
        Self {
            assembler,
            scratch,
            patches: Vec::new(),
            instruction: Vec::new(),
            words: Words::default(),
            pointers: Vec::new(),
            things: Vec::new(),
            pointing: Collected::default(),
            naming: Collected::default(),
            frame_of_step: Vec::new(),
        }
    }

    fn finish(self) -> Sights {
        let n_frame = self.instruction.len();
        let pictures = Pictures {
            patches: self.patches,
            instruction: self.instruction.into(),
            texts: self.words.into_texts(&self.assembler.tokens),
            pointers: self.pointers.into(),
            things: self.things.into(),
        };
        let (pointing, naming) = (self.pointing.finish(), self.naming.finish());
        Sights { frames: Frames::Pictures(pictures), n_frame, frame: self.frame_of_step, pointing, naming }
    }

    /// Adds the frames of a segment, one per run of equal ones.
    fn add(&mut self, recorded: &Recorded, segment: &Segment, look: &Look) -> Result<()> {
        for step in segment.start..segment.start + segment.len {
            if step == segment.start || recorded.runs.binary_search(&step).is_ok() {
                self.encode(recorded, step, look).map_err(|source| TrainError::Dataset {
                    path: format!("episode {}", recorded.episode.index()).into(),
                    source,
                })??;
                if self.assembler.points {
                    self.point(recorded, step, look);
                }
                if self.assembler.shows {
                    self.show(recorded, step, look);
                }
                self.locate(recorded, step, look);
                self.name(recorded, step);
                self.instruction.push(self.words.place(recorded.instruction[step]));
            }
            self.frame_of_step.push(self.instruction.len() - 1);
        }
        Ok(())
    }

    /// Tells the queries of the frame that is about to be added where to look.
    fn point(&mut self, recorded: &Recorded, step: usize, look: &Look) {
        let config = &self.assembler.config;
        let (frame, n_patch, n_query) = (self.instruction.len(), config.vision.n_patch(), config.connector.n_query);
        for places in &recorded.grounding {
            for (query, point) in places.of_step(step).filter(|(query, _)| *query < n_query) {
                let point = look.place(point, &config.features.cameras[places.camera]);
                self.pointers.push(Pointer::at(frame, query, point, config.vision.grid(), places.camera * n_patch));
            }
        }
    }

    /// Says where the places are that the token of the frame that is about to be added is to tell.
    fn locate(&mut self, recorded: &Recorded, step: usize, look: &Look) {
        let n = self.assembler.n_pointing;
        let (mut values, mut weights) = (vec![0.0; n], vec![0.0; n]);
        let mut first = 0;
        for places in recorded.grounding.iter().filter(|_| n > 0) {
            for (i, point) in places.of_step(step) {
                let at = first + 2 * i..first + 2 * i + 2;
                let point = look.place(point, &self.assembler.config.features.cameras[places.camera]);
                values[at.clone()].copy_from_slice(&point.map(|fraction| 2.0 * fraction - 1.0));
                weights[at].fill(1.0);
            }
            first += 2 * places.n_place;
        }
        self.pointing.values.extend(values);
        self.pointing.weights.extend(weights);
    }

    /// Says which colours the things there have.
    fn name(&mut self, recorded: &Recorded, step: usize) {
        let n = self.assembler.n_naming;
        let (mut values, mut weights) = (vec![0.0; n], vec![0.0; n]);
        let mut first = 0;
        for places in recorded.grounding.iter().filter(|_| n > 0) {
            let things = recorded.things.iter().filter(|things| things.camera == places.camera);
            let things: Vec<_> = things.flat_map(|things| things.of_step(step)).collect();
            for (i, [x, y]) in places.of_step(step) {
                let is_there = |(_, at): &&(usize, [f32; 4])| (at[0] - x).hypot(at[1] - y) < SAME_PLACE;
                if let Some((_, [.., colour])) = things.iter().find(is_there) {
                    let at = first + i * CLASSES;
                    values[at + *colour as usize] = 1.0;
                    weights[at..at + CLASSES].fill(1.0);
                }
            }
            first += places.n_place * CLASSES;
        }
        self.naming.values.extend(values);
        self.naming.weights.extend(weights);
    }

    /// Tells the patch tokens of the frame that is about to be added what they show.
    fn show(&mut self, recorded: &Recorded, step: usize, look: &Look) {
        let ModelConfig { features, vision, .. } = &self.assembler.config;
        for places in &recorded.things {
            let image = self.instruction.len() * features.cameras.len() + places.camera;
            for (_, [x, y, kind, colour]) in places.of_step(step) {
                let point = look.place([x, y], &features.cameras[places.camera]);
                self.things.push(Thing::at(image, point, vision.grid(), [kind, colour].map(|class| class as usize)));
            }
        }
    }

    fn encode(
        &mut self,
        recorded: &Recorded,
        step: usize,
        look: &Look,
    ) -> Result<Result<()>, robomamba_data::DataError> {
        let cameras = &self.assembler.config.features.cameras;
        for ((camera, transform), scratch) in cameras.iter().zip(&self.assembler.transforms).zip(&mut self.scratch) {
            let image = look.apply(recorded.episode.camera(&camera.name)?.decode(step)?);
            let start = self.patches.len();
            self.patches.resize(start + transform.patches_len(), 0.0);
            if let Err(error) = transform.apply(image.data(), scratch, &mut self.patches[start..]) {
                return Ok(Err(error.into()));
            }
        }
        Ok(Ok(()))
    }
}

/// The distinct instructions of a batch.
#[derive(Default)]
struct Words {
    places: HashMap<usize, usize>,
    order: Vec<usize>,
}

impl Words {
    fn place(&mut self, instruction: usize) -> usize {
        *self.places.entry(instruction).or_insert_with(|| {
            self.order.push(instruction);
            self.order.len() - 1
        })
    }

    fn into_texts(self, tokens: &[Vec<u32>]) -> Texts {
        let texts: Vec<&[u32]> = self.order.iter().map(|&instruction| tokens[instruction].as_slice()).collect();
        let n_word = texts.iter().map(|text| text.len()).max().unwrap_or(1);
        let padded = |text: &&[u32]| {
            let mut ids: Vec<usize> = text.iter().map(|&id| id as usize).collect();
            ids.resize(n_word, 0);
            ids
        };
        Texts {
            ids: texts.iter().flat_map(padded).collect(),
            lengths: texts.iter().map(|text| text.len()).collect(),
            n_word,
        }
    }
}

/// Collects targets and weights.
#[derive(Default)]
struct LabelBuilder {
    actions: Collected,
    confidence: Collected,
    auxiliary: Collected,
}

#[derive(Default)]
struct Collected {
    values: Vec<f32>,
    weights: Vec<f32>,
}

impl LabelBuilder {
    fn add(&mut self, assembler: &Assembler, recorded: &Recorded, segment: &Segment) {
        let action_dim = assembler.config.features.action.dim();
        let mut actions = recorded.episode.action().unwrap_or_default().to_vec();
        assembler.stats.action.normalise(&mut actions);
        let mut environment = recorded.environment().to_vec();
        let n_environment = assembler.corpus.n_environment();
        if let Some(stats) = &assembler.corpus.environment {
            stats.normalise(&mut environment);
        }
        for step in segment.start..segment.start + segment.len {
            let fresh = step == 0 || recorded.runs.binary_search(&step).is_ok();
            let weight = if fresh { 1.0 } else { assembler.batch.repeat_weight };
            self.action_chunk(assembler, recorded, &actions, (step, weight));
            self.confidence.push(
                &[f32::from(u8::from(recorded.success == Some(true)))],
                if recorded.success.is_some() { weight } else { 0.0 },
            );
            self.auxiliary.push(&environment[step * n_environment..][..n_environment], weight);
        }
        debug_assert_eq!(actions.len(), recorded.len * action_dim);
    }

    /// The actions of the steps from `step` on; what lies past the end (`action_is_pad`) or must not be
    /// imitated has no weight.
    fn action_chunk(
        &mut self,
        assembler: &Assembler,
        recorded: &Recorded,
        actions: &[f32],
        (step, weight): (usize, f32),
    ) {
        let dim = assembler.config.features.action.dim();
        for ahead in step..step + assembler.config.action_head.chunk_size {
            let imitate = ahead < recorded.len && recorded.demonstration[step] && recorded.demonstration[ahead];
            let at = ahead.min(recorded.len - 1) * dim;
            self.actions.push(&actions[at..][..dim], if imitate { weight } else { 0.0 });
        }
    }

    fn finish(self, pointing: Target, naming: Target) -> Labels {
        Labels {
            pointing,
            naming,
            actions: self.actions.finish(),
            confidence: self.confidence.finish(),
            auxiliary: self.auxiliary.finish(),
        }
    }
}

impl Collected {
    fn push(&mut self, values: &[f32], weight: f32) {
        self.values.extend_from_slice(values);
        self.weights.extend(std::iter::repeat_n(weight, values.len()));
    }

    /// Scales the weights to a sum of one, if there are any.
    fn finish(mut self) -> Target {
        let total: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        if total > 0.0 {
            let scale = (1.0 / total) as f32;
            self.weights.iter_mut().for_each(|weight| *weight *= scale);
        }
        Target { values: self.values.into(), weights: self.weights.into() }
    }
}
