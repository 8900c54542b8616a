//! What happened in a run, as a diagram shows it: who lived, led, spoke and was cut off, and what clients asked.
//!
//! Most runs are not filmed. A film is made beside the trace, never enters its hash and draws no dice, so that a run that is repeated to be looked at is the same run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a member's process stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// It was started, and does not serve yet.
    Starting,
    /// It serves.
    Serving,
    /// Nobody is there.
    Down,
    /// It stands still.
    Paused,
    /// It goes on.
    Resumed,
}

impl Stage {
    /// Its word on the page.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Down => "down",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scene {
    /// A member's process comes to this stage.
    Stage(Stage),
    /// A member is in this term, and leads or not.
    Role {
        /// The term.
        term: u64,
        /// Whether it leads.
        leads: bool,
        /// Its id.
        id: u64,
    },
    /// Anything else, in words.
    Note(String),
    /// A message leaves.
    Sent {
        /// Which one.
        number: u64,
        /// From this place.
        from: usize,
        /// To that.
        to: usize,
        /// What it says.
        text: String,
    },
    /// A message comes to its end, maybe not the only one: some come twice.
    Ended {
        /// Which one.
        number: u64,
        /// How.
        fate: &'static str,
    },
    /// These ways are closed from now on, and no others.
    Cut(Vec<(usize, usize)>),
    /// A client asks.
    Asked {
        /// Which client.
        client: u64,
        /// The operation's place among all events.
        invoked: u64,
        /// What for.
        text: String,
    },
    /// It is answered, or gives up.
    Answered {
        /// The operation's place among all events.
        invoked: u64,
        /// What it was told.
        text: String,
    },
}

/// When and where something happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shot {
    /// Virtual nanoseconds since the run began.
    pub nanos: u64,
    /// The member that it is about, if there are several.
    pub place: Option<usize>,
    /// What.
    pub scene: Scene,
}

#[derive(Debug, Default)]
struct Reel {
    shots: Vec<Shot>,
    /// The last role of each place: looked at after every step, kept when it changes.
    roles: BTreeMap<usize, (u64, bool, u64)>,
}

/// A film. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Film {
    reel: Arc<Mutex<Reel>>,
}

impl Film {
    /// Adds what happened.
    pub fn add(&self, shot: Shot) {
        let mut reel = self.lock();
        if let (Scene::Role { term, leads, id }, Some(place)) = (&shot.scene, shot.place) {
            let role = (*term, *leads, *id);
            if reel.roles.insert(place, role) == Some(role) {
                return;
            }
        }
        reel.shots.push(shot);
    }

    /// Everything so far, in order.
    #[must_use]
    pub fn shots(&self) -> Vec<Shot> {
        self.lock().shots.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Reel> {
        self.reel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
