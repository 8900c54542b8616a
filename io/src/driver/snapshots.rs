//! Stores on their way between members, seen from the driver: copies go out with the message that the engine makes for them, and what a leader sent is made ready
//! before the engine hears of it.

use std::path::PathBuf;
use std::time::Duration;

use detcd_core::ids::MemberId;
use detcd_core::raft::progress::Flow;
use detcd_core::raft::role::Role;
use detcd_core::raft::{Effect, Input, Message};
use tokio::sync::oneshot;

use super::Driver;
use crate::clock::Instant;
use crate::fault::Fault;
use crate::installer::{Job, Received, Staged, UnderWay};
use crate::peer::SnapshotRefused;
use crate::shipper::Shipment;
use crate::store::backend::Backend;

/// How long entries are kept for a member after it was sent the store (etcd's own time).
const SHIPPED_PATIENCE: Duration = Duration::from_secs(30);

impl<B: Backend> Driver<B> {
    /// Has a copy made for a member. Answers what the engine is told if that cannot be.
    pub(super) fn ask_for_copy(&self, to: MemberId) -> Option<Input> {
        let asked = self.durable.lines.carriers.wanted.try_send(to);
        asked.is_err().then_some(Input::SnapshotMade { to, snapshot: None })
    }

    /// Whether a member needs what comes after a store that it is being sent, or was sent a moment ago: without those entries it
    /// would need the next store, and under load so for ever. etcd keeps its log as well, and for as long afterwards.
    pub(super) fn is_shipping(&mut self) -> bool {
        let now = Instant::now();
        let Role::Leader(leader) = self.raft.role() else { return false };
        if leader.members.values().any(|progress| matches!(progress.flow, Flow::Snapshot(_))) {
            self.turnover.shipping_until = Some(now + SHIPPED_PATIENCE);
        }
        self.turnover.shipping_until.is_some_and(|until| now < until)
    }

    /// A copy is ready, or is none. The engine answers with the message that goes with it, or does not want it any more.
    pub(super) fn on_shipment(&mut self, shipment: Shipment) -> Result<(), Fault> {
        let to = shipment.to;
        let snapshot = shipment.copied.as_ref().map(|copied| copied.snapshot().clone());
        self.turnover.shipment = Some(shipment);
        self.step(Input::SnapshotMade { to, snapshot });
        self.carry_out(Instant::now())?;
        self.turnover.shipment = None;
        Ok(())
    }

    /// Sends a snapshot with its copy. Answers what the engine is told if there is none.
    pub(super) fn ship(&mut self, to: MemberId, message: Message) -> Option<Input> {
        match self.turnover.shipment.take() {
            Some(Shipment { to: of, copied: Some(copied) }) if of == to => {
                self.peers.transport.send_snapshot(to, message, copied);
                None
            }
            _ => Some(Input::SnapshotSent { to, is_received: false }),
        }
    }

    /// A leader sent its store: it is made ready, unless this member has as much already.
    pub(super) fn on_snapshot_received(
        &mut self,
        from: MemberId,
        message: Message,
        path: PathBuf,
        answer: oneshot::Sender<Result<(), SnapshotRefused>>,
    ) {
        let refused = |text: &str| Err(SnapshotRefused::Refused(text.to_owned()));
        let lines = &self.durable.lines;
        let Message::Snapshot { snapshot, .. } = &message else {
            let _ = answer.send(refused("wrong raft message type"));
            return drop(lines.carriers.installs.try_send(Job::Drop(path)));
        };
        if snapshot.mark.index <= self.raft.commit() {
            let _ = lines.carriers.installs.try_send(Job::Drop(path));
            self.step(Input::Received { from, message });
            return drop(answer.send(Ok(())));
        }
        let snapshot = snapshot.clone();
        let under_way = UnderWay::new(self.asker.shared_gauges());
        let job = Job::Stage(Received { from, message, snapshot, path, answer, under_way });
        if let Err(full) = lines.carriers.installs.try_send(job)
            && let Job::Stage(Received { answer, .. }) = full.into_inner()
        {
            let _ = answer.send(refused("another snapshot is being installed"));
        }
    }

    /// A store that a leader sent is ready: the engine decides whether it counts.
    pub(super) fn on_staged(&mut self, staged: Staged) {
        let Received { from, message, snapshot, answer, .. } = staged.received;
        let before = self.effects.len();
        self.step(Input::Received { from, message });
        let is_wanted = self.effects[before..]
            .iter()
            .any(|effect| matches!(effect, Effect::Append(write) if write.snapshot.as_ref() == Some(&snapshot)));
        if !is_wanted {
            // The next start would remove it, too.
            let _ = self.durable.lines.carriers.installs.try_send(Job::Forget(snapshot.mark));
        }
        let _ = answer.send(Ok(()));
    }
}
