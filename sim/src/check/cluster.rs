//! All promises of a cluster: those of each member, of all of them together, and between them.

use std::time::Duration;

use super::consensus::Ledger;
use super::quota::{self, Quotas};
use super::{Violation, archive, bounds, heard, latency, lease, progress, replay, watch};
use crate::clients::archivist::Archive;
use crate::gauges::Fullest;
use crate::leases::LeaseHistory;
use crate::machine::Machine;
use crate::options::Options;
use crate::record::{Recorder, Watches};
use crate::world::{World, log_dir};

/// What a run left of one member.
pub struct Left<'a> {
    /// Under it.
    pub machine: &'a Machine,
    /// How it was set up.
    pub options: &'a Options,
    /// How full everything has been.
    pub fullest: Fullest,
}

impl<'a> Left<'a> {
    /// What is left of this one.
    #[must_use]
    pub fn of(world: &'a World) -> Self {
        let World { machine, options, .. } = world;
        Self { machine, options, fullest: world.fullest() }
    }
}

/// All oracles, over what the run left. The members are level: each store stands at the same place of the log, or a little behind.
///
/// # Errors
/// The first broken promise.
pub fn judge(
    options: &Options,
    members: &[Left<'_>],
    (recorder, watches, archive): (&Recorder, &Watches, &Archive),
    leases: &LeaseHistory,
    (ledger, quotas, healed): (&Ledger, &[u64], u64),
) -> Result<(), Violation> {
    ledger.check()?;
    let committed = ledger.committed();
    let machines: Vec<&Machine> = members.iter().map(|left| left.machine).collect();
    let snapshots = archive::read(&archive.taken())?;
    let replayed = replay::replay_all(&machines, &committed, &snapshots)?;
    for Left { machine, options, .. } in members {
        replay::check_log(machine, &log_dir(&options.member), &committed)?;
    }
    let (history, rows) = heard::check(options, recorder, &replayed, (ledger.members(), healed))?;
    if quotas.iter().any(|bytes| *bytes > 0) {
        let place_of = |id| ledger.place_of(id);
        quota::check(&history, &replayed.raised, &Quotas { bytes: quotas, place_of: &place_of })?;
    }
    archive::check(&snapshots, &replayed.history)?;
    let end = leases.lives.last().map_or(Duration::ZERO, |life| life.1);
    let foremost = machines.iter().max_by_key(|machine| replay::applied(machine)).expect("there is a member");
    lease::check(leases, foremost.look().tables(), &rows, end)?;
    watch::check(watches, &rows, replayed.compactions(), options.watch.limits.fragment_bytes)?;
    members.iter().try_for_each(|left| bounds::check(left.options, &left.fullest, &rows))?;
    progress::check(&history, healed)?;
    latency::check(&history, healed)?;
    latency::watchers(options, watches, &history, healed)?;
    latency::holders(leases, history.sent_at(healed))
}
