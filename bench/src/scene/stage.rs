//! Plays the scenes, round by round, each on every server in turn, and keeps what they share.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::dataset::{Contents, Dataset, Recipe};
use super::{Scale, Scene};
use crate::load::{KeyOrder, LoadError, Pace, Plan, Shape, Span, Workload, run};
use crate::table::measure::{Options, turns};
use crate::table::rows::Size;
use crate::table::server::{Kind, Server, ServerError};
use crate::table::stats::{Spread, ratios};

/// Why a scene has no figures.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// What was asked was not answered well.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The server did not start or end.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A clock could not be read.
    #[error("a CPU clock: {0}")]
    Clock(#[from] Errno),
    /// A file could not be read or made.
    #[error("files: {0}")]
    File(#[from] io::Error),
}

/// A scene that could not be played.
#[derive(Debug, thiserror::Error)]
#[error("{kind}, {}: {error}", scene.name())]
pub struct StageError {
    kind: Kind,
    scene: Scene,
    error: SceneError,
}

/// The figures of one server in one scene and round, in the order of the scene's metrics. What is not served has none; a
/// single figure that does not apply is no number.
pub type Sample = Option<Vec<f64>>;

/// All figures of a scene.
#[derive(Clone, Debug)]
pub struct Played {
    /// The scene.
    pub scene: Scene,
    /// By server, one for each round.
    pub samples: BTreeMap<Kind, Vec<Sample>>,
}

impl Played {
    /// A server's figure over the rounds.
    pub fn spread(&self, kind: Kind, metric: usize) -> Option<Spread> {
        Spread::of(&self.values(kind, metric))
    }

    /// How many times etcd's figure detcd's is, over the rounds.
    pub fn ratio(&self, metric: usize) -> Option<Spread> {
        Spread::of(&ratios(&self.values(Kind::Detcd, metric), &self.values(Kind::Etcd, metric)))
    }

    /// Whether the server lacks what the scene asks for.
    pub fn is_not_served(&self, kind: Kind) -> bool {
        self.samples.get(&kind).is_some_and(|samples| samples.iter().all(Option::is_none))
    }

    fn values(&self, kind: Kind, metric: usize) -> Vec<f64> {
        let samples = self.samples.get(&kind).into_iter().flatten();
        let figures = samples.filter_map(|sample| sample.as_ref().map(|figures| figures[metric]));
        figures.filter(|figure| !figure.is_nan()).collect()
    }
}

/// What the scenes of a run share.
#[derive(Debug)]
pub struct Stage<'a> {
    /// How to measure.
    pub options: &'a Options,
    /// How large.
    pub scale: Scale,
    datasets: BTreeMap<(Kind, Contents), Dataset>,
    put_rate: Option<u64>,
    mixed_rate: Option<u64>,
    cluster_rate: Option<u64>,
}

/// Half reads, half writes: one disturbance shows in both.
pub const HALF_READS: Workload = Workload::Mixed { reads_percent: 50 };

impl<'a> Stage<'a> {
    /// A stage without anything on it.
    pub fn new(options: &'a Options) -> Self {
        let scale = Scale::of(options.size);
        Self { options, scale, datasets: BTreeMap::new(), put_rate: None, mixed_rate: None, cluster_rate: None }
    }

    /// The program of a server that takes part.
    pub fn program(&self, kind: Kind) -> &'a PathBuf {
        let found = self.options.programs.iter().find(|(of, _)| *of == kind);
        &found.expect("only servers that take part play").1
    }

    /// Starts a server on an empty directory.
    pub async fn server(&self, kind: Kind) -> Result<Server, SceneError> {
        if self.options.size == Size::Full {
            // What the last server left in the page cache must not be written during this one's turn.
            nix::unistd::sync();
        }
        Ok(Server::start(kind, self.program(kind), &self.options.directory).await?)
    }

    /// The server's dataset, built when it is first asked for.
    pub async fn dataset(&mut self, kind: Kind, contents: Contents) -> Result<&Dataset, SceneError> {
        if !self.datasets.contains_key(&(kind, contents)) {
            let recipe = Recipe {
                kind,
                program: self.program(kind),
                parent: &self.options.directory,
                contents,
                puts: self.options.dataset,
                connections_max: self.options.connections_max,
                settle: Duration::from_millis(self.scale.settle_ms),
            };
            self.datasets.insert((kind, contents), Dataset::build(recipe).await?);
        }
        Ok(&self.datasets[&(kind, contents)])
    }

    /// A plan of so many clients for the measured time. Pace and span are for the caller to change.
    pub fn plan(&self, server: &Server, clients: usize, shape: Shape) -> Plan {
        self.plan_for([server.address(); 3], clients, shape)
    }

    /// The same, for several servers.
    pub fn plan_for(&self, servers: [SocketAddr; 3], clients: usize, shape: Shape) -> Plan {
        Plan {
            servers,
            clients,
            connections: clients.min(self.options.connections_max),
            shape,
            span: Span::Window { warm_up: self.options.warm_up, measured: self.options.measured },
            pace: Pace::Closed,
            refusals_allowed: 0,
        }
    }

    /// Half of the puts per second that etcd does for 100 clients on an empty store.
    pub async fn put_rate(&mut self) -> Result<u64, SceneError> {
        if let Some(rate) = self.put_rate {
            return Ok(rate);
        }
        let server = self.server(self.yardstick()).await?;
        let shape = self.shape(Workload::Put, self.options.keys, 256);
        let report = run(&self.plan(&server, self.scale.clients, shape), |_| ()).await?;
        Ok(*self.put_rate.insert(half(report.per_second())))
    }

    /// Half of the requests per second, half of them reads, that etcd does for 100 clients on the dataset with a history.
    pub async fn mixed_rate(&mut self) -> Result<u64, SceneError> {
        if let Some(rate) = self.mixed_rate {
            return Ok(rate);
        }
        let (kind, parent) = (self.yardstick(), self.options.directory.clone());
        let copy = self.dataset(kind, Contents::History).await?.copy(&parent)?;
        let data = copy.path().join("data");
        let (server, _) = Server::start_on(kind, self.program(kind), &parent, &data).await?;
        let shape = self.shape_on(Contents::History);
        let report = run(&self.plan(&server, self.scale.clients, shape), |_| ()).await?;
        Ok(*self.mixed_rate.insert(half(report.per_second())))
    }

    /// Half of the puts per second that etcd does for 100 clients as a cluster of three.
    pub async fn cluster_rate(&mut self) -> Result<u64, SceneError> {
        if let Some(rate) = self.cluster_rate {
            return Ok(rate);
        }
        let cluster = self.cluster(self.yardstick()).await?;
        let shape = self.shape(Workload::Put, self.options.keys, 256);
        let report = run(&self.plan_for(cluster.addresses(), self.scale.clients, shape), |_| ()).await?;
        Ok(*self.cluster_rate.insert(half(report.per_second())))
    }

    /// Reads and writes of a dataset.
    pub fn shape_on(&self, contents: Contents) -> Shape {
        self.shape(HALF_READS, contents.keys(self.options.dataset), contents.value_bytes())
    }

    /// Operations on random keys.
    pub fn shape(&self, workload: Workload, keys: u64, value_bytes: usize) -> Shape {
        Shape { workload, key_order: KeyOrder::Random, keys, value_bytes, seed: 1 }
    }

    /// The server whose capacity sets the rates: etcd, or the first without it.
    fn yardstick(&self) -> Kind {
        let kinds: Vec<Kind> = players(self.options).map(|(kind, _)| *kind).collect();
        if kinds.contains(&Kind::Etcd) { Kind::Etcd } else { kinds[0] }
    }
}

fn half(per_second: f64) -> u64 {
    ((per_second / 2.0) as u64).max(1)
}

/// The floor plays nothing: it only puts.
fn players(options: &Options) -> impl Iterator<Item = &(Kind, PathBuf)> {
    options.programs.iter().filter(|(kind, _)| *kind != Kind::Floor)
}

/// Plays everything that was chosen. `on_sample` hears of every sample.
pub async fn perform(
    options: &Options,
    mut on_sample: impl FnMut(Scene, Kind, &Sample),
) -> Result<Vec<Played>, StageError> {
    let chosen = Scene::ALL.into_iter().filter(|scene| options.wants(scene.name()));
    let mut all: Vec<Played> = chosen.map(|scene| Played { scene, samples: BTreeMap::new() }).collect();
    let players: Vec<Kind> = players(options).map(|(kind, _)| *kind).collect();
    if players.is_empty() {
        return Ok(Vec::new());
    }
    let mut stage = Stage::new(options);
    for round in 0..options.rounds {
        for (number, played) in all.iter_mut().enumerate() {
            for &kind in turns(&players, round + number) {
                let scene = played.scene;
                let sample = match stage.play(scene, kind).await {
                    Ok(figures) => Some(figures),
                    Err(SceneError::Load(LoadError::NotServed(_))) => None,
                    Err(error) => return Err(StageError { kind, scene, error }),
                };
                assert!(sample.as_ref().is_none_or(|figures| figures.len() == scene.metrics().len()));
                on_sample(scene, kind, &sample);
                played.samples.entry(kind).or_default().push(sample);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_not_served_is_left_out_of_its_spread() {
        let samples =
            |values: [Option<f64>; 3]| values.map(|value| value.map(|value| vec![0.0, value, f64::NAN])).to_vec();
        let ours = samples([Some(1.0), None, Some(3.0)]);
        let played = Played {
            scene: Scene::Grant,
            samples: BTreeMap::from([(Kind::Detcd, ours), (Kind::Etcd, samples([Some(2.0); 3]))]),
        };
        let expected = Spread { median: 2.0, min: 1.0, max: 3.0 };
        assert_eq!(played.spread(Kind::Detcd, 1), Some(expected));
        assert_eq!(played.spread(Kind::Detcd, 2), None, "no number is no figure");
        assert_eq!(played.spread(Kind::Floor, 1), None);
        assert!(!played.is_not_served(Kind::Detcd) && !played.is_not_served(Kind::Floor));
        let without = Played { samples: BTreeMap::from([(Kind::Detcd, vec![None, None])]), ..played.clone() };
        assert!(without.is_not_served(Kind::Detcd));
        assert_eq!(played.ratio(1), Some(Spread { median: 1.0, min: 0.5, max: 1.5 }));
        assert_eq!(played.ratio(0), None, "nothing is no yardstick");
    }

    #[test]
    fn half_of_a_capacity_is_never_nothing() {
        assert_eq!((half(5001.0), half(1.0)), (2500, 1));
    }
}
