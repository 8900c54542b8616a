//! Copies of the store for members that need entries which are gone: flushed, frozen and written as etcd's database file before Raft hears where they stand.

use detcd_core::ids::MemberId;
use tokio::sync::mpsc;

use crate::copier::{Copied, Copies};
use crate::driver::Carried;
use crate::driver::ask::Asker;

/// A copy for a member, or none if it could not be made.
#[derive(Debug)]
pub struct Shipment {
    /// The member.
    pub to: MemberId,
    /// The copy.
    pub copied: Option<Copied>,
}

/// The task that has copies made, one at a time.
#[derive(Debug)]
pub struct Shipper {
    asker: Asker,
    copies: Copies,
    wanted: mpsc::Receiver<MemberId>,
    made: mpsc::Sender<Carried>,
}

impl Shipper {
    /// A shipper for the driver that holds the other ends.
    #[must_use]
    pub const fn new(
        asker: Asker,
        copies: Copies,
        wanted: mpsc::Receiver<MemberId>,
        made: mpsc::Sender<Carried>,
    ) -> Self {
        Self { asker, copies, wanted, made }
    }

    /// Works until the driver is gone.
    pub async fn run(mut self) {
        while let Some(to) = self.wanted.recv().await {
            let copied = self.make(to).await;
            if self.made.send(Carried::Shipment(Shipment { to, copied })).await.is_err() {
                return;
            }
        }
    }

    async fn make(&self, to: MemberId) -> Option<Copied> {
        // What the copy holds may be no older than what the log still has.
        if let Err(why) = self.asker.flush().await {
            tracing::warn!(%to, ?why, "no snapshot for a member that needs one");
            return None;
        }
        match self.copies.make().await {
            Ok(copied) => Some(copied),
            Err(why) => {
                tracing::warn!(%to, %why, "no snapshot for a member that needs one");
                None
            }
        }
    }
}
