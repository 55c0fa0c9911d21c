//! A clear message when a mapped model file is truncated under the running program.
//!
//! Reading a page of a mapping that the file no longer has raises SIGBUS, which would end the process
//! without a word. [`install_truncation_guard`] puts a handler in place that names the file and exits
//! with status 74 (`EX_IOERR`). A program calls it once at its start; the library never does.
//!
//! The handler may only do what is safe in a signal handler: it reads a fixed table of atomics and
//! calls `write`, `sigaction`, `raise` and `_exit`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// Exit status after a truncation, `EX_IOERR` of `sysexits.h`.
pub const EXIT_TRUNCATED: i32 = 74;

/// Mappings that can be named at a time; more are mapped all the same, without a name.
const SLOTS: usize = 256;
/// Longest part of a path that is kept, from its end.
const NAME_BYTES: usize = 240;

/// One registered mapping. It belongs to nobody while `state` is `FREE`.
struct Slot {
    state: AtomicU32,
    start: AtomicUsize,
    len: AtomicUsize,
    name_len: AtomicUsize,
    name: [AtomicU8; NAME_BYTES],
}

const FREE: u32 = 0;
const CLAIMED: u32 = 1;
const READY: u32 = 2;

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        state: AtomicU32::new(FREE),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        name_len: AtomicUsize::new(0),
        name: [const { AtomicU8::new(0) }; NAME_BYTES],
    }
}; SLOTS];

/// Keeps a mapping in the table until it is dropped.
pub(crate) struct Registration {
    slot: &'static Slot,
}

impl Registration {
    /// Enters a mapping; none when the table is full.
    pub(crate) fn new(path: &Path, start: usize, len: usize) -> Option<Self> {
        let slot = TABLE.iter().find(|slot| {
            slot.state
                .compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        })?;
        let name = path.as_os_str().as_bytes();
        let name = &name[name.len().saturating_sub(NAME_BYTES)..];
        for (to, &from) in slot.name.iter().zip(name) {
            to.store(from, Ordering::Relaxed);
        }
        slot.name_len.store(name.len(), Ordering::Relaxed);
        slot.start.store(start, Ordering::Relaxed);
        slot.len.store(len, Ordering::Relaxed);
        slot.state.store(READY, Ordering::Release);
        Some(Self { slot })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slot.state.store(FREE, Ordering::Release);
    }
}

/// The action that was in place before ours.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler for SIGBUS. A fault outside every mapped model file goes to the handler that
/// was there before. Further calls do nothing.
///
/// # Errors
/// What the system says when it refuses the handler.
#[expect(unsafe_code, reason = "signal handlers are set through libc")]
pub fn install_truncation_guard() -> std::io::Result<()> {
    // SAFETY: an all-zero sigaction is a valid value of the plain C struct.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the null action only asks; `previous` is valid for writing.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut previous) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // Stored before the handler can run.
    if PREVIOUS.set(previous).is_err() {
        return Ok(());
    }
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `action` has an empty mask and a handler of the signature that SA_SIGINFO asks for, which
    // only makes async-signal-safe calls.
    if unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "signal handlers talk to the system through libc"
)]
extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the system passes a valid siginfo.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // Codes up to 0 mean that a process sent the signal; there is no address then.
    let sent = code <= 0;
    if !sent {
        for slot in &TABLE {
            if slot.state.load(Ordering::Acquire) != READY {
                continue;
            }
            let offset = address.wrapping_sub(slot.start.load(Ordering::Relaxed));
            if offset < slot.len.load(Ordering::Relaxed) {
                report(slot, offset);
                // SAFETY: ends the process without running anything else.
                unsafe { libc::_exit(EXIT_TRUNCATED) };
            }
        }
    }
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: puts back the action that the system gave us. When this handler returns, a faulting
        // instruction faults again into it; a sent signal must be raised again.
        unsafe {
            libc::sigaction(signal, previous, std::ptr::null_mut());
            if sent {
                libc::raise(signal);
            }
        }
    }
}

/// Writes one line to standard error.
#[expect(
    unsafe_code,
    reason = "write(2) is the only output that a signal handler may use"
)]
fn report(slot: &Slot, offset: usize) {
    let mut line = Line {
        bytes: [0; 512],
        len: 0,
    };
    line.push(b"error: ");
    let name_len = slot.name_len.load(Ordering::Relaxed).min(NAME_BYTES);
    for byte in &slot.name[..name_len] {
        line.push(&[byte.load(Ordering::Relaxed)]);
    }
    line.push(b": the model file was truncated or cannot be read any more (at byte ");
    line.push_number(offset);
    line.push(b" of its mapping); check the file and start again\n");
    // SAFETY: the pointer and the length are those of an initialised buffer.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) };
}

/// A line of text without allocation; what does not fit is dropped.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
    }

    fn push_number(&mut self, number: usize) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }
}
