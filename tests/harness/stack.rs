//! Looking at the stack of a fault in a report.

use anyhow::{Context, Result};
use serde_json::Value;

/// The function names of a fault's stack, innermost first, `?` for those without.
pub fn functions(fault: &Value) -> Vec<&str> {
    names(fault, |_| true)
}

/// The same, of the program's own frames only.
pub fn own_functions(fault: &Value) -> Vec<&str> {
    names(fault, |frame| frame["in_app"] == true)
}

/// The innermost frame of a function.
///
/// # Errors
/// When the stack has none; with the functions that it has.
pub fn frame<'a>(fault: &'a Value, function: &str) -> Result<&'a Value> {
    frames(fault)
        .find(|frame| frame["function"] == function)
        .with_context(|| {
            let stack = functions(fault).join("\n  ");
            format!("no frame of {function} in\n  {stack}")
        })
}

fn names(fault: &Value, shown: impl Fn(&Value) -> bool) -> Vec<&str> {
    frames(fault)
        .filter(|frame| shown(frame))
        .map(|frame| frame["function"].as_str().unwrap_or("?"))
        .collect()
}

fn frames(fault: &Value) -> impl Iterator<Item = &Value> {
    fault["stack"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
}
