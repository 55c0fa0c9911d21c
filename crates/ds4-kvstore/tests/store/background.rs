//! The background writer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use ds4_kvstore::{
    BackgroundWriter, SaveError, SegmentSource, Store, Submitted, WriteJob, WriteReport,
};

use crate::conversation::*;
use crate::simulated_disk::SimulatedDisk;

fn job(store: &Store, conversation: u64, tokens: &[u32]) -> WriteJob {
    WriteJob {
        conversation,
        plan: store.plan(&KEY, tokens).unwrap(),
        data: data(tokens, 0),
        source: Box::new(all_rows(tokens)),
    }
}

/// Says when it is asked, and answers when it is told to.
struct Gate {
    asked: Sender<()>,
    open: Receiver<()>,
    rows: BTreeMap<usize, Vec<u8>>,
}

impl SegmentSource for Gate {
    fn segment(&mut self, span: usize) -> io::Result<Option<Cow<'_, [u8]>>> {
        self.asked.send(()).unwrap();
        self.open.recv().map_err(io::Error::other)?;
        self.rows.segment(span)
    }
}

struct Panics;

impl SegmentSource for Panics {
    fn segment(&mut self, _: usize) -> io::Result<Option<Cow<'_, [u8]>>> {
        panic!("a test's panic");
    }
}

fn start(store: &Store, capacity: usize) -> (BackgroundWriter, Receiver<WriteReport>) {
    let (sender, reports) = mpsc::channel();
    let report = move |report| {
        let _ = sender.send(report);
    };
    let writer = BackgroundWriter::start(store.clone(), capacity, report).unwrap();
    (writer, reports)
}

#[test]
fn jobs_are_written_in_the_background() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let (writer, reports) = start(&store, 8);
    for conversation in 1..6_u32 {
        let tokens = tokens(conversation, 4, 10);
        let submitted = writer.submit(job(&store, u64::from(conversation), &tokens));
        assert_eq!(submitted, Submitted::Queued);
    }
    writer.flush();
    for conversation in 1..6_u32 {
        let report = reports.try_recv().unwrap();
        assert_eq!(report.conversation, u64::from(conversation));
        let written = report.result.unwrap().segments_written;
        assert_eq!(written, if conversation == 1 { 2 } else { 1 });
        assert_eq!(version_of(&store, &tokens(conversation, 4, 10)), Some(0));
    }
}

#[test]
fn a_newer_job_replaces_the_waiting_one_of_its_conversation() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let (writer, reports) = start(&store, 2);
    let (asked, is_asked) = mpsc::channel();
    let (opens, open) = mpsc::channel();
    let first = tokens(1, 0, 5);
    let mut gated = job(&store, 1, &first);
    gated.source = Box::new(Gate {
        asked,
        open,
        rows: all_rows(&first),
    });
    assert_eq!(writer.submit(gated), Submitted::Queued);
    // From here on the thread is busy.
    is_asked.recv().unwrap();
    let lengths = tokens(2, 0, 20);
    assert_eq!(
        writer.submit(job(&store, 2, &lengths[..6])),
        Submitted::Queued
    );
    assert_eq!(
        writer.submit(job(&store, 3, &tokens(3, 0, 6))),
        Submitted::Queued
    );
    assert_eq!(
        writer.submit(job(&store, 2, &lengths[..12])),
        Submitted::Replaced
    );
    assert_eq!(
        writer.submit(job(&store, 4, &tokens(4, 0, 6))),
        Submitted::Dropped
    );
    // The one that is being written is not replaced.
    assert_eq!(
        writer.submit(job(&store, 1, &tokens(1, 0, 9))),
        Submitted::Dropped
    );
    opens.send(()).unwrap();
    // Dropping writes what waits.
    drop(writer);
    let done: Vec<_> = reports
        .iter()
        .map(|report| (report.conversation, report.result.is_ok()))
        .collect();
    assert_eq!(done, [(1, true), (3, true), (2, true)]);
    assert_eq!(version_of(&store, &lengths[..12]), Some(0));
    assert_eq!(version_of(&store, &lengths[..6]), None);
    assert_eq!(version_of(&store, &tokens(4, 0, 6)), None);
    // What was replaced or dropped holds nothing back.
    store.prune(0).unwrap();
    assert_eq!(store.usage().bytes, 0);
}

#[test]
fn errors_and_panics_are_reported_and_survived() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let (writer, reports) = start(&store, 4);
    let mut panics = job(&store, 1, &tokens(1, 0, 5));
    panics.source = Box::new(Panics);
    writer.submit(panics);
    let mut empty = job(&store, 2, &tokens(2, 0, 5));
    empty.source = Box::new(BTreeMap::new());
    writer.submit(empty);
    let sound = tokens(3, 0, 5);
    writer.submit(job(&store, 3, &sound));
    writer.flush();
    let results: Vec<_> = reports.try_iter().map(|report| report.result).collect();
    assert!(matches!(results[0], Err(SaveError::Panicked)));
    assert!(matches!(
        results[1],
        Err(SaveError::SegmentGone { span: 0 })
    ));
    assert!(results[2].is_ok());
    assert_eq!(version_of(&store, &sound), Some(0));
}
