//! Regular expressions: checked before the grammar library sees them.

use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{AssertionKind, Ast, RepetitionKind, RepetitionRange};

use crate::GrammarError;
use crate::limits::{MAX_COUNT, MAX_REGEX_BYTES, MAX_REGEX_NESTING};

/// A checked regular expression without the anchors at its ends.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) body: String,
    pub(crate) at_start: bool,
    pub(crate) at_end: bool,
}

/// Checks size, nesting and syntax. Lookaround and backreferences are syntax errors here; anchors are
/// allowed at the ends only, word boundaries nowhere.
pub(crate) fn check(pattern: &str, place: &str) -> Result<Pattern, GrammarError> {
    if pattern.len() > MAX_REGEX_BYTES {
        return Err(GrammarError::TooLarge {
            what: "the length of the regular expression",
            place: place.to_owned(),
            found: pattern.len(),
            limit: MAX_REGEX_BYTES,
        });
    }
    let ast = ParserBuilder::new()
        .nest_limit(MAX_REGEX_NESTING)
        .build()
        .parse(pattern)
        .map_err(|error| GrammarError::Invalid {
            place: place.to_owned(),
            reason: format!("{}: {pattern:?}", error.kind()),
        })?;
    let parts = match &ast {
        Ast::Concat(concat) => concat.asts.as_slice(),
        single => std::slice::from_ref(single),
    };
    let assertion = |ast: Option<&Ast>, kinds: [AssertionKind; 2]| match ast {
        Some(Ast::Assertion(assertion)) => kinds.contains(&assertion.kind),
        _ => false,
    };
    let at_start = assertion(
        parts.first(),
        [AssertionKind::StartLine, AssertionKind::StartText],
    );
    let at_end = assertion(
        parts.last(),
        [AssertionKind::EndLine, AssertionKind::EndText],
    );
    let inner = &parts[usize::from(at_start)..];
    let inner = &inner[..inner.len() - usize::from(at_end && !inner.is_empty())];
    for part in inner {
        check_part(part, place)?;
    }
    let start = match parts.first() {
        Some(first) if at_start => first.span().end.offset,
        _ => 0,
    };
    let end = match parts.last() {
        Some(last) if at_end => last.span().start.offset,
        _ => pattern.len(),
    };
    Ok(Pattern {
        body: pattern.get(start..end).unwrap_or_default().to_owned(),
        at_start,
        at_end,
    })
}

/// Recursion is as deep as the nest limit.
fn check_part(ast: &Ast, place: &str) -> Result<(), GrammarError> {
    let all = |asts: &[Ast]| asts.iter().try_for_each(|ast| check_part(ast, place));
    match ast {
        Ast::Assertion(_) => Err(GrammarError::Unsupported {
            keyword: "an anchor or word boundary inside a regular expression".to_owned(),
            place: place.to_owned(),
        }),
        Ast::Repetition(repetition) => {
            if let RepetitionKind::Range(range) = &repetition.op.kind {
                let most = match *range {
                    RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n) => n,
                    RepetitionRange::Bounded(_, n) => n,
                };
                if u64::from(most) > MAX_COUNT {
                    return Err(GrammarError::TooLarge {
                        what: "a repetition in the regular expression",
                        place: place.to_owned(),
                        found: most as usize,
                        limit: MAX_COUNT as usize,
                    });
                }
            }
            check_part(&repetition.ast, place)
        }
        Ast::Group(group) => check_part(&group.ast, place),
        Ast::Alternation(alternation) => all(&alternation.asts),
        Ast::Concat(concat) => all(&concat.asts),
        _ => Ok(()),
    }
}
