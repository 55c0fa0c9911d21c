//! Several processes on one directory, and processes that are killed.
//!
//! The children are this test program again, running [`child`] only.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ds4_kvstore::{Limits, MaintenanceError, SaveError, Store};

use crate::conversation::*;

const DIRECTORY: &str = "DS4_KVSTORE_TEST_DIRECTORY";
const TASK: &str = "DS4_KVSTORE_TEST_TASK";
/// What a child prints before the number of a saved conversation.
const ACKNOWLEDGED: &str = "acknowledged ";

fn spawn(directory: &Path, task: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(TASK, task)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "run by the other tests in a process of its own"]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let task = std::env::var(TASK).unwrap();
    match task.split_once(' ') {
        Some(("save", first)) => save_until_killed(directory, first.parse().unwrap()),
        Some(("share", seed)) => share(directory, seed.parse().unwrap()),
        _ => panic!("unknown task {task}"),
    }
}

fn conversation(number: u32) -> Vec<u32> {
    // Longer than what it has in common with others.
    let common = 4 * (number as usize % 3);
    tokens(number, common, common + 1 + number as usize % 13)
}

#[expect(clippy::print_stdout, reason = "how a child tells its parent")]
fn save_until_killed(directory: &Path, first: u32) {
    let store = Store::open(directory, Limits::default()).unwrap();
    for number in first..first + 10_000 {
        save(&store, &conversation(number), number as u8).unwrap();
        if number % 5 == 4 {
            store.flush_statistics();
        }
        println!("{ACKNOWLEDGED}{number}");
    }
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kv");
    let mut acknowledged: Vec<u32> = Vec::new();
    for round in 0..25_u32 {
        let mut child = spawn(&directory, &format!("save {}", 10_000 * (round + 1)));
        let stdout = child.stdout.take().unwrap();
        let (sender, numbers) = mpsc::channel::<u32>();
        let reader = thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for line in lines {
                let number = line.strip_prefix(ACKNOWLEDGED).map(str::parse);
                if let Some(Ok(number)) = number
                    && sender.send(number).is_err()
                {
                    return;
                }
            }
        });
        // Killed by progress, not by the clock: this machine may be slow. Some die at the start.
        for _ in 0..round % 5 {
            let number = numbers.recv_timeout(Duration::from_secs(60));
            acknowledged.push(number.unwrap());
        }
        thread::sleep(Duration::from_micros(u64::from(round) * 997 % 7_000));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        acknowledged.extend(numbers.try_iter());

        let store = Store::open(&directory, Limits::default()).unwrap();
        for &number in &acknowledged {
            let found = version_of(&store, &conversation(number));
            assert_eq!(
                found,
                Some(number as u8),
                "round {round}, conversation {number}"
            );
        }
        assert_eq!(store.problems(), [], "round {round}");
        for folder in ["segments", "checkpoints", "."] {
            for entry in fs::read_dir(directory.join(folder)).unwrap() {
                let name = entry.unwrap().file_name();
                assert!(
                    !name.to_string_lossy().ends_with(".tmp"),
                    "{name:?} is left"
                );
            }
        }
    }
    let store = Store::open(&directory, Limits::default()).unwrap();
    assert_eq!(store.verify(&mut |_, _| CONTINUE).unwrap(), []);
    assert!(
        acknowledged.len() >= 50,
        "only {} saves",
        acknowledged.len()
    );
}

/// Room for about eight checkpoints.
const SHARED_LIMITS: Limits = Limits {
    max_bytes: 8_000,
    max_checkpoints: 100,
    max_quarantine_bytes: 1_000,
    max_quarantine_files: 4,
    load_threads: 1,
};

/// Saves, loads, removes and evicts; whatever is loaded is checked.
#[expect(clippy::print_stdout, reason = "how a child tells its parent")]
fn share(directory: &Path, seed: u32) {
    let store = Store::open(directory, SHARED_LIMITS).unwrap();
    let mut loaded = 0;
    for step in 0..60_u32 {
        let random = (seed + step * 7).wrapping_mul(2_654_435_761) >> 16;
        let tokens = conversation(random % 23);
        match random % 7 {
            0..3 => match save(&store, &tokens, 1) {
                // Others had what it counted on, or the room.
                Ok(_) | Err(SaveError::Busy | SaveError::SegmentGone { .. }) => {}
                Err(error) => panic!("{error}: {error:?}"),
            },
            3..6 => {
                store.refresh();
                loaded += u32::from(version_of(&store, &tokens).is_some());
            }
            _ => {
                store.refresh();
                match store.remove(&id_of(&store, &tokens)) {
                    Ok(_) | Err(MaintenanceError::Unknown(_) | MaintenanceError::Busy) => {}
                    Err(error) => panic!("{error}: {error:?}"),
                }
            }
        }
        // Files that vanish are no damage.
        assert_eq!(store.problems(), []);
    }
    println!("{ACKNOWLEDGED}{loaded}");
}

#[test]
fn processes_and_threads_share_a_directory() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kv");
    let children: Vec<Child> = (0..3)
        .map(|seed| spawn(&directory, &format!("share {}", 1000 * seed)))
        .collect();
    let threads: Vec<_> = (0..2)
        .map(|seed| {
            let directory = directory.clone();
            thread::spawn(move || share(&directory, 5000 + 1000 * seed))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
    }
    let store = Store::open(&directory, SHARED_LIMITS).unwrap();
    assert_eq!(store.verify(&mut |_, _| CONTINUE).unwrap(), []);
    // Each of the five may have been saving when the last one looked.
    let usage = store.usage();
    assert!(usage.bytes < 8_000 + 5 * 2_000, "{usage:?}");
    store.prune(0).unwrap();
    assert_eq!(store.usage().bytes, 0);
    assert_eq!(fs::read_dir(directory.join("segments")).unwrap().count(), 0);
    save(&store, &conversation(1), 1).unwrap();
}
