//! Official continuations, judged token by token.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ds4_chat::{Conversation, Message, Role, Vintage, render};
use ds4_engine::{Engine, SyncControl};
use ds4_eval::{ContinuationScore, Manifest, ManifestEntry};
use ds4_tokenizer::{TokenId, Tokenizer};

use super::teacher_forcing::score_continuation;
use crate::failure::{Hint, Interrupted};
use crate::interrupt::ArmedInterrupt;
use crate::model_file::read_text;
use crate::output::Output;
use crate::progress::PrefillBar;
use crate::prompt_tokens;

/// A continuation in tokens.
pub(crate) struct OfficialCase {
    pub(crate) id: String,
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) target: Vec<TokenId>,
}

/// Reads a manifest and the files that it names.
///
/// # Errors
/// What cannot be read, by its line and name.
pub(crate) fn read_cases(
    path: &Path,
    tokenizer: &Tokenizer,
    vintage: Vintage,
) -> anyhow::Result<Vec<OfficialCase>> {
    let text = read_text(path)?;
    let manifest =
        Manifest::parse(&text).with_context(|| format!("cannot use `{}`", path.display()))?;
    let read = |entry: &ManifestEntry| {
        let prompt = read_text(&find(path, &entry.prompt)?)?;
        let conversation = Conversation {
            messages: vec![Message::new(Role::User, prompt)],
            ..Conversation::default()
        };
        let prompt = render(&conversation, vintage)?;
        let mut target = Vec::new();
        tokenizer.encode(&read_text(&find(path, &entry.continuation)?)?, &mut target);
        anyhow::Ok(OfficialCase {
            id: entry.id.clone(),
            prompt: prompt_tokens::encode(tokenizer, prompt.pieces())?,
            target,
        })
    };
    let entries = manifest.entries.iter();
    entries
        .map(|entry| read(entry).with_context(|| format!("cannot read case `{}`", entry.id)))
        .collect()
}

/// A file as the manifest at `manifest` names it: from the current directory, from the manifest's, or
/// from one above that. The published manifests have paths from the top of their repository.
fn find(manifest: &Path, name: &Path) -> anyhow::Result<PathBuf> {
    let manifest = fs::canonicalize(manifest).unwrap_or_else(|_| manifest.to_owned());
    let directories = manifest.ancestors().skip(1);
    [Path::new("")]
        .into_iter()
        .chain(directories)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("there is no file `{}`", name.display()))
        .hint(|| {
            "paths count from the current directory, the manifest's, or one above it".to_owned()
        })
}

/// Judges every continuation.
///
/// # Errors
/// Those of the engine, and logits that are no numbers, by case.
pub(crate) fn score_cases(
    cases: &[OfficialCase],
    engine: &mut Engine,
    interrupt: &ArmedInterrupt<'_>,
    output: &Output,
) -> anyhow::Result<Vec<ContinuationScore>> {
    let total = cases
        .iter()
        .map(|case| case.prompt.len() + case.target.len())
        .sum();
    let mut bar = PrefillBar::new(total, output);
    let mut done = 0;
    let mut scores = Vec::with_capacity(cases.len());
    for case in cases {
        let mut control = SyncControl {
            cancel: interrupt.cancel(),
            progress: &mut |_, _| {},
        };
        let score = score_case(case, engine, &mut control)
            .with_context(|| format!("failed in case `{}`", case.id))?;
        scores.push(score);
        done += case.prompt.len() + case.target.len();
        bar.update(done);
    }
    bar.finish();
    Ok(scores)
}

fn score_case(
    case: &OfficialCase,
    engine: &mut Engine,
    control: &mut SyncControl<'_>,
) -> anyhow::Result<ContinuationScore> {
    let mut session = engine.session()?;
    let score = score_continuation(engine, &mut session, &case.prompt, &case.target, control)?;
    engine.close(session);
    score.ok_or_else(|| Interrupted.into())
}
