//! The backend built like a device: same bits as the reference, and no way around its rules.

#![expect(clippy::unwrap_used, reason = "functions that tests share")]

use ds4_cpu::reference::ReferenceBackend;
use ds4_model::backend::Pass;
use ds4_model::step::StepBucket;
use ds4_model::{Backend, BackendError, KvFormat};
use ds4_testkit::GoldenModel::{FlashTiny, KqTiny};
use ds4_testkit::device::{Counts, DeviceBackend, Mode};
use ds4_testkit::suite::{self, Tolerance};
use ds4_testkit::{GoldenModel, Run, Session, Trace};

fn replaying(kv_format: KvFormat, chunks: &[usize]) -> Run {
    Run {
        kv_format,
        chunks: chunks.to_vec(),
        observe: false,
    }
}

fn same_bits(model: GoldenModel, length: usize, run: &Run, mode: Mode) {
    let expected = Trace::record(ReferenceBackend, model, length, run).unwrap();
    let found = Trace::record(DeviceBackend::new(mode), model, length, run).unwrap();
    assert!(
        found.logits == expected.logits,
        "{model:?} {length}: other logits"
    );
    assert!(
        found.state == expected.state,
        "{model:?} {length}: other cache"
    );
    assert!(
        found.layers == expected.layers,
        "{model:?} {length}: other hidden states"
    );
}

#[test]
fn stages_run_at_once_give_the_goldens() {
    for (model, length) in [(FlashTiny, 5), (FlashTiny, 37), (KqTiny, 37)] {
        let device = DeviceBackend::new(Mode::Immediate);
        suite::sequence(device, model, length, &Run::default(), &Tolerance::F32).unwrap();
    }
    same_bits(FlashTiny, 37, &Run::default(), Mode::Immediate);
}

#[test]
fn replayed_steps_give_the_goldens() {
    let run = replaying(KvFormat::F32, &[100]);
    suite::sequence(
        DeviceBackend::new(Mode::Replay),
        FlashTiny,
        300,
        &run,
        &Tolerance::F32,
    )
    .unwrap();
    suite::sequence(
        DeviceBackend::new(Mode::Replay),
        KqTiny,
        37,
        &run,
        &Tolerance::F32,
    )
    .unwrap();
}

#[test]
fn replayed_steps_give_the_bits_of_the_reference() {
    for kv_format in KvFormat::ALL {
        // 9 and 13 rows replay what 16 rows recorded, with padding rows.
        same_bits(
            FlashTiny,
            37,
            &replaying(kv_format, &[16, 9, 13]),
            Mode::Replay,
        );
        same_bits(FlashTiny, 37, &replaying(kv_format, &[1]), Mode::Replay);
    }
    same_bits(
        KqTiny,
        37,
        &replaying(KvFormat::Fp8, &[5, 6, 1, 7]),
        Mode::Verify,
    );
    same_bits(
        FlashTiny,
        300,
        &replaying(KvFormat::F32, &[33, 64, 1, 57]),
        Mode::Verify,
    );
}

#[test]
fn decode_records_once() {
    let file = FlashTiny.open().unwrap();
    let tokens = FlashTiny.tokens(37).unwrap();
    let run = replaying(KvFormat::F32, &[1]);
    let mut session =
        Session::new(DeviceBackend::new(Mode::Replay), &file, None, &run, 37).unwrap();
    let buffers = session.executor.backend().buffers();
    session.step(&tokens[..1], false).unwrap();
    let first = session.executor.backend().counts();
    assert_eq!((first.recordings, first.replays), (1, 0));
    for token in &tokens[1..] {
        session.step(std::slice::from_ref(token), false).unwrap();
    }
    let all = session.executor.backend().counts();
    assert_eq!((all.recordings, all.replays), (1, 36));
    // Every step costs the same number of commands.
    assert_eq!(all.commands, 37 * first.commands);
    assert_eq!(session.executor.backend().buffers(), buffers);
}

#[test]
fn steps_with_and_without_outputs_are_recorded_apart() {
    let file = FlashTiny.open().unwrap();
    let tokens = FlashTiny.tokens(5).unwrap();
    let run = replaying(KvFormat::F32, &[5]);
    let mut session = Session::new(DeviceBackend::new(Mode::Verify), &file, None, &run, 5).unwrap();
    for (position, &token) in tokens.iter().enumerate() {
        let mut sequence =
            ds4_model::StepSequence::last_output(session.slot, position, vec![token]);
        if position % 2 == 0 {
            sequence.outputs = 0..0;
        }
        session
            .executor
            .run(&ds4_model::Step::single(sequence))
            .unwrap();
    }
    let Counts {
        recordings,
        replays,
        ..
    } = session.executor.backend().counts();
    assert_eq!((recordings, replays), (2, 3));
}

/// The MTP block reads the streams of the main pass: buffers must not change places between steps.
#[test]
fn mtp_replays() {
    for mode in [Mode::Replay, Mode::Verify] {
        let run = replaying(KvFormat::F32, &[1, 3, 1, 4, 7, 2]);
        suite::mtp(
            DeviceBackend::new(mode),
            FlashTiny,
            37,
            &run,
            &Tolerance::F32,
        )
        .unwrap();
    }
}

#[test]
fn sequences_share_replayed_steps() {
    let file = FlashTiny.open().unwrap();
    let all = FlashTiny.tokens(300).unwrap();
    let sequences = [
        all[..45].to_vec(),
        all[100..125].to_vec(),
        all[40..44].to_vec(),
    ];
    let make = || DeviceBackend::new(Mode::Verify);
    suite::batching(make, &file, &sequences, KvFormat::Fp8, 0.0).unwrap();
}

#[test]
fn saved_sequences_continue_on_the_device() {
    let file = FlashTiny.open().unwrap();
    let tokens = &FlashTiny.tokens(300).unwrap()[..45];
    let make = || DeviceBackend::new(Mode::Replay);
    suite::restoring(make, &file, tokens, 37, KvFormat::Fp8).unwrap();
    suite::rewinding(make, &file, tokens, 30, KvFormat::Fp8).unwrap();
    suite::forking(make, &file, tokens, 30, KvFormat::Fp8).unwrap();
}

const BUCKET: StepBucket = StepBucket {
    rows: 1,
    sequences: 1,
    outputs: 1,
};

fn message(result: Result<(), BackendError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn memory_is_out_of_reach_while_a_step_is_recorded() {
    let mut device = DeviceBackend::new(Mode::Replay);
    let mut buffer = device.allocate(8).unwrap();
    device.write(&mut buffer, 4, &[1, 2, 3, 4]).unwrap();
    let mut bytes = [9; 8];
    device.read(&buffer, 0, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 0, 0, 1, 2, 3, 4]);

    let read = device.run(Pass::Main, BUCKET, &mut |device| {
        device.read(&buffer, 0, &mut [0; 4])
    });
    assert!(message(read).contains("while a step is recorded"));
    let write = device.run(Pass::Main, BUCKET, &mut |device| {
        device.write(&mut buffer, 0, &[0; 4])
    });
    assert!(message(write).contains("while a step is recorded"));
    let allocate = device.run(Pass::Main, BUCKET, &mut |device| {
        device.allocate(4).map(drop)
    });
    assert!(message(allocate).contains("allocation inside a step"));

    assert!(device.read(&buffer, 6, &mut [0; 4]).is_err());
    let mut other = DeviceBackend::new(Mode::Replay);
    assert!(message(other.read(&buffer, 0, &mut [0; 4])).contains("another device"));
    // Nothing of the failed recordings stays.
    assert_eq!(device.counts(), Counts::default());
}

/// A stage that is small enough to be called by hand.
mod by_hand {
    use ds4_model::StageContext;
    use ds4_model::backend::StepBuffer;
    use ds4_model::step::StepLayout;
    use ds4_testkit::device::DeviceBuffer;
    use ds4_testkit::stages;

    use super::*;

    struct Buffers {
        step: StepBuffer<DeviceBuffer>,
        mix: DeviceBuffer,
        output: DeviceBuffer,
        streams: DeviceBuffer,
    }

    fn buffers(device: &mut DeviceBackend) -> Buffers {
        let layout = StepLayout {
            max_rows: 1,
            max_sequences: 1,
            max_outputs: 1,
            rope_pairs: 1,
        };
        let mut step = StepBuffer {
            words: device.allocate(4 * layout.words()).unwrap(),
            layout,
            bucket: BUCKET,
        };
        device
            .write(&mut step.words, 0, &1_u32.to_le_bytes())
            .unwrap();
        Buffers {
            step,
            mix: device.allocate(4 * 20).unwrap(),
            output: device.allocate(4 * 2).unwrap(),
            streams: device.allocate(4 * 4 * 2).unwrap(),
        }
    }

    fn call(device: &mut DeviceBackend, buffers: &mut Buffers) -> Result<(), BackendError> {
        let shape = stages::shape(2);
        let context = StageContext {
            shape: &shape,
            kv_format: KvFormat::F32,
        };
        let Buffers {
            step,
            mix,
            output,
            streams,
        } = buffers;
        device.hyper_post(context, step, mix, output, streams)
    }

    #[test]
    fn stages_are_refused_outside_a_step() {
        let mut device = DeviceBackend::new(Mode::Replay);
        let mut buffers = buffers(&mut device);
        assert!(message(call(&mut device, &mut buffers)).contains("outside a step"));
    }

    #[test]
    fn freed_memory_is_noticed_at_replay() {
        let mut device = DeviceBackend::new(Mode::Replay);
        let mut buffers = buffers(&mut device);
        device
            .run(Pass::Main, BUCKET, &mut |device| call(device, &mut buffers))
            .unwrap();
        let count = device.buffers();
        buffers.output = device.allocate(8).unwrap();
        assert_eq!(device.buffers(), count, "the old buffer is freed");
        let replayed = device.run(Pass::Main, BUCKET, &mut |_| Ok(()));
        assert!(message(replayed).contains("was freed"));
    }

    #[test]
    fn other_calls_than_recorded_are_noticed() {
        let mut device = DeviceBackend::new(Mode::Verify);
        let mut buffers = buffers(&mut device);
        device
            .run(Pass::Main, BUCKET, &mut |device| call(device, &mut buffers))
            .unwrap();
        device
            .run(Pass::Main, BUCKET, &mut |device| call(device, &mut buffers))
            .unwrap();
        std::mem::swap(&mut buffers.mix, &mut buffers.streams);
        let swapped = device.run(Pass::Main, BUCKET, &mut |device| call(device, &mut buffers));
        assert!(message(swapped).contains("is not call 0 of the recording"));
        let fewer = device.run(Pass::Main, BUCKET, &mut |_| Ok(()));
        assert!(message(fewer).contains("made 0 calls of 1"));
    }
}

#[test]
fn steering_is_replayed() {
    let file = FlashTiny.open().unwrap();
    let tokens = FlashTiny.tokens(37).unwrap()[..17].to_vec();
    let replaying = || DeviceBackend::new(Mode::Replay);
    suite::steering(replaying, &file, &tokens, false, 0.0).unwrap();
    let immediate = || DeviceBackend::new(Mode::Immediate);
    suite::steering(immediate, &file, &tokens, true, 1e-5).unwrap();
}
