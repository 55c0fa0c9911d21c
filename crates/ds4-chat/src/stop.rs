//! Stop texts in a stream: the answer ends before the first that is complete.

/// Finds stop texts in text that comes piece by piece, and holds back what could be the start of one.
///
/// The first stop text to be *complete* ends the answer, the longest if several end at the same place;
/// this does not depend on how the text is cut. Takes time linear in the text (Knuth, Morris, Pratt).
#[derive(Clone, Debug)]
pub struct StopMatcher {
    patterns: Vec<Pattern>,
    /// Text held back: the longest match so far of any pattern.
    held: String,
    done: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    /// For each prefix, how long its longest proper prefix is that also ends it.
    failure: Vec<usize>,
    matched: usize,
}

impl Pattern {
    fn new(text: String) -> Self {
        let bytes = text.as_bytes();
        let mut failure = vec![0; bytes.len()];
        let mut matched = 0;
        for at in 1..bytes.len() {
            while matched > 0 && bytes[at] != bytes[matched] {
                matched = failure[matched - 1];
            }
            if bytes[at] == bytes[matched] {
                matched += 1;
            }
            failure[at] = matched;
        }
        Self {
            text,
            failure,
            matched: 0,
        }
    }

    /// Takes a byte; true if the pattern is complete.
    fn advance(&mut self, byte: u8) -> bool {
        let bytes = self.text.as_bytes();
        while self.matched > 0 && bytes[self.matched] != byte {
            self.matched = self.failure[self.matched - 1];
        }
        if bytes[self.matched] == byte {
            self.matched += 1;
        }
        self.matched == bytes.len()
    }
}

impl StopMatcher {
    /// A matcher for these texts; empty ones are left out.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            patterns: stops
                .into_iter()
                .filter(|text| !text.is_empty())
                .map(Pattern::new)
                .collect(),
            held: String::new(),
            done: false,
        }
    }

    /// Takes the next text. Gives what certainly belongs to the answer, and the stop text that ends
    /// it. After that everything is dropped.
    pub fn push(&mut self, text: &str) -> (String, Option<String>) {
        if self.done {
            return (String::new(), None);
        }
        if self.patterns.is_empty() {
            return (text.to_owned(), None);
        }
        let start = self.held.len();
        self.held.push_str(text);
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            let mut complete = false;
            for pattern in &mut self.patterns {
                complete |= pattern.advance(byte);
            }
            if !complete {
                continue;
            }
            let longest = self
                .patterns
                .iter()
                .filter(|pattern| pattern.matched == pattern.text.len())
                .max_by_key(|pattern| pattern.text.len());
            if let Some(pattern) = longest {
                let stop = pattern.text.clone();
                let end = start + at + 1;
                self.done = true;
                let mut safe = std::mem::take(&mut self.held);
                safe.truncate(end - stop.len());
                return (safe, Some(stop));
            }
        }
        let keep = self
            .patterns
            .iter()
            .map(|pattern| pattern.matched)
            .max()
            .unwrap_or(0);
        // A partial match begins where a character does, so this is a boundary.
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// Ends the text, or the part of it in which stop texts count: gives what was held back.
    pub fn finish(&mut self) -> String {
        for pattern in &mut self.patterns {
            pattern.matched = 0;
        }
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: the earliest end of any stop text, the longest of those that end there.
    fn naive(text: &str, stops: &[String]) -> (String, Option<String>) {
        for end in 1..=text.len() {
            let ended = stops
                .iter()
                .filter(|stop| {
                    !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes())
                })
                .max_by_key(|stop| stop.len());
            if let Some(stop) = ended {
                return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_answer_is_that_of_a_search_in_the_whole(
            pieces in prop::collection::vec("[abé]{0,4}", 0..8),
            stops in prop::collection::vec("[abé]{0,3}", 0..4),
        ) {
            let whole: String = pieces.concat();
            let (expected, expected_stop) = naive(&whole, &stops);
            let mut matcher = StopMatcher::new(stops);
            let (mut text, mut stop) = (String::new(), None);
            for piece in &pieces {
                let (safe, matched) = matcher.push(piece);
                text.push_str(&safe);
                prop_assert!(expected.starts_with(&text), "{text:?} leaked, expected {expected:?}");
                stop = stop.or(matched);
            }
            text.push_str(&matcher.finish());
            prop_assert_eq!(text, expected);
            prop_assert_eq!(stop, expected_stop);
        }
    }

    #[test]
    fn only_what_could_be_a_start_is_held_back() {
        let mut matcher = StopMatcher::new(vec!["</END>".to_owned(), "STOP".to_owned()]);
        assert_eq!(matcher.push("hello </"), ("hello ".to_owned(), None));
        assert_eq!(matcher.push("b> S"), ("</b> ".to_owned(), None));
        assert_eq!(
            matcher.push("TOPPED"),
            (String::new(), Some("STOP".to_owned()))
        );
        assert_eq!(matcher.push("more"), (String::new(), None));
    }
}
