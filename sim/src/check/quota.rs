//! The backend quota and its alarm, judged by what clients were told, what the store measured, and what the log says.
//!
//! Nobody is refused room unless the store has reached the quota or the alarm is raised; what costs nothing is never refused; whatever costs something is refused while
//! the store has reached it. The alarm is raised only by a store that has, and from then until it is lowered no put, transaction with a put, or grant takes
//! effect. What a request costs is etcd's estimate, computed here from its description.
//!
//! Each member has a quota and a store of its own, and raises an alarm of its own; one alarm of anybody's stops them all.

use detcd_core::apply::Write;
use detcd_core::command::AlarmKind;
use detcd_core::ids::MemberId;
use detcd_proto::etcdserverpb as pb;
use pb::request_op::Request;

use super::durability::revision_of;
use super::{Promise, Violation};
use crate::record::{Ask, History, NO_SPACE, Operation, Outcome, Sized};

/// The time between the raising of the alarm and its lowering, as the log tells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Raised {
    /// Whose store was full.
    pub member: MemberId,
    /// The entry that raised it.
    pub index: u64,
    /// The newest revision then.
    pub revision: i64,
    /// The newest revision when it was lowered.
    pub lowered: Option<i64>,
}

/// Every time that the alarm was raised.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AlarmHistory {
    raised: Vec<Raised>,
}

impl AlarmHistory {
    /// One entry of the log, with what it wrote; `revision` is the newest before it.
    ///
    /// # Errors
    /// It wrote what a raised alarm forbids.
    pub fn on_entry(
        &mut self,
        (index, revision): (u64, i64),
        writes: &[Write],
        is_grant: impl Fn(&Write) -> bool,
    ) -> Result<(), String> {
        let is_up = self.raised.iter().any(|raised| raised.lowered.is_none());
        for write in writes {
            match write {
                Write::AlarmRaised(alarm) if alarm.kind == AlarmKind::NoSpace => {
                    self.raised.push(Raised { member: alarm.member, index, revision, lowered: None });
                }
                Write::AlarmLowered(alarm) if alarm.kind == AlarmKind::NoSpace => {
                    let is_it = |raised: &&mut Raised| raised.member == alarm.member && raised.lowered.is_none();
                    let last = self.raised.iter_mut().rfind(is_it);
                    let last = last.ok_or_else(|| format!("entry {index} lowers an alarm that is not raised"))?;
                    last.lowered = Some(revision);
                }
                Write::Row { .. } if is_up => return Err(format!("entry {index} writes a key under a raised alarm")),
                write if is_up && is_grant(write) => {
                    return Err(format!("entry {index} grants a lease under a raised alarm"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The entry of the alarm before this one, since which there must be a reason. Between members an alarm may be long on its way: then there must be one at all.
    fn before(&self, number: usize, places: usize) -> u64 {
        if places > 1 { 0 } else { number.checked_sub(1).map_or(0, |before| self.raised[before].index) }
    }

    /// Whether it may have been raised at some moment between two revisions.
    fn may_be_raised(&self, from: i64, upto: i64) -> bool {
        let meets = |raised: &Raised| raised.revision <= upto && raised.lowered.is_none_or(|lowered| from <= lowered);
        self.raised.iter().any(meets)
    }
}

/// What a request counts for, in bytes.
fn cost(ask: &Ask) -> u64 {
    match ask {
        Ask::Put(request) => cost_of_put(request),
        Ask::Txn(request) => cost_of_txn(request),
        Ask::Range(_) | Ask::Stream(_) | Ask::Delete(_) | Ask::HashKv(_) | Ask::Compact(_) => 0,
    }
}

fn cost_of_put(request: &pb::PutRequest) -> u64 {
    256 + request.key.len() as u64 + request.value.len() as u64
}

fn cost_of_txn(request: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| -> u64 {
        let cost = |op: &pb::RequestOp| match &op.request {
            Some(Request::RequestPut(request)) => cost_of_put(request),
            Some(Request::RequestTxn(request)) => cost_of_txn(request),
            _ => 0,
        };
        ops.iter().map(cost).sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

/// Who has which quota.
pub struct Quotas<'a> {
    /// In bytes, by the places of members. Zero: none that a run reaches.
    pub bytes: &'a [u64],
    /// The place of the member of this id.
    pub place_of: &'a dyn Fn(MemberId) -> Option<usize>,
}

impl Quotas<'_> {
    fn at(&self, place: usize) -> u64 {
        self.bytes.get(place).copied().filter(|bytes| *bytes > 0).unwrap_or(u64::MAX)
    }
}

/// Checks a run in which there are quotas.
///
/// # Errors
/// The first operation that was refused or let through against the rules, or the first alarm without a cause.
pub fn check(history: &History, alarms: &AlarmHistory, quotas: &Quotas<'_>) -> Result<(), Violation> {
    let of_place = sizes_by_place(&history.sizes, quotas.bytes.len());
    let ceilings = ceilings(history);
    let mut floor = 0;
    let mut ends: Vec<(u64, i64)> = Vec::new();
    for (operation, ceiling) in history.operations.iter().zip(ceilings) {
        // Operations come in the order of their ends.
        let before = ends.partition_point(|(end, _)| *end < operation.invoked);
        let from = before.checked_sub(1).map_or(0, |last| ends[last].1);
        let (cost, quota) = (cost(&operation.ask), quotas.at(operation.place));
        let sizes = of_place.get(operation.place).map_or(&[][..], Vec::as_slice);
        let mut sizes = sizes_between(sizes, operation.invoked, operation.completed).peekable();
        let is_measured = sizes.peek().is_some();
        let reaches = |sized: &Sized| quota <= sized.bytes + cost;
        match &operation.outcome {
            Outcome::Uncertain(text) | Outcome::Refused(text) if text == NO_SPACE => {
                let is_right = cost > 0 && (sizes.any(reaches) || alarms.may_be_raised(from, ceiling));
                if !is_right {
                    return Err(wrong(operation, &format!("costs {cost} and was refused although there is room")));
                }
            }
            Outcome::Answered(_) | Outcome::Rejected(..) if cost > 0 && is_measured && sizes.all(reaches) => {
                return Err(wrong(operation, &format!("costs {cost} and was let in although there is no room")));
            }
            _ => {}
        }
        if let Outcome::Answered(answer) = &operation.outcome {
            floor = floor.max(revision_of(answer));
            ends.push((operation.completed, floor));
        }
    }
    let dearest = history.operations.iter().map(|operation| cost(&operation.ask)).max().unwrap_or(0);
    alarms.raised.iter().enumerate().try_for_each(|(number, raised)| {
        let place = (quotas.place_of)(raised.member).ok_or_else(|| unknown(raised))?;
        let sizes = of_place.get(place).ok_or_else(|| unknown(raised))?;
        let before = alarms.before(number, quotas.bytes.len());
        raised_for_a_reason(sizes, (raised, before), dearest, quotas.at(place))
    })
}

fn sizes_by_place(sizes: &[Sized], places: usize) -> Vec<Vec<Sized>> {
    let of = |place: usize| sizes.iter().filter(|sized| sized.place == place).copied().collect();
    (0..places).map(of).collect()
}

fn unknown(raised: &Raised) -> Violation {
    Violation::new(
        Promise::Quota,
        format!("entry {} raises an alarm of {:?}, who never was", raised.index, raised.member),
    )
}

fn wrong(operation: &Operation, what: &str) -> Violation {
    let Operation { client, invoked, ask, .. } = operation;
    Violation::new(Promise::Quota, format!("client {client}, operation {invoked} ({ask:?}) {what}")).by(*invoked)
}

/// The sizes that the member may have gone by between two events: what was measured then, and before it everything since the last one that it was seen to go by.
fn sizes_between(sizes: &[Sized], from: u64, upto: u64) -> impl Iterator<Item = &Sized> {
    let begun = sizes.partition_point(|sized| sized.event < from);
    let is_old = |sized: &Sized| sized.told.is_some_and(|told| told < from);
    let first = sizes[..begun].iter().rposition(is_old).unwrap_or(0);
    let end = sizes.partition_point(|sized| sized.event < upto);
    sizes[first..end.max(first)].iter()
}

/// For each operation, the oldest revision that anybody was told who began after its end.
fn ceilings(history: &History) -> Vec<i64> {
    let mut begun: Vec<(u64, i64)> = Vec::new();
    for operation in &history.operations {
        let is_new = !matches!(&operation.ask, Ask::Range(request) | Ask::Stream(request) if request.serializable)
            && !matches!(&operation.ask, Ask::Txn(_) | Ask::HashKv(_));
        if let (true, Outcome::Answered(answer)) = (is_new, &operation.outcome) {
            begun.push((operation.invoked, revision_of(answer)));
        }
    }
    begun.sort_unstable();
    let mut oldest = i64::MAX;
    for (_, revision) in begun.iter_mut().rev() {
        oldest = oldest.min(*revision);
        *revision = oldest;
    }
    let later = |end: u64| begun.get(begun.partition_point(|(invoked, _)| *invoked <= end));
    history.operations.iter().map(|operation| later(operation.completed).map_or(i64::MAX, |found| found.1)).collect()
}

/// Before an alarm, and after the one `before` it, the store was so large that the dearest request did not fit.
fn raised_for_a_reason(
    sizes: &[Sized],
    (raised, before): (&Raised, u64),
    dearest: u64,
    quota: u64,
) -> Result<(), Violation> {
    // A measure carries the index of its batch and is in force once that is committed: at the latest with the next batch. So it may be the last but one before
    // the alarm before that was still in force after it.
    let known = sizes.iter().filter(|sized| sized.applied <= raised.index);
    let newest_upto = |upto: u64| known.clone().map(|sized| sized.applied).filter(|applied| *applied <= upto).max();
    let first = newest_upto(before).and_then(|newest| newest_upto(newest.checked_sub(1)?)).unwrap_or(0);
    let told = known.clone().filter(|sized| first <= sized.applied);
    let largest = told.map(|sized| sized.bytes).max().unwrap_or(0);
    if largest.saturating_add(dearest) < quota {
        let what = format!("entry {} raises the alarm of {quota} bytes over a store of {largest}", raised.index);
        return Err(Violation::new(Promise::Quota, what));
    }
    Ok(())
}
