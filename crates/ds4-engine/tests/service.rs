//! The engine on its own thread, as faces see it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ds4_engine::{
    Closed, Engine, EngineHandle, EngineOptions, FinishReason, GenerationEvent, GenerationRequest,
    GenerationSink, InferenceService, ReasoningBudget, RequestId, SamplerSettings, ServiceOptions,
    Shutdown, SubmitError,
};
use ds4_gguf::GgufFile;
use ds4_model::TokenId;

struct ChannelSink(Sender<GenerationEvent>);

impl GenerationSink for ChannelSink {
    fn send(&mut self, event: GenerationEvent) -> Result<(), Closed> {
        self.0.send(event).map_err(|_| Closed)
    }

    fn is_closed(&self) -> bool {
        false
    }
}

fn start(options: ServiceOptions) -> EngineHandle {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4-testkit/data/flash-tiny-native.gguf");
    let file = GgufFile::open(&path).unwrap();
    let engine = EngineOptions {
        threads: Some(1),
        context: 512,
        sessions: 2,
        prefill_chunk: 32,
        ..EngineOptions::default()
    };
    let engine = Engine::open(&file, None, &engine, &mut |_| ()).unwrap();
    EngineHandle::start(engine, options).unwrap()
}

fn prompt(count: u32, seed: u32) -> Vec<TokenId> {
    (0..count).map(|i| (i * i * 7 + seed * 101) % 512).collect()
}

fn submit(
    handle: &EngineHandle,
    request: GenerationRequest,
) -> Result<(RequestId, Receiver<GenerationEvent>), SubmitError> {
    let (sender, receiver) = channel();
    let id = handle.submit(request, Box::new(ChannelSink(sender)))?;
    Ok((id, receiver))
}

/// All events of a request; the engine drops the sink after the last.
fn events(receiver: &Receiver<GenerationEvent>) -> Vec<GenerationEvent> {
    let mut events = Vec::new();
    while let Ok(event) = receiver.recv_timeout(Duration::from_secs(60)) {
        events.push(event);
    }
    events
}

fn reason(events: &[GenerationEvent]) -> FinishReason {
    match events.last() {
        Some(GenerationEvent::Finished { reason, .. }) => *reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_of_several_threads_are_answered() {
    let handle = start(ServiceOptions::default());
    let answers: Vec<Vec<TokenId>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|index| {
                let handle = &handle;
                scope.spawn(move || {
                    let sampling = SamplerSettings {
                        temperature: 0.0,
                        ..SamplerSettings::default()
                    };
                    // Each prompt twice.
                    let request = GenerationRequest {
                        sampling,
                        ..GenerationRequest::new(prompt(70, index % 3), 12)
                    };
                    let (_, receiver) = submit(handle, request).unwrap();
                    let events = events(&receiver);
                    assert_eq!(reason(&events), FinishReason::Length);
                    let tokens = events.iter().filter_map(|event| match event {
                        GenerationEvent::Token { id, .. } => Some(*id),
                        _ => None,
                    });
                    tokens.collect()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for index in 0..3 {
        assert_eq!(answers[index].len(), 12);
        assert_eq!(answers[index], answers[index + 3]);
    }
    handle.shutdown(Shutdown::Finish);
    let status = handle.status();
    assert_eq!((status.totals.requests, status.totals.finished), (6, 6));
    assert_eq!(status.totals.generated_tokens, 6 * 12);
    assert_eq!(status.running, []);
    let error = submit(&handle, GenerationRequest::new(vec![1], 1)).unwrap_err();
    assert!(matches!(error, SubmitError::Stopped(_)), "{error}");
}

#[test]
fn a_full_queue_refuses_and_a_cancelled_request_ends() {
    let handle = start(ServiceOptions {
        queue: 1,
        ..ServiceOptions::default()
    });
    let long = || GenerationRequest::new(prompt(30, 1), 450);
    let mut taken = Vec::new();
    let mut refused = None;
    for _ in 0..200 {
        match submit(&handle, long()) {
            Ok(request) => taken.push(request),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(
        matches!(refused, Some(SubmitError::QueueFull { queued: 1, .. })),
        "{refused:?}"
    );
    assert_eq!(handle.status().totals.refused, 1);
    for (id, _) in &taken {
        handle.cancel(*id);
    }
    for (_, receiver) in &taken {
        assert_eq!(reason(&events(receiver)), FinishReason::Cancelled);
    }
    // The last event comes a moment before its place in the queue is free.
    let next = (0..1000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(1));
        submit(&handle, GenerationRequest::new(prompt(5, 1), 1)).ok()
    });
    assert_eq!(reason(&events(&next.unwrap().1)), FinishReason::Length);
}

#[test]
fn a_dropped_receiver_cancels() {
    let handle = start(ServiceOptions::default());
    let (_, receiver) = submit(&handle, GenerationRequest::new(prompt(30, 1), 450)).unwrap();
    while !matches!(receiver.recv().unwrap(), GenerationEvent::Token { .. }) {}
    drop(receiver);
    handle.shutdown(Shutdown::Finish);
    let totals = handle.status().totals;
    assert_eq!(totals.cancelled, 1);
    assert!(totals.generated_tokens < 450);
}

#[test]
fn shutting_down_cancels_what_runs_and_what_waits() {
    let handle = start(ServiceOptions::default());
    let taken: Vec<_> = (0..5)
        .map(|seed| submit(&handle, GenerationRequest::new(prompt(30, seed), 450)).unwrap())
        .collect();
    handle.shutdown(Shutdown::Cancel);
    for (_, receiver) in &taken {
        assert_eq!(reason(&events(receiver)), FinishReason::Cancelled);
    }
}

#[test]
fn impossible_requests_are_refused_at_once() {
    let handle = start(ServiceOptions::default());
    let model = handle.model();
    assert_eq!(
        (model.context, model.vocabulary, model.backend),
        (512, 512, "cpu")
    );
    let refuse = |request| submit(&handle, request).map(|_| ()).unwrap_err();
    let ok = || GenerationRequest::new(prompt(5, 1), 1);
    assert_eq!(
        refuse(GenerationRequest::new(Vec::new(), 1)),
        SubmitError::EmptyPrompt
    );
    assert_eq!(
        refuse(GenerationRequest::new(vec![1; 512], 1)),
        SubmitError::TooLong {
            tokens: 512,
            context: 512
        }
    );
    assert!(submit(&handle, GenerationRequest::new(vec![1; 512], 0)).is_ok());
    let unknown = SubmitError::UnknownToken {
        token: 512,
        vocabulary: 512,
    };
    assert_eq!(refuse(GenerationRequest::new(vec![1, 512], 1)), unknown);
    let request = GenerationRequest {
        stop_tokens: vec![512],
        ..ok()
    };
    assert_eq!(refuse(request), unknown);
    let request = GenerationRequest {
        logprobs: Some(1 << 20),
        ..ok()
    };
    assert!(matches!(refuse(request), SubmitError::Setting { .. }));
    let request = GenerationRequest {
        reasoning: Some(ReasoningBudget {
            tokens: 4,
            end: 3,
            closing: vec![1, 2],
        }),
        ..ok()
    };
    assert!(matches!(refuse(request), SubmitError::Setting { .. }));
    let sampling = SamplerSettings {
        temperature: -1.0,
        ..SamplerSettings::default()
    };
    assert!(matches!(
        refuse(GenerationRequest { sampling, ..ok() }),
        SubmitError::Sampler(_)
    ));
}
