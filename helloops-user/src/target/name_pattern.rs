//! Names with wildcards, as people type them to choose targets or system calls.

use regex::Regex;

/// A name in which `*` stands for any text and `?` for any one character.
#[derive(Debug, Clone)]
pub enum NamePattern {
    /// Without a wildcard: only this name.
    Exact(String),
    /// With wildcards.
    Glob(Regex),
}

impl NamePattern {
    /// The pattern that `text` is.
    pub fn new(text: &str) -> Self {
        if !text.contains(['*', '?']) {
            return Self::Exact(text.to_owned());
        }
        let glob = regex::escape(text).replace(r"\*", ".*").replace(r"\?", ".");
        // An escaped text is refused only for its size; no name is that long, so then none matches
        // but the text itself.
        Regex::new(&format!("(?s)^{glob}$"))
            .map_or_else(|_| Self::Exact(text.to_owned()), Self::Glob)
    }

    /// Whether `name` is one of those that are meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => text == name,
            Self::Glob(glob) => glob.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_whole_names() {
        assert!(NamePattern::new("shop").matches("shop"));
        assert!(!NamePattern::new("shop").matches("shop2"));
        assert!(NamePattern::new("shop*").matches("shop-worker"));
        assert!(!NamePattern::new("hop*").matches("shop"));
        assert!(NamePattern::new("s??p").matches("shöp"));
        assert!(NamePattern::new("a.b*").matches("a.bc"));
        assert!(!NamePattern::new("a.b*").matches("axbc"));
        assert!(NamePattern::new("(*").matches("(deleted)"));
    }
}
