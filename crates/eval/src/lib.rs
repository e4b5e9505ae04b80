//! Results of robot policies, from any simulator or robot.
//!
//! An [`EpisodeRecord`] is the one form of a result. [`scores`] summarises records by task with Wilson intervals,
//! [`records_page`] draws any files of them, and [`demonstration_page`] adds film strips, actions and latencies.
//! [`McapLog`] keeps every control step for Foxglove. Nothing here knows a simulator.
#![forbid(unsafe_code)]

mod error;
mod figures;
mod film;
mod html;
mod machine;
mod mcap_log;
mod png;
mod rate;
mod record;
mod recurrent;
mod report;
mod score;
pub mod svg;
mod table;
mod trace;

pub use error::EvalError;
pub use figures::{DEADLINE_MS, Figures, StateBytes};
pub use film::{Film, Still};
pub use html::{escape, page};
pub use machine::{Machine, Utc, peak_rss_mb, rss_bytes};
pub use mcap_log::McapLog;
pub use rate::Rate;
pub use record::{EpisodeRecord, Latency, read_records, to_json_lines};
pub use recurrent::{Recurrent, RecurrentState};
pub use report::{Demonstration, RecordFile, demonstration_page, records_page, records_table};
pub use score::{TaskScore, overall, scores};
pub use table::Table;
pub use trace::{Trace, Tracer};
