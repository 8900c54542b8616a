//! etcd's rules for keys, by the letter and slowly: a request, the state before it, what comes out.
//!
//! Written from the documented semantics, over plain maps, and from nothing else: where it differs from the member, one of them is wrong.

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_proto::etcdserverpb as pb;
use detcd_proto::mvccpb::KeyValue;
use pb::compare::TargetUnion;
use pb::request_op::Request;
use pb::response_op::Response;

use super::rows::{Change, Rows};

/// A store at one point, on the way through one request.
pub struct Model<'a> {
    /// The whole history.
    pub rows: &'a Rows,
    /// What the keys hold that the request changed so far; all others hold what the history says.
    changed: BTreeMap<Bytes, Option<KeyValue>>,
    /// The revision before the request.
    pub revision: i64,
    /// What the request did so far.
    pub changes: Vec<Change>,
}

/// An answer that changes nothing: its text.
pub type Rejection = &'static str;

/// What a revision that is not there yet is answered with.
pub const FUTURE: Rejection = "etcdserver: mvcc: required revision is a future revision";
const KEY_NOT_FOUND: Rejection = "etcdserver: key not found";

/// What of the branches a transaction takes: decided before anything of it runs.
struct Path<'a> {
    succeeded: bool,
    ops: Vec<Step<'a>>,
}

enum Step<'a> {
    Range(&'a pb::RangeRequest),
    Put(&'a pb::PutRequest),
    Delete(&'a pb::DeleteRangeRequest),
    Txn(Path<'a>),
}

impl<'a> Model<'a> {
    /// The store after `revision`.
    #[must_use]
    pub const fn at(rows: &'a Rows, revision: i64) -> Self {
        Self { rows, changed: BTreeMap::new(), revision, changes: Vec::new() }
    }

    /// What a key holds now.
    fn get(&self, key: &Bytes) -> Option<&KeyValue> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.rows.at(key, self.revision),
        }
    }

    /// What the keys of a range hold now, in their order.
    fn within(&self, key: &Bytes, range_end: &[u8]) -> Vec<&KeyValue> {
        if range_end.is_empty() {
            return self.get(key).into_iter().collect();
        }
        let mut names: Vec<&Bytes> = self.rows.keys().chain(self.changed.keys()).collect();
        names.retain(|name| is_in(name, key, range_end));
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| self.get(name)).collect()
    }

    /// The revision that the next change gets, or that the request's changes have.
    const fn main(&self) -> i64 {
        self.revision + 1
    }

    /// The store's revision as the request sees it now.
    fn now(&self) -> i64 {
        if self.changes.is_empty() { self.revision } else { self.main() }
    }

    /// A range.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Rejection> {
        if request.revision > self.revision {
            return Err(FUTURE);
        }
        let past = Model::at(self.rows, request.revision);
        let state = if request.revision > 0 { &past } else { self };
        let mut response = select(state.within(&request.key, &request.range_end), request);
        response.header = header(self.now());
        Ok(response)
    }

    /// A put.
    pub fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Rejection> {
        let before = self.get(&request.key).cloned();
        if (request.ignore_value || request.ignore_lease) && before.is_none() {
            return Err(KEY_NOT_FOUND);
        }
        let main = self.main();
        let value = match &before {
            Some(before) if request.ignore_value => before.value.clone(),
            _ => request.value.clone(),
        };
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: before.as_ref().map_or(main, |before| before.create_revision),
            mod_revision: main,
            version: before.as_ref().map_or(1, |before| before.version + 1),
            value,
            lease: before.as_ref().filter(|_| request.ignore_lease).map_or(request.lease, |before| before.lease),
        };
        self.changed.insert(request.key.clone(), Some(kv.clone()));
        self.changes.push(Change::Put(kv));
        Ok(pb::PutResponse { header: header(main), prev_kv: before.filter(|_| request.prev_kv) })
    }

    /// A range delete.
    pub fn delete(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let gone: Vec<KeyValue> = self.within(&request.key, &request.range_end).into_iter().cloned().collect();
        for kv in &gone {
            self.changed.insert(kv.key.clone(), None);
            self.changes.push(Change::Delete(kv.key.clone()));
        }
        pb::DeleteRangeResponse {
            header: header(self.now()),
            deleted: gone.len() as i64,
            prev_kvs: if request.prev_kv { gone } else { Vec::new() },
        }
    }

    /// A transaction.
    pub fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Rejection> {
        let path = self.choose(request);
        self.check(&path)?;
        let mut response = self.run(&path);
        response.header = header(self.now());
        Ok(response)
    }

    fn choose<'r>(&self, request: &'r pb::TxnRequest) -> Path<'r> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let taken = if succeeded { &request.success } else { &request.failure };
        let ops = taken.iter().filter_map(|op| op.request.as_ref()).map(|request| match request {
            Request::RequestRange(request) => Step::Range(request),
            Request::RequestPut(request) => Step::Put(request),
            Request::RequestDeleteRange(request) => Step::Delete(request),
            Request::RequestTxn(request) => Step::Txn(self.choose(request)),
        });
        Path { succeeded, ops: ops.collect() }
    }

    /// What must hold of the chosen branches before the first operation runs.
    fn check(&self, path: &Path<'_>) -> Result<(), Rejection> {
        for step in &path.ops {
            match step {
                Step::Range(request) if request.revision > self.revision => return Err(FUTURE),
                Step::Put(request)
                    if (request.ignore_value || request.ignore_lease) && self.get(&request.key).is_none() =>
                {
                    return Err(KEY_NOT_FOUND);
                }
                Step::Txn(path) => self.check(path)?,
                Step::Range(_) | Step::Put(_) | Step::Delete(_) => {}
            }
        }
        Ok(())
    }

    fn run(&mut self, path: &Path<'_>) -> pb::TxnResponse {
        let mut responses = Vec::new();
        for step in &path.ops {
            let checked = "the branch was checked";
            let response = match step {
                Step::Range(request) => Response::ResponseRange(self.range(request).expect(checked)),
                Step::Put(request) => Response::ResponsePut(self.put(request).expect(checked)),
                Step::Delete(request) => Response::ResponseDeleteRange(self.delete(request)),
                Step::Txn(path) => Response::ResponseTxn(self.run(path)),
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        pb::TxnResponse { header: header(0), succeeded: path.succeeded, responses }
    }

    /// A missing key has zeros, and no value that could compare to anything.
    fn holds(&self, compare: &pb::Compare) -> bool {
        let found = self.within(&compare.key, &compare.range_end);
        if found.is_empty() {
            return compare.target != 3 && relates(compare, &KeyValue::default());
        }
        found.iter().all(|kv| relates(compare, kv))
    }
}

fn relates(compare: &pb::Compare, kv: &KeyValue) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let given = compare.target_union.as_ref();
    let order = match (compare.target, given) {
        (0, Some(TargetUnion::Version(given))) => kv.version.cmp(given),
        (1, Some(TargetUnion::CreateRevision(given))) => kv.create_revision.cmp(given),
        (2, Some(TargetUnion::ModRevision(given))) => kv.mod_revision.cmp(given),
        (3, Some(TargetUnion::Value(given))) => kv.value.cmp(given),
        (4, Some(TargetUnion::Lease(given))) => kv.lease.cmp(given),
        // A number that is not the target's is not looked at.
        (0, _) => kv.version.cmp(&0),
        (1, _) => kv.create_revision.cmp(&0),
        (2, _) => kv.mod_revision.cmp(&0),
        (3, _) => kv.value.len().cmp(&0),
        (4, _) => kv.lease.cmp(&0),
        // What nobody knows is equal to whatever is given.
        _ => Equal,
    };
    match compare.result {
        0 => order == Equal,
        1 => order == Greater,
        2 => order == Less,
        3 => order != Equal,
        _ => true,
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

/// Whether a key is in what `key` and `range_end` mean on the wire.
fn is_in(candidate: &[u8], key: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => candidate == key,
        [0] => key <= candidate,
        end => key <= candidate && candidate < end,
    }
}

/// Answers a range from what its keys hold: all of them first, then every option in turn.
fn select(found: Vec<&KeyValue>, request: &pb::RangeRequest) -> pb::RangeResponse {
    let mut kvs: Vec<KeyValue> = found.into_iter().cloned().collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return pb::RangeResponse { count, ..pb::RangeResponse::default() };
    }
    let bound = |bound: i64| Some(bound).filter(|bound| *bound != 0);
    kvs.retain(|kv| {
        bound(request.min_mod_revision).is_none_or(|min| kv.mod_revision >= min)
            && bound(request.max_mod_revision).is_none_or(|max| kv.mod_revision <= max)
            && bound(request.min_create_revision).is_none_or(|min| kv.create_revision >= min)
            && bound(request.max_create_revision).is_none_or(|max| kv.create_revision <= max)
    });
    match request.sort_target {
        0 => {}
        1 => kvs.sort_by_key(|kv| kv.version),
        2 => kvs.sort_by_key(|kv| kv.create_revision),
        3 => kvs.sort_by_key(|kv| kv.mod_revision),
        _ => kvs.sort_by(|left, right| left.value.cmp(&right.value)),
    }
    if request.sort_order == 2 {
        kvs.reverse();
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            // Read from the index alone, unless values are what the keys are sorted by.
            if request.sort_target != 4 {
                kv.lease = 0;
            }
        }
    }
    pb::RangeResponse { header: None, kvs, more, count }
}
