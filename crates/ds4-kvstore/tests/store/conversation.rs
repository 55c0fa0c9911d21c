//! Conversations whose rows and frontiers follow from their tokens.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use ds4_kvstore::{
    CheckpointData, CheckpointId, CheckpointKind, Hit, Limits, LoadError, Loaded, ModelKey,
    SaveError, Saved, Store, TokenId,
};

use crate::simulated_disk::SimulatedDisk;

/// Tells a verification to go on.
pub(crate) const CONTINUE: ControlFlow<()> = ControlFlow::Continue(());

pub(crate) const SPAN: usize = 4;
pub(crate) const ROW_BYTES: usize = 100;

pub(crate) const KEY: ModelKey = ModelKey {
    fingerprint: [3; 32],
    format: 2,
    span_tokens: SPAN as u32,
};

pub(crate) fn open(disk: &SimulatedDisk) -> Store {
    open_with(disk, Limits::default())
}

pub(crate) fn open_with(disk: &SimulatedDisk, limits: Limits) -> Store {
    Store::with_storage(Arc::new(disk.clone()), limits).unwrap()
}

/// What an engine would have computed for the last span of `tokens`.
pub(crate) fn rows(tokens: &[TokenId]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for token in tokens {
        hasher.update(&token.to_le_bytes());
    }
    let mut rows = vec![0; ROW_BYTES];
    hasher.finalize_xof().fill(&mut rows);
    rows
}

pub(crate) fn all_rows(tokens: &[TokenId]) -> BTreeMap<usize, Vec<u8>> {
    (0..tokens.len() / SPAN)
        .map(|span| (span, rows(&tokens[..(span + 1) * SPAN])))
        .collect()
}

/// A checkpoint of `tokens`; `version` tells apart those that replace each other.
pub(crate) fn data(tokens: &[TokenId], version: u8) -> CheckpointData {
    let mut frontier = rows(tokens);
    frontier.push(version);
    CheckpointData {
        kind: CheckpointKind::Prompt,
        model_name: "small".to_owned(),
        prefill_seconds: tokens.len() as f64 / 100.0,
        segment_bytes: ROW_BYTES as u64,
        frontier,
        attachment: vec![version; 5],
    }
}

pub(crate) fn save(store: &Store, tokens: &[TokenId], version: u8) -> Result<Saved, SaveError> {
    let plan = store.plan(&KEY, tokens)?;
    // Only what the plan says is missing.
    let mut source = all_rows(tokens);
    source.retain(|span, _| plan.missing().contains(span));
    store.save(&plan, &data(tokens, version), &mut source)
}

/// Loads what was found, and checks that it is what an engine would have computed for
/// some beginning of `tokens`; gives its version.
pub(crate) fn load_and_check(
    store: &Store,
    hit: &Hit,
    tokens: &[TokenId],
) -> Result<u8, LoadError> {
    let loaded = store.load(hit, 0)?;
    Ok(check(&loaded, hit, tokens))
}

pub(crate) fn check(loaded: &Loaded, hit: &Hit, tokens: &[TokenId]) -> u8 {
    assert!(hit.tokens() <= tokens.len());
    let tokens = &tokens[..hit.tokens()];
    assert_eq!(loaded.tokens, tokens);
    assert_eq!(loaded.segments.len(), tokens.len() / SPAN);
    for (span, segment) in loaded.segments.iter().enumerate() {
        assert_eq!(*segment, rows(&tokens[..(span + 1) * SPAN]), "span {span}");
    }
    let version = *loaded.frontier.last().unwrap();
    let expected = data(tokens, version);
    assert_eq!(loaded.frontier, expected.frontier);
    assert_eq!(loaded.attachment, expected.attachment);
    version
}

/// The version of the checkpoint of exactly these tokens, if it is found and loads.
/// Whatever is found instead must be sound, too.
pub(crate) fn version_of(store: &Store, tokens: &[TokenId]) -> Option<u8> {
    let mut exact = None;
    // A failed load makes the next lookup find something shorter, or nothing.
    for _ in 0..20 {
        let Some(hit) = store.longest_prefix(&KEY, tokens) else {
            break;
        };
        if let Ok(version) = load_and_check(store, &hit, tokens) {
            if hit.tokens() == tokens.len() {
                exact = Some(version);
            }
            break;
        }
    }
    exact
}

pub(crate) fn id_of(store: &Store, tokens: &[TokenId]) -> CheckpointId {
    store.plan(&KEY, tokens).unwrap().id()
}

/// `count` tokens that differ from other conversations from `from` on.
pub(crate) fn tokens(conversation: u32, from: usize, count: usize) -> Vec<TokenId> {
    (0..count)
        .map(|at| {
            let own = if at >= from { 1000 * conversation } else { 0 };
            own + at as u32
        })
        .collect()
}
