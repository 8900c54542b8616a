//! Writing one key.
//!
//! The order of the checks is etcd's: a missing lease wins over a missing key. They look at the store as the command
//! found it; the write itself sees the draft. Invariant: a refused put leaves nothing behind.

use super::draft::Draft;
use super::view::View;
use crate::command::PutRequest;
use crate::ids::LeaseId;
use crate::reply::{PutReply, Rejected};

impl PutRequest {
    /// Whether the write keeps something of the present row.
    const fn keeps(&self) -> bool {
        self.ignore_value || self.ignore_lease
    }
}

/// Whether a put may run, judged by the store before the command.
pub(crate) fn check(view: &impl View, draft: &Draft, request: &PutRequest) -> Result<(), Rejected> {
    check_lease(view, request)?;
    if request.keeps() && view.key_at(&request.key, draft.base().at).is_none() {
        return Err(Rejected::KeyNotFound);
    }
    Ok(())
}

fn check_lease(view: &impl View, request: &PutRequest) -> Result<(), Rejected> {
    if request.lease != LeaseId(0) && view.lease(request.lease).is_none() {
        return Err(Rejected::LeaseNotFound);
    }
    Ok(())
}

/// Checks and runs a put that is a command of its own.
pub(crate) fn run_alone<V: View>(
    view: &V,
    draft: &mut Draft,
    request: &PutRequest,
) -> Result<Result<PutReply, Rejected>, V::Fault> {
    if let Err(rejected) = check_lease(view, request) {
        return Ok(Err(rejected));
    }
    run(view, draft, request)
}

/// Runs a put whose lease is known to exist.
///
/// A transaction may have deleted, a moment ago, the key of which it now keeps something (etcd lets that pass and dies):
/// the answer is the one for a missing key, and the whole transaction with it.
pub(crate) fn run<V: View>(
    view: &V,
    draft: &mut Draft,
    request: &PutRequest,
) -> Result<Result<PutReply, Rejected>, V::Fault> {
    let found = draft.find(view, &request.key);
    let (mut value, mut lease) = (request.value.clone(), request.lease);
    if request.keeps() {
        let Some(facts) = found.now else {
            return Ok(Err(Rejected::KeyNotFound));
        };
        let row = draft.row(view, facts.modified)?;
        if request.ignore_value {
            value = row.value;
        }
        if request.ignore_lease {
            lease = row.lease;
        }
    }
    draft.put(found, &request.key, value, lease);
    let prev = if request.prev_kv { found.now.map(|facts| facts.modified) } else { None };
    Ok(Ok(PutReply { revision: draft.revision(), prev }))
}
