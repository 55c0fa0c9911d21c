//! Saving, finding, loading.

use ds4_kvstore::storage::Folder;
use ds4_kvstore::{Access, CheckpointKind, Limits, MaintenanceError, ModelKey, SaveError};

use crate::conversation::*;
use crate::simulated_disk::SimulatedDisk;

#[test]
fn the_longest_prefix_is_found_and_restored() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let long = tokens(1, 0, 23);
    for length in [3, 4, 10, 17] {
        save(&store, &long[..length], length as u8).unwrap();
    }
    for (length, expected) in [
        (2, None),
        (3, Some(3)),
        (4, Some(4)),
        (9, Some(4)),
        (10, Some(10)),
        (11, Some(10)),
        (16, Some(10)),
        (23, Some(17)),
    ] {
        let hit = store.longest_prefix(&KEY, &long[..length]);
        assert_eq!(hit.as_ref().map(|hit| hit.tokens()), expected, "{length}");
        if let Some(hit) = hit {
            let version = load_and_check(&store, &hit, &long).unwrap();
            assert_eq!(Some(usize::from(version)), expected);
        }
    }
    // Another model, format or span has none of it.
    let others = [
        ModelKey {
            fingerprint: [4; 32],
            ..KEY
        },
        ModelKey { format: 1, ..KEY },
        ModelKey {
            span_tokens: 5,
            ..KEY
        },
        ModelKey {
            span_tokens: 0,
            ..KEY
        },
    ];
    for key in others {
        assert!(store.longest_prefix(&key, &long).is_none(), "{key:?}");
    }
    // A conversation that differs within the first span finds the short one.
    let mut other = long.clone();
    other[3] = 77;
    assert_eq!(store.longest_prefix(&KEY, &other).unwrap().tokens(), 3);
}

#[test]
fn segments_are_shared_and_written_once() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let one = tokens(1, 8, 13);
    let two = tokens(2, 8, 14);
    assert_eq!(save(&store, &one, 0).unwrap().segments_written, 3);
    let plan = store.plan(&KEY, &two).unwrap();
    assert_eq!(plan.missing(), [2]);
    assert!(!plan.already_saved());
    drop(plan);
    assert_eq!(save(&store, &two, 0).unwrap().segments_written, 1);
    assert_eq!(disk.names(Folder::Segments).len(), 4);
    assert_eq!(save(&store, &two, 1).unwrap().segments_written, 0);
    assert!(store.plan(&KEY, &two).unwrap().already_saved());
    assert_eq!(version_of(&store, &two), Some(1));
    assert_eq!(version_of(&store, &one), Some(0));

    // Sizes add up, and to what is on disk.
    let on_disk: usize = [Folder::Checkpoints, Folder::Segments]
        .into_iter()
        .flat_map(|folder| {
            let names = disk.names(folder).into_iter();
            names.map(move |name| (folder, name))
        })
        .map(|(folder, name)| disk.content(folder, &name).len())
        .sum();
    assert_eq!(store.usage().bytes, on_disk as u64);
    let list = store.list();
    let shared = list[0].bytes - list[0].own_bytes;
    assert_eq!(
        list.iter().map(|info| info.own_bytes).sum::<u64>() + shared,
        on_disk as u64
    );

    // Removing one leaves the other whole.
    store.remove(&id_of(&store, &one)).unwrap();
    assert_eq!(disk.names(Folder::Segments).len(), 3);
    assert_eq!(version_of(&store, &one), None);
    assert_eq!(version_of(&store, &two), Some(1));
    store.remove(&id_of(&store, &two)).unwrap();
    assert!(disk.names(Folder::Segments).is_empty());
    assert_eq!(store.usage().bytes, 0);
}

#[test]
fn everything_survives_reopening() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let one = tokens(1, 8, 13);
    save(&store, &one, 7).unwrap();
    assert_eq!(version_of(&store, &one), Some(7));
    assert!(store.longest_prefix(&KEY, &[99]).is_none());
    let before = store.list();
    let statistics = store.statistics();
    drop(store);

    let store = open(&disk);
    assert_eq!(store.list(), before);
    assert_eq!(store.list()[0].hits, 1);
    assert_eq!(store.statistics(), statistics);
    assert_eq!(statistics.hits[CheckpointKind::Prompt as usize], 1);
    assert_eq!((statistics.lookups, statistics.misses), (2, 1));
    assert_eq!(statistics.tokens_restored, 13);
    assert_eq!(statistics.saved, 1);
    assert_eq!(version_of(&store, &one), Some(7));
    assert_eq!(store.list()[0].hits, 2);
    assert_eq!(store.verify(&mut |_, _| CONTINUE).unwrap(), []);
}

#[test]
fn a_load_can_leave_out_what_is_in_memory() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let one = tokens(1, 0, 14);
    save(&store, &one, 0).unwrap();
    let hit = store.longest_prefix(&KEY, &one).unwrap();
    let loaded = store.load(&hit, 2).unwrap();
    assert_eq!(loaded.first_span, 2);
    assert_eq!(loaded.segments, [rows(&one[..12])]);
    assert!(store.load(&hit, 9).unwrap().segments.is_empty());
    // What is not read is not missed.
    for name in disk.names(Folder::Segments) {
        if name != loaded_name(&disk, &one[..12]) {
            disk.delete(Folder::Segments, &name);
        }
    }
    assert!(store.load(&hit, 2).is_ok());
    assert!(store.load(&hit, 0).is_err());
}

/// The file with these rows.
fn loaded_name(disk: &SimulatedDisk, prefix: &[u32]) -> String {
    let wanted = rows(prefix);
    let mut names = disk.names(Folder::Segments).into_iter();
    names
        .find(|name| disk.content(Folder::Segments, name).ends_with(&wanted))
        .unwrap()
}

#[test]
fn what_makes_no_sense_is_refused() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let one = tokens(1, 0, 9);
    let setting = |result: Result<_, SaveError>| {
        assert!(
            matches!(result, Err(SaveError::Setting { .. })),
            "{result:?}"
        );
    };
    setting(store.plan(&KEY, &[]).map(|_| ()));
    setting(
        store
            .plan(
                &ModelKey {
                    span_tokens: 0,
                    ..KEY
                },
                &one,
            )
            .map(|_| ()),
    );
    setting(
        store
            .plan(
                &ModelKey {
                    span_tokens: 1 << 20,
                    ..KEY
                },
                &one,
            )
            .map(|_| ()),
    );

    let plan = store.plan(&KEY, &one).unwrap();
    let mut wrong = data(&one, 0);
    wrong.segment_bytes = 99;
    let error = store.save(&plan, &wrong, &mut all_rows(&one)).unwrap_err();
    assert!(matches!(
        error,
        SaveError::SegmentSize {
            span: 0,
            found: 100,
            expected: 99
        }
    ));
    wrong.segment_bytes = 1 << 40;
    setting(store.save(&plan, &wrong, &mut all_rows(&one)).map(|_| ()));

    let mut some = all_rows(&one);
    some.remove(&1);
    let error = store.save(&plan, &data(&one, 0), &mut some).unwrap_err();
    assert!(matches!(error, SaveError::SegmentGone { span: 1 }));
    // Nothing of the attempts is left.
    assert!(disk.names(Folder::Segments).is_empty());
    assert!(disk.names(Folder::Checkpoints).is_empty());

    // A name that is too long is cut, at a character; a cost that is none counts nothing.
    let mut odd = data(&one, 0);
    odd.model_name = "é".repeat(200);
    odd.prefill_seconds = f64::NAN;
    store.save(&plan, &odd, &mut all_rows(&one)).unwrap();
    let info = &store.list()[0];
    assert_eq!(info.model_name, "é".repeat(128));
    assert_eq!(info.prefill_seconds, 0.0);
    assert_eq!(version_of(&open(&disk), &one), Some(0));

    let limits = Limits {
        load_threads: 0,
        ..Limits::default()
    };
    assert!(ds4_kvstore::Store::with_storage(std::sync::Arc::new(disk), limits).is_err());
}

#[test]
fn a_rejected_checkpoint_is_not_found_again() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let one = tokens(1, 0, 9);
    save(&store, &one[..5], 0).unwrap();
    save(&store, &one, 0).unwrap();
    let hit = store.longest_prefix(&KEY, &one).unwrap();
    store.reject(&hit, "its logits are not finite");
    drop(hit);
    assert_eq!(store.longest_prefix(&KEY, &one).unwrap().tokens(), 5);
    assert!(store.problems()[0].reason.contains("logits"));
    assert_eq!(open(&disk).longest_prefix(&KEY, &one).unwrap().tokens(), 5);
    // It can be saved anew.
    save(&store, &one, 1).unwrap();
    assert_eq!(version_of(&store, &one), Some(1));
}

#[test]
fn another_handle_sees_changes_after_a_refresh() {
    let disk = SimulatedDisk::new();
    let (a, b) = (open(&disk), open(&disk));
    let one = tokens(1, 0, 9);
    save(&a, &one, 0).unwrap();
    assert!(b.longest_prefix(&KEY, &one).is_none());
    b.refresh();
    assert_eq!(version_of(&b, &one), Some(0));
    a.remove(&id_of(&a, &one)).unwrap();
    // Before b knows, its load finds nothing, and says so.
    let hit = b.longest_prefix(&KEY, &one).unwrap();
    assert!(matches!(
        b.load(&hit, 0),
        Err(ds4_kvstore::LoadError::Gone(_))
    ));
    drop(hit);
    assert!(b.longest_prefix(&KEY, &one).is_none());
    b.refresh();
    assert!(b.list().is_empty());
    assert!(matches!(
        b.remove(&id_of(&b, &one)),
        Err(MaintenanceError::Unknown(_))
    ));
    assert_eq!(b.access(), Access::ReadWrite);
}

#[test]
fn hits_of_two_handles_add_up() {
    let disk = SimulatedDisk::new();
    let one = tokens(1, 0, 9);
    let a = open(&disk);
    save(&a, &one, 0).unwrap();
    let b = open(&disk);
    for store in [&a, &b, &b] {
        version_of(store, &one).unwrap();
    }
    a.flush_statistics();
    b.flush_statistics();
    assert_eq!(b.list()[0].hits, 3);
    a.flush_statistics();
    drop((a, b));
    let store = open(&disk);
    assert_eq!(store.list()[0].hits, 3);
    assert_eq!(store.statistics().hits[0], 3);
}
