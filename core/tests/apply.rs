//! Single commands through the one door: what they write, what they answer, and which stop the member.

use detcd_core::alarm::Alarm;
use detcd_core::apply::{Application, Event, EventKind, Outcome, Step, Write};
use detcd_core::command::{
    AlarmAction, AlarmKind, AlarmRequest, AuthCommand, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, Command,
    CompactionRequest, DeleteRangeRequest, DowngradeInfoSetRequest, Op, PutRequest, RangeRequest, TxnRequest,
};
use detcd_core::ids::{LeaseId, MemberId, Revision, Ticket};
use detcd_core::membership::{ConfChange, ConfChangeKind, Downgrade, Member, Membership, Version};
use detcd_core::mvcc::{KeyValue, ReadPoint};
use detcd_core::reply::{DeleteRangeReply, PutReply, RangeAt, Rejected, Reply};

use detcd_tests::apply::store::{Store, advance_to_end, bytes, delete, put, range};

fn at(main: i64, sub: i64) -> Revision {
    Revision::new(main, sub)
}

#[test]
fn a_put_writes_one_row_and_tells_what_was_there() {
    let mut store = Store::default();
    let first = store.apply(Command::Put(PutRequest { lease: LeaseId(1), ..put("k", "1") }), &[1]);
    let kv = KeyValue { key: bytes("k"), created: 2, modified: 2, version: 1, value: bytes("1"), lease: LeaseId(1) };
    assert_eq!(
        first,
        Outcome {
            reply: Ok(Reply::Put(PutReply { revision: 2, prev: None })),
            writes: vec![Write::Row { revision: at(2, 0), kv: kv.clone() }],
            events: vec![Event { kind: EventKind::Put, revision: at(2, 0), prev: None }],
        }
    );
    let kept = PutRequest { ignore_lease: true, prev_kv: true, ..put("k", "2") };
    let second = store.apply(Command::Put(kept), &[1]);
    assert_eq!(second.reply, Ok(Reply::Put(PutReply { revision: 3, prev: Some(at(2, 0)) })));
    let kv = KeyValue { modified: 3, version: 2, value: bytes("2"), ..kv };
    assert_eq!(second.writes, [Write::Row { revision: at(3, 0), kv: kv.clone() }]);
    assert_eq!(second.events, [Event { kind: EventKind::Put, revision: at(3, 0), prev: Some(at(2, 0)) }]);
    let third = store.apply(Command::Put(PutRequest { ignore_value: true, ..put("k", "") }), &[1]);
    let kv = KeyValue { modified: 4, version: 3, lease: LeaseId(0), ..kv };
    assert_eq!(third.writes, [Write::Row { revision: at(4, 0), kv }]);
}

#[test]
fn a_put_that_is_refused_writes_nothing() {
    let store = Store::default();
    for (request, rejected) in [
        (PutRequest { lease: LeaseId(9), ..put("k", "") }, Rejected::LeaseNotFound),
        (PutRequest { ignore_value: true, ..put("k", "") }, Rejected::KeyNotFound),
        (PutRequest { ignore_lease: true, ..put("k", "") }, Rejected::KeyNotFound),
    ] {
        let outcome = store.outcome(Command::Put(request), &[1]);
        assert_eq!(outcome, Outcome { reply: Err(rejected), writes: vec![], events: vec![] });
    }
}

#[test]
fn a_compaction_goes_forward_and_not_beyond_the_present() {
    let mut store = Store::default();
    let compact = |store: &mut Store, revision| {
        store.apply(Command::Compaction(CompactionRequest { revision, physical: false }), &[1])
    };
    let done = |revision| Outcome { reply: Ok(Reply::Empty), writes: vec![Write::Compacted(revision)], events: vec![] };
    let refused = |why| Outcome { reply: Err(why), writes: vec![], events: vec![] };
    assert_eq!(compact(&mut store, -1), refused(Rejected::Compacted));
    assert_eq!(compact(&mut store, 0), done(0));
    assert_eq!(compact(&mut store, 0), refused(Rejected::Compacted));
    assert_eq!(compact(&mut store, 2), refused(Rejected::FutureRevision));
    store.put("k", "1");
    store.put("k", "2");
    assert_eq!(compact(&mut store, 3), done(3));
    assert_eq!(store.range(&RangeRequest { revision: 2, ..range("k", "") }), Err(Rejected::Compacted));
    assert_eq!(store.range(&RangeRequest { revision: 3, ..range("k", "") }).map(|reply| reply.kvs.len()), Ok(1));
}

#[test]
fn alarms_are_raised_listed_and_lowered() {
    let mut store = Store::default();
    let ask = |store: &mut Store, action, member, alarm| {
        let outcome = store.apply(Command::Alarm(AlarmRequest { action, member: MemberId(member), alarm }), &[1]);
        match outcome.reply {
            Ok(Reply::Alarms(alarms)) => (alarms, outcome.writes.len()),
            other => panic!("{other:?}"),
        }
    };
    use AlarmAction::{Activate, Deactivate, Get};
    use AlarmKind::{Corrupt, NoSpace};
    let alarm = |member, kind| Alarm { member: MemberId(member), kind };
    assert_eq!(ask(&mut store, Get, 0, AlarmKind::None), (vec![], 0));
    assert_eq!(ask(&mut store, Activate, 7, AlarmKind::None), (vec![], 0));
    assert_eq!(ask(&mut store, Activate, 7, NoSpace), (vec![alarm(7, NoSpace)], 1));
    assert_eq!(ask(&mut store, Activate, 7, NoSpace), (vec![alarm(7, NoSpace)], 0));
    assert_eq!(ask(&mut store, Activate, 8, AlarmKind::Unknown(9)), (vec![alarm(8, AlarmKind::Unknown(9))], 1));
    let all = vec![alarm(7, NoSpace), alarm(8, AlarmKind::Unknown(9))];
    assert_eq!(ask(&mut store, Get, 3, AlarmKind::None), (all, 0));
    assert_eq!(ask(&mut store, Get, 3, NoSpace), (vec![alarm(7, NoSpace)], 0));
    assert_eq!(ask(&mut store, Get, 7, Corrupt), (vec![], 0));
    assert_eq!(ask(&mut store, Deactivate, 0, NoSpace), (vec![], 0), "zero is no wildcard");
    assert_eq!(ask(&mut store, Deactivate, 7, NoSpace), (vec![alarm(7, NoSpace)], 1));
    assert_eq!(ask(&mut store, Get, 0, NoSpace), (vec![], 0));
}

#[test]
fn a_raised_alarm_forbids_what_etcd_forbids() {
    let mut store = Store::default();
    store.put("k", "v");
    let txn = |op: Op| Command::Txn(TxnRequest { failure: vec![], success: vec![op], ..TxnRequest::default() });
    let (dear, cheap) = (txn(Op::Put(put("k", ""))), txn(Op::DeleteRange(delete("k", ""))));
    let commands = [
        (Command::Put(put("k", "v")), true),
        (dear, true),
        (cheap, false),
        (txn(Op::Range(range("k", ""))), false),
        (Command::DeleteRange(delete("k", "")), false),
        (Command::Compaction(CompactionRequest { revision: 1, physical: false }), false),
        (Command::Range(range("k", "")), false),
    ];
    let raise = |store: &mut Store, alarm| {
        let request = AlarmRequest { action: AlarmAction::Activate, member: MemberId(1), alarm };
        store.apply(Command::Alarm(request), &[1]);
    };
    raise(&mut store, AlarmKind::NoSpace);
    for (command, costs) in &commands {
        let refused = store.outcome(command.clone(), &[9]).reply == Err(Rejected::NoSpace);
        assert_eq!(refused, *costs, "{command:?}");
    }
    raise(&mut store, AlarmKind::Corrupt);
    for (command, _) in &commands {
        let outcome = store.outcome(command.clone(), &[9]);
        assert_eq!(outcome, Outcome { reply: Err(Rejected::Corrupt), writes: vec![], events: vec![] }, "{command:?}");
    }
    let read = TxnRequest { success: vec![Op::Range(range("k", ""))], ..TxnRequest::default() };
    let step = advance_to_end(&store, Application::begin_read(read), &[9]);
    assert!(
        matches!(step, Step::Done(Outcome { reply: Ok(Reply::Txn(_)), .. })),
        "outside the log it is read: {step:?}"
    );
    let set = ClusterVersionSetRequest { version: Version::new(3, 7, 0) };
    assert!(store.outcome(Command::ClusterVersionSet(set), &[1]).reply.is_ok());
}

#[test]
fn a_range_delete_numbers_its_tombstones_in_key_order() {
    let mut store = Store::default();
    for key in ["c", "a", "b", "d"] {
        store.put(key, "");
    }
    let outcome = store.delete("b", "\0");
    let prev = vec![at(4, 0), at(2, 0), at(5, 0)];
    assert_eq!(outcome.reply, Ok(Reply::DeleteRange(DeleteRangeReply { revision: 6, deleted: 3, prev })));
    let tombstone = |sub, key| Write::Tombstone { revision: at(6, sub), key: bytes(key) };
    assert_eq!(outcome.writes, [tombstone(0, "b"), tombstone(1, "c"), tombstone(2, "d")]);
    assert_eq!(outcome.events[1], Event { kind: EventKind::Delete, revision: at(6, 1), prev: Some(at(2, 0)) });
    let nothing = DeleteRangeReply { revision: 6, deleted: 0, prev: vec![] };
    let again = store.delete("b", "\0");
    assert_eq!(again, Outcome { reply: Ok(Reply::DeleteRange(nothing)), writes: vec![], events: vec![] });
}

#[test]
fn a_large_range_delete_shows_nothing_before_its_last_slice() {
    let mut store = Store::default();
    for i in 0..1000 {
        store.put(&format!("{i:04}"), "");
    }
    let request = DeleteRangeRequest { prev_kv: false, ..delete("0100", "0900") };
    let mut application = Application::begin(Command::DeleteRange(request));
    let mut slices = 0;
    let outcome = loop {
        slices += 1;
        match application.advance(&store, 100).expect("every row is there") {
            Step::More => {}
            Step::Done(outcome) => break outcome,
            step => panic!("{step:?}"),
        }
    };
    assert_eq!((slices, outcome.writes.len()), (8, 800));
    store.carry_out(&outcome);
    assert_eq!((store.current, store.index.live()), (1002, 200));
}

#[test]
fn a_range_in_the_log_is_read_by_who_answers() {
    let mut store = Store::default();
    store.put("k", "v");
    let outcome = store.outcome(Command::Range(range("k", "")), &[1]);
    let point = ReadPoint { at: Revision::end_of(2), revision: 2, compacted: -1 };
    let read = RangeAt { request: range("k", ""), point };
    assert_eq!(outcome, Outcome { reply: Ok(Reply::Range(Box::new(read))), writes: vec![], events: vec![] });
}

#[test]
fn what_is_not_built_stops_the_member() {
    let store = Store::default();
    let enable = Application::begin(Command::Auth(AuthCommand::Enable));
    assert_eq!(advance_to_end(&store, enable, &[1]), Step::Unbuilt("authentication"));
}

#[test]
fn a_downgrade_is_remembered_until_it_is_given_up() {
    let store = Store::default();
    let mut membership = Membership::default();
    for (enabled, target) in [(true, "3.6.0"), (false, "")] {
        // The version of one that ends is nobody's.
        let request = DowngradeInfoSetRequest { enabled, version: "3.6.0".to_owned() };
        let outcome = store.outcome(Command::DowngradeInfoSet(request), &[1]);
        let downgrade = Downgrade { enabled, target: target.to_owned() };
        assert_eq!(
            (outcome.reply, &outcome.writes[..]),
            (Ok(Reply::Empty), &[Write::Downgrade(downgrade.clone())][..])
        );
        membership.on_write(&outcome.writes[0]);
        assert_eq!(*membership.downgrade(), downgrade);
    }
}

fn member(id: u64, url: &str) -> Member {
    Member { id: MemberId(id), peer_urls: vec![url.into()], ..Member::default() }
}

fn add(store: &Store, member: Member) -> Step {
    let change = ConfChange { id: Ticket(0), node: member.id, kind: ConfChangeKind::AddVoter(member) };
    advance_to_end(store, Application::begin_conf_change(change), &[1])
}

#[test]
fn members_join_publish_and_agree_on_a_version() {
    let mut store = Store::default();
    for (id, url) in [(7, "http://b"), (3, "http://a")] {
        let Step::Done(outcome) = add(&store, member(id, url)) else { panic!("was accepted") };
        assert_eq!(outcome.writes, [Write::Member(member(id, url))]);
        store.carry_out(&outcome);
        let members: Vec<Member> = store.membership.iter().cloned().collect();
        assert_eq!(outcome.reply, Ok(Reply::Members(members)));
    }
    assert_eq!(store.membership.iter().map(|member| member.id.0).collect::<Vec<_>>(), [3, 7]);
    let published =
        ClusterMemberAttrSetRequest { member: MemberId(7), name: "seven".into(), client_urls: vec!["http://c".into()] };
    let outcome = store.apply(Command::ClusterMemberAttrSet(published), &[1]);
    assert_eq!(outcome.reply, Ok(Reply::Empty));
    let seven = store.membership.get(MemberId(7)).expect("still there");
    assert_eq!((seven.name.as_str(), seven.client_urls.len(), seven.peer_urls.len()), ("seven", 1, 1));
    let version = Version::new(3, 7, 0);
    let outcome = store.apply(Command::ClusterVersionSet(ClusterVersionSetRequest { version }), &[1]);
    assert_eq!(outcome.writes, [Write::ClusterVersion(version)]);
    assert_eq!(store.membership.cluster_version(), Some(version));
    assert_eq!((store.current, store.index.known()), (1, 0), "no revision is spent on this");
}

fn change(store: &Store, node: u64, kind: ConfChangeKind) -> Outcome {
    let change = ConfChange { id: Ticket(1), node: MemberId(node), kind };
    match advance_to_end(store, Application::begin_conf_change(change), &[1]) {
        Step::Done(outcome) => outcome,
        step => panic!("not carried out: {step:?}"),
    }
}

#[test]
fn a_membership_change_can_be_refused() {
    let learner = Member { is_learner: true, ..member(4, "http://l") };
    let membership = Membership::restore([member(3, "http://a"), learner], [MemberId(5)], None).expect("sound");
    let store = Store { membership, ..Store::default() };
    let update = |url: &str| ConfChangeKind::Update { peer_urls: vec![url.to_owned()] };
    for (node, kind, rejected) in [
        (3, ConfChangeKind::AddVoter(member(3, "http://z")), Rejected::MemberExists),
        (6, ConfChangeKind::AddVoter(member(6, "http://a")), Rejected::PeerUrlExists),
        (5, ConfChangeKind::AddVoter(member(5, "http://z")), Rejected::MemberRemoved),
        (6, ConfChangeKind::AddLearner(member(6, "http://z")), Rejected::TooManyLearners),
        (6, ConfChangeKind::AddLearner(member(6, "http://a")), Rejected::PeerUrlExists),
        (6, ConfChangeKind::Promote, Rejected::MemberNotFound),
        (3, ConfChangeKind::Promote, Rejected::MemberNotLearner),
        (6, ConfChangeKind::Remove, Rejected::MemberNotFound),
        (5, ConfChangeKind::Remove, Rejected::MemberRemoved),
        (6, update("http://z"), Rejected::MemberNotFound),
        (3, update("http://l"), Rejected::PeerUrlExists),
    ] {
        let refused = Outcome { reply: Err(rejected), writes: vec![], events: vec![] };
        assert_eq!(change(&store, node, kind.clone()), refused, "{node}: {kind:?}");
    }
    // The limit on learners is the member's own.
    let mut membership = store.membership.clone();
    membership.limit_learners(2);
    let wider = Store { membership, ..Store::default() };
    let added = change(&wider, 6, ConfChangeKind::AddLearner(member(6, "http://z")));
    assert!(matches!(added.reply, Ok(Reply::Members(members)) if members.len() == 3));
    let stranger =
        ConfChange { id: Ticket(1), node: MemberId(9), kind: ConfChangeKind::AddVoter(member(8, "http://z")) };
    let step = advance_to_end(&store, Application::begin_conf_change(stranger), &[1]);
    assert!(matches!(step, Step::Unbuilt(_)), "{step:?}");
}

#[test]
fn a_membership_change_is_answered_by_the_members_after_it() {
    let named = Member { name: "l".to_owned(), is_learner: true, ..member(4, "http://l") };
    let membership = Membership::restore([member(3, "http://a"), named.clone()], [], None).expect("sound");
    let store = Store { membership, ..Store::default() };
    let promoted = Member { is_learner: false, ..named.clone() };
    let moved = Member { peer_urls: vec!["http://a".to_owned(), "http://b".to_owned()], ..member(3, "") };
    let joined = member(9, "http://z");
    for (node, kind, write, members) in [
        (4, ConfChangeKind::Promote, Write::Member(promoted.clone()), vec![member(3, "http://a"), promoted]),
        (3, ConfChangeKind::Remove, Write::MemberRemoved(MemberId(3)), vec![named.clone()]),
        (
            3,
            ConfChangeKind::Update { peer_urls: moved.peer_urls.clone() },
            Write::Member(moved.clone()),
            vec![moved, named.clone()],
        ),
        (
            9,
            ConfChangeKind::AddVoter(joined.clone()),
            Write::Member(joined.clone()),
            vec![member(3, "http://a"), named, joined],
        ),
    ] {
        let wanted = Outcome { reply: Ok(Reply::Members(members)), writes: vec![write], events: vec![] };
        assert_eq!(change(&store, node, kind.clone()), wanted, "{node}: {kind:?}");
    }
    let alone = Membership::restore([member(3, "http://a")], [], None).expect("sound");
    let store = Store { membership: alone, ..Store::default() };
    let learner = Member { is_learner: true, ..member(9, "http://z") };
    let outcome = change(&store, 9, ConfChangeKind::AddLearner(member(9, "http://z")));
    assert_eq!(outcome.writes, vec![Write::Member(learner)], "the kind of change says who only listens");
}

#[test]
fn attributes_of_a_removed_member_are_passed_over_and_of_a_stranger_stop_the_member() {
    let membership = Membership::restore([], [MemberId(5)], None).expect("sound");
    let store = Store { membership, ..Store::default() };
    let publish = |member| Command::ClusterMemberAttrSet(ClusterMemberAttrSetRequest { member, ..Default::default() });
    let outcome = store.outcome(publish(MemberId(5)), &[1]);
    assert_eq!(outcome, Outcome { reply: Ok(Reply::Empty), writes: vec![], events: vec![] });
    let step = advance_to_end(&store, Application::begin(publish(MemberId(6))), &[1]);
    assert!(matches!(step, Step::Unbuilt(_)), "{step:?}");
}

#[test]
fn a_damaged_membership_is_not_restored() {
    assert_eq!(Membership::restore([member(5, "")], [MemberId(5)], None), None);
    assert_eq!(Membership::restore([member(5, ""), member(5, "")], [], None), None);
}

#[test]
fn versions_are_three_plain_numbers() {
    assert_eq!(Version::parse("3.7.0"), Some(Version::new(3, 7, 0)));
    assert_eq!(Version::new(3, 17, 0).to_string(), "3.17.0");
    for text in
        ["", "3", "3.7", "3.7.0.1", "3.7.x", "3..0", "+3.7.0", "3.07.0", "3.7.0-rc.1", "99999999999999999999.0.0"]
    {
        assert_eq!(Version::parse(text), None, "{text}");
    }
}
