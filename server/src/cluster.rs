//! Changing who belongs to the cluster, and who leads it, with the checks that etcd makes before it asks the log.
//!
//! The log decides: apply checks each change once more. What is refused here would have been carried out and would have cost the cluster its majority, or
//! would have hung.

use std::time::Duration;

use detcd_core::ids::MemberId;
use detcd_core::membership::{self, Membership};
use detcd_core::reply::{Rejected, Reply};
use detcd_io::boot::identity;
use detcd_io::boot::url::Url;
use detcd_io::clock::{Instant, wall_millis};
use detcd_io::codec::conf_change::{self, Proposed};
use detcd_io::store::backend::Backend;
use tonic::{Code, Status};

use crate::forward::Unheard;
use crate::member::Member;
use crate::status::{self, Refused};

/// How long a member must have been heard to count as connected, as in etcd.
const CONNECTED: Duration = Duration::from_secs(5);
/// How much of the leader's log a learner must have before it may vote, in percent.
const READY_PERCENT: u64 = 90;
/// The pause between two questions to a leader that did not answer.
const AGAIN: Duration = Duration::from_millis(50);

impl<B: Backend> Member<B> {
    /// Adds a member that is reached at `peer_urls`. Answers it and all members after the change.
    ///
    /// # Errors
    /// etcd's status.
    pub async fn add_member(
        &self,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<(membership::Member, Vec<membership::Member>), Status> {
        let urls = parsed(peer_urls)?;
        let seconds = (wall_millis() / 1000).to_string();
        let id = identity::member_id(&urls, &seconds);
        let peer_urls = urls.iter().map(ToString::to_string).collect();
        let added = membership::Member { id, peer_urls, is_learner, ..membership::Member::default() };
        self.check_addition(is_learner)?;
        let change = if is_learner { Proposed::AddLearner(&added) } else { Proposed::AddVoter(&added) };
        let members = self.change_members(id, change).await?;
        Ok((added, members))
    }

    /// Removes a member for good.
    ///
    /// # Errors
    /// etcd's status.
    pub async fn remove_member(&self, id: MemberId) -> Result<Vec<membership::Member>, Status> {
        self.check_removal(id)?;
        self.change_members(id, Proposed::Remove).await
    }

    /// Says where a member is reached from now on. Bad URLs are refused: etcd lets them through to the members, which then panic.
    ///
    /// # Errors
    /// etcd's status.
    pub async fn update_member(&self, id: MemberId, peer_urls: &[String]) -> Result<Vec<membership::Member>, Status> {
        let peer_urls = parsed(peer_urls)?.iter().map(ToString::to_string).collect();
        let updated = membership::Member { id, peer_urls, ..membership::Member::default() };
        self.change_members(id, Proposed::Update(&updated)).await
    }

    /// Gives a learner its vote. Only the leader knows how far it has come, so it is asked.
    ///
    /// # Errors
    /// etcd's status.
    pub async fn promote_member(&self, id: MemberId) -> Result<Vec<membership::Member>, Status> {
        match self.promote_as_leader(id).await {
            Err(status) if status.message() == status::refused(Refused::NotLeader).1 => {}
            answered => return answered,
        }
        let asking = async {
            loop {
                let urls = self.leader_urls().await;
                match self.forward().promote(urls, id.0).await {
                    Ok(members) => return Ok(members),
                    Err(Unheard::Refused(text)) => return Err(refused_by_leader(text)),
                    Err(Unheard::Again) => tokio::time::sleep(AGAIN).await,
                }
            }
        };
        tokio::time::timeout(self.limits().timeout, asking).await.unwrap_or_else(|_| Err(Refused::Timeout.into()))
    }

    /// Gives a learner its vote, if this member leads.
    ///
    /// # Errors
    /// etcd's status; [`Refused::NotLeader`] if another one leads.
    pub async fn promote_as_leader(&self, id: MemberId) -> Result<Vec<membership::Member>, Status> {
        let outcome = self.try_promote(id).await;
        self.counts().promotions.count(&outcome);
        outcome
    }

    async fn try_promote(&self, id: MemberId) -> Result<Vec<membership::Member>, Status> {
        let progress = self.asker().progress(id).await.map_err(|why| status::status(status::unanswered(why)))?;
        let Some(progress) = progress else { return Err(Refused::NotLeader.into()) };
        let Some(matched) = progress.matched else {
            return Err(status::status(status::rejected(Rejected::MemberNotFound)));
        };
        if u128::from(matched.0) * 100 < u128::from(progress.own.0) * u128::from(READY_PERCENT) {
            return Err(Refused::LearnerNotReady.into());
        }
        if self.limits().strict_reconfig && !may_promote(&self.store().membership()) {
            return Err(Refused::NotEnoughStarted.into());
        }
        self.change_members(id, Proposed::Promote).await
    }

    /// Makes a member the leader, and waits until it is. Only the present leader does it.
    ///
    /// # Errors
    /// etcd's status; or the member stops.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), Status> {
        let gauges = self.asker().gauges();
        if gauges.leader() != Some(self.identity().member) {
            return Err(Refused::NotLeader.into());
        }
        if self.store().membership().get(to).is_none_or(|member| member.is_learner) {
            return Err(Refused::BadTransferee.into());
        }
        self.asker().transfer(to).map_err(|why| status::status(status::unanswered(why)))?;
        while gauges.leader() != Some(to) {
            if self.asker().is_closed() {
                return Err(Refused::Stopped.into());
            }
            tokio::time::sleep(self.store().lease_rules().tick).await;
        }
        Ok(())
    }

    /// Hands leadership to the voter that is connected longest, before this member stops. Best effort, within the request timeout.
    pub async fn retire(&self) {
        let own = self.identity().member;
        if self.asker().gauges().leader() != Some(own) {
            return;
        }
        let others = voters(&self.store().membership()).into_iter().filter(|&id| id != own);
        let connected = others.filter_map(|id| Some((self.transport().active_since(id)?, id)));
        let Some((_, to)) = connected.min() else { return };
        let moved = tokio::select! {
            biased;
            moved = tokio::time::timeout(self.limits().timeout, self.move_leader(to)) => moved.map(|moved| moved.map(|()| to)),
            () = self.deposed() => Ok(self.heir()),
        };
        match moved {
            Ok(Ok(to)) => tracing::info!(to = %to, "leadership was handed over"),
            Ok(Err(status)) => tracing::warn!(%status, "leadership was not handed over"),
            Err(_) => tracing::warn!("leadership was not handed over in time"),
        }
    }

    /// Waits until another member leads, or nobody has for as long as an election takes: then nobody is left to take the leadership.
    async fn deposed(&self) {
        let election = Duration::from_millis(self.store().lease_rules().pace.extension);
        let mut last = Instant::now();
        loop {
            match self.asker().gauges().leader() {
                Some(leader) if leader == self.identity().member => last = Instant::now(),
                Some(_) => return,
                None if election <= last.elapsed() => return,
                None => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Who leads now, whoever was asked to.
    fn heir(&self) -> Result<MemberId, Status> {
        self.asker().gauges().leader().ok_or_else(|| Refused::NoLeader.into())
    }

    /// Where the leader is reached by other members; waits until there is one.
    pub(crate) async fn leader_urls(&self) -> Vec<String> {
        loop {
            let leader = self.asker().gauges().leader();
            let urls = leader.and_then(|id| self.store().membership().get(id).map(|member| member.peer_urls.clone()));
            match urls {
                Some(urls) => return urls,
                None => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Whether the majority survives that one more member joins and does not come.
    fn check_addition(&self, is_learner: bool) -> Result<(), Refused> {
        let now = self.store().membership();
        if !self.limits().strict_reconfig {
            return Ok(());
        }
        if !is_learner && !may_add_voter(&now) {
            return Err(Refused::NotEnoughStarted);
        }
        let voters = voters(&now);
        if 1 < voters.len() && self.connected(&voters) < quorum(voters.len() + 1) {
            return Err(Refused::Unhealthy);
        }
        Ok(())
    }

    /// Whether the majority survives without this member. Nobody counts on one that is down, nor on a learner.
    fn check_removal(&self, id: MemberId) -> Result<(), Refused> {
        let now = self.store().membership();
        if !self.limits().strict_reconfig || now.get(id).is_some_and(|member| member.is_learner) {
            return Ok(());
        }
        if !may_remove_voter(&now, id) {
            return Err(Refused::NotEnoughStarted);
        }
        let is_down = id != self.identity().member && self.transport().active_since(id).is_none();
        let voters = voters(&now);
        if !is_down && self.connected(&voters) < 2 + (voters.len() - 1) / 2 {
            return Err(Refused::Unhealthy);
        }
        Ok(())
    }

    async fn change_members(&self, id: MemberId, change: Proposed<'_>) -> Result<Vec<membership::Member>, Status> {
        let answer = self.propose_change(|ticket| conf_change::encode(ticket, id, &change)).await?;
        match answer.reply.map_err(|why| status::status(status::rejected(why)))? {
            Reply::Members(members) => Ok(members),
            reply => unreachable!("a membership change is answered by the members, not by {reply:?}"),
        }
    }

    /// How many of these members, this one included, have been connected long enough to count on.
    fn connected(&self, members: &[MemberId]) -> usize {
        let long_ago = |since: Instant| CONNECTED < since.elapsed();
        let counts = |id: &&MemberId| {
            **id == self.identity().member || self.transport().active_since(**id).is_some_and(long_ago)
        };
        members.iter().filter(counts).count()
    }
}

fn parsed(urls: &[String]) -> Result<Vec<Url>, Status> {
    let parsed: Result<Vec<Url>, _> = urls.iter().map(|url| Url::parse(url)).collect();
    let mut parsed = parsed.map_err(|_| Status::from(Refused::BadMemberUrls))?;
    if parsed.is_empty() {
        return Err(Refused::BadMemberUrls.into());
    }
    parsed.sort();
    Ok(parsed)
}

const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

fn voters(membership: &Membership) -> Vec<MemberId> {
    membership.iter().filter(|member| !member.is_learner).map(|member| member.id).collect()
}

/// Voters that have published a name, without `but`, and all voters without it.
fn started(membership: &Membership, but: Option<MemberId>) -> (usize, usize) {
    let voters = || membership.iter().filter(|member| !member.is_learner && Some(member.id) != but);
    (voters().filter(|member| !member.name.is_empty()).count(), voters().count())
}

/// Whether the started voters stay a majority if one more joins. The second member of a cluster of one may always come, to restore its data.
fn may_add_voter(membership: &Membership) -> bool {
    let (started, voters) = started(membership, None);
    (started, voters) == (1, 1) || quorum(voters + 1) <= started
}

fn may_remove_voter(membership: &Membership, id: MemberId) -> bool {
    let (started, voters) = started(membership, Some(id));
    voters != 0 && quorum(voters) <= started
}

/// The status of what the leader said of a promotion.
fn refused_by_leader(text: String) -> Status {
    let missing = status::rejected(Rejected::MemberNotFound);
    if text == missing.1 { status::status(missing) } else { Status::new(Code::FailedPrecondition, text) }
}

fn may_promote(membership: &Membership) -> bool {
    let (started, voters) = started(membership, None);
    // The one to be promoted counts as started.
    quorum(voters + 1) <= started + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voters by whether they have started.
    fn cluster(voters: &[bool]) -> Membership {
        let member = |(id, &is_started): (usize, &bool)| membership::Member {
            id: MemberId(id as u64 + 1),
            name: if is_started { "n".to_owned() } else { String::new() },
            ..membership::Member::default()
        };
        Membership::restore(voters.iter().enumerate().map(member), [], None).expect("sound")
    }

    #[test]
    fn the_started_stay_a_majority() {
        let cases: [(&[bool], bool, bool, bool); 6] = [
            (&[true], true, false, true),
            (&[true, true], true, true, true),
            (&[true, false], false, true, true),
            (&[true, true, true], true, true, true),
            (&[true, true, false], false, true, true),
            (&[true, false, false], false, false, false),
        ];
        for (voters, add, remove_last, promote) in cases {
            let cluster = cluster(voters);
            let last = MemberId(voters.len() as u64);
            let may = (may_add_voter(&cluster), may_remove_voter(&cluster, last), may_promote(&cluster));
            assert_eq!(may, (add, remove_last, promote), "{voters:?}");
        }
    }

    #[test]
    fn urls_must_be_reachable_places() {
        for bad in [&["127.0.0.1"][..], &["http://127.0.0.1:1/path"], &[]] {
            let bad: Vec<String> = bad.iter().map(|&url| url.to_owned()).collect();
            assert!(parsed(&bad).is_err(), "{bad:?}");
        }
    }
}
