//! Cuts that come and go: a member alone, halves, one direction, a bridge, all of it also many times a second; and moments in which everybody crashes.

use std::time::Duration;

use detcd_io::entropy::Entropy;
use madsim::time::Instant;

use super::net::Net;
use super::options::{Storms, Weather};
use crate::check::consensus::Ledger;
use crate::leases::LeaseRecorder;
use crate::machine::{Crash, Machine};
use crate::options::{Options, chance, pick};

/// The shortest cut, in milliseconds.
const SHORTEST_MILLIS: u64 = 50;
/// The longest time between two turns of a cut that comes and goes, in milliseconds.
const FLAP_MILLIS_MAX: u64 = 400;

/// Which ways a cut closes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shape {
    /// All ways from and to one member.
    Alone,
    /// All ways to it.
    Deaf,
    /// All ways from it.
    Mute,
    /// All ways between two groups.
    Halves,
    /// One way from one member to another.
    OneWay,
    /// Both ways between two members, who still meet at a third.
    Bridge,
}

/// The end of the power, or of the processes, of all members at once, or of all but one.
pub(crate) struct Blackouts {
    machines: Vec<Machine>,
    crashes: Vec<Crash>,
    millis: u64,
    dice: Entropy,
}

impl Blackouts {
    /// Those of a run on these machines.
    pub(crate) fn new(options: &Options, machines: Vec<Machine>) -> Self {
        let dice = Entropy::seeded(options.seed ^ 0x6461_726b);
        Self { machines, crashes: options.faults.crashes.clone(), millis: options.cluster.blackout_millis, dice }
    }

    /// Lets them come until `end`.
    pub(crate) async fn strike(mut self, end: Instant) {
        while self.millis > 0 {
            let next = Instant::now() + Duration::from_millis(self.dice.draw(1, 2 * self.millis));
            if end <= next {
                return;
            }
            tokio::time::sleep_until(next).await;
            let crash = pick(&mut self.dice, &self.crashes);
            let spared = self.dice.draw(0, 2 * self.machines.len() as u64) as usize;
            let struck = self.machines.iter().enumerate().filter(|(place, _)| *place != spared);
            struck.for_each(|(_, machine)| machine.crash(crash));
        }
    }
}

/// Who makes cuts.
pub struct Storm {
    net: Net,
    ledger: Ledger,
    leases: LeaseRecorder,
    storms: Storms,
    weather: Weather,
    dice: Entropy,
}

impl Storm {
    /// A storm over `net`, drawn from `seed`.
    #[must_use]
    pub fn new(
        seed: u64,
        (storms, weather): (Storms, Weather),
        net: Net,
        ledger: Ledger,
        leases: LeaseRecorder,
    ) -> Self {
        Self { net, ledger, leases, storms, weather, dice: Entropy::seeded(seed ^ 0x0073_746f_726d) }
    }

    /// Lets cuts come and go until `end`.
    pub async fn rage(mut self, end: Instant) {
        self.net.set_weather(self.weather);
        if !self.weather.is_fair() {
            self.leases.trouble();
        }
        while self.storms.cut_millis > 0 && self.net.places() > 1 {
            self.rest(1, 2 * self.storms.cut_millis, end).await;
            if end <= Instant::now() {
                break;
            }
            self.leases.trouble();
            self.cut(end).await;
            self.net.mend();
            if self.weather.is_fair() {
                self.leases.relief();
            }
        }
        tokio::time::sleep_until(end).await;
        self.net.set_weather(Weather::FAIR);
        self.leases.relief();
    }

    async fn rest(&mut self, min: u64, max: u64, end: Instant) {
        let pause = Duration::from_millis(self.dice.draw(min, max));
        tokio::time::sleep_until((Instant::now() + pause).min(end)).await;
    }

    async fn cut(&mut self, end: Instant) {
        let ways = self.draw();
        if !chance(&mut self.dice, self.storms.flaps) {
            self.net.cut(&ways);
            return self.rest(SHORTEST_MILLIS, self.storms.longest_millis, end).await;
        }
        let until = Instant::now() + Duration::from_millis(self.dice.draw(SHORTEST_MILLIS, self.storms.longest_millis));
        while Instant::now() < until.min(end) {
            self.net.cut(&ways);
            self.rest(1, FLAP_MILLIS_MAX, end).await;
            self.net.mend();
            self.rest(1, FLAP_MILLIS_MAX, end).await;
        }
    }

    /// The ways that the next cut closes.
    fn draw(&mut self) -> Vec<(usize, usize)> {
        use Shape::{Alone, Bridge, Deaf, Halves, Mute, OneWay};
        let members = self.net.places();
        let shape = pick(&mut self.dice, &[Alone, Alone, Deaf, Mute, Halves, OneWay, Bridge]);
        let any = self.dice.draw(0, members as u64 - 1) as usize;
        let is_leader = chance(&mut self.dice, self.storms.at_leader);
        let one = self.ledger.leader().filter(|_| is_leader).unwrap_or(any);
        let other = (one + 1 + self.dice.draw(0, members as u64 - 2) as usize) % members;
        let group = self.dice.draw(1, (1 << members) - 2) | 1 << one;
        let is_in = |place: usize| group >> place & 1 == 1;
        let all = (0..members).flat_map(|from| (0..members).map(move |to| (from, to)));
        let others = all.filter(|(from, to)| from != to);
        others
            .filter(|&(from, to)| match shape {
                Alone => from == one || to == one,
                Deaf => to == one,
                Mute => from == one,
                Halves => is_in(from) != is_in(to),
                OneWay => (from, to) == (one, other),
                Bridge => (from, to) == (one, other) || (from, to) == (other, one),
            })
            .collect()
    }
}
