//! Stored responses on disk, a file for each.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::kept::{KeptResponse, MAX_RESPONSES};
use super::response_file::{MAX_FILE_BYTES, ResponseFile, ResponseFileError};
use crate::disk::{
    Bounds, Folder, FrameError, KeepError, Outcome, RESPONSES, Sink, Verdict, WriteQueue,
    WriteStatus,
};

/// Writes responses to a directory, on a thread of its own. Dropping it writes what waits.
#[derive(Debug)]
pub(crate) struct ResponseStore {
    folder: Folder,
    queue: WriteQueue<Writer>,
}

impl ResponseStore {
    /// Opens the responses beside the checkpoints in `directory`, at most `max_bytes` of them, and
    /// gives those that are there, oldest first.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub(super) fn open(
        directory: &Path,
        max_bytes: u64,
        mut found: impl FnMut(Arc<KeptResponse>),
    ) -> Result<Self, KeepError> {
        let path = directory.join(RESPONSES);
        let bounds = Bounds {
            files: MAX_RESPONSES,
            bytes: max_bytes,
            file_bytes: MAX_FILE_BYTES,
        };
        let mut opened = || {
            let folder = Folder::open(&path, bounds)?;
            folder.read(|mark, bytes| match ResponseFile::from_bytes(bytes) {
                // Another's name: it would stay when its response is deleted.
                Ok(ResponseFile(kept)) if mark_of(&kept.id) != mark => Verdict::Damaged,
                Ok(ResponseFile(kept)) => {
                    found(kept);
                    Verdict::Stays
                }
                Err(ResponseFileError::Frame(FrameError::Version { .. })) => Verdict::Stays,
                Err(_) => Verdict::Damaged,
            })?;
            let writer = Writer {
                folder: folder.clone(),
            };
            let queue = WriteQueue::start(writer)?;
            Ok(Self { folder, queue })
        };
        opened().map_err(|source| KeepError::new(&path, source))
    }

    /// Has a response written; never waits for the disk.
    pub(super) fn keep(&self, response: Arc<KeptResponse>) {
        self.queue.keep(response);
    }

    /// Removes the file of a response, for good, and what waits to become one. Waits for the disk.
    ///
    /// # Errors
    /// The file is still there.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        self.queue.withdraw(|waiting| waiting.id == id);
        self.folder.remove_marked(mark_of(id)).map(|_| ())
    }

    /// Waits until everything is on disk; false if that takes longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        self.queue.flush(patience)
    }

    /// How writing goes.
    pub(super) fn status(&self) -> WriteStatus {
        self.queue.status()
    }
}

/// What is in the name of a response's file.
fn mark_of(id: &str) -> u64 {
    let hash = blake3::hash(id.as_bytes());
    hash.as_bytes()
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[derive(Debug)]
struct Writer {
    folder: Folder,
}

impl Sink for Writer {
    type Item = Arc<KeptResponse>;
    const THREAD: &'static str = "ds4-responses";

    fn bytes_of(response: &Self::Item) -> usize {
        response.bytes()
    }

    fn write(&mut self, responses: VecDeque<Self::Item>) -> Outcome {
        let mut outcome = Outcome::default();
        for response in responses {
            match self.write_one(response) {
                Ok(()) => outcome.written += 1,
                Err(error) => {
                    outcome.lost += 1;
                    outcome.failure = Some(error);
                }
            }
        }
        outcome
    }
}

impl Writer {
    fn write_one(&self, response: Arc<KeptResponse>) -> io::Result<()> {
        let mark = mark_of(&response.id);
        let bytes = ResponseFile(response).to_bytes();
        let bytes = bytes.filter(|bytes| bytes.len() <= self.folder.max_file_bytes());
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let name = self.folder.next_name(mark)?;
        self.folder.write(&name, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::response_file::tests::response;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn open(directory: &Path, max_bytes: u64) -> (ResponseStore, Vec<String>) {
        let mut ids = Vec::new();
        let store =
            ResponseStore::open(directory, max_bytes, |kept| ids.push(kept.id.clone())).unwrap();
        (store, ids)
    }

    fn ids(directory: &Path) -> Vec<String> {
        open(directory, 1 << 20).1
    }

    fn keep_all(directory: &Path, max_bytes: u64, count: usize) {
        let (store, _) = open(directory, max_bytes);
        for n in 1..=count {
            store.keep(response(&format!("resp_{n}"), "text"));
        }
        assert!(store.flush(PATIENCE));
        assert_eq!(store.status().last_failure, None);
        assert_eq!(store.status().written, count as u64);
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory.join(RESPONSES)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn responses_are_there_after_a_restart_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        keep_all(directory.path(), 1 << 20, 12);
        let expected: Vec<String> = (1..=12).map(|n| format!("resp_{n}")).collect();
        assert_eq!(ids(directory.path()), expected);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&directory.path().join(RESPONSES)), 0o700);
            assert_eq!(mode(&files(directory.path())[0]), 0o600);
        }
    }

    #[test]
    fn a_removed_response_is_gone_for_good() {
        let directory = tempfile::tempdir().unwrap();
        keep_all(directory.path(), 1 << 20, 3);
        let (store, _) = open(directory.path(), 1 << 20);
        store.remove("resp_2").unwrap();
        assert_eq!(files(directory.path()).len(), 2);
        // At once after it was made, too, whether it is written by then or not.
        for n in 4..40 {
            let id = format!("resp_{n}");
            store.keep(response(&id, "text"));
            store.remove(&id).unwrap();
        }
        store.remove("resp_unknown").unwrap();
        drop(store);
        assert_eq!(ids(directory.path()), ["resp_1", "resp_3"]);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_many_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let limit = 3000;
        keep_all(directory.path(), limit, 20);
        let all = files(directory.path());
        let bytes: u64 = all.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(bytes <= limit, "{bytes}");
        let kept = ids(directory.path());
        assert!(kept.len() > 2, "{kept:?}");
        let newest: Vec<String> = (21 - kept.len()..=20)
            .map(|n| format!("resp_{n}"))
            .collect();
        assert_eq!(kept, newest);

        let first = fs::read(&all[0]).unwrap();
        for n in 0..MAX_RESPONSES + 50 {
            fs::write(all[0].with_file_name(format!("{n:016x}-{n:016x}")), &first).unwrap();
        }
        keep_all(directory.path(), 64 << 20, 1);
        assert_eq!(files(directory.path()).len(), MAX_RESPONSES);
        assert_eq!(ids(directory.path()).last().unwrap(), "resp_1");
    }

    #[test]
    fn a_response_that_is_too_long_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open(directory.path(), 2000);
        store.keep(response("resp_1", &"x".repeat(2000)));
        store.keep(response("resp_2", "x"));
        assert!(store.flush(PATIENCE));
        let status = store.status();
        assert_eq!((status.written, status.lost), (1, 1));
        assert!(status.last_failure.is_some());
        assert_eq!(ids(directory.path()), ["resp_2"]);
    }

    /// Whatever lies in the directory, the rest is read and nothing fails.
    #[test]
    fn damage_is_moved_aside_and_strangers_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        keep_all(directory.path(), 1 << 20, 1);
        let good = files(directory.path()).remove(0);
        let mark = mark_of("resp_1");
        let name = |n: u64| good.with_file_name(format!("{n:016x}-{mark:016x}"));
        let bytes = fs::read(&good).unwrap();
        let mut turned = bytes.clone();
        turned[60] ^= 1;
        fs::write(name(2), &turned).unwrap();
        fs::write(name(3), &bytes[..bytes.len() - 1]).unwrap();
        fs::write(name(4), []).unwrap();
        fs::create_dir(name(5)).unwrap();
        // Under another response's name.
        let other = good.with_file_name(format!("{:016x}-{:016x}", 6, mark + 1));
        fs::write(&other, &bytes).unwrap();
        let mut newer = bytes;
        newer[4] = 2;
        fs::write(name(7), &newer).unwrap();
        let foreign = good.with_file_name("notes.txt");
        fs::write(&foreign, "mine").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&foreign, name(8)).unwrap();

        let (store, found) = open(directory.path(), 1 << 20);
        assert_eq!(found, ["resp_1"]);
        for n in 2..=5 {
            assert!(!name(n).exists(), "{n}");
            assert!(name(n).with_extension("damaged").exists(), "{n}");
        }
        assert!(!other.exists());
        assert!(name(7).exists(), "a newer program's");
        assert_eq!(fs::read(&foreign).unwrap(), b"mine");
        // What was moved aside goes with it.
        store.remove("resp_1").unwrap();
        assert_eq!(files(directory.path()).len(), 2);
        assert_eq!(crate::disk::remove_kept(directory.path()).unwrap(), 1);
        assert_eq!(files(directory.path()), [foreign]);
    }

    #[test]
    fn what_cannot_be_removed_is_told() {
        let directory = tempfile::tempdir().unwrap();
        keep_all(directory.path(), 1 << 20, 1);
        let (store, _) = open(directory.path(), 1 << 20);
        let file = files(directory.path()).remove(0);
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        fs::write(file.join("x"), "in the way").unwrap();
        assert!(store.remove("resp_1").is_err());
    }
}
