//! The plan: what is on disk × what was asked × the machine, decided before anything is touched.
//!
//! Invariant: [`plan`] is a function. It reads no file and no clock, so the table below it is the whole truth about which starts
//! are made and which are refused. In particular a directory that holds a member is never founded again, whatever the flags say.
//!
//! Its other half is an order that the execution keeps: the log is made (whole, by a rename) before the store. So a log without a
//! store is a first start that was cut short, and a store without a log is a log that was lost or is kept elsewhere.

use std::collections::BTreeSet;

use detcd_core::ids::MemberId;
use detcd_core::membership::Member;

use super::asked::{Asked, ClusterState, Members, cluster_of_one, parse_members};
use super::found::{Found, MemberFound, Presence};
use super::identity::{ClusterId, Founder, Founding, cluster_id, founders, founding_entries};
use super::machine::{FDS_RESERVED, Gate, Machine};
use super::refusal::Refusal;
use super::url::{self, Url};

/// A start that may happen, and what to tell the operator about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Planned {
    /// What to do.
    pub plan: Plan,
    /// What to log first.
    pub notices: Vec<Notice>,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Plan {
    /// Found a cluster: make the log with these facts in it, then the store.
    Create(Create),
    /// Go on with the log that is there.
    Restart(Restart),
    /// Make the store from etcd's, then go on with the log that is there.
    Import(Import),
}

/// How far the import of etcd's store has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Import {
    /// There is nothing that counts.
    Whole,
    /// The store is there, whole and unused; names have to be set right.
    Finish,
}

/// The facts of a new cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Create {
    /// This member.
    pub member: MemberId,
    /// The cluster.
    pub cluster: ClusterId,
    /// All founding members by ascending id, this one among them. None in a cluster that runs: its log tells.
    pub founders: Vec<Founder>,
    /// Those who are in the cluster already, for a first contact.
    pub others: Vec<Member>,
}

/// The facts of a restart; ids and members come from the log and the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Restart {
    /// Whether there is a store. If there is none, the log must reach back to its first entry.
    pub store: Presence,
}

/// Something an operator should read although the start goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// The architecture gate was opened by `ETCD_UNSUPPORTED_ARCH`.
    UnsupportedArch {
        /// The architecture.
        arch: String,
    },
    /// A name in the data directory that no member writes.
    ForeignFile {
        /// The name.
        name: String,
    },
    /// There is a log but no store; the store is made from the log.
    StoreMissing,
}

impl Create {
    /// The entries the log starts with. All of them count as committed, in term 1.
    #[must_use]
    pub fn entries(&self) -> Vec<Founding> {
        founding_entries(&self.founders)
    }
}

impl Planned {
    /// Whether this start runs on an architecture at the operator's own risk.
    #[must_use]
    pub fn is_at_own_risk(&self) -> bool {
        self.notices.iter().any(|notice| matches!(notice, Notice::UnsupportedArch { .. }))
    }
}

impl Notice {
    /// The line to log.
    #[must_use]
    pub const fn message(&self) -> &'static str {
        match self {
            Self::UnsupportedArch { .. } => {
                "running etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is set"
            }
            Self::ForeignFile { .. } => "found invalid file under data directory",
            Self::StoreMissing => "the log is there but the store is not; making the store from the log",
        }
    }

    /// The line's one field, if it has one.
    #[must_use]
    pub fn field(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::UnsupportedArch { arch } => Some(("arch", arch)),
            Self::ForeignFile { name } => Some(("filename", name)),
            Self::StoreMissing => None,
        }
    }
}

/// Decides what this start does.
///
/// # Errors
/// Why it must not happen. Nothing was touched.
pub fn plan(found: &Found, asked: &Asked, machine: &Machine) -> Result<Planned, Refusal> {
    let mut notices = Vec::new();
    match machine.gate() {
        Gate::Supported => {}
        Gate::AtOwnRisk => notices.push(Notice::UnsupportedArch { arch: machine.arch.clone() }),
        Gate::Closed => return Err(Refusal::Architecture { arch: machine.arch.clone() }),
    }
    if machine.fd_limit <= FDS_RESERVED {
        return Err(Refusal::FdLimit { limit: machine.fd_limit });
    }
    let plan = match found {
        Found::Absent | Found::Empty => create(asked)?,
        Found::Foreign { names } => {
            notices.extend(foreign(names));
            create(asked)?
        }
        Found::Member(member) => {
            notices.extend(foreign(&member.foreign));
            on_member(member, asked, &mut notices)?
        }
        Found::Proxy => return Err(Refusal::Proxy),
        Found::Both => return Err(Refusal::MemberAndProxy),
        Found::InsideMember { names } => return Err(Refusal::InsideMember { names: names.clone() }),
        Found::Damaged { path, cause } => return Err(Refusal::Damaged { path: path.clone(), cause: cause.clone() }),
        Found::NotWritable { path, cause } => {
            return Err(Refusal::NotWritable { path: path.clone(), cause: cause.clone() });
        }
        Found::Locked { path } => return Err(Refusal::Locked { path: path.clone() }),
    };
    Ok(Planned { plan, notices })
}

/// Whether the members that were named can be told apart: if not, the start is refused, and nobody needs to be asked for that.
#[must_use]
pub fn names_a_cluster(asked: &Asked) -> bool {
    parse_members(&asked.initial_cluster).is_ok_and(|members| check_unique(&members).is_ok())
}

fn foreign(names: &[String]) -> Vec<Notice> {
    names.iter().map(|name| Notice::ForeignFile { name: name.clone() }).collect()
}

/// `member` is there: with a log it is started again, without log and store its first start was cut short.
fn on_member(member: &MemberFound, asked: &Asked, notices: &mut Vec<Notice>) -> Result<Plan, Refusal> {
    use Presence::{Absent, Present};
    match (member.log, member.store, member.etcd_store) {
        (Present, Present, _) if member.import_marker == Present => Ok(Plan::Import(Import::Finish)),
        (_, Present, Present) => Err(Refusal::TwoStores),
        (Present, Absent, Present) => Ok(Plan::Import(Import::Whole)),
        (Absent, Absent, Present) => Err(Refusal::EtcdStoreWithoutLog),
        (Absent, Present, Absent) => Err(Refusal::StoreWithoutLog),
        (Absent, Absent, Absent) => create(asked),
        (Present, store, Absent) => {
            if let Absent = store {
                notices.push(Notice::StoreMissing);
            }
            Ok(Plan::Restart(Restart { store }))
        }
    }
}

/// Founds a cluster, after the checks that etcd makes, in its order.
fn create(asked: &Asked) -> Result<Plan, Refusal> {
    let members = parse_members(&asked.initial_cluster)?;
    if !members.contains_key(&asked.name) {
        return Err(Refusal::NoLocalName { name: asked.name.clone() });
    }
    if let ClusterState::New = asked.state {
        check_advertised(asked, &members)?;
    }
    check_unique(&members)?;
    if let ClusterState::Existing = asked.state {
        return join(asked, &members);
    }
    let founders = founders(&members, &asked.token);
    let ids: Vec<MemberId> = founders.iter().map(|founder| founder.id).collect();
    let own = founders.iter().find(|founder| founder.name == asked.name).expect("the local name is among the members");
    let running = asked.others.iter().flat_map(|others| &others.members);
    if running.into_iter().any(|member| member.id == own.id && !member.client_urls.is_empty()) {
        return Err(Refusal::AlreadyBootstrapped { member: own.id });
    }
    Ok(Plan::Create(Create { member: own.id, cluster: cluster_id(&ids), founders, others: Vec::new() }))
}

/// Joins a cluster that runs. It knows this member already: by its peer URLs, under an id that was made when it was added.
fn join(asked: &Asked, named: &Members) -> Result<Plan, Refusal> {
    let Some(others) = &asked.others else { return Err(Refusal::NobodyToJoin) };
    if asked.learners_max < others.members.iter().filter(|member| member.is_learner).count() {
        return Err(Refusal::TooManyLearners);
    }
    if named.len() != others.members.len() {
        return Err(Refusal::JoinMismatch { cause: "member count is unequal".to_owned() });
    }
    let mut own = None;
    for (name, urls) in named {
        let urls: BTreeSet<&str> = urls.iter().map(Url::as_str).collect();
        let is_this = |member: &&Member| member.peer_urls.iter().map(String::as_str).collect::<BTreeSet<_>>() == urls;
        let Some(found) = others.members.iter().find(is_this) else {
            let urls: Vec<&str> = urls.into_iter().collect();
            let cause = format!("unmatched member while checking PeerURLs ({name}={})", urls.join(","));
            return Err(Refusal::JoinMismatch { cause });
        };
        if *name == asked.name {
            own = Some(found);
        }
    }
    let own = own.expect("the local name is among the members");
    // Whoever has served before has a vote and acknowledgements on a disk that this start does not see.
    if !own.client_urls.is_empty() {
        return Err(Refusal::AlreadyBootstrapped { member: own.id });
    }
    let member = own.id;
    let known = others.members.iter().filter(|other| other.id != member).cloned().collect();
    Ok(Plan::Create(Create { member, cluster: others.cluster, founders: Vec::new(), others: known }))
}

fn check_unique(members: &Members) -> Result<(), Refusal> {
    let mut urls: Vec<&Url> = members.values().flatten().collect();
    urls.sort();
    if urls.windows(2).any(|pair| pair[0] == pair[1]) {
        let mut parts: Vec<String> = members.iter().map(|(name, urls)| cluster_of_one(name, urls)).collect();
        parts.sort();
        return Err(Refusal::DuplicateUrl { cluster: parts.join(",") });
    }
    Ok(())
}

/// The advertised peer URLs and those of this member in the initial cluster must be the same places.
fn check_advertised(asked: &Asked, members: &Members) -> Result<(), Refusal> {
    let in_cluster = &members[&asked.name];
    let mut advertised = asked.advertise_peer_urls.clone();
    advertised.sort();
    let Err(cause) = same_places(&advertised, in_cluster, asked) else {
        return Ok(());
    };
    let advertised_text = url::join(&advertised);
    let as_cluster = cluster_of_one(&asked.name, &advertised);
    let unadvertised = missing(in_cluster, &advertised);
    let unlisted = missing(&advertised, in_cluster);
    let text = if !unadvertised.is_empty() {
        let listed: Vec<String> = unadvertised.iter().map(|url| format!("{}={url}", asked.name)).collect();
        let listed = listed.join(",");
        format!(
            "--initial-cluster has {listed} but missing from --initial-advertise-peer-urls={advertised_text} ({cause})"
        )
    } else if !unlisted.is_empty() {
        let unlisted = unlisted.join(",");
        format!("--initial-advertise-peer-urls has {unlisted} but missing from --initial-cluster={as_cluster}")
    } else {
        format!("failed to resolve {advertised_text} to match --initial-cluster={as_cluster} ({cause})")
    };
    Err(Refusal::AdvertiseMismatch { text })
}

/// The URLs of one list that the other has not.
fn missing(these: &[Url], those: &[Url]) -> Vec<String> {
    these.iter().filter(|url| !those.contains(url)).map(ToString::to_string).collect()
}

/// Whether two sorted lists mean the same places: as text, or else with their host names looked up.
fn same_places(these: &[Url], those: &[Url], asked: &Asked) -> Result<(), String> {
    if these.len() != those.len() {
        let quoted = |urls: &[Url]| urls.iter().map(|url| format!("{:?}", url.as_str())).collect::<Vec<_>>().join(" ");
        return Err(format!("len([{}]) != len([{}])", quoted(these), quoted(those)));
    }
    if these == those {
        return Ok(());
    }
    let resolve = |urls: &[Url]| -> Result<Vec<String>, String> {
        let mut texts = urls.iter().map(|url| resolved(url, asked)).collect::<Result<Vec<_>, _>>()?;
        texts.sort();
        Ok(texts)
    };
    let (these, those) = (resolve(these)?, resolve(those)?);
    match these.iter().zip(&those).find(|(this, that)| this != that) {
        Some((this, that)) => Err(format!("resolved urls: {this:?} != {that:?}")),
        None => Ok(()),
    }
}

fn resolved(url: &Url, asked: &Asked) -> Result<String, String> {
    if url.named_host().is_none() {
        return Ok(url.to_string());
    }
    match asked.resolved.get(url.authority()) {
        Some(address) => Ok(format!("{}://{address}", url.scheme().name())),
        None => Err(format!("failed to resolve {:?} (no such host)", url.as_str())),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
