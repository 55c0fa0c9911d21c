//! Several clients and a real engine with a small model: nobody waits for another's long prompt.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ds4_chat::Vintage;
use ds4_engine::{Engine, EngineHandle, EngineOptions, SamplerSettings, ServiceOptions, Shutdown};
use ds4_server::turn::Thinking;
use ds4_server::{Inference, ServerSettings, serve};
use ds4_synthetic::SyntheticModel;
use ds4_tokenizer::{PreTokenizer, Tokenizer, VocabularySource};
use serde_json::{Value, json};

use crate::client::{Connection, exchange, request_text};

const CHAT: &str = "/v1/chat/completions";
/// Bytes of the long prompt; most are a token in the small vocabulary.
const LONG: usize = 20_000;

fn tokenizer(model: &ds4_gguf::GgufFile) -> Tokenizer {
    let metadata = model.metadata();
    let types = metadata.integers("tokenizer.ggml.token_type").unwrap();
    let source = VocabularySource {
        tokens: metadata
            .byte_strings("tokenizer.ggml.tokens")
            .unwrap()
            .collect(),
        token_types: Some(types.into_iter().map(|ty| ty as i32).collect()),
        merges: metadata
            .byte_strings("tokenizer.ggml.merges")
            .unwrap()
            .collect(),
        pre_tokenizer: PreTokenizer::from_gguf_name("joyai-llm").unwrap(),
        bos: Some(0),
        eos: Some(1),
        pad: Some(2),
    };
    Tokenizer::from_vocabulary(&source).unwrap()
}

/// The sessions of `/v1/sessions` that hold the long prompt.
fn long_session(address: SocketAddr) -> Option<Value> {
    let reply = exchange(address, request_text("GET", "/v1/sessions", &[], b"")).unwrap();
    let is_long = |session: &&Value| session["prompt_tokens"].as_u64() > Some(LONG as u64 / 2);
    let sessions = reply.json();
    let running = sessions["running"].as_array().unwrap();
    running.iter().find(is_long).cloned()
}

#[test]
fn a_newcomer_gets_its_first_token_while_four_stream_and_a_long_prompt_is_computed() {
    let model = SyntheticModel::small().file().unwrap();
    let tokenizer = tokenizer(&model);
    let ends: serde_json::Map<String, Value> = ["<｜User｜>", "<｜Assistant｜>"]
        .iter()
        .map(|token| tokenizer.special(token).unwrap())
        .chain([0, 1])
        .map(|id| (id.to_string(), json!(-100)))
        .collect();
    let options = EngineOptions {
        threads: Some(2),
        context: 24_576,
        sessions: 6,
        cache_tokens: Some(40_960),
        ..EngineOptions::default()
    };
    let engine = Engine::open(&model, None, &options, &mut |_| ()).unwrap();
    let handle = Arc::new(EngineHandle::start(engine, ServiceOptions::default()).unwrap());
    let inference = Inference::new(
        Arc::clone(&handle) as _,
        tokenizer,
        Vintage::Release0731,
        SamplerSettings::default(),
        Thinking::Off,
    )
    .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let settings = ServerSettings {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..ServerSettings::default()
    };
    let server = runtime.block_on(serve(settings)).unwrap();
    server.open(Arc::new(inference));
    let address = server.address();
    let body = |text: &str, max_tokens: usize| {
        json!({
            "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens,
            "stream": true, "logit_bias": ends,
        })
        .to_string()
    };
    let begin = |text: &str, max_tokens: usize| {
        let mut connection = Connection::open(address);
        let body = body(text, max_tokens);
        connection.send(request_text("POST", CHAT, &[], body.as_bytes()));
        assert_eq!(connection.head().unwrap().status, 200);
        connection
    };

    let mut four: Vec<Connection> = (0..4)
        .map(|number| begin(&format!("Client {number}"), 2000))
        .collect();
    for connection in &mut four {
        // The head of the answer, and the first text.
        assert!(connection.chunk().is_some() && connection.chunk().is_some());
    }
    let long = begin(&"a long tale ".repeat(LONG / 12), 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    while long_session(address).is_none_or(|session| session["prefilled_tokens"] == 0) {
        assert!(Instant::now() < deadline, "the long prompt is not begun");
        std::thread::sleep(Duration::from_millis(5));
    }

    let mut fifth = begin("Me too", 1);
    let mut answer = String::new();
    while let Some(chunk) = fifth.chunk() {
        answer.push_str(&String::from_utf8(chunk).unwrap());
    }
    assert!(
        answer.contains(r#""finish_reason":"length""#) && answer.ends_with("data: [DONE]\n\n"),
        "{answer}"
    );
    let session = long_session(address).expect("the long prompt is still being computed");
    assert!(
        session["prefilled_tokens"].as_u64() < session["prompt_tokens"].as_u64(),
        "the newcomer has waited for the long prompt: {session}"
    );
    assert_eq!(session["generated_tokens"], 0);
    // The others stream on meanwhile.
    for connection in &mut four {
        assert!(connection.chunk().is_some());
    }
    assert!(
        long_session(address).is_some(),
        "those who stream have waited for the long prompt"
    );

    drop((four, long));
    runtime.block_on(server.stop());
    handle.shutdown(Shutdown::Cancel);
}
