//! `ds4 cache` on stores that the test fills.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ds4_kvstore::{CheckpointData, CheckpointKind, Limits, ModelKey, Store};
use serde_json::Value;

use crate::program::{Program, home};

const KEY: ModelKey = ModelKey {
    fingerprint: [1; 32],
    format: 2,
    span_tokens: 4,
};

/// Two conversations that share one segment of three.
fn fill(directory: &Path) {
    let store = Store::open(directory, Limits::default()).unwrap();
    for (conversation, seconds) in [(1_u32, 90.0), (2, 3.5)] {
        let tokens: Vec<u32> = (0..10)
            .map(|at| if at < 4 { at } else { 100 * conversation + at })
            .collect();
        let rows = |span: usize| (span, vec![conversation as u8 * (span > 0) as u8; 3_000]);
        let data = CheckpointData {
            kind: CheckpointKind::Prompt,
            model_name: "small\x1b[2J".to_owned(),
            prefill_seconds: seconds,
            segment_bytes: 3_000,
            frontier: vec![7; 500],
            attachment: Vec::new(),
        };
        let plan = store.plan(&KEY, &tokens).unwrap();
        let mut source: BTreeMap<usize, Vec<u8>> = (0..2).map(rows).collect();
        store.save(&plan, &data, &mut source).unwrap();
        if conversation == 1 {
            let hit = store.longest_prefix(&KEY, &tokens).unwrap();
            store.load(&hit, 0).unwrap();
        }
    }
}

fn cache(home: &Path, arguments: &[&str]) -> Program {
    Program::new(home).args(["cache"].iter().chain(arguments))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn checkpoints_are_listed_checked_and_removed() {
    let home = home();
    // The default place.
    let directory = home.path().join(".cache/ds4/kv");
    fill(&directory);

    let table = cache(home.path(), &["ls"]).run().success();
    let lines: Vec<&str> = table.lines().collect();
    for title in [
        "id",
        "model",
        "tokens",
        "size",
        "saves",
        "last used",
        "hits",
    ] {
        assert!(lines[0].contains(title), "{table}");
    }
    assert_eq!(lines.len(), 5, "{table}");
    assert!(table.contains("90 s") && table.contains("3.5 s"), "{table}");
    assert!(
        !table.contains('\x1b'),
        "the model's name reached the terminal: {table:?}"
    );
    assert!(
        lines[4].contains("2 checkpoints in 3 shared segments"),
        "{table}"
    );
    assert!(
        lines[4].contains("1 hits in 1 lookups saved 90 s"),
        "{table}"
    );

    let listed = json(&cache(home.path(), &["ls", "--json"]).run().success());
    let checkpoints = listed["checkpoints"].as_array().unwrap();
    assert_eq!(checkpoints.len(), 2);
    let on_disk: u64 = ["checkpoints", "segments"]
        .iter()
        .flat_map(|folder| fs::read_dir(directory.join(folder)).unwrap())
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(listed["bytes"], on_disk);
    assert_eq!(listed["statistics"]["hits"]["prompt"], 1);
    let long = checkpoints
        .iter()
        .find(|info| info["seconds_saved"] == 90.0)
        .unwrap();
    assert_eq!((&long["tokens"], &long["hits"]), (&10.into(), &1.into()));

    let verified = cache(home.path(), &["verify"]).run().success();
    assert!(
        verified.contains("2 checkpoints and 3 segments are sound"),
        "{verified}"
    );

    let id = long["id"].as_str().unwrap();
    let unknown = cache(home.path(), &["rm", &id[..8], "0123456789"]).run();
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("ds4 cache ls"), "{unknown:?}");
    for nonsense in ["../x", "", "zz", "a"] {
        assert_eq!(cache(home.path(), &["rm", nonsense]).run().code, Some(2));
    }
    let removed = cache(home.path(), &["rm", "--json", &id[..8]])
        .run()
        .success();
    assert_eq!(json(&removed)["checkpoints_removed"], 1);
    assert_eq!(json(&removed)["segments_removed"], 1);
    let pruned = cache(home.path(), &["prune", "--to", "0"]).run().success();
    assert!(
        pruned.starts_with("1 checkpoints and 2 segments removed"),
        "{pruned}"
    );
    let empty = cache(home.path(), &["ls"]).run();
    assert!(empty.stderr.contains("no checkpoints"), "{empty:?}");
    assert_eq!(empty.code, Some(0));
}

#[test]
fn verify_fails_once_on_damage() {
    let home = home();
    let directory = home.path().join("elsewhere");
    fill(&directory);
    let segment = fs::read_dir(directory.join("segments"))
        .unwrap()
        .next()
        .unwrap();
    let segment = segment.unwrap().path();
    let mut content = fs::read(&segment).unwrap();
    content[1_000] ^= 1;
    fs::write(&segment, content).unwrap();
    let arguments = ["verify", "--dir", "elsewhere"];
    let damaged = cache(home.path(), &arguments).run();
    assert_eq!(damaged.code, Some(1), "{damaged:?}");
    assert!(
        damaged.stdout.contains("wrong checksum in its rows"),
        "{damaged:?}"
    );
    assert!(damaged.stderr.contains("damaged"), "{damaged:?}");
    cache(home.path(), &arguments).run().success();
    let json_output = cache(home.path(), &["verify", "--dir", "elsewhere", "--json"]);
    assert_eq!(
        json(&json_output.run().success())["problems"],
        Value::Array(Vec::new())
    );
}

#[test]
fn looking_makes_nothing_and_strangers_are_left_alone() {
    let home = home();
    for arguments in [&["ls"][..], &["verify"], &["prune", "--to", "1GiB"]] {
        cache(home.path(), arguments).run().success();
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    fs::create_dir(home.path().join("photos")).unwrap();
    fs::write(home.path().join("photos/cat.jpg"), "cat").unwrap();
    let refused = cache(home.path(), &["prune", "--to", "0", "--dir", "photos"]).run();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no KV cache"), "{refused:?}");
    assert_eq!(
        fs::read(home.path().join("photos/cat.jpg")).unwrap(),
        b"cat"
    );
    assert_eq!(
        cache(home.path(), &["prune", "--to", "much"]).run().code,
        Some(2)
    );
    assert_eq!(cache(home.path(), &["prune"]).run().code, Some(2));
}
