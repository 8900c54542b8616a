//! The slow twin of a whole store: keys, leases, alarms and what a cluster says of itself, answered by the letter of the rules.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use detcd_core::alarm::Alarm;
use detcd_core::command::{
    AlarmAction, AlarmKind, AlarmRequest, Command, CompactionRequest, LeaseCheckpointRequest, LeaseGrantRequest,
    LeaseRevokeRequest, Op, TxnRequest,
};
use detcd_core::ids::{LeaseId, MemberId};
use detcd_core::lease::{LeaseRow, TTL_SECONDS_MAX};
use detcd_core::membership::{Downgrade, Version};
use detcd_core::mvcc::View;
use detcd_core::reply::{LeaseGranted, Rejected};

use super::slow::{History, State};
use super::slow_txn::{Change, Told, slowly};
use super::store::Store;

/// What the twin says that a client is told.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Empty,
    Told(Told),
    Granted(LeaseGranted),
    Alarms(Vec<Alarm>),
}

/// What a cluster says of itself: the members by id with name and client URLs, its version, and whether it is on its way to an older one.
pub(super) type Cluster = (BTreeMap<MemberId, (String, Vec<String>)>, Option<Version>, Downgrade);

/// The one member; another one, number 0, has left for good.
pub(super) const MEMBER: MemberId = MemberId(1);

/// The slow twin of a whole store.
pub(super) struct Twin {
    pub(super) history: History,
    pub(super) leases: BTreeMap<LeaseId, LeaseRow>,
    /// Each alarm by its kind's number and its member.
    alarms: BTreeSet<(i32, MemberId)>,
    pub(super) cluster: Cluster,
}

impl Default for Twin {
    fn default() -> Self {
        let leases = Store::default().leases.rows().map(|row| (row.id, row)).collect();
        let cluster = (BTreeMap::from([(MEMBER, Default::default())]), None, Downgrade::default());
        Self { history: History::default(), leases, alarms: BTreeSet::new(), cluster }
    }
}

pub(super) type Expected = (Result<Answer, Rejected>, Vec<Change>);

impl Twin {
    pub(super) fn state(&self) -> &State {
        self.history.states.last().expect("a state")
    }

    pub(super) fn keys_of(&self, id: LeaseId) -> Vec<Bytes> {
        self.state().values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
    }

    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let alarm = |(kind, member): &(i32, MemberId)| Alarm { kind: AlarmKind::from_number(*kind), member: *member };
        self.alarms.iter().map(alarm).collect()
    }

    /// What a raised alarm says to a request: a corrupt cluster works on no data, a full one takes nothing more in.
    fn forbidden(&self, command: &Command) -> Option<Rejected> {
        fn puts(request: &TxnRequest) -> bool {
            request.success.iter().chain(&request.failure).any(|op| match op {
                Op::Put(_) => true,
                Op::Txn(inner) => puts(inner),
                _ => false,
            })
        }
        let (takes_in, works) = match command {
            Command::Put(_) | Command::LeaseGrant(_) => (true, true),
            Command::Txn(request) => (puts(request), true),
            Command::Range(_) | Command::DeleteRange(_) | Command::Compaction(_) | Command::LeaseRevoke(_) => {
                (false, true)
            }
            _ => (false, false),
        };
        let raised = |kind: AlarmKind| self.alarms.iter().any(|(number, _)| *number == kind.number());
        if works && raised(AlarmKind::Corrupt) {
            return Some(Rejected::Corrupt);
        }
        (takes_in && raised(AlarmKind::NoSpace)).then_some(Rejected::NoSpace)
    }

    pub(super) fn apply(&mut self, command: &Command) -> Expected {
        if let Some(why) = self.forbidden(command) {
            return (Err(why), vec![]);
        }
        match command {
            Command::Range(request) => {
                (self.history.range(request).map(|reply| Answer::Told(Told::Range(reply))), vec![])
            }
            Command::Put(request) => self.alone(Op::Put(request.clone())),
            Command::DeleteRange(request) => self.alone(Op::DeleteRange(request.clone())),
            Command::Txn(request) => {
                let (told, changed) = self.carry_out(request);
                (told.map(Answer::Told), changed)
            }
            Command::Compaction(request) => (self.compact(request), vec![]),
            Command::LeaseGrant(request) => (self.grant(request), vec![]),
            Command::LeaseCheckpoint(request) => {
                self.checkpoint(request);
                (Ok(Answer::Empty), vec![])
            }
            Command::LeaseRevoke(request) => self.revoke(request),
            Command::Alarm(request) => (Ok(Answer::Alarms(self.alarm(request))), vec![]),
            Command::ClusterVersionSet(request) => {
                self.cluster.1 = Some(request.version);
                (Ok(Answer::Empty), vec![])
            }
            Command::ClusterMemberAttrSet(request) => {
                if let Some(told) = self.cluster.0.get_mut(&request.member) {
                    *told = (request.name.clone(), request.client_urls.clone());
                }
                (Ok(Answer::Empty), vec![])
            }
            Command::DowngradeInfoSet(request) => {
                let target = if request.enabled { request.version.clone() } else { String::new() };
                self.cluster.2 = Downgrade { enabled: request.enabled, target };
                (Ok(Answer::Empty), vec![])
            }
            Command::DowngradeVersionTest(_) => (Ok(Answer::Empty), vec![]),
            Command::Auth(_) => panic!("not built: {command:?}"),
        }
    }

    /// Whether a request stops a member of this version, or of any.
    pub(super) fn stops(&self, command: &Command) -> bool {
        match command {
            Command::Auth(_) => true,
            Command::Alarm(request) => matches!(request.action, AlarmAction::Unknown(_)),
            Command::ClusterMemberAttrSet(request) => ![MEMBER, MemberId(0)].contains(&request.member),
            _ => false,
        }
    }

    /// What a transaction would come to now.
    pub(super) fn txn(&self, request: &TxnRequest) -> (Result<Told, Rejected>, Vec<Change>, State) {
        let leases: BTreeSet<LeaseId> = self.leases.keys().copied().collect();
        slowly(&self.history, &leases, request)
    }

    fn carry_out(&mut self, request: &TxnRequest) -> (Result<Told, Rejected>, Vec<Change>) {
        let (told, changed, state) = self.txn(request);
        if !changed.is_empty() {
            self.history.states.push(state);
        }
        (told, changed)
    }

    /// One operation is a transaction of one.
    fn alone(&mut self, op: Op) -> Expected {
        let (told, changed) = self.carry_out(&TxnRequest { success: vec![op], ..TxnRequest::default() });
        let told = told.map(|told| match told {
            Told::Txn { mut responses, .. } => Answer::Told(responses.remove(0)),
            told => panic!("a transaction is told as {told:?}"),
        });
        (told, changed)
    }

    fn compact(&mut self, request: &CompactionRequest) -> Result<Answer, Rejected> {
        if request.revision <= self.history.compacted {
            return Err(Rejected::Compacted);
        }
        if request.revision > self.history.current() {
            return Err(Rejected::FutureRevision);
        }
        self.history.compacted = request.revision;
        Ok(Answer::Empty)
    }

    fn grant(&mut self, request: &LeaseGrantRequest) -> Result<Answer, Rejected> {
        match request.id {
            LeaseId(0) => return Err(Rejected::LeaseNotFound),
            _ if request.ttl > TTL_SECONDS_MAX => return Err(Rejected::LeaseTtlTooLarge),
            id if self.leases.contains_key(&id) => return Err(Rejected::LeaseExists),
            _ => {}
        }
        let row = LeaseRow { id: request.id, ttl: request.ttl.max(Store::default().lease_ttl_min()), remaining: 0 };
        self.leases.insert(row.id, row);
        Ok(Answer::Granted(LeaseGranted { id: row.id, ttl: row.ttl }))
    }

    fn checkpoint(&mut self, request: &LeaseCheckpointRequest) {
        for each in &request.checkpoints {
            if let Some(row) = self.leases.get_mut(&each.id) {
                row.remaining = each.remaining_ttl;
            }
        }
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Vec<Alarm> {
        let alarm = Alarm { member: request.member, kind: request.alarm };
        let entry = (alarm.kind.number(), alarm.member);
        let is_told = match request.action {
            AlarmAction::Activate if alarm.kind == AlarmKind::None => false,
            AlarmAction::Activate => {
                self.alarms.insert(entry);
                true
            }
            AlarmAction::Deactivate => self.alarms.remove(&entry),
            _ => {
                let listed = |found: &Alarm| alarm.kind == AlarmKind::None || alarm.kind == found.kind;
                return self.alarms().into_iter().filter(listed).collect();
            }
        };
        if is_told { vec![alarm] } else { Vec::new() }
    }

    fn revoke(&mut self, request: &LeaseRevokeRequest) -> Expected {
        if self.leases.remove(&request.id).is_none() {
            return (Err(Rejected::LeaseNotFound), vec![]);
        }
        let before = self.state().clone();
        let (mut state, mut changed) = (before.clone(), Vec::new());
        for key in self.keys_of(request.id) {
            state.remove(&key);
            changed.push((None, key.clone(), before.get(&key).cloned()));
        }
        if !changed.is_empty() {
            self.history.states.push(state);
        }
        (Ok(Answer::Empty), changed)
    }
}
