//! Scenes on a store that is already full: what it takes up, how fast it starts, and what disturbs it.

use std::time::Duration;

use super::Trouble;
use super::dataset::Contents;
use super::play::millis;
use super::process::{Meter, anonymous_bytes};
use super::stage::{SceneError, Stage};
use crate::load::disturb::{Disturbance, Disturber};
use crate::load::requests::Rpc;
use crate::load::{Edge, Latency, LoadError, Pace, Plan, Span, run};
use crate::table::server::{Kind, Server};

/// What a large range reads.
const LARGE_RANGE_BYTES: u64 = 10_000_000;
const MEGA: f64 = 1e6;
/// A disturbance that has not come to its end after so many windows is measured up to there.
const WINDOWS_MAX: u32 = 12;

impl Stage<'_> {
    /// Memory and disk of the filled store, and a restart.
    pub(super) async fn million(&mut self, kind: Kind) -> Result<Vec<f64>, SceneError> {
        let (program, parent) = (self.program(kind).clone(), self.options.directory.clone());
        let dataset = self.dataset(kind, Contents::Keys).await?;
        let (disk, store) = (dataset.disk_bytes()?, dataset.store_bytes()?);
        let (filled, data) = (dataset.anonymous_bytes, dataset.path());
        let (server, took) = Server::start_on(kind, &program, &parent, &data).await?;
        let restarted = anonymous_bytes(server.process())?;
        server.stop().await?;
        let mega = |bytes: u64| bytes as f64 / MEGA;
        Ok(vec![mega(filled), mega(restarted), mega(disk), mega(store), took.as_secs_f64()])
    }

    /// Requests at half of etcd's capacity: in quiet, then while something disturbs. All that were due count, however late.
    pub(super) async fn disturbed(&mut self, kind: Kind, trouble: Trouble) -> Result<Vec<f64>, SceneError> {
        let rate = self.mixed_rate().await?;
        let (program, parent) = (self.program(kind).clone(), self.options.directory.clone());
        let contents = trouble.contents();
        let dataset = self.dataset(kind, contents).await?;
        let (revision, copy) = (dataset.revision, dataset.copy(&parent)?);
        let disturbance = self.disturbance(trouble, revision);
        let (server, _) = Server::start_on(kind, &program, &parent, &copy.path().join("data")).await?;

        let pace = Pace::Scheduled { per_second: rate };
        let window = Duration::from_millis(self.scale.disturbed_ms);
        let requests = |time: Duration| Span::Count((time.as_secs_f64() * rate as f64).ceil() as u64);
        let plan = Plan { pace, ..self.plan(&server, self.scale.clients, self.shape_on(contents)) };
        run(&Plan { span: requests(self.options.warm_up), ..plan }, |_| ()).await?;
        let quiet = run(&Plan { span: requests(window), ..plan }, |_| ()).await?;

        let disturber = Disturber::start(server.address(), disturbance).await?;
        let mut meter = Meter::start([server.cpu_clock()?])?;
        let tolerant = Plan { span: requests(window), refusals_allowed: u64::MAX, ..plan };
        let (mut put, mut range, mut refused) = (Latency::default(), Latency::default(), 0);
        for number in 0..WINDOWS_MAX {
            let run = run(&tolerant, |edge| match (edge, number) {
                (Edge::Opened, 0) => {
                    meter.restart();
                    disturber.begin();
                }
                (Edge::Opened | Edge::Closed, _) => {}
            });
            let report = match run.await {
                Ok(report) => report,
                // A disturbance that is not served explains whatever became of the run.
                Err(error) => return Err(disturber.stop().err().unwrap_or(error).into()),
            };
            put.merge(report.of(Rpc::Put));
            range.merge(report.of(Rpc::Range));
            refused += report.refused;
            if !disturbance.ends() || disturber.is_over() {
                break;
            }
        }
        let cost = meter.read()?;
        let took = disturber.stop()?;

        if quiet.of(Rpc::Put).requests() == 0 || quiet.of(Rpc::Range).requests() == 0 {
            return Err(LoadError::NothingDone.into());
        }
        let [put_quiet, range_quiet] = [Rpc::Put, Rpc::Range].map(|rpc| millis(quiet.of(rpc), 0.99));
        let [put, range] = [put, range].map(|latency| millis(&latency, 0.99));
        let (put_times, range_times) = (put / put_quiet, range / range_quiet);
        let (refused, first) = (refused as f64, took.first().map_or(f64::NAN, Duration::as_secs_f64));
        Ok(vec![put_quiet, put, put_times, range_quiet, range, range_times, refused, first, cost.generator])
    }

    fn disturbance(&self, trouble: Trouble, revision: i64) -> Disturbance {
        let contents = trouble.contents();
        let keys = contents.keys(self.options.dataset);
        match trouble {
            // Of each key one revision stays.
            Trouble::Compaction | Trouble::HotCompaction => Disturbance::Compaction { revision },
            Trouble::Defragmentation => Disturbance::Defragmentation,
            Trouble::Snapshot => Disturbance::Snapshot,
            Trouble::StuckWatchers => Disturbance::StuckWatchers { watchers: self.scale.stuck },
            Trouble::LateWatcher => {
                let from = revision - i64::try_from(keys).unwrap_or(revision);
                Disturbance::LateWatcher { from: from.max(1), upto: revision }
            }
            Trouble::LargeRange => {
                let large = LARGE_RANGE_BYTES / contents.value_bytes() as u64;
                Disturbance::LargeRange { keys: i64::try_from(large.min(keys)).unwrap_or(i64::MAX) }
            }
        }
    }
}

impl Trouble {
    /// On which store it is played.
    const fn contents(self) -> Contents {
        match self {
            Self::HotCompaction => Contents::Hot,
            _ => Contents::History,
        }
    }
}
