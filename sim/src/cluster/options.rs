//! What a cluster run is, besides what every run is.

use detcd_io::entropy::Entropy;
use detcd_io::store::copying::Chunk;
use detcd_io::store::overlay::OverlayMax;

use crate::clients::keys::Crowd;
use crate::options::{MemberOptions, Options, chance, pick};
use crate::store::ROW_BYTES;

/// Entries that stay in memory for slow members: so many that no run forgets any, as by default, and so few that members need stores, but more than are written while one is on its way.
const CATCH_UP: [u64; 4] = [5_000, 5_000, 1_000, 200];
/// Entries that no run has: nobody takes a snapshot of its log, so that nobody needs one of another member.
const NO_SNAPSHOTS: u64 = 1_000_000;

/// Entries between two log snapshots of a member.
const SNAPSHOT: [u64; 4] = [20, 100, 500, NO_SNAPSHOTS];
/// Election timeouts that may be mixed, in milliseconds: the least time to live of a lease, which members must agree on, is the same for all of them.
const ELECTION: [u64; 4] = [800, 1_000, 1_000, 1_300];
/// A quota that no run reaches, for members that have none where others do.
const NO_QUOTA: u64 = 1 << 40;

/// How many members there are, and what goes wrong between them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterOptions {
    /// How many.
    pub members: usize,
    /// What may happen to any message while there is trouble.
    pub weather: Weather,
    /// What may happen to all messages between some of them.
    pub storms: Storms,
    /// The mean of milliseconds between two crashes of most or all members at once; zero for none.
    pub blackout_millis: u64,
    /// Whether members ask before they stand for election.
    pub pre_vote: bool,
    /// The mean of milliseconds between two requests to move the leadership; zero for none.
    pub move_millis: u64,
    /// What is wrong with clocks.
    pub clocks: Clocks,
    /// What an operator does to the membership.
    pub operations: Operations,
    /// What the settings of each member are drawn from, if they are not the same for all.
    pub mixed: Option<u64>,
}

/// Clocks of members.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clocks {
    /// By how many thousandths a member's heartbeats are off at most.
    pub drift: u64,
    /// By how many milliseconds the wall clock is off at most when a member starts.
    pub jump_millis: u64,
}

impl Clocks {
    /// They are right.
    pub const RIGHT: Self = Self { drift: 0, jump_millis: 0 };

    fn draw(dice: &mut Entropy) -> Self {
        Self { drift: pick(dice, &[0, 0, 50]), jump_millis: pick(dice, &[0, 1_000, 3_600_000]) }
    }
}

/// Changes of the membership.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Operations {
    /// The mean of milliseconds between two of them; zero for none.
    pub change_millis: u64,
    /// In a thousand, to how many another one is added at the same moment.
    pub at_once: u64,
    /// Voters that are left at least when one is removed. At least two: if the last of two voters does not hear that the other one's removal is committed, it waits for it for ever.
    pub voters_min: usize,
    /// Machines for members that join.
    pub spares: usize,
}

/// What may happen to any message. Chances are in a thousand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Weather {
    /// The shortest and the longest way, in microseconds.
    pub delay_micros: (u64, u64),
    /// How many are lost.
    pub loss: u64,
    /// How many come twice.
    pub repeat: u64,
    /// How many are overtaken by what was sent later.
    pub reorder: u64,
    /// How many arrive seconds later, if at all.
    pub stray: u64,
    /// How many stores arrive cut short, or as something else.
    pub spoil: u64,
    /// Whether what is sent to a paused member waits for it.
    pub holds_paused: bool,
}

/// Cuts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Storms {
    /// The mean of milliseconds between two cuts; zero for none.
    pub cut_millis: u64,
    /// The longest cut, in milliseconds.
    pub longest_millis: u64,
    /// In a thousand, how many are about the leader.
    pub at_leader: u64,
    /// In a thousand, how many come and go many times a second.
    pub flaps: u64,
}

impl Weather {
    /// Messages arrive soon, once, and in order.
    pub const FAIR: Self =
        Self { delay_micros: (50, 800), loss: 0, repeat: 0, reorder: 0, stray: 0, spoil: 0, holds_paused: true };

    fn draw(dice: &mut Entropy) -> Self {
        Self {
            delay_micros: pick(dice, &[(50, 800), (50, 800), (500, 5_000), (5_000, 60_000)]),
            loss: pick(dice, &[0, 0, 5, 50, 200]),
            repeat: pick(dice, &[0, 0, 10, 100]),
            reorder: pick(dice, &[0, 0, 20, 200]),
            stray: pick(dice, &[0, 0, 2, 20]),
            spoil: pick(dice, &[0, 200]),
            holds_paused: chance(dice, 500),
        }
    }

    /// Whether no message is harmed, and none is late by more than a leader would notice.
    #[must_use]
    pub const fn is_fair(&self) -> bool {
        self.loss == 0 && self.stray == 0 && self.delay_micros.1 <= 5_000
    }
}

impl Storms {
    /// No cuts.
    pub const NONE: Self = Self { cut_millis: 0, longest_millis: 0, at_leader: 0, flaps: 0 };

    fn draw(dice: &mut Entropy) -> Self {
        Self {
            cut_millis: pick(dice, &[0, 0, 2_000, 5_000, 15_000]),
            longest_millis: pick(dice, &[500, 3_000, 10_000]),
            at_leader: pick(dice, &[0, 500, 900]),
            flaps: pick(dice, &[0, 0, 300]),
        }
    }
}

impl Operations {
    /// Nobody comes or goes.
    pub const NONE: Self = Self { change_millis: 0, at_once: 0, voters_min: 0, spares: 0 };

    fn draw(dice: &mut Entropy) -> Self {
        Self {
            change_millis: pick(dice, &[500, 2_000, 5_000]),
            at_once: pick(dice, &[0, 300]),
            voters_min: pick(dice, &[2, 2, 3]),
            spares: pick(dice, &[1, 2]),
        }
    }
}

impl ClusterOptions {
    /// A member that is alone.
    pub const ONE: Self = Self {
        members: 1,
        weather: Weather::FAIR,
        storms: Storms::NONE,
        blackout_millis: 0,
        pre_vote: true,
        move_millis: 0,
        clocks: Clocks::RIGHT,
        operations: Operations::NONE,
        mixed: None,
    };
}

impl ClusterOptions {
    /// Machines for all members that there may be at once.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.members + self.operations.spares
    }
}

/// Makes a run of one member one of several.
pub(crate) fn widen(options: &mut Options) {
    let mut dice = Entropy::seeded(options.seed ^ 0x636c_7573_7465_7220);
    options.cluster = ClusterOptions {
        members: pick(&mut dice, &[3, 3, 3, 3, 3, 3, 5, 5, 1]),
        weather: Weather::draw(&mut dice),
        storms: Storms::draw(&mut dice),
        blackout_millis: pick(&mut dice, &[0, 0, 0, 8_000]),
        pre_vote: chance(&mut dice, 800),
        move_millis: pick(&mut dice, &[0, 0, 2_000, 6_000]),
        clocks: Clocks::draw(&mut dice),
        operations: Operations::NONE,
        mixed: None,
    };
    if chance(&mut dice, 400) {
        options.cluster.operations = Operations::draw(&mut dice);
    }
    options.member.snapshot_entries = pick(&mut dice, &SNAPSHOT);
    options.member.catch_up_entries = pick(&mut dice, &CATCH_UP);
    // Stores for others are made fast enough for them.
    options.member.steps.copy = match options.load.upkeep_millis {
        0 => Chunk::USUAL,
        _ => Chunk { rows: options.member.steps.copy.rows.max(40), ..options.member.steps.copy },
    };
    options.load.clients = options.load.clients.max(4);
    options.load.patience_millis = pick(&mut dice, &[10_000, 2_000, 2_000, 500]);
    // Each member has them.
    options.faults.crash_millis = pick(&mut dice, &[0, 0, 6_000, 15_000, 40_000]);
    options.faults.restart_millis = pick(&mut dice, &[0, 200, 2_000, 8_000]);
    options.faults.sync_millis = pick(&mut dice, &[0, 0, 0, 30_000]);
    options.faults.full_millis = pick(&mut dice, &[0, 0, 0, 30_000]);
    options.faults.slow.millis = pick(&mut dice, &[0, 0, 12_000]);
    options.faults.pause_millis = pick(&mut dice, &[0, 0, 8_000]);
    options.faults.only_leaders = chance(&mut dice, 300);
    if options.member.quota_bytes > 0 {
        // A full disk is refused with the same words.
        options.faults.full_millis = 0;
    }
    let mut dice_of_stores = Entropy::seeded(options.seed ^ 0x7374_6f72_6573);
    if chance(&mut dice_of_stores, 100) {
        // Whoever is away for some seconds needs a store, and its machine crashes around it.
        (options.member.snapshot_entries, options.member.catch_up_entries) = (100, 200);
        (options.faults.crash_millis, options.faults.restart_millis) = (6_000, 8_000);
        options.faults.at_stores = pick(&mut dice_of_stores, &[300, 700]);
        options.cluster.members = options.cluster.members.max(3);
    }
    let mut dice_of_leases = Entropy::seeded(options.seed ^ 0x6c65_6173_6573);
    match dice_of_leases.draw(1, 1_000) {
        1..=60 => holders_under(options, Leaders::Pause),
        61..=100 => holders_under(options, Leaders::Move),
        _ => {}
    }
    let mut dice_of_mixture = Entropy::seeded(options.seed ^ 0x6d69_7874_7572_6500);
    if chance(&mut dice_of_mixture, 300) {
        options.cluster.mixed = Some(dice_of_mixture.draw(0, u64::MAX));
    }
}

/// What leaders do while leases are all that matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Leaders {
    /// They stand still for seconds, and do not know it.
    Pause,
    /// They change, and nothing else is wrong.
    Move,
}

/// Leases under leaders that change: everything else is in order, so that no trouble excuses anything.
fn holders_under(options: &mut Options, leaders: Leaders) {
    let holds_paused = options.cluster.weather.holds_paused;
    options.cluster.weather = Weather { holds_paused, ..Weather::FAIR };
    options.cluster.storms = Storms::NONE;
    options.cluster.clocks = Clocks::RIGHT;
    options.cluster.operations = Operations::NONE;
    (options.cluster.blackout_millis, options.cluster.pre_vote) = (0, true);
    options.cluster.members = options.cluster.members.max(3);
    let faults = &mut options.faults;
    (faults.crash_millis, faults.sync_millis, faults.full_millis) = (0, 0, 0);
    (faults.slow.millis, faults.disk_millis) = (0, 0);
    options.load.holders = 12;
    (faults.pause_millis, faults.only_leaders, options.cluster.move_millis) = match leaders {
        Leaders::Pause => (3_000, true, 0),
        // Seldom, so that a lease would have ended long before a leader who knows nothing of it ends it.
        Leaders::Move => (0, false, 15_000),
    };
}

impl Options {
    /// The same with the settings of the member at `place`.
    #[must_use]
    pub fn of_member(&self, place: usize) -> Self {
        let mut own = self.clone();
        if let Some(seed) = self.cluster.mixed {
            own.member.mix(&mut Entropy::seeded(seed ^ place as u64));
            if own.load.crowd.is_some() {
                Crowd::bear(&mut own.member);
            }
        }
        own
    }
}

impl MemberOptions {
    /// Draws all that members of one cluster need not agree on.
    fn mix(&mut self, dice: &mut Entropy) {
        let drawn = Self::draw(dice);
        self.segment_bytes = drawn.segment_bytes;
        self.wals_max = drawn.wals_max;
        self.batch = drawn.batch;
        self.log_apart = drawn.log_apart;
        self.snapshot_entries = pick(dice, &SNAPSHOT);
        self.catch_up_entries = pick(dice, &CATCH_UP);
        self.election_millis = pick(dice, &ELECTION);
        self.steps.sweep_rows = pick(dice, &[1_000, 1_000, 20, 3]);
        self.steps.draw(dice);
        self.overlay_max = OverlayMax::default();
        if chance(dice, 300) {
            let (operations, bytes) = (pick(dice, &[1, 10, 50]), pick(dice, &[100, 5_000]));
            self.overlay_max = OverlayMax { operations, bytes };
        }
        if self.quota_bytes > 0 {
            let more = dice.draw(0, 300) * ROW_BYTES;
            self.quota_bytes = pick(dice, &[self.quota_bytes, self.quota_bytes + more, NO_QUOTA]);
        }
    }
}
