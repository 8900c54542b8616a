//! Scenes on a store that is already full: what it takes up, how fast it starts, and what disturbs it.

use std::time::Duration;

use super::Trouble;
use super::dataset::Contents;
use super::play::millis;
use super::process::{Meter, anonymous_bytes};
use super::stage::{SceneError, Stage};
use crate::load::disturb::{Disturbance, Disturber};
use crate::load::requests::Rpc;
use crate::load::{Edge, LoadError, Pace, Plan, Span, run};
use crate::table::server::{Kind, Server};

/// What a large range reads.
const LARGE_RANGE_BYTES: u64 = 10_000_000;
const MEGA: f64 = 1e6;

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
        let dataset = self.dataset(kind, Contents::History).await?;
        let (revision, copy) = (dataset.revision, dataset.copy(&parent)?);
        let disturbance = self.disturbance(trouble, revision);
        let (server, _) = Server::start_on(kind, &program, &parent, &copy.path().join("data")).await?;

        let pace = Pace::Scheduled { per_second: rate };
        let window = Duration::from_millis(self.scale.disturbed_ms);
        let requests = |time: Duration| Span::Count((time.as_secs_f64() * rate as f64).ceil() as u64);
        let plan = Plan { pace, ..self.plan(&server, self.scale.clients, self.history_shape()) };
        run(&Plan { span: requests(self.options.warm_up), ..plan }, |_| ()).await?;
        let quiet = run(&Plan { span: requests(window), ..plan }, |_| ()).await?;

        let disturber = Disturber::start(server.address(), disturbance).await?;
        let mut meter = Meter::start(server.cpu_clock()?)?;
        let mut cost = None;
        let tolerant = Plan { span: requests(window), refusals_allowed: u64::MAX, ..plan };
        let disturbed = run(&tolerant, |edge| match edge {
            Edge::Opened => {
                meter.restart();
                disturber.begin();
            }
            Edge::Closed => cost = Some(meter.read()),
        });
        let disturbed = disturbed.await;
        // A disturbance that is not served explains whatever became of the run.
        let took = disturber.stop()?;
        let disturbed = disturbed?;
        let cost = cost.expect("a run that is over was closed")?;

        let p99 = |latency| millis(latency, 0.99);
        let [put, put_quiet] = [&disturbed, &quiet].map(|report| p99(report.of(Rpc::Put)));
        let [range, range_quiet] = [&disturbed, &quiet].map(|report| p99(report.of(Rpc::Range)));
        if quiet.of(Rpc::Put).requests() == 0 || quiet.of(Rpc::Range).requests() == 0 {
            return Err(LoadError::NothingDone.into());
        }
        let first = took.first().map_or(f64::NAN, Duration::as_secs_f64);
        let (put_times, range_times) = (put / put_quiet, range / range_quiet);
        let refused = disturbed.refused as f64;
        Ok(vec![put_quiet, put, put_times, range_quiet, range, range_times, refused, first, cost.generator])
    }

    fn disturbance(&self, trouble: Trouble, revision: i64) -> Disturbance {
        let contents = Contents::History;
        let keys = contents.keys(self.options.dataset);
        match trouble {
            // Every key was put twice: this removes one revision of each.
            Trouble::Compaction => Disturbance::Compaction { revision },
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
