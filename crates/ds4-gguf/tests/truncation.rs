//! A file truncated under the running program: the process says so and exits with a status.
//!
//! Has its own `main`, since it runs itself as a child that is meant to die.

#![expect(
    clippy::print_stdout,
    reason = "a test program of its own talks to its runner"
)]

use std::process::{Command, ExitCode};

#[cfg(unix)]
fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    match argument.as_str() {
        "--child" => child(),
        // Test runners ask for the names of the tests first.
        "--list" => println!("truncation: test"),
        _ => parent(),
    }
    ExitCode::SUCCESS
}

#[cfg(not(unix))]
fn main() {}

/// Opens a file of several pages, lets it be truncated, and reads on.
#[cfg(unix)]
fn child() {
    use ds4_gguf::{GgufFile, GgufWriter, Metadata, TensorSpec, guard};
    use ds4_quant::TensorType;

    let path = std::env::args().nth(2).expect("a path");
    let path = std::path::Path::new(&path);
    let how = std::env::args().nth(3).expect("a way");
    let spec = TensorSpec {
        name: "x".to_owned(),
        dims: vec![1 << 18],
        ty: TensorType::F32,
    };
    let mut writer = GgufWriter::create(path, &Metadata::new(), &[spec]).expect("created");
    writer
        .write_tensor("x", &vec![1; 1 << 20])
        .expect("written");
    writer.finish().expect("finished");

    if how != "unguarded" {
        guard::install_truncation_guard().expect("installed");
        guard::install_truncation_guard().expect("harmless twice");
    }
    let file = GgufFile::open(path).expect("opened");
    let data = file.bytes(&file.tensors()[0]);
    if how == "raised" {
        // A signal that no mapping caused goes to the handler before ours. That one is the standard
        // library's, which lets the first pass and restores the default; the next one must end us.
        let id = std::process::id().to_string();
        for _ in 0..2 {
            Command::new("kill")
                .args(["-BUS", &id])
                .status()
                .expect("kill runs");
        }
        std::thread::sleep(std::time::Duration::from_secs(5));
        return;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("opened")
        .set_len(4096)
        .expect("cut");
    assert!(file.check_unchanged().is_err());
    // Not reached: the sum touches a page that is gone.
    println!(
        "sum {}",
        data.iter().map(|&byte| u64::from(byte)).sum::<u64>()
    );
}

#[cfg(unix)]
fn parent() {
    use std::os::unix::process::ExitStatusExt;

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut.gguf");
    let run = |how: &str| {
        let program = std::env::current_exe().expect("own path");
        let output = Command::new(program)
            .arg("--child")
            .arg(&path)
            .arg(how)
            .output();
        let output = output.expect("the child runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status, text)
    };

    let (status, text) = run("guarded");
    assert_eq!(
        status.code(),
        Some(ds4_gguf::guard::EXIT_TRUNCATED),
        "{status}: {text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("cut.gguf: the model file was truncated"),
        "{text}"
    );
    assert!(text.contains("at byte 4096"), "{text}");

    let sigbus = 7;
    let sigbus = if cfg!(target_os = "linux") {
        sigbus
    } else {
        10
    };
    for how in ["raised", "unguarded"] {
        let (status, text) = run(how);
        assert_eq!(status.signal(), Some(sigbus), "{how}: {status}: {text}");
    }
}
