//! The membership as the JSON of etcd's old store: the payload of a `.snap` file, read by etcd 3.6 after a downgrade.
//!
//! The invariant is the exact shape: the tree, the history of the steps that would have made it, and the counters, with Go's order of
//! fields and its escapes. The tree is made anew each time from what the members are now.

use std::collections::BTreeMap;

use serde::Serialize;

use detcd_core::membership::Membership;

const NEVER: &str = "0001-01-01T00:00:00Z";
const HISTORY_CAPACITY: usize = 1000;
const STORE_VERSION: u64 = 2;

/// The JSON of a membership.
#[must_use]
pub fn json(membership: &Membership) -> Vec<u8> {
    let steps = steps(membership);
    let mut root = Node::directory("/", 0);
    for top in ["0", "1"] {
        root.child(top, 0, None);
    }
    let mut history = History::new();
    for (place, step) in steps.iter().enumerate() {
        let index = place as u64 + 1;
        root.insert(step, index);
        history.push(Event::new(step, index));
    }
    let count = |action| steps.iter().filter(|step| step.action == action).count() as u64;
    let store = Store {
        root,
        watcher_hub: WatcherHub { event_history: history },
        current_index: steps.len() as u64,
        stats: Stats {
            // The one look for a version that is not there yet.
            gets_fail: 1,
            sets_success: count(Action::Set),
            create_success: count(Action::Create),
            ..Stats::default()
        },
        current_version: STORE_VERSION,
    };
    go_json(&store).into_bytes()
}

#[derive(Clone, Copy, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Create,
    Set,
}

/// One change of the old store.
struct Step {
    action: Action,
    path: String,
    value: String,
}

fn steps(membership: &Membership) -> Vec<Step> {
    let mut steps = Vec::new();
    for member in membership.iter() {
        let attributes = RaftAttributes { peer_urls: &member.peer_urls, is_learner: member.is_learner };
        let path = format!("/0/members/{}/raftAttributes", member.id);
        steps.push(Step { action: Action::Create, path, value: go_json(&attributes) });
        if !member.client_urls.is_empty() {
            let attributes = Attributes { name: &member.name, client_urls: &member.client_urls };
            let path = format!("/0/members/{}/attributes", member.id);
            steps.push(Step { action: Action::Set, path, value: go_json(&attributes) });
        }
    }
    for id in membership.removed() {
        let path = format!("/0/removed_members/{id}");
        steps.push(Step { action: Action::Create, path, value: String::new() });
    }
    if let Some(version) = membership.cluster_version() {
        steps.push(Step { action: Action::Set, path: "/0/version".to_owned(), value: version.to_string() });
    }
    steps
}

#[derive(Serialize)]
struct RaftAttributes<'a> {
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "is_false")]
    is_learner: bool,
}

#[derive(Serialize)]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs")]
    client_urls: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Store {
    root: Node,
    watcher_hub: WatcherHub,
    current_index: u64,
    stats: Stats,
    current_version: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    path: String,
    created_index: u64,
    modified_index: u64,
    expire_time: &'static str,
    value: String,
    /// Absent for a value.
    children: Option<BTreeMap<String, Self>>,
}

impl Node {
    fn directory(path: &str, index: u64) -> Self {
        Self { children: Some(BTreeMap::new()), ..Self::value(path, index, String::new()) }
    }

    fn value(path: &str, index: u64, value: String) -> Self {
        let path = path.to_owned();
        Self { path, created_index: index, modified_index: index, expire_time: NEVER, value, children: None }
    }

    /// The child of that name, made if it is not there: a value if there is one, a directory otherwise.
    fn child(&mut self, name: &str, index: u64, value: Option<String>) -> &mut Self {
        let separator = if self.path.ends_with('/') { "" } else { "/" };
        let path = format!("{}{separator}{name}", self.path);
        let children = self.children.get_or_insert_with(BTreeMap::new);
        children.entry(name.to_owned()).or_insert_with(|| match value {
            Some(value) => Self::value(&path, index, value),
            None => Self::directory(&path, index),
        })
    }

    /// Puts the value of a step in its place, with the directories above it.
    fn insert(&mut self, step: &Step, index: u64) {
        let (above, name) = step.path.rsplit_once('/').expect("paths are absolute");
        let mut node = self;
        for part in above.split('/').filter(|part| !part.is_empty()) {
            node = node.child(part, index, None);
        }
        node.child(name, index, Some(step.value.clone()));
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WatcherHub {
    event_history: History,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct History {
    queue: Queue,
    start_index: u64,
    last_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Queue {
    events: Vec<Option<Event>>,
    size: usize,
    front: usize,
    back: usize,
    capacity: usize,
}

impl History {
    fn new() -> Self {
        let mut events = Vec::new();
        events.resize_with(HISTORY_CAPACITY, || None);
        let queue = Queue { events, size: 0, front: 0, back: 0, capacity: HISTORY_CAPACITY };
        Self { queue, start_index: 0, last_index: 0 }
    }

    /// A ring: the newest events replace the oldest.
    fn push(&mut self, event: Event) {
        let queue = &mut self.queue;
        self.last_index = event.node.modified_index;
        queue.events[queue.back] = Some(event);
        queue.back = (queue.back + 1) % HISTORY_CAPACITY;
        if queue.size == HISTORY_CAPACITY {
            queue.front = (queue.front + 1) % HISTORY_CAPACITY;
        } else {
            queue.size += 1;
        }
        self.start_index = queue.events[queue.front].as_ref().map_or(0, |oldest| oldest.node.modified_index);
    }
}

#[derive(Serialize)]
struct Event {
    action: Action,
    node: EventNode,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventNode {
    key: String,
    value: String,
    modified_index: u64,
    created_index: u64,
}

impl Event {
    fn new(step: &Step, index: u64) -> Self {
        let (key, value) = (step.path.clone(), step.value.clone());
        Self { action: step.action, node: EventNode { key, value, modified_index: index, created_index: index } }
    }
}

/// Go's counters, of which only three are not zero.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    gets_success: u64,
    gets_fail: u64,
    sets_success: u64,
    sets_fail: u64,
    #[serde(flatten)]
    changes: Changes,
    create_success: u64,
    create_fail: u64,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changes {
    delete_success: u64,
    delete_fail: u64,
    update_success: u64,
    update_fail: u64,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rest {
    compare_and_swap_success: u64,
    compare_and_swap_fail: u64,
    compare_and_delete_success: u64,
    compare_and_delete_fail: u64,
    expire_count: u64,
    watchers: u64,
}

/// JSON as Go writes it: the five characters that could end a script or a line are escaped. They occur only inside strings.
fn go_json(value: &impl Serialize) -> String {
    let plain = serde_json::to_string(value).expect("strings, numbers and maps of them are always JSON");
    let mut escaped = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    // The two line ends of three bytes begin with this one.
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'<' | b'>' | b'&' | 0xe2)) {
        let (before, found) = rest.split_at(at);
        escaped.push_str(before);
        let letter = found.chars().next().expect("something was found");
        match letter {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            _ => escaped.push(letter),
        }
        rest = &found[letter.len_utf8()..];
    }
    escaped.push_str(rest);
    escaped
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use detcd_core::ids::MemberId;
    use detcd_core::membership::{Member, Version};

    use super::*;

    fn member() -> Member {
        Member {
            id: MemberId(0xab),
            name: "a&b".to_owned(),
            peer_urls: vec!["http://p:2380".to_owned()],
            client_urls: vec!["http://c:2379".to_owned()],
            is_learner: false,
        }
    }

    fn membership(member: Option<Member>, removed: &[u64], version: Option<Version>) -> Membership {
        Membership::restore(member, removed.iter().copied().map(MemberId), version).unwrap()
    }

    fn text(membership: &Membership) -> String {
        String::from_utf8(json(membership)).unwrap()
    }

    #[test]
    fn one_member_is_written_letter_for_letter() {
        let membership = membership(Some(member()), &[9], Some(Version::new(3, 7, 0)));
        let node = |path: &str, index: u64, value: &str, children: &str| {
            format!(
                r#"{{"Path":"{path}","CreatedIndex":{index},"ModifiedIndex":{index},"ExpireTime":"0001-01-01T00:00:00Z","Value":"{value}","Children":{children}}}"#
            )
        };
        let raft = r#"{\"peerURLs\":[\"http://p:2380\"]}"#;
        let own = r#"{\"name\":\"a\\u0026b\",\"clientURLs\":[\"http://c:2379\"]}"#;
        let one = format!(
            r#"{{"attributes":{},"raftAttributes":{}}}"#,
            node("/0/members/ab/attributes", 2, own, "null"),
            node("/0/members/ab/raftAttributes", 1, raft, "null"),
        );
        let members = format!(r#"{{"ab":{}}}"#, node("/0/members/ab", 1, "", &one));
        let removed = format!(r#"{{"9":{}}}"#, node("/0/removed_members/9", 3, "", "null"));
        let zero = format!(
            r#"{{"members":{},"removed_members":{},"version":{}}}"#,
            node("/0/members", 1, "", &members),
            node("/0/removed_members", 3, "", &removed),
            node("/0/version", 4, "3.7.0", "null"),
        );
        let tops = format!(r#"{{"0":{},"1":{}}}"#, node("/0", 0, "", &zero), node("/1", 0, "", "{}"));
        let event = |action: &str, key: &str, value: &str, index: u64| {
            format!(
                r#"{{"action":"{action}","node":{{"key":"{key}","value":"{value}","modifiedIndex":{index},"createdIndex":{index}}}}},"#
            )
        };
        let events = [
            event("create", "/0/members/ab/raftAttributes", raft, 1),
            event("set", "/0/members/ab/attributes", own, 2),
            event("create", "/0/removed_members/9", "", 3),
            event("set", "/0/version", "3.7.0", 4),
        ]
        .concat();
        let wanted = format!(
            concat!(
                r#"{{"Root":{},"WatcherHub":{{"EventHistory":{{"Queue":{{"Events":[{}{}],"Size":4,"Front":0,"Back":4,"#,
                r#""Capacity":1000}},"StartIndex":1,"LastIndex":4}}}},"CurrentIndex":4,"Stats":{{"getsSuccess":0,"#,
                r#""getsFail":1,"setsSuccess":2,"setsFail":0,"deleteSuccess":0,"deleteFail":0,"updateSuccess":0,"#,
                r#""updateFail":0,"createSuccess":2,"createFail":0,"compareAndSwapSuccess":0,"compareAndSwapFail":0,"#,
                r#""compareAndDeleteSuccess":0,"compareAndDeleteFail":0,"expireCount":0,"watchers":0}},"CurrentVersion":2}}"#
            ),
            node("/", 0, "", &tops),
            events,
            ["null"; 996].join(","),
        );
        assert_eq!(text(&membership), wanted);
    }

    #[test]
    fn a_learner_that_has_not_published_has_no_attributes() {
        let learner = Member { is_learner: true, client_urls: Vec::new(), ..member() };
        let written = text(&membership(Some(learner), &[], None));
        assert!(written.contains(r#"{\"peerURLs\":[\"http://p:2380\"],\"isLearner\":true}"#));
        assert!(!written.contains("/attributes"));
    }

    #[test]
    fn the_history_is_a_ring() {
        let removed: Vec<u64> = (1..=1002).collect();
        let written = text(&membership(None, &removed, None));
        assert!(written.contains(r#""Size":1000,"Front":2,"Back":2,"Capacity":1000},"StartIndex":3,"LastIndex":1002"#));
    }
}
