//! etcd's database as a source of rows: its tables by name, the few facts that decide, and every row in the order of our tables.
//!
//! Invariant: rows leave as etcd stored them, but for one: the version of the layout is what etcd's own start would make of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::membership::{Member, Membership, Version};

use crate::bbolt::read::{self, Cursor, Reader};
use crate::codec::member;
use crate::disk::{Access, Disk, File};
use crate::fault::Fault;
use crate::store::batch::Applied;
use crate::store::buckets::{self, Bucket, RevisionKey};
use crate::store::layout_of;

/// Rows of the tables `meta`, `cluster`, `auth` and `members`; etcd has a handful.
const SMALL_ROWS_MAX: usize = 1_000;
/// Rows of `members_removed`: etcd never forgets whom it removed.
const REMOVED_ROWS_MAX: usize = 100_000;
/// What our tables take as a key.
const KEY_BYTES_MAX: usize = 511;

/// Rows of a table that is held in memory.
type Small = BTreeMap<Bytes, Bytes>;

/// An open database.
pub(super) struct Source<F> {
    reader: Reader<F>,
    path: PathBuf,
    trees: BTreeMap<Bucket, read::Bucket>,
    meta: Small,
    applied: Applied,
}

/// The rows of one table on their way.
pub(super) enum Rows<'a, F> {
    /// From the file.
    Stored(&'a Path, Bucket, Cursor<'a, F>),
    /// From memory.
    Held(std::collections::btree_map::Iter<'a, Bytes, Bytes>),
}

/// What was in a set of rows: two of them with one digest are the same.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Digest {
    rows: u64,
    bytes: u64,
    crc: u32,
}

impl Digest {
    pub(super) fn add(&mut self, bucket: Bucket, key: &[u8], value: &[u8]) {
        self.rows += 1;
        self.bytes += (key.len() + value.len()) as u64;
        self.crc = [bucket.name().as_bytes(), key, value].into_iter().fold(self.crc, crc32c::crc32c_append);
    }

    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) const fn hash(&self) -> u32 {
        self.crc
    }
}

impl<F: File> Source<F> {
    /// Opens the database at `path` and reads what decides.
    pub(super) async fn open<D: Disk<File = F>>(disk: &D, path: PathBuf) -> Result<Self, Fault> {
        let file = disk.open(&path, Access::Read).await.map_err(Fault::disk("open", &path))?;
        let reader = Reader::open(file, path.clone()).await?;
        let mut trees = BTreeMap::new();
        for tree in reader.buckets().await? {
            let Some(bucket) = Bucket::ALL.into_iter().find(|bucket| bucket.name().as_bytes() == tree.name.as_ref())
            else {
                let cause = format!("holds a bucket \"{}\", which etcd 3.7 does not have", tree.name.escape_ascii());
                return Err(Fault::Unfit { path, cause });
            };
            trees.insert(bucket, tree);
        }
        let mut source = Self { reader, path, trees, meta: Small::new(), applied: Applied::default() };
        source.meta = source.small(Bucket::Meta).await?;
        source.applied = Applied {
            index: Index(source.number(buckets::APPLIED_INDEX)?),
            term: Term(source.number(buckets::APPLIED_TERM)?),
        };
        let layout = source.layout().await?;
        source.meta.remove(buckets::STORAGE_VERSION);
        source.meta.extend(layout.map(|layout| (Bytes::from_static(buckets::STORAGE_VERSION), layout)));
        Ok(source)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the database has applied.
    pub(super) const fn applied(&self) -> Applied {
        self.applied
    }

    /// What tells this state of the file from any other.
    pub(super) fn identity(&self) -> String {
        let meta = self.reader.meta();
        format!("transaction {} with {} pages, applied {}\n", meta.txid, meta.high_water, self.applied.index)
    }

    /// The members, and those that left.
    pub(super) async fn membership(&self) -> Result<Membership, Fault> {
        let rows = self.small(Bucket::Members).await?;
        let decode = |(key, value): (&Bytes, &Bytes)| {
            member::decode(value).map_err(|error| self.unfit(format!("member {}: {error}", key.escape_ascii())))
        };
        let members = rows.iter().map(decode).collect::<Result<Vec<Member>, Fault>>()?;
        let rows = self.small(Bucket::MembersRemoved).await?;
        let parse = |key: &Bytes| {
            buckets::parse_member_key(key)
                .ok_or_else(|| self.unfit(format!("removed member {}: not an id", key.escape_ascii())))
        };
        let removed = rows.keys().map(parse).collect::<Result<Vec<MemberId>, Fault>>()?;
        Membership::restore(members, removed, None)
            .ok_or_else(|| self.unfit("members: an id is both a member and removed".to_owned()))
    }

    /// A row of a small table.
    pub(super) async fn row(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.small(bucket).await?.remove(key))
    }

    /// The rows of a table, in order.
    pub(super) fn rows(&self, bucket: Bucket) -> Rows<'_, F> {
        match self.trees.get(&bucket) {
            Some(tree) if bucket != Bucket::Meta => Rows::Stored(&self.path, bucket, self.reader.rows(tree)),
            _ => Rows::Held(if bucket == Bucket::Meta { self.meta.iter() } else { NOTHING.iter() }),
        }
    }

    pub(super) fn unfit(&self, cause: String) -> Fault {
        Fault::Unfit { path: self.path.clone(), cause }
    }

    async fn small(&self, bucket: Bucket) -> Result<Small, Fault> {
        let mut rows = Small::new();
        let Some(tree) = self.trees.get(&bucket) else { return Ok(rows) };
        let rows_max = if bucket == Bucket::MembersRemoved { REMOVED_ROWS_MAX } else { SMALL_ROWS_MAX };
        let mut cursor = self.reader.rows(tree);
        while let Some((key, value)) = cursor.next().await? {
            if rows.len() == rows_max {
                return Err(self.unfit(format!("more than {rows_max} rows in table {}", bucket.name())));
            }
            rows.insert(key, value);
        }
        Ok(rows)
    }

    fn number(&self, key: &'static [u8]) -> Result<u64, Fault> {
        let Some(bytes) = self.meta.get(key) else { return Ok(0) };
        let bytes = bytes.as_ref().try_into();
        bytes.map(u64::from_be_bytes).map_err(|_| self.unfit(format!("{}: not eight bytes", key.escape_ascii())))
    }

    /// The version of the layout from now on: that of the cluster, as etcd would write it soon after its start, whatever it was before.
    async fn layout(&self) -> Result<Option<Bytes>, Fault> {
        let version = |what: &str, bytes: &Bytes| {
            let parsed = std::str::from_utf8(bytes).ok().and_then(Version::parse);
            parsed.ok_or_else(|| self.unfit(format!("{what} \"{}\": not a version", bytes.escape_ascii())))
        };
        let stored = self.meta.get(buckets::STORAGE_VERSION);
        if let Some(stored) = stored.map(|bytes| version("storage version", bytes)).transpose()?
            && layout_of(stored) != Some(stored)
        {
            return Err(self.unfit(format!("version \"{stored}\" is not supported")));
        }
        let cluster = self.row(Bucket::Cluster, buckets::CLUSTER_VERSION).await?;
        let cluster = cluster.map(|bytes| version("cluster version", &bytes)).transpose()?;
        Ok(cluster.and_then(layout_of).map(|layout| Bytes::from(layout.to_string())))
    }
}

static NOTHING: Small = Small::new();

impl<F: File> Rows<'_, F> {
    /// The next row; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, Fault> {
        match self {
            Self::Held(rows) => Ok(rows.next().map(|(key, value)| (key.clone(), value.clone()))),
            Self::Stored(path, bucket, cursor) => {
                let Some((key, value)) = cursor.next().await? else { return Ok(None) };
                if let Some(cause) = wrong_key(*bucket, &key) {
                    return Err(Fault::Corrupt { file: path.to_path_buf(), offset: cursor.offset(), cause });
                }
                Ok(Some((key, value)))
            }
        }
    }
}

/// What is wrong with a key of a table, if anything is.
fn wrong_key(bucket: Bucket, key: &[u8]) -> Option<String> {
    if bucket == Bucket::Key && RevisionKey::parse(key).is_none_or(|(revision, _)| revision.main <= 0) {
        return Some(format!("a row of table key under \"{}\", which is no revision", shown(key)));
    }
    let is_long = KEY_BYTES_MAX < key.len();
    is_long.then(|| {
        format!("a row of table {} under a name of {} bytes, too long for this version", bucket.name(), key.len())
    })
}

fn shown(key: &[u8]) -> String {
    key[..key.len().min(32)].escape_ascii().to_string()
}
