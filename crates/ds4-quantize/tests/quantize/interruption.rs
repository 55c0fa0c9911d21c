//! Conversions that are stopped, killed or run twice.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ds4_quantize::{
    Checkpoint, ConvertOptions, Plan, PlanOptions, Progress, QuantizeError, Recipe, Summary,
    convert, journal_path, part_path,
};

use crate::checkpoint::{quantize, run, whole};

const FOLDER: &str = "DS4_QUANTIZE_TEST_FOLDER";

/// `q8` where only the bytes count, `q2` where the conversion should take its time.
fn plan(folder: &Path, recipe: Recipe) -> Result<(Checkpoint, Plan)> {
    let checkpoint = Checkpoint::open(folder)?;
    let plan = Plan::main_model(&checkpoint, &PlanOptions::new(recipe), false)?;
    Ok((checkpoint, plan))
}

/// Converts until `tensors` of them are finished.
fn stop_after(folder: &Path, output: &Path, tensors: usize) -> Result<()> {
    let (checkpoint, plan) = plan(folder, Recipe::Q8)?;
    let cancel = AtomicBool::new(false);
    let mut names = std::collections::HashSet::new();
    let mut progress = |event: Progress<'_>| {
        if let Progress::Converting { name, .. } = event
            && names.insert(name.to_owned())
            && names.len() > tensors
        {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    let options = ConvertOptions::default();
    let result = convert(&checkpoint, &plan, output, &options, &cancel, &mut progress);
    ensure!(
        matches!(result, Err(QuantizeError::Cancelled)),
        "{result:?}"
    );
    ensure!(!output.exists() && part_path(output).exists());
    Ok(())
}

fn resume(folder: &Path, output: &Path) -> Result<Summary> {
    let (checkpoint, plan) = plan(folder, Recipe::Q8)?;
    run(&checkpoint, &plan, output)
}

#[test]
fn a_stopped_conversion_goes_on_and_trusts_no_bytes() -> Result<()> {
    let (root, folder) = whole()?;
    let expected = root.path().join("expected.gguf");
    quantize(&folder, Recipe::Q8, &expected)?;
    let expected = fs::read(expected)?;
    let total = plan(&folder, Recipe::Q8)?.1.tensors().len();
    let output = root.path().join("out.gguf");

    // Stopped twice, then finished.
    stop_after(&folder, &output, 40)?;
    stop_after(&folder, &output, 30)?;
    let summary = resume(&folder, &output)?;
    assert_eq!((summary.resumed, summary.converted), (70, total - 70));
    assert!(fs::read(&output)? == expected);
    assert!(!part_path(&output).exists() && !journal_path(&output).exists());

    // It is there now.
    assert!(matches!(
        resume(&folder, &output)
            .unwrap_err()
            .downcast::<QuantizeError>()?,
        QuantizeError::OutputExists { .. }
    ));
    fs::remove_file(&output)?;

    // A byte that did not reach the disk, a line that was cut off, and one that lies.
    stop_after(&folder, &output, 40)?;
    let (_, plan) = plan(&folder, Recipe::Q8)?;
    let mut part = fs::read(part_path(&output))?;
    part[plan.layout().tensors()[3].offset as usize] ^= 1;
    fs::write(part_path(&output), part)?;
    let mut journal = fs::read(journal_path(&output))?;
    journal.truncate(journal.len() - 3);
    fs::write(journal_path(&output), journal)?;
    let summary = resume(&folder, &output)?;
    assert_eq!(summary.resumed, 38);
    assert!(fs::read(&output)? == expected);
    fs::remove_file(&output)?;

    // Other weights under the same names: nothing of the old run counts.
    stop_after(&folder, &output, 40)?;
    let weights = folder.join("model.safetensors");
    let time = fs::metadata(&weights)?.modified()? + Duration::from_secs(1);
    fs::File::options()
        .write(true)
        .open(&weights)?
        .set_modified(time)?;
    assert_eq!(resume(&folder, &output)?.resumed, 0);
    assert!(fs::read(&output)? == expected);
    fs::remove_file(&output)?;

    // Garbage in place of the journal, and an unfinished file that is too long.
    fs::write(journal_path(&output), [0xff; 300])?;
    fs::write(part_path(&output), vec![7; expected.len() + 99])?;
    assert_eq!(resume(&folder, &output)?.resumed, 0);
    assert!(fs::read(&output)? == expected);
    Ok(())
}

#[test]
fn threads_do_not_change_the_bytes() -> Result<()> {
    let (root, folder) = whole()?;
    let (checkpoint, plan) = plan(&folder, Recipe::Q8)?;
    let mut files = Vec::new();
    for workers in [1, 3] {
        let output = root.path().join(format!("{workers}.gguf"));
        let options = ConvertOptions {
            workers: workers.try_into()?,
            overwrite: false,
        };
        let never = AtomicBool::new(false);
        convert(&checkpoint, &plan, &output, &options, &never, &mut |_| {})?;
        files.push(fs::read(output)?);
    }
    assert!(files[0] == files[1]);
    Ok(())
}

#[test]
fn two_conversions_to_one_file_do_not_meet() -> Result<()> {
    let (root, folder) = whole()?;
    let (checkpoint, plan) = plan(&folder, Recipe::Q8)?;
    let output = root.path().join("out.gguf");
    let mut second = None;
    let mut progress = |event: Progress<'_>| {
        if matches!(event, Progress::Converting { .. }) && second.is_none() {
            second = Some(run(&checkpoint, &plan, &output));
        }
    };
    let (options, never) = (ConvertOptions::default(), AtomicBool::new(false));
    convert(&checkpoint, &plan, &output, &options, &never, &mut progress)?;
    let error = second.context("a second run")?.unwrap_err();
    assert!(matches!(error.downcast()?, QuantizeError::Busy { .. }));
    Ok(())
}

/// The child of the next test: converts the checkpoint in the folder that the environment names.
#[test]
#[ignore = "a part of `a_killed_conversion_loses_one_tensor_at_most`, which runs it"]
fn child() -> Result<()> {
    let folder = std::env::var_os(FOLDER).context("the folder")?;
    let folder = Path::new(&folder);
    let (checkpoint, plan) = plan(folder, Recipe::Q2)?;
    run(&checkpoint, &plan, &folder.join("out.gguf"))?;
    Ok(())
}

#[test]
fn a_killed_conversion_loses_one_tensor_at_most() -> Result<()> {
    let (root, folder) = whole()?;
    let expected = root.path().join("expected.gguf");
    quantize(&folder, Recipe::Q2, &expected)?;
    let expected = fs::read(expected)?;
    let output = folder.join("out.gguf");
    let finished = || -> usize {
        let journal = fs::read(journal_path(&output)).unwrap_or_default();
        journal
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            .saturating_sub(1)
    };
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let (mut kills, mut before) = (0, 0);
    loop {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--ignored", "--exact", "interruption::child"])
            .env(FOLDER, &folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // After up to 31 tensors more, and then somewhere in the next one.
        let (more, delay) = (seed % 32, Duration::from_millis(seed >> 32 & 31));
        while child.try_wait()?.is_none() && finished() < before + more as usize {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(delay);
        if child.try_wait()?.is_none() {
            child.kill()?;
            kills += 1;
        }
        child.wait()?;
        if output.exists() {
            break;
        }
        let after = finished();
        ensure!(
            after >= before,
            "{after} tensors are finished, but {before} were"
        );
        before = after;
        ensure!(kills < 100, "no progress");
    }
    assert!(kills > 1, "{kills} kills");
    assert!(fs::read(&output)? == expected);
    println!("{kills} kills");
    Ok(())
}
