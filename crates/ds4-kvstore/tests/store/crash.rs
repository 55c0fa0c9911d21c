//! A crash at every operation of a sequence of saves, removals and evictions: nothing
//! wrong is loaded afterwards, and nothing acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet};

use ds4_kvstore::storage::Folder;
use ds4_kvstore::{Limits, Store, TokenId};

use crate::conversation::*;
use crate::simulated_disk::{Crash, Failures, SimulatedDisk};

/// For each token sequence the versions that may be found; `None` if it may be missing.
type Possible = BTreeMap<Vec<TokenId>, BTreeSet<Option<u8>>>;

#[derive(Clone, Copy, Debug)]
enum Action {
    Save(usize, u8),
    Load(usize),
    Remove(usize),
    Prune(u64),
    Flush,
}

use Action::{Flush, Load, Prune, Remove, Save};

const ACTIONS: [Action; 14] = [
    Save(0, 1),
    Save(1, 1),
    Load(0),
    Save(2, 1),
    Save(0, 2),
    Flush,
    Remove(1),
    Save(3, 1),
    Load(2),
    Save(1, 2),
    Prune(1_800),
    Save(4, 1),
    Load(4),
    Save(0, 3),
];

fn conversations() -> [Vec<TokenId>; 5] {
    [
        tokens(0, 0, 10),
        tokens(1, 8, 13),
        tokens(1, 8, 18),
        tokens(2, 4, 9),
        tokens(3, 0, 6),
    ]
}

/// Small enough that the last saves have to evict.
const LIMITS: Limits = Limits {
    max_bytes: 3_600,
    max_checkpoints: 4,
    max_quarantine_bytes: 2_000,
    max_quarantine_files: 3,
    load_threads: 2,
};

/// Goes through the actions until the first failure, keeping account of what may be there.
/// With `stubborn` it goes on after failures.
pub(crate) fn act(store: &Store, possible: &mut Possible, stubborn: bool) -> usize {
    let conversations = conversations();
    let mut failures = 0;
    for action in ACTIONS {
        // Saving and pruning may evict anything at any time.
        if matches!(action, Save(..) | Prune(_)) {
            for versions in possible.values_mut() {
                versions.insert(None);
            }
        }
        let failed = match action {
            Save(which, version) => {
                let tokens = &conversations[which];
                let versions = possible.entry(tokens.clone()).or_insert([None].into());
                versions.insert(Some(version));
                let saved = save(store, tokens, version);
                if saved.is_ok() {
                    possible.insert(tokens.clone(), [Some(version)].into());
                }
                saved.is_err()
            }
            Load(which) => {
                version_of(store, &conversations[which]);
                false
            }
            Remove(which) => {
                let tokens = &conversations[which];
                possible.entry(tokens.clone()).or_default().insert(None);
                let removed = store.remove(&id_of(store, tokens));
                if removed.is_ok() {
                    possible.insert(tokens.clone(), [None].into());
                }
                removed.is_err()
            }
            Prune(bytes) => store.prune(bytes).is_err(),
            Flush => {
                store.flush_statistics();
                false
            }
        };
        if failed {
            failures += 1;
            if !stubborn {
                return failures;
            }
            continue;
        }
        // An acknowledged action ends the doubt: what is listed is there, the rest is gone.
        if matches!(action, Save(..) | Prune(_)) {
            let listed: BTreeSet<_> = store.list().iter().map(|info| info.id).collect();
            for (tokens, versions) in possible.iter_mut() {
                if listed.contains(&id_of(store, tokens)) {
                    versions.remove(&None);
                } else {
                    *versions = [None].into();
                }
            }
        }
    }
    failures
}

/// Everything that is found is one of the possibilities.
pub(crate) fn check_possible(store: &Store, possible: &Possible, context: &str) {
    for (tokens, versions) in possible {
        let found = version_of(store, tokens);
        assert!(
            versions.contains(&found),
            "{context}: {} tokens, found {found:?}, possible {versions:?}, problems {:?}",
            tokens.len(),
            store.problems()
        );
    }
}

/// No file is left that no checkpoint needs.
pub(crate) fn check_tidy(disk: &SimulatedDisk, store: &Store, context: &str) {
    let needed: BTreeSet<_> = store.list().iter().map(|info| info.tokens / SPAN).collect();
    let segments = disk.names(Folder::Segments);
    assert!(
        segments.iter().all(|name| !name.starts_with('.')),
        "{context}: {segments:?}"
    );
    assert_eq!(segments.len(), store.usage().segments, "{context}");
    assert!(!needed.is_empty() || segments.is_empty(), "{context}");
    let checkpoints = disk.names(Folder::Checkpoints);
    assert_eq!(checkpoints.len(), store.list().len(), "{context}");
    let quarantine = disk.names(Folder::Quarantine).len();
    assert!(quarantine <= LIMITS.max_quarantine_files, "{context}");
}

#[test]
fn without_a_crash_the_sequence_does_what_it_is_meant_to() {
    let disk = SimulatedDisk::new();
    let store = open_with(&disk, LIMITS);
    let mut possible = Possible::new();
    assert_eq!(act(&store, &mut possible, false), 0);
    assert!(possible.values().all(|versions| versions.len() == 1));
    let evicted = store.statistics().evicted;
    assert!(evicted >= 3, "{evicted} evicted");
    assert!(store.usage().bytes <= LIMITS.max_bytes);
    check_possible(&store, &possible, "at the end");
    check_tidy(&disk, &store, "at the end");
    drop(store);
    let store = open_with(&disk, LIMITS);
    check_possible(&store, &possible, "reopened");
    check_tidy(&disk, &store, "reopened");
}

#[test]
fn a_crash_at_every_operation_loses_nothing_acknowledged() {
    let operations = {
        let disk = SimulatedDisk::new();
        let store = open_with(&disk, LIMITS);
        act(&store, &mut Possible::new(), false);
        drop(store);
        disk.operations()
    };
    assert!(operations > 100, "{operations}");
    let crashes = [
        Crash::Lost,
        Crash::Kept,
        Crash::Torn(1),
        Crash::Torn(2),
        Crash::Torn(3),
        Crash::Torn(4),
    ];
    for at in 1..=operations {
        let disk = SimulatedDisk::new();
        disk.set_failures(Failures {
            crash_at: Some(at),
            ..Failures::default()
        });
        let store = open_with(&disk, LIMITS);
        let mut possible = Possible::new();
        act(&store, &mut possible, false);
        drop(store);
        for crash in crashes {
            let context = format!("crash at {at}, {crash:?}");
            let disk = disk.after(crash);
            let store = open_with(&disk, LIMITS);
            check_possible(&store, &possible, &context);
            check_tidy(&disk, &store, &context);
            let problems = store.verify(&mut |_, _| CONTINUE).unwrap();
            assert_eq!(problems, [], "{context}");
            // It goes on from there.
            let more = tokens(9, 0, 7);
            save(&store, &more, 5).unwrap();
            drop(store);
            assert_eq!(
                version_of(&open_with(&disk, LIMITS), &more),
                Some(5),
                "{context}"
            );
        }
    }
}

#[test]
fn a_second_crash_during_recovery_is_no_worse() {
    // The first crash leaves most behind: temporary files and segments without a checkpoint.
    for first in (5..120).step_by(7) {
        let disk = SimulatedDisk::new();
        disk.set_failures(Failures {
            crash_at: Some(first),
            ..Failures::default()
        });
        let store = open_with(&disk, LIMITS);
        let mut possible = Possible::new();
        act(&store, &mut possible, false);
        drop(store);
        for second in 1..12 {
            let disk = disk.after(Crash::Torn(first));
            disk.set_failures(Failures {
                crash_at: Some(second),
                ..Failures::default()
            });
            drop(open_with(&disk, LIMITS));
            let context = format!("crashes at {first} and {second}");
            let disk = disk.after(Crash::Torn(second));
            let store = open_with(&disk, LIMITS);
            check_possible(&store, &possible, &context);
            check_tidy(&disk, &store, &context);
        }
    }
}
