//! How likely a model finds a given answer.

use ds4_engine::{Engine, Session, SyncControl};
use ds4_eval::{ContinuationScore, NotANumber};
use ds4_tokenizer::TokenId;

/// Judges every token of `target` behind `prompt` and the tokens of `target` before it. `None` after
/// Ctrl-C.
///
/// # Errors
/// Those of the engine, and logits that are no numbers.
pub(crate) fn score_continuation(
    engine: &mut Engine,
    session: &mut Session,
    prompt: &[TokenId],
    target: &[TokenId],
    control: &mut SyncControl<'_>,
) -> anyhow::Result<Option<ContinuationScore>> {
    let mut score = ContinuationScore::default();
    let Some((&first, rest)) = target.split_first() else {
        return Ok(Some(score));
    };
    if engine.sync(session, prompt, control)?.cancelled {
        return Ok(None);
    }
    let mut judged: Result<(), NotANumber> = score.add(session.logits(), first);
    // The logits behind each token but the last judge the next one.
    let fed = &target[..rest.len()];
    let forced = engine.score(session, fed, control, &mut |index, logits| {
        if judged.is_ok() {
            judged = score.add(logits, rest[index]);
        }
    })?;
    judged?;
    Ok((!forced.cancelled).then_some(score))
}
