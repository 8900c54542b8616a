//! Facts that hold between any two steps. Cheap ones always, the rest in builds that verify (`--cfg verify`).

use super::Raft;
use super::role::Role;

impl Raft {
    pub(super) fn check(&self) {
        let (base, last, commit) = (self.log.base(), self.log.last(), self.hard_state.commit);
        assert!(base.index <= commit);
        assert!(commit <= last.index);
        assert!(base.index <= self.applied || self.arrived.is_some() || self.applying == base.index);
        assert!(self.arrived.as_ref().is_none_or(|snapshot| snapshot.mark == base));
        assert!(self.applied <= self.applying);
        assert!(last.term <= self.hard_state.term);
        self.durable.check(&self.log, self.hard_state);
        match &self.role {
            Role::Follower(follower) => {
                assert!(follower.leader != Some(self.config.id));
                assert!(follower.asked.is_empty() || follower.leader.is_some());
            }
            Role::PreCandidate(_) => assert!(self.votes() && !self.is_sole_voter()),
            Role::Candidate(_) => assert_eq!(self.hard_state.vote, Some(self.config.id)),
            Role::Leader(leader) => {
                assert!(base.index <= self.applied);
                assert_eq!(self.hard_state.vote, Some(self.config.id));
                assert_eq!(last.term, self.hard_state.term, "a leader has appended in its term");
                assert!(self.votes());
                assert_eq!(
                    leader.members.len() + 1,
                    self.configuration.voters.len() + self.configuration.learners.len()
                );
                for progress in leader.members.values() {
                    assert!(progress.matched < progress.next);
                    assert!(progress.next <= last.index.next());
                }
            }
        }
        if cfg!(verify) {
            self.verify_log();
        }
    }

    fn verify_log(&self) {
        let mut before = self.log.base();
        for entry in self.log.entries() {
            assert_eq!(entry.index, before.index.next());
            assert!(before.term <= entry.term);
            before = entry.mark();
        }
    }
}
