//! The team under start/stop, oversubscription, panics and barriers.

use super::*;
use std::collections::HashSet;

#[test]
fn zero_threads_are_refused() {
    assert!(matches!(Team::new(0), Err(TeamError::NoThreads)));
}

#[test]
fn every_member_runs_once_in_a_thread_of_its_own() {
    for threads in [1, 2, 3, 8] {
        let mut team = Team::new(threads).unwrap();
        let seen = Mutex::new(Vec::new());
        team.run(|member| {
            assert_eq!(member.count(), threads);
            seen.lock()
                .unwrap()
                .push((member.index(), std::thread::current().id()));
        });
        let seen = seen.into_inner().unwrap();
        let indices: HashSet<_> = seen.iter().map(|entry| entry.0).collect();
        let ids: HashSet<_> = seen.iter().map(|entry| entry.1).collect();
        assert_eq!(
            (seen.len(), indices.len(), ids.len()),
            (threads, threads, threads)
        );
        assert!(seen.contains(&(0, std::thread::current().id())));
    }
}

#[test]
fn shares_cover_a_range_once() {
    for threads in [1, 2, 3, 5] {
        let mut team = Team::new(threads).unwrap();
        for (length, granule) in [(0, 4), (1, 4), (7, 4), (64, 16), (1000, 7), (3, 0)] {
            let parts = Mutex::new(Vec::new());
            team.run(|member| {
                parts
                    .lock()
                    .unwrap()
                    .push((member.index(), member.share(10..10 + length, granule)));
            });
            let mut parts = parts.into_inner().unwrap();
            parts.sort_by_key(|part| part.0);
            let joined: Vec<usize> = parts.iter().flat_map(|part| part.1.clone()).collect();
            assert_eq!(joined, (10..10 + length).collect::<Vec<_>>());
            for (_, part) in &parts {
                assert!(part.is_empty() || (part.start - 10) % granule.max(1) == 0);
            }
        }
    }
}

#[test]
fn chunks_are_handed_out_once() {
    let mut team = Team::new(4).unwrap();
    let counter = WorkCounter::new();
    for _ in 0..100 {
        counter.reset();
        let taken: Vec<AtomicUsize> = (0..103).map(|_| AtomicUsize::new(0)).collect();
        team.run(|_| {
            while let Some(chunk) = counter.next(5, taken.len()) {
                for item in chunk {
                    taken[item].fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        assert!(taken.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }
}

#[test]
fn barriers_order_phases_in_many_regions() {
    // More members than this machine has cores, so that spinning must give way to sleeping.
    for threads in [2, 3, 6] {
        let mut team = Team::new(threads).unwrap();
        let slots: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        for region in 0..200 {
            team.run(|member| {
                for phase in 0..5 {
                    let now = region * 10 + phase * 2;
                    slots[member.index()].store(now, Ordering::Relaxed);
                    member.barrier();
                    for slot in &slots {
                        assert_eq!(slot.load(Ordering::Relaxed), now);
                    }
                    member.barrier();
                }
            });
        }
    }
}

#[test]
fn start_and_stop_many_times() {
    for round in 0..200 {
        let mut team = Team::new(1 + round % 5).unwrap();
        let sum = AtomicUsize::new(0);
        for _ in 0..round % 4 {
            team.run(|member| {
                sum.fetch_add(member.index() + 1, Ordering::Relaxed);
            });
        }
        let threads = team.thread_count();
        assert_eq!(sum.into_inner(), (round % 4) * threads * (threads + 1) / 2);
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_team_lives_on() {
    let mut team = Team::new(3).unwrap();
    for culprit in 0..3 {
        for before_barrier in [true, false] {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.run(|member| {
                    if before_barrier && member.index() == culprit {
                        resume_unwind(Box::new(culprit));
                    }
                    member.barrier();
                    if member.index() == culprit {
                        resume_unwind(Box::new(culprit));
                    }
                    member.barrier();
                });
            }));
            assert_eq!(outcome.unwrap_err().downcast_ref::<usize>(), Some(&culprit));
            let runs = AtomicUsize::new(0);
            team.run(|member| {
                member.barrier();
                runs.fetch_add(1, Ordering::Relaxed);
                member.barrier();
            });
            assert_eq!(runs.into_inner(), 3);
        }
    }
}
