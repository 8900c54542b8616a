//! Whether a database of etcd and the log beside it are a member that this version can be.
//!
//! Invariant: reads only. What etcd can be and detcd cannot yet – authentication – is refused by name, whether
//! the database says so or an entry that it has not applied yet.

use detcd_core::command::Command;
use detcd_core::ids::{Index, Term};
use detcd_core::membership::Membership;
use detcd_core::raft::{Entry, EntryKind, Mark};

use super::source::Source;
use crate::boot::asked::Recovery;
use crate::boot::execute::{BootError, Start, check_applied};
use crate::boot::forced;
use crate::boot::inspect::Places;
use crate::boot::refusal::Refusal;
use crate::codec::entry::{decode, decode_conf_change};
use crate::disk::{Disk, File, exists};
use crate::fault::Fault;
use crate::store::buckets::{self, Bucket};
use crate::wal;

/// The database that counts: etcd's own or, if that is behind the log's newest mark, the one that a leader sent for it and that etcd would have put in its place.
pub(super) async fn choose<D: Disk>(disk: &D, places: &Places) -> Result<Source<D::File>, BootError> {
    let source = Source::open(disk, places.etcd_store()).await?;
    let base = newest_mark(disk, places).await?;
    let received = places.snap().join(format!("{:016x}.snap.db", base.index.0));
    let is_behind = source.applied().index < base.index;
    if is_behind && exists(disk, &received).await.map_err(Fault::disk("look for", &received))? {
        return Ok(Source::open(disk, received).await?);
    }
    Ok(source)
}

async fn newest_mark<D: Disk>(disk: &D, places: &Places) -> Result<Mark, BootError> {
    let marks = wal::marks(disk, &places.wal_dir).await?;
    Ok(marks.last().map_or(Mark::ZERO, |marked| marked.mark))
}

/// Checks a database against the log of its member.
pub(super) async fn check<D: Disk>(disk: &D, start: &Start, source: &Source<D::File>) -> Result<(), BootError> {
    let Start { places, asked, .. } = start;
    check_tables(source).await?;
    let applied = source.applied();
    let base = newest_mark(disk, places).await?;
    let recovered = wal::read(disk, &places.wal_dir, base).await?;
    check_applied(applied, base, &recovered.entries).map_err(|cause| source.unfit(cause))?;
    let own = recovered.metadata.member;
    if source.row(Bucket::MembersRemoved, own.to_string().as_bytes()).await?.is_some() {
        return Err(Refusal::Removed.into());
    }
    let mut membership = source.membership().await?;
    membership.limit_learners(asked.learners_max);
    let before = membership.clone();
    let mut is_named = before.get(own).is_some();
    for entry in recovered.entries.iter().filter(|entry| applied.index < entry.index) {
        if let Some(what) = on_entry(entry, &mut membership) {
            return Err(unbuilt(&format!("{what} (entry {} of its log)", entry.index)).into());
        }
        is_named |= membership.get(own).is_some();
    }
    if !is_named {
        return Err(source.unfit(format!("the log is of member {own}, which the database does not name")).into());
    }
    if asked.recovery == Recovery::ForceNewCluster {
        let known = recovered.hard_state.commit.max(applied.index);
        let (_, after) = forced::keep(&recovered.entries, (own, known), (applied.index, before))?;
        if after.get(own).is_none() {
            return Err(source.unfit(forced::not_alone(own)).into());
        }
    }
    Ok(())
}

async fn check_tables<F: File>(source: &Source<F>) -> Result<(), BootError> {
    if source.row(Bucket::Auth, buckets::AUTH_ENABLED).await?.is_some_and(|on| on.as_ref() == [1]) {
        return Err(unbuilt("a store with authentication enabled").into());
    }
    let applied = source.applied();
    if applied.term == Term(0) && applied.index != Index::ZERO {
        return Err(unbuilt("a database without a term, as etcd wrote it before 3.5,").into());
    }
    Ok(())
}

/// What of an entry this version cannot carry out, if it cannot. The members follow.
fn on_entry(entry: &Entry, membership: &mut Membership) -> Option<String> {
    match entry.kind {
        EntryKind::Normal if entry.payload.is_empty() => None,
        EntryKind::Normal => match decode(entry.payload.clone()) {
            Ok(request) => match request.command {
                Command::Auth(_) => Some("authentication".to_owned()),
                _ => None,
            },
            Err(error) => Some(error.to_string()),
        },
        EntryKind::ConfChange => match decode_conf_change(entry.payload.clone()) {
            Ok(change) => forced::follow(membership, change).err().map(|fault| fault.to_string()),
            Err(error) => Some(error.to_string()),
        },
        EntryKind::ConfChangeV2 => Some("a joint membership change".to_owned()),
    }
}

fn unbuilt(what: &str) -> Refusal {
    Refusal::NotBuilt { what: format!("importing {what}"), reason: "import_not_built" }
}
