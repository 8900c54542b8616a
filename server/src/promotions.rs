//! Promotions of learners that were decided here, counted for those who watch.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use detcd_core::reply::Rejected;
use tonic::Status;

use crate::status::{self, Refused};

/// How many went well, and how many did not, by etcd's own words.
type Told = (u64, BTreeMap<&'static str, u64>);

/// The counts.
#[derive(Debug, Default)]
pub struct Promotions(Mutex<Told>);

impl Promotions {
    /// What it came to. That another member leads is nobody's failure.
    pub fn count<T>(&self, outcome: &Result<T, Status>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(_) => told.0 += 1,
            Err(status) => {
                if let Some(why) = reason(status.message()) {
                    *told.1.entry(why).or_default() += 1;
                }
            }
        }
    }

    /// How many there were.
    #[must_use]
    pub fn read(&self) -> Told {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The reason as a label: a closed set, in the words that etcd has inside.
fn reason(said: &str) -> Option<&'static str> {
    let is = |refused| said == status::refused(refused).1;
    if is(Refused::NotLeader) {
        None
    } else if said == status::rejected(Rejected::MemberNotFound).1 {
        Some("membership: ID not found")
    } else if said == status::rejected(Rejected::MemberNotLearner).1 {
        Some("membership: can only promote a learner member")
    } else if is(Refused::LearnerNotReady) {
        Some(status::refused(Refused::LearnerNotReady).1)
    } else if is(Refused::NotEnoughStarted) {
        Some(status::refused(Refused::NotEnoughStarted).1)
    } else {
        Some("etcdserver: request timed out")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_a_closed_set_of_reasons() {
        let promotions = Promotions::default();
        promotions.count(&Ok(()));
        for refused in [Refused::NotLeader, Refused::LearnerNotReady, Refused::LearnerNotReady, Refused::Stopped] {
            promotions.count::<()>(&Err(refused.into()));
        }
        promotions.count::<()>(&Err(status::status(status::rejected(Rejected::MemberNotFound))));
        let (done, failed) = promotions.read();
        assert_eq!(done, 1);
        let failed: Vec<_> = failed.into_iter().collect();
        let behind = "etcdserver: can only promote a learner member which is in sync with leader";
        let expected = [(behind, 2), ("etcdserver: request timed out", 1), ("membership: ID not found", 1)];
        assert_eq!(failed, expected);
    }
}
