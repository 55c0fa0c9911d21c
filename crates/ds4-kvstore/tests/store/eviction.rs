//! The quota, and who has to go.

use ds4_kvstore::storage::{Folder, LockKind, Storage};
use ds4_kvstore::{CheckpointData, CheckpointKind, Limits, MaintenanceError, SaveError, Store};

use crate::conversation::*;
use crate::simulated_disk::SimulatedDisk;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const START: u64 = 1_700_000_000;

fn limited(disk: &SimulatedDisk, max_bytes: u64) -> Store {
    let limits = Limits {
        max_bytes,
        ..Limits::default()
    };
    open_with(disk, limits)
}

fn save_with(store: &Store, tokens: &[u32], change: impl FnOnce(&mut CheckpointData)) {
    let plan = store.plan(&KEY, tokens).unwrap();
    let mut data = data(tokens, 0);
    change(&mut data);
    store.save(&plan, &data, &mut all_rows(tokens)).unwrap();
}

fn touch(store: &Store, tokens: &[u32]) {
    let hit = store.longest_prefix(&KEY, tokens).unwrap();
    assert_eq!(hit.tokens(), tokens.len());
    store.load(&hit, 0).unwrap();
}

/// The order in which checkpoints go.
fn order(store: &Store, names: &[(&str, &[u32])]) -> Vec<String> {
    let mut order = Vec::new();
    while store.usage().checkpoints > 0 {
        let before = store.usage();
        store.prune(before.bytes - 1).unwrap();
        assert_eq!(store.usage().checkpoints, before.checkpoints - 1);
        for (name, tokens) in names {
            if store
                .list()
                .iter()
                .all(|info| info.id != id_of(store, tokens))
                && !order.contains(&(*name).to_owned())
            {
                order.push((*name).to_owned());
            }
        }
    }
    order
}

#[test]
fn the_quota_holds_after_every_save() {
    let disk = SimulatedDisk::new();
    let store = limited(&disk, 5_000);
    for conversation in 0..40 {
        disk.set_clock(START + u64::from(conversation));
        let tokens = tokens(conversation, 4, 5 + conversation as usize % 17);
        let saved = save(&store, &tokens, 0).unwrap();
        let usage = store.usage();
        assert!(usage.bytes <= 5_000, "{usage:?}");
        // What was just saved is not what goes.
        assert_eq!(version_of(&store, &tokens), Some(0), "{saved:?}");
    }
    let bytes: usize = [Folder::Checkpoints, Folder::Segments]
        .iter()
        .flat_map(|&folder| {
            disk.names(folder)
                .into_iter()
                .map(move |name| (folder, name))
        })
        .map(|(folder, name)| disk.content(folder, &name).len())
        .sum();
    assert_eq!(bytes as u64, store.usage().bytes);
    assert!(store.statistics().evicted > 20);
}

#[test]
fn the_number_of_checkpoints_is_bounded() {
    let disk = SimulatedDisk::new();
    let limits = Limits {
        max_checkpoints: 3,
        ..Limits::default()
    };
    let store = open_with(&disk, limits);
    for conversation in 0..10 {
        save(&store, &tokens(conversation, 0, 6), 0).unwrap();
        assert!(store.usage().checkpoints <= 3);
    }
}

#[test]
fn what_cannot_fit_evicts_nobody_and_writes_nothing() {
    let disk = SimulatedDisk::new();
    let store = limited(&disk, 2_000);
    let small = tokens(1, 0, 6);
    save(&store, &small, 0).unwrap();
    let before = disk.operations();
    let error = save(&store, &tokens(2, 0, 60), 0).unwrap_err();
    let SaveError::NoRoom {
        needed,
        available,
        limit,
    } = error
    else {
        panic!("{error:?}");
    };
    assert!(needed > available && available == 2_000 && limit == 2_000);
    assert_eq!(disk.operations(), before);
    assert_eq!(version_of(&store, &small), Some(0));
}

#[test]
fn what_is_being_loaded_stays() {
    let disk = SimulatedDisk::new();
    let store = limited(&disk, 2_500);
    let held = tokens(1, 0, 12);
    save(&store, &held, 0).unwrap();
    let hit = store.longest_prefix(&KEY, &held).unwrap();
    // As when a session is saved to make room for the one that is about to be loaded.
    let needed = save(&store, &tokens(2, 0, 17), 0);
    assert!(
        matches!(needed, Err(SaveError::NoRoom { .. })),
        "{needed:?}"
    );
    assert_eq!(store.prune(0).unwrap().checkpoints, 0);
    assert!(matches!(
        store.remove(&hit.id()),
        Err(MaintenanceError::Pinned(_))
    ));
    load_and_check(&store, &hit, &held).unwrap();
    drop(hit);
    save(&store, &tokens(2, 0, 17), 0).unwrap();
    assert_eq!(version_of(&store, &held), None);
}

#[test]
fn what_a_plan_builds_on_stays() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let one = tokens(1, 0, 9);
    save(&store, &one, 0).unwrap();
    let mut longer = one.clone();
    longer.extend([50, 51, 52, 53]);
    let plan = store.plan(&KEY, &longer).unwrap();
    assert_eq!(plan.missing(), [2]);
    assert_eq!(store.prune(0).unwrap().checkpoints, 1);
    let mut source = all_rows(&longer);
    source.retain(|span, _| plan.missing().contains(span));
    store.save(&plan, &data(&longer, 1), &mut source).unwrap();
    assert_eq!(version_of(&store, &longer), Some(1));
    drop(plan);

    // A plan that is given up leaves nothing behind for long.
    let plan = store.plan(&KEY, &longer).unwrap();
    store.prune(0).unwrap();
    assert_eq!(disk.names(Folder::Segments).len(), 3);
    drop(plan);
    store.prune(0).unwrap();
    assert!(disk.names(Folder::Segments).is_empty());
    assert_eq!(store.usage().bytes, 0);
}

#[test]
fn another_process_that_loads_is_waited_for_and_then_given_up() {
    let disk = SimulatedDisk::new();
    let store = limited(&disk, 1_500);
    let one = tokens(1, 0, 9);
    save(&store, &one, 0).unwrap();
    let _loading = disk.try_lock(LockKind::Shared).unwrap().unwrap();
    assert!(matches!(store.prune(0), Err(MaintenanceError::Busy)));
    let saved = save(&store, &tokens(2, 0, 9), 0);
    assert!(matches!(saved, Err(SaveError::Busy)), "{saved:?}");
    assert_eq!(version_of(&store, &one), Some(0));
}

#[test]
fn seconds_saved_per_byte_decide() {
    let disk = SimulatedDisk::new();
    disk.set_clock(START);
    let store = open(&disk);
    let [cheap, dear, bulky] = [1, 2, 3].map(|conversation| tokens(conversation, 0, 9));
    save_with(&store, &cheap, |data| data.prefill_seconds = 1.0);
    save_with(&store, &dear, |data| data.prefill_seconds = 30.0);
    save_with(&store, &bulky, |data| {
        data.prefill_seconds = 30.0;
        data.attachment = vec![0; 200_000];
    });
    let names: [(&str, &[u32]); 3] = [("cheap", &cheap), ("dear", &dear), ("bulky", &bulky)];
    assert_eq!(order(&store, &names), ["bulky", "cheap", "dear"]);
}

#[test]
fn use_counts_and_fades() {
    let disk = SimulatedDisk::new();
    disk.set_clock(START);
    let store = open(&disk);
    let [daily, fresh, former] = [1, 2, 3].map(|conversation| tokens(conversation, 0, 9));
    save(&store, &former, 0).unwrap();
    for _ in 0..200 {
        touch(&store, &former);
    }
    save(&store, &daily, 0).unwrap();
    // A month in which one is used every day.
    for day in 1..=30 {
        disk.set_clock(START + day * DAY);
        touch(&store, &daily);
    }
    // A day later something new comes in.
    disk.set_clock(START + 31 * DAY);
    save(&store, &fresh, 0).unwrap();
    disk.set_clock(START + 31 * DAY + HOUR);
    let names: [(&str, &[u32]); 3] = [("daily", &daily), ("fresh", &fresh), ("former", &former)];
    assert_eq!(order(&store, &names), ["former", "fresh", "daily"]);
}

#[test]
fn a_shared_beginning_outlives_what_hangs_on_it() {
    let disk = SimulatedDisk::new();
    disk.set_clock(START);
    let store = open(&disk);
    // A system prompt with three conversations behind it, and a nested checkpoint.
    let prompt = tokens(0, 0, 40);
    save(&store, &prompt, 0).unwrap();
    let branches: Vec<Vec<u32>> = (1..4).map(|branch| tokens(branch, 40, 60)).collect();
    for branch in &branches {
        save(&store, &branch[..56], 0).unwrap();
        save(&store, branch, 0).unwrap();
    }
    store.prune(store.usage().bytes / 2).unwrap();
    assert!(
        store.list().iter().any(|info| info.tokens == 40),
        "the prompt went before its branches"
    );
    // It is cheap: its segments are there for the branches anyway.
    let info = store
        .list()
        .into_iter()
        .find(|info| info.tokens == 40)
        .unwrap();
    assert!(info.own_bytes < info.bytes || store.usage().checkpoints == 1);
}

#[test]
fn a_clock_that_goes_back_is_harmless() {
    let disk = SimulatedDisk::new();
    disk.set_clock(START + 1000 * DAY);
    let store = limited(&disk, 3_000);
    let future = tokens(1, 0, 9);
    save(&store, &future, 0).unwrap();
    touch(&store, &future);
    disk.set_clock(START);
    let value = store.list()[0].value;
    assert!(value.is_finite() && value > 0.0);
    touch(&store, &future);
    drop(store);
    let store = limited(&disk, 3_000);
    assert_eq!(
        store.list()[0].last_used,
        START,
        "a time in the future counts as now"
    );
    // It ages from now on, so that what comes later is not evicted in its favour.
    for conversation in 2..12 {
        disk.set_clock(START + u64::from(conversation) * DAY);
        let tokens = tokens(conversation, 0, 9);
        save(&store, &tokens, 0).unwrap();
        assert_eq!(version_of(&store, &tokens), Some(0));
    }
    assert_eq!(version_of(&store, &future), None);
    disk.set_clock(0);
    save(&store, &future, 1).unwrap();
    assert_eq!(version_of(&store, &future), Some(1));
    assert_eq!(store.verify(&mut |_, _| CONTINUE).unwrap(), []);
}

#[test]
fn kinds_are_counted_apart() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    for (conversation, kind) in (1..).zip(CheckpointKind::ALL) {
        let tokens = tokens(conversation, 0, 5);
        save_with(&store, &tokens, |data| data.kind = kind);
        for _ in 0..conversation {
            touch(&store, &tokens);
        }
    }
    assert_eq!(store.statistics().hits, [1, 2, 3, 4, 5]);
    let names: Vec<_> = CheckpointKind::ALL.map(CheckpointKind::name).into();
    assert_eq!(
        names,
        ["prompt", "interval", "evicted", "shutdown", "named"]
    );
}
