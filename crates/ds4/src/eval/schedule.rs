//! An order in which prompts share what they have in common.

use ds4_tokenizer::TokenId;

/// A shorter common prefix is computed again: a point to go back to costs about as much.
const LEAST_SHARED: usize = 32;

/// Points of a session that are used; it keeps as many.
const POINTS: usize = 4;

/// One prompt's place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Which prompt.
    pub(crate) prompt: usize,
    /// Tokens that the session holds from the prompts before.
    pub(crate) reused: usize,
    /// Where to pause, so that later prompts can start from there; ascending.
    pub(crate) stops: Vec<usize>,
}

/// Orders prompts so that those with a common prefix follow one another.
pub(crate) fn schedule(prompts: &[Vec<TokenId>]) -> Vec<Turn> {
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    // Stable: equal prompts keep their order.
    order.sort_by(|&a, &b| prompts[a].cmp(&prompts[b]));
    // What each has in common with the next.
    let shared: Vec<usize> = order
        .windows(2)
        .map(|pair| common(&prompts[pair[0]], &prompts[pair[1]]))
        .collect();
    let mut held: Vec<usize> = Vec::new();
    let mut turns = Vec::with_capacity(order.len());
    for (place, &prompt) in order.iter().enumerate() {
        let length = prompts[prompt].len();
        let before = place.checked_sub(1).map_or(0, |before| shared[before]);
        held.retain(|&point| point <= before);
        let reused = held.last().copied().unwrap_or(0);
        let room = (POINTS - 1).saturating_sub(held.len());
        let mut stops = later_starts(&shared[place.min(shared.len())..], reused, length);
        // The shortest serve most prompts.
        stops.truncate(room);
        held.extend(&stops);
        held.push(length);
        turns.push(Turn {
            prompt,
            reused,
            stops,
        });
    }
    turns
}

/// Where prompts that come later leave this one, ascending: the falling minima of what neighbours share.
fn later_starts(shared: &[usize], reused: usize, length: usize) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut least = length;
    for &shared in shared {
        if shared < least {
            least = shared;
            if least <= reused || least < LEAST_SHARED {
                break;
            }
            starts.push(least);
        }
    }
    starts.reverse();
    starts
}

fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn prompt(parts: &[(TokenId, usize)]) -> Vec<TokenId> {
        let part = |&(id, count): &(TokenId, usize)| std::iter::repeat_n(id, count);
        parts.iter().flat_map(part).collect()
    }

    /// Tokens computed by a session that can go back to where it paused.
    fn computed(prompts: &[Vec<TokenId>]) -> usize {
        let mut points: Vec<Vec<TokenId>> = Vec::new();
        let mut computed = 0;
        for turn in schedule(prompts) {
            let prompt = &prompts[turn.prompt];
            points.retain(|point| prompt.starts_with(point));
            let reused = points.last().map_or(0, Vec::len);
            assert_eq!(reused, turn.reused);
            computed += prompt.len() - reused;
            let mut before = reused;
            for &stop in turn.stops.iter().chain([&prompt.len()]) {
                assert!(before < stop || stop == prompt.len());
                before = stop;
                points.push(prompt[..stop].to_vec());
            }
            assert!(points.len() <= POINTS);
        }
        computed
    }

    #[test]
    fn every_common_prefix_is_computed_once() {
        let prompts = [
            prompt(&[(1, 100), (7, 10)]),
            prompt(&[(2, 50)]),
            prompt(&[(1, 100), (5, 40)]),
            prompt(&[(1, 100), (5, 40), (3, 40)]),
            prompt(&[(1, 100), (5, 40), (4, 40), (2, 1)]),
            prompt(&[(1, 100), (5, 40), (4, 40), (3, 1)]),
            prompt(&[(1, 100), (7, 10)]),
        ];
        // As many as there are different beginnings, except for what the twin has computed last.
        let beginnings: BTreeSet<&[TokenId]> = prompts
            .iter()
            .flat_map(|prompt| (1..=prompt.len()).map(|end| &prompt[..end]))
            .collect();
        assert_eq!(computed(&prompts), beginnings.len());
    }

    #[test]
    fn short_and_deep_prefixes_are_computed_again() {
        let short = [prompt(&[(1, 9), (2, 9)]), prompt(&[(1, 9), (3, 9)])];
        assert_eq!(computed(&short), 36);
        assert_eq!(computed(&[]), 0);
        // More levels than a session has points: the shortest win.
        let deep: Vec<Vec<TokenId>> = (1..9)
            .map(|levels| {
                let mut tokens = prompt(&[(9, 50 * levels)]);
                tokens.push(1);
                tokens
            })
            .collect();
        assert!(computed(&deep) <= deep.iter().map(Vec::len).sum());
    }
}
