//! Random sequences of operations by two handles, against a list of what was saved.

use std::collections::BTreeMap;

use ds4_kvstore::TokenId;
use proptest::prelude::*;

use crate::conversation::*;
use crate::simulated_disk::SimulatedDisk;

#[derive(Clone, Debug)]
enum Operation {
    Save(Vec<TokenId>, u8),
    Find(Vec<TokenId>),
    Remove(usize),
    Prune(u64),
    Reopen,
}

/// Few different tokens, so that prefixes meet.
fn sequence() -> impl Strategy<Value = Vec<TokenId>> {
    prop_oneof![
        prop::collection::vec(0..2_u32, 1..12),
        prop::collection::vec(0..1_u32, 1..18),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (sequence(), any::<u8>()).prop_map(|(tokens, version)| Operation::Save(tokens, version)),
        4 => sequence().prop_map(Operation::Find),
        1 => any::<usize>().prop_map(Operation::Remove),
        1 => (0..8_000_u64).prop_map(Operation::Prune),
        1 => Just(Operation::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lookups_agree_with_a_list(
        operations in prop::collection::vec((any::<bool>(), operation()), 1..40)
    ) {
        let disk = SimulatedDisk::new();
        let mut stores = [open(&disk), open(&disk)];
        let mut saved: BTreeMap<Vec<TokenId>, u8> = BTreeMap::new();
        for (second, operation) in operations {
            let at = usize::from(second);
            let store = &stores[at];
            store.refresh();
            match operation {
                Operation::Save(tokens, version) => {
                    save(store, &tokens, version).unwrap();
                    saved.insert(tokens, version);
                }
                Operation::Find(tokens) => {
                    let expected = (1..=tokens.len())
                        .rev()
                        .find_map(|length| Some((length, *saved.get(&tokens[..length])?)));
                    let hit = store.longest_prefix(&KEY, &tokens);
                    let found = hit.map(|hit| {
                        (hit.tokens(), load_and_check(store, &hit, &tokens).unwrap())
                    });
                    prop_assert_eq!(found, expected);
                }
                Operation::Remove(which) => {
                    let Some(tokens) = saved.keys().nth(which % saved.len().max(1)).cloned() else {
                        continue;
                    };
                    store.remove(&id_of(store, &tokens)).unwrap();
                    saved.remove(&tokens);
                }
                Operation::Prune(bytes) => {
                    store.prune(bytes).unwrap();
                    prop_assert!(store.usage().bytes <= bytes);
                    let left: Vec<_> = store.list().iter().map(|info| info.id).collect();
                    saved.retain(|tokens, _| left.contains(&id_of(store, tokens)));
                    prop_assert_eq!(left.len(), saved.len());
                }
                Operation::Reopen => stores[at] = open(&disk),
            }
        }
        let store = open(&disk);
        prop_assert_eq!(store.verify(&mut |_, _| CONTINUE).unwrap(), []);
        prop_assert_eq!(store.list().len(), saved.len());
    }
}
