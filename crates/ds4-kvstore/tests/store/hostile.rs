//! A real directory, and what others may have put into it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ds4_kvstore::{Access, Limits, OpenError, Store};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::conversation::*;

struct Place {
    parent: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            parent: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.parent.path().join("kv")
    }

    fn open(&self) -> Store {
        Store::open(&self.path(), Limits::default()).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

#[test]
fn everything_is_for_the_user_only() {
    let place = Place::new();
    let store = place.open();
    save(&store, &tokens(1, 0, 9), 0).unwrap();
    store.flush_statistics();
    let mut files = 0;
    assert_eq!(mode(&place.path()), 0o700);
    for entry in fs::read_dir(place.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_eq!(mode(&path), 0o700, "{path:?}");
            for entry in fs::read_dir(&path).unwrap() {
                assert_eq!(mode(&entry.unwrap().path()), 0o600);
                files += 1;
            }
        } else {
            assert_eq!(mode(&path), 0o600, "{path:?}");
        }
    }
    assert_eq!(files, 3);
    let tag = fs::read_to_string(place.file("CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    drop(store);

    // A directory that was opened to others is closed again.
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(version_of(&place.open(), &tokens(1, 0, 9)), Some(0));
    assert_eq!(mode(&place.path()), 0o700);
}

#[test]
fn symbolic_links_to_directories_are_not_followed() {
    let place = Place::new();
    let elsewhere = place.parent.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, place.path()).unwrap();
    for path in [
        place.path(),
        PathBuf::from(format!("{}/", place.path().display())),
    ] {
        let error = Store::open(&path, Limits::default()).unwrap_err();
        assert!(matches!(error, OpenError::NotADirectory { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    fs::remove_file(place.path()).unwrap();

    drop(place.open());
    fs::remove_dir(place.file("segments")).unwrap();
    symlink(&elsewhere, place.file("segments")).unwrap();
    let error = Store::open(&place.path(), Limits::default()).unwrap_err();
    assert!(matches!(error, OpenError::NotADirectory { .. }), "{error}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn other_directories_are_left_alone() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(place.file("thesis.txt"), "mine").unwrap();
    let error = Store::open(&place.path(), Limits::default()).unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(mode(&place.path()), 0o755);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);

    // Not even if they look alike: training programs make such folders, too.
    fs::create_dir(place.file("checkpoints")).unwrap();
    let error = Store::open(&place.path(), Limits::default()).unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(mode(&place.path()), 0o755);

    // What is put into a store later does not make it another's.
    let store = Store::open(&place.parent.path().join("own"), Limits::default());
    drop(store.unwrap());
    fs::write(place.parent.path().join("own/note.txt"), "mine").unwrap();
    Store::open(&place.parent.path().join("own"), Limits::default()).unwrap();

    // A file is no directory, and nor is a FIFO.
    let error = Store::open(&place.file("thesis.txt"), Limits::default()).unwrap_err();
    assert!(matches!(error, OpenError::NotADirectory { .. }), "{error}");
    fifo(&place.file("fifo"));
    let error = Store::open(&place.file("fifo"), Limits::default()).unwrap_err();
    assert!(matches!(error, OpenError::NotADirectory { .. }), "{error}");

    // Parents are made.
    let deep = place.parent.path().join("a/b/c/kv");
    drop(Store::open(&deep, Limits::default()).unwrap());
    assert!(deep.join("segments").is_dir());
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    let other = 12_345;
    if std::os::unix::fs::chown(place.path(), Some(other), None).is_err() {
        eprintln!("skipped: only root can give a directory away");
        return;
    }
    let error = Store::open(&place.path(), Limits::default()).unwrap_err();
    assert!(
        matches!(error, OpenError::OtherOwner { owner: 12_345, .. }),
        "{error}"
    );
    std::os::unix::fs::chown(
        place.path(),
        Some(rustix::process::geteuid().as_raw()),
        None,
    )
    .unwrap();
    let store = place.open();
    let one = tokens(1, 0, 9);
    save(&store, &one, 0).unwrap();
    // A file of another user under the right name.
    let path = place.file(&format!("checkpoints/{}", id_of(&store, &one)));
    drop(store);
    std::os::unix::fs::chown(&path, Some(other), None).unwrap();
    let store = place.open();
    assert_eq!(version_of(&store, &one), None);
    assert!(store.problems()[0].reason.contains("12345"));
    save(&store, &one, 1).unwrap();
    assert_eq!(version_of(&store, &one), Some(1));
}

#[test]
fn strange_entries_neither_block_nor_lead_elsewhere() {
    let place = Place::new();
    let one = tokens(1, 0, 9);
    let two = tokens(2, 0, 14);
    let store = place.open();
    save(&store, &one, 0).unwrap();
    let id = id_of(&store, &two);
    save(&store, &two, 0).unwrap();
    drop(store);
    let secret = place.parent.path().join("secret");
    fs::write(&secret, "not for the store").unwrap();

    // In place of segments of the second: a link, a FIFO, a directory with something in it.
    let segments: Vec<PathBuf> = fs::read_dir(place.file("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let content = fs::read(path).unwrap();
            (1..=3).any(|span| content.ends_with(&rows(&two[..span * SPAN])))
        })
        .collect();
    assert_eq!(segments.len(), 3);
    for path in &segments {
        fs::remove_file(path).unwrap();
    }
    symlink(&secret, &segments[0]).unwrap();
    fifo(&segments[1]);
    fs::create_dir_all(segments[2].join("deep/er")).unwrap();

    // Checkpoints that are none.
    let checkpoint = |digit: &str| place.file(&format!("checkpoints/{}", digit.repeat(64)));
    symlink(&secret, checkpoint("1")).unwrap();
    symlink(place.path(), checkpoint("2")).unwrap();
    symlink("/nowhere", checkpoint("3")).unwrap();
    fifo(&checkpoint("4"));
    fs::create_dir(checkpoint("5")).unwrap();
    File::create(checkpoint("6"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let huge = File::create(checkpoint("7")).unwrap();
    let own = fs::read(place.file(&format!("checkpoints/{id}"))).unwrap();
    fs::write(checkpoint("7"), &own).unwrap();
    huge.set_len(1 << 40).unwrap();
    mknodat(CWD, checkpoint("8"), FileType::Socket, Mode::RWXU, 0).unwrap();
    // Names that are none.
    for name in [
        &b"\xff\xfe"[..],
        b"a b\n",
        b".x.tmp",
        &[b'z'; 255],
        b"-rf",
        b"...",
    ] {
        File::create(place.file("segments").join(OsStr::from_bytes(name))).unwrap();
    }
    fs::remove_file(place.file("usage")).unwrap();
    symlink(&secret, place.file("usage")).unwrap();

    let store = place.open();
    assert_eq!(version_of(&store, &one), Some(0));
    assert_eq!(version_of(&store, &two), None);
    assert_eq!(store.list().len(), 2);
    let problems = store.verify(&mut |_, _| CONTINUE).unwrap();
    assert!(problems.len() >= 12, "{problems:#?}");
    // It can be saved over what was there.
    save(&store, &two, 3).unwrap();
    assert_eq!(version_of(&store, &two), Some(3));
    drop(store);
    let store = place.open();
    assert_eq!(version_of(&store, &two), Some(3));
    store.prune(0).unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "not for the store");
    assert!(fs::symlink_metadata(&secret).unwrap().is_file());
}

#[test]
fn a_lock_that_is_none_makes_the_store_read_only() {
    let place = Place::new();
    let one = tokens(1, 0, 9);
    let store = place.open();
    save(&store, &one, 0).unwrap();
    drop(store);
    fs::remove_file(place.file("lock")).unwrap();
    fifo(&place.file("lock"));
    let store = place.open();
    assert!(matches!(store.access(), Access::ReadOnly { .. }));
    assert_eq!(version_of(&store, &one), Some(0));
    drop(store);
    fs::remove_file(place.file("lock")).unwrap();
    let secret = place.parent.path().join("secret");
    symlink(&secret, place.file("lock")).unwrap();
    assert!(matches!(place.open().access(), Access::ReadOnly { .. }));
    assert!(!secret.exists());
}

#[test]
fn a_directory_without_write_permission_is_read() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write everywhere; the simulated disk covers it");
        return;
    }
    let place = Place::new();
    let one = tokens(1, 0, 9);
    let store = place.open();
    save(&store, &one, 0).unwrap();
    drop(store);
    fs::set_permissions(place.file("segments"), Permissions::from_mode(0o500)).unwrap();
    let store = place.open();
    let access = store.access();
    assert!(matches!(access, Access::ReadOnly { .. }), "{access:?}");
    assert_eq!(version_of(&store, &one), Some(0));
    fs::set_permissions(place.file("segments"), Permissions::from_mode(0o700)).unwrap();
}
