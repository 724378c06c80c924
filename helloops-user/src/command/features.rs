//! What works on a kernel and what does not, as lines of text.

use std::fmt::Write as _;

use super::terminal::{Screen, Tone, clean};
use crate::kernel::Feature;

/// A line for each feature: whether it works, and by what means or why not.
pub fn render(features: &[Feature], screen: &Screen) -> String {
    let width = features
        .iter()
        .map(|feature| feature.name.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for feature in features {
        let mark = match feature.available {
            true => "  yes ".into(),
            false => screen.paint(Tone::Bad, "   no "),
        };
        let (name, detail) = (clean(&feature.name), clean(&feature.detail));
        let _ = writeln!(text, "{mark} {name:<width$}  {detail}");
    }
    text
}
