//! Directories × flags × machines, one row each: the whole of what a start may decide.

use std::collections::BTreeMap;

use super::super::asked::{Others, Recovery};
use super::*;

/// Others say that these are the members of cluster 5.
fn known(asked: Asked, members: &[(u64, &[&str])]) -> Asked {
    let member = |(id, urls): &(u64, &[&str])| Member {
        id: MemberId(*id),
        peer_urls: urls.iter().map(|&url| url.to_owned()).collect(),
        client_urls: vec!["http://c:1".to_owned()],
        ..Member::default()
    };
    let others = Others { cluster: ClusterId(5), members: members.iter().map(member).collect() };
    Asked { others: Some(others), ..asked }
}

/// The same, but for one that was added and has not started yet.
fn unstarted(mut asked: Asked, id: u64) -> Asked {
    let others = asked.others.as_mut().unwrap();
    others.members.iter_mut().find(|member| member.id == MemberId(id)).unwrap().client_urls.clear();
    asked
}

const MANY: &str = "a=http://1.1.1.1:2380,b=http://2.2.2.2:2380";
const DEFAULT: &str = "create 8e9e05c52164694d in cdf818194e3a8c32";

fn asked() -> Asked {
    Asked {
        name: "default".to_owned(),
        initial_cluster: "default=http://localhost:2380".to_owned(),
        token: "etcd-cluster".to_owned(),
        state: ClusterState::New,
        advertise_peer_urls: url::parse_list("http://localhost:2380").unwrap(),
        learners_max: 1,
        recovery: Recovery::Ordinary,
        others: None,
        resolved: BTreeMap::new(),
    }
}

fn machine(arch: &str) -> Machine {
    Machine { arch: arch.to_owned(), unsupported_arch: None, fd_limit: 1024 }
}

fn member(log: bool, store: bool, etcd_store: bool) -> Found {
    Found::Member(MemberFound {
        log: Presence::when(log),
        store: Presence::when(store),
        etcd_store: Presence::when(etcd_store),
        ..MemberFound::default()
    })
}

/// A directory whose import was cut short after the store had got its name.
fn unfinished(log: bool, etcd_store: bool) -> Found {
    let Found::Member(found) = member(log, true, etcd_store) else { unreachable!() };
    Found::Member(MemberFound { import_marker: Presence::Present, ..found })
}

/// One word for the decision, then the reason or the ids, then the notices.
fn told(result: &Result<Planned, Refusal>) -> String {
    match result {
        Err(refusal) => format!("refuse {}: {refusal}", refusal.reason()),
        Ok(planned) => {
            let mut text = match &planned.plan {
                Plan::Create(create) => format!("create {} in {}", create.member, create.cluster),
                Plan::Restart(restart) => format!("restart, store {:?}", restart.store),
                Plan::Import(import) => format!("import {import:?}"),
            };
            for notice in &planned.notices {
                text += &format!("; {}", notice.message());
                if let Some((_, value)) = notice.field() {
                    text += &format!(" [{value}]");
                }
            }
            text
        }
    }
}

fn cluster(name: &str, initial_cluster: &str, advertise: &str) -> Asked {
    Asked {
        name: name.to_owned(),
        initial_cluster: initial_cluster.to_owned(),
        advertise_peer_urls: url::parse_list(advertise).unwrap(),
        ..asked()
    }
}

fn existing(asked: Asked) -> Asked {
    Asked { state: ClusterState::Existing, ..asked }
}

/// One that joins, by a list in which it and another one are.
fn two_known() -> Asked {
    let joining = existing(cluster("b", MANY, "http://localhost:2380"));
    known(joining, &[(7, &["http://1.1.1.1:2380"]), (9, &["http://2.2.2.2:2380"])])
}

fn resolving(mut asked: Asked, host: &str, address: &str) -> Asked {
    asked.resolved.insert(host.to_owned(), address.parse().unwrap());
    asked
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn directories_decide() {
    let text = |text: &str| text.to_owned();
    let etcd_without_log = "refuse etcd_dir: data directory holds a store of etcd (member/snap/db) but no log";
    let two_stores =
        "refuse damaged_dir: data directory holds two stores: member/lmdb of detcd and member/snap/db of etcd";
    let store_missing = "restart, store Absent; the log is there but the store is not; making the store from the log";
    let with_foreign = Found::Member(MemberFound {
        log: Presence::Present,
        store: Presence::Present,
        foreign: names(&["lost+found"]),
        ..MemberFound::default()
    });
    let rows = [
        (Found::Absent, text(DEFAULT)),
        (Found::Empty, text(DEFAULT)),
        (
            Found::Foreign { names: names(&["a", "lost+found"]) },
            format!(
                "{DEFAULT}; found invalid file under data directory [a]; found invalid file under data directory [lost+found]"
            ),
        ),
        (member(false, false, false), text(DEFAULT)),
        (member(true, true, false), text("restart, store Present")),
        (member(true, false, false), text(store_missing)),
        (member(false, true, false), text("refuse damaged_dir: data directory holds a store (member/lmdb) but no log")),
        (member(true, false, true), text("import Whole")),
        (member(false, false, true), text(etcd_without_log)),
        (member(true, true, true), text(two_stores)),
        (member(false, true, true), text(two_stores)),
        (unfinished(true, true), text("import Finish")),
        (unfinished(true, false), text("import Finish")),
        (unfinished(false, true), text(two_stores)),
        (unfinished(false, false), text("refuse damaged_dir: data directory holds a store (member/lmdb) but no log")),
        (with_foreign, text("restart, store Present; found invalid file under data directory [lost+found]")),
        (Found::Proxy, text("refuse proxy_dir: v2 http proxy has already been deprecated in 3.6")),
        (Found::Both, text("refuse proxy_dir: invalid datadir; both member and proxy directories exist")),
        (
            Found::InsideMember { names: names(&["snap", "wal"]) },
            text("refuse wrong_dir: data directory looks like the inside of a member: it holds snap, wal"),
        ),
        (
            Found::Damaged { path: text("d/member"), cause: text("not a directory") },
            text("refuse damaged_dir: data directory is damaged: d/member: not a directory"),
        ),
        (
            Found::NotWritable { path: text("d"), cause: text("read-only") },
            text("refuse not_writable: cannot access data directory: d: read-only"),
        ),
        (
            Found::Locked { path: text("d/member/lock") },
            text("refuse locked: data directory is in use by another process: d/member/lock is locked"),
        ),
    ];
    for (found, expected) in rows {
        assert_eq!(told(&plan(&found, &asked(), &machine("amd64"))), expected, "{found:?}");
    }
}

#[test]
fn flags_decide_only_where_there_is_no_log() {
    let default_url = "http://localhost:2380";
    let many = MANY;
    let rows = [
        (asked(), DEFAULT),
        (Asked { token: "other".to_owned(), ..asked() }, "create db294881cbfac5de in 3243524c66c93892"),
        (
            cluster("a", "default=http://localhost:2380", default_url),
            "refuse initial_cluster: couldn't find local name \"a\" in the initial cluster configuration",
        ),
        (
            cluster("default", "", default_url),
            "refuse initial_cluster: couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            cluster("", "", default_url),
            "refuse initial_cluster: couldn't find local name \"\" in the initial cluster configuration",
        ),
        (
            cluster("a", "a", default_url),
            "refuse initial_cluster: error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            cluster("a", "a=http://h", default_url),
            "refuse initial_cluster: error setting up initial cluster: URL address does not have the form \"host:port\": http://h",
        ),
        (
            cluster("a", "a=1.1.1.1:1", default_url),
            "refuse initial_cluster: error setting up initial cluster: parse \"1.1.1.1:1\": first path segment in URL cannot contain colon",
        ),
        (
            cluster("a", "a=http://1.1.1.1:2380", default_url),
            "refuse advertise_urls: --initial-cluster has a=http://1.1.1.1:2380 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \"http://1.1.1.1:2380\")",
        ),
        (
            cluster("a", "a=http://127.0.0.1:2380", default_url),
            "refuse advertise_urls: --initial-cluster has a=http://127.0.0.1:2380 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \"http://127.0.0.1:2380\")",
        ),
        (
            cluster("a", "a=http://1.1.1.1:1,a=http://1.1.1.1:2", "http://1.1.1.1:1"),
            "refuse advertise_urls: --initial-cluster has a=http://1.1.1.1:2 but missing from --initial-advertise-peer-urls=http://1.1.1.1:1 (len([\"http://1.1.1.1:1\"]) != len([\"http://1.1.1.1:1\" \"http://1.1.1.1:2\"]))",
        ),
        (
            cluster("a", "a=http://1.1.1.1:1", "http://1.1.1.1:1,http://1.1.1.1:2"),
            "refuse advertise_urls: --initial-advertise-peer-urls has http://1.1.1.1:2 but missing from --initial-cluster=a=http://1.1.1.1:1,a=http://1.1.1.1:2",
        ),
        (
            cluster("a", "a=http://1.1.1.1:1,a=http://1.1.1.1:1", "http://1.1.1.1:1"),
            "refuse advertise_urls: failed to resolve http://1.1.1.1:1 to match --initial-cluster=a=http://1.1.1.1:1 (len([\"http://1.1.1.1:1\"]) != len([\"http://1.1.1.1:1\" \"http://1.1.1.1:1\"]))",
        ),
        (
            cluster("a", "a=http://node:1", "http://1.1.1.1:1"),
            "refuse advertise_urls: --initial-cluster has a=http://node:1 but missing from --initial-advertise-peer-urls=http://1.1.1.1:1 (failed to resolve \"http://node:1\" (no such host))",
        ),
        (
            resolving(cluster("a", "a=http://node:1", "http://1.1.1.1:1"), "node:1", "2.2.2.2:1"),
            "refuse advertise_urls: --initial-cluster has a=http://node:1 but missing from --initial-advertise-peer-urls=http://1.1.1.1:1 (resolved urls: \"http://1.1.1.1:1\" != \"http://2.2.2.2:1\")",
        ),
        (
            resolving(cluster("a", "a=http://node:1", "http://1.1.1.1:1"), "node:1", "1.1.1.1:1"),
            "create 2afbcbb2bbf8a753 in 4c15ec20212ad250",
        ),
        (cluster("a", "a=http://node:1", "http://node:1"), "create 2afbcbb2bbf8a753 in 4c15ec20212ad250"),
        (
            cluster("a", "a=http://h:2,a=http://h:1", "http://h:1,http://h:2"),
            "create 86a6653ff6bf9585 in c9238b13cef678dc",
        ),
        (
            cluster("a", "a=http://1.1.1.1:1,b=http://1.1.1.1:1", "http://1.1.1.1:1"),
            "refuse initial_cluster: initial cluster a=http://1.1.1.1:1,b=http://1.1.1.1:1 has duplicate url",
        ),
        (cluster("a", many, "http://1.1.1.1:2380"), "create 9cb231a502b0f225 in 777a3fb06b62ab93"),
        (
            existing(asked()),
            "refuse join: cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
        ),
        (
            existing(cluster("a", many, default_url)),
            "refuse join: cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
        ),
        (unstarted(two_known(), 9), "create 9 in 5"),
        (two_known(), "refuse already_bootstrapped: member 9 has already been bootstrapped"),
        (
            known(existing(cluster("b", many, default_url)), &[(7, &["http://1.1.1.1:2380"])]),
            "refuse join: error validating peerURLs: member count is unequal",
        ),
        (
            known(
                existing(cluster("b", many, default_url)),
                &[(7, &["http://1.1.1.1:2380"]), (9, &["http://2.2.2.3:2380"])],
            ),
            "refuse join: error validating peerURLs: unmatched member while checking PeerURLs (b=http://2.2.2.2:2380)",
        ),
        (
            Asked {
                learners_max: 0,
                others: Some(Others {
                    cluster: ClusterId(5),
                    members: vec![Member { id: MemberId(7), is_learner: true, ..Member::default() }],
                }),
                ..existing(cluster("a", "a=http://1.1.1.1:2380", default_url))
            },
            "refuse too_many_learners: membership: too many learner members in cluster",
        ),
        (
            // The id that its URL and the token give, and it has published where clients reach it.
            known(cluster("a", many, "http://1.1.1.1:2380"), &[(0x9cb2_31a5_02b0_f225, &["http://1.1.1.1:2380"])]),
            "refuse already_bootstrapped: member 9cb231a502b0f225 has already been bootstrapped",
        ),
        (
            known(cluster("a", many, "http://1.1.1.1:2380"), &[(7, &["http://1.1.1.1:2380"])]),
            "create 9cb231a502b0f225 in 777a3fb06b62ab93",
        ),
        (
            existing(cluster("c", many, default_url)),
            "refuse initial_cluster: couldn't find local name \"c\" in the initial cluster configuration",
        ),
        (Asked { recovery: Recovery::ForceNewCluster, ..asked() }, DEFAULT),
    ];
    let log = member(true, true, false);
    for (asked, expected) in rows {
        for fresh in [Found::Absent, Found::Empty, member(false, false, false)] {
            assert_eq!(told(&plan(&fresh, &asked, &machine("amd64"))), expected, "{asked:?}");
        }
        let again = told(&plan(&log, &asked, &machine("amd64")));
        assert_eq!(again, "restart, store Present", "a member that exists does not look at {asked:?}");
    }
}

#[test]
fn machines_decide_first() {
    let own_risk = Machine { unsupported_arch: Some("riscv64".to_owned()), ..machine("riscv64") };
    let arch = "refuse unsupported_arch: Refusing to run etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is not set";
    let few = "refuse fd_limit: file descriptor limit of etcd process is too low; please set higher";
    let rows = [
        (machine("amd64"), DEFAULT.to_owned()),
        (machine("arm64"), DEFAULT.to_owned()),
        (machine("ppc64le"), DEFAULT.to_owned()),
        (machine("s390x"), DEFAULT.to_owned()),
        (machine("riscv64"), arch.to_owned()),
        (machine("386"), arch.to_owned()),
        (
            own_risk.clone(),
            format!("{DEFAULT}; running etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is set [riscv64]"),
        ),
        (Machine { unsupported_arch: Some("arm64".to_owned()), ..machine("riscv64") }, arch.to_owned()),
        (Machine { fd_limit: 150, ..machine("amd64") }, few.to_owned()),
        (Machine { fd_limit: 151, ..machine("amd64") }, DEFAULT.to_owned()),
        (Machine { fd_limit: 150, ..machine("386") }, arch.to_owned()),
    ];
    for (machine, expected) in rows {
        assert_eq!(told(&plan(&Found::Absent, &asked(), &machine)), expected, "{machine:?}");
        if expected.starts_with("refuse") {
            let proxy = plan(&Found::Proxy, &asked(), &machine);
            assert_eq!(told(&proxy), expected, "the machine is looked at before the directory");
        }
    }
    assert!(plan(&Found::Absent, &asked(), &own_risk).unwrap().is_at_own_risk());
    assert!(!plan(&Found::Absent, &asked(), &machine("amd64")).unwrap().is_at_own_risk());
}

#[test]
fn a_new_cluster_starts_with_its_founder_as_entry_one() {
    let Plan::Create(create) = plan(&Found::Absent, &asked(), &machine("amd64")).unwrap().plan else {
        panic!("an absent directory is founded");
    };
    let entries = create.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].index.0, entries[0].term.0, entries[0].member), (1, 1, create.member));
    assert_eq!(
        String::from_utf8(entries[0].context.clone()).unwrap(),
        r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#
    );
}

#[test]
fn refusals_tell_the_operator_where_to_look() {
    let hints = [
        (Found::Proxy, asked(), "--data-dir"),
        (Found::InsideMember { names: Vec::new() }, asked(), "--data-dir"),
        (member(false, true, false), asked(), "--wal-dir"),
        (Found::Locked { path: String::new() }, asked(), "another detcd"),
        (Found::Absent, cluster("a", "b=http://h:1", "http://h:1"), "--name"),
        (Found::Absent, cluster("a", "a=http://h:1", "http://h:2"), "--initial-advertise-peer-urls"),
    ];
    for (found, asked, part) in hints {
        let refusal = plan(&found, &asked, &machine("amd64")).unwrap_err();
        assert!(refusal.hint().contains(part), "{refusal:?}: {}", refusal.hint());
        assert_eq!(refusal.exit_code(), 1);
    }
}

#[test]
fn only_members_that_can_be_told_apart_are_asked() {
    let url = "http://1.1.1.1:1";
    let rows = [
        ("a=http://1.1.1.1:1,b=http://2.2.2.2:1", true),
        ("a=http://1.1.1.1:1,b=http://1.1.1.1:1", false),
        ("a", false),
    ];
    for (initial_cluster, expected) in rows {
        assert_eq!(names_a_cluster(&cluster("a", initial_cluster, url)), expected, "{initial_cluster}");
    }
}
