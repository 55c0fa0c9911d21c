//! Looking for words and numbers in an answer.

/// Whether `text` is in `answer` as a whole word or number, whatever the case of letters.
///
/// `a-17` is not whole in `a-170`, `a-17-b` or `xa-17`, and 42 is not in 42.5 or 1,042.
pub(crate) fn contains_whole(answer: &str, text: &str) -> bool {
    let answer: Vec<char> = answer.chars().flat_map(char::to_lowercase).collect();
    let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    if text.is_empty() {
        return false;
    }
    let found = answer.windows(text.len()).enumerate();
    found
        .filter(|(_, window)| *window == text)
        .any(|(start, _)| {
            let before = answer[..start].iter().rev();
            let after = answer[start + text.len()..].iter();
            !continues(text.first(), before) && !continues(text.last(), after)
        })
}

/// Whether the word that ends in `edge` goes on with `outside`, read away from it.
fn continues<'a>(edge: Option<&char>, mut outside: impl Iterator<Item = &'a char>) -> bool {
    let word = |c: &char| c.is_alphanumeric() || *c == '_';
    let Some(edge) = edge.filter(|edge| word(edge)) else {
        return false;
    };
    match (outside.next(), outside.next()) {
        (Some(next), _) if word(next) => true,
        (Some('-'), Some(beyond)) => word(beyond),
        (Some('.' | ','), Some(beyond)) => edge.is_ascii_digit() && beyond.is_ascii_digit(),
        _ => false,
    }
}

/// The last number in a text: digits with an optional sign, fraction, exponent, and commas between
/// thousands.
pub(crate) fn last_number(text: &str) -> Option<f64> {
    let characters: Vec<char> = text.chars().collect();
    let mut last = None;
    let mut at = 0;
    while at < characters.len() {
        if characters[at].is_ascii_digit() {
            let (number, end) = number_at(&characters, at);
            last = Some(number);
            at = end;
        } else {
            at += 1;
        }
    }
    last
}

/// The number whose first digit is at `start`, and where it ends.
fn number_at(characters: &[char], start: usize) -> (f64, usize) {
    let digit = |at: usize| characters.get(at).is_some_and(char::is_ascii_digit);
    let is = |at: usize, c: char| characters.get(at) == Some(&c);
    let digits_from = |mut at: usize| {
        while digit(at) {
            at += 1;
        }
        at
    };
    let mut text = String::new();
    // A sign, unless it is an operator or a hyphen: `7-5`, `x-5`, `7 - 5`.
    if let Some(before) = start.checked_sub(1)
        && matches!(characters[before], '-' | '\u{2212}')
        && before
            .checked_sub(1)
            .is_none_or(|at| !characters[at].is_alphanumeric() && characters[at] != ')')
    {
        text.push('-');
    }
    let mut end = digits_from(start);
    text.extend(&characters[start..end]);
    if end - start <= 3 {
        // Commas between groups of three.
        while is(end, ',') && digits_from(end + 1) == end + 4 {
            text.extend(&characters[end + 1..end + 4]);
            end += 4;
        }
    }
    if is(end, '.') && digit(end + 1) {
        let fraction = digits_from(end + 1);
        text.extend(&characters[end..fraction]);
        end = fraction;
    }
    if is(end, 'e') || is(end, 'E') {
        let sign = end + 1 + usize::from(is(end + 1, '-') || is(end + 1, '+'));
        if digit(sign) {
            let exponent = digits_from(sign);
            text.extend(&characters[end..exponent]);
            end = exponent;
        }
    }
    // Digits, at most one dot and one exponent always parse; very large ones are infinite.
    (text.parse().unwrap_or(f64::INFINITY), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whole() {
        for (answer, text) in [
            ("The code is zorblat-17.", "zorblat-17"),
            ("ZORBLAT-17", "zorblat-17"),
            ("zorblat-170, no: zorblat-17", "Zorblat-17"),
            ("it is `x y`!", "x y"),
            ("42.", "42"),
            ("(42, 43)", "42"),
            ("GRÜN", "grün"),
            ("a--b", "a"),
            ("so: #tag!", "#tag"),
        ] {
            assert!(contains_whole(answer, text), "{text} in {answer}");
        }
        for (answer, text) in [
            ("zorblat-170", "zorblat-17"),
            ("zorblat-17-b", "zorblat-17"),
            ("xzorblat-17", "zorblat-17"),
            ("pre-zorblat-17", "zorblat-17"),
            ("42.5", "42"),
            ("1,042", "042"),
            ("snake_case", "snake"),
            ("", "x"),
            ("x", ""),
        ] {
            assert!(!contains_whole(answer, text), "{text} in {answer}");
        }
    }

    #[test]
    fn the_last_number_counts() {
        for (text, expected) in [
            ("2 + 3 = 5", Some(5.0)),
            ("The answer is 1,234,567.", Some(1_234_567.0)),
            ("12,34", Some(34.0)),
            ("1234,567", Some(567.0)),
            ("-7", Some(-7.0)),
            ("It is \u{2212}7.", Some(-7.0)),
            ("9-7", Some(7.0)),
            ("(3)-7", Some(7.0)),
            ("= -7.50", Some(-7.5)),
            ("3.", Some(3.0)),
            ("2.5e3 m", Some(2500.0)),
            ("5 eggs", Some(5.0)),
            ("5e", Some(5.0)),
            ("x2", Some(2.0)),
            ("none", None),
            ("", None),
        ] {
            assert_eq!(last_number(text), expected, "{text}");
        }
        assert_eq!(last_number(&"9".repeat(1000)), Some(f64::INFINITY));
    }
}
