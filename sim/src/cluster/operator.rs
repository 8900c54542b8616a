//! An operator who changes who belongs to the cluster while everybody else works: members join, with a vote or without, are promoted, leave, and are replaced when their machines are lost.
//!
//! What came of a request shows in the members' own tables, not in its answer, which may be lost. At most one machine is lost at a time, and while one is, nothing else is asked for
//! but to remove its member; so a majority of every cluster that can come of it has its disks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use detcd_core::ids::MemberId;
use detcd_core::membership::Membership;
use detcd_io::boot::asked::Others;
use detcd_io::boot::identity::ClusterId;
use detcd_io::entropy::Entropy;
use detcd_server::member::Member;
use madsim::task::JoinHandle;
use madsim::time::Instant;
use tokio::sync::mpsc;
use tonic::Status;

use super::net::{Net, founding_ids};
use super::options::Operations;
use super::seat::peer_url;
use crate::options::{Options, chance, pick};
use crate::orders::Order;
use crate::record::Trace;
use crate::store::SimBackend;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request without an answer may still have an effect: longer than any message is under way.
const DOUBT: Duration = Duration::from_secs(20);
/// The time between two looks at the members' tables once everything is healed, and for how long they must be in order.
const LOOK: Duration = Duration::from_millis(300);
const IN_ORDER: Duration = Duration::from_secs(5);

/// What is at a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Berth {
    /// Nobody that belongs to the cluster.
    Vacant,
    /// This member.
    Holds(MemberId),
    /// This member's machine was lost.
    Lost(MemberId),
}

/// What the operator may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Deed {
    AddVoter,
    AddLearner,
    Promote,
    Remove,
    RemoveLeader,
    Lose,
    Update,
}

/// The operator.
pub(crate) struct Operator {
    net: Net,
    berths: Vec<Berth>,
    orders: Vec<mpsc::UnboundedSender<Order>>,
    founders: Vec<MemberId>,
    /// Who is known to have left for good.
    removed: BTreeSet<MemberId>,
    operations: Operations,
    /// Until when a request without an answer may still have an effect.
    doubt: Instant,
    dice: Entropy,
    trace: Trace,
}

type Answered = Result<(), Status>;

impl Operator {
    /// The one of a run.
    pub(crate) fn new(options: &Options, net: Net, orders: Vec<mpsc::UnboundedSender<Order>>, trace: Trace) -> Self {
        let founders = founding_ids(options.cluster.members);
        let holds = |place: usize| founders.get(place).map_or(Berth::Vacant, |id| Berth::Holds(*id));
        Self {
            berths: (0..net.places()).map(holds).collect(),
            net,
            orders,
            founders,
            removed: BTreeSet::new(),
            operations: options.cluster.operations,
            doubt: Instant::now(),
            dice: Entropy::seeded(options.seed ^ 0x6f70_6572),
            trace,
        }
    }

    /// Works until everything is healed, then brings the cluster in order, and says so.
    pub(crate) async fn run(mut self, is_healed: Arc<AtomicBool>, is_settled: Arc<AtomicBool>) {
        let millis = self.operations.change_millis;
        while millis > 0 && !is_healed.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(self.dice.draw(1, 2 * millis))).await;
            self.look_around();
            match self.lost() {
                Some(id) => self.remove(id).await,
                None => self.act().await,
            }
        }
        let mut since = Instant::now();
        while millis > 0 && since.elapsed() < IN_ORDER {
            tokio::time::sleep(LOOK).await;
            let was_in_order = self.look_around();
            if let Some(id) = self.lost() {
                self.remove(id).await;
            }
            if !was_in_order || self.lost().is_some() {
                since = Instant::now();
            }
        }
        is_settled.store(true, Ordering::Relaxed);
    }

    fn lost(&self) -> Option<MemberId> {
        self.berths.iter().find_map(|berth| if let Berth::Lost(id) = berth { Some(*id) } else { None })
    }

    /// The tables of all members that are there, and of which cluster.
    fn tables(&self) -> Vec<(ClusterId, Arc<Membership>)> {
        let housed = (0..self.berths.len()).filter_map(|place| self.net.housed(place));
        housed.map(|(member, _)| (ClusterId(member.identity().cluster), member.store().membership())).collect()
    }

    /// Learns what came of all requests. Starts who joined, and says whether there was nothing to do.
    fn look_around(&mut self) -> bool {
        let tables = self.tables();
        let mut was_in_order = true;
        self.removed.extend(tables.iter().flat_map(|(_, table)| table.removed()));
        for place in 0..self.berths.len() {
            if let Berth::Holds(id) | Berth::Lost(id) = self.berths[place]
                && self.removed.contains(&id)
            {
                self.berths[place] = Berth::Vacant;
                was_in_order = false;
            }
            if self.berths[place] != Berth::Vacant {
                continue;
            }
            let url = peer_url(place);
            let here = tables.iter().find_map(|(cluster, table)| {
                let mut present = table.iter().filter(|member| !self.removed.contains(&member.id));
                let id = present.find(|member| member.peer_urls.contains(&url))?.id;
                Some((id, Others { cluster: *cluster, members: table.iter().cloned().collect() }))
            });
            if let Some((id, others)) = here {
                self.trace.line(|| format!("operator: {id} joins at {place}"));
                self.berths[place] = Berth::Holds(id);
                let _ = self.orders[place].send(Order::Join(others));
                was_in_order = false;
            }
        }
        was_in_order
    }

    /// Somebody to ask.
    fn somebody(&mut self) -> Option<usize> {
        let there: Vec<usize> = (0..self.berths.len()).filter(|place| self.net.housed(*place).is_some()).collect();
        (!there.is_empty()).then(|| pick(&mut self.dice, &there))
    }

    async fn act(&mut self) {
        use Deed::{AddLearner, AddVoter, Lose, Promote, Remove, RemoveLeader, Update};
        let Some(asked) = self.somebody() else { return };
        let Some((member, _)) = self.net.housed(asked) else { return };
        let table = member.store().membership();
        let present = table.iter().filter(|member| !self.removed.contains(&member.id));
        let (voters, learners): (Vec<_>, Vec<_>) = present.partition(|member| !member.is_learner);
        if voters.is_empty() {
            // It joins, and has heard of nobody yet.
            return;
        }
        let vacant = (0..self.berths.len()).find(|place| self.berths[*place] == Berth::Vacant);
        let deeds = [AddVoter, AddLearner, Promote, Promote, Remove, RemoveLeader, Lose, Update];
        // Two at once: the leader must carry out one after the other.
        if chance(&mut self.dice, self.operations.at_once) {
            let id = voters[0].id;
            drop(self.ask(member.clone(), asked, Update, id, voters[0].peer_urls[0].clone()));
        }
        let deed = pick(&mut self.dice, &deeds);
        // One more may be gone than is known here.
        let doubtful = usize::from(Instant::now() < self.doubt);
        let may_remove = voters.len() > self.operations.voters_min + doubtful;
        let any = voters[self.dice.draw(0, voters.len() as u64 - 1) as usize];
        let (id, url) = match (deed, vacant) {
            (AddVoter | AddLearner, Some(place)) => (MemberId(0), peer_url(place)),
            (Promote, _) if !learners.is_empty() => (learners[0].id, String::new()),
            (Remove, _) if may_remove => (any.id, String::new()),
            (RemoveLeader, _) if may_remove => (member.asker().gauges().leader().unwrap_or(any.id), String::new()),
            (Lose, _) if voters.len() > 2 && self.bears_loss_of(any.id, &voters) => {
                return self.lose(any.id, &table, member.identity().cluster);
            }
            // Where a mistake would show most: a learner must stay one.
            (Update, _) => {
                let updated = learners.first().unwrap_or(&any);
                (updated.id, updated.peer_urls[0].clone())
            }
            _ => return,
        };
        let asking = self.ask(member, asked, deed, id, url);
        self.wait((deed, id), asking).await;
    }

    /// A request, as a task of the one who is asked.
    fn ask(
        &self,
        member: Member<SimBackend>,
        at: usize,
        deed: Deed,
        id: MemberId,
        url: String,
    ) -> JoinHandle<Answered> {
        let node = self.net.housed(at).expect("it was there just now").1;
        node.spawn(async move {
            let urls = [url];
            match deed {
                Deed::AddVoter => member.add_member(&urls, false).await.map(drop),
                Deed::AddLearner => member.add_member(&urls, true).await.map(drop),
                Deed::Promote => member.promote_member(id).await.map(drop),
                Deed::Remove | Deed::RemoveLeader => member.remove_member(id).await.map(drop),
                Deed::Update => member.update_member(id, &urls).await.map(drop),
                Deed::Lose => Ok(()),
            }
        })
    }

    async fn wait(&mut self, (deed, id): (Deed, MemberId), asking: JoinHandle<Answered>) {
        let answered = tokio::time::timeout(PATIENCE, asking).await;
        // Whoever was asked may be gone. The error would name the task, by a number that no seed decides.
        let answered = answered.map(Result::ok).ok().flatten();
        self.trace.line(|| format!("operator: {deed:?} {id}: {answered:?}"));
        match (deed, answered) {
            (Deed::Remove | Deed::RemoveLeader, Some(Ok(()))) => drop(self.removed.insert(id)),
            (_, Some(Ok(()))) => {}
            (_, Some(Err(_)) | None) => self.doubt = Instant::now() + DOUBT,
        }
    }

    async fn remove(&mut self, id: MemberId) {
        let Some(asked) = self.somebody() else { return };
        let Some((member, _)) = self.net.housed(asked) else { return };
        let asking = self.ask(member, asked, Deed::Remove, id, String::new());
        self.wait((Deed::Remove, id), asking).await;
    }

    /// Whether all other voters run and know of each other. A change holds from when it is applied, as in etcd: until all have applied the removal of one, it counts
    /// in the majority of those who have not, and the loss of another would be the second.
    fn bears_loss_of(&self, id: MemberId, voters: &[&detcd_core::membership::Member]) -> bool {
        let mut others = voters.iter().map(|voter| voter.id).filter(|other| *other != id);
        let knows_all = |other: MemberId| {
            let place = self.berths.iter().position(|berth| *berth == Berth::Holds(other))?;
            let (member, _) = self.net.housed(place)?;
            let table = member.store().membership();
            let known = table.iter().filter(|member| !member.is_learner).map(|member| member.id);
            Some(known.eq(voters.iter().map(|voter| voter.id)))
        };
        others.all(|other| knows_all(other) == Some(true))
    }

    /// Loses a member's machine, if nothing else is under way.
    fn lose(&mut self, id: MemberId, table: &Membership, cluster: u64) {
        let Some(place) = self.berths.iter().position(|berth| *berth == Berth::Holds(id)) else { return };
        if Instant::now() < self.doubt {
            return;
        }
        self.trace.line(|| format!("operator: {id} at {place} is lost"));
        self.berths[place] = Berth::Lost(id);
        let is_founder = self.founders.get(place) == Some(&id);
        let is_known = table.get(id).is_some_and(|member| !member.client_urls.is_empty());
        let others = Others { cluster: ClusterId(cluster), members: table.iter().cloned().collect() };
        let _ = self.orders[place].send(Order::Wipe((is_founder && is_known).then_some(others)));
    }
}
