//! Documents longer than the context, cut into windows that overlap.

use std::ops::Range;

use ds4_model::TokenId;

use crate::error::WorkshopError;

/// How documents are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSizes {
    /// Longest window in tokens.
    pub context: usize,
    /// Tokens that each further window adds. The rest of a window is context for them.
    pub stride: usize,
    /// A token that stands before every document and is repeated before each of its windows.
    pub begin: Option<TokenId>,
}

impl WindowSizes {
    /// Checks the sizes.
    ///
    /// # Errors
    /// A context below 2, or a stride that leaves no token of context.
    pub fn check(&self) -> Result<(), WorkshopError> {
        if self.context < 2 {
            return Err(WorkshopError::Setting {
                name: "the context",
                found: self.context.to_string(),
                expected: "2 or more".to_owned(),
            });
        }
        if self.stride == 0 || self.stride >= self.context {
            return Err(WorkshopError::Setting {
                name: "the stride",
                found: self.stride.to_string(),
                expected: format!("1 to {}, less than the context", self.context - 1),
            });
        }
        Ok(())
    }
}

/// Tokens that are run together from an empty state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Number of the document, from 0 on.
    pub document: usize,
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// Which of them no earlier window had; without the first of the document, which nothing precedes.
    pub new: Range<usize>,
    /// Position in the document of the first new token.
    pub position: usize,
}

/// Cuts documents into windows. Every token but a document's first is new in exactly one window; of a
/// document that fits the context there is one. Documents of fewer than two tokens give none.
///
/// # Errors
/// Sizes out of range.
pub fn windows(
    documents: &[Vec<TokenId>],
    sizes: WindowSizes,
) -> Result<Vec<Window>, WorkshopError> {
    sizes.check()?;
    let mut windows = Vec::new();
    for (document, tokens) in documents.iter().enumerate() {
        let begin = sizes.begin.filter(|begin| tokens.first() == Some(begin));
        let mut done = 1;
        while done < tokens.len() {
            let end = if done == 1 {
                sizes.context.min(tokens.len())
            } else {
                // With a repeated first token there is room for one less.
                let stride = sizes
                    .stride
                    .min(sizes.context - usize::from(begin.is_some()));
                (done + stride).min(tokens.len())
            };
            let (start, prefix) = if end <= sizes.context {
                (0, None)
            } else {
                (end - sizes.context + usize::from(begin.is_some()), begin)
            };
            let window: Vec<TokenId> = prefix
                .into_iter()
                .chain(tokens[start..end].iter().copied())
                .collect();
            windows.push(Window {
                document,
                new: window.len() - (end - done)..window.len(),
                tokens: window,
                position: done,
            });
            done = end;
        }
    }
    Ok(windows)
}

/// Drops what lies behind the first `limit` new tokens.
pub(crate) fn truncate(windows: &mut Vec<Window>, limit: usize) {
    let mut left = limit;
    windows.retain_mut(|window| {
        let kept = left.min(window.new.len());
        left -= kept;
        window.new.end = window.new.start + kept;
        window.tokens.truncate(window.new.end);
        kept > 0
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(length: u32, context: usize, stride: usize, begin: Option<TokenId>) -> Vec<Window> {
        let sizes = WindowSizes {
            context,
            stride,
            begin,
        };
        windows(&[(0..length).collect()], sizes).unwrap()
    }

    #[test]
    fn every_token_is_new_once_and_has_the_context_that_was_promised() {
        for begin in [None, Some(0), Some(7)] {
            for length in 0..40 {
                for (context, stride) in [(2, 1), (5, 4), (8, 3), (16, 8), (64, 1)] {
                    let windows = cut(length, context, stride, begin);
                    let mut seen = Vec::new();
                    for window in &windows {
                        assert!(window.tokens.len() <= context);
                        assert_eq!(window.new.end, window.tokens.len());
                        let new = &window.tokens[window.new.clone()];
                        assert_eq!(new.first(), Some(&(window.position as u32)));
                        seen.extend_from_slice(new);
                        let all = window.position + window.new.len();
                        assert!(all <= context || window.tokens.len() == context);
                        assert!(window.new.start >= 1);
                        if window.position > 1 {
                            let before = window.new.start;
                            assert!(before + stride >= context.min(all));
                        }
                        if begin == Some(0) {
                            assert_eq!(window.tokens[0], 0);
                        }
                    }
                    assert_eq!(seen, (1..length).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn a_limit_cuts_in_the_middle_of_a_window() {
        let mut windows = cut(20, 8, 4, None);
        truncate(&mut windows, 9);
        let new: Vec<_> = windows.iter().map(|window| window.new.len()).collect();
        assert_eq!(new, [7, 2]);
        assert_eq!(windows[1].tokens.last(), Some(&9));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (context, stride) in [(1, 1), (8, 0), (8, 8)] {
            let sizes = WindowSizes {
                context,
                stride,
                begin: None,
            };
            assert!(windows(&[vec![1, 2, 3]], sizes).is_err());
        }
    }
}
