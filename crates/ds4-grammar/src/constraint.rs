//! A grammar at some place in an answer.

use std::sync::Arc;
use std::time::Duration;

use ds4_engine::{ConstraintError, ConstraintState, TokenConstraint, TokenMask};
use ds4_tokenizer::TokenId;
use llguidance::Matcher;

use crate::guard::{Guard, GuardState, Spelling};
use crate::place::Place;
use crate::vocabulary::Vocabulary;
use crate::watchdog::{Timer, Watchdog};

/// A grammar at some place in an answer; the engine's [`TokenConstraint`].
pub struct GrammarConstraint {
    matcher: Matcher,
    timer: Arc<Timer>,
    shared: Arc<Shared>,
    guard: Option<GuardState>,
    place: Place,
    ended: bool,
}

/// What all constraints of one grammar have in common.
pub(crate) struct Shared {
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) token_time: Duration,
    /// What text must not spell, and `｜DSML｜`, behind which another spelling counts.
    pub(crate) spelling: Option<Spelling>,
    pub(crate) tool_token: Option<TokenId>,
    /// The tokens that the grammar may use: text, its own control tokens, the end.
    pub(crate) usable: TokenMask,
}

impl GrammarConstraint {
    pub(crate) fn new(matcher: Matcher, shared: Arc<Shared>) -> Self {
        let (matcher, timer) = timed(matcher, &shared.watchdog, shared.token_time);
        Self {
            matcher,
            timer,
            guard: shared.spelling.map(|spelling| shared.guard.start(spelling)),
            place: match shared.spelling {
                Some(Spelling::AnyTag) => Place::text(),
                _ => Place::Grammar,
            },
            shared,
            ended: false,
        }
    }

    fn state(&mut self) -> Result<ConstraintState, ConstraintError> {
        if self.ended {
            return Ok(ConstraintState::Finished);
        }
        if self.matcher.is_stopped() {
            if self.matcher.stop_reason().is_ok() {
                return Ok(ConstraintState::Finished);
            }
            return Err(failed(
                self.matcher
                    .get_error()
                    .unwrap_or_else(|| self.matcher.stop_reason().to_string()),
            ));
        }
        match self.matcher.is_accepting() {
            Ok(true) => Ok(ConstraintState::Complete),
            Ok(false) => Ok(ConstraintState::Open),
            Err(error) => Err(failed(error)),
        }
    }
}

impl TokenConstraint for GrammarConstraint {
    fn mask(&mut self, mask: &mut TokenMask) -> Result<(), ConstraintError> {
        mask.clear();
        if self.ended {
            mask.allow(self.shared.vocabulary.end);
            return Ok(());
        }
        let matcher = &mut self.matcher;
        let allowed = self.timer.run(|| matcher.compute_mask_or_eos());
        let allowed = allowed.map_err(failed)?;
        let usable = self.shared.usable.words();
        let words = mask.words_mut().iter_mut();
        for ((word, allowed), usable) in words.zip(allowed.as_slice()).zip(usable) {
            *word = allowed & usable;
        }
        if let Some(guard) = self.guard {
            self.shared.guard.restrict(guard, mask);
        }
        if let Some(token) = self.shared.tool_token
            && !self.place.allows_token()
        {
            mask.forbid(token);
        }
        if mask.words().iter().all(|&word| word == 0) {
            return Err(failed("no token fits"));
        }
        Ok(())
    }

    fn accept(&mut self, token: TokenId) -> Result<ConstraintState, ConstraintError> {
        if token == self.shared.vocabulary.end {
            return match self.state()? {
                ConstraintState::Open => Err(failed("the answer ended too early")),
                _ => {
                    self.ended = true;
                    Ok(ConstraintState::Finished)
                }
            };
        }
        if self.ended || !self.shared.usable.allows(token) {
            return Err(failed(format!("token {token} does not fit")));
        }
        let text = self.shared.vocabulary.text(token);
        if let (Some(guard), Some(text)) = (self.guard, text) {
            self.guard = self.shared.guard.advance(guard, text);
            if self.guard.is_none() {
                return Err(failed(format!("token {token} completes a tag")));
            }
        }
        if Some(token) == self.shared.tool_token {
            if !self.place.allows_token() {
                return Err(failed("a tag does not begin here"));
            }
            self.guard = Some(self.shared.guard.start(Spelling::ClosingTag));
            self.place = Place::behind_token();
        } else if let Some(text) = text {
            self.place.advance(text);
        }
        let matcher = &mut self.matcher;
        self.timer
            .run(|| matcher.consume_token(token))
            .map_err(failed)?;
        self.state()
    }

    fn fork(&self) -> Box<dyn TokenConstraint> {
        let (watchdog, limit) = (&self.shared.watchdog, self.shared.token_time);
        let (matcher, timer) = timed(self.matcher.clone(), watchdog, limit);
        Box::new(Self {
            matcher,
            timer,
            shared: self.shared.clone(),
            guard: self.guard,
            place: self.place.clone(),
            ended: self.ended,
        })
    }
}

impl std::fmt::Debug for GrammarConstraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarConstraint")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// A matcher that can be stopped, and what stops it.
pub(crate) fn timed(
    matcher: Matcher,
    watchdog: &Watchdog,
    limit: Duration,
) -> (Matcher, Arc<Timer>) {
    let matcher = matcher.into_cancellable();
    let handle = matcher.cancellation_handle().unwrap_or_default();
    let timer = watchdog.timer(handle, limit);
    (matcher, timer)
}

fn failed(error: impl std::fmt::Display) -> ConstraintError {
    ConstraintError {
        reason: first_line(&error.to_string()),
    }
}

/// The library's messages go on with the state of its parser.
pub(crate) fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}
