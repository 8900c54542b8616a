//! Requests drawn from bytes: each byte is a choice, so that whatever a fuzzer changes is still a request.
//!
//! Keys come from a few small families, so that requests meet each other: letters, pairs of letters, numbers by the hundred
//! (which fill leaves of the index), and long ones with a common beginning (which fill them by their bytes).

use bytes::Bytes;
use detcd_core::command::{
    AlarmAction, AlarmKind, AlarmRequest, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, Command,
    CompactionRequest, Compare, CompareOperand, CompareResult, CompareTarget, DeleteRangeRequest,
    DowngradeInfoSetRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, Op,
    PutRequest, RangeRequest, SortOrder, SortTarget, TxnRequest,
};
use detcd_core::ids::{LeaseId, MemberId};
use detcd_core::membership::Version;

/// So many puts of a crowd go into one transaction: etcd's default for operations.
const CROWD_MAX: u8 = 128;
/// So deep do transactions nest.
const DEPTH_MAX: u8 = 2;
/// How the long keys begin; fifty of them are more than a leaf of the index holds.
const LONG: [u8; 400] = [b'p'; 400];

/// Bytes that have not chosen yet. Behind the last one every choice is zero.
pub struct Draw<'a> {
    rest: &'a [u8],
    /// The revision that the next request will meet.
    current: i64,
}

impl<'a> Draw<'a> {
    /// Nothing is chosen yet.
    #[must_use]
    pub const fn new(rest: &'a [u8]) -> Self {
        Self { rest, current: 1 }
    }

    /// The next request, for a store at this revision, unless every byte has chosen.
    pub fn command(&mut self, current: i64) -> Option<Command> {
        self.current = current;
        (!self.rest.is_empty()).then(|| self.any_command())
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.rest.split_first().map_or((0, self.rest), |(first, rest)| (*first, rest));
        self.rest = rest;
        first
    }

    /// One of `0..choices`.
    fn of(&mut self, choices: u8) -> u8 {
        self.byte() % choices
    }

    fn chance(&mut self, of: u8) -> bool {
        self.of(of) == 1
    }

    fn any_command(&mut self) -> Command {
        match self.of(20) {
            0..=2 => Command::Put(self.put()),
            3 => Command::DeleteRange(self.delete()),
            4 | 5 => Command::Range(self.range()),
            6..=9 => Command::Txn(self.txn(DEPTH_MAX)),
            10 => Command::Compaction(CompactionRequest { revision: self.number(), physical: self.chance(2) }),
            11 => Command::LeaseGrant(LeaseGrantRequest { ttl: self.number(), id: self.lease() }),
            12 => Command::LeaseRevoke(LeaseRevokeRequest { id: self.lease() }),
            13 => self.checkpoint(),
            14 | 15 => self.alarm(),
            16 | 17 => self.crowd(),
            18 => self.purge(),
            _ => self.rare(),
        }
    }

    /// A revision, a version, a time: a small number, or one near the present revision.
    fn number(&mut self) -> i64 {
        match self.byte() {
            255 => i64::MAX,
            254 => i64::MIN,
            253 => -1,
            near @ 128.. => self.current + 1 - i64::from(near % 16),
            small => i64::from(small),
        }
    }

    fn key(&mut self) -> Bytes {
        match self.of(8) {
            0..=3 => vec![b'a' + self.of(8)].into(),
            4 => vec![b'a' + self.of(8), b'a' + self.of(8)].into(),
            5 | 6 => numbered(self.byte()),
            _ => long(self.of(64)),
        }
    }

    fn range_end(&mut self, key: &Bytes) -> Bytes {
        match self.of(4) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => self.key(),
            _ => prefix_end(key),
        }
    }

    fn lease(&mut self) -> LeaseId {
        // 1 and -2 are there from the beginning.
        LeaseId([0, 1, -2, 3, 4, i64::MAX][usize::from(self.of(6))])
    }

    fn put(&mut self) -> PutRequest {
        let key = self.key();
        let value = vec![b'v'; usize::from(self.of(4))].into();
        let put = PutRequest { key, value, prev_kv: self.chance(2), ..PutRequest::default() };
        match self.of(6) {
            0 => PutRequest { lease: self.lease(), ..put },
            1 => PutRequest { ignore_value: true, value: Bytes::new(), ..put },
            2 => PutRequest { ignore_lease: true, ..put },
            _ => put,
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        DeleteRangeRequest { range_end: self.range_end(&key), key, prev_kv: self.chance(2) }
    }

    fn range(&mut self) -> RangeRequest {
        let key = self.key();
        let request = RangeRequest { range_end: self.range_end(&key), key, ..RangeRequest::default() };
        let plain = RangeRequest {
            limit: i64::from(self.of(6)),
            revision: if self.chance(3) { self.number() } else { 0 },
            keys_only: self.chance(4),
            count_only: self.chance(6),
            ..request
        };
        if !self.chance(2) {
            return plain;
        }
        let sorted = RangeRequest {
            sort_order: SortOrder::from_number(self.of(3).into()),
            sort_target: SortTarget::from_number(self.of(5).into()),
            ..plain
        };
        match self.of(8) {
            0 => RangeRequest { min_mod_revision: self.number(), ..sorted },
            1 => RangeRequest { max_mod_revision: self.number(), ..sorted },
            2 => RangeRequest { min_create_revision: self.number(), ..sorted },
            3 => RangeRequest { max_create_revision: self.number(), ..sorted },
            _ => sorted,
        }
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let target = CompareTarget::from_number(self.of(5).into());
        let matching = match target {
            CompareTarget::Version => CompareOperand::Version(self.number()),
            CompareTarget::Create => CompareOperand::Create(self.number()),
            CompareTarget::Mod => CompareOperand::Mod(self.number()),
            CompareTarget::Lease => CompareOperand::Lease(self.lease().0),
            _ => CompareOperand::Value(vec![b'v'; usize::from(self.of(4))].into()),
        };
        Compare {
            result: CompareResult::from_number(self.of(4).into()),
            target,
            range_end: if self.chance(4) { self.range_end(&key) } else { Bytes::new() },
            key,
            operand: if self.chance(8) { CompareOperand::Unset } else { matching },
        }
    }

    fn txn(&mut self, depth: u8) -> TxnRequest {
        let compare = (0..self.of(3)).map(|_| self.compare()).collect();
        TxnRequest { compare, success: self.ops(depth), failure: self.ops(depth) }
    }

    fn ops(&mut self, depth: u8) -> Vec<Op> {
        (0..self.of(4)).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: u8) -> Op {
        match self.of(8) {
            0..=2 => Op::Put(self.put()),
            3 | 4 => Op::Range(self.range()),
            5 => Op::DeleteRange(self.delete()),
            _ if depth == 0 => Op::Range(self.range()),
            _ => Op::Txn(self.txn(depth - 1)),
        }
    }

    fn checkpoint(&mut self) -> Command {
        let each = |draw: &mut Self| LeaseCheckpoint { id: draw.lease(), remaining_ttl: draw.number() };
        let checkpoints = (0..self.of(4)).map(|_| each(self)).collect();
        Command::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints })
    }

    /// Lowered more often than raised, because a raised one forbids most of what else there is to see.
    fn alarm(&mut self) -> Command {
        let action = match self.of(8) {
            0..=3 => AlarmAction::Deactivate,
            4 | 5 => AlarmAction::Get,
            6 => AlarmAction::Activate,
            _ => AlarmAction::from_number(self.of(4).into()),
        };
        let alarm = AlarmKind::from_number(self.of(4).into());
        Command::Alarm(AlarmRequest { action, member: MemberId(self.of(2).into()), alarm })
    }

    /// Many neighbours at once.
    fn crowd(&mut self) -> Command {
        let (first, count, lease) = (self.byte(), self.of(CROWD_MAX) + 1, self.lease());
        let are_long = self.chance(4);
        let key = |at: u8| if are_long { long(at) } else { numbered(at) };
        let put = |at: u8| PutRequest { key: key(first.wrapping_add(at)), lease, ..PutRequest::default() };
        Command::Txn(TxnRequest { success: (0..count).map(|at| Op::Put(put(at))).collect(), ..TxnRequest::default() })
    }

    /// Takes away a piece of a crowd, one leaf of the index or several.
    fn purge(&mut self) -> Command {
        let (first, count) = (self.byte(), self.byte());
        let (key, range_end) = (numbered(first), numbered(first.saturating_add(count)));
        Command::DeleteRange(DeleteRangeRequest { key, range_end, prev_kv: self.chance(2) })
    }

    /// What a cluster says about itself; no key is touched.
    fn rare(&mut self) -> Command {
        match self.of(3) {
            0 => Command::ClusterVersionSet(ClusterVersionSetRequest {
                version: Version { major: 3, minor: self.of(8).into(), patch: 0 },
            }),
            1 => {
                Command::DowngradeInfoSet(DowngradeInfoSetRequest { enabled: self.chance(2), version: "3.6.0".into() })
            }
            _ => Command::ClusterMemberAttrSet(ClusterMemberAttrSetRequest {
                member: MemberId(self.of(2).into()),
                name: "a".into(),
                client_urls: Vec::new(),
            }),
        }
    }
}

fn numbered(at: u8) -> Bytes {
    format!("n{at:03}").into()
}

fn long(at: u8) -> Bytes {
    [&LONG[..], &[at]].concat().into()
}

/// The first key behind all that begin with this one.
fn prefix_end(key: &[u8]) -> Bytes {
    let mut end = key.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}
