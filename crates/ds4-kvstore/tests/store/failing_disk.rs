//! Full, failing and read-only disks: saves fail with a reason, nothing else does.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use ds4_kvstore::storage::Folder;
use ds4_kvstore::{Access, MaintenanceError, SaveError};

use crate::conversation::*;
use crate::crash::{act, check_possible};
use crate::simulated_disk::{Failures, SimulatedDisk};

#[test]
fn an_error_at_every_operation_harms_nothing_else() {
    let operations = {
        let disk = SimulatedDisk::new();
        let store = open(&disk);
        act(&store, &mut BTreeMap::new(), true);
        drop(store);
        disk.operations()
    };
    let mut failed = 0;
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        for at in 1..=operations {
            let context = format!("{kind:?} at {at}");
            let disk = SimulatedDisk::new();
            disk.set_failures(Failures {
                fail_at: Some((at, kind)),
                ..Failures::default()
            });
            let store = open(&disk);
            let mut possible = BTreeMap::new();
            failed += act(&store, &mut possible, true);
            check_possible(&store, &possible, &context);
            assert_eq!(store.access(), Access::ReadWrite);
            drop(store);
            let store = open(&disk);
            check_possible(&store, &possible, &context);
            for folder in [Folder::Root, Folder::Checkpoints, Folder::Segments] {
                let names = disk.names(folder);
                assert!(
                    names.iter().all(|name| !name.starts_with('.')),
                    "{context}: {names:?}"
                );
            }
            assert_eq!(store.verify(&mut |_, _| CONTINUE).unwrap(), [], "{context}");
        }
    }
    assert!(failed > 50, "only {failed} actions failed");
}

#[test]
fn a_full_disk_leaves_what_is_there() {
    let (one, two) = (tokens(1, 0, 9), tokens(2, 0, 21));
    let mut failed = 0;
    for room in 0.. {
        let disk = SimulatedDisk::new();
        let store = open(&disk);
        save(&store, &one, 0).unwrap();
        disk.set_failures(Failures {
            full_from: Some(disk.operations() + 1 + room),
            ..Failures::default()
        });
        let Err(error) = save(&store, &two, 0) else {
            break;
        };
        failed += 1;
        assert!(matches!(error, SaveError::DiskFull(_)), "{error:?}");
        assert_eq!(version_of(&store, &one), Some(0));
        assert_eq!(version_of(&store, &two), None);
        let names = disk.names(Folder::Segments);
        assert_eq!(
            names.len(),
            2,
            "what was written was not removed: {names:?}"
        );
        assert_eq!(disk.names(Folder::Checkpoints).len(), 1);
        // There is room again.
        disk.set_failures(Failures::default());
        save(&store, &two, 1).unwrap();
        assert_eq!(version_of(&store, &two), Some(1));
    }
    assert!(failed > 15, "{failed}");
}

#[test]
fn a_read_only_disk_is_read() {
    let disk = SimulatedDisk::new();
    let (one, two) = (tokens(1, 0, 9), tokens(2, 0, 9));
    {
        let store = open(&disk);
        save(&store, &one, 4).unwrap();
        save(&store, &two, 4).unwrap();
    }
    // One damaged file, which cannot be moved aside.
    let name = disk.names(Folder::Checkpoints)[0].clone();
    let mut content = disk.content(Folder::Checkpoints, &name);
    *content.last_mut().unwrap() ^= 1;
    disk.put(Folder::Checkpoints, &name, content);
    disk.set_failures(Failures {
        read_only: true,
        ..Failures::default()
    });
    let store = open(&disk);
    let Access::ReadOnly { reason } = store.access() else {
        panic!("it is not read-only");
    };
    assert!(reason.contains("read-only"), "{reason}");
    let found = [&one, &two].map(|tokens| version_of(&store, tokens));
    assert!(
        found.contains(&Some(4)) && found.contains(&None),
        "{found:?}"
    );
    // The damaged one is found no more, though it is still there.
    store.refresh();
    let found = [&one, &two].map(|tokens| store.longest_prefix(&KEY, tokens).is_some());
    assert!(found.contains(&true) && found.contains(&false));
    assert!(matches!(
        save(&store, &one, 5),
        Err(SaveError::ReadOnly { .. })
    ));
    let id = store.list()[0].id;
    assert!(matches!(
        store.remove(&id),
        Err(MaintenanceError::ReadOnly { .. })
    ));
    assert!(matches!(
        store.prune(0),
        Err(MaintenanceError::ReadOnly { .. })
    ));
    assert_eq!(store.verify(&mut |_, _| CONTINUE).unwrap().len(), 1);
    store.flush_statistics();
}

#[test]
fn a_disk_that_becomes_read_only_is_noticed() {
    let disk = SimulatedDisk::new();
    let one = tokens(1, 0, 9);
    let store = open(&disk);
    save(&store, &one, 0).unwrap();
    disk.set_failures(Failures {
        read_only: true,
        ..Failures::default()
    });
    assert!(save(&store, &tokens(2, 0, 9), 0).is_err());
    assert!(matches!(store.access(), Access::ReadOnly { .. }));
    assert_eq!(version_of(&store, &one), Some(0));
}
