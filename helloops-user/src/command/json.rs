//! Answers as JSON: on a terminal for reading, elsewhere in one line for other programs.

use serde::Serialize;

use super::terminal::Screen;

/// One document, ending with a line break.
///
/// # Errors
/// None is known: all answers can be written as JSON.
pub fn document(value: &impl Serialize, screen: &Screen) -> serde_json::Result<String> {
    let text = match screen.width {
        Some(_) => serde_json::to_string_pretty(value)?,
        None => serde_json::to_string(value)?,
    };
    Ok(text + "\n")
}

/// One line of many.
///
/// # Errors
/// None is known: all answers can be written as JSON.
pub fn line(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}
