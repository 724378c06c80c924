//! Where in the victims' sources things are: found by their text, so that tests do not break when
//! a victim's lines move.
//!
//! The sources are part of the test binaries, which also run where there are no sources.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const SOURCES: [(&str, &str); 3] = [
    ("rust_panics.rs", include_str!("../victims/rust_panics.rs")),
    ("c_faults.c", include_str!("../victims/c_faults.c")),
    ("cpp_faults.cpp", include_str!("../victims/cpp_faults.cpp")),
];

/// A place in a victim's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    file: &'static str,
    line: u64,
    column: u64,
}

/// Where a text begins in a victim's source, in which it must stand exactly once.
///
/// # Errors
/// When there is no such source, or the text is not in it, or more than once.
pub fn place(file: &str, text: &str) -> Result<Place> {
    let (file, source) = SOURCES
        .iter()
        .find(|(name, _)| *name == file)
        .with_context(|| format!("no victim has the source {file}"))?;
    let mut found = source.match_indices(text);
    let (at, _) = found
        .next()
        .with_context(|| format!("{file} has no `{text}`"))?;
    ensure!(found.next().is_none(), "{file} has `{text}` more than once");
    let before = source.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Ok(Place {
        file,
        line: before.matches('\n').count() as u64 + 1,
        column: (at - line_start) as u64 + 1,
    })
}

impl Place {
    /// Checks that a location or a frame is in this file and line.
    ///
    /// # Errors
    /// When it is somewhere else.
    pub fn is_of(&self, seen: &Value) -> Result<()> {
        let file = seen["file"].as_str().unwrap_or_default();
        if !file.ends_with(&format!("/{}", self.file)) || seen["line"] != self.line {
            bail!("expected {self:?}, found {seen:#}");
        }
        Ok(())
    }

    /// Checks that a location or a frame is exactly here, the column included.
    ///
    /// # Errors
    /// When it is somewhere else.
    pub fn is_exactly_of(&self, seen: &Value) -> Result<()> {
        self.is_of(seen)?;
        ensure!(
            seen["column"] == self.column,
            "expected {self:?}, found {seen:#}"
        );
        Ok(())
    }
}
