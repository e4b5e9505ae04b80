//! Reports as self-contained HTML pages.

mod demonstration;
mod records;

pub use demonstration::{Demonstration, demonstration_page};
pub use records::{RecordFile, records_page, records_table};
