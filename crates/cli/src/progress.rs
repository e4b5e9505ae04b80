//! Live progress on stderr: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// Time between two lines when stderr is not a terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// Progress of a job of known length; shared by all threads that work on it.
pub struct Progress {
    bar: ProgressBar,
    job: String,
    started: Instant,
    /// When the last line was printed; `None` on a terminal.
    last_line: Option<Mutex<Instant>>,
}

impl Progress {
    /// Starts the job called `job`, of `total` `unit`s (a plural).
    pub fn start(job: &str, total: usize, unit: &str) -> Self {
        let template = format!("{{prefix}} [{{bar:32}}] {{pos}}/{{len}} {unit}, {{eta}} left  {{wide_msg}}");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total as u64).with_style(style.progress_chars("━╸─")).with_prefix(job.to_string());
        let last_line = (!std::io::stderr().is_terminal()).then(|| Mutex::new(Instant::now()));
        Self { bar, job: job.into(), started: Instant::now(), last_line }
    }

    /// One more unit is done; `message` says how it goes.
    pub fn advance(&self, message: impl Into<String>) {
        self.advance_by(1, message);
    }

    /// The same for `units` of them.
    pub fn advance_by(&self, units: usize, message: impl Into<String>) {
        self.bar.inc(units as u64);
        self.say(message);
    }

    /// Changes what is said without being further.
    pub fn say(&self, message: impl Into<String>) {
        let message = message.into();
        if self.line_is_due() {
            eprintln!("{}: {} of {}, {} left  {message}", self.job, self.bar.position(), self.length(), self.left());
        }
        self.bar.set_message(message);
    }

    /// Prints a line that stays.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Removes the bar; what was reached is said by the caller.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn length(&self) -> u64 {
        self.bar.length().unwrap_or(0)
    }

    fn line_is_due(&self) -> bool {
        let Some(last) = &self.last_line else { return false };
        let mut last = last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let due = last.elapsed() >= LINE_PERIOD;
        if due {
            *last = Instant::now();
        }
        due
    }

    fn left(&self) -> HumanDuration {
        let done = self.bar.position().max(1) as f64;
        let remaining = self.length() as f64 - self.bar.position() as f64;
        HumanDuration(self.started.elapsed().mul_f64((remaining / done).max(0.0)))
    }
}
