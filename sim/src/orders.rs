//! What an operator does with the machine of a member: puts another one in its place, for a member that joins, or for one that lost everything.

use detcd_io::boot::asked::Others;

use crate::machine::Crash;
use crate::world::{World, configure_as, limited};

/// An order.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// A member joins this cluster, on an empty machine.
    Join(Others),
    /// The machine is lost, with all that was on it. If somebody tells what is known of the cluster, the member is started under its old name, and must not found it again.
    Wipe(Option<Others>),
}

/// What is wanted of a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// It shall run.
    Wanted,
    /// Nobody shall.
    Idle,
    /// It is started once, and must refuse.
    OnTrial,
}

impl World {
    /// Ends the member for good.
    pub(crate) async fn dismiss(&mut self) {
        self.standing = Standing::Idle;
        self.crash(Crash::Kill).await;
    }

    /// Carries out an order.
    pub(crate) async fn carry_out(&mut self, order: Order) {
        self.machine().look().trace.line(|| format!("order: {order:?}"));
        if self.machine.strike(Crash::PowerCut) {
            self.machine.crashed().await;
            self.on_crashed();
        }
        self.machine.replace();
        let seat = self.given.seat.as_ref().expect("only members of clusters are given orders");
        let (words, others, standing) = match order {
            Order::Join(others) => (seat.joining_words(&others.members), Some(others), Standing::Wanted),
            Order::Wipe(None) => (seat.words(), None, Standing::Idle),
            Order::Wipe(others) => (seat.words(), others, Standing::OnTrial),
        };
        let config = configure_as(&self.options.member, &words);
        self.config = limited(config, &self.options, seat.place);
        self.config.asked.others = others;
        self.standing = standing;
    }
}
