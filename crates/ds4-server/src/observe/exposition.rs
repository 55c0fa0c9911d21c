//! `GET /metrics`: figures as Prometheus reads them (text format 0.0.4).

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use ds4_engine::{DiskStatus, EngineStatus, GateState, ModelFacts, SpeculationStatus};

use super::metrics::{HistogramState, Metrics};

/// Writes all figures.
pub(crate) fn exposition(metrics: &Metrics, status: &EngineStatus, facts: &ModelFacts) -> String {
    let mut text = MetricText::default();
    text.family("ds4_info", "gauge", "The model and what runs it");
    text.sample(
        "ds4_info",
        &[
            ("model", &facts.name),
            ("backend", facts.backend),
            ("version", env!("CARGO_PKG_VERSION")),
        ],
        1,
    );
    let started = metrics.started.duration_since(UNIX_EPOCH);
    text.gauge(
        "ds4_start_time_seconds",
        "When the server started, in seconds since 1970",
        started.unwrap_or_default().as_secs_f64(),
    );
    server(&mut text, metrics);
    engine(&mut text, status);
    if let Some(disk) = &status.disk {
        checkpoints(&mut text, disk);
    }
    text.0
}

fn server(text: &mut MetricText, metrics: &Metrics) {
    let name = "ds4_http_requests_total";
    text.family(
        name,
        "counter",
        "Requests answered; status 499: the client left first",
    );
    for (key, count) in metrics.requests() {
        let status = key.status.to_string();
        let labels = [
            ("route", key.route.as_str()),
            ("method", key.method),
            ("status", &status),
        ];
        text.sample(name, &labels, count);
    }
    text.gauge(
        "ds4_http_requests_in_flight",
        "Requests being answered",
        metrics.in_flight.load(Ordering::Relaxed),
    );
    text.gauge(
        "ds4_http_connections",
        "Open connections",
        metrics.connections.load(Ordering::Relaxed),
    );
    text.counter(
        "ds4_trace_errors_total",
        "Traces that could not be written",
        metrics.trace_errors.load(Ordering::Relaxed),
    );
    text.histogram(
        "ds4_time_to_first_token_seconds",
        "From the request's arrival to its first token",
        &metrics.first_token.state(),
    );
    text.histogram(
        "ds4_inter_token_seconds",
        "Between two tokens of an answer",
        &metrics.inter_token.state(),
    );
    text.histogram(
        "ds4_queue_seconds",
        "In the engine's queue",
        &metrics.queue.state(),
    );
    text.histogram(
        "ds4_generation_seconds",
        "From the request's arrival to the end of its answer",
        &metrics.generation.state(),
    );
}

fn engine(text: &mut MetricText, status: &EngineStatus) {
    text.gauge("ds4_requests_queued", "Requests that wait", status.queued);
    text.gauge(
        "ds4_queue_capacity",
        "Requests that can wait before new ones are refused",
        status.queue_capacity,
    );
    text.gauge(
        "ds4_requests_running",
        "Requests being worked on",
        status.running.len(),
    );
    text.gauge(
        "ds4_slots",
        "Requests that can be worked on at the same time",
        status.slots,
    );
    let totals = &status.totals;
    for (name, help, value) in [
        ("ds4_requests_total", "Requests taken", totals.requests),
        (
            "ds4_requests_refused_total",
            "Requests refused for a full queue",
            totals.refused,
        ),
        (
            "ds4_requests_finished_total",
            "Requests that finished",
            totals.finished,
        ),
        (
            "ds4_requests_cancelled_total",
            "Finished requests that were cancelled",
            totals.cancelled,
        ),
        (
            "ds4_requests_failed_total",
            "Requests that failed",
            totals.failed,
        ),
        (
            "ds4_requests_preempted_total",
            "Times that a request lost its place for lack of pages",
            totals.preempted,
        ),
        ("ds4_steps_total", "Steps of the model", totals.steps),
        (
            "ds4_prompt_tokens_total",
            "Prompt tokens of requests that started",
            totals.prompt_tokens,
        ),
        (
            "ds4_prefilled_tokens_total",
            "Prompt tokens that were computed",
            totals.prefilled_tokens,
        ),
        (
            "ds4_generated_tokens_total",
            "Tokens generated",
            totals.generated_tokens,
        ),
        (
            "ds4_drafted_tokens_total",
            "Tokens proposed by speculation",
            totals.drafted_tokens,
        ),
        (
            "ds4_accepted_tokens_total",
            "Proposed tokens that the model confirmed",
            totals.accepted_tokens,
        ),
    ] {
        text.counter(name, help, value);
    }
    let name = "ds4_cached_tokens_total";
    text.family(name, "counter", "Prompt tokens found in the KV cache");
    for (kind, value) in [
        ("live", totals.cached_live),
        ("kept", totals.cached_kept),
        ("disk", totals.cached_disk),
    ] {
        text.sample(name, &[("kind", kind)], value);
    }
    let name = "ds4_tokens_per_second";
    text.family(name, "gauge", "Speed over the last seconds");
    text.sample(name, &[("kind", "prefill")], status.speed.prefill);
    text.sample(name, &[("kind", "decode")], status.speed.decode);
    if let Some(speculation) = &status.speculation {
        drafts(text, speculation);
    }
    let memory = &status.memory;
    let name = "ds4_kv_pages";
    text.family(name, "gauge", "Pages of the KV cache");
    let kept = memory
        .pages
        .saturating_sub(memory.free_pages)
        .saturating_sub(memory.running_pages);
    for (state, value) in [
        ("free", memory.free_pages),
        ("running", memory.running_pages),
        ("kept", kept),
    ] {
        text.sample(name, &[("state", state)], value);
    }
    text.gauge(
        "ds4_kept_points",
        "Points that requests can start from",
        memory.kept_points,
    );
    text.gauge(
        "ds4_kept_bytes",
        "Bytes of kept points, beside their pages",
        memory.kept_bytes,
    );
    text.gauge(
        "ds4_kept_bytes_limit",
        "Most bytes of kept points",
        memory.kept_bytes_limit,
    );
}

fn drafts(text: &mut MetricText, speculation: &SpeculationStatus) {
    text.gauge(
        "ds4_speculation_open",
        "1 if drafting pays at present",
        u8::from(speculation.gate == GateState::Open),
    );
    if let Some(cost) = speculation.row_cost {
        let help = "What a drafted row costs, as a share of a token's time";
        text.gauge("ds4_speculation_row_cost", help, cost);
    }
    let name = "ds4_speculation_tokens_total";
    text.family(name, "counter", "Drafted tokens by source");
    let lookup = (speculation.lookup_drafted, speculation.lookup_accepted);
    let mtp = (speculation.mtp_drafted, speculation.mtp_accepted);
    for (source, (drafted, accepted)) in [("lookup", lookup), ("mtp", mtp)] {
        let refused = drafted.saturating_sub(accepted);
        for (outcome, count) in [("accepted", accepted), ("refused", refused)] {
            text.sample(name, &[("source", source), ("outcome", outcome)], count);
        }
    }
}

fn checkpoints(text: &mut MetricText, disk: &DiskStatus) {
    text.gauge(
        "ds4_disk_checkpoints",
        "Checkpoints on disk",
        disk.checkpoints,
    );
    text.gauge("ds4_disk_bytes", "Bytes of checkpoints on disk", disk.bytes);
    text.gauge(
        "ds4_disk_bytes_limit",
        "Most bytes of checkpoints on disk",
        disk.max_bytes,
    );
    text.gauge(
        "ds4_disk_pending",
        "Checkpoints on their way to or from disk",
        disk.pending,
    );
    text.gauge(
        "ds4_disk_read_only",
        "1 if nothing can be saved",
        u8::from(disk.read_only.is_some()),
    );
    for (name, help, value) in [
        ("ds4_disk_saved_total", "Checkpoints saved", disk.saved),
        (
            "ds4_disk_written_bytes_total",
            "Bytes written for checkpoints",
            disk.bytes_written,
        ),
        (
            "ds4_disk_restored_total",
            "Checkpoints restored",
            disk.restored,
        ),
        (
            "ds4_disk_failures_total",
            "Checkpoints that could not be saved or restored",
            disk.failures,
        ),
    ] {
        text.counter(name, help, value);
    }
}

#[derive(Default)]
struct MetricText(String);

impl MetricText {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, state: &HistogramState) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in &state.buckets {
            self.sample(&bucket, &[("le", &bound.to_string())], count);
        }
        self.sample(&bucket, &[("le", "+Inf")], state.count);
        self.sample(&format!("{name}_sum"), &[], state.sum);
        self.sample(&format!("{name}_count"), &[], state.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_on_disk_are_told_by_number() {
        let disk = DiskStatus {
            checkpoints: 3,
            bytes: 700,
            read_only: Some("a full disk".to_owned()),
            failures: 2,
            ..DiskStatus::default()
        };
        let mut text = MetricText::default();
        checkpoints(&mut text, &disk);
        for line in [
            "ds4_disk_checkpoints 3",
            "ds4_disk_bytes 700",
            "ds4_disk_read_only 1",
            "ds4_disk_failures_total 2",
            "ds4_disk_restored_total 0",
        ] {
            assert!(text.0.lines().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = MetricText::default();
        text.sample("a", &[("b", "x\"\\\ny"), ("c", "")], 1.5);
        assert_eq!(text.0, "a{b=\"x\\\"\\\\\\ny\",c=\"\"} 1.5\n");
    }
}
