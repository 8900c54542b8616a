//! Pauses of the member's process, as a debugger, a snapshot of a virtual machine or a starved host makes them: nothing of it runs, and the clock goes on.

use std::time::Duration;

use detcd_io::entropy::Entropy;
use madsim::time::Instant;

use crate::leases::LeaseRecorder;
use crate::options::Faults;
use crate::world::World;

/// The shortest and the longest pause, in milliseconds.
const PAUSE_MILLIS: (u64, u64) = (100, 6_000);

/// How long a pause that has to wait for its victim waits before it looks again.
pub(crate) const AGAIN: Duration = Duration::from_millis(200);

/// When the next one comes, and when the present one ends.
pub(crate) struct Pauses {
    mean_millis: u64,
    only_leaders: bool,
    dice: Entropy,
    begin: Option<Instant>,
    end: Option<Instant>,
    /// Whether something else disturbs the member as well.
    is_disturbed: bool,
    leases: LeaseRecorder,
}

impl Pauses {
    pub(crate) fn new(seed: u64, faults: &Faults, leases: LeaseRecorder) -> Self {
        let Faults { pause_millis: mean_millis, only_leaders, .. } = *faults;
        let dice = Entropy::seeded(seed ^ 0x0070_6175_7365);
        let mut pauses = Self { mean_millis, only_leaders, dice, begin: None, end: None, is_disturbed: false, leases };
        pauses.plan();
        pauses
    }

    fn plan(&mut self) {
        let millis = self.dice.draw(1, 2 * self.mean_millis.max(1));
        self.begin = (self.mean_millis > 0).then(|| Instant::now() + Duration::from_millis(millis));
    }

    /// When something is due here.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.end.or(self.begin)
    }

    /// Begins or ends a pause, if it is time. A member that is not there is not paused.
    pub(crate) fn strike(&mut self, world: &World) {
        let now = Instant::now();
        if self.end.is_some_and(|end| end <= now || !world.is_up()) {
            self.relieve(world);
        }
        if self.only_leaders && !world.leads() {
            self.begin = self.begin.map(|begin| begin.max(now + AGAIN));
        }
        if self.end.is_none() && self.begin.is_some_and(|begin| begin <= now) {
            self.plan();
            if world.is_serving() {
                world.pause();
                self.leases.trouble();
                let (min, max) = PAUSE_MILLIS;
                self.end = Some(now + Duration::from_millis(self.dice.draw(min, max)));
            }
        }
    }

    /// Ends the present pause.
    pub(crate) fn relieve(&mut self, world: &World) {
        if self.end.take().is_some() {
            world.resume();
            self.tell_relief();
        }
    }

    /// Something disturbs the member.
    pub(crate) fn trouble(&mut self) {
        self.is_disturbed = true;
        self.leases.trouble();
    }

    /// It is over.
    pub(crate) fn relief(&mut self) {
        self.is_disturbed = false;
        self.tell_relief();
    }

    fn tell_relief(&self) {
        if self.end.is_none() && !self.is_disturbed {
            self.leases.relief();
        }
    }
}
