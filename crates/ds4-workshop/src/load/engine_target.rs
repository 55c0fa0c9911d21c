//! An engine in this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ds4_engine::{
    Engine, EngineHandle, GenerationRequest, SamplerSettings, ServiceOptions, Shutdown,
};

use super::target::{Arrival, Target, Used, What};
use crate::error::WorkshopError;
use crate::probe::{Outcome, Probe};
use crate::random::Random;

pub(super) struct EngineTarget<'a> {
    handle: EngineHandle,
    probe: Probe,
    random: &'a mut Random,
    vocabulary: usize,
    /// Tokens so far, by number.
    used: HashMap<usize, Used>,
}

impl<'a> EngineTarget<'a> {
    pub(super) fn start(
        engine: Engine,
        service: ServiceOptions,
        random: &'a mut Random,
    ) -> Result<Self, WorkshopError> {
        Ok(Self {
            vocabulary: engine.shape().vocabulary,
            handle: EngineHandle::start(engine, service)?,
            probe: Probe::new(),
            random,
            used: HashMap::new(),
        })
    }

    pub(super) fn stop(self) -> Result<Engine, WorkshopError> {
        let engine = self.handle.stop(Shutdown::Cancel);
        engine.ok_or(WorkshopError::Stopped)
    }
}

impl Target for EngineTarget<'_> {
    fn submit(
        &mut self,
        number: usize,
        prompt: usize,
        max_tokens: usize,
    ) -> Result<Arc<AtomicBool>, WorkshopError> {
        let sampling = SamplerSettings {
            temperature: 0.0,
            ..SamplerSettings::default()
        };
        let tokens = self.random.tokens(prompt, self.vocabulary);
        let request = GenerationRequest {
            sampling,
            ..GenerationRequest::new(tokens, max_tokens)
        };
        let used = Used {
            prompt,
            generated: 0,
        };
        self.used.insert(number, used);
        Ok(self.probe.submit(&self.handle, number, request)?)
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<Arrival>, WorkshopError> {
        let Some(news) = self.probe.next(timeout) else {
            return Ok(None);
        };
        let used = self.used.entry(news.request).or_default();
        let what = match news.outcome {
            Outcome::Failed(error) => return Err(WorkshopError::Request(error)),
            Outcome::Token(_) => {
                used.generated += 1;
                What::Token
            }
            Outcome::Finished(..) => What::Finished(*used),
        };
        Ok(Some(Arrival {
            request: news.request,
            at: news.at,
            what,
        }))
    }
}
