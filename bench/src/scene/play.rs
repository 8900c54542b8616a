//! Scenes on an empty store: watchers and leases.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Scene;
use super::dataset::Contents;
use super::process::Meter;
use super::stage::{SceneError, Stage};
use crate::load::watchers::{Aim, Fleet, FleetPlan};
use crate::load::{Edge, Latency, LoadError, Pace, Plan, Workload, leases, run};
use crate::table::rows::Size;
use crate::table::server::Kind;

/// Watchers of everything whose events are timed while many put.
const LATENCY_WATCHERS: usize = 10;
/// Length of the values.
const VALUE_BYTES: usize = 256;
/// How long leases may be overdue.
const EXPIRY_PATIENCE: Duration = Duration::from_secs(120);

/// Puts at a rate, and the watchers that are told of them.
struct Fanout {
    streams: usize,
    watchers: usize,
    aim: Aim,
    keys: u64,
    puts: u64,
}

impl Stage<'_> {
    /// Plays a scene on a server and tells its figures, in the order of its metrics.
    pub async fn play(&mut self, scene: Scene, kind: Kind) -> Result<Vec<f64>, SceneError> {
        let scale = self.scale;
        match scene {
            Scene::FanoutPrefix => {
                let watchers = scale.prefix_watchers;
                let (keys, puts) = (self.options.keys, scale.prefix_puts);
                self.fanout(kind, Fanout { streams: watchers, watchers, aim: Aim::AllKeys, keys, puts }).await
            }
            Scene::FanoutKeys => {
                let (streams, watchers, puts) = (scale.key_streams, scale.key_watchers, scale.key_puts);
                let keys = watchers as u64;
                self.fanout(kind, Fanout { streams, watchers, aim: Aim::OwnKey, keys, puts }).await
            }
            Scene::WatchLatency => {
                let (keys, puts) = (self.options.keys, self.put_rate().await?);
                let (streams, watchers) = (LATENCY_WATCHERS, LATENCY_WATCHERS);
                let figures = self.fanout(kind, Fanout { streams, watchers, aim: Aim::AllKeys, keys, puts }).await?;
                let [events, p50, p99, _, generator] = figures[..] else { unreachable!("a fan-out has five figures") };
                Ok(vec![events / watchers as f64, p50, p99, generator])
            }
            Scene::KeepAlive => self.keep_alive(kind).await,
            Scene::Grant => self.grant(kind).await,
            Scene::Million => {
                self.dataset(kind, Contents::Keys).await?;
                self.million(kind).await
            }
            Scene::Disturbed(trouble) => self.disturbed(kind, trouble).await,
            Scene::Cluster(scene) => self.clustered(kind, scene).await,
        }
    }

    async fn fanout(&self, kind: Kind, fanout: Fanout) -> Result<Vec<f64>, SceneError> {
        let Fanout { streams, watchers, aim, keys, puts } = fanout;
        let server = self.server(kind).await?;
        let connections = streams.min(self.options.connections_max);
        let fleet = Fleet::start(FleetPlan { server: server.address(), connections, streams, watchers, aim }).await?;
        let shape = self.shape(Workload::StampedPut, keys, VALUE_BYTES);
        let pace = Pace::Scheduled { per_second: puts };
        let plan = Plan { pace, ..self.plan(&server, self.scale.clients, shape) };
        let mut meter = Meter::start([server.cpu_clock()?])?;
        let (mut before, mut after) = (0, None);
        let report = run(&plan, |edge| match edge {
            Edge::Opened => {
                meter.restart();
                before = fleet.events();
                fleet.record(true);
            }
            Edge::Closed => {
                after = Some((meter.read(), fleet.events()));
                fleet.record(false);
            }
        })
        .await?;
        let latency = fleet.latency();
        fleet.finish(report.answered).await?;
        let (cost, after) = after.expect("a window that is over was closed");
        let (cost, events) = (cost?, after - before);
        if events == 0 || latency.requests() == 0 {
            return Err(LoadError::NothingDone.into());
        }
        let per_second = events as f64 / report.elapsed.as_secs_f64();
        let (p50, p99) = (millis(&latency, 0.5), millis(&latency, 0.99));
        Ok(vec![per_second, p50, p99, micros(cost.server, events), cost.generator])
    }

    async fn keep_alive(&self, kind: Kind) -> Result<Vec<f64>, SceneError> {
        let server = self.server(kind).await?;
        let mut meter = Meter::start([server.cpu_clock()?])?;
        let mut cost = None;
        let times = (self.options.warm_up, self.options.measured);
        let kept = leases::keep_alive(server.address(), self.scale.clients, times, |edge| match edge {
            Edge::Opened => meter.restart(),
            Edge::Closed => cost = Some(meter.read()),
        });
        let kept = kept.await?;
        let cost = cost.expect("a window that is over was closed")?;
        let requests = kept.latency.requests();
        let per_second = requests as f64 / kept.elapsed.as_secs_f64();
        let (p50, p99) = (millis(&kept.latency, 0.5), millis(&kept.latency, 0.99));
        Ok(vec![per_second, p50, p99, micros(cost.server, requests), cost.generator])
    }

    async fn grant(&self, kind: Kind) -> Result<Vec<f64>, SceneError> {
        let server = self.server(kind).await?;
        let (leases, seconds) = (self.scale.leases, self.scale.lease_seconds);
        let time_to_live = Duration::from_secs(seconds.unsigned_abs());
        let mut meter = Meter::start([server.cpu_clock()?])?;
        let first_due = Instant::now() + time_to_live;
        let granted = leases::grant(server.address(), self.scale.clients, leases, seconds).await?;
        let last_due = Instant::now() + time_to_live;
        let grant_cost = meter.read()?;
        // Half before the first is due none may be gone.
        sleep_until(first_due - time_to_live / 2).await;
        let alive = leases::count(server.address()).await?;
        if alive as i64 != leases {
            return Err(LoadError::Ended(format!("{alive} of {leases} leases live before their time")).into());
        }
        sleep_until(first_due).await;
        meter.restart();
        // Looking at all of them costs the server something, too.
        let look_interval = Duration::from_millis(if self.options.size == Size::Full { 500 } else { 100 });
        while 0 < leases::count(server.address()).await? {
            if last_due + EXPIRY_PATIENCE < Instant::now() {
                return Err(LoadError::Ended("leases do not expire".to_owned()).into());
            }
            sleep(look_interval).await;
        }
        let late = last_due.elapsed().as_secs_f64();
        let expiry_cost = meter.read()?;
        let count = leases.unsigned_abs();
        Ok(vec![
            granted.elapsed.as_secs_f64(),
            millis(&granted.latency, 0.99),
            micros(grant_cost.server, count),
            late,
            micros(expiry_cost.server, count),
        ])
    }
}

/// A quantile in milliseconds.
pub(super) fn millis(latency: &Latency, part: f64) -> f64 {
    latency.quantile(part).as_secs_f64() * 1e3
}

/// A time in microseconds, for each.
pub(super) fn micros(time: Duration, of: u64) -> f64 {
    time.as_secs_f64() * 1e6 / of as f64
}
