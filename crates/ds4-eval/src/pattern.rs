//! Regular expressions from outside.

use regex::{Regex, RegexBuilder};

use crate::error::CaseProblem;

/// Bytes that a compiled pattern may take.
const SIZE_LIMIT: usize = 1 << 20;

/// Characters of a pattern that an error shows.
const SHOWN: usize = 80;

/// A regular expression that compiles.
///
/// Only its text is kept: compiled, the patterns of a hostile file could fill the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern in the syntax of the `regex` crate.
    ///
    /// # Errors
    /// It does not compile, or needs too much memory.
    pub fn new(pattern: String) -> Result<Self, CaseProblem> {
        match compile(&pattern) {
            Ok(_) => Ok(Self(pattern)),
            Err(source) => Err(CaseProblem::Pattern {
                pattern: pattern.chars().take(SHOWN).collect(),
                source: Box::new(source),
            }),
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches anywhere in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        compile(&self.0).is_ok_and(|regex| regex.is_match(text))
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(SIZE_LIMIT)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_anywhere() {
        let pattern = Pattern::new(r"(?i)\bds4 plan\b".to_owned()).unwrap();
        assert!(pattern.is_match("Use `DS4 plan`."));
        assert!(!pattern.is_match("Use ds4 planner."));
    }

    #[test]
    fn what_does_not_compile_or_grows_is_refused() {
        for pattern in [
            "(",
            "(?=x)",
            "((a{1000}){1000}){1000}",
            &"(".repeat(100_000),
        ] {
            let problem = Pattern::new(pattern.to_owned()).unwrap_err();
            let text = problem.to_string();
            assert!(text.starts_with("the pattern `"), "{text}");
        }
    }
}
