//! All promises of a cluster: those of each member, of all of them together, and between them.

use std::time::Duration;

use detcd_core::mvcc::View as _;

use super::consensus::Ledger;
use super::rows::Rows;
use super::{Violation, bounds, durability, lease, linear, progress, replay, watch};
use crate::gauges::Fullest;
use crate::leases::LeaseHistory;
use crate::machine::Machine;
use crate::options::Options;
use crate::record::{Recorder, Watches};
use crate::world::log_dir;

/// All oracles, over what the run left. The members are level: each store stands at the same place of the log, or a little behind.
///
/// # Errors
/// The first broken promise.
pub fn judge(
    options: &Options,
    members: &[(&Machine, Fullest)],
    (recorder, watches): (&Recorder, &Watches),
    leases: &LeaseHistory,
    (ledger, healed): (&Ledger, u64),
) -> Result<(), Violation> {
    ledger.check()?;
    let committed = ledger.committed();
    let machines: Vec<&Machine> = members.iter().map(|(machine, _)| *machine).collect();
    let replayed = replay::replay_all(&machines, &committed)?;
    for machine in &machines {
        replay::check_log(machine, &log_dir(&options.member), &committed)?;
    }
    let rows = Rows::read(&replayed.history)?;
    let history = recorder.history();
    durability::check(&history, &rows)?;
    linear::check(&history, &rows, ledger.members())?;
    let end = leases.lives.last().map_or(Duration::ZERO, |life| life.1);
    let foremost = machines.iter().max_by_key(|machine| replay::applied(machine)).expect("there is a member");
    lease::check(leases, foremost.look().tables(), &rows, end)?;
    watch::check(watches, &rows, replayed.compacted(), options.watch.limits.fragment_bytes)?;
    members.iter().try_for_each(|(_, fullest)| bounds::check(options, fullest, &rows))?;
    progress::check(&history, healed)
}
