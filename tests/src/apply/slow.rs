//! The slow twin of the store: a full copy of every state it ever was in, and requests answered from such a copy by
//! the letter of the rules.

use std::collections::BTreeMap;

use bytes::Bytes;
use detcd_core::command::{RangeRequest, SortOrder, SortTarget};
use detcd_core::ids::LeaseId;
use detcd_core::mvcc::{KeyValue, RangeReply};
use detcd_core::reply::Rejected;

/// One state of all keys.
pub type State = BTreeMap<Bytes, KeyValue>;

/// Whether a key belongs to what `key` and `range_end` mean on the wire.
pub fn is_in(candidate: &[u8], key: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => candidate == key,
        [0] => key <= candidate,
        end => key <= candidate && candidate < end,
    }
}

/// Answers a range from one state, all keys first, then every option in turn.
pub fn range(state: &State, request: &RangeRequest, revision: i64) -> RangeReply {
    let in_range = |kv: &&KeyValue| is_in(&kv.key, &request.key, &request.range_end);
    let mut kvs: Vec<KeyValue> = state.values().filter(in_range).cloned().collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return RangeReply { revision, kvs: Vec::new(), more: false, count };
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    let default_order = request.sort_order == SortOrder::None
        || (request.sort_order == SortOrder::Ascend && request.sort_target == SortTarget::Key);
    if default_order && filters == [0; 4] && limit > 0 {
        kvs.truncate(limit.saturating_add(1));
    }
    let [min_mod, max_mod, min_create, max_create] = filters;
    kvs.retain(|kv| {
        (min_mod == 0 || kv.modified >= min_mod)
            && (max_mod == 0 || kv.modified <= max_mod)
            && (min_create == 0 || kv.created >= min_create)
            && (max_create == 0 || kv.created <= max_create)
    });
    match request.sort_target {
        SortTarget::Key => kvs.sort_by_key(|kv| kv.key.clone()),
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.created),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.modified),
        SortTarget::Value => kvs.sort_by_key(|kv| kv.value.clone()),
        SortTarget::Unknown(_) => panic!("refused before"),
    }
    if request.sort_order == SortOrder::Descend {
        // Largest first, but equal ones stay in key order.
        let rank = |kv: &KeyValue| match request.sort_target {
            SortTarget::Key => (0, kv.key.clone()),
            SortTarget::Version => (kv.version, Bytes::new()),
            SortTarget::Create => (kv.created, Bytes::new()),
            SortTarget::Mod => (kv.modified, Bytes::new()),
            _ => (0, kv.value.clone()),
        };
        kvs.sort_by(|left, right| left.key.cmp(&right.key));
        kvs.sort_by_key(|kv| std::cmp::Reverse(rank(kv)));
    }
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            if request.sort_target != SortTarget::Value {
                kv.lease = LeaseId(0);
            }
        }
    }
    RangeReply { revision, kvs, more, count }
}

/// Every state the store was in; `states[r]` is the one after revision `r`.
#[derive(Clone, Debug)]
pub struct History {
    pub states: Vec<State>,
    pub compacted: i64,
}

impl Default for History {
    fn default() -> Self {
        Self { states: vec![State::new(), State::new()], compacted: -1 }
    }
}

impl History {
    pub fn current(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    /// Answers a range at the revision it asks for.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, Rejected> {
        let revision = if request.revision <= 0 { self.current() } else { request.revision };
        if revision > self.current() {
            return Err(Rejected::FutureRevision);
        }
        if revision < self.compacted {
            return Err(Rejected::Compacted);
        }
        Ok(range(&self.states[revision as usize], request, self.current()))
    }
}
