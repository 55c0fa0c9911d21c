//! The server of the tests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ds4_chat::{ReasoningEffort, Vintage};
use ds4_engine::SamplerSettings;
use ds4_server::turn::Thinking;
use ds4_server::{Inference, ServerSettings, serve};
use ds4_testkit::scripted::{Plan, PlannedTurn, ScriptedService};
use ds4_tokenizer::Tokenizer;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::client::{Connection, Reply, exchange, request_text};

/// Context of the test servers, in tokens.
pub(crate) const CONTEXT: usize = 4096;

/// A server with a thread of its own.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) service: Arc<ScriptedService>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    /// A server that says these turns, one a request, the last one again and again.
    pub(crate) fn start(turns: Vec<PlannedTurn>, settings: ServerSettings) -> Self {
        Self::start_plan(
            Plan {
                turns,
                max_requests: None,
            },
            settings,
        )
    }

    pub(crate) fn start_plan(plan: Plan, settings: ServerSettings) -> Self {
        Self::start_keeping(plan, settings, None)
    }

    /// A server that keeps its answers and responses in a directory.
    pub(crate) fn start_keeping(
        plan: Plan,
        settings: ServerSettings,
        answers: Option<&Path>,
    ) -> Self {
        let tokenizer = tokenizer();
        let service = Arc::new(ScriptedService::new(&plan, tokenizer, CONTEXT).unwrap());
        let mut inference = Inference::new(
            Arc::clone(&service) as _,
            tokenizer.clone(),
            Vintage::Release0731,
            SamplerSettings::default(),
            Thinking::On(ReasoningEffort::High),
        )
        .unwrap();
        if let Some(directory) = answers {
            inference.keep_answers(directory, 1 << 20).unwrap();
            inference.keep_responses(directory, 1 << 20).unwrap();
        }
        let settings = ServerSettings {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..settings
        };
        let (address_out, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
                .block_on(async {
                    let server = serve(settings).await.unwrap();
                    server.open(Arc::new(inference));
                    address_out.send(server.address()).unwrap();
                    let _ = stopped.await;
                    server.stop().await;
                });
        });
        Self {
            address: address.recv().unwrap(),
            service,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Tells the server to stop, and does not wait.
    pub(crate) fn begin_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until the server has stopped; its thread must not have panicked.
    pub(crate) fn wait_until_stopped(&mut self) {
        self.begin_to_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &[], body.to_string().as_bytes())
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let bytes = request_text(method, path, headers, body);
        exchange(self.address, bytes).expect("the server answers")
    }

    /// Sends a request and leaves the connection open.
    pub(crate) fn begin(&self, path: &str, body: &Value) -> Connection {
        let mut connection = Connection::open(self.address);
        let body = body.to_string();
        connection.send(request_text("POST", path, &[], body.as_bytes()));
        connection
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.begin_to_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The vocabulary of DeepSeek V4, read once.
pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| ds4_testkit::scripted::deepseek_tokenizer().unwrap())
}

/// A turn without delays.
pub(crate) fn says(text: &str) -> PlannedTurn {
    PlannedTurn {
        text: text.to_owned(),
        ..PlannedTurn::default()
    }
}

/// A server for all tests that need nothing special: it thinks and says hello.
pub(crate) fn shared() -> &'static TestServer {
    static SERVER: OnceLock<TestServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let settings = ServerSettings {
            max_body: 2 << 20,
            read_timeout: Duration::from_secs(20),
            ..ServerSettings::default()
        };
        TestServer::start(vec![says("I think.</think>Hello there.")], settings)
    })
}

/// Waits until something holds.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}
