//! What this kernel offers, found by trying.

use serde::{Deserialize, Serialize};

/// One thing that HelloOps does through the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// What a user gets from it, in a few words.
    pub name: String,
    /// Whether it works here.
    pub available: bool,
    /// By what means, or why not, and how to get it.
    pub detail: String,
}

impl Feature {
    /// A feature that works.
    pub fn works(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            available: true,
            detail: detail.into(),
        }
    }

    /// A feature that does not.
    pub fn lacks(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            available: false,
            detail: detail.into(),
        }
    }
}
