//! An operator who moves the leadership from member to member, lawfully or not, while everybody else works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use detcd_io::entropy::Entropy;
use detcd_proto::etcdserverpb as pb;

use super::net::Net;
use crate::clients::link::Link;
use crate::options::{Options, pick};
use crate::record::Trace;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The operator.
pub(crate) struct Mover {
    link: Link,
    net: Net,
    millis: u64,
    dice: Entropy,
    trace: Trace,
}

impl Mover {
    /// The one of a run with this network.
    pub(crate) fn new(link: Link, net: Net, options: &Options, trace: Trace) -> Self {
        let dice = Entropy::seeded(options.seed ^ 0x6d6f_7665);
        Self { link, net, millis: options.cluster.move_millis, dice, trace }
    }

    /// Works until everything is healed.
    pub(crate) async fn run(mut self, is_healed: Arc<AtomicBool>) {
        while self.millis > 0 && !is_healed.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(self.dice.draw(1, 2 * self.millis))).await;
            let members = self.net.ids();
            if members.is_empty() {
                continue;
            }
            let target_id = pick(&mut self.dice, &members).0;
            // Only the leader takes it; whoever refuses sends the operator on to the next one.
            for _ in 0..members.len() {
                if is_healed.load(Ordering::Relaxed) {
                    return;
                }
                let request = pb::MoveLeaderRequest { target_id };
                let answered = tokio::time::timeout(PATIENCE, self.link.move_leader(&request)).await;
                self.trace.line(|| format!("mover: {target_id:x}: {answered:?}"));
                if matches!(answered, Ok(Ok(_))) {
                    break;
                }
            }
        }
    }
}
