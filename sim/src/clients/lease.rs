//! Clients that hold leases: one each at a time, renewed well before its end, or at its very end, or not at all, with keys that the others write, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use detcd_io::entropy::Entropy;
use detcd_proto::etcdserverpb as pb;
use tonic::{Code, Status};

use super::keys::Keys;
use super::link::Link;
use super::{NO_ANSWER, PATIENCE, failed_under};
use crate::film::Scene;
use crate::leases::{Did, LeaseRecorder, Look, Saw, now};
use crate::options::{Options, chance, pick};
use crate::record::{Answer, Ask, Outcome, Recorder, Trace};

/// The first number of such a client.
pub const FIRST: u64 = 100;

/// How a client treats its lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Habit {
    /// Renews it at a third of its time.
    Holds,
    /// Renews it within moments of its end, before or after.
    Edges,
    /// Leaves it alone.
    Leaves,
    /// Ends it.
    Revokes,
}

/// One client.
pub struct Holder {
    id: u64,
    link: Link,
    dice: Entropy,
    keys: Keys,
    has_quota: bool,
    values: u64,
    /// The revision of its last put.
    known: i64,
    recorder: Recorder,
    leases: LeaseRecorder,
    trace: Trace,
}

impl Holder {
    /// Client `id` of a run.
    #[must_use]
    pub fn new(
        id: u64,
        link: Link,
        options: &Options,
        (recorder, leases): (Recorder, LeaseRecorder),
        trace: Trace,
    ) -> Self {
        let seed = options.seed;
        let dice = Entropy::seeded(seed.wrapping_add(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        Self {
            id,
            link,
            dice,
            keys: Keys::of(&options.load),
            has_quota: options.member.quota_bytes > 0,
            values: 0,
            known: 0,
            recorder,
            leases,
            trace,
        }
    }

    /// Holds one lease after the other until it is told to end.
    pub async fn run(mut self, is_over: Arc<AtomicBool>) {
        let mut count = 0;
        while !is_over.load(Ordering::Relaxed) {
            count += 1;
            let id = (self.id * 1_000 + count).cast_signed();
            let id = if chance(&mut self.dice, 200) { -id } else { id };
            self.hold(id, &is_over).await;
            tokio::time::sleep(Duration::from_millis(self.dice.draw(0, 500))).await;
        }
    }

    async fn hold(&mut self, id: i64, is_over: &AtomicBool) {
        let ttl = pick(&mut self.dice, &[1, 2, 2, 3, 5, 8, 15, 25]);
        let habit = pick(&mut self.dice, &[Habit::Holds, Habit::Edges, Habit::Edges, Habit::Leaves, Habit::Revokes]);
        let granted = self.ask(id, Did::Grant(ttl)).await;
        for _ in 0..self.dice.draw(0, 3) {
            self.ask(id, Did::Attach).await;
        }
        if chance(&mut self.dice, 500) {
            let key = self.key();
            self.put(key, 0).await;
        }
        let millis = ttl.max(2).cast_unsigned() * 1_000;
        if granted == Saw::Done {
            self.treat(id, habit, millis).await;
        }
        // It has to go in the end, and be there until then.
        for _ in 0..200 {
            let pause = self.dice.draw(50, 500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let did = pick(&mut self.dice, &[Did::Attach, Did::List, Did::Look, Did::Look, Did::Look, Did::Look]);
            let seen = self.ask(id, did).await;
            if seen == Saw::Gone || is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    async fn treat(&mut self, id: i64, habit: Habit, millis: u64) {
        let renewals = self.dice.draw(1, 4);
        match habit {
            Habit::Leaves => {}
            Habit::Revokes => {
                let pause = self.dice.draw(0, millis);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                self.ask(id, Did::Revoke).await;
            }
            Habit::Holds => {
                for _ in 0..renewals {
                    tokio::time::sleep(Duration::from_millis(millis / 3)).await;
                    self.ask(id, Did::Renew).await;
                }
            }
            Habit::Edges => {
                for _ in 0..renewals {
                    let pause = (millis + self.dice.draw(0, 250)).saturating_sub(50);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    if self.ask(id, Did::Renew).await == Saw::Gone {
                        return;
                    }
                }
            }
        }
    }

    async fn ask(&mut self, id: i64, did: Did) -> Saw {
        let sent = now();
        let client = self.id;
        self.trace.line(|| format!("holder {client} asks: {did:?} {id}"));
        let saw = match did {
            Did::Attach => {
                let key = self.key();
                self.put(key, id).await
            }
            did => match tokio::time::timeout(PATIENCE, self.send(id, did)).await {
                Ok(Ok(saw)) => saw,
                Ok(Err(status)) if status.code() == Code::NotFound => Saw::Gone,
                Ok(Err(_)) | Err(_) => Saw::Unknown,
            },
        };
        self.trace.line(|| format!("holder {client} got: {did:?} {id} {saw:?}"));
        self.leases.end(id, did, sent, saw);
        saw
    }

    async fn send(&self, id: i64, did: Did) -> Result<Saw, Status> {
        Ok(match did {
            Did::Grant(ttl) => {
                let request = pb::LeaseGrantRequest { id, ttl };
                let granted: pb::LeaseGrantResponse = self.link.lease_grant(&request).await?;
                assert_eq!((granted.id, granted.ttl), (id, ttl.max(2)), "what was granted is what was asked for");
                Saw::Done
            }
            Did::Renew => {
                let answer = self.link.renew(pb::LeaseKeepAliveRequest { id }).await?;
                let Some(answer) = answer else { return Ok(Saw::Unknown) };
                assert_eq!(answer.id, id, "each renewal has its own answer");
                if answer.ttl == 0 { Saw::Gone } else { Saw::Alive(answer.ttl) }
            }
            Did::Look => {
                let request = pb::LeaseTimeToLiveRequest { id, keys: true };
                let response = self.link.lease_time_to_live(&request).await?;
                if response.ttl < 0 {
                    return Ok(Saw::Gone);
                }
                let revision = response.header.map_or(0, |header| header.revision);
                let keys = response.keys.into_iter().collect();
                self.leases.looked(Look { id, granted: response.granted_ttl, keys, revisions: (self.known, revision) });
                Saw::Alive(response.ttl)
            }
            Did::List => {
                let response = self.link.lease_leases(&pb::LeaseLeasesRequest {}).await?;
                let mut ids: Vec<i64> = response.leases.iter().map(|lease| lease.id).collect();
                ids.sort_unstable();
                assert!(ids.is_sorted_by(|left, right| left < right), "each lease is listed once");
                // A member lists what it knows, and may be behind others.
                match ids.binary_search(&id) {
                    _ if self.link.places() > 1 => Saw::Unknown,
                    Ok(_) => Saw::Done,
                    Err(_) => Saw::Gone,
                }
            }
            Did::Revoke => {
                self.link.lease_revoke(&pb::LeaseRevokeRequest { id }).await?;
                Saw::Done
            }
            Did::Attach => unreachable!("a put is an operation of its own"),
        })
    }

    fn key(&mut self) -> Bytes {
        self.keys.draw(&mut self.dice)
    }

    /// Writes a key, which is an operation like any other, too.
    async fn put(&mut self, key: Bytes, lease: i64) -> Saw {
        self.values += 1;
        let value = Bytes::from(format!("{}:{};", self.id, self.values));
        let request = pb::PutRequest { key, value, lease, ..pb::PutRequest::default() };
        let (ask, invoked, client) = (Ask::Put(request.clone()), self.recorder.begin(), self.id);
        self.trace.show(|| Scene::Asked { client, invoked, text: ask.sketch() });
        let outcome = match tokio::time::timeout(PATIENCE, self.link.put(&request)).await {
            Ok(Ok(response)) => {
                self.known = response.header.as_ref().map_or(0, |header| header.revision);
                Outcome::Answered(Answer::Put(response))
            }
            Ok(Err(status)) => failed_under(self.has_quota, &status),
            Err(_) => Outcome::Uncertain(NO_ANSWER.to_owned()),
        };
        let saw = match &outcome {
            Outcome::Answered(_) => Saw::Done,
            Outcome::Rejected(Code::NotFound, _) => Saw::Gone,
            _ => Saw::Unknown,
        };
        self.trace.show(|| Scene::Answered { invoked, text: outcome.sketch() });
        self.recorder.end((client, self.link.place()), ask, invoked, outcome);
        saw
    }
}
