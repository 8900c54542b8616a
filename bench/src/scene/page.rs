//! The section of the page: what each scene is, its figures beside each other, and the verdicts.

use super::stage::Played;
use super::{ClusterScale, ClusterScene, Demand, Metric, Scale, Scene, Trouble};
use crate::table::measure::Options;
use crate::table::page::{bracketed, dash, times};
use crate::table::rows::Bound;
use crate::table::server::Kind;
use crate::table::stats::Spread;

/// The heading of the section.
pub const HEADING: &str = "## One member in full, and three";

/// The section, line by line; nothing if nothing was played.
pub fn section(options: &Options, all: &[Played]) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![HEADING.to_owned(), String::new(), introduction(options), String::new()];
    lines.extend(all.iter().map(|played| format!("- **{}**: {}", played.scene.name(), about(played.scene, options))));
    lines.extend([
        String::new(),
        "| scene | figure | detcd | etcd | detcd / etcd | bar | verdict |".to_owned(),
        "|---|---|--:|--:|--:|---|---|".to_owned(),
    ]);
    for played in all {
        for (number, metric) in played.scene.metrics().iter().enumerate() {
            lines.push(row(played, number, metric));
        }
    }
    lines.push(String::new());
    lines
}

fn introduction(options: &Options) -> String {
    format!(
        "Each figure is the median of {} rounds, with the smallest and the largest in brackets; where nothing else is said, a round \
         measures {} s. The servers take turns. *Generator, cores busy* is the processor time of the generator with all that it does \
         beside the clients, per second; it is not part of any server's figure, but shares the cores with it. All that a row lists was \
         answered without an error status, and watchers got exactly the events that were due.",
        options.rounds,
        options.measured.as_secs_f64(),
    )
}

/// What a scene is, with its size.
fn about(scene: Scene, options: &Options) -> String {
    let scale = Scale::of(options.size);
    let Scale { prefix_watchers, prefix_puts, key_watchers, key_streams, key_puts, clients, leases, .. } = scale;
    match scene {
        Scene::FanoutPrefix => format!(
            "{prefix_watchers} watchers of one prefix, each on a stream of its own, and {prefix_puts} puts a second. CPU is the \
             server's, for each event that a watcher got, the put's share included."
        ),
        Scene::FanoutKeys => format!(
            "{key_watchers} watchers of a key each on {key_streams} streams, and {key_puts} puts of one of these keys a second. \
             Every event is a put here, and its CPU is that of both."
        ),
        Scene::WatchLatency => format!(
            "ten watchers of all keys, while {clients} clients put at half of the rate that etcd can bear (measured before). Times run \
             from the making of a put to its event at a watcher."
        ),
        Scene::KeepAlive => {
            format!("{clients} clients renew a lease each, on a stream each, as soon as they are answered.")
        }
        Scene::Grant => format!(
            "{leases} leases of {} s granted to {clients} clients and left to expire. The last line's CPU is that of the time from the \
             first one's end on until none is left, which is looked up twice a second.",
            scale.lease_seconds,
        ),
        Scene::Million => format!(
            "{} keys of 16 bytes with values of 256, put once by 1000 clients, then the server stopped and started again. Memory is \
             `RssAnon`, so without the pages of mapped files; after the puts (measured once, {} s after the last) and as soon as the \
             restarted server is ready. Disk is what is allocated to files: all of the data directory (store, log with its \
             preallocated segments, log snapshots), and the store alone (`member/lmdb`, `member/snap/db`). The restart is timed from \
             the start of the process to the first 200 of `/readyz`, with its files in the page cache.",
            options.dataset,
            scale.settle_ms as f64 / 1e3,
        ),
        Scene::Disturbed(trouble) => format!(
            "{clients} clients, half puts and half linearizable reads of single keys, at half of the rate that etcd can bear (measured \
             before). The store has {} revisions, {}. {} s in quiet, then {} s (and \
             again, until it has come to its end) while {}. A request counts from the time at which it was due, however late it is answered.",
            options.dataset,
            made_of(trouble),
            scale.disturbed_ms as f64 / 1e3,
            scale.disturbed_ms as f64 / 1e3,
            disturbing(trouble, scale.stuck),
        ),
        Scene::Cluster(scene) => about_cluster(scene, options, &scale),
    }
}

fn about_cluster(scene: ClusterScene, options: &Options, scale: &Scale) -> String {
    let Scale { clients, cluster: ClusterScale { clients: many, leaders_lost }, .. } = scale;
    match scene {
        ClusterScene::PutOne => {
            "three members on this machine and one client of one of them. CPU is that of all members.".to_owned()
        }
        ClusterScene::PutMany => {
            format!("{many} clients put in a closed loop, their connections spread over all members.")
        }
        ClusterScene::RangeMany => {
            format!("{many} clients read single keys in the same way, confirmed by the quorum.")
        }
        ClusterScene::Idle => "three members that nobody asks for anything.".to_owned(),
        ClusterScene::LeaderLost => format!(
            "the leader is killed with SIGKILL, {leaders_lost} times in a round; from there to the first put that a survivor answers, tried \
             every 5 ms. Timeouts are the defaults."
        ),
        ClusterScene::CatchUp => format!(
            "a follower is killed, {} puts later it is started again; from there until it has applied what the leader had at that moment. \
             Meanwhile {clients} clients of the others put at half of the rate that etcd's cluster can bear.",
            options.dataset,
        ),
    }
}

fn made_of(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::HotCompaction => "a thousand of each key, with values of 256 bytes",
        _ => "two of each key, with values of 1 KiB",
    }
}

fn disturbing(trouble: Trouble, stuck: usize) -> String {
    match trouble {
        Trouble::Compaction => "half of the revisions are compacted".to_owned(),
        Trouble::HotCompaction => "all revisions but the last of each key are compacted".to_owned(),
        Trouble::Defragmentation => "the store is defragmented".to_owned(),
        Trouble::Snapshot => "the store is downloaded once".to_owned(),
        Trouble::StuckWatchers => {
            format!("{stuck} watchers of all keys, each on a connection of its own, never read")
        }
        Trouble::LateWatcher => "a watcher of all keys starts half of the revisions ago".to_owned(),
        Trouble::LargeRange => "10 MB are read by one range every second".to_owned(),
    }
}

fn row(played: &Played, number: usize, metric: &Metric) -> String {
    let decimals = metric.decimals;
    let show = |value: f64| format!("{value:.decimals$}");
    let figure = |kind| match played.spread(kind, number) {
        Some(spread) => bracketed(&spread, show),
        None if played.is_not_served(kind) => "not served".to_owned(),
        None => dash(),
    };
    let ratio = played.ratio(number);
    let own = played.spread(Kind::Detcd, number);
    let (bar, verdict) = match metric.demand {
        None => (dash(), dash()),
        Some(Demand::OfEtcd(bound)) => (format!("{} × etcd", limit(bound)), verdict(bound, ratio)),
        Some(Demand::Own(bound)) => (limit(bound), verdict(bound, own)),
    };
    format!(
        "| {} | {} | {} | {} | {} | {bar} | {verdict} |",
        played.scene.name(),
        metric.name,
        figure(Kind::Detcd),
        figure(Kind::Etcd),
        ratio.map_or_else(dash, |spread| bracketed(&spread, times)),
    )
}

fn limit(bound: Bound) -> String {
    match bound {
        Bound::AtMost(limit) => format!("at most {}", short(limit)),
        Bound::AtLeast(limit) => format!("at least {}", short(limit)),
    }
}

/// Two decimals, without zeros at the end.
fn short(limit: f64) -> String {
    let text = format!("{limit:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn verdict(bound: Bound, measured: Option<Spread>) -> String {
    match measured {
        None => "not measured",
        Some(spread) if bound.admits(spread.median) => "pass",
        Some(_) => "**short**",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::table::rows::Size;

    fn options() -> Options {
        Options {
            programs: Vec::new(),
            directory: "d".into(),
            size: Size::Full,
            rows: Vec::new(),
            rounds: 3,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(5),
            keys: 10,
            connections_max: 100,
            dataset: 1_000_000,
        }
    }

    fn played(scene: Scene, detcd: Option<f64>, etcd: f64) -> Played {
        let sample = |figure: Option<f64>| vec![figure.map(|figure| vec![figure; scene.metrics().len()])];
        let samples = BTreeMap::from([(Kind::Detcd, sample(detcd)), (Kind::Etcd, sample(Some(etcd)))]);
        Played { scene, samples }
    }

    #[test]
    fn the_section_tells_every_scene_and_judges_its_bars() {
        let all: Vec<_> = Scene::ALL.map(|scene| played(scene, Some(0.2), 2.0)).to_vec();
        let text = section(&options(), &all).join("\n");
        for scene in Scene::ALL {
            assert!(text.contains(&format!("- **{}**: ", scene.name())), "{text}");
        }
        let fanout = "| fanout, one prefix | CPU µs/event | 0.20 (0.20–0.20) | 2.00 (2.00–2.00) | 0.10 (0.10–0.10) | \
                      at most 0.4 × etcd | pass |";
        assert!(text.contains(fanout), "{text}");
        assert!(text.contains("| at most 0.33 × etcd | pass |"), "{text}");
        assert!(text.contains("put p99, disturbed / quiet | 0.20 (0.20–0.20) | 2.00 (2.00–2.00) |"), "{text}");
        assert!(text.contains("requests refused | 0 (0–0) | 2 (2–2) | 0.10 (0.10–0.10) | at most 0 | **short** |"));
    }

    #[test]
    fn a_bar_of_detcds_own_does_not_ask_how_etcd_did() {
        let all = [played(Scene::Disturbed(Trouble::Snapshot), Some(2.0), 2.0)];
        let text = section(&options(), &all).join("\n");
        let own = "put p99, disturbed / quiet | 2.00 (2.00–2.00) | 2.00 (2.00–2.00) | 1.00 (1.00–1.00) | at most 1.5 | **short** |";
        assert!(text.contains(own), "{text}");
    }

    #[test]
    fn what_is_not_served_is_said_and_not_judged() {
        let all = [played(Scene::Disturbed(Trouble::Snapshot), None, 2.0)];
        let text = section(&options(), &all).join("\n");
        assert!(text.contains("| not served | 2.00 (2.00–2.00) | – | at most 1.5 | not measured |"), "{text}");
        assert!(!text.contains("pass") && !text.contains("short"), "{text}");
    }

    #[test]
    fn a_page_without_scenes_has_no_section() {
        assert!(section(&options(), &[]).is_empty());
    }
}
