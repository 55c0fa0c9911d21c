//! What is on disk already, and disks that are full.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use ds4_download::{DownloadError, Presence, Source, part_path, presence, state_path};

use crate::fixture::{LENGTH, good, names, names_of, run, settings, source};
use crate::server::{Reply, Server, content};

#[test]
fn a_finished_file_is_not_loaded_again() {
    let data = content(LENGTH, 7);
    let served = data.clone();
    let server = Server::start(move |request| good(request, &served));
    let directory = tempfile::tempdir().unwrap();
    let known = Source {
        length: Some(LENGTH as u64),
        ..source(&data)
    };
    let settings = settings(&server.url());
    assert_eq!(presence(&known, directory.path()), Presence::Missing);
    run(&known, directory.path(), &settings).0.unwrap();
    // Killed between renaming and tidying up.
    fs::write(state_path(&directory.path().join("tiny.gguf")), "{}").unwrap();
    let asked = server.requests().len();
    let (result, _) = run(&known, directory.path(), &settings);
    assert!(result.unwrap().was_there);
    assert_eq!(
        (server.requests().len(), names_of(directory.path())),
        (asked, 1)
    );
    let never = AtomicBool::new(false);
    let verify = || ds4_download::verify(&known, directory.path(), &settings, &never, &mut |_| {});
    verify().unwrap();

    let path = directory.path().join("tiny.gguf");
    let mut damaged = data.clone();
    damaged[9] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert!(matches!(verify(), Err(DownloadError::WrongHash { .. })));
    assert_eq!(fs::read(&path).unwrap(), damaged);
    fs::write(&path, "short").unwrap();
    let (result, _) = run(&known, directory.path(), &settings);
    assert!(
        matches!(result, Err(DownloadError::Exists { found: 5, .. })),
        "{result:?}"
    );
    assert_eq!(presence(&known, directory.path()), Presence::InTheWay);
    assert_eq!(fs::read(&path).unwrap(), b"short");
}

#[test]
fn links_are_followed_only_where_they_lead_to_the_file() {
    let data = content(LENGTH, 7);
    let served = data.clone();
    let server = Server::start(move |request| good(request, &served));
    let settings = settings(&server.url());
    let known = Source {
        length: Some(LENGTH as u64),
        ..source(&data)
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, "precious").unwrap();

    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("tiny.gguf");
    for link in [part_path(&target), state_path(&target), target.clone()] {
        for leads_to in [victim.clone(), elsewhere.path().join("nowhere")] {
            symlink(&leads_to, &link).unwrap();
            let (result, _) = run(&known, directory.path(), &settings);
            let error = result.unwrap_err();
            assert!(
                matches!(
                    error,
                    DownloadError::NotAFile { .. } | DownloadError::Exists { .. }
                ),
                "{error}"
            );
            fs::remove_file(&link).unwrap();
            assert_eq!(
                (names_of(directory.path()), names_of(elsewhere.path())),
                (0, 1)
            );
        }
    }
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    // A model kept on another disk.
    fs::write(&victim, &data).unwrap();
    symlink(&victim, &target).unwrap();
    assert!(
        run(&known, directory.path(), &settings)
            .0
            .unwrap()
            .was_there
    );
}

#[test]
fn a_place_where_nothing_can_be_written_is_told() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let settings = settings("http://127.0.0.1:9");
    let (result, _) = run(&source(b""), &directory.path().join("file"), &settings);
    assert!(
        matches!(result, Err(DownloadError::Io { .. })),
        "{result:?}"
    );
    // Not even root can create files there.
    if cfg!(target_os = "linux") {
        let (result, _) = run(&source(b""), Path::new("/sys/kernel"), &settings);
        assert!(
            matches!(result, Err(DownloadError::Io { .. })),
            "{result:?}"
        );
    }
}

#[test]
fn a_second_download_of_the_same_file_is_refused() {
    let data = content(LENGTH, 7);
    let served = data.clone();
    let server = Server::start(move |request| Reply {
        speed: Some(200),
        ..good(request, &served)
    });
    let directory = tempfile::tempdir().unwrap();
    let (source, settings) = (source(&data), settings(&server.url()));
    thread::scope(|scope| {
        let first = scope.spawn(|| run(&source, directory.path(), &settings).0);
        while server.sent() == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        let (second, _) = run(&source, directory.path(), &settings);
        assert!(
            matches!(second, Err(DownloadError::Busy { .. })),
            "{second:?}"
        );
        assert_eq!(fs::read(first.join().unwrap().unwrap().path).unwrap(), data);
    });
}

/// Space that is reserved cannot be taken by others. Needs a small disk, which only root can make.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_meanwhile_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(directory.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("skipped: no small disk can be mounted here");
        return;
    }
    struct Mount<'a>(&'a Path);
    impl Drop for Mount<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(self.0).status();
        }
    }
    let _mount = Mount(directory.path());

    let data = content(LENGTH, 7);
    let (served, path) = (data.clone(), directory.path().to_owned());
    let server = Server::start(move |request| {
        if request.number == 3 {
            // Somebody else takes what is left.
            let _ = fs::write(path.join("other"), vec![1; 1 << 20]);
        }
        good(request, &served)
    });
    let settings = settings(&server.url());
    let (result, _) = run(&source(&data), directory.path(), &settings);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data);

    fs::remove_file(directory.path().join("tiny.gguf")).unwrap();
    fs::write(directory.path().join("other"), vec![1; 900 << 10]).unwrap();
    let asked = server.requests().len();
    let (result, _) = run(&source(&data), directory.path(), &settings);
    let error = result.unwrap_err();
    let DownloadError::DiskSpace {
        needed,
        free,
        missing,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*needed, needed - free), (LENGTH as u64, *missing));
    // Only the probe was sent.
    assert_eq!(
        (server.requests().len(), names(directory.path())),
        (asked + 1, vec!["other".to_owned()])
    );
}
