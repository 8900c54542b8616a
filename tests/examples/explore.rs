//! One of the models in a browser: Stateright's explorer, for walking through states by hand and for looking at what a search finds.
//!
//! `make explore` starts it; `MODEL` chooses, `ADDRESS` says where it listens. The models are those of the tests, with their bounds.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a tool for whoever sits in front of it")]
#![allow(dead_code, unused_imports, reason = "the tests use all of the models' parts")]

#[path = "../tests/raft_model/promise.rs"]
mod promise;
#[path = "../tests/raft_model/shell.rs"]
mod shell;
#[path = "../tests/raft_model/starts.rs"]
mod starts;
#[path = "../tests/raft_model/world.rs"]
mod world;

use std::process::ExitCode;

use detcd_core::raft::Change;
use stateright::Model as _;

use self::world::{Bounds, Cluster, id_of};

type Named = (&'static str, fn() -> Cluster);

/// Each model by its name.
const MODELS: [Named; 8] = [
    ("votes", || starts::empty(3, Bounds { elections: 3, crashes: 1, ..Bounds::default() }).only_votes()),
    ("two", || starts::empty(2, Bounds { elections: 2, proposals: 1, crashes: 2, ..Bounds::default() })),
    ("elections", || {
        starts::led(3, Bounds { elections: 1, proposals: 1, crashes: 1, ..Bounds::default() }).without_hurry()
    }),
    ("figure-7", || starts::figure_7(Bounds { elections: 1, beats: 1, ..Bounds::default() })),
    ("figure-8", || starts::figure_8(Bounds { elections: 2, ..Bounds::default() }).without_hurry()),
    ("reads", || starts::led(3, Bounds { elections: 1, crashes: 1, reads: 1, ..Bounds::default() }).without_hurry()),
    ("removal", || {
        let bounds = Bounds { elections: 1, changes: 1, ..Bounds::default() };
        starts::led(3, bounds).with_plan(&[Change::Remove(id_of(0))]).without_hurry()
    }),
    ("snapshot", || starts::behind(Bounds { elections: 1, crashes: 1, ..Bounds::default() }).without_hurry()),
];

fn main() -> ExitCode {
    let asked = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (name, address) = (asked("MODEL", "elections"), asked("ADDRESS", "127.0.0.1:3000"));
    let Some((_, model)) = MODELS.iter().find(|(known, _)| *known == name) else {
        let known = MODELS.map(|(name, _)| name).join(", ");
        eprintln!("there is no model {name}; there are {known}");
        return ExitCode::FAILURE;
    };
    eprintln!("the model {name} is at http://{address}; Ctrl-C ends it");
    model().checker().threads(1).serve(address);
    ExitCode::SUCCESS
}
