//! Results must not depend on how rows are cut into steps, nor on where a sequence lies.

use anyhow::{Context, Result, ensure};
use ds4_gguf::GgufFile;
use ds4_model::{
    Backend, Executor, ExecutorOptions, KvCapacity, KvFormat, KvLayout, PAGE_TOKENS, Step,
    StepSequence, TokenId,
};

use crate::conformance;
use crate::trace::{Run, Session};

/// Largest difference of two runs; 0 demands the same bits.
pub(super) fn same(what: &str, found: &[f32], expected: &[f32], tolerance: f64) -> Result<()> {
    if tolerance == 0.0 {
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let equal = bits(found) == bits(expected);
        ensure!(
            equal || found.len() != expected.len(),
            "{what}: not the same bits: {}",
            conformance::difference(found, expected)?
        );
        ensure!(
            equal,
            "{what}: {} values, expected {}",
            found.len(),
            expected.len()
        );
        return Ok(());
    }
    let difference = conformance::difference(found, expected)?;
    ensure!(difference.max_abs <= tolerance, "{what}: {difference}");
    Ok(())
}

fn run_of(kv_format: KvFormat, chunks: &[usize]) -> Run {
    Run {
        kv_format,
        chunks: chunks.to_vec(),
        observe: false,
    }
}

/// `tokens` in one step and in steps of each of `cuts`: same logits and same cache.
///
/// # Errors
/// A difference of logits or cached values beyond `tolerance`.
pub fn chunking<B: Backend>(
    make: impl Fn() -> B,
    file: &GgufFile,
    tokens: &[TokenId],
    kv_format: KvFormat,
    cuts: &[&[usize]],
    tolerance: f64,
) -> Result<()> {
    let whole = run_of(kv_format, &[tokens.len()]);
    let mut session = Session::new(make(), file, None, &whole, tokens.len())?;
    let expected = session.feed(tokens, &whole)?;
    let expected_state = session.state()?;
    for chunks in cuts {
        let run = run_of(kv_format, chunks);
        let mut session = Session::new(make(), file, None, &run, tokens.len())?;
        let logits = session.feed(tokens, &run)?;
        same(
            &format!("steps of {chunks:?}"),
            &logits,
            &expected,
            tolerance,
        )?;
        let state = session.state()?;
        for (index, (found, expected)) in state.iter().zip(&expected_state).enumerate() {
            let what = |part: &str| format!("steps of {chunks:?}: layer {index}: {part}");
            same(&what("window"), &found.window, &expected.window, tolerance)?;
            for (found, expected) in [
                (&found.compressed, &expected.compressed),
                (&found.index, &expected.index),
            ] {
                if expected.content.is_empty() && expected.rows.is_empty() {
                    continue;
                }
                same(
                    &what("content"),
                    &found.content,
                    &expected.content,
                    tolerance,
                )?;
                same(&what("score"), &found.score, &expected.score, tolerance)?;
                if !expected.rows.is_empty() {
                    same(&what("rows"), &found.rows, &expected.rows, tolerance)?;
                }
            }
        }
    }
    Ok(())
}

/// Room for `slots` sequences of `context` tokens in steps of up to `rows` rows.
fn options(kv_format: KvFormat, slots: usize, context: usize, rows: usize) -> ExecutorOptions {
    ExecutorOptions {
        kv_format,
        capacity: KvCapacity {
            slots,
            context,
            pages: slots * KvLayout::pages_for(context) + 3,
        },
        max_rows: rows,
        max_outputs: rows,
        draft_rows: 0,
        mtp: false,
    }
}

/// Gives every slot pages of its own that do not follow each other.
fn assign_pages<B: Backend>(executor: &mut Executor<B>) -> Result<Vec<Vec<u32>>> {
    let (slots, table) = (
        executor.options().capacity.slots,
        executor.layout().table_pages(),
    );
    (0..slots)
        .map(|slot| {
            let pages: Vec<u32> = (0..table)
                .map(|page| ((table - 1 - page) * slots + slot) as u32 + 3)
                .collect();
            executor.set_pages(slot, 0, &pages)?;
            Ok(pages)
        })
        .collect()
}

fn all_logits<B: Backend>(executor: &mut Executor<B>, rows: usize) -> Result<Vec<f32>> {
    let width = executor.shape().vocabulary;
    let mut logits = vec![0.0; rows * width];
    for (output, row) in logits.chunks_exact_mut(width).enumerate() {
        executor.logits(output, row)?;
    }
    Ok(logits)
}

/// One sequence: `tokens` at `position`, logits for all.
fn rows_of(slot: usize, position: usize, tokens: &[TokenId]) -> StepSequence {
    StepSequence {
        slot,
        position,
        tokens: tokens.to_vec(),
        outputs: 0..tokens.len(),
    }
}

/// Sequences that share steps, prefill beside decode, give the logits that each has alone.
///
/// # Errors
/// A difference beyond `tolerance`.
pub fn batching<B: Backend>(
    make: impl Fn() -> B,
    file: &GgufFile,
    sequences: &[Vec<TokenId>],
    kv_format: KvFormat,
    tolerance: f64,
) -> Result<()> {
    let context = sequences
        .iter()
        .map(Vec::len)
        .max()
        .context("no sequence")?;
    let count = sequences.len();
    let mut together = Executor::new(
        make(),
        file,
        None,
        options(kv_format, count, context, 16 * count),
        &mut |_| (),
    )?;
    assign_pages(&mut together)?;
    let mut found = vec![Vec::new(); count];
    let mut positions = vec![0; count];
    for round in 0.. {
        // The sequences advance at different paces, and in another order each time.
        let mut step = Step::default();
        let mut owners = Vec::new();
        for turn in 0..count {
            let index = (turn + round) % count;
            let left = sequences[index].len() - positions[index];
            let rows = [1, 5, 16, 2, 11][(round + 3 * index) % 5].min(left);
            if rows > 0 {
                let start = positions[index];
                let tokens = &sequences[index][start..start + rows];
                step.sequences
                    .push(rows_of(count - 1 - index, start, tokens));
                owners.push((index, rows));
                positions[index] += rows;
            }
        }
        if owners.is_empty() {
            break;
        }
        together.run(&step)?;
        let logits = all_logits(&mut together, step.rows())?;
        let mut rest = logits.as_slice();
        for (index, rows) in owners {
            let (own, tail) = rest.split_at(rows * together.shape().vocabulary);
            found[index].extend_from_slice(own);
            rest = tail;
        }
    }
    for (index, tokens) in sequences.iter().enumerate() {
        let run = run_of(kv_format, &[tokens.len()]);
        let mut alone = Session::new(make(), file, None, &run, tokens.len())?;
        let expected = alone.feed(tokens, &run)?;
        same(
            &format!("sequence {index}"),
            &found[index],
            &expected,
            tolerance,
        )?;
    }
    Ok(())
}

/// A state saved after `prefix` tokens and put into another slot, with other pages and another ring
/// size, continues with the same bits; and it has the size that was announced.
///
/// # Errors
/// Any difference.
pub fn restoring<B: Backend>(
    make: impl Fn() -> B,
    file: &GgufFile,
    tokens: &[TokenId],
    prefix: usize,
    kv_format: KvFormat,
) -> Result<()> {
    let context = tokens.len();
    let mut first = Executor::new(
        make(),
        file,
        None,
        options(kv_format, 3, context, 31),
        &mut |_| (),
    )?;
    let pages = assign_pages(&mut first)?;
    let (before, after) = tokens.split_at(prefix);
    let mut position = 0;
    for chunk in before.chunks(31) {
        first.run(&Step::single(rows_of(2, position, chunk)))?;
        position += chunk.len();
    }
    let saved = first.save_sequence(2, prefix, &pages[2])?;
    let sizes: Vec<usize> = saved.layers.iter().map(Vec::len).collect();
    ensure!(
        sizes == first.sequence_bytes(prefix)?,
        "announced sizes differ from {sizes:?}"
    );

    // Slot 0 held something else before.
    let mut second = Executor::new(
        make(),
        file,
        None,
        options(kv_format, 2, context, 7),
        &mut |_| (),
    )?;
    let other_pages = assign_pages(&mut second)?;
    for (index, chunk) in tokens[..prefix / 2].chunks(7).enumerate() {
        let reversed: Vec<TokenId> = chunk.iter().rev().copied().collect();
        second.run(&Step::single(rows_of(0, 7 * index, &reversed)))?;
    }
    second.restore_sequence(0, prefix, &other_pages[0], &saved)?;
    ensure!(
        second.save_sequence(0, prefix, &other_pages[0])? == saved,
        "the restored state is another"
    );
    for (index, chunk) in after.chunks(7).enumerate() {
        let position = prefix + 7 * index;
        first.run(&Step::single(rows_of(2, position, chunk)))?;
        second.run(&Step::single(rows_of(0, position, chunk)))?;
        let expected = all_logits(&mut first, chunk.len())?;
        let found = all_logits(&mut second, chunk.len())?;
        same(&format!("position {position}"), &found, &expected, 0.0)?;
    }
    let mut short = saved.clone();
    short.layers[0].pop();
    ensure!(
        second
            .restore_sequence(0, prefix, &other_pages[0], &short)
            .is_err(),
        "a state that is too short was taken"
    );
    Ok(())
}

/// A sequence that went on and returns to a kept frontier continues as if it had never gone on.
///
/// # Errors
/// Any difference.
pub fn rewinding<B: Backend>(
    make: impl Fn() -> B,
    file: &GgufFile,
    tokens: &[TokenId],
    back_to: usize,
    kv_format: KvFormat,
) -> Result<()> {
    let context = tokens.len();
    let run = run_of(kv_format, &[13]);
    let mut straight = Session::new(make(), file, None, &run, context)?;
    let expected = straight.feed(tokens, &run)?;
    let mut session = Session::new(make(), file, None, &run, context)?;
    session.feed(&tokens[..back_to], &run)?;
    let slot = session.slot;
    let kept = session.executor.save_frontier(slot, back_to)?;
    let detour: Vec<TokenId> = tokens[back_to..].iter().rev().copied().collect();
    session.feed(&detour, &run)?;
    session.executor.restore_frontier(slot, back_to, &kept)?;
    session.position = back_to;
    let found = session.feed(&tokens[back_to..], &run)?;
    let width = session.executor.shape().vocabulary;
    same(
        "after the return",
        &found,
        &expected[back_to * width..],
        0.0,
    )
}

/// A sequence that branches off into another slot, with a copy of its last page and the other pages
/// shared, and the sequence itself both go on as if they were alone.
///
/// # Errors
/// Any difference.
pub fn forking<B: Backend>(
    make: impl Fn() -> B,
    file: &GgufFile,
    tokens: &[TokenId],
    prefix: usize,
    kv_format: KvFormat,
) -> Result<()> {
    let run = run_of(kv_format, &[13]);
    let (before, after) = tokens.split_at(prefix);
    let other: Vec<TokenId> = after.iter().rev().copied().collect();
    let mut expected = Vec::new();
    for after in [after, other.as_slice()] {
        let mut alone = Session::new(make(), file, None, &run, tokens.len())?;
        alone.feed(before, &run)?;
        expected.push(alone.feed(after, &run)?);
    }

    let mut executor = Executor::new(
        make(),
        file,
        None,
        options(kv_format, 2, tokens.len(), 13),
        &mut |_| (),
    )?;
    let mut pages = assign_pages(&mut executor)?;
    for (index, chunk) in before.chunks(13).enumerate() {
        executor.run(&Step::single(rows_of(0, 13 * index, chunk)))?;
    }
    let frontier: usize = executor
        .save_frontier(0, prefix)?
        .layers
        .iter()
        .map(Vec::len)
        .sum();
    let window = executor.shape().window;
    ensure!(
        frontier == executor.layout().frontier_bytes(window, prefix),
        "a frontier of {frontier} bytes was announced with another size"
    );
    let whole = prefix / PAGE_TOKENS;
    pages[1] = [&pages[0][..whole], &pages[1][whole..]].concat();
    executor.set_pages(1, 0, &pages[1])?;
    executor.copy_page(pages[0][whole], pages[1][whole])?;
    executor.copy_frontier(0, 1, prefix)?;
    let mut found = [Vec::new(), Vec::new()];
    for (index, (own, branch)) in after.chunks(7).zip(other.chunks(7)).enumerate() {
        let position = prefix + 7 * index;
        for (slot, part) in [own, branch].into_iter().enumerate() {
            executor.run(&Step::single(rows_of(slot, position, part)))?;
            found[slot].extend(all_logits(&mut executor, part.len())?);
        }
    }
    same("the sequence itself", &found[0], &expected[0], 0.0)?;
    same("its branch", &found[1], &expected[1], 0.0)?;
    ensure!(
        executor
            .copy_page(0, executor.options().capacity.pages as u32)
            .is_err()
            && executor.copy_page(1, 1).is_err()
            && executor.copy_frontier(0, 2, prefix).is_err(),
        "a copy outside the cache, or onto itself, was taken"
    );
    Ok(())
}
