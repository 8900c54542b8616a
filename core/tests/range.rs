//! Ranges and streams against a plain filter, sort and cut over full copies of every state.

use detcd_core::command::{Command, Op, PutRequest, RangeRequest, SortOrder, SortTarget, TxnRequest};
use detcd_core::ids::LeaseId;
use detcd_core::mvcc::{Progress, RangeReply, ReadPoint, StreamRead, validate};
use detcd_core::reply::Rejected;
use proptest::prelude::*;

mod support;
use detcd_tests::apply::slow::{self, History, State};
use detcd_tests::apply::store::{Store, bytes, put, range};
use support::{any_range, any_slices, any_txn};

/// A store with some history, and the full copy of each of its states.
fn build(transactions: Vec<TxnRequest>) -> (Store, History) {
    let (mut store, mut history) = (Store::default(), History::default());
    let seeds = ["bb", "a", "c", "\0", "ba"].map(|key| Op::Put(PutRequest { lease: LeaseId(1), ..put(key, key) }));
    let seed = TxnRequest { success: seeds.into(), ..TxnRequest::default() };
    for request in [seed].into_iter().chain(transactions) {
        store.apply(Command::Txn(request), &[usize::MAX]);
        if history.current() < store.current {
            history.states.push(state(&store));
        }
    }
    (store, history)
}

/// All keys that are alive, straight from the rows.
fn state(store: &Store) -> State {
    let mut state = State::new();
    for kv in store.rows.values() {
        // A row holds its key until the index says otherwise.
        let facts = store.index.get(&kv.key, detcd_core::ids::Revision::end_of(store.current));
        if facts.is_some_and(|facts| store.rows[&facts.modified] == *kv) {
            state.insert(kv.key.clone(), kv.clone());
        }
    }
    state
}

/// A whole stream: every chunk, merged as a client merges them.
fn stream(store: &Store, request: &RangeRequest, chunks: &[usize], slices: &[usize]) -> Result<RangeReply, Rejected> {
    let mut read = StreamRead::new(request, &ReadPoint::now(store))?;
    let (mut chunks, mut slices) =
        (detcd_tests::apply::store::Slices::new(chunks), detcd_tests::apply::store::Slices::new(slices));
    let mut keys_max = chunks.step();
    let mut merged = RangeReply::default();
    loop {
        match read.advance(store, keys_max, slices.step()).expect("every row is there") {
            Progress::More => {}
            Progress::Rejected(rejected) => return Err(rejected),
            Progress::Done(chunk) => {
                assert!(chunk.kvs.len() <= keys_max);
                assert!(chunk.end.is_some() || !chunk.kvs.is_empty(), "only the last chunk may be empty");
                merged.kvs.extend(chunk.kvs);
                if let Some(end) = chunk.end {
                    (merged.revision, merged.more, merged.count) = (end.revision, end.more, end.count);
                    return Ok(merged);
                }
                keys_max = chunks.step();
            }
        }
    }
}

/// Mostly ranges that a stream accepts.
fn any_stream() -> impl Strategy<Value = RangeRequest> {
    let limit = prop_oneof![2 => Just(0i64), 1 => Just(-1i64), 5 => 1..5i64];
    let accepted = (any_range(), limit, 0..5i32).prop_map(|(request, limit, target)| RangeRequest {
        limit,
        revision: request.revision,
        keys_only: request.keys_only,
        count_only: request.count_only,
        sort_target: SortTarget::from_number(target),
        ..range_of(&request)
    });
    prop_oneof![4 => accepted, 1 => any_range()]
}

/// The same keys, no options.
fn range_of(request: &RangeRequest) -> RangeRequest {
    RangeRequest { key: request.key.clone(), range_end: request.range_end.clone(), ..RangeRequest::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_the_slow_twin(
        transactions in prop::collection::vec(any_txn(), 0..7),
        requests in prop::collection::vec(any_range(), 8),
        compacted in prop_oneof![Just(-1i64), 0..8i64],
        slices in any_slices(),
    ) {
        let (mut store, mut history) = build(transactions);
        store.compacted = compacted.min(store.current);
        history.compacted = store.compacted;
        for request in requests {
            let point = ReadPoint::now(&store);
            prop_assert_eq!(store.range_at(&request, &point, &slices), history.range(&request), "{:?}", request);
        }
    }

    #[test]
    fn streams_what_a_range_answers(
        transactions in prop::collection::vec(any_txn(), 0..7),
        request in any_stream(),
        chunks in any_slices(),
        slices in any_slices(),
    ) {
        let (store, history) = build(transactions);
        let filters = [&request.min_mod_revision, &request.max_mod_revision, &request.min_create_revision];
        let natural = request.sort_order == SortOrder::None
            || (request.sort_order == SortOrder::Ascend && request.sort_target == SortTarget::Key);
        let streamed = stream(&store, &request, &chunks, &slices);
        if !natural {
            prop_assert_eq!(streamed, Err(Rejected::StreamSort));
        } else if filters.iter().any(|filter| **filter != 0) || request.max_create_revision != 0 {
            prop_assert_eq!(streamed, Err(Rejected::StreamFilter));
        } else {
            // The stream ignores the target, also where the keys do not come out sorted by it.
            let request = RangeRequest { sort_target: SortTarget::Key, ..request };
            prop_assert_eq!(streamed, history.range(&request));
        }
    }
}

/// `n` keys whose values come in another order.
fn many(n: u64) -> Store {
    let mut store = Store::default();
    for i in 0..n {
        store.put(&format!("key{:05}", i * 7919 % n), &format!("{:05}", i * 31 % 97));
    }
    store
}

#[test]
fn sorts_more_candidates_than_it_holds() {
    let store = many(5000);
    let state = state(&store);
    for (target, order) in [(3, 2), (4, 1), (4, 2), (2, 0), (1, 2), (0, 2)] {
        for limit in [1, 10, 700, 4999, 5000] {
            let request = RangeRequest {
                limit,
                sort_target: SortTarget::from_number(target),
                sort_order: SortOrder::from_number(order),
                min_mod_revision: 100,
                ..range("key", "\0")
            };
            let reply = store.range_at(&request, &ReadPoint::now(&store), &[333]);
            assert_eq!(reply, Ok(slow::range(&state, &request, store.current)), "{request:?}");
        }
    }
}

#[test]
fn a_limit_without_order_sorts_only_the_first_keys() {
    let mut store = Store::default();
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1"), ("d", "0")] {
        store.put(key, value);
    }
    let request = RangeRequest { limit: 2, sort_target: SortTarget::Value, ..range("a", "\0") };
    let reply = store.range(&request).expect("readable");
    let keys: Vec<&[u8]> = reply.kvs.iter().map(|kv| kv.key.as_ref()).collect();
    assert_eq!((keys, reply.more, reply.count), (vec![&b"c"[..], b"b"], true, 4));
}

#[test]
fn a_compaction_that_passes_the_read_ends_it() {
    let mut store = many(20);
    let request = RangeRequest { revision: 10, ..range("key", "\0") };
    let point = ReadPoint::now(&store);
    let mut read = detcd_core::mvcc::RangeRead::new(&request, &point).expect("not compacted yet");
    let mut stream = StreamRead::new(&request, &point).expect("not compacted yet");
    assert_eq!(read.advance(&store, 3), Ok(Progress::More));
    store.compacted = 10;
    assert_eq!(read.advance(&store, 3), Ok(Progress::More), "the compacted revision itself stays readable");
    store.compacted = 11;
    store.rows.clear(); // missing rows are then no fault
    assert_eq!(read.advance(&store, 300), Ok(Progress::Rejected(Rejected::Compacted)));
    assert_eq!(stream.advance(&store, 2, 300), Ok(Progress::Rejected(Rejected::Compacted)));
}

#[test]
fn a_row_takes_more_of_a_step_than_a_key_without_one() {
    let store = many(400);
    let steps = |request: &RangeRequest| {
        let mut read = detcd_core::mvcc::RangeRead::new(request, &ReadPoint::now(&store)).expect("readable");
        (1..).find(|_| read.advance(&store, 100) != Ok(Progress::More)).expect("it ends")
    };
    // Four steps for the keys, and then four more, or one for every thirteen rows.
    assert_eq!(steps(&RangeRequest { keys_only: true, ..range("key", "\0") }), 8);
    assert_eq!(steps(&range("key", "\0")), 4 + 400_usize.div_ceil(13));
}

#[test]
fn a_missing_row_is_a_fault() {
    let mut store = many(3);
    let at = *store.rows.keys().next().expect("a row");
    store.rows.remove(&at);
    let mut read = detcd_core::mvcc::RangeRead::new(&range("key", "\0"), &ReadPoint::now(&store)).expect("readable");
    assert_eq!(read.advance(&store, 300), Err(detcd_tests::apply::store::Missing(at)));
}

#[test]
fn unknown_orders_are_refused() {
    let order = RangeRequest { sort_order: SortOrder::from_number(3), ..range("k", "") };
    let target = RangeRequest { sort_target: SortTarget::from_number(-1), ..range("k", "") };
    for request in [order, target] {
        assert_eq!(validate::range(&request), Err(Rejected::InvalidSortOption));
        assert_eq!(Store::default().range(&request), Err(Rejected::InvalidSortOption));
    }
    assert_eq!(validate::range(&RangeRequest { key: bytes(""), ..range("k", "") }), Err(Rejected::EmptyKey));
}
