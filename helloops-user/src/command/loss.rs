//! What an instance lost, as a line of text that every view can end with.

use super::quantity::count;
use super::terminal::{Screen, Tone, clean};
use crate::api::Lost;

/// `lost: 12 events, 3 stacks`, or nothing at all if nothing was lost. Ends with a line break.
pub fn render(lost: &Lost, screen: &Screen) -> String {
    let losses: Vec<String> = lost
        .iter()
        .filter(|&(_, &times)| times > 0)
        .map(|(cause, &times)| format!("{} {}", count(times), clean(cause)))
        .collect();
    if losses.is_empty() {
        return String::new();
    }
    format!(
        "{}\n",
        screen.paint(Tone::Bad, format!("lost: {}", losses.join(", ")))
    )
}
