//! Measurements as tables, JSON and a chart.

use ds4_eval::{Case, Tally};
use serde_json::{Map, Value, json};

use super::{Bar, BarChart, BarPanel, DraftComparison, Measurement};
use crate::output::Output;
use crate::table::{Table, bytes};

/// Measurements; the first is the reference of the others.
pub(crate) struct QualityReport<'a> {
    pub(crate) cases: &'a [&'a Case],
    pub(crate) measurements: &'a [Measurement],
    /// Where the cases are from.
    pub(crate) source: String,
    /// Where the text is from, if there is one.
    pub(crate) text: Option<String>,
    pub(crate) backend: &'static str,
    pub(crate) drafts: Option<DraftComparison>,
}

impl QualityReport<'_> {
    /// Categories in the order of the cases.
    fn categories(&self) -> Vec<&str> {
        let mut categories: Vec<&str> = Vec::new();
        for case in self.cases {
            if !categories.contains(&case.category.as_str()) {
                categories.push(&case.category);
            }
        }
        categories
    }

    fn tally(&self, measurement: &Measurement, category: &str) -> Tally {
        let mut tally = Tally::default();
        for result in &measurement.results.results {
            if self.cases[result.case].category == category {
                tally.add(result.verdict.is_ok());
            }
        }
        tally
    }

    /// Everything, for scripts.
    pub(crate) fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .measurements
            .iter()
            .map(|measurement| {
                let total = measurement.total();
                let (low, high) = total.interval();
                let scores: Map<String, Value> = self
                    .categories()
                    .into_iter()
                    .map(|category| {
                        let share = self.tally(measurement, category).share();
                        (category.to_owned(), share.into())
                    })
                    .collect();
                let mut row = json!({
                    "model": measurement.model,
                    "kv_cache_type": measurement.kv_type,
                    "kv_bytes_per_token": measurement.kv_bytes_per_token,
                    "weight_bytes": measurement.weights,
                    "right": total.right,
                    "total": total.total,
                    "interval_95": [low, high],
                    "scores": scores,
                    "seconds": measurement.seconds,
                });
                if let Some(text) = &measurement.text {
                    row["text"] = json!({
                        "tokens": text.tokens,
                        "nll": text.nll,
                        "nll_error": text.nll_error,
                    });
                }
                if let Some(fidelity) = measurement.fidelity() {
                    row["reference_answers"] = json!({
                        "tokens": fidelity.tokens,
                        "nll": fidelity.nll,
                        "agreement": fidelity.agreement,
                        "same_answers": fidelity.same_answers,
                    });
                }
                row
            })
            .collect();
        json!({
            "cases": self.source,
            "text": self.text,
            "backend": self.backend,
            "drafts": self.drafts.map(DraftComparison::to_json),
            "measurements": rows,
        })
    }

    /// Two tables: one row a measurement, and their scores by category.
    pub(crate) fn write_tables(&self, output: &mut Output) -> anyhow::Result<()> {
        let has_text = self.text.is_some();
        let mut titles = vec!["model", "weights", "KV type", "KV B/token"];
        if has_text {
            titles.push("NLL of the text");
        }
        titles.extend([
            "NLL of answers",
            "same token",
            "same answer",
            "right",
            "95% interval",
        ]);
        let mut table = Table::new(titles);
        for measurement in self.measurements {
            let mut row = vec![
                measurement.model.clone(),
                bytes(measurement.weights as u64),
                measurement.kv_type.to_owned(),
                format!("{:.0}", measurement.kv_bytes_per_token),
            ];
            if let Some(text) = &measurement.text {
                row.push(format!("{:.4} ± {:.4}", text.nll, text.nll_error));
            }
            match measurement.fidelity() {
                None => row.extend(["", "", ""].map(str::to_owned)),
                Some(fidelity) => row.extend([
                    format!("{:.4}", fidelity.nll),
                    format!("{:.2}%", 100.0 * fidelity.agreement),
                    format!(
                        "{} of {}",
                        fidelity.same_answers,
                        measurement.results.results.len()
                    ),
                ]),
            }
            let total = measurement.total();
            let (low, high) = total.interval();
            row.push(format!("{:.1}%", 100.0 * total.share()));
            row.push(format!("{:.1} to {:.1}%", 100.0 * low, 100.0 * high));
            table.row(row);
        }
        output.headline("Quality; likelihoods in nats a token")?;
        for line in table.lines() {
            output.line(&line)?;
        }

        let mut titles = vec!["right answers".to_owned(), "of".to_owned()];
        titles.extend(self.measurements.iter().map(label));
        let mut table = Table::new(titles);
        for category in self.categories() {
            let total = self
                .measurements
                .first()
                .map_or(0, |measurement| self.tally(measurement, category).total);
            let mut row = vec![category.to_owned(), total.to_string()];
            row.extend(self.measurements.iter().map(|measurement| {
                format!("{:.1}%", 100.0 * self.tally(measurement, category).share())
            }));
            table.row(row);
        }
        output.headline("By category")?;
        for line in table.lines() {
            output.line(&line)?;
        }
        if let Some(drafts) = self.drafts {
            output.line("")?;
            output.line(&drafts.sentence())?;
        }
        Ok(())
    }

    /// Right answers, and likelihood of the reference's answers.
    pub(crate) fn chart(&self) -> BarChart {
        let right = self.measurements.iter().map(|measurement| {
            let total = measurement.total();
            let (low, high) = total.interval();
            Bar {
                label: label(measurement),
                value: 100.0 * total.share(),
                range: Some((100.0 * low, 100.0 * high)),
                text: format!("{:.1}", 100.0 * total.share()),
            }
        });
        let nll = self.measurements.iter().filter_map(|measurement| {
            let fidelity = measurement.fidelity()?;
            Some(Bar {
                label: label(measurement),
                value: fidelity.nll,
                range: None,
                text: format!("{:.4}", fidelity.nll),
            })
        });
        BarChart {
            title: format!("Quality on the cases {}", self.source),
            panels: vec![
                BarPanel {
                    title: "right answers, %, with 95% intervals".to_owned(),
                    bars: right.collect(),
                },
                BarPanel {
                    title: "NLL of the reference's answers, nats a token".to_owned(),
                    bars: nll.collect(),
                },
            ],
        }
    }
}

/// A measurement's name in few words.
fn label(measurement: &Measurement) -> String {
    let name = measurement.model.rsplit(['/', '\\']).next();
    let name = name.unwrap_or_default().trim_end_matches(".gguf");
    format!("{name}, {}", measurement.kv_type)
}
