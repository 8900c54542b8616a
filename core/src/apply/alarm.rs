//! Alarms: listing, raising and lowering them, and what a raised one forbids.
//!
//! Invariant: what is refused for an alarm is refused alike on every member, because the alarm is in the log, too.

use alloc::vec;
use alloc::vec::Vec;

use super::{Outcome, Step, Write};
use crate::alarm::{Alarm, Alarms};
use crate::command::{AlarmAction, AlarmKind, AlarmRequest, Command};
use crate::quota;
use crate::reply::{Rejected, Reply};

/// Why a command is refused as long as some alarm is raised. Diverging data weigh more than a full store.
pub(super) fn refuse(alarms: &Alarms, command: &Command) -> Option<Rejected> {
    if alarms.any(AlarmKind::Corrupt) && touches_data(command) {
        return Some(Rejected::Corrupt);
    }
    if alarms.any(AlarmKind::NoSpace) && grows(command) {
        return Some(Rejected::NoSpace);
    }
    None
}

const fn touches_data(command: &Command) -> bool {
    match command {
        Command::Put(_)
        | Command::Range(_)
        | Command::DeleteRange(_)
        | Command::Txn(_)
        | Command::Compaction(_)
        | Command::LeaseGrant(_)
        | Command::LeaseRevoke(_) => true,
        Command::LeaseCheckpoint(_)
        | Command::Alarm(_)
        | Command::Auth(_)
        | Command::ClusterVersionSet(_)
        | Command::ClusterMemberAttrSet(_)
        | Command::DowngradeInfoSet(_)
        | Command::DowngradeVersionTest(_) => false,
    }
}

fn grows(command: &Command) -> bool {
    match command {
        Command::Put(_) | Command::LeaseGrant(_) => true,
        Command::Txn(request) => 0 < quota::txn_cost(request),
        _ => false,
    }
}

/// Carries out an alarm request.
pub(super) fn apply(alarms: &Alarms, request: &AlarmRequest) -> Step {
    let alarm = Alarm { member: request.member, kind: request.alarm };
    let answer = |listed: Vec<Alarm>| Step::answer(Reply::Alarms(listed));
    match request.action {
        AlarmAction::Get => {
            let wanted = |found: &Alarm| alarm.kind == AlarmKind::None || found.kind == alarm.kind;
            answer(alarms.iter().filter(wanted).collect())
        }
        AlarmAction::Activate if alarm.kind == AlarmKind::None => answer(Vec::new()),
        AlarmAction::Activate if alarms.contains(alarm) => answer(vec![alarm]),
        AlarmAction::Activate => changed(alarm, Write::AlarmRaised(alarm)),
        AlarmAction::Deactivate if alarms.contains(alarm) => changed(alarm, Write::AlarmLowered(alarm)),
        AlarmAction::Deactivate => answer(Vec::new()),
        AlarmAction::Unknown(_) => Step::Unbuilt("an alarm action that etcd does not know"),
    }
}

fn changed(alarm: Alarm, write: Write) -> Step {
    Step::Done(Outcome { reply: Ok(Reply::Alarms(vec![alarm])), writes: vec![write], events: Vec::new() })
}
