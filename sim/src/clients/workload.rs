//! What one client asks for: every kind of request, on few keys that all clients share.
//!
//! Every written value is unique, so that a read names the write that it saw. Requests are lawful, except for a few that etcd's rules reject in an answer: a
//! kept value that is not there, a revision that is not there yet.

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_io::entropy::Entropy;
use detcd_proto::etcdserverpb as pb;
use detcd_proto::mvccpb;

use super::keys::{Crowd, Keys};
use super::unlawful;
use crate::check::lawful::REQUEST_BYTES_MAX;
use crate::options::{Load, Weights, chance, pick};
use crate::record::{Answer, Ask, Outcome};

/// The requests of one client.
pub struct Workload {
    client: u64,
    dice: Entropy,
    /// For transactions that write what they delete.
    dice_of_rewrites: Entropy,
    /// For what nobody should ask for.
    dice_of_laws: Entropy,
    /// For what is done with many keys.
    dice_of_crowds: Entropy,
    /// For how long values are.
    dice_of_sizes: Entropy,
    keys: Keys,
    load: Load,
    values: u64,
    /// The newest revision it knows of.
    revision: i64,
    /// The newest compaction it knows of.
    compacted: i64,
    /// What it knows of keys: the revision of their last change and their version.
    known: BTreeMap<Bytes, (i64, i64)>,
}

/// Large values: more than a log file, more than a message between members, nearly a request – and more than that.
const LARGE: [usize; 4] = [100_000, 1_100_000, 1_500_000, REQUEST_BYTES_MAX];
/// Of many keys, how many most requests are about.
const SOME: u64 = 30;
const ASCEND: i32 = 1;
const DESCEND: i32 = 2;

impl Workload {
    /// The requests of `client`.
    #[must_use]
    pub fn new(client: u64, seed: u64, load: &Load) -> Self {
        Self {
            client,
            dice: Entropy::seeded(seed),
            dice_of_rewrites: Entropy::seeded(seed ^ 0x7265_7772),
            dice_of_laws: Entropy::seeded(seed ^ 0x6c61_7773),
            dice_of_crowds: Entropy::seeded(seed ^ 0x6372_6f77),
            dice_of_sizes: Entropy::seeded(seed ^ 0x7369_7a65),
            keys: Keys::of(load),
            load: load.clone(),
            values: 0,
            revision: 1,
            compacted: 0,
            known: BTreeMap::new(),
        }
    }

    /// The next request.
    pub fn draw(&mut self) -> Ask {
        if chance(&mut self.dice_of_laws, self.load.unlawful) {
            let key = self.keys.draw(&mut self.dice_of_laws);
            self.values += 1;
            let value = format!("{}:{};", self.client, self.values).into();
            return unlawful::draw(&mut self.dice_of_laws, key, value);
        }
        if let Some(crowd) = self.load.crowd
            && chance(&mut self.dice_of_crowds, crowd.share)
        {
            return self.crowd(crowd);
        }
        let Weights { put, range, stream, delete, txn, hash, compact } = self.load.weights;
        let mut at = self.dice.draw(0, put + range + stream + delete + txn + hash + compact - 1);
        let mut is_next = |weight: u64| {
            let is_it = at < weight;
            at = at.saturating_sub(weight);
            is_it
        };
        if is_next(range) {
            Ask::Range(self.range())
        } else if is_next(stream) {
            Ask::Stream(self.streamable())
        } else if is_next(delete) {
            Ask::Delete(self.delete())
        } else if is_next(txn) {
            let rewrites = chance(&mut self.dice_of_rewrites, self.load.rewrites);
            Ask::Txn(if rewrites { self.rewrite() } else { self.txn(2) })
        } else if is_next(hash) {
            Ask::HashKv(self.hash())
        } else if is_next(compact) {
            Ask::Compact(self.compact())
        } else {
            let key = self.key();
            let mut put = self.put(key);
            self.enlarge(&mut put);
            Ask::Put(put)
        }
    }

    /// Makes the value of a put a large one, now and then.
    fn enlarge(&mut self, put: &mut pb::PutRequest) {
        if !put.ignore_value && chance(&mut self.dice_of_sizes, self.load.values.large) {
            let size = pick(&mut self.dice_of_sizes, &LARGE);
            let mut value = Vec::from(std::mem::take(&mut put.value));
            value.resize(size, b'.');
            put.value = value.into();
        }
    }

    /// Remembers what an answer tells.
    pub fn learn(&mut self, ask: &Ask, outcome: &Outcome) {
        let Outcome::Answered(answer) = outcome else { return };
        let revision = answer.header().map_or(0, |header| header.revision);
        self.revision = self.revision.max(revision);
        match (ask, answer) {
            (Ask::Put(request), Answer::Put(_)) => {
                let version = self.known.get(&request.key).map_or(0, |known| known.1);
                self.known.insert(request.key.clone(), (revision, version + 1));
            }
            (Ask::Compact(request), _) => self.compacted = self.compacted.max(request.revision),
            (_, Answer::Range(response)) => self.see(&response.kvs),
            _ => {}
        }
    }

    fn see(&mut self, kvs: &[mvccpb::KeyValue]) {
        for kv in kvs {
            let known = self.known.entry(kv.key.clone()).or_default();
            if known.0 < kv.mod_revision {
                *known = (kv.mod_revision, kv.version);
            }
        }
    }

    fn key(&mut self) -> Bytes {
        self.keys.draw(&mut self.dice)
    }

    /// A value that nobody else ever writes.
    fn value(&mut self) -> Bytes {
        self.values += 1;
        let mut value = format!("{}:{};", self.client, self.values).into_bytes();
        let size = self.dice.draw(0, self.load.values.bytes_max) as usize;
        // Sector-sized runs of zeros are what a torn write looks like.
        let filler = if chance(&mut self.dice, 100) { 0 } else { b'.' };
        value.resize(value.len().max(size), filler);
        value.into()
    }

    fn put(&mut self, key: Bytes) -> pb::PutRequest {
        let ignore_value = chance(&mut self.dice, 50);
        let value = if ignore_value { Bytes::new() } else { self.value() };
        // A client that is no holder may keep the lease that a key hangs on.
        let (ignore_lease, prev_kv) = (chance(&mut self.dice, 50), chance(&mut self.dice, 300));
        pb::PutRequest { key, value, ignore_value, ignore_lease, prev_kv, lease: 0 }
    }

    /// One key, some keys, or all.
    fn span(&mut self) -> (Bytes, Bytes) {
        match self.dice.draw(0, 9) {
            0..=5 => (self.key(), Bytes::new()),
            6.. if self.is_narrow() => self.some(),
            6 => (Bytes::from_static(b"k"), Bytes::from_static(b"l")),
            7 => (self.key(), Bytes::from_static(b"\0")),
            _ => (self.key(), self.key()),
        }
    }

    /// Zero, or a revision that once was or soon will be.
    fn past(&mut self) -> i64 {
        match self.dice.draw(0, 9) {
            0..=5 => 0,
            6 => self.dice.draw(1, self.revision.max(1).cast_unsigned()).cast_signed(),
            7 | 8 => {
                let floor = self.compacted.clamp(1, self.revision.max(1));
                self.dice.draw(floor.cast_unsigned(), self.revision.max(1).cast_unsigned()).cast_signed()
            }
            _ => self.revision + self.dice.draw(0, 3).cast_signed(),
        }
    }

    /// Any revision, or a compaction's own, at which that took its hash.
    fn hash(&mut self) -> pb::HashKvRequest {
        let revision = if chance(&mut self.dice, 300) { self.compacted } else { self.past() };
        pb::HashKvRequest { revision }
    }

    /// Mostly a little behind the newest revision, sometimes one that is too old or too new.
    fn compact(&mut self) -> pb::CompactionRequest {
        let revision = match self.dice.draw(0, 9) {
            0 => self.past(),
            1..=4 => self.revision,
            _ => (self.revision - self.dice.draw(0, 60).cast_signed()).max(0),
        };
        pb::CompactionRequest { revision, physical: chance(&mut self.dice, 300) }
    }

    fn streamable(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.span();
        pb::RangeRequest {
            key,
            range_end,
            revision: self.past(),
            limit: pick(&mut self.dice, &[0, 0, 0, 1, 5]),
            serializable: chance(&mut self.dice, 300),
            keys_only: chance(&mut self.dice, 100),
            count_only: chance(&mut self.dice, 100),
            ..pb::RangeRequest::default()
        }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let mut request = self.streamable();
        if chance(&mut self.dice, 200) {
            // By key, or by what may be equal: then without a limit, so that the rules leave no choice of members.
            request.sort_order = pick(&mut self.dice, &[ASCEND, DESCEND]);
            request.sort_target = pick(&mut self.dice, &[0, 1, 2, 3, 4]);
            if request.sort_target != 0 {
                request.limit = 0;
            }
        }
        if chance(&mut self.dice, 100) {
            let bound = self.dice.draw(1, self.revision.max(1).cast_unsigned()).cast_signed();
            match self.dice.draw(0, 3) {
                0 => request.min_mod_revision = bound,
                1 => request.max_mod_revision = bound,
                2 => request.min_create_revision = bound,
                _ => request.max_create_revision = bound,
            }
        }
        request
    }

    /// Whether, of many keys, only some are asked for.
    fn is_narrow(&mut self) -> bool {
        self.load.crowd.is_some() && !chance(&mut self.dice_of_crowds, 50)
    }

    /// Some neighbours of many keys.
    fn some(&mut self) -> (Bytes, Bytes) {
        self.neighbours(SOME)
    }

    /// The end of some keys from this one on.
    fn some_from(&mut self, key: &Bytes) -> Bytes {
        self.keys.after(key, self.dice_of_crowds.draw(1, SOME))
    }

    fn neighbours(&mut self, most: u64) -> (Bytes, Bytes) {
        let (first, count) = self.keys.neighbours(&mut self.dice_of_crowds, most);
        (self.keys.name(first), self.keys.name(first + count))
    }

    /// What only makes sense with many keys.
    fn crowd(&mut self, crowd: Crowd) -> Ask {
        let many = 10 * crowd.puts_max;
        match self.dice_of_crowds.draw(0, 399) {
            0..=199 => Ask::Txn(self.puts(crowd.puts_max)),
            200..=259 => {
                let ((key, range_end), prev_kv) = (self.neighbours(many), chance(&mut self.dice_of_crowds, 500));
                Ask::Delete(pb::DeleteRangeRequest { key, range_end, prev_kv })
            }
            260 => {
                let (key, range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
                Ask::Delete(pb::DeleteRangeRequest { key, range_end, prev_kv: false })
            }
            261..=330 => {
                let (key, range_end) = self.neighbours(many);
                Ask::Range(pb::RangeRequest { key, range_end, ..self.range() })
            }
            331..=390 => {
                let (key, range_end) = self.neighbours(many);
                Ask::Stream(pb::RangeRequest { key, range_end, ..self.streamable() })
            }
            391..=393 => Ask::HashKv(self.hash()),
            _ => {
                let (key, range_end) = (Bytes::from_static(b"k"), Bytes::from_static(b"l"));
                let mut request = pb::RangeRequest { key, range_end, ..self.range() };
                if request.sort_target == 0 {
                    request.limit = pick(&mut self.dice_of_crowds, &[0, 700, 1_100]);
                }
                Ask::Range(request)
            }
        }
    }

    /// A transaction that writes many neighbours, with short values.
    fn puts(&mut self, most: u64) -> pb::TxnRequest {
        let (first, count) = self.keys.neighbours(&mut self.dice_of_crowds, most);
        let put = |number: u64| {
            self.values += 1;
            let value = format!("{}:{};", self.client, self.values).into();
            let put = pb::PutRequest { key: self.keys.name(number), value, ..pb::PutRequest::default() };
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
        };
        let success = (first..first + count).map(put).collect();
        pb::TxnRequest { compare: Vec::new(), success, failure: Vec::new() }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let key = self.key();
        let range_end = match self.dice.draw(0, 9) {
            0..=2 if self.load.crowd.is_some() => self.some_from(&key),
            0 => Bytes::from_static(b"\0"),
            1 | 2 => self.key(),
            _ => Bytes::new(),
        };
        pb::DeleteRangeRequest { key, range_end, prev_kv: chance(&mut self.dice, 500) }
    }

    /// A transaction whose branches write each key at most once.
    fn txn(&mut self, depth: u64) -> pb::TxnRequest {
        let compares = self.dice.draw(0, 2);
        let (first, count) = match self.load.crowd {
            None => (0, self.keys.count),
            Some(_) => self.keys.neighbours(&mut self.dice_of_crowds, SOME),
        };
        let mut free: Vec<Bytes> = (first..first + count).map(|number| self.keys.name(number)).collect();
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(&mut free, depth),
            failure: self.ops(&mut free, depth),
        }
    }

    fn ops(&mut self, free: &mut Vec<Bytes>, depth: u64) -> Vec<pb::RequestOp> {
        use pb::request_op::Request;
        let count = self.dice.draw(0, 3);
        let mut ops = Vec::new();
        for _ in 0..count {
            let request = match self.dice.draw(0, 9) {
                0..=4 => match self.take(free) {
                    Some(key) => Request::RequestPut(self.put(key)),
                    None => Request::RequestRange(self.range()),
                },
                5 | 6 => match self.take(free) {
                    Some(key) => Request::RequestDeleteRange(pb::DeleteRangeRequest {
                        key,
                        range_end: Bytes::new(),
                        prev_kv: chance(&mut self.dice, 500),
                    }),
                    None => Request::RequestRange(self.range()),
                },
                7 if depth > 0 => {
                    let compares = self.dice.draw(0, 1);
                    Request::RequestTxn(pb::TxnRequest {
                        compare: (0..compares).map(|_| self.compare()).collect(),
                        success: self.ops(free, depth - 1),
                        failure: self.ops(free, depth - 1),
                    })
                }
                _ => Request::RequestRange(self.range()),
            };
            ops.push(pb::RequestOp { request: Some(request) });
        }
        ops
    }

    /// A transaction that writes a key and deletes it besides, in either order. Lawful only because a delete of everything from a key on counts as touching nothing when
    /// requests are searched for keys that they write twice.
    fn rewrite(&mut self) -> pb::TxnRequest {
        use pb::request_op::Request;
        let last = self.keys.count - 1;
        let (first, second) = (self.dice_of_rewrites.draw(0, last), self.dice_of_rewrites.draw(0, last));
        let name = |number: u64| self.keys.name(number);
        let prev_kv = chance(&mut self.dice_of_rewrites, 500);
        let delete =
            pb::DeleteRangeRequest { key: name(first.min(second)), range_end: Bytes::from_static(b"\0"), prev_kv };
        self.values += 1;
        let value = format!("{}:{};", self.client, self.values).into();
        let put = pb::PutRequest { key: name(first.max(second)), value, prev_kv, ..pb::PutRequest::default() };
        let mut requests = vec![Request::RequestDeleteRange(delete), Request::RequestPut(put)];
        if chance(&mut self.dice_of_rewrites, 200) {
            requests.reverse();
        }
        let success = requests.into_iter().map(|request| pb::RequestOp { request: Some(request) }).collect();
        pb::TxnRequest { compare: Vec::new(), success, failure: Vec::new() }
    }

    fn take(&mut self, free: &mut Vec<Bytes>) -> Option<Bytes> {
        let last = free.len().checked_sub(1)?;
        let place = self.dice.draw(0, last as u64) as usize;
        Some(free.swap_remove(place))
    }

    fn compare(&mut self) -> pb::Compare {
        use pb::compare::TargetUnion;
        let key = self.key();
        let (modified, version) = self.known.get(&key).copied().unwrap_or_default();
        let off = pick(&mut self.dice, &[0, 0, 0, 1]);
        let (target, operand) = match self.dice.draw(0, 5) {
            0 => (0, TargetUnion::Version(version + off)),
            1 => (1, TargetUnion::CreateRevision(pick(&mut self.dice, &[0, modified]))),
            2 => (3, TargetUnion::Value(self.value())),
            _ => (2, TargetUnion::ModRevision(modified + off)),
        };
        let range_end = match chance(&mut self.dice, 150) {
            true if self.is_narrow() => self.some_from(&key),
            true => Bytes::from_static(b"l"),
            false => Bytes::new(),
        };
        pb::Compare {
            result: pick(&mut self.dice, &[0, 0, 0, 1, 2, 3]),
            target,
            key,
            range_end,
            target_union: Some(operand),
        }
    }
}
