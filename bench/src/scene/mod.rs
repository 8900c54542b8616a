//! One member in full: what the table of requests does not show.
//!
//! A *scene* is a server, something that goes on, and some figures of it: many watchers, leases, a large store, requests while
//! something else disturbs. [`play`], [`bulk`] and [`cluster`] are how each is played, [`stage`] what they share (datasets built once per
//! server, the rate that etcd can bear), [`page`] the section that is written.
//!
//! As in the table, nothing counts that was not answered well, and what a server does not serve has no figures.

pub mod bulk;
pub mod cluster;
pub mod dataset;
pub mod page;
pub mod play;
pub mod process;
pub mod stage;

use crate::table::rows::{Bound, Size};

/// Something that is played on each server.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scene {
    /// Many watchers of everything.
    FanoutPrefix,
    /// Very many watchers of a key each.
    FanoutKeys,
    /// How late events are while many put.
    WatchLatency,
    /// Leases kept alive.
    KeepAlive,
    /// Leases granted, and left to expire.
    Grant,
    /// A large store: memory, disk, restart.
    Million,
    /// Requests at a rate, while something disturbs.
    Disturbed(Trouble),
    /// Three members.
    Cluster(ClusterScene),
}

/// What is played with three members.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ClusterScene {
    /// Puts of one client.
    PutOne,
    /// Puts of very many clients.
    PutMany,
    /// Linearizable reads of very many clients.
    RangeMany,
    /// Nothing at all.
    Idle,
    /// Leaders that are killed.
    LeaderLost,
    /// A member that was away.
    CatchUp,
}

/// What disturbs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Trouble {
    /// Half of the revisions are compacted.
    Compaction,
    /// All revisions but the last of few keys are compacted.
    HotCompaction,
    /// The store is defragmented.
    Defragmentation,
    /// The store is downloaded.
    Snapshot,
    /// Watchers that never read.
    StuckWatchers,
    /// A watcher that starts half of the revisions ago.
    LateWatcher,
    /// A range of 10 MB every second.
    LargeRange,
}

/// One of the figures of a scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// How many decimals are shown.
    pub decimals: usize,
    /// What detcd has to reach.
    pub demand: Option<Demand>,
}

/// What detcd has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Demand {
    /// Its figure divided by etcd's.
    OfEtcd(Bound),
    /// Its figure itself.
    Own(Bound),
}

const fn metric(name: &'static str, decimals: usize) -> Metric {
    Metric { name, decimals, demand: None }
}

const fn at_most_of_etcd(limit: f64, name: &'static str, decimals: usize) -> Metric {
    Metric { name, decimals, demand: Some(Demand::OfEtcd(Bound::AtMost(limit))) }
}

const fn at_least_of_etcd(limit: f64, name: &'static str, decimals: usize) -> Metric {
    Metric { name, decimals, demand: Some(Demand::OfEtcd(Bound::AtLeast(limit))) }
}

const fn at_most(limit: f64, name: &'static str, decimals: usize) -> Metric {
    Metric { name, decimals, demand: Some(Demand::Own(Bound::AtMost(limit))) }
}

/// Processor time of the generator, all its threads, per second: near the number of cores it is what is measured.
const GENERATOR: Metric = metric("generator, cores busy", 2);

const FANOUT: &[Metric] = &[
    metric("events/s", 0),
    metric("put to event p50 ms", 2),
    metric("put to event p99 ms", 2),
    at_most_of_etcd(0.4, "CPU µs/event", 2),
    GENERATOR,
];
const LATENCY: &[Metric] =
    &[metric("puts/s", 0), metric("put to event p50 ms", 2), metric("put to event p99 ms", 2), GENERATOR];
const KEEP_ALIVE: &[Metric] = &[
    metric("keep-alives/s", 0),
    metric("p50 ms", 2),
    metric("p99 ms", 2),
    at_most_of_etcd(0.4, "CPU µs/keep-alive", 1),
    GENERATOR,
];
const GRANT: &[Metric] = &[
    metric("all granted, s", 2),
    metric("grant p99 ms", 2),
    metric("CPU µs/grant", 1),
    metric("last one gone after its time, s", 1),
    metric("CPU µs/expiry", 1),
];
const MILLION: &[Metric] = &[
    at_most_of_etcd(1.0 / 3.0, "anonymous memory MB, after the puts", 0),
    at_most_of_etcd(1.0 / 3.0, "anonymous memory MB, restarted", 0),
    at_most_of_etcd(1.3, "disk MB, store and log", 0),
    metric("disk MB, store alone", 0),
    at_most_of_etcd(0.1, "start to `/readyz`, s", 3),
];
const DISTURBED: &[Metric] = &[
    metric("put p99 ms, quiet", 2),
    metric("put p99 ms, disturbed", 2),
    at_most(1.5, "put p99, disturbed / quiet", 2),
    metric("range p99 ms, quiet", 2),
    metric("range p99 ms, disturbed", 2),
    at_most(1.5, "range p99, disturbed / quiet", 2),
    at_most(0.0, "requests refused", 0),
    metric("one disturbance takes, s", 2),
    GENERATOR,
];
const CLUSTER_PUT_ONE: &[Metric] = &[
    metric("puts/s", 0),
    at_most_of_etcd(0.7, "p50 ms", 2),
    metric("p99 ms", 2),
    at_most_of_etcd(1.0 / 3.0, "CPU µs/put, all members", 1),
    GENERATOR,
];
const CLUSTER_PUT_MANY: &[Metric] = &[
    at_least_of_etcd(2.5, "puts/s", 0),
    metric("p50 ms", 2),
    at_most_of_etcd(0.4, "p99 ms", 2),
    at_most_of_etcd(1.0 / 3.0, "CPU µs/put, all members", 1),
    GENERATOR,
];
const CLUSTER_RANGE_MANY: &[Metric] = &[
    at_least_of_etcd(1.8, "ranges/s", 0),
    metric("p50 ms", 2),
    metric("p99 ms", 2),
    metric("CPU µs/range, all members", 1),
    GENERATOR,
];
const CLUSTER_IDLE: &[Metric] = &[at_most_of_etcd(0.25, "% of a core, all members", 2)];
const CLUSTER_LEADER_LOST: &[Metric] =
    &[at_most_of_etcd(1.0, "kill to next put, mean ms", 0), metric("kill to next put, longest ms", 0)];
const CLUSTER_CATCH_UP: &[Metric] = &[
    at_most_of_etcd(1.0 / 3.0, "start to level, s", 2),
    metric("put p99 ms, quiet", 2),
    metric("put p99 ms, meanwhile", 2),
    at_most(1.5, "put p99, meanwhile / quiet", 2),
];

impl Scene {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 19] = [
        Self::FanoutPrefix,
        Self::FanoutKeys,
        Self::WatchLatency,
        Self::KeepAlive,
        Self::Grant,
        Self::Million,
        Self::Disturbed(Trouble::Compaction),
        Self::Disturbed(Trouble::HotCompaction),
        Self::Disturbed(Trouble::Defragmentation),
        Self::Disturbed(Trouble::Snapshot),
        Self::Disturbed(Trouble::StuckWatchers),
        Self::Disturbed(Trouble::LateWatcher),
        Self::Disturbed(Trouble::LargeRange),
        Self::Cluster(ClusterScene::PutOne),
        Self::Cluster(ClusterScene::PutMany),
        Self::Cluster(ClusterScene::RangeMany),
        Self::Cluster(ClusterScene::Idle),
        Self::Cluster(ClusterScene::LeaderLost),
        Self::Cluster(ClusterScene::CatchUp),
    ];

    /// Its name on the page and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FanoutPrefix => "fanout, one prefix",
            Self::FanoutKeys => "fanout, own keys",
            Self::WatchLatency => "watch latency",
            Self::KeepAlive => "lease keep-alive",
            Self::Grant => "lease grant",
            Self::Million => "store",
            Self::Disturbed(Trouble::Compaction) => "disturbed by compaction",
            Self::Disturbed(Trouble::HotCompaction) => "disturbed by hot compaction",
            Self::Disturbed(Trouble::Defragmentation) => "disturbed by defragmentation",
            Self::Disturbed(Trouble::Snapshot) => "disturbed by snapshot",
            Self::Disturbed(Trouble::StuckWatchers) => "disturbed by stuck watchers",
            Self::Disturbed(Trouble::LateWatcher) => "disturbed by late watcher",
            Self::Disturbed(Trouble::LargeRange) => "disturbed by large range",
            Self::Cluster(ClusterScene::PutOne) => "cluster put one",
            Self::Cluster(ClusterScene::PutMany) => "cluster put many",
            Self::Cluster(ClusterScene::RangeMany) => "cluster range",
            Self::Cluster(ClusterScene::Idle) => "cluster idle",
            Self::Cluster(ClusterScene::LeaderLost) => "cluster leader lost",
            Self::Cluster(ClusterScene::CatchUp) => "cluster catch-up",
        }
    }

    /// What is measured.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::FanoutPrefix | Self::FanoutKeys => FANOUT,
            Self::WatchLatency => LATENCY,
            Self::KeepAlive => KEEP_ALIVE,
            Self::Grant => GRANT,
            Self::Million => MILLION,
            Self::Disturbed(_) => DISTURBED,
            Self::Cluster(ClusterScene::PutOne) => CLUSTER_PUT_ONE,
            Self::Cluster(ClusterScene::PutMany) => CLUSTER_PUT_MANY,
            Self::Cluster(ClusterScene::RangeMany) => CLUSTER_RANGE_MANY,
            Self::Cluster(ClusterScene::Idle) => CLUSTER_IDLE,
            Self::Cluster(ClusterScene::LeaderLost) => CLUSTER_LEADER_LOST,
            Self::Cluster(ClusterScene::CatchUp) => CLUSTER_CATCH_UP,
        }
    }
}

/// How large the scenes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scale {
    /// Watchers of everything, each on a stream of its own.
    pub prefix_watchers: usize,
    /// Puts per second that they are told of.
    pub prefix_puts: u64,
    /// Watchers of a key each.
    pub key_watchers: usize,
    /// The streams that they are on.
    pub key_streams: usize,
    /// Puts per second, each for one of them.
    pub key_puts: u64,
    /// Clients that put, or keep leases alive.
    pub clients: usize,
    /// Leases that are granted and expire.
    pub leases: i64,
    /// Their time to live in seconds.
    pub lease_seconds: i64,
    /// Watchers that never read.
    pub stuck: usize,
    /// How long quiet and disturbance are each measured, in milliseconds.
    pub disturbed_ms: u64,
    /// How long a server that has been filled is left alone, in milliseconds.
    pub settle_ms: u64,
    /// How large clusters are played.
    pub cluster: ClusterScale,
}

/// How large scenes of three members are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClusterScale {
    /// Very many clients.
    pub clients: usize,
    /// Leaders that are killed.
    pub leaders_lost: usize,
}

impl Scale {
    /// The scale of a size.
    pub fn of(size: Size) -> Self {
        match size {
            Size::Full => Self {
                prefix_watchers: 1_000,
                prefix_puts: 40,
                key_watchers: 10_000,
                key_streams: 100,
                key_puts: 4_000,
                clients: 100,
                leases: 10_000,
                lease_seconds: 10,
                stuck: 100,
                disturbed_ms: 10_000,
                settle_ms: 5_000,
                cluster: ClusterScale { clients: 1_000, leaders_lost: 5 },
            },
            Size::Smoke => Self {
                prefix_watchers: 20,
                prefix_puts: 40,
                key_watchers: 100,
                key_streams: 4,
                key_puts: 400,
                clients: 10,
                leases: 100,
                lease_seconds: 2,
                stuck: 5,
                disturbed_ms: 300,
                settle_ms: 100,
                cluster: ClusterScale { clients: 50, leaders_lost: 1 },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scene_has_a_name_of_its_own_and_figures() {
        let names: BTreeSet<_> = Scene::ALL.into_iter().map(Scene::name).collect();
        assert_eq!(names.len(), Scene::ALL.len());
        for scene in Scene::ALL {
            let metrics: BTreeSet<_> = scene.metrics().iter().map(|metric| metric.name).collect();
            assert_eq!(metrics.len(), scene.metrics().len(), "{}", scene.name());
        }
    }

    #[test]
    fn a_smoke_plays_the_same_scenes_smaller() {
        let (full, smoke) = (Scale::of(Size::Full), Scale::of(Size::Smoke));
        assert!(smoke.prefix_watchers < full.prefix_watchers && smoke.key_watchers < full.key_watchers);
        for scale in [full, smoke] {
            assert!(scale.key_streams <= scale.key_watchers);
            assert!(0 < scale.stuck && 0 < scale.leases && 0 < scale.disturbed_ms);
        }
    }
}
