//! How a session uses the machine.

use std::num::NonZeroUsize;
use std::sync::Arc;

use robomamba_kernels::{KernelChoice, Kernels, Threads};

use crate::RuntimeError;

/// Choices of a session; the default suits most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Threads of one control step; without a number, as many as pay off for the size of the model.
    pub threads: Option<NonZeroUsize>,
    /// Kernels; without a choice, those of the process ([`KernelChoice::current`]).
    pub kernels: Option<KernelChoice>,
    /// What happens when a camera sends the same image again.
    pub frame_reuse: FrameReuse,
}

/// What happens when a camera sends the same image again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameReuse {
    /// Its encoding is used again when every byte is equal; the result is the same, bit for bit.
    #[default]
    Exact,
    /// Every image is encoded.
    Off,
}

/// The kernels of a session and the threads they run on.
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    pub kernels: Kernels,
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Executor {
    /// Starts the threads that `options` ask for, `auto` of them when the number is left open.
    pub fn new(options: &RuntimeOptions, auto: usize) -> Result<Self, RuntimeError> {
        let threads = options.threads.map_or(auto, NonZeroUsize::get);
        let choice = options.kernels.unwrap_or_else(KernelChoice::current);
        if threads == 1 {
            return Ok(Self { kernels: Kernels::pinned(choice, Threads::One)?, pool: None });
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("robomamba-{i}"))
            .build()
            .map_err(|source| RuntimeError::Threads { threads, source })?;
        Ok(Self { kernels: Kernels::pinned(choice, Threads::Rayon)?, pool: Some(Arc::new(pool)) })
    }

    /// Runs `work` on the threads of this executor.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.current_num_threads())
    }
}
