//! The log as a unit test sees it: the lines that its own thread has written.

use std::cell::RefCell;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local! {
    /// None while no test of this thread looks.
    static LINES: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) };
}

struct Kept;

impl Log for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let looks = LINES.try_with(|lines| lines.borrow().is_some());
        metadata.target().starts_with("lariat") && looks.unwrap_or(false)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // First, as what is displayed may log as well.
            let line = (record.level(), record.args().to_string());
            LINES.with_borrow_mut(|lines| lines.get_or_insert_default().push(line));
        }
    }

    fn flush(&self) {}
}

/// What `code` logs on this thread, line by line, and what it returns.
pub(crate) fn lines_of<R>(code: impl FnOnce() -> R) -> (Vec<(Level, String)>, R) {
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| {
        log::set_logger(&Kept).expect("no other test sets a logger");
        log::set_max_level(LevelFilter::Trace);
    });
    LINES.set(Some(Vec::new()));
    let result = code();
    (LINES.take().unwrap_or_default(), result)
}
