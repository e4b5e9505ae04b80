//! Reports as self-contained HTML pages.

mod demonstration;
mod records;
mod task_table;

pub use demonstration::{Demonstration, demonstration_page};
pub use records::{RecordFile, records_page, records_table};
