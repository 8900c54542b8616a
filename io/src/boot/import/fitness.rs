//! Whether a database of etcd and the log beside it are a member that this version can be.
//!
//! Invariant: reads only. What etcd can be and detcd cannot yet – authentication – is refused by name, whether
//! the database says so or an entry that it has not applied yet.

use detcd_core::command::Command;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::membership::ConfChangeKind;
use detcd_core::raft::{Entry, EntryKind, Mark};

use super::source::Source;
use crate::boot::execute::{BootError, check_applied};
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
pub(super) async fn check<D: Disk>(disk: &D, places: &Places, source: &Source<D::File>) -> Result<(), BootError> {
    check_tables(source).await?;
    let applied = source.applied();
    let base = newest_mark(disk, places).await?;
    let recovered = wal::read(disk, &places.wal_dir, base).await?;
    check_applied(applied, base, &recovered.entries).map_err(|cause| source.unfit(cause))?;
    let unapplied: Vec<&Entry> = recovered.entries.iter().filter(|entry| applied.index < entry.index).collect();
    let own = recovered.metadata.member;
    let mut is_member = source.members().await?.iter().any(|member| member.id == own);
    for entry in unapplied {
        if let Some(what) = on_entry(entry, own, &mut is_member) {
            return Err(unbuilt(&format!("{what} (entry {} of its log)", entry.index)).into());
        }
    }
    if source.row(Bucket::MembersRemoved, own.to_string().as_bytes()).await?.is_some() {
        return Err(Refusal::Removed.into());
    }
    if !is_member {
        return Err(source.unfit(format!("the log is of member {own}, which the database does not name")).into());
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

/// What of an entry this version cannot carry out, if it cannot; and whether it says that `own` is a member.
fn on_entry(entry: &Entry, own: MemberId, is_member: &mut bool) -> Option<String> {
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
            Ok(change) => {
                let joins = matches!(change.kind, ConfChangeKind::AddVoter(_) | ConfChangeKind::AddLearner(_));
                *is_member |= joins && change.node == own;
                None
            }
            Err(error) => Some(error.to_string()),
        },
        EntryKind::ConfChangeV2 => Some("a joint membership change".to_owned()),
    }
}

fn unbuilt(what: &str) -> Refusal {
    Refusal::NotBuilt { what: format!("importing {what}"), reason: "import_not_built" }
}
