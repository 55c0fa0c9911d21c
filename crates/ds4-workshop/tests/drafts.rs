//! Decoding with and without drafts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use ds4_engine::{Engine, EngineOptions, SpeculationOptions};
use ds4_gguf::GgufFile;
use ds4_workshop::bench::pseudo_random_prompt;
use ds4_workshop::drafts::{DraftOptions, Workload, compare_drafts};
use ds4_workshop::{Control, WorkshopError};

fn open(options: &DraftOptions, speculation: SpeculationOptions) -> Engine {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4-testkit/data/flash-tiny-native.gguf");
    let file = GgufFile::open(&path).unwrap();
    let options = EngineOptions {
        threads: Some(1),
        context: options.context(),
        prefill_chunk: 32,
        speculation,
        ..EngineOptions::default()
    };
    Engine::open(&file, None, &options, &mut |_| ()).unwrap()
}

#[test]
fn an_edit_takes_fewer_steps_and_noise_none_less() {
    let options = DraftOptions {
        prompts: pseudo_random_prompt(120, 512)
            .chunks(60)
            .map(<[u32]>::to_vec)
            .collect(),
        gen_tokens: 50,
        eos: None,
    };
    let cancel = AtomicBool::new(false);
    let mut control = Control {
        cancel: &cancel,
        progress: &mut |_, _| (),
    };
    let always = SpeculationOptions {
        prompt_lookup: true,
        always: true,
        ..SpeculationOptions::default()
    };
    let mut plain = open(&options, SpeculationOptions::default());
    let mut drafting = open(&options, always);
    let rows = compare_drafts(&mut plain, &mut drafting, &options, &mut control).unwrap();
    assert_eq!(rows.len(), Workload::ALL.len());
    for row in &rows {
        assert!(row.same, "{row:?}");
        assert_eq!(row.tokens, 100);
        assert!(row.accepted <= row.drafted, "{row:?}");
        // A row of each step is a token, and so is each that was accepted; the last draft of each of
        // the two answers is never judged.
        let unjudged = 2 * always.longest_draft as u64;
        assert!(row.steps + row.accepted <= 100, "{row:?}");
        assert!(row.steps + row.accepted + unjudged >= 100, "{row:?}");
    }
    let edit = rows
        .iter()
        .find(|row| row.workload == Workload::Edit)
        .unwrap();
    assert!(edit.steps < 50 && edit.accepted > 50, "{edit:?}");
    let noise = rows
        .iter()
        .find(|row| row.workload == Workload::Noise)
        .unwrap();
    assert!(noise.steps > 95, "{noise:?}");

    let nothing = DraftOptions {
        prompts: Vec::new(),
        ..options
    };
    let error = compare_drafts(&mut plain, &mut drafting, &nothing, &mut control).unwrap_err();
    assert!(matches!(error, WorkshopError::Setting { .. }));
}
