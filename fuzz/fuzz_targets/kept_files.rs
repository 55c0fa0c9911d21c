//! Any bytes as each file that the server keeps beside the checkpoints: sampled answers, stored
//! responses. An error that says why, or a file that is written as the same again; and never more
//! memory than a small multiple of its bytes.
//!
//! They are read as they are, and with their checksums made right: nothing would get past them
//! otherwise.

#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ds4_server::responses::{ResponseFile, ResponseFileError};
use ds4_server::{AnswerFile, AnswerFileError, FrameError};
use libfuzzer_sys::fuzz_target;

const HASH: usize = 32;
/// Bytes of memory for each byte of a file: messages of a few letters each, in a list that has grown.
const GROWTH: usize = 64;
/// What errors and the like may take.
const SMALL: usize = 4096;

/// The system's memory, counted.
struct Counted;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system's allocator's; counting takes no memory.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(taken, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static MEMORY: Counted = Counted;

fuzz_target!(|data: &[u8]| {
    check(data);
    if let Some(place) = data.len().checked_sub(HASH) {
        let hash = blake3::hash(&data[..place]);
        check(&[&data[..place], hash.as_bytes().as_slice()].concat());
    }
});

fn check(bytes: &[u8]) {
    match bounded(bytes, AnswerFile::from_bytes) {
        Ok(read) => assert_eq!(read.to_bytes(), bytes),
        Err(error) => {
            let error: AnswerFileError = error;
            assert!(!error.to_string().is_empty());
        }
    }
    match bounded(bytes, ResponseFile::from_bytes) {
        // JSON can be written in many ways, but only in one by us.
        Ok(read) => {
            let ours = read.to_bytes().unwrap();
            let again = ResponseFile::from_bytes(&ours).unwrap();
            assert_eq!(again.to_bytes().unwrap(), ours);
        }
        Err(ResponseFileError::Frame(FrameError::Checksum)) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What `read` makes of the bytes, in bounded memory.
fn bounded<T>(bytes: &[u8], read: impl FnOnce(&[u8]) -> T) -> T {
    let before = TAKEN.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = read(bytes);
    let taken = MOST.load(Ordering::Relaxed) - before;
    assert!(
        taken <= GROWTH * bytes.len() + SMALL,
        "{taken} bytes of memory for {} bytes",
        bytes.len()
    );
    result
}
