//! Answers on disk, several in a file.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::RememberedAnswer;
use super::answer_file::{AnswerFile, AnswerFileError, MAX_FILE_BYTES};
use crate::disk::{
    ANSWERS, Bounds, Folder, FrameError, KeepError, Outcome, Sink, Verdict, WriteQueue, WriteStatus,
};

/// Most files.
const MAX_FILES: usize = 1024;
/// A file is rewritten with every new answer until it is about this long.
const FILE_BYTES: usize = 256 << 10;

/// Writes answers to a directory, on a thread of its own. Dropping it writes what waits.
#[derive(Debug)]
pub(crate) struct AnswerStore(WriteQueue<Writer>);

impl AnswerStore {
    /// Opens the answers beside the checkpoints in `directory`, at most `max_bytes` of them, and reads
    /// those of the model with this fingerprint, oldest first.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub(crate) fn open(
        directory: &Path,
        max_bytes: u64,
        fingerprint: [u8; 32],
    ) -> Result<(Self, Vec<Arc<RememberedAnswer>>), KeepError> {
        let path = directory.join(ANSWERS);
        let bounds = Bounds {
            files: MAX_FILES,
            bytes: max_bytes,
            file_bytes: MAX_FILE_BYTES,
        };
        let opened = || {
            let folder = Folder::open(&path, bounds)?;
            let mut answers = Vec::new();
            folder.read(|_, bytes| match AnswerFile::from_bytes(bytes) {
                Ok(file) => {
                    if file.fingerprint == fingerprint {
                        answers.extend(file.answers);
                    }
                    Verdict::Stays
                }
                Err(AnswerFileError::Frame(FrameError::Version { .. })) => Verdict::Stays,
                Err(_) => Verdict::Damaged,
            })?;
            let queue = WriteQueue::start(Writer {
                folder,
                name: None,
                file: AnswerFile {
                    fingerprint,
                    answers: Vec::new(),
                },
                bytes: 0,
            })?;
            Ok((Self(queue), answers))
        };
        opened().map_err(|source| KeepError::new(&path, source))
    }

    /// Has an answer written; never waits for the disk.
    pub(crate) fn keep(&self, answer: Arc<RememberedAnswer>) {
        if AnswerFile::takes(&answer) {
            self.0.keep(answer);
        } else {
            self.0.lose();
        }
    }

    /// Waits until everything is on disk; false if that takes longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        self.0.flush(patience)
    }

    /// How writing goes.
    pub(crate) fn status(&self) -> WriteStatus {
        self.0.status()
    }
}

/// The file that is being filled.
#[derive(Debug)]
struct Writer {
    folder: Folder,
    /// `None` before its first answer.
    name: Option<String>,
    file: AnswerFile,
    /// Of its answers.
    bytes: usize,
}

impl Sink for Writer {
    type Item = Arc<RememberedAnswer>;
    const THREAD: &'static str = "ds4-answers";

    fn bytes_of(answer: &Self::Item) -> usize {
        AnswerFile::bytes_of(answer)
    }

    fn write(&mut self, answers: VecDeque<Self::Item>) -> Outcome {
        let count = answers.len() as u64;
        match self.write_all(answers) {
            Ok(()) => Outcome {
                written: count,
                ..Outcome::default()
            },
            Err(error) => Outcome {
                lost: count,
                failure: Some(error),
                ..Outcome::default()
            },
        }
    }
}

impl Writer {
    fn write_all(&mut self, answers: VecDeque<Arc<RememberedAnswer>>) -> io::Result<()> {
        for answer in answers {
            let bytes = AnswerFile::bytes_of(&answer);
            if !self.file.answers.is_empty() && self.bytes + bytes > FILE_BYTES {
                self.write_file()?;
                self.begin_file();
            }
            self.file.answers.push(answer);
            self.bytes += bytes;
        }
        self.write_file()
    }

    fn write_file(&mut self) -> io::Result<()> {
        let bytes = self.file.to_bytes();
        let written = match &self.name {
            Some(name) => self.folder.write(name, &bytes),
            // The mark tells the files of several processes apart.
            None => self
                .folder
                .next_name(crate::random_bits())
                .and_then(|name| {
                    let written = self.folder.write(&name, &bytes);
                    self.name = Some(name);
                    written
                }),
        };
        if written.is_err() {
            // A disk that is full now may have room later, but not for everything since.
            self.begin_file();
        }
        written
    }

    fn begin_file(&mut self) {
        self.name = None;
        self.file.answers.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::{SampledAnswer, VisibleHash};
    use super::*;
    use crate::owner::Owner;

    const MODEL: [u8; 32] = [7; 32];
    const PATIENCE: Duration = Duration::from_secs(30);

    fn answer(n: u32, tokens: usize) -> Arc<RememberedAnswer> {
        let mut ids = vec![0; tokens];
        ids[0] = n;
        Arc::new(RememberedAnswer {
            owner: Owner::of_key("key"),
            place: VisibleHash::from_bytes([0; 16]),
            calls: vec![format!("call_{n}")],
            sampled: SampledAnswer { ids, reasoning: 0 },
        })
    }

    fn reopen(directory: &Path) -> Vec<Arc<RememberedAnswer>> {
        AnswerStore::open(directory, 64 << 20, MODEL).unwrap().1
    }

    /// Keeps answers one after the other, as requests end.
    fn keep_all(directory: &Path, max_bytes: u64, answers: &[Arc<RememberedAnswer>]) {
        let (store, _) = AnswerStore::open(directory, max_bytes, MODEL).unwrap();
        for answer in answers {
            store.keep(Arc::clone(answer));
            assert!(store.flush(PATIENCE));
        }
        assert_eq!(store.status().last_failure, None);
        assert_eq!(store.status().written, answers.len() as u64);
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory.join(ANSWERS)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn answers_are_there_after_a_restart_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let all: Vec<_> = (1..=40).map(|n| answer(n, 5000)).collect();
        keep_all(directory.path(), 64 << 20, &all[..30]);
        assert_eq!(reopen(directory.path()), all[..30]);
        keep_all(directory.path(), 64 << 20, &all[30..]);
        assert_eq!(reopen(directory.path()), all);
        assert!(files(directory.path()).len() < 8, "not a file for each");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&directory.path().join(ANSWERS)), 0o700);
            assert_eq!(mode(&files(directory.path())[0]), 0o600);
        }
    }

    #[test]
    fn dropping_the_store_writes_what_waits() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = AnswerStore::open(directory.path(), 1 << 20, MODEL).unwrap();
        for n in 1..=9 {
            store.keep(answer(n, 100));
        }
        drop(store);
        assert_eq!(reopen(directory.path()).len(), 9);
    }

    #[test]
    fn another_models_answers_are_not_read_but_stay() {
        let directory = tempfile::tempdir().unwrap();
        keep_all(directory.path(), 1 << 20, &[answer(1, 10)]);
        let (store, other) = AnswerStore::open(directory.path(), 1 << 20, [8; 32]).unwrap();
        assert!(other.is_empty());
        store.keep(answer(2, 10));
        drop(store);
        assert_eq!(reopen(directory.path()), [answer(1, 10)]);
    }

    #[test]
    fn the_oldest_files_go_when_there_are_too_many_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let limit = 1 << 20;
        let all: Vec<_> = (1..=12).map(|n| answer(n, 50_000)).collect();
        keep_all(directory.path(), limit, &all);
        let bytes: u64 = files(directory.path())
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert!(bytes <= limit, "{bytes}");
        let kept = reopen(directory.path());
        assert!(kept.len() >= 4, "{}", kept.len());
        assert_eq!(kept, all[all.len() - kept.len()..]);
    }

    #[test]
    fn the_number_of_files_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        keep_all(directory.path(), 1 << 20, &[answer(1, 10)]);
        let first = files(directory.path()).remove(0);
        for n in 1..MAX_FILES + 50 {
            let copy = format!("{n:016x}-{:016x}", 0);
            fs::copy(&first, first.with_file_name(copy)).unwrap();
        }
        keep_all(directory.path(), 64 << 20, &[answer(2, 10)]);
        assert_eq!(files(directory.path()).len(), MAX_FILES);
        assert_eq!(reopen(directory.path()).last(), Some(&answer(2, 10)));
    }

    /// Whatever lies in the directory, the rest is read and nothing fails.
    #[test]
    fn damage_is_moved_aside_and_strangers_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        keep_all(directory.path(), 64 << 20, &[answer(1, 10)]);
        let good = files(directory.path()).remove(0);
        let name = |n: u64| good.with_file_name(format!("{n:016x}-{n:016x}"));
        let bytes = fs::read(&good).unwrap();
        let mut turned = bytes.clone();
        turned[60] ^= 1;
        fs::write(name(2), &turned).unwrap();
        fs::write(name(3), &bytes[..bytes.len() - 1]).unwrap();
        fs::write(name(4), []).unwrap();
        fs::create_dir(name(5)).unwrap();
        let mut newer = bytes;
        newer[4] = 2;
        fs::write(name(6), &newer).unwrap();
        let foreign = good.with_file_name("notes.txt");
        fs::write(&foreign, "mine").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&foreign, name(7)).unwrap();

        assert_eq!(reopen(directory.path()), [answer(1, 10)]);
        for n in 2..=5 {
            assert!(!name(n).exists(), "{n}");
            assert!(name(n).with_extension("damaged").exists(), "{n}");
        }
        assert!(name(6).exists(), "a newer program's");
        assert_eq!(fs::read(&foreign).unwrap(), b"mine");
        assert_eq!(crate::disk::remove_kept(directory.path()).unwrap(), 7);
        assert_eq!(files(directory.path()), [foreign]);
    }

    /// A process that was killed while it wrote leaves the file before, and an unfinished one.
    #[test]
    fn a_crash_in_the_middle_of_writing_loses_nothing_older() {
        let directory = tempfile::tempdir().unwrap();
        keep_all(directory.path(), 1 << 20, &[answer(1, 10)]);
        let good = files(directory.path()).remove(0);
        let unfinished = good.with_extension("new");
        fs::write(&unfinished, b"DS4A half").unwrap();
        assert_eq!(reopen(directory.path()), [answer(1, 10)]);
        assert!(unfinished.exists(), "another process may be writing it");
        let old = std::time::SystemTime::now() - Duration::from_secs(7200);
        let file = fs::File::options().write(true).open(&unfinished).unwrap();
        file.set_modified(old).unwrap();
        assert_eq!(reopen(directory.path()), [answer(1, 10)]);
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_disk_that_fails_is_told_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = AnswerStore::open(directory.path(), 1 << 20, MODEL).unwrap();
        let folder = directory.path().join(ANSWERS);
        fs::remove_dir(&folder).unwrap();
        store.keep(answer(1, 10));
        assert!(store.flush(PATIENCE));
        assert_eq!((store.status().written, store.status().lost), (0, 1));
        assert!(store.status().last_failure.is_some());
        fs::create_dir(&folder).unwrap();
        store.keep(answer(2, 10));
        drop(store);
        assert_eq!(reopen(directory.path()), [answer(2, 10)]);
    }

    #[test]
    fn a_file_or_a_link_in_the_place_of_the_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(ANSWERS), "x").unwrap();
        assert!(AnswerStore::open(directory.path(), 1, MODEL).is_err());
    }
}
