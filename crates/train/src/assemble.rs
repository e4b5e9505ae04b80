//! From sampled segments to the tensors of a batch: decoding, cutting into patches, labels.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use robomamba_model::{ImageScratch, ImageTransform, ModelConfig};
use robomamba_policy::NormStats;

use crate::augment::{AugmentConfig, Look};
use crate::config::BatchConfig;
use crate::corpus::{Corpus, Knowledge, Recorded};
use crate::encoding::Tokens;
use crate::learner::Labels;
use crate::modules::batch::{Batch, Episodes, Frames, Pictures, Texts};
use crate::objectives::objective::{Frame, Sample};
use crate::objectives::{PerObjective, imitation};
use crate::sampler::{SampledBatch, Segment, seeded};
use crate::{Result, TrainError};

/// Turns sampled segments into tensors.
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
    /// Weights of the auxiliary objectives, which decide what labels are made.
    pub weights: PerObjective,
    /// Sizes of the labels.
    pub knowledge: Knowledge,
    /// The tokens of each source, where encoders and connector are frozen.
    pub known: Option<Vec<Tokens>>,
    pub seed: u64,
}

/// A batch that is ready for an optimiser step.
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

    /// Assembles batch `number` of the run; the number also seeds the augmentation.
    ///
    /// # Errors
    /// When an image is damaged.
    pub(crate) fn assemble(&self, segments: &SampledBatch, number: u64) -> Result<Ready> {
        let mut sample = Sample {
            model: &self.config,
            stats: &self.stats,
            environment: self.corpus.environment.as_ref(),
            knowledge: self.knowledge,
            repeat_weight: self.batch.repeat_weight,
            segments: segments.iter().map(|segment| (self.recorded(segment), segment.steps())).collect(),
            frames: None,
        };
        let n_step = segments.iter().map(|segment| segment.len).sum();
        let (frames, frame, n_frame) = match &self.known {
            Some(known) => (self.tokens(known, segments), (0..n_step).collect(), self.count_frames(segments)),
            None => {
                let mut builder = FrameBuilder::new(self);
                let mut rng = seeded(self.seed, &[3, number]);
                for (recorded, steps) in &sample.segments {
                    builder.add(recorded, steps.clone(), Look::random(&self.augment, &mut rng))?;
                }
                let (pictures, frames, frame_of_step) = builder.finish();
                let n_frame = frames.len();
                sample.frames = Some(frames);
                (Frames::Pictures(pictures), frame_of_step, n_frame)
            }
        };
        let lengths = segments.iter().map(|segment| segment.len).collect();
        let episodes = Episodes { lengths, frame: frame.into(), state: self.state(segments) };
        let labels = Labels { actions: imitation::labels(&sample), terms: self.weights.terms(&sample) };
        Ok(Ready { batch: Batch { frames, episodes }, labels, n_frame, n_step })
    }

    /// Normalised `observation.state` of every step.
    fn state(&self, segments: &SampledBatch) -> Vec<f32> {
        let n = self.config.features.state.dim();
        let mut state = Vec::new();
        for segment in segments {
            let values = self.recorded(segment).episode.state().unwrap_or_default();
            state.extend_from_slice(&values[segment.start * n..][..segment.len * n]);
        }
        self.stats.state.normalise(&mut state);
        state
    }

    /// The known tokens of the steps.
    fn tokens(&self, known: &[Tokens], segments: &SampledBatch) -> Frames {
        let d_model = self.config.backbone.d_model();
        let of_segment = |&Segment { episode: (source, episode), start, len, .. }: &Segment| {
            &known[source][episode][start * d_model..(start + len) * d_model]
        };
        Frames::Tokens(segments.iter().flat_map(of_segment).copied().collect())
    }

    /// Number of distinct frames.
    fn count_frames(&self, segments: &SampledBatch) -> usize {
        let count = |segment: &Segment| {
            let recorded = self.recorded(segment);
            1 + recorded.run(segment.start + segment.len - 1) - recorded.run(segment.start)
        };
        segments.iter().map(count).sum()
    }

    fn recorded(&self, segment: &Segment) -> &Recorded {
        &self.corpus.sources[segment.episode.0].episodes[segment.episode.1]
    }
}

/// Collects the distinct frames.
struct FrameBuilder<'a> {
    assembler: &'a Assembler,
    scratch: Vec<ImageScratch>,
    patches: Vec<f32>,
    instruction: Vec<usize>,
    words: Words,
    frames: Vec<Frame<'a>>,
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
            frames: Vec::new(),
            frame_of_step: Vec::new(),
        }
    }

    /// The pictures, the frames that they show, and the frame of each step.
    fn finish(self) -> (Pictures, Vec<Frame<'a>>, Vec<usize>) {
        let pictures = Pictures {
            patches: self.patches,
            instruction: self.instruction.into(),
            texts: self.words.into_texts(&self.assembler.tokens),
        };
        (pictures, self.frames, self.frame_of_step)
    }

    /// Adds the frames of a segment, one per run of equal ones.
    fn add(&mut self, recorded: &'a Recorded, steps: Range<usize>, look: Look) -> Result<()> {
        for step in steps.clone() {
            if step == steps.start || recorded.starts_run(step) {
                let frame = Frame { recorded, step, look };
                self.encode(&frame)?;
                self.instruction.push(self.words.place(recorded.instruction[step]));
                self.frames.push(frame);
            }
            self.frame_of_step.push(self.frames.len() - 1);
        }
        Ok(())
    }

    /// Decodes, augments and cuts the images of a frame into patches.
    fn encode(&mut self, &Frame { recorded, step, look }: &Frame) -> Result<()> {
        let unreadable =
            |source| TrainError::Dataset { path: format!("episode {}", recorded.episode.index()).into(), source };
        let cameras = &self.assembler.config.features.cameras;
        for ((camera, transform), scratch) in cameras.iter().zip(&self.assembler.transforms).zip(&mut self.scratch) {
            let camera = recorded.episode.camera(&camera.name).map_err(unreadable)?;
            let image = look.apply(camera.decode(step).map_err(unreadable)?);
            let start = self.patches.len();
            self.patches.resize(start + transform.patches_len(), 0.0);
            transform.apply(image.data(), scratch, &mut self.patches[start..])?;
        }
        Ok(())
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
