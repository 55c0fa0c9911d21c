//! Engine and sessions: prefix sync, sampling, snapshots, memory plan.
