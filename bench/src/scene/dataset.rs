//! Directories that a server has filled: built once for each server, then copied or started again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use detcd_proto::etcdserverpb::{RangeRequest, RangeResponse};
use prost::Message;
use tempfile::TempDir;
use tokio::time::sleep;

use super::process::{anonymous_bytes, copy_directory, disk_bytes};
use super::stage::SceneError;
use crate::load::client::{Answer, Caller};
use crate::load::requests::WrongReply;
use crate::load::{KeyOrder, LoadError, Pace, Plan, Shape, Span, Workload, run};
use crate::table::server::{Kind, Server};

/// Clients that fill it.
const FILL_CLIENTS: usize = 1_000;

/// What is in a dataset.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Contents {
    /// Every key once, with small values.
    Keys,
    /// Half as many keys, each put twice, with values of a kibibyte.
    History,
    /// Few keys, each put a thousand times, with small values.
    Hot,
}

impl Contents {
    /// Length of the values.
    pub fn value_bytes(self) -> usize {
        match self {
            Self::Keys | Self::Hot => 256,
            Self::History => 1024,
        }
    }

    /// How many keys so many puts make.
    pub fn keys(self, puts: u64) -> u64 {
        match self {
            Self::Keys => puts,
            Self::History => (puts / 2).max(1),
            Self::Hot => (puts / 1_000).max(1),
        }
    }
}

/// How to build one.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// By which server.
    pub kind: Kind,
    /// Its program.
    pub program: &'a Path,
    /// Where directories are made.
    pub parent: &'a Path,
    /// What is in it.
    pub contents: Contents,
    /// How many puts.
    pub puts: u64,
    /// How many connections the clients share.
    pub connections_max: usize,
    /// How long the filled server is left alone before it is looked at.
    pub settle: Duration,
}

/// A directory of a server that has ended well.
#[derive(Debug)]
pub struct Dataset {
    home: TempDir,
    /// The server's anonymous memory when it had taken everything.
    pub anonymous_bytes: u64,
    /// Its last revision.
    pub revision: i64,
}

impl Dataset {
    /// Lets the server build it.
    pub async fn build(recipe: Recipe<'_>) -> Result<Self, SceneError> {
        let Recipe { kind, program, parent, contents, puts, connections_max, settle } = recipe;
        std::fs::create_dir_all(parent)?;
        let home = tempfile::Builder::new().prefix(&format!("{kind}-data-")).tempdir_in(parent)?;
        let (server, _) = Server::start_on(kind, program, parent, &home.path().join("data")).await?;
        let plan = Plan {
            servers: [server.address(); 3],
            clients: FILL_CLIENTS,
            connections: FILL_CLIENTS.min(connections_max),
            shape: Shape {
                workload: Workload::Put,
                key_order: KeyOrder::Sequential,
                keys: contents.keys(puts),
                value_bytes: contents.value_bytes(),
                seed: 0,
            },
            span: Span::Count(puts),
            pace: Pace::Closed,
            refusals_allowed: 0,
        };
        run(&plan, |_| ()).await?;
        sleep(settle).await;
        let (anonymous_bytes, revision) = (anonymous_bytes(server.process())?, revision(&server).await?);
        server.stop().await?;
        Ok(Self { home, anonymous_bytes, revision })
    }

    /// The directory. A server that is started on it leaves its traces there.
    pub fn path(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A copy that may be changed at will.
    pub fn copy(&self, parent: &Path) -> io::Result<TempDir> {
        let copy = tempfile::Builder::new().prefix("copy-").tempdir_in(parent)?;
        copy_directory(&self.path(), &copy.path().join("data"))?;
        // What was copied must not be written while something is measured.
        nix::unistd::sync();
        Ok(copy)
    }

    /// Allocated bytes of everything in the directory: store, log, snapshots of the log.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        disk_bytes(&self.path())
    }

    /// Allocated bytes of the store alone, where either server has it.
    pub fn store_bytes(&self) -> io::Result<u64> {
        let member = self.path().join("member");
        Ok(disk_bytes(&member.join("lmdb"))? + disk_bytes(&member.join("snap").join("db"))?)
    }
}

async fn revision(server: &Server) -> Result<i64, LoadError> {
    let request = RangeRequest { key: "none".into(), ..RangeRequest::default() };
    match Caller::connect(server.address()).await?.ask("/etcdserverpb.KV/Range", &request).await? {
        Answer::Refused(refusal) => Err(LoadError::Refused { count: 1, refusal }),
        Answer::Message(message) => {
            let header = RangeResponse::decode(message).map_err(WrongReply::from)?.header;
            Ok(header.ok_or(WrongReply::NoHeader)?.revision)
        }
    }
}
