//! Which operations contradict each other: those that the oracle names, and those that made or told the revisions that it names.

use crate::check::Violation;
use crate::check::durability::revision_of;
use crate::record::{Answer, History, Operation, Outcome};

/// As many as a reader can follow.
const SUSPECTS_MAX: usize = 8;

/// An operation that has to do with it.
#[derive(Clone, Debug)]
pub(super) struct Suspect<'a> {
    pub(super) operation: &'a Operation,
    /// How.
    pub(super) role: String,
    /// Whether the oracle names it.
    pub(super) is_first: bool,
}

/// Looks for them.
pub(super) fn find<'a>(violation: Option<&Violation>, history: &'a History) -> Vec<Suspect<'a>> {
    let Some(violation) = violation else { return Vec::new() };
    let evidence = &violation.evidence;
    let named = history.operations.iter().filter(|operation| evidence.operations.contains(&operation.invoked));
    let mut found: Vec<Suspect<'_>> =
        named.map(|operation| Suspect { operation, role: "breaks it".to_owned(), is_first: true }).collect();
    for revision in &evidence.revisions {
        let tells = |operation: &&Operation| told(operation) == Some(*revision);
        let others = || history.operations.iter().filter(tells);
        let others =
            || others().filter(|operation| found.iter().all(|suspect| suspect.operation.invoked != operation.invoked));
        let writer = others().find(|operation| has_written(operation));
        // The one that was told first: whoever began after it knows less than it should.
        let first = others().min_by_key(|operation| operation.completed);
        let role = |word: &str| format!("{word} revision {revision}");
        let more = match (writer, first) {
            (Some(writer), _) => Some((writer, role("wrote"))),
            (None, Some(first)) => Some((first, role("was told"))),
            (None, None) => None,
        };
        found.extend(more.map(|(operation, role)| Suspect { operation, role, is_first: false }));
    }
    found.truncate(SUSPECTS_MAX);
    found.sort_by_key(|suspect| suspect.operation.invoked);
    found
}

fn told(operation: &Operation) -> Option<i64> {
    match &operation.outcome {
        Outcome::Answered(answer) => Some(revision_of(answer)),
        _ => None,
    }
}

fn has_written(operation: &Operation) -> bool {
    use detcd_proto::etcdserverpb::response_op::Response;
    match &operation.outcome {
        Outcome::Answered(Answer::Put(_)) => true,
        Outcome::Answered(Answer::Delete(response)) => response.deleted > 0,
        Outcome::Answered(Answer::Txn(response)) => {
            response.responses.iter().any(|op| matches!(op.response, Some(Response::ResponsePut(_))))
        }
        _ => false,
    }
}
