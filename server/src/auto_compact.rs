//! Compaction that nobody asks for: the schedule is the engine's ([`detcd_core::mvcc::auto_compact`]); here are the clock and the proposals.

use std::time::Duration;

use detcd_core::mvcc::auto_compact::{AutoCompaction, Retention};
use detcd_core::reply::Rejected;
use detcd_io::clock::Instant;
use detcd_io::codec::entry::Field;
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb as pb;

use crate::member::Member;
use crate::mutants::mutated;

/// Compacts until the member stops.
pub async fn run<B: Backend>(member: Member<B>, retention: Retention) {
    let began = Instant::now();
    let now = || u64::try_from((Instant::now() - began).as_millis()).unwrap_or(u64::MAX);
    let mut schedule = AutoCompaction::new(retention, now(), member.store().current());
    loop {
        tokio::select! {
            biased;
            () = member.asker().stopped() => return,
            () = tokio::time::sleep(Duration::from_millis(schedule.pause())) => {}
        }
        let leads = member.asker().gauges().leads();
        let current = member.store().current();
        let Some(revision) = schedule.due(now(), current, leads) else { continue };
        if mutated!(member.limits(), OldKept) {
            schedule.done(now(), revision);
            continue;
        }
        let revision = if mutated!(member.limits(), YoungCompacted) { current } else { revision };
        tracing::info!(revision, ?retention, "starting auto compaction");
        let request = pb::CompactionRequest { revision, physical: false };
        match member.propose(Field::Compaction, &request).await.map(|answer| answer.reply) {
            Ok(Ok(_) | Err(Rejected::Compacted)) => {
                schedule.done(now(), revision);
                tracing::info!(revision, "completed auto compaction");
            }
            Ok(Err(why)) => tracing::warn!(revision, ?why, "failed auto compaction"),
            Err(status) => tracing::warn!(revision, %status, "failed auto compaction"),
        }
    }
}
