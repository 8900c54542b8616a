//! One member on a machine that fails, clients beside it, and someone who starts the member again.
//!
//! Two phases. First the options' troubles come and go while clients work. Then everything is healed, the load goes on, and from a stated moment on
//! every operation has to be answered: that is progress. At the end the member stops in order, so that nothing is left above the store.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use detcd_core::ids::MemberId;
use detcd_core::raft;
use detcd_io::boot::execute::{BootError, Start};
use detcd_io::boot::machine::Machine as Hardware;
use detcd_io::boot::refusal::Refusal;
use detcd_io::clock::wall_millis;
use detcd_io::entropy::Entropy;
use detcd_io::fault::Fault;
use detcd_io::wal::WalError;
use detcd_server::compose::lease_rules;
use detcd_server::config::{self, Config};
use madsim::runtime::{Handle, NodeHandle};
use tokio::sync::{mpsc, oneshot};

use crate::check::{Promise, Violation};
use crate::clients::link::Ways;
use crate::cluster::seat::{Seat, ip};
use crate::film::{Scene, Stage};
use crate::gauges::{Fullest, Gauges};
use crate::leases::LeaseRecorder;
use crate::life::{Given, News, Running, live};
use crate::machine::{Crash, Machine};
use crate::mutants::Mutant;
use crate::options::{MemberOptions, Options, chance};
use crate::orders::{Order, Standing};

/// The data directory.
pub const DATA_DIR: &str = "/data";
/// The file that the store's tables belong to.
pub const STORE_FILE: &str = "/data/member/lmdb/data.mdb";
/// Where the log is if it lies apart.
const LOG_APART: &str = "/log/wal";
/// Where members serve.
const CLIENT_PORT: u16 = 2379;
/// The least time to live of a lease, in seconds: 15 heartbeats, rounded up.
pub const LEASE_TTL_MIN: i64 = 2;
/// How often a long lease is remembered, in milliseconds: often enough for a run of a minute.
pub const CHECKPOINT_MILLIS: u64 = 3_000;
/// In a thousand members that were removed, how many are started again.
const AGAIN: u64 = 300;
/// How long a member may take from its start to its first served request when nothing is wrong.
const READY_PATIENCE: Duration = Duration::from_secs(20);

/// Where the member at this place serves; one that is alone is at the first.
#[must_use]
pub fn address(place: usize) -> SocketAddr {
    SocketAddr::new(ip(place), CLIENT_PORT)
}

/// The place of the log for these options.
#[must_use]
pub fn log_dir(options: &MemberOptions) -> PathBuf {
    if options.log_apart { PathBuf::from(LOG_APART) } else { Path::new(DATA_DIR).join("member/wal") }
}

/// The configuration, read as the binary reads it.
#[must_use]
pub fn configure(options: &MemberOptions) -> Config {
    configure_as(options, &["--name=sim".to_owned()])
}

/// The same for a member that these words describe.
pub(crate) fn configure_as(options: &MemberOptions, who: &[String]) -> Config {
    let mut words: Vec<String> = [
        format!("--data-dir={DATA_DIR}"),
        format!("--snapshot-count={}", options.snapshot_entries),
        format!("--snapshot-catchup-entries={}", options.catch_up_entries),
        format!("--max-wals={}", options.wals_max),
        format!("--compaction-batch-limit={}", options.steps.sweep_rows),
        format!("--backend-batch-interval={}ms", options.batch.millis),
        format!("--backend-batch-limit={}", options.batch.operations),
        format!("--election-timeout={}", options.election_millis),
    ]
    .into();
    words.extend_from_slice(who);
    if options.quota_bytes > 0 {
        words.push(format!("--quota-backend-bytes={}", options.quota_bytes));
    }
    if options.retention_seconds > 0 {
        words.push(format!("--auto-compaction-retention={}s", options.retention_seconds));
    }
    if options.log_apart {
        words.push(format!("--wal-dir={LOG_APART}"));
    }
    let outcome = config::read(&words, &[], |_| Err(std::io::ErrorKind::NotFound.into()));
    match outcome.result {
        Ok(config::Request::Start(mut config)) => {
            config.store.copy_chunk = options.steps.copy;
            config.store.apply_turn.keys = options.steps.apply_keys;
            *config
        }
        other => panic!("these flags are lawful: {other:?}"),
    }
}

/// The same, with what the options say and no flag sets. The clock of the member at `place` may go wrong: its heartbeats, and with them all its patience, are shorter or longer than others'.
pub(crate) fn limited(mut config: Config, options: &Options, place: usize) -> Config {
    let load = &options.watch;
    config.watch.limits = load.limits;
    config.store.overlay_max = options.member.overlay_max;
    let drift = options.cluster.clocks.drift;
    if drift > 0 {
        let mut dice = Entropy::seeded(options.seed ^ 0x6472_6966_7400 ^ place as u64);
        let micros = config.raft.heartbeat.as_micros() as u64;
        config.raft.heartbeat = Duration::from_micros(micros * dice.draw(1_000 - drift, 1_000 + drift) / 1_000);
    }
    config.watch.progress_interval = Duration::from_millis(load.progress_millis);
    config
}

/// Whoever does not start on a log that has rotted says that it is the log.
fn judge_refusal(error: &BootError) -> Option<Violation> {
    let text = error.to_string();
    let names_log = matches!(error, BootError::Malformed(_)) || text.contains(".wal") || text.contains("/wal");
    let what = || format!("on a log that has rotted the member says: {text}");
    (!names_log).then(|| Violation::new(Promise::Recovery, what()))
}

fn founded_again() -> Violation {
    let what = "a member that lost its disk serves again under its old name".to_owned();
    Violation::new(Promise::Recovery, what)
}

/// The member and whoever looks after it.
pub struct World {
    pub(crate) machine: Machine,
    pub(crate) config: Config,
    pub(crate) options: Options,
    pub(crate) given: Given,
    node: NodeHandle,
    dice: Entropy,
    talk: Talk,
    stop: Option<oneshot::Sender<()>>,
    state: State,
    pub(crate) standing: Standing,
    /// What happens to leases, and to the member as far as that matters to them.
    pub leases: LeaseRecorder,
    /// The first violation that was seen while the run went on.
    violation: Option<Violation>,
}

/// What is said to whoever looks after the member.
struct Talk {
    /// By the member.
    news: mpsc::UnboundedReceiver<News>,
    tell: mpsc::UnboundedSender<News>,
    /// By an operator.
    orders: mpsc::UnboundedReceiver<Order>,
    operator: mpsc::UnboundedSender<Order>,
}

/// What ended a wait.
enum Woken {
    Crashed,
    News(News),
    Order(Order),
}

/// Where the member stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Down,
    Starting,
    Serving,
}

impl World {
    /// A world whose member was never started.
    #[must_use]
    pub fn new(options: &Options, machine: Machine, mutant: Option<Mutant>) -> Self {
        Self::seated(options, machine, mutant, None)
    }

    /// The same for a member of a cluster.
    #[must_use]
    pub fn seated(options: &Options, machine: Machine, mutant: Option<Mutant>, seat: Option<Seat>) -> Self {
        let (tell, news) = mpsc::unbounded_channel();
        let (operator, orders) = mpsc::unbounded_channel();
        let is_idle = seat.as_ref().is_some_and(|seat| seat.founders <= seat.place);
        let gauges = Gauges::new(machine.look().recorder.clone());
        let (node, config, salt) = match &seat {
            None => (("member".to_owned(), ip(0)), configure(&options.member), 0),
            Some(seat) => ((seat.name(), seat.ip()), configure_as(&options.member, &seat.words()), seat.place as u64),
        };
        let (name, ip) = node;
        Self {
            machine,
            config: limited(config, options, usize::try_from(salt).expect("a cluster is small")),
            options: options.clone(),
            given: Given { mutant, kind: options.kind, ways: Ways::default(), gauges, seat },
            node: Handle::current().create_node().name(name).ip(ip).build(),
            dice: Entropy::seeded(options.seed ^ 0x0077_6f72_6c64 ^ salt << 40),
            talk: Talk { news, tell, orders, operator },
            stop: None,
            state: State::Down,
            standing: if is_idle { Standing::Idle } else { Standing::Wanted },
            leases: LeaseRecorder::default(),
            violation: None,
        }
    }

    /// The first violation that was seen.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self) -> Result<(), Violation> {
        // What members agree on comes first: the rest may follow from it.
        let agreed = self.given.seat.as_ref().map_or(Ok(()), Seat::check);
        agreed.and_then(|()| self.violation.clone().map_or(Ok(()), Err))
    }

    /// The ways to the member.
    #[must_use]
    pub const fn ways(&self) -> &Ways {
        &self.given.ways
    }

    /// How full everything has been.
    #[must_use]
    pub fn fullest(&self) -> Fullest {
        let rows_at_once = self.machine.look().counts.rows_at_once;
        Fullest { rows_at_once, ..self.given.gauges.fullest() }
    }

    /// What is under the member.
    #[must_use]
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether it leads, as a member that is alone always does.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.given.seat.as_ref().is_none_or(|seat| seat.ledger.leads(seat.place))
    }

    fn film(&self, stage: Stage) {
        self.machine.look().trace.show(|| Scene::Stage(stage));
    }

    /// Whether the member serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.state == State::Serving
    }

    /// The way of orders.
    pub(crate) fn operator(&self) -> mpsc::UnboundedSender<Order> {
        self.talk.operator.clone()
    }

    /// Its place in a cluster.
    #[must_use]
    pub fn place(&self) -> Option<usize> {
        self.given.seat.as_ref().map(|seat| seat.place)
    }

    /// Whether it shall run.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.standing != Standing::Idle
    }

    /// Whether it was started and did not end.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state != State::Down
    }

    /// Stops the clockwork of the member's process, not the clock.
    pub fn pause(&self) {
        self.machine.look().trace.line(|| "pause".to_owned());
        self.film(Stage::Paused);
        Handle::current().pause(self.node.id());
        if let Some(seat) = &self.given.seat {
            seat.net.pause(seat.place);
        }
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.machine.look().trace.line(|| "resume".to_owned());
        self.film(Stage::Resumed);
        Handle::current().resume(self.node.id());
        if let Some(seat) = &self.given.seat {
            seat.net.resume(seat.place);
        }
    }

    /// Starts the member.
    pub fn start(&mut self) {
        assert!(self.state == State::Down, "one life at a time");
        // Whatever an earlier life had to say is old.
        while self.talk.news.try_recv().is_ok() {}
        Handle::current().restart(self.node.id());
        self.node = Handle::current().get_node(self.node.id()).expect("the node was made");
        let life = self.machine.begin_life(self.node.id());
        self.machine.look().recorder.begin_life();
        self.machine.look().trace.line(|| "start".to_owned());
        self.film(Stage::Starting);
        let (stop, stopped) = oneshot::channel();
        let settings = self.settings();
        let (config, tell, seed) = (self.config.clone(), self.talk.tell.clone(), self.dice.draw(0, u64::MAX));
        let (given, node) = (self.given.clone(), self.node.clone());
        let wall_millis = self.wall_millis();
        self.node.spawn(async move {
            let running = Running { seed, wall_millis, given, node, stopped, tell: tell.clone() };
            let news = live(life, settings, config, running).await;
            let _ = tell.send(news);
        });
        self.stop = Some(stop);
        self.state = State::Starting;
    }

    /// What the wall clock shows at a start: it may have been set, in either direction.
    fn wall_millis(&mut self) -> u64 {
        match self.options.cluster.clocks.jump_millis {
            0 => wall_millis(),
            jump => (wall_millis() + self.dice.draw(0, 2 * jump)).saturating_sub(jump),
        }
    }

    fn settings(&self) -> Start {
        let ticks = u32::try_from(self.config.raft.election_ticks).expect("a run is short");
        let election = raft::Delay::between(ticks, ticks * 2 - 1);
        let raft = raft::Config { election, pre_vote: self.config.raft.pre_vote, ..raft::Config::new(MemberId(0)) };
        let mut leases = lease_rules(&self.config);
        assert!(leases.ttl_min == LEASE_TTL_MIN, "the oracles know the rule");
        leases.pace.checkpoint_interval = CHECKPOINT_MILLIS;
        let start = Start {
            places: self.config.data.places.clone(),
            asked: self.config.asked.clone(),
            machine: Hardware { arch: "amd64".to_owned(), unsupported_arch: None, fd_limit: 65_536 },
            segment_bytes: self.options.member.segment_bytes,
            raft,
            leases,
            gathered_rows_max: self.options.member.steps.gathered_rows,
            #[cfg(mutants)]
            mutant: None,
        };
        crate::mutants::infect(start, self.given.mutant)
    }

    /// Waits for the member to change its state, at most so long, and takes note. Crashes count.
    pub async fn watch(&mut self, patience: Duration) {
        let waited = tokio::time::timeout(patience, async {
            tokio::select! {
                biased;
                () = self.machine.crashed() => Woken::Crashed,
                Some(news) = self.talk.news.recv() => Woken::News(news),
                Some(order) = self.talk.orders.recv() => Woken::Order(order),
            }
        });
        match waited.await {
            Err(_) => {}
            Ok(Woken::Crashed) => self.on_crashed(),
            Ok(Woken::News(news)) => self.on_news(news),
            Ok(Woken::Order(order)) => self.carry_out(order).await,
        }
    }

    /// The member is gone, and what is on its disk must fit together.
    pub(crate) fn on_crashed(&mut self) {
        self.on_down();
        self.machine.look().mend();
        self.after_crash();
    }

    fn on_news(&mut self, news: News) {
        if self.state == State::Down {
            // Said before a crash, heard after it.
            return;
        }
        self.machine.look().trace.line(|| format!("news: {news:?}"));
        let violation = match news {
            News::Ready if self.standing == Standing::OnTrial => Some(founded_again()),
            News::Ready => {
                self.state = State::Serving;
                self.film(Stage::Serving);
                if self.given.seat.is_none() {
                    self.leases.up();
                }
                return;
            }
            News::Stopped | News::Installing => None,
            // The store tells of it before anybody looks at the log, so also where that has rotted.
            News::Removed
            | News::Refused(BootError::Refused(Refusal::Removed))
            | News::Rotten(BootError::Refused(Refusal::Removed)) => self.on_removed(),
            News::Refused(BootError::Refused(Refusal::AlreadyBootstrapped { .. }))
                if self.standing == Standing::OnTrial =>
            {
                self.standing = Standing::Idle;
                None
            }
            News::Refused(BootError::Fault(fault) | BootError::Wal(WalError::Fault(fault))) | News::Faulted(fault) => {
                self.judge_fault(&fault)
            }
            News::Rotten(
                BootError::Fault(fault @ Fault::Disk { .. })
                | BootError::Wal(WalError::Fault(fault @ Fault::Disk { .. })),
            ) => self.judge_fault(&fault),
            News::Rotten(error) => judge_refusal(&error),
            News::Refused(error) => {
                Some(Violation::new(Promise::Recovery, format!("the member does not start: {error}")))
            }
        };
        self.on_down();
        self.machine.end_process();
        // What is left of the member's tasks goes with it.
        Handle::current().kill(self.node.id());
        self.violation = self.violation.take().or(violation);
        self.after_crash();
    }

    /// Nobody is there any more.
    fn on_down(&mut self) {
        self.state = State::Down;
        self.film(Stage::Down);
        self.given.ways.door.close();
        match &self.given.seat {
            None => self.leases.down(),
            Some(seat) => seat.leave(),
        }
    }

    /// It says that it was removed, for good. Some are started again, and must say so again.
    fn on_removed(&mut self) -> Option<Violation> {
        let Some(seat) = self.given.seat.as_ref() else {
            let what = "a member that is alone ends as one that was removed".to_owned();
            return Some(Violation::new(Promise::Recovery, what));
        };
        if !seat.ledger.has_removed(seat.net.id_at(seat.place)) {
            let what = "a member that nobody removed ends as one that was".to_owned();
            return Some(Violation::new(Promise::Consensus, what));
        }
        if !chance(&mut self.dice, AGAIN) {
            self.standing = Standing::Idle;
        }
        None
    }

    /// A member may end with a fault of the disk, if the disk failed in its life.
    fn judge_fault(&self, fault: &Fault) -> Option<Violation> {
        let is_disk = matches!(fault, Fault::Disk { .. } | Fault::AfterFault { .. });
        if is_disk && self.machine.has_excuse() {
            return None;
        }
        let promise = if self.state == State::Starting { Promise::Recovery } else { Promise::Fault };
        Some(Violation::new(promise, format!("the member ended: {fault}")))
    }

    /// Nothing runs: what is on the disk must fit together.
    fn after_crash(&mut self) {
        let covers = crate::check::replay::covers(&self.machine, &self.config.data.places.wal_dir);
        self.violation = self.violation.take().or_else(|| covers.err());
    }

    /// Everything is healed: brings the member up. Says whether it serves in time.
    pub async fn recover(&mut self) -> Result<(), Violation> {
        let begin = madsim::time::Instant::now();
        while !self.is_serving() && self.is_wanted() {
            if !self.is_up() {
                self.start();
            }
            self.watch(Duration::from_secs(1)).await;
            self.check()?;
            if begin.elapsed() > READY_PATIENCE {
                return Err(Violation::new(Promise::Progress, format!("no member serves after {READY_PATIENCE:?}")));
            }
        }
        Ok(())
    }

    /// Stops the member in order and waits for its end.
    pub async fn stop(&mut self) -> Result<(), Violation> {
        drop(self.stop.take());
        for _ in 0..60 {
            if !self.is_up() {
                return Ok(());
            }
            self.watch(Duration::from_secs(1)).await;
        }
        Err(Violation::new(Promise::Progress, "the member does not stop".to_owned()))
    }

    /// Crashes the member now, if there is one.
    pub async fn crash(&mut self, crash: Crash) {
        self.machine.crash(crash);
        self.watch(Duration::ZERO).await;
    }
}
