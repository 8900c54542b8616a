//! A lease lives as long as it was promised, and not much longer.
//!
//! Judged by what clients saw and when they asked, by virtual time: never gone before the last answered renewal's time to live is over; never turned away if
//! the renewal was sent in time and reached whoever leads; never there long after, whatever crashed, paused or had no room in between. Keys that name a lease at the end name one
//! that exists. Whoever looks at one is told the time that it was granted for, and the keys that hang on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use detcd_proto::leasepb;
use detcd_proto::mvccpb::KeyValue;
use prost::Message as _;

use super::rows::{Change, Rows};
use super::{Promise, Violation};
use crate::leases::{Did, LeaseHistory, LeaseOperation, Look, Saw, Span};
use crate::store::Tables;
use crate::world::{CHECKPOINT_MILLIS, LEASE_TTL_MIN};
use detcd_io::store::buckets::Bucket;

/// What a new leader adds.
const EXTENSION: Duration = Duration::from_millis(1_000);
/// A renewal that is sent so long before the end is in time.
const IN_TIME: Duration = Duration::from_millis(500);
/// How long an operation of unknown fate may still take effect.
const LINGER: Duration = Duration::from_secs(8);
/// A tick, a revocation's way through the log, the time until a member leads and has proved it.
const SLACK: Duration = Duration::from_millis(1_500);
/// A revocation that failed waits so long.
const RETRY: Duration = Duration::from_millis(3_500);

/// Checks what was seen of every lease, and what is left at `end`.
///
/// # Errors
/// The first lease whose life was too short or too long.
pub fn check(history: &LeaseHistory, tables: &Tables, rows: &Rows, end: Duration) -> Result<(), Violation> {
    let left = left(tables)?;
    let mut leases: BTreeMap<i64, Vec<&LeaseOperation>> = BTreeMap::new();
    for operation in &history.operations {
        leases.entry(operation.id).or_default().push(operation);
    }
    for (id, operations) in &leases {
        let Some(life) = Life::of(operations) else { continue };
        life.never_early(history).map_err(|what| wrong(*id, &what))?;
        life.bounded_late(history, left.contains(id).then_some(end)).map_err(|what| wrong(*id, &what))?;
    }
    let mut granted = BTreeMap::new();
    for operation in &history.operations {
        if let Did::Grant(ttl) = operation.did {
            granted.insert(operation.id, ttl.max(LEASE_TTL_MIN));
        }
    }
    for look in &history.looks {
        let what = match granted.get(&look.id) {
            Some(ttl) if *ttl != look.granted => Err(format!("was granted for {ttl} s, and {look:?}")),
            None => Err(format!("was granted to nobody, and {look:?}")),
            Some(_) if history.is_of_several => attached_ever(look, rows),
            Some(_) => attached(look, rows),
        };
        what.map_err(|what| wrong(look.id, &what))?;
    }
    for (key, kv) in rows.state(rows.current()) {
        if kv.lease != 0 && !left.contains(&kv.lease) {
            return Err(wrong(kv.lease, &format!("is gone, and its key {key:?} is not")));
        }
    }
    Ok(())
}

/// The keys of a look are those that hung on the lease at one of the revisions that it can have been at.
fn attached(look: &Look, rows: &Rows) -> Result<(), String> {
    let (from, upto) = look.revisions;
    if upto < from {
        return Err(format!("was looked at before {from}, which was told before: {look:?}"));
    }
    let hangs = |kv: &KeyValue| kv.lease == look.id;
    let (mut touched, mut hung): (BTreeSet<&Bytes>, BTreeSet<&Bytes>) = Default::default();
    let between = (Bound::Excluded(from), Bound::Included(upto));
    for change in rows.changes.range(between).flat_map(|(_, changes)| changes) {
        match change {
            Change::Put(kv) if hangs(kv) => hung.insert(&kv.key),
            Change::Put(KeyValue { key, .. }) | Change::Delete(key) => touched.insert(key),
        };
    }
    let hung_before = |key: &Bytes| rows.at(key, from).is_some_and(hangs);
    if let Some(key) = look.keys.iter().find(|key| !hung.contains(key) && !hung_before(key)) {
        return Err(format!("has never had {key:?}: {look:?}"));
    }
    let is_left_out = |key: &&Bytes| !look.keys.contains(*key) && !touched.contains(key) && hung_before(key);
    match rows.keys().find(is_left_out) {
        Some(key) => Err(format!("has {key:?}: {look:?}")),
        None => Ok(()),
    }
}

/// Among several members who answers may be behind, or ahead of whom the revision is of.
fn attached_ever(look: &Look, rows: &Rows) -> Result<(), String> {
    let hung = |key: &Bytes| {
        let mut changes = rows.changes.values().flatten();
        changes.any(|change| matches!(change, Change::Put(kv) if kv.lease == look.id && kv.key == key))
    };
    match look.keys.iter().find(|key| !hung(key)) {
        Some(key) => Err(format!("has never had {key:?}: {look:?}")),
        None => Ok(()),
    }
}

fn wrong(id: i64, what: &str) -> Violation {
    Violation::new(Promise::Lease, format!("lease {id} {what}"))
}

/// The leases of the store's table.
fn left(tables: &Tables) -> Result<BTreeSet<i64>, Violation> {
    let table = tables.get(&Bucket::Lease).cloned().unwrap_or_default();
    let read = |value: Bytes| leasepb::Lease::decode(value).map(|lease| lease.id);
    table.into_values().map(read).collect::<Result<_, _>>().map_err(|error| wrong(0, &error.to_string()))
}

/// One lease that was granted for certain.
struct Life<'a> {
    ttl: Duration,
    operations: &'a [&'a LeaseOperation],
}

impl<'a> Life<'a> {
    fn of(operations: &'a [&'a LeaseOperation]) -> Option<Self> {
        let ttl = operations.iter().find_map(|operation| match (operation.did, operation.saw) {
            (Did::Grant(ttl), Saw::Done) => Some(ttl.max(LEASE_TTL_MIN)),
            _ => None,
        })?;
        Some(Self { ttl: Duration::from_secs(ttl.cast_unsigned()), operations })
    }

    /// Answers that promised it a whole time to live.
    fn promises(&self) -> impl Iterator<Item = &'a LeaseOperation> + '_ {
        self.operations.iter().copied().filter(|operation| {
            matches!((operation.did, operation.saw), (Did::Grant(_), Saw::Done) | (Did::Renew, Saw::Alive(_)))
        })
    }

    fn never_early(&self, history: &LeaseHistory) -> Result<(), String> {
        let gone = |operation: &&&LeaseOperation| operation.saw == Saw::Gone;
        for operation in self.operations.iter().filter(gone) {
            let is_revoked =
                self.operations.iter().any(|other| other.did == Did::Revoke && other.sent < operation.ended);
            if let Some(late) = self.promises().find(|promise| operation.ended < promise.sent) {
                return Err(format!("was gone, says {operation:?}, and there again, says {late:?}"));
            }
            if is_revoked {
                continue;
            }
            if let Some(broken) = self.promises().find(|promise| operation.ended < promise.sent + self.ttl) {
                return Err(format!("is gone, says {operation:?}, although {broken:?} promised it {:?}", self.ttl));
            }
            let before = self.promises().filter(|promise| promise.ended <= operation.sent);
            let promised = before.map(|promise| promise.sent + self.ttl).max().unwrap_or_default();
            let is_delayed = history.is_of_several && is_disturbed(history, (operation.sent, operation.ended));
            if operation.did == Did::Renew && operation.sent + IN_TIME <= promised && !is_delayed {
                return Err(format!("was promised until {promised:?} and did not wait for {operation:?}"));
            }
        }
        Ok(())
    }

    fn bounded_late(&self, history: &LeaseHistory, left: Option<Duration>) -> Result<(), String> {
        let seen = self.operations.iter().filter(|operation| match operation.did {
            Did::Look | Did::Renew => matches!(operation.saw, Saw::Alive(_)),
            Did::Attach | Did::List => operation.saw == Saw::Done,
            Did::Grant(_) | Did::Revoke => false,
        });
        let moments = seen.map(|operation| operation.sent).chain(left);
        for moment in moments {
            let renewed = self.operations.iter().filter(|operation| operation.sent < moment);
            let last = renewed
                .filter_map(|operation| match (operation.did, operation.saw) {
                    (Did::Grant(_), _) | (Did::Renew, Saw::Alive(_)) => Some(operation.ended),
                    (Did::Renew, Saw::Unknown) => Some(operation.ended + LINGER),
                    _ => None,
                })
                .max()
                .unwrap_or_default();
            let bound = last + self.ttl + SLACK + self.allowance(history, last, moment);
            if bound < moment {
                return Err(format!("is there at {moment:?}, {:?} after its bound", moment - bound));
            }
        }
        Ok(())
    }

    /// How much longer it may live for what happened between two moments.
    fn allowance(&self, history: &LeaseHistory, from: Duration, upto: Duration) -> Duration {
        let mut more = Duration::ZERO;
        let interval = Duration::from_millis(CHECKPOINT_MILLIS) + SLACK;
        let mut served = Duration::ZERO;
        let mut before: Option<Span> = None;
        for life in &history.lives {
            // The time without a member, and what a new leader does not know of the life before.
            if let Some((_, down)) = before
                && from < life.0
                && down < upto
            {
                let known = interval.min(self.ttl).min(served);
                more += life.0.saturating_sub(down.max(from)) + known + EXTENSION + SLACK;
                served = Duration::ZERO;
            }
            served += overlap(*life, (from, upto));
            before = Some(*life);
        }
        for trouble in &history.troubles {
            let both = overlap(*trouble, (from, upto));
            if both > Duration::ZERO {
                more += both + RETRY;
            }
        }
        more
    }
}

/// Whether anything was wrong in this time, or not one leader led all of it: among several members a renewal may then wait at one that leads nobody.
fn is_disturbed(history: &LeaseHistory, (from, upto): Span) -> bool {
    history.troubles.iter().any(|trouble| overlap(*trouble, (from, upto)) > Duration::ZERO)
        || !history.lives.iter().any(|life| life.0 < from && upto < life.1)
}

fn overlap(left: Span, right: Span) -> Duration {
    left.1.min(right.1).saturating_sub(left.0.max(right.0))
}

#[cfg(test)]
mod tests {
    use detcd_io::store::buckets::RevisionKey;

    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn operation(did: Did, sent: u64, saw: Saw) -> LeaseOperation {
        LeaseOperation { id: 1, did, sent: at(sent), ended: at(sent + 10), saw }
    }

    fn judge(operations: Vec<LeaseOperation>, lives: Vec<Span>, troubles: Vec<Span>) -> Result<(), Violation> {
        let history = LeaseHistory { operations, lives, troubles, ..LeaseHistory::default() };
        check(&history, &Tables::default(), &Rows::default(), at(60_000))
    }

    fn granted() -> LeaseOperation {
        operation(Did::Grant(5), 1_000, Saw::Done)
    }

    #[test]
    fn a_lease_that_goes_when_it_must_is_fine() {
        let story = vec![
            granted(),
            operation(Did::Renew, 3_000, Saw::Alive(5)),
            operation(Did::Look, 8_500, Saw::Alive(0)),
            operation(Did::Look, 9_000, Saw::Gone),
        ];
        assert_eq!(judge(story, vec![(at(0), at(60_000))], vec![]), Ok(()));
    }

    #[test]
    fn one_that_goes_early_is_not() {
        let story = vec![granted(), operation(Did::Look, 5_900, Saw::Gone)];
        assert!(judge(story.clone(), vec![], vec![]).is_err());
        let revoked = [story, vec![operation(Did::Revoke, 2_000, Saw::Done)]].concat();
        assert_eq!(judge(revoked, vec![], vec![]), Ok(()), "its owner ended it");
    }

    #[test]
    fn a_renewal_sent_in_time_is_not_turned_away() {
        let late = LeaseOperation { ended: at(9_000), ..operation(Did::Renew, 3_000, Saw::Gone) };
        assert!(judge(vec![granted(), late], vec![], vec![]).is_err());
        let too_late = LeaseOperation { ended: at(9_000), ..operation(Did::Renew, 5_900, Saw::Gone) };
        assert_eq!(judge(vec![granted(), too_late], vec![], vec![]), Ok(()));
    }

    #[test]
    fn one_that_stays_has_to_have_a_reason() {
        let story = vec![granted(), operation(Did::Look, 9_000, Saw::Alive(0))];
        assert!(judge(story.clone(), vec![(at(0), at(60_000))], vec![]).is_err());
        let restarted = vec![(at(0), at(4_000)), (at(5_000), at(60_000))];
        assert_eq!(judge(story.clone(), restarted, vec![]), Ok(()), "a new leader knows less");
        assert_eq!(judge(story, vec![(at(0), at(60_000))], vec![(at(2_000), at(4_000))]), Ok(()), "it was paused");
    }

    #[test]
    fn a_list_counts_as_a_look() {
        let lives = || vec![(at(0), at(60_000))];
        let listed = |millis, saw| vec![granted(), operation(Did::List, millis, saw)];
        assert!(judge(listed(5_900, Saw::Gone), vec![], vec![]).is_err(), "it is missing too early");
        assert!(judge(listed(9_000, Saw::Done), lives(), vec![]).is_err(), "it is there too long");
        assert_eq!(judge(listed(5_900, Saw::Done), lives(), vec![]), Ok(()));
        assert_eq!(judge(listed(9_000, Saw::Gone), lives(), vec![]), Ok(()));
    }

    #[test]
    fn nothing_comes_back() {
        let story =
            vec![granted(), operation(Did::Look, 7_000, Saw::Gone), operation(Did::Renew, 7_100, Saw::Alive(5))];
        assert!(judge(story, vec![], vec![]).is_err());
    }

    /// `a` hangs on lease 1 from 2 on, `b` from 3 on; at 4 `a` is written without it.
    fn hung() -> Rows {
        let mut table = super::super::rows::Table::new();
        for (main, key, version, lease) in [(2, "a", 1, 1), (3, "b", 1, 1), (4, "a", 2, 0)] {
            let created = main - 2 * (version - 1);
            let kv = KeyValue {
                key: key.into(),
                create_revision: created,
                mod_revision: main,
                version,
                value: Bytes::new(),
                lease,
            };
            let place = RevisionKey::put(detcd_core::ids::Revision::new(main, 0));
            table.insert(Bytes::copy_from_slice(place.as_slice()), kv.encode_to_vec().into());
        }
        Rows::read(&table).expect("a lawful table")
    }

    fn look_among(is_of_several: bool, granted: i64, keys: &[&'static str], revisions: (i64, i64)) -> Option<String> {
        let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
        let look = Look { id: 1, granted, keys, revisions };
        let operations = vec![self::granted()];
        let history = LeaseHistory { operations, looks: vec![look], is_of_several, ..LeaseHistory::default() };
        let row = leasepb::Lease { id: 1, ttl: 5, ..Default::default() };
        let tables = Tables::from([(Bucket::Lease, [(Bytes::new(), row.encode_to_vec().into())].into())]);
        check(&history, &tables, &hung(), at(2_000)).err().map(|violation| violation.what)
    }

    #[test]
    fn a_look_tells_what_was_granted_and_what_hangs_on_it() {
        let look = |granted, keys: &[&'static str], revisions| look_among(false, granted, keys, revisions).is_some();
        assert!(!look(5, &["a", "b"], (3, 3)));
        assert!(look(6, &["a", "b"], (3, 3)), "it was granted for less");
        assert!(look(5, &["a"], (3, 3)), "b hangs on it, too");
        assert!(look(5, &["a", "b", "c"], (3, 3)), "c never was");
        assert!(look(5, &["a", "b"], (4, 4)), "a does not any more");
        assert!(look(5, &["a", "b"], (4, 3)), "4 was known");
        // At one of these revisions each of them is right.
        for keys in [&["a"][..], &["a", "b"], &["b"]] {
            assert!(!look(5, keys, (2, 4)));
        }
    }

    #[test]
    fn among_several_a_look_may_be_behind() {
        let look = |granted, keys: &[&'static str]| look_among(true, granted, keys, (4, 2)).is_some();
        assert!(!look(5, &["a", "b"]) && !look(5, &[]));
        assert!(look(5, &["c"]), "c never was");
        assert!(look(6, &[]), "it was granted for less");
    }
}
