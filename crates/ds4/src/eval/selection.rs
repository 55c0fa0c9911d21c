//! Which cases are asked.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use ds4_eval::{Case, CaseFile};

use super::nano::nano_cases;
use crate::failure::UsageError;

/// Name of the cases that are part of the program.
const NANO: &str = "nano";

/// Which of a file's cases.
#[derive(Debug, Args)]
pub(crate) struct SelectionArguments {
    /// Only these categories
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) category: Vec<String>,
    /// Only the first N cases of each category
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

/// Reads a file of cases, or those that are part of the program for `nano`.
pub(crate) fn read_cases(path: &Path) -> anyhow::Result<CaseFile> {
    let cannot_use = || format!("cannot use the cases in `{}`", path.display());
    if path == Path::new(NANO) {
        return CaseFile::read(nano_cases()).with_context(cannot_use);
    }
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    CaseFile::read(file).with_context(cannot_use)
}

impl SelectionArguments {
    /// The cases of these categories, all if there are none, and of each at most the limit.
    ///
    /// # Errors
    /// A category that the file does not have, or a selection of nothing.
    pub(crate) fn choose<'a>(&self, cases: &'a [Case]) -> anyhow::Result<Vec<&'a Case>> {
        let mut known: Vec<(&str, usize)> = Vec::new();
        let mut chosen = Vec::new();
        for case in cases {
            let place = known.iter().position(|(name, _)| *name == case.category);
            let place = place.unwrap_or_else(|| {
                known.push((&case.category, 0));
                known.len() - 1
            });
            let asked = self.category.is_empty() || self.category.contains(&case.category);
            if asked && self.limit.is_none_or(|limit| known[place].1 < limit) {
                known[place].1 += 1;
                chosen.push(case);
            }
        }
        let is_known = |name: &&String| known.iter().any(|(known, _)| known == name);
        if let Some(unknown) = self.category.iter().find(|name| !is_known(name)) {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            return Err(UsageError(format!(
                "there is no category `{unknown}`; there are {}",
                names.join(", ")
            ))
            .into());
        }
        if chosen.is_empty() {
            return Err(UsageError("--limit must be at least 1".to_owned()).into());
        }
        Ok(chosen)
    }
}
