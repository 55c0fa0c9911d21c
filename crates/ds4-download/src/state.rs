//! What has arrived of an unfinished file.
//!
//! Beside the unfinished file lies a text file. Its first line is a JSON object that says which file this is;
//! each further line, `START END`, is a range of bytes that is on disk: the bytes are synced before the line is
//! written. A last line that is cut off does not count. The file is locked as long as a download runs.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{DownloadError, io};
use crate::part_file;
use crate::ranges::RangeSet;

const FORMAT: &str = "ds4-download 1";

/// A state file of a petabyte in small ranges would be shorter.
const LONGEST: u64 = 64 << 20;

/// Which file is being downloaded. Ranges of one are of no use for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Size in bytes.
    pub(crate) length: u64,
    /// SHA-256 in hexadecimal.
    pub(crate) sha256: String,
    /// Entity tag on the server.
    pub(crate) etag: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    #[serde(flatten)]
    identity: Identity,
}

/// The state of one unfinished file, locked against other processes.
#[derive(Debug)]
pub(crate) struct State {
    path: PathBuf,
    file: File,
    identity: Option<Identity>,
    finished: RangeSet,
}

impl State {
    /// Opens and locks the state at `path`; `target` is the file that is downloaded, for messages.
    pub(crate) fn open(path: &Path, target: &Path) -> Result<Self, DownloadError> {
        let mut file = loop {
            let file = part_file::open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(DownloadError::Busy {
                        path: target.to_owned(),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(io(path, "lock")(source)),
            }
            // Whoever held the lock may have removed the file meanwhile; then this is another one.
            if part_file::is_at(&file, path)? {
                break file;
            }
        };
        let (identity, finished, end) = read(&mut file, path)?;
        file.set_len(end).map_err(io(path, "shorten"))?;
        file.seek(SeekFrom::End(0)).map_err(io(path, "seek in"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            identity,
            finished,
        })
    }

    /// Which file the ranges belong to; `None` for a new state.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub(crate) fn finished(&self) -> &RangeSet {
        &self.finished
    }

    /// Begins anew: nothing has arrived.
    pub(crate) fn reset(&mut self, identity: Identity) -> Result<(), DownloadError> {
        self.identity = None;
        self.finished = RangeSet::default();
        self.file.set_len(0).map_err(io(&self.path, "shorten"))?;
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(io(&self.path, "seek in"))?;
        let head = Head {
            format: FORMAT.to_owned(),
            identity: identity.clone(),
        };
        let mut line =
            serde_json::to_string(&head).map_err(|error| io(&self.path, "write")(error.into()))?;
        line.push('\n');
        self.write(&line)?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Notes a range whose bytes are synced.
    pub(crate) fn append(&mut self, range: Range<u64>) -> Result<(), DownloadError> {
        self.write(&format!("{} {}\n", range.start, range.end))?;
        self.finished.insert(range);
        Ok(())
    }

    fn write(&mut self, line: &str) -> Result<(), DownloadError> {
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(io(&self.path, "write"))
    }

    /// Removes the file, and with it the lock.
    pub(crate) fn remove(self) -> Result<(), DownloadError> {
        match std::fs::remove_file(&self.path) {
            // Another process may have found the finished file and tidied up.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(io(&self.path, "remove")(error))
            }
            _ => Ok(()),
        }
    }
}

/// What the state at `path` says has arrived, without locking it.
pub(crate) fn peek(path: &Path) -> Option<(Identity, u64)> {
    let mut file = part_file::open_existing(path).ok()?;
    let (identity, finished, _) = read(&mut file, path).ok()?;
    Some((identity?, finished.total()))
}

/// Identity, ranges, and where the last whole line ends.
fn read(file: &mut File, path: &Path) -> Result<(Option<Identity>, RangeSet, u64), DownloadError> {
    let mut text = Vec::new();
    file.take(LONGEST)
        .read_to_end(&mut text)
        .map_err(io(path, "read"))?;
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let head = lines.next().filter(|line| line.ends_with(b"\n"));
    let Some((head, identity)) = head.and_then(|line| Some((line, parse_head(line)?))) else {
        return Ok((None, RangeSet::default(), 0));
    };
    let mut finished = RangeSet::default();
    let mut end = head.len();
    for line in lines {
        let Some(range) = parse_range(line).filter(|range| range.end <= identity.length) else {
            break;
        };
        finished.insert(range);
        end += line.len();
    }
    Ok((Some(identity), finished, end as u64))
}

fn parse_head(line: &[u8]) -> Option<Identity> {
    let head: Head = serde_json::from_slice(line).ok()?;
    (head.format == FORMAT).then_some(head.identity)
}

fn parse_range(line: &[u8]) -> Option<Range<u64>> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (start, end) = line.split_once(' ')?;
    let (start, end) = (start.parse().ok()?, end.parse().ok()?);
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn identity(length: u64) -> Identity {
        Identity {
            length,
            sha256: "ab".repeat(32),
            etag: Some("W/\"with spaces and\nlines\"".to_owned()),
        }
    }

    #[test]
    fn ranges_outlive_the_process_and_damage_ends_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.state");
        let mut state = State::open(&path, &path).unwrap();
        assert_eq!(state.identity(), None);
        state.reset(identity(100)).unwrap();
        state.append(0..10).unwrap();
        state.append(20..30).unwrap();
        drop(state);
        let whole = fs::read(&path).unwrap();

        let state = State::open(&path, &path).unwrap();
        assert_eq!(state.identity(), Some(&identity(100)));
        assert_eq!(
            (state.finished().total(), state.finished().prefix()),
            (20, 10)
        );
        drop(state);

        // Cut off anywhere, it claims no byte that it did not claim before.
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let mut state = State::open(&path, &path).unwrap();
            let total = state.finished().total();
            assert!([0, 10].contains(&total), "{length} bytes claim {total}");
            if state.identity().is_some() {
                // And it goes on where the damage began.
                state.append(50..60).unwrap();
                drop(state);
                assert_eq!(peek(&path), Some((identity(100), total + 10)));
            }
        }
        for damage in [
            "30 20\n",
            "90 101\n",
            "1 2 3\n",
            "\0\0\0\0\n",
            "-1 2\n",
            "x",
        ] {
            let text = [&whole[..], damage.as_bytes(), b"40 50\n"].concat();
            fs::write(&path, text).unwrap();
            assert_eq!(peek(&path), Some((identity(100), 20)), "{damage:?}");
        }
    }

    #[test]
    fn a_second_holder_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.state");
        let first = State::open(&path, &path).unwrap();
        assert!(matches!(
            State::open(&path, &path),
            Err(DownloadError::Busy { .. })
        ));
        first.remove().unwrap();
        State::open(&path, &path).unwrap();
    }
}
