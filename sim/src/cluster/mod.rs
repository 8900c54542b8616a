//! Clusters: several members, each on a machine of its own, and a network between them that delays, loses, repeats and cuts.
//!
//! A member here is the [`World`](crate::world::World) of an engine run with a [`seat`]: a place in the cluster and a line to the others. Everything below the line is the
//! production code, and so are the bytes on it. What the members do is judged while they do it, by [`check::consensus`](crate::check::consensus), and at the end.
//!
//! Reading order: [`options`], [`net`] (messages), [`forward`] (what members ask of each other beside Raft), [`seat`], [`storm`] (cuts), `mover` (leaders that go on request), `operator` (members that come and go), [`run`].

pub mod forward;
pub(crate) mod mover;
pub mod net;
pub(crate) mod operator;
pub mod options;
pub mod run;
pub mod seat;
pub mod storm;
