//! What goes wrong with one member and its machine, and who starts it again: crashes in pairs, failing syncs, a full disk, a slow one, pauses.

use std::time::Duration;

use detcd_io::entropy::Entropy;
use madsim::time::Instant;

use crate::check::Violation;
use crate::film::Scene;
use crate::machine::{At, Crash, CrashPoint, Machine, Side};
use crate::options::{Faults, chance, pick};
use crate::pauses::{AGAIN, Pauses};
use crate::rot::Atlas;
use crate::world::{World, log_dir};

/// The longest chosen distance, in calls, from a decision to crash to the crash.
const CRASH_CALLS_MAX: u64 = 60;
/// The mean of milliseconds from a restart to the crash that belongs to the one before it.
const AFTERSHOCK_MILLIS: u64 = 400;

/// The first phase: starts the member again and again, and lets the options' troubles come and go.
pub(crate) struct Troubles {
    machine: Machine,
    faults: Faults,
    dice: Entropy,
    dice_of_stores: Entropy,
    dice_of_rot: Entropy,
    end: Instant,
    next: Moments,
    pauses: Pauses,
}

/// When each kind comes next.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    crash: Option<Instant>,
    aftershock: Option<Instant>,
    sync: Option<Instant>,
    full: Option<Instant>,
    slow: Option<Instant>,
    /// When what is there now goes.
    relief: Option<Instant>,
    restart: Option<Instant>,
}

impl Troubles {
    /// Troubles for `world`, drawn from `seed`, for so many seconds from now on.
    pub(crate) fn new(faults: Faults, seed: u64, seconds: u64, world: &World) -> Self {
        let mut troubles = Self {
            machine: world.machine().clone(),
            dice: Entropy::seeded(seed ^ 0x7472_6f75_626c),
            dice_of_stores: Entropy::seeded(seed ^ 0x7374_6f72_6573),
            dice_of_rot: Entropy::seeded(seed ^ 0x726f_7400),
            end: Instant::now() + Duration::from_secs(seconds),
            next: Moments { restart: Some(Instant::now()), ..Moments::default() },
            pauses: Pauses::new(seed, &faults, world.leases.clone()),
            faults,
        };
        let Faults { disk_millis, crash_millis, sync_millis, full_millis, slow, .. } = troubles.faults;
        troubles.machine.look().trouble.slow_millis = disk_millis;
        troubles.next.crash = troubles.draw(crash_millis);
        troubles.next.sync = troubles.draw(sync_millis);
        troubles.next.full = troubles.draw(full_millis);
        troubles.next.slow = troubles.draw(slow.millis);
        troubles
    }

    /// A moment with this mean distance from now; never, for zero.
    fn draw(&mut self, mean_millis: u64) -> Option<Instant> {
        (mean_millis > 0).then(|| Instant::now() + Duration::from_millis(self.dice.draw(1, 2 * mean_millis)))
    }

    /// Lets them come and go, and starts the member whenever it is down.
    ///
    /// # Errors
    /// The first violation that the world saw.
    pub(crate) async fn reign(mut self, world: &mut World) -> Result<(), Violation> {
        while Instant::now() < self.end {
            if !world.is_wanted() {
                self.next.restart = None;
            } else if !world.is_up() {
                let pause = Duration::from_millis(self.dice.draw(0, self.faults.restart_millis));
                let at = *self.next.restart.get_or_insert_with(|| Instant::now() + pause);
                if at <= Instant::now() {
                    self.next.restart = None;
                    self.let_rot(world);
                    world.start();
                    self.expect_aftershock();
                    self.expect_store();
                }
            }
            self.strike(world);
            self.pauses.strike(world);
            let Moments { crash, aftershock, sync, full, slow, relief, restart } = self.next;
            let moments = [crash, aftershock, sync, full, slow, relief, restart, self.pauses.next()];
            let next = moments.into_iter().flatten().min().unwrap_or(self.end).min(self.end);
            world.watch(next.saturating_duration_since(Instant::now())).await;
            world.check()?;
        }
        self.pauses.relieve(world);
        self.pauses.relief();
        Ok(())
    }

    /// Crashes come in pairs: what the first left half-done, and its successor took for granted, shows at the second.
    fn expect_aftershock(&mut self) {
        if self.faults.crash_millis > 0 && chance(&mut self.dice, 400) {
            self.next.aftershock = self.draw(AFTERSHOCK_MILLIS);
        }
    }

    /// Whoever was away is often sent a store: a crash may wait for that.
    fn expect_store(&mut self) {
        let dice = &mut self.dice_of_stores;
        if chance(dice, self.faults.at_stores) {
            let point = CrashPoint {
                at: pick(dice, &[At::Received, At::Installed]),
                side: pick(dice, &[Side::Before, Side::After]),
                crash: pick(dice, &self.faults.crashes),
            };
            self.machine.crash_at(Some(point));
        }
    }

    /// The log may have rotted while nobody ran.
    fn let_rot(&mut self, world: &World) {
        if chance(&mut self.dice_of_rot, self.faults.rot) {
            let atlas = if world.place().is_some() { Atlas::OfSeveral } else { Atlas::Alone };
            self.machine.rot(&log_dir(&world.options.member), atlas, &mut self.dice_of_rot);
        }
    }

    /// For a diagram.
    fn note(&self, what: &str) {
        self.machine.look().trace.show(|| Scene::Note(what.to_owned()));
    }

    /// Everything that is due.
    fn strike(&mut self, world: &World) {
        let now = Instant::now();
        let is_due = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
        let faults = self.faults.clone();
        if faults.only_leaders && !world.leads() {
            let Moments { crash, sync, full, slow, .. } = &mut self.next;
            for moment in [crash, sync, full, slow] {
                *moment = moment.map(|moment| moment.max(now + AGAIN));
            }
        }
        if is_due(self.next.crash) {
            let call = self.machine.calls() + self.dice.draw(1, CRASH_CALLS_MAX);
            let point = CrashPoint {
                at: if chance(&mut self.dice, 250) { At::Rename } else { At::Call(call) },
                side: pick(&mut self.dice, &[Side::Before, Side::After]),
                crash: pick(&mut self.dice, &faults.crashes),
            };
            match self.dice.draw(0, 3) {
                0 => self.machine.crash(point.crash),
                _ => self.machine.crash_at(Some(point)),
            }
            self.next.crash = self.draw(faults.crash_millis);
        }
        if is_due(self.next.aftershock) {
            self.next.aftershock = None;
            // The worst of the kinds that this run has.
            let worst = if faults.crashes.contains(&Crash::PowerCut) { Crash::PowerCut } else { Crash::Kill };
            self.machine.crash(worst);
        }
        if is_due(self.next.sync) {
            self.note("syncs will fail");
            self.machine.look().trouble.failing_syncs = self.dice.draw(1, 2);
            self.next.sync = self.draw(faults.sync_millis);
        }
        if is_due(self.next.relief) {
            self.note("the disk has room, and is as fast as ever");
            let mut inner = self.machine.look();
            (inner.trouble.room, inner.trouble.slow_millis) = (None, faults.disk_millis);
            inner.trouble.slow_commit_millis = 0;
            self.next.relief = None;
            drop(inner);
            self.pauses.relief();
        }
        if is_due(self.next.full) {
            self.note("the disk is nearly full");
            let mut inner = self.machine.look();
            inner.trouble.room = Some(inner.image.used_bytes() + self.dice.draw(0, 20_000));
            drop(inner);
            self.pauses.trouble();
            self.next.full = self.draw(faults.full_millis);
            self.next.relief = self.draw(2_000);
        }
        if is_due(self.next.slow) {
            self.note("the disk is slow");
            let mut inner = self.machine.look();
            match faults.slow.commit_millis {
                millis if millis > 0 && chance(&mut self.dice, 500) => inner.trouble.slow_commit_millis = millis,
                _ => inner.trouble.slow_millis = faults.slow.call_millis,
            }
            drop(inner);
            self.pauses.trouble();
            self.next.slow = self.draw(faults.slow.millis);
            self.next.relief = self.draw(2_000);
        }
    }
}
