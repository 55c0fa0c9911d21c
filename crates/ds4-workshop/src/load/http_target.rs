//! A server with OpenAI's chat completions.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

use super::target::{Arrival, Target, Used, What};
use crate::error::WorkshopError;
use crate::random::Random;

/// Longest silence of a server, prefill included.
const PATIENCE: Duration = Duration::from_secs(1200);
/// Longest wait for requests to end that are no longer wanted.
const SETTLING: Duration = Duration::from_secs(120);
/// After its client has left, a server needs a moment to notice.
const NOTICING: Duration = Duration::from_millis(250);
/// Longest line of a stream, and longest error that is read.
const MAX_LINE: u64 = 1 << 20;
/// Words of the two prompts by which the tokens of a word are found.
const PROBES: [usize; 2] = [32, 224];
/// Of one token each in DeepSeek's vocabulary, with the space before.
const WORDS: [&str; 32] = [
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world",
    "school", "state", "family", "student", "group", "country", "problem", "hand", "part", "place",
    "case", "week", "company", "system", "program", "question", "work", "number", "night", "point",
    "home",
];

/// A server that is running.
#[derive(Clone)]
pub struct HttpServer {
    /// Where it listens, with or without `/v1`: `http://127.0.0.1:8000`.
    pub url: String,
    /// Key that requests show.
    pub api_key: Option<String>,
    /// Model to ask for.
    pub model: String,
}

impl HttpServer {
    /// The server at `url` and its first model.
    ///
    /// # Errors
    /// It cannot be reached, or lists no model.
    pub fn find(url: &str, api_key: Option<String>) -> Result<Self, WorkshopError> {
        let url = url.trim_end_matches('/');
        let mut server = Self {
            url: url.strip_suffix("/v1").unwrap_or(url).to_owned(),
            api_key,
            model: String::new(),
        };
        let path = "/v1/models";
        let mut request = agent().get(server.at(path));
        if let Some(key) = &server.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = request.call().map_err(|error| server.failed(path, error))?;
        let response = accepted(response).map_err(|message| server.failed(path, message))?;
        let models: Value =
            serde_json::from_reader(response.into_body().into_reader().take(MAX_LINE))
                .map_err(|error| server.failed(path, error))?;
        let model = models["data"][0]["id"].as_str();
        let model = model.ok_or_else(|| server.failed(path, "no model is listed"))?;
        server.model = model.to_owned();
        Ok(server)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn failed(&self, path: &str, message: impl ToString) -> WorkshopError {
        WorkshopError::Server {
            url: self.at(path),
            message: message.to_string(),
        }
    }
}

const CHAT: &str = "/v1/chat/completions";

fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        // Each request has a connection of its own, as those of many clients.
        .max_idle_connections(0)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .build();
    Agent::new_with_config(config)
}

/// A response of status 2xx; else what it says.
fn accepted(response: Response<ureq::Body>) -> Result<Response<ureq::Body>, String> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let mut text = String::new();
    let reader = response.into_body().into_reader().take(MAX_LINE);
    let _ = BufReader::new(reader).read_to_string(&mut text);
    let message = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|body| body["error"]["message"].as_str().map(str::to_owned));
    Err(format!("{status}: {}", message.unwrap_or(text)))
}

pub(super) struct HttpTarget {
    server: Arc<HttpServer>,
    agent: Agent,
    random: Random,
    sender: Sender<(usize, Instant, Result<What, String>)>,
    receiver: Receiver<(usize, Instant, Result<What, String>)>,
    /// Requests under way.
    running: usize,
    /// Tokens of a word, and those of a prompt without any.
    tokens_of_words: (f64, f64),
}

impl HttpTarget {
    /// Asks twice, to learn how many tokens the server makes of words.
    pub(super) fn new(
        server: HttpServer,
        random: Random,
        cancel: &AtomicBool,
    ) -> Result<Self, WorkshopError> {
        let (sender, receiver) = channel();
        let mut target = Self {
            server: Arc::new(server),
            agent: agent(),
            random,
            sender,
            receiver,
            running: 0,
            tokens_of_words: (1.0, 0.0),
        };
        let mut tokens = PROBES;
        for words in &mut tokens {
            target.submit(0, *words, 1)?;
            let used = loop {
                if cancel.load(Ordering::Relaxed) {
                    return Err(WorkshopError::Cancelled);
                }
                if let Some(arrival) = target.next(super::POLL)?
                    && let What::Finished(used) = arrival.what
                {
                    break used;
                }
            };
            *words = used.prompt;
        }
        let slope = tokens[1].saturating_sub(tokens[0]) as f64 / (PROBES[1] - PROBES[0]) as f64;
        if slope > 0.0 {
            let rest = tokens[0] as f64 - slope * PROBES[0] as f64;
            target.tokens_of_words = (slope, rest);
        }
        Ok(target)
    }

    /// Waits until no request is under way that was ended.
    ///
    /// # Errors
    /// They do not end.
    pub(super) fn settle(&mut self) -> Result<(), WorkshopError> {
        let deadline = Instant::now() + SETTLING;
        while self.running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(WorkshopError::Hanging {
                    requests: self.running,
                });
            }
            self.next(left)?;
        }
        std::thread::sleep(NOTICING);
        Ok(())
    }

    /// Random words of about so many tokens.
    fn words(&mut self, tokens: usize) -> String {
        let (slope, rest) = self.tokens_of_words;
        let words = ((tokens as f64 - rest) / slope).round().max(1.0) as usize;
        let mut text = String::new();
        for _ in 0..words {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(WORDS[self.random.below(WORDS.len())]);
        }
        text
    }
}

impl Target for HttpTarget {
    fn submit(
        &mut self,
        number: usize,
        prompt: usize,
        max_tokens: usize,
    ) -> Result<Arc<AtomicBool>, WorkshopError> {
        let body = json!({
            "model": self.server.model,
            "messages": [{"role": "user", "content": self.words(prompt)}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let closed = Arc::new(AtomicBool::new(false));
        let (agent, server) = (self.agent.clone(), Arc::clone(&self.server));
        let (sender, flag) = (self.sender.clone(), Arc::clone(&closed));
        std::thread::Builder::new()
            .name(format!("request {number}"))
            .spawn(move || {
                let tell = |what| sender.send((number, Instant::now(), what)).is_ok();
                let mut token = || tell(Ok(What::Token));
                let counted = stream(&agent, &server, &body, &flag, &mut token);
                tell(counted.map(|counted| {
                    What::Finished(Used {
                        prompt: counted.prompt.unwrap_or(prompt),
                        generated: counted.generated,
                    })
                }));
            })
            .map_err(|error| self.server.failed(CHAT, error))?;
        self.running += 1;
        Ok(closed)
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<Arrival>, WorkshopError> {
        // There is a sender here, so nothing but time can run out.
        let Ok((request, at, what)) = self.receiver.recv_timeout(timeout) else {
            return Ok(None);
        };
        if !matches!(what, Ok(What::Token)) {
            self.running -= 1;
        }
        let what = what.map_err(|message| self.server.failed(CHAT, message))?;
        Ok(Some(Arrival { request, at, what }))
    }
}

/// Tokens of a stream.
#[derive(Default)]
struct Counted {
    /// As the server counts, if it does.
    prompt: Option<usize>,
    /// As the server counts, else the pieces of text.
    generated: usize,
}

/// Reads one stream to its end; `token` is called for each piece of text.
fn stream(
    agent: &Agent,
    server: &HttpServer,
    body: &Value,
    closed: &AtomicBool,
    token: &mut dyn FnMut() -> bool,
) -> Result<Counted, String> {
    let mut request = agent
        .post(server.at(CHAT))
        .header("content-type", "application/json");
    if let Some(key) = &server.api_key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let response = request
        .send(body.to_string())
        .map_err(|error| error.to_string())?;
    let mut reader = BufReader::new(accepted(response)?.into_body().into_reader());
    let mut counted = Counted::default();
    let mut line = Vec::new();
    let mut is_whole = false;
    while !closed.load(Ordering::Relaxed) {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| error.to_string())? == 0 {
            break;
        }
        // Anything else is a comment or the empty line between events.
        let Some(data) = line.strip_prefix(b"data:") else {
            continue;
        };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            is_whole = true;
            break;
        }
        let event: Value = serde_json::from_slice(data)
            .map_err(|error| format!("an event of the stream is no JSON: {error}"))?;
        if !event["error"].is_null() {
            let message = event["error"]["message"].as_str();
            return Err(message
                .unwrap_or("the stream ended with an error")
                .to_owned());
        }
        let delta = &event["choices"][0]["delta"];
        let has_text = |name: &str| delta[name].as_str().is_some_and(|text| !text.is_empty());
        if has_text("content") || has_text("reasoning_content") {
            counted.generated += 1;
            if !token() {
                break;
            }
        }
        let count = |name: &str| event["usage"][name].as_u64().map(|count| count as usize);
        counted.prompt = count("prompt_tokens").or(counted.prompt);
        counted.generated = count("completion_tokens").unwrap_or(counted.generated);
    }
    if !is_whole && !closed.load(Ordering::Relaxed) {
        return Err("the stream ended before its end".to_owned());
    }
    Ok(counted)
}
