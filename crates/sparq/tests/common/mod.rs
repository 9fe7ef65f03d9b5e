//! What the tests of the programs share.

use std::io::Write;
use std::path::PathBuf;

/// Says `text` on standard error itself: the test harness would swallow what `eprintln!` prints.
pub(crate) fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Cargo builds the examples before it runs this test, beside the directory the test is in.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    let path = test.parent()?.parent()?.join("examples").join(name);
    if !path.is_file() {
        notice(&format!("skipped: example {name} is not built (cargo test --workspace builds it)"));
        return None;
    }
    Some(path)
}
