//! Damaged, truncated, foreign and lying files: refused, moved aside, written anew.

use std::ops::ControlFlow;

use ds4_kvstore::format::{FileError, Manifest, SegmentFile};
use ds4_kvstore::storage::Folder;
use ds4_kvstore::{LoadError, MaintenanceError, Store};

use crate::conversation::*;
use crate::simulated_disk::SimulatedDisk;

/// A store with one checkpoint of two whole spans, and where its sections end.
fn sound() -> (SimulatedDisk, Vec<u32>) {
    let disk = SimulatedDisk::new();
    let one = tokens(1, 0, 9);
    save(&open(&disk), &one, 3).unwrap();
    (disk, one)
}

fn files(disk: &SimulatedDisk) -> Vec<(Folder, String)> {
    [Folder::Checkpoints, Folder::Segments]
        .into_iter()
        .flat_map(|folder| {
            let names = disk.names(folder).into_iter();
            names.map(move |name| (folder, name))
        })
        .collect()
}

/// The checkpoint is not loaded, its file is moved aside, and saving it anew repairs all.
fn check_refused(disk: &SimulatedDisk, tokens: &[u32], context: &str) {
    let store = open(disk);
    assert_eq!(version_of(&store, tokens), None, "{context}");
    assert!(!store.problems().is_empty(), "{context}");
    assert_eq!(disk.names(Folder::Quarantine).len(), 1, "{context}");
    save(&store, tokens, 4).unwrap();
    assert_eq!(version_of(&store, tokens), Some(4), "{context}");
    drop(store);
    let store = open(disk);
    assert_eq!(version_of(&store, tokens), Some(4), "{context}");
    assert_eq!(store.verify(&mut |_, _| CONTINUE).unwrap(), [], "{context}");
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (disk, one) = sound();
    for (folder, name) in files(&disk) {
        let content = disk.content(folder, &name);
        for at in 0..content.len() {
            let disk = disk.copy();
            let mut damaged = content.clone();
            damaged[at] ^= 1 << (at % 8);
            disk.put(folder, &name, damaged);
            check_refused(&disk, &one, &format!("{folder:?}, bit in byte {at}"));
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    let (disk, one) = sound();
    for (folder, name) in files(&disk) {
        let content = disk.content(folder, &name);
        // All lengths: every boundary of a section is among them.
        for length in 0..content.len() {
            let disk = disk.copy();
            disk.put(folder, &name, content[..length].to_vec());
            check_refused(&disk, &one, &format!("{folder:?}, {length} bytes"));
        }
        for more in [1, 300] {
            let disk = disk.copy();
            let mut longer = content.clone();
            longer.resize(content.len() + more, 0);
            disk.put(folder, &name, longer);
            check_refused(&disk, &one, &format!("{folder:?}, {more} bytes more"));
        }
    }
}

#[test]
fn verify_finds_damage_that_nobody_loaded() {
    let (disk, one) = sound();
    let name = disk.names(Folder::Segments)[1].clone();
    let mut content = disk.content(Folder::Segments, &name);
    content[250] ^= 4;
    disk.put(Folder::Segments, &name, content);
    disk.put(Folder::Segments, "notes.txt", b"mine".to_vec());
    let store = open(&disk);
    assert!(
        store.longest_prefix(&KEY, &one).is_some(),
        "lookups read no segments"
    );
    let stopped = store.verify(&mut |_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(MaintenanceError::Stopped)));
    let mut reports = Vec::new();
    let problems = store
        .verify(&mut |done, total| {
            reports.push((done, total));
            CONTINUE
        })
        .unwrap();
    let files: Vec<_> = problems
        .iter()
        .map(|problem| problem.file.as_str())
        .collect();
    assert_eq!(files.len(), 3, "{problems:?}");
    assert!(files.contains(&"segments/notes.txt"));
    assert!(files.contains(&format!("segments/{name}").as_str()));
    assert!(
        problems
            .iter()
            .any(|problem| problem.reason.contains("lacked a segment"))
    );
    assert!(reports.is_sorted());
    let (done, total) = *reports.last().unwrap();
    assert!(done == total && total > 0);
    assert!(store.longest_prefix(&KEY, &one).is_none());
    // The stranger's file stays where it is.
    assert_eq!(disk.content(Folder::Segments, "notes.txt"), b"mine");
    drop(store);
    let problems = open(&disk).verify(&mut |_, _| CONTINUE).unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_missing_segment_hides_its_checkpoints_until_it_is_back() {
    let (disk, one) = sound();
    let mut longer = one.clone();
    longer.extend([70, 71, 72, 73]);
    let store = open(&disk);
    save(&store, &longer, 1).unwrap();
    save(&store, &one[..6], 2).unwrap();
    drop(store);
    // The second span is needed by two of three.
    let name = segment_of(&disk, &one[..8]);
    disk.delete(Folder::Segments, &name);
    let store = open(&disk);
    assert_eq!(store.longest_prefix(&KEY, &longer).unwrap().tokens(), 6);
    assert_eq!(store.list().iter().filter(|info| info.complete).count(), 1);
    let plan = store.plan(&KEY, &longer).unwrap();
    assert_eq!(plan.missing(), [1]);
    assert!(!plan.already_saved());
    drop(plan);
    save(&store, &longer, 5).unwrap();
    assert_eq!(version_of(&store, &longer), Some(5));
    assert_eq!(
        version_of(&store, &one),
        Some(3),
        "its segment is back, too"
    );
}

fn segment_of(disk: &SimulatedDisk, prefix: &[u32]) -> String {
    let wanted = rows(prefix);
    let mut names = disk.names(Folder::Segments).into_iter();
    names
        .find(|name| disk.content(Folder::Segments, name).ends_with(&wanted))
        .unwrap()
}

#[test]
fn files_under_a_wrong_name_are_refused() {
    let (disk, one) = sound();
    let names = disk.names(Folder::Segments);
    let other = disk.content(Folder::Segments, &names[1]);
    disk.put(Folder::Segments, &names[0], other);
    check_refused(&disk, &one, "a segment of another span");

    let (disk, one) = sound();
    let two = tokens(2, 0, 9);
    save(&open(&disk), &two, 0).unwrap();
    let store = open(&disk);
    let [one_name, two_name] = [&one, &two].map(|tokens| id_of(&store, tokens).to_string());
    drop(store);
    disk.put(
        Folder::Checkpoints,
        &one_name,
        disk.content(Folder::Checkpoints, &two_name),
    );
    let store = open(&disk);
    assert_eq!(version_of(&store, &one), None);
    assert_eq!(version_of(&store, &two), Some(0));
    assert!(store.problems()[0].reason.contains("another checkpoint"));
}

/// Replaces bytes of a header and makes its checksum right.
fn forge(content: &[u8], header: usize, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut forged = content.to_vec();
    forged[at..at + bytes.len()].copy_from_slice(bytes);
    let hash = blake3::hash(&forged[..header - 32]);
    forged[header - 32..header].copy_from_slice(hash.as_bytes());
    forged
}

#[test]
fn lengths_are_not_believed_even_with_a_right_checksum() {
    let (disk, _) = sound();
    let name = disk.names(Folder::Checkpoints)[0].clone();
    let content = disk.content(Folder::Checkpoints, &name);
    let read = |bytes: Vec<u8>| Manifest::read(&mut std::io::Cursor::new(bytes));
    assert!(
        read(forge(&content, 296, 0, &[])).is_ok(),
        "forging nothing is fine"
    );
    let huge = [u64::MAX, 1 << 63, 1 << 60, (1 << 32) + 1];
    // Model name, tokens, segment, attachment and frontier lengths.
    for (at, wide) in [
        (84, false),
        (88, true),
        (96, true),
        (120, true),
        (128, true),
    ] {
        for value in huge {
            let bytes = value.to_le_bytes();
            let bytes = if wide { &bytes[..] } else { &bytes[4..] };
            let error = read(forge(&content, 296, at, bytes)).unwrap_err();
            assert!(
                matches!(error, FileError::Field { .. } | FileError::Length { .. }),
                "{at}: {error}"
            );
        }
    }
    for (at, bytes) in [
        (76, vec![0; 4]),                       // a span of nothing
        (76, vec![0xff; 4]),                    // a huge span
        (80, vec![9, 0, 0, 0]),                 // an unknown kind
        (88, vec![0; 8]),                       // no tokens
        (112, f64::NAN.to_le_bytes().to_vec()), // no cost
        (112, (-1f64).to_le_bytes().to_vec()),
    ] {
        let error = read(forge(&content, 296, at, &bytes)).unwrap_err();
        assert!(matches!(error, FileError::Field { .. }), "{at}: {error}");
    }
    // Fewer tokens in a larger frontier: all lengths fit, the id does not.
    let mut shorter = forge(&content, 296, 88, &5u64.to_le_bytes());
    let frontier = 101u64 + 4 * 4 + 32;
    shorter = forge(&shorter, 296, 128, &frontier.to_le_bytes());
    let error = read(shorter).unwrap_err();
    assert!(
        matches!(
            error,
            FileError::Checksum { .. } | FileError::Mismatch { .. }
        ),
        "{error}"
    );

    let name = disk.names(Folder::Segments)[0].clone();
    let content = disk.content(Folder::Segments, &name);
    for (at, bytes) in [
        (108, vec![0xff; 4]),
        (108, vec![0; 4]),
        (112, vec![0xff; 8]),
    ] {
        let mut forged = content.clone();
        forged[at..at + bytes.len()].copy_from_slice(&bytes);
        let error = SegmentFile::read(&mut std::io::Cursor::new(forged)).unwrap_err();
        assert!(matches!(error, FileError::Field { .. }), "{at}: {error}");
    }
}

#[test]
fn later_versions_and_strangers_are_named() {
    let (disk, one) = sound();
    let name = disk.names(Folder::Checkpoints)[0].clone();
    let mut content = disk.content(Folder::Checkpoints, &name);
    content[7] = 2;
    disk.put(Folder::Checkpoints, &name, content);
    let store = open(&disk);
    assert!(store.longest_prefix(&KEY, &one).is_none());
    let reason = &store.problems()[0].reason;
    assert!(
        reason.contains("version 2") && reason.contains("version 1"),
        "{reason}"
    );

    let (disk, one) = sound();
    let name = disk.names(Folder::Segments)[0].clone();
    disk.put(Folder::Segments, &name, vec![b'x'; 300]);
    let store = open(&disk);
    let hit = store.longest_prefix(&KEY, &one).unwrap();
    let error = store.load(&hit, 0).unwrap_err();
    let LoadError::Refused { file, reason, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(
        file.contains(&name) && reason.contains("KV segment"),
        "{error}"
    );
}

#[test]
fn the_quarantine_is_bounded() {
    let disk = SimulatedDisk::new();
    let limits = ds4_kvstore::Limits {
        max_quarantine_files: 3,
        max_quarantine_bytes: 1_000,
        ..ds4_kvstore::Limits::default()
    };
    for number in 0..10 {
        disk.set_clock(2_000_000 + number);
        let name = format!("{number:064x}");
        disk.put(Folder::Checkpoints, &name, vec![number as u8; 300]);
        assert_eq!(open_with(&disk, limits).problems().len(), 1);
    }
    let left = disk.names(Folder::Quarantine);
    assert_eq!(left.len(), 3, "{left:?}");
    // The newest are kept.
    assert_eq!(disk.content(Folder::Quarantine, &left[2]), vec![9; 300]);
    disk.put(Folder::Checkpoints, &"a".repeat(64), vec![7; 900]);
    disk.set_clock(3_000_000);
    let store = open_with(&disk, limits);
    assert_eq!(disk.names(Folder::Quarantine).len(), 1);
    store.prune(u64::MAX).unwrap();
    assert!(disk.names(Folder::Quarantine).is_empty());
}

#[test]
fn a_damaged_usage_file_costs_only_counts() {
    let (disk, one) = sound();
    let content = disk.content(Folder::Root, "usage");
    for at in 0..content.len() {
        let disk = disk.copy();
        let mut damaged = content.clone();
        damaged[at] ^= 0x10;
        disk.put(Folder::Root, "usage", damaged);
        let store = open(&disk);
        assert_eq!(version_of(&store, &one), Some(3));
        drop(store);
        assert_eq!(open(&disk).list()[0].hits, 1, "it was written anew");
    }
}

/// Files of version 1, as they were written when it was new.
#[test]
fn version_1_is_read() {
    let disk = SimulatedDisk::new();
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/version-1");
    for (folder, name) in [
        (Folder::Root, "."),
        (Folder::Checkpoints, "checkpoints"),
        (Folder::Segments, "segments"),
    ] {
        for entry in std::fs::read_dir(data.join(name)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let content = std::fs::read(entry.path()).unwrap();
                disk.put(folder, entry.file_name().to_str().unwrap(), content);
            }
        }
    }
    let store: Store = open(&disk);
    assert_eq!(store.problems(), []);
    assert_eq!(version_of(&store, &tokens(1, 0, 9)), Some(3));
    assert_eq!(version_of(&store, &tokens(1, 8, 13)), Some(1));
    let info = &store.list()[0];
    assert_eq!(
        (info.model_name.as_str(), info.created, info.hits),
        ("small", 1_000_000, 3)
    );
    // And written the same way today: all names and bytes are what they were.
    let again = SimulatedDisk::new();
    let store = open(&again);
    save(&store, &tokens(1, 0, 9), 3).unwrap();
    save(&store, &tokens(1, 8, 13), 1).unwrap();
    for (folder, name) in files(&again) {
        assert_eq!(
            again.content(folder, &name),
            disk.content(folder, &name),
            "{name}"
        );
    }
}

/// Writes the files of [`version_1_is_read`]. Only for a new version, in a new folder.
#[test]
#[ignore = "writes test data"]
fn write_fixture() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let (one, two) = (tokens(1, 0, 9), tokens(1, 8, 13));
    save(&store, &one, 3).unwrap();
    save(&store, &two, 1).unwrap();
    for conversation in [&one, &two, &two] {
        version_of(&store, conversation).unwrap();
    }
    drop(store);
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/version-1");
    let mut all = files(&disk);
    all.push((Folder::Root, "usage".to_owned()));
    for (folder, name) in all {
        let path = data.join(folder.name());
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(&name), disk.content(folder, &name)).unwrap();
    }
}
