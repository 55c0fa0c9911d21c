//! Stop strings in a stream of text.

/// Ends a stream of text where one of several strings appears, and never lets a part of one through.
///
/// The string that ends first stops the text; of several that end at the same place, the one that starts
/// first, so the longest. Text that may become a stop string is held back until it is decided: at most
/// one byte less than the longest of them.
///
/// ```
/// use ds4_chat::StopMatcher;
///
/// let mut stops = StopMatcher::new(["\nUser:", "###"]);
/// assert_eq!(stops.push("Hello.\nUs"), "Hello.");
/// assert_eq!(stops.push("ers say #"), "\nUsers say ");
/// assert_eq!(stops.push("##!"), "");
/// assert_eq!(stops.matched(), Some("###"));
/// ```
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that may be the start of a stop string.
    held: String,
    matched: Option<usize>,
}

impl StopMatcher {
    /// A matcher of these strings. Empty ones are left out: they would stop everything.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops.into_iter().map(Into::into);
        Self {
            stops: stops.filter(|stop| !stop.is_empty()).collect(),
            held: String::new(),
            matched: None,
        }
    }

    /// Takes more text and gives what is certain to be before any stop string. Gives nothing once one
    /// has [matched](Self::matched).
    pub fn push(&mut self, text: &str) -> String {
        if self.matched.is_some() {
            return String::new();
        }
        if self.stops.is_empty() {
            return text.to_owned();
        }
        let searched = self.held.len();
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_match(searched) {
            self.matched = Some(stop);
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let kept = self.undecided();
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    /// The text that was held back, when the stream ends.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop string that ended the text.
    pub fn matched(&self) -> Option<&str> {
        self.matched.map(|stop| self.stops[stop].as_str())
    }

    /// Start and index of the stop string that ends first, which is behind the first `searched` bytes.
    fn first_match(&self, searched: usize) -> Option<(usize, usize)> {
        let matches = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            // What ends behind `searched` starts no earlier than this; at a character, since the held
            // text begins with one.
            let mut from = searched.saturating_sub(stop.len() - 1);
            while !self.held.is_char_boundary(from) {
                from += 1;
            }
            let start = from + self.held[from..].find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        matches.min().map(|(_, start, index)| (start, index))
    }

    /// Bytes at the end that are the start of a stop string.
    fn undecided(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = self.stops.iter().map(|stop| {
            let most = held.len().min(stop.len() - 1);
            (1..=most)
                .rev()
                .find(|&length| held.ends_with(&stop.as_bytes()[..length]))
                .unwrap_or(0)
        });
        // A whole character: stop strings are text, so starts of them that match begin with one.
        longest.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The whole text at once, by trying every end.
    fn naive<'a>(text: &str, stops: &'a [String]) -> (String, Option<&'a str>) {
        for (end, _) in text.char_indices().chain([(text.len(), ' ')]) {
            let ending = stops
                .iter()
                .filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()));
            if let Some(stop) = ending.max_by_key(|stop| stop.len()) {
                return (text[..end - stop.len()].to_owned(), Some(stop));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_cut_gives_what_the_whole_text_gives(
            pieces in prop::collection::vec("[abé€😀\n]{0,4}", 0..12),
            stops in prop::collection::vec("[abé€😀\n]{0,4}", 0..4),
        ) {
            let text = pieces.concat();
            let (expected, stop) = naive(&text, &stops);
            let mut matcher = StopMatcher::new(stops.clone());
            let mut found = String::new();
            let mut seen = String::new();
            for piece in &pieces {
                found.push_str(&matcher.push(piece));
                seen.push_str(piece);
                // Nothing of a stop string leaks, and only what may become one is held.
                prop_assert!(expected.starts_with(&found));
                if matcher.matched().is_none() {
                    let held = &seen[found.len()..];
                    prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.len() > held.len() && stop.starts_with(held)));
                }
            }
            found.push_str(&matcher.finish());
            prop_assert_eq!(found, expected);
            prop_assert_eq!(matcher.matched(), stop);
        }
    }

    #[test]
    fn nothing_follows_a_match() {
        let mut matcher = StopMatcher::new(["b"]);
        assert_eq!(matcher.push("abc"), "a");
        assert_eq!(matcher.push("abc"), "");
        assert_eq!(matcher.finish(), "");
        assert_eq!(matcher.matched(), Some("b"));
    }
}
