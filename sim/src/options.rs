//! A whole run from one number.
//!
//! Swarm testing: a run has some kinds of trouble and not others, some requests and not others, so that rare combinations meet. Everything is an integer;
//! nothing is read from anywhere else.

use std::time::Duration;

use detcd_core::mvcc::index::Gathering;
use detcd_io::driver::bounds;
use detcd_io::entropy::Entropy;
use detcd_io::store::copying::Chunk;
use detcd_io::store::history::ChunkSize;
use detcd_io::store::overlay::OverlayMax;
use detcd_server::fanout;
use detcd_server::fanout::outbox::OutboxSize;

use crate::clients::keys::Crowd;
use crate::cluster::options::ClusterOptions;
use crate::machine::Crash;
use crate::store::ROW_BYTES;

/// What kind of run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Driver, engine, log and store: clients call the services in the member's own process.
    Engine,
    /// The whole server: generated clients over a simulated network.
    Server,
    /// Several members, each as in an engine run, over a network that fails.
    Cluster,
    /// The same with whole servers: generated clients over a simulated network of their own.
    Services,
}

impl Kind {
    /// All of them, the cheapest one first.
    pub const ALL: [Self; 4] = [Self::Engine, Self::Server, Self::Cluster, Self::Services];

    /// Its word on the command line and in the ledger.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Server => "server",
            Self::Cluster => "cluster",
            Self::Services => "services",
        }
    }

    /// Whether there are several members.
    #[must_use]
    pub const fn is_of_several(self) -> bool {
        matches!(self, Self::Cluster | Self::Services)
    }

    /// Whether clients come over a network.
    #[must_use]
    pub const fn has_network(self) -> bool {
        matches!(self, Self::Server | Self::Services)
    }

    /// The kind of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// How long a client of a single member waits for an answer, in milliseconds: longer than the member waits for its log.
pub const PATIENCE_MILLIS: u64 = 10_000;
/// etcd's usual election timeout, in milliseconds.
pub const ELECTION_MILLIS: u64 = 1_000;
/// In a thousand runs without a quota, how many have thousands of keys: each takes as long as many others.
const CROWDS: u64 = 40;
/// No list has many more pages than this.
const PAGES: i64 = 20;
/// The longest time between two reports of progress on which a client may rely, in milliseconds.
const TRUSTED_MILLIS: u64 = 1_000;
/// The longest pause of a client that counts as stuck, in milliseconds.
const STUCK_MILLIS: u64 = 30_000;

/// Everything that a run is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// What stands between clients and the member.
    pub kind: Kind,
    /// The number that it was drawn from; the dice of the run are seeded with it, too.
    pub seed: u64,
    /// Virtual seconds with trouble.
    pub trouble_seconds: u64,
    /// Virtual seconds of load after everything is healed.
    pub calm_seconds: u64,
    /// How the member is set up.
    pub member: MemberOptions,
    /// What clients do.
    pub load: Load,
    /// Who watches.
    pub watch: WatchLoad,
    /// What goes wrong with each machine.
    pub faults: Faults,
    /// How many members there are, and what goes wrong between them.
    pub cluster: ClusterOptions,
}

/// How the member is set up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemberOptions {
    /// Length at which a log file is cut.
    pub segment_bytes: u64,
    /// Applied entries between two log snapshots.
    pub snapshot_entries: u64,
    /// Entries that stay in memory for slow members.
    pub catch_up_entries: u64,
    /// Log files that stay.
    pub wals_max: u64,
    /// When changes are committed.
    pub batch: Batch,
    /// How long it waits for a leader before it stands for election, in milliseconds.
    pub election_millis: u64,
    /// Whether the log lies in a directory of its own.
    pub log_apart: bool,
    /// How much is done at once.
    pub steps: Steps,
    /// How large the store may grow, in bytes; zero for etcd's own limit, which no run reaches.
    pub quota_bytes: u64,
    /// What may be applied and not yet durable.
    pub overlay_max: OverlayMax,
    /// After how many seconds a leader compacts what is older, without being asked; zero for never.
    pub retention_seconds: u64,
}

/// How much is done at once, before others have their turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Steps {
    /// What is copied of the store.
    pub copy: Chunk,
    /// Rows that a sweep removes.
    pub sweep_rows: u64,
    /// Keys that a command looks at.
    pub apply_keys: usize,
    /// Rows that a start works into the index.
    pub gathered_rows: usize,
}

impl Steps {
    /// As in a member that is set up as usual.
    pub const USUAL: Self = Self {
        copy: Chunk::USUAL,
        sweep_rows: 1_000,
        apply_keys: bounds::APPLY_KEYS_PER_TURN,
        gathered_rows: Gathering::ROWS_MAX,
    };

    /// What a command may look at, and what a start works in.
    pub(crate) fn draw(&mut self, dice: &mut Entropy) {
        self.apply_keys = pick(dice, &[Self::USUAL.apply_keys, Self::USUAL.apply_keys, 3, 30]);
        self.gathered_rows = pick(dice, &[Self::USUAL.gathered_rows, 200, 20, 3]);
    }
}

/// When changes are committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Batch {
    /// The longest that a change waits for it, in milliseconds.
    pub millis: u64,
    /// Changes after which a batch is committed at once.
    pub operations: u64,
}

/// What clients do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Load {
    /// How many clients.
    pub clients: u64,
    /// Operations per virtual second, of all clients together.
    pub rate: u64,
    /// How many keys they share.
    pub keys: u64,
    /// What they do with many at once, if there are many.
    pub crowd: Option<Crowd>,
    /// How long values are.
    pub values: Values,
    /// How often each kind of request comes, relative to the others.
    pub weights: Weights,
    /// In a thousand operations, how many are given up soon after they were sent.
    pub impatience: u64,
    /// How long a client waits for an answer, in milliseconds.
    pub patience_millis: u64,
    /// How many clients hold leases besides.
    pub holders: u64,
    /// In a thousand transactions, how many delete every key from one on, and write one of them besides.
    pub rewrites: u64,
    /// The mean of milliseconds between two defragmentations or snapshots; zero for none.
    pub upkeep_millis: u64,
    /// In a thousand operations, how many no store would carry out.
    pub unlawful: u64,
}

/// How long values are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Values {
    /// The longest that most are.
    pub bytes_max: u64,
    /// In a thousand puts, how many write one of the lengths that concern limits: of a chunk, of a message, of a request, and beyond.
    pub large: u64,
}

/// How often each kind of request comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Weights {
    /// Puts.
    pub put: u64,
    /// Ranges.
    pub range: u64,
    /// Streamed ranges.
    pub stream: u64,
    /// Range deletes.
    pub delete: u64,
    /// Transactions.
    pub txn: u64,
    /// Hashes.
    pub hash: u64,
    /// Compactions.
    pub compact: u64,
}

/// Who watches, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchLoad {
    /// How many clients.
    pub clients: u64,
    /// Watchers of each.
    pub watchers: u64,
    /// Messages that are sent to a client before it has read them.
    pub appetite: u64,
    /// In a thousand messages, after how many a client pauses.
    pub pauses: u64,
    /// The longest pause, in milliseconds.
    pub pause_millis: u64,
    /// The most messages that a client reads before it opens another stream.
    pub responses_max: u64,
    /// The time between two reports of progress, in milliseconds.
    pub progress_millis: u64,
    /// Whether the first client never pauses.
    pub has_prompt: bool,
    /// Whether clients never ask how far they are, and rely on being told.
    pub trusts: bool,
    /// Keys on a page, where every other client lists what it watches, as Kubernetes' do.
    pub page: Option<i64>,
    /// What the member may use for it.
    pub limits: fanout::Limits,
}

/// What goes wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Faults {
    /// The mean of milliseconds between two crashes; zero for none.
    pub crash_millis: u64,
    /// What kinds of crashes there are.
    pub crashes: Vec<Crash>,
    /// The longest pause before a crashed member starts again, in milliseconds.
    pub restart_millis: u64,
    /// The longest time that a call takes when nothing is wrong, in milliseconds.
    pub disk_millis: u64,
    /// The mean of milliseconds between two failing syncs; zero for none.
    pub sync_millis: u64,
    /// The mean of milliseconds between two times of a full disk; zero for none.
    pub full_millis: u64,
    /// Times of a slow disk.
    pub slow: Slow,
    /// The mean of milliseconds between two pauses of the member's process; zero for none.
    pub pause_millis: u64,
    /// In a thousand starts, how many are followed by a crash as soon as another member sends a store.
    pub at_stores: u64,
    /// Whether only a member that leads is struck.
    pub only_leaders: bool,
    /// In a thousand starts, how many are on a log that has rotted.
    pub rot: u64,
}

/// Times of a slow disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slow {
    /// The mean of milliseconds between two of them; zero for none.
    pub millis: u64,
    /// The longest time of a write, in milliseconds.
    pub call_millis: u64,
    /// Where the store alone is slow: the longest time of a commit, in milliseconds.
    pub commit_millis: u64,
}

impl Options {
    /// A standard run: 60 virtual seconds of 200 operations each, and two between both parts, in which everything settles.
    #[must_use]
    pub fn draw(kind: Kind, seed: u64) -> Self {
        let mut dice = Entropy::seeded(seed ^ 0x0064_6574_6364);
        let mut options = Self {
            kind,
            seed,
            trouble_seconds: 50,
            calm_seconds: 10,
            member: MemberOptions::draw(&mut dice),
            load: Load::draw(&mut dice),
            watch: WatchLoad::draw(&mut Entropy::seeded(seed ^ 0x0077_6174_6368)),
            faults: Faults::draw(&mut dice),
            cluster: ClusterOptions::ONE,
        };
        let mut dice_of_bounds = Entropy::seeded(seed ^ 0x0062_6f75_6e64);
        if chance(&mut dice_of_bounds, 300) {
            let (operations, bytes) =
                (pick(&mut dice_of_bounds, &[1, 10, 50]), pick(&mut dice_of_bounds, &[100, 5_000]));
            options.member.overlay_max = OverlayMax { operations, bytes };
        }
        options.member.steps.sweep_rows = pick(&mut dice_of_bounds, &[1_000, 1_000, 20, 3]);
        options.faults.slow.commit_millis = pick(&mut dice_of_bounds, &[0, 1_500, 5_000]);
        options.watch.limits.fragment_bytes = pick(&mut dice_of_bounds, &[None, Some(150), Some(300), Some(2_000)]);
        options.load.holders = pick(&mut dice, &[0, 2, 4]);
        let mut dice_of_quota = Entropy::seeded(seed ^ 0x0071_756f_7461);
        if chance(&mut dice_of_quota, 250) {
            // So that a short value can reach it to the byte: sizes go by rows, and a put counts for 259 bytes and its value.
            let (rows, value) = (dice_of_quota.draw(150, 1_200), dice_of_quota.draw(4, 16));
            options.member.quota_bytes = rows * ROW_BYTES + 259 + value;
            options.load.weights.compact = pick(&mut dice_of_quota, &[0, 0, 1]);
            // A full disk is refused with the same words.
            options.faults.full_millis = 0;
        }
        let mut dice_of_upkeep = Entropy::seeded(seed ^ 0x7570_6b65_6570);
        options.load.upkeep_millis = pick(&mut dice_of_upkeep, &[0, 0, 0, 1_500, 6_000]);
        options.member.steps.copy = Chunk { rows: pick(&mut dice_of_upkeep, &[3, 40, 1_000]), bytes: 20_000 };
        options.load.rewrites = pick(&mut Entropy::seeded(seed ^ 0x7265_7772_6974_6500), &[0, 0, 0, 50, 200]);
        options.faults.pause_millis = pick(&mut dice, &[0, 0, 6_000]);
        options.member.steps.draw(&mut Entropy::seeded(seed ^ 0x0073_7465_7073));
        if kind.is_of_several() {
            crate::cluster::options::widen(&mut options);
        }
        options.faults.rot = pick(&mut Entropy::seeded(seed ^ 0x726f_7474_656e), &[0, 0, 0, 0, 100, 400]);
        options.load.unlawful = pick(&mut Entropy::seeded(seed ^ 0x756e_6c61_7766), &[0, 0, 0, 10, 30]);
        let mut dice_of_retention = Entropy::seeded(seed ^ 0x7265_7461_696e);
        options.member.retention_seconds = pick(&mut dice_of_retention, &[0, 0, 0, 0, 0, 0, 2, 5]);
        let mut dice_of_crowds = Entropy::seeded(seed ^ 0x6372_6f77_6473);
        // A quota goes by rows, of which a crowd has too many.
        if options.member.quota_bytes == 0 && chance(&mut dice_of_crowds, CROWDS) {
            Crowd::draw(&mut options, &mut dice_of_crowds);
        }
        let page = pick(&mut Entropy::seeded(seed ^ 0x006c_6973_7473), &[None, None, Some(2), Some(7)]);
        options.watch.trusts = options.watch.progress_millis <= TRUSTED_MILLIS
            && chance(&mut Entropy::seeded(seed ^ 0x0074_7275_7374), 400);
        options.watch.has_prompt =
            options.watch.clients > 1 && chance(&mut Entropy::seeded(seed ^ 0x7072_6f6d_7074), 500);
        // Stores under a quota go by rows, and a crowd's lists are long as it is.
        if options.member.quota_bytes == 0 && options.load.crowd.is_none() {
            options.load.values.large = pick(&mut Entropy::seeded(seed ^ 0x6c61_7267_6500), &[0, 0, 0, 0, 0, 5]);
        }
        options.watch.page = page.map(|page: i64| page.max(options.load.keys.cast_signed() / PAGES));
        options
    }
}

impl Options {
    /// Whether anybody compacts.
    #[must_use]
    pub const fn compacts(&self) -> bool {
        self.load.weights.compact > 0 || self.member.quota_bytes > 0 || self.member.retention_seconds > 0
    }
}

/// One of these.
pub(crate) fn pick<T: Copy>(dice: &mut Entropy, from: &[T]) -> T {
    let last = from.len() as u64 - 1;
    from[dice.draw(0, last) as usize]
}

/// Whether something with this chance in a thousand happens.
pub(crate) fn chance(dice: &mut Entropy, in_thousand: u64) -> bool {
    dice.draw(1, 1000) <= in_thousand
}

impl MemberOptions {
    pub(crate) fn draw(dice: &mut Entropy) -> Self {
        Self {
            segment_bytes: pick(dice, &[4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20]),
            snapshot_entries: pick(dice, &[20, 100, 500, 3_000]),
            catch_up_entries: 5_000,
            wals_max: dice.draw(2, 5),
            batch: Batch { millis: pick(dice, &[5, 20, 100, 400]), operations: pick(dice, &[10, 200, 10_000]) },
            election_millis: ELECTION_MILLIS,
            log_apart: chance(dice, 300),
            steps: Steps::USUAL,
            quota_bytes: 0,
            overlay_max: OverlayMax::default(),
            retention_seconds: 0,
        }
    }
}

impl Load {
    fn draw(dice: &mut Entropy) -> Self {
        let mut weight = |usual: u64| if chance(dice, 200) { 0 } else { usual };
        let weights = Weights {
            put: 30 + weight(20),
            range: weight(20),
            stream: weight(4),
            delete: weight(8),
            txn: weight(20),
            hash: weight(1),
            compact: pick(dice, &[0, 1, 1, 4]),
        };
        Self {
            clients: dice.draw(2, 12),
            rate: 200,
            keys: pick(dice, &[3, 10, 40]),
            crowd: None,
            values: Values { bytes_max: pick(dice, &[16, 200, 1_000, 5_000]), large: 0 },
            weights,
            impatience: pick(dice, &[0, 5, 50]),
            patience_millis: PATIENCE_MILLIS,
            holders: 0,
            rewrites: 0,
            upkeep_millis: 0,
            unlawful: 0,
        }
    }
}

impl WatchLoad {
    fn draw(dice: &mut Entropy) -> Self {
        let limits = fanout::Limits {
            recent_bytes: pick(dice, &[0, 3_000, 100_000, 32 << 20]),
            outbox: OutboxSize {
                bytes: pick(dice, &[1_000, 20_000, 4 << 20]),
                messages: pick(dice, &[1, 4, 64, 1_024]),
            },
            chunk: ChunkSize { rows: pick(dice, &[1, 7, 1_000]), bytes: pick(dice, &[500, 20_000, 1 << 20]) },
            fragment_bytes: None,
        };
        let mut load = Self {
            clients: dice.draw(0, 3),
            watchers: dice.draw(1, 5),
            appetite: pick(dice, &[1, 4, 100]),
            pauses: pick(dice, &[0, 5, 50]),
            pause_millis: pick(dice, &[50, 1_000, 5_000, STUCK_MILLIS]),
            responses_max: pick(dice, &[200, 1_000, 20_000]),
            progress_millis: pick(dice, &[100, 1_000, 10_000]),
            has_prompt: false,
            trusts: false,
            page: None,
            limits,
        };
        if load.pause_millis == STUCK_MILLIS {
            // Who was stuck has far to go, and every chunk is read again for what did not fit.
            let OutboxSize { bytes, messages } = load.limits.outbox;
            load.limits.outbox = OutboxSize { bytes: bytes.max(20_000), messages: messages.max(64) };
        }
        // Nor is a chunk much larger than what takes it up: a run would do little else than read it again.
        let (outbox, chunk) = (load.limits.outbox, load.limits.chunk);
        load.limits.chunk =
            ChunkSize { rows: chunk.rows.min(8 * outbox.messages), bytes: chunk.bytes.min(4 * outbox.bytes) };
        load
    }

    /// In a thousand messages, after how many this client pauses.
    #[must_use]
    pub const fn pauses_of(&self, client: u64) -> u64 {
        if self.has_prompt && client == 0 { 0 } else { self.pauses }
    }

    /// Nobody watches.
    #[must_use]
    pub fn nobody() -> Self {
        Self { clients: 0, ..Self::draw(&mut Entropy::seeded(0)) }
    }
}

impl Faults {
    /// How long a commit that began before everything was healed may still take.
    #[must_use]
    pub const fn slowest_commit(&self) -> Duration {
        Duration::from_millis(self.slow.commit_millis)
    }

    fn draw(dice: &mut Entropy) -> Self {
        let crashes = match dice.draw(0, 3) {
            0 => vec![Crash::Kill],
            1 => vec![Crash::PowerCut],
            _ => vec![Crash::Kill, Crash::PowerCut],
        };
        Self {
            crash_millis: pick(dice, &[0, 1_500, 4_000, 12_000]),
            crashes,
            restart_millis: pick(dice, &[0, 200, 2_000]),
            disk_millis: pick(dice, &[0, 0, 1, 5]),
            sync_millis: pick(dice, &[0, 0, 10_000, 30_000]),
            full_millis: pick(dice, &[0, 0, 0, 15_000]),
            slow: Slow { millis: pick(dice, &[0, 0, 8_000]), call_millis: pick(dice, &[5, 50, 300]), commit_millis: 0 },
            pause_millis: 0,
            at_stores: 0,
            only_leaders: false,
            rot: 0,
        }
    }
}
