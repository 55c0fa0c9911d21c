//! Results as a table and as JSON.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use ds4_chat::{Vintage, render};
use ds4_engine::EngineOptions;
use ds4_eval::{Case, Tally};
use serde_json::{Map, Value, json};

use super::runner::{CaseResult, Results};
use crate::output::{Output, visible};
use crate::output_file::OutputFile;
use crate::table::{Table, grouped};

/// Characters of a prompt's end and of an answer that are shown of a wrong case.
const SHOWN: usize = 600;

/// What was asked, of what, and what came of it.
pub(crate) struct Report<'a> {
    pub(crate) cases: &'a [&'a Case],
    pub(crate) results: &'a Results,
    /// Where the cases are from.
    pub(crate) source: String,
    pub(crate) model: String,
    pub(crate) backend: &'static str,
    pub(crate) options: EngineOptions,
    /// Scales behind attention and experts, if the model was steered.
    pub(crate) steering: Option<[f32; 2]>,
    pub(crate) vintage: Vintage,
    /// Cases of each category that were asked, if not all.
    pub(crate) limit: Option<usize>,
    pub(crate) seconds: f64,
}

impl Report<'_> {
    /// Right answers by category, in the order in which the cases have them.
    fn tallies(&self) -> Vec<(&str, Tally)> {
        let mut tallies: Vec<(&str, Tally)> = Vec::new();
        for result in &self.results.results {
            let category = self.cases[result.case].category.as_str();
            let place = tallies.iter().position(|(known, _)| *known == category);
            let place = place.unwrap_or_else(|| {
                tallies.push((category, Tally::default()));
                tallies.len() - 1
            });
            tallies[place].1.add(result.verdict.is_ok());
        }
        tallies
    }

    fn total(&self) -> Tally {
        let mut total = Tally::default();
        for result in &self.results.results {
            total.add(result.verdict.is_ok());
        }
        total
    }

    fn sum(&self, tokens: impl Fn(&CaseResult) -> usize) -> usize {
        self.results.results.iter().map(tokens).sum()
    }

    /// Scores, counts and settings.
    pub(crate) fn to_json(&self) -> Value {
        let tallies = self.tallies();
        let scores: Map<String, Value> = tallies
            .iter()
            .map(|(category, tally)| ((*category).to_owned(), tally.share().into()))
            .collect();
        let counts: Map<String, Value> = tallies
            .iter()
            .map(|(category, tally)| ((*category).to_owned(), tally_json(*tally)))
            .collect();
        json!({
            "scores": scores,
            "counts": counts,
            "total": tally_json(self.total()),
            "cut_off": self.sum(|result| usize::from(result.cut_off)),
            "interrupted": self.results.interrupted,
            "tokens": {
                "prompts": self.sum(|result| result.prompt_tokens),
                "prefilled": self.results.prefilled,
                "answers": self.sum(|result| result.answer_tokens),
                "reasoning": self.sum(|result| result.reasoning_tokens),
            },
            "seconds": self.seconds,
            "settings": {
                "cases": self.source,
                "limit": self.limit,
                "model": self.model,
                "vintage": match self.vintage {
                    Vintage::April => "april",
                    Vintage::Release0731 => "0731",
                },
                "temperature": 0,
                "backend": self.backend,
                "kv_cache_type": self.options.kv_format.name(),
                "context": self.options.context,
                "steering": self.steering,
            },
        })
    }

    /// As [`to_json`](Self::to_json), with every case, to a file.
    pub(crate) fn write_file(&self, path: &Path) -> anyhow::Result<()> {
        let mut report = self.to_json();
        let cases: Vec<Value> = self
            .results
            .results
            .iter()
            .map(|result| {
                let case = self.cases[result.case];
                json!({
                    "id": case.id,
                    "category": case.category,
                    "right": result.verdict.is_ok(),
                    "wrong": result.verdict.as_ref().err().map(ToString::to_string),
                    "expected": case.check.to_string(),
                    "answer": result.text,
                    "cut_off": result.cut_off,
                    "prompt_tokens": result.prompt_tokens,
                    "answer_tokens": result.answer_tokens,
                    "reasoning_tokens": result.reasoning_tokens,
                })
            })
            .collect();
        report["cases"] = cases.into();
        let mut file = OutputFile::create(path)?;
        serde_json::to_writer_pretty(&mut file, &report)
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(b"\n"))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        file.finish()
    }

    /// The table.
    pub(crate) fn write_table(&self, output: &mut Output) -> anyhow::Result<()> {
        output.headline(&format!(
            "{}, cases {}, backend {}, KV type {}",
            self.model,
            self.source,
            self.backend,
            self.options.kv_format.name()
        ))?;
        let mut table = Table::new(["category", "right", "of", "share", "95% interval"]);
        let mut row = |name: &str, tally: Tally| {
            let (low, high) = tally.interval();
            table.row([
                name.to_owned(),
                grouped(tally.right as u64),
                grouped(tally.total as u64),
                format!("{:.1}%", 100.0 * tally.share()),
                format!("{:.0} to {:.0}%", 100.0 * low, 100.0 * high),
            ]);
        };
        let tallies = self.tallies();
        for (category, tally) in &tallies {
            row(category, *tally);
        }
        if tallies.len() > 1 {
            row("all", self.total());
        }
        for line in table.lines() {
            output.line(&line)?;
        }
        let cut_off = self.sum(|result| usize::from(result.cut_off));
        let mut remark = format!(
            "{} prompt tokens ({} of them computed), {} generated, {:.0} s",
            grouped(self.sum(|result| result.prompt_tokens) as u64),
            grouped(self.results.prefilled as u64),
            grouped(self.sum(|result| result.answer_tokens) as u64),
            self.seconds
        );
        if cut_off > 0 {
            remark.push_str(&format!("; {cut_off} answers were cut off at their limit"));
        }
        output.line(&remark)?;
        Ok(())
    }

    /// Every wrong case: the end of its prompt, what is expected, the answer.
    pub(crate) fn write_wrong_cases(&self, output: &mut Output) -> anyhow::Result<()> {
        for result in &self.results.results {
            let Err(failure) = &result.verdict else {
                continue;
            };
            let case = self.cases[result.case];
            let prompt = render(&case.conversation(), self.vintage)?.text();
            output.headline(&visible(&case.id))?;
            for (name, text) in [
                ("prompt", tail(&prompt)),
                ("expected", case.check.to_string()),
                ("got", tail(&result.text)),
                ("wrong", failure.to_string()),
            ] {
                output.line(&format!("  {name:<8}  {}", indented(&visible(&text))))?;
            }
        }
        Ok(())
    }
}

fn tally_json(tally: Tally) -> Value {
    let (low, high) = tally.interval();
    json!({
        "right": tally.right,
        "total": tally.total,
        "interval_95": [low, high],
    })
}

/// The end of a text, with a mark where the beginning is missing.
fn tail(text: &str) -> String {
    match text.char_indices().rev().nth(SHOWN - 1) {
        Some((start, _)) if start > 0 => format!("…{}", &text[start..]),
        _ => text.to_owned(),
    }
}

/// Later lines below the first.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n            ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_show_their_end() {
        assert_eq!(tail("short"), "short");
        assert_eq!(tail(&"é".repeat(SHOWN)), "é".repeat(SHOWN));
        let long = format!("x{}", "é".repeat(SHOWN));
        assert_eq!(tail(&long), format!("…{}", "é".repeat(SHOWN)));
    }
}
