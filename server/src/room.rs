//! Room for replies: one bound for all clients, because a reply is in memory whole until its client has taken it.
//!
//! A read takes room as it grows. Without room it waits for others to finish, and gives up in the end; a read that alone is larger than all the room there is may go
//! on once it has all of it, so that nothing that etcd could answer is refused for its size.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which room is given.
const UNIT_BYTES: usize = 64 * 1024;

/// The room of one member. Clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    units: Arc<Semaphore>,
    units_max: usize,
    patience: Duration,
}

/// Room that one reply holds until it is dropped.
#[derive(Debug)]
pub struct Held {
    room: Room,
    permits: Option<OwnedSemaphorePermit>,
    units: usize,
}

/// Room that goes with a response until its last byte is taken: the response carries it as an extension, and who sends the body holds it that long.
pub type Kept = Arc<Held>;

/// There was no room for as long as a request may wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRoom;

impl Room {
    /// Room for `bytes` of replies; who finds none waits for `patience`.
    #[must_use]
    pub fn new(bytes: usize, patience: Duration) -> Self {
        let units_max = (bytes / UNIT_BYTES).max(1);
        Self { units: Arc::new(Semaphore::new(units_max)), units_max, patience }
    }

    /// A reply that holds nothing yet.
    #[must_use]
    pub fn enter(&self) -> Held {
        Held { room: self.clone(), permits: None, units: 0 }
    }
}

impl Held {
    /// What is to go with the response; `None` for one that is small.
    #[must_use]
    pub fn keep(self) -> Option<Kept> {
        (self.units > 0).then(|| Arc::new(self))
    }

    /// Takes room until the reply holds room for `bytes`. The first unit is free: most replies are small.
    ///
    /// # Errors
    /// [`NoRoom`] after the patience.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let wanted = (bytes / UNIT_BYTES).min(self.room.units_max);
        let Some(more) = wanted.checked_sub(self.units).filter(|more| *more > 0) else { return Ok(()) };
        let count = u32::try_from(more).map_err(|_| NoRoom)?;
        let taking = Arc::clone(&self.room.units).acquire_many_owned(count);
        let permits =
            tokio::time::timeout(self.room.patience, taking).await.map_err(|_| NoRoom)?.map_err(|_| NoRoom)?;
        match &mut self.permits {
            Some(held) => held.merge(permits),
            None => self.permits = Some(permits),
        }
        self.units = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reply_waits_for_room_and_gives_up_in_the_end() {
        let room = Room::new(4 * UNIT_BYTES, Duration::from_secs(7));
        let mut first = room.enter();
        first.grow_to(3 * UNIT_BYTES).await.expect("an empty room");
        first.grow_to(3 * UNIT_BYTES).await.expect("it holds that already");
        let mut second = room.enter();
        second.grow_to(UNIT_BYTES - 1).await.expect("small replies are free");
        second.grow_to(UNIT_BYTES).await.expect("one unit is left");
        assert_eq!(second.grow_to(2 * UNIT_BYTES).await, Err(NoRoom));
        drop(first);
        second.grow_to(2 * UNIT_BYTES).await.expect("there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_larger_than_the_room_takes_it_all() {
        let room = Room::new(4 * UNIT_BYTES, Duration::from_secs(7));
        let mut giant = room.enter();
        giant.grow_to(1000 * UNIT_BYTES).await.expect("it is alone");
        assert_eq!(room.enter().grow_to(UNIT_BYTES).await, Err(NoRoom));
    }
}
