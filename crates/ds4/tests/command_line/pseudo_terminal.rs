//! The program on a terminal, with somebody who types and waits for what appears.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long to wait before a test fails; machines that build something else at a time are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// What has appeared so far.
#[derive(Default)]
struct Screen {
    text: Mutex<Vec<u8>>,
    changed: Condvar,
}

/// A program whose three streams are one terminal.
pub(crate) struct PseudoTerminal {
    child: Child,
    keyboard: File,
    screen: Arc<Screen>,
    reader: Option<JoinHandle<()>>,
    /// Where the next [`expect`](Self::expect) starts to look.
    seen: usize,
}

#[expect(
    unsafe_code,
    reason = "a terminal is opened and made the controlling one through libc"
)]
fn open() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let mut size = libc::winsize {
        ws_row: 40,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: both descriptors and the size are valid for the call; null asks for no name and the
    // default settings.
    let status = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut size,
        )
    };
    assert_eq!(status, 0);
    // SAFETY: openpty gave two open descriptors that nobody else owns.
    unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

impl PseudoTerminal {
    #[expect(
        unsafe_code,
        reason = "the terminal becomes the controlling one between fork and exec"
    )]
    pub(crate) fn start(mut command: Command) -> Self {
        let (master, slave) = open();
        let stream = || Stdio::from(slave.try_clone().unwrap());
        command.env("TERM", "xterm-256color");
        command.stdin(stream()).stdout(stream()).stderr(stream());
        // SAFETY: between fork and exec only two system calls are made.
        unsafe {
            command.pre_exec(|| {
                // A session of its own, whose terminal is standard input: so Ctrl-C becomes a
                // signal.
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // The command holds copies of the slave end; with them open, reading would never end.
        drop((command, slave));
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().unwrap();
        let screen = Arc::new(Screen::default());
        let shared = Arc::clone(&screen);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the other side is an error on Linux.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shared
                    .text
                    .lock()
                    .unwrap()
                    .extend_from_slice(&bytes[..count]);
                shared.changed.notify_all();
            }
        });
        Self {
            child,
            keyboard,
            screen,
            reader: Some(reader),
            seen: 0,
        }
    }

    pub(crate) fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// A line and the return key.
    pub(crate) fn line(&mut self, line: &str) {
        self.keys(line);
        self.keys("\r");
    }

    /// Waits until `text` appears behind what was waited for before.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let start = Instant::now();
        let mut shown = self.screen.text.lock().unwrap();
        loop {
            let new = &shown[self.seen..];
            if let Some(at) = find(new, text.as_bytes()) {
                self.seen += at + text.len();
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "`{text}` did not appear in {:?}",
                String::from_utf8_lossy(new)
            );
            let wait = Duration::from_millis(100);
            shown = self.screen.changed.wait_timeout(shown, wait).unwrap().0;
        }
    }

    /// Waits for the end; gives the exit code and everything that appeared.
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                self.child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.reader.take().unwrap().join().unwrap();
        let text = self.screen.text.lock().unwrap();
        (status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for PseudoTerminal {
    /// A test that failed before its end must not leave the program running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}
