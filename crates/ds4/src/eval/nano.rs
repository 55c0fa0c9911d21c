//! The cases that are part of the program.

/// What the built-in model was made for; how the cases were made is in `training/`.
pub(super) fn nano_cases() -> &'static [u8] {
    include_bytes!("../../../../training/nano_cases.jsonl.gz")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ds4_eval::CaseFile;

    use super::*;

    #[test]
    fn there_are_cases_for_everything_that_is_scored() {
        let cases = CaseFile::read(nano_cases()).unwrap().cases;
        let categories: BTreeSet<&str> = cases.iter().map(|case| case.category.as_str()).collect();
        for category in [
            "help",
            "tools",
            "arithmetic",
            "needle_512",
            "needle_2k",
            "needle_8k",
            "needle_16k",
            "json",
            "memory",
            "unknown",
        ] {
            assert!(categories.contains(category), "{category}");
        }
    }
}
