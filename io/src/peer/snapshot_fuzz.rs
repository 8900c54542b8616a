//! What the fuzzer calls, and the stable tests too: any bytes as the body of a snapshot that another member sends, all the way to a store that can take the present one's place.
//!
//! The invariants it checks, whatever the bytes: it ends, without a panic, in a store that holds what was sent, or in a typed refusal; of a refused one, of one that was cut off, and of one that the disk
//! refused, nothing is left; how the body is cut makes no difference, and nothing is set aside for what was only announced.
//!
//! The first byte chooses what goes wrong besides and how the body is cut. Since no message fits a database by chance, what is behind the message is tried once more with metas that check out, behind a
//! message that fits it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use detcd_core::ids::{MemberId, Term};
use detcd_core::raft::{Configuration, Mark, Message, Snapshot};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use super::arrival::{Announced, Head, NotTaken, accept};
use super::spool::{Spooler, spool};
use super::{Directory, codec};
use crate::bbolt;
use crate::boot::inspect::Places;
use crate::disk::{Disk, MemoryDisk};
use crate::driver::Carried;
use crate::driver::ask::Gauges;
use crate::fault::Fault;
use crate::installer::{Installer, Job, Received, UnderWay};
use crate::store::Store;
use crate::store::backend::{Backend, Committed, RawRow, Size, Slice, Visit};
use crate::store::batch::Batch;
use crate::store::buckets::Bucket;
use crate::store::leases::LeaseRules;
use crate::store::memory::{MemoryBackend, MemoryFrozen, Tables};
use crate::wal::fuzz::ready;

const LOCAL: MemberId = MemberId(1);
const REMOTE: MemberId = MemberId(2);
/// More turns than any body needs.
const TURNS_MAX: usize = 1 << 20;

/// What became of the body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Its message says no.
    NotTaken(NotTaken),
    /// It was cut off, or the disk refused it, or its store is not what its message says.
    Refused(String),
    /// A store with so many rows waits.
    Staged {
        /// Rows.
        rows: usize,
    },
}

/// What goes wrong besides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Trouble {
    Nothing,
    /// The connection is lost before the end.
    Cut,
    /// A sync fails at the end of the file.
    Spool,
    /// A sync fails when the store is made.
    Stage,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    trouble: Trouble,
    /// Bytes that come at once.
    step: usize,
}

/// Takes the bytes for a body, and answers for them as they are.
///
/// # Panics
/// If one of the promises above is broken: then there is a bug.
#[must_use]
pub fn receive(input: &[u8]) -> Outcome {
    let (first, body) = input.split_first().unwrap_or((&0, &[]));
    let trouble = [Trouble::Nothing, Trouble::Cut, Trouble::Spool, Trouble::Stage][usize::from(first % 4)];
    let plan = Plan { trouble, step: 16 + usize::from(first / 4) * 64 };
    let outcome = take(body, plan);
    let _ = take(&fitting(body), plan);
    outcome
}

/// A body of these bytes as a database, as far as they can be one, behind a message that fits it.
#[must_use]
pub fn body(database: &[u8]) -> Vec<u8> {
    let sealed = bbolt::fuzz::sealed(database, 4096);
    let snapshot = described(&sealed).unwrap_or_default();
    let message = codec::wire(REMOTE, LOCAL, &Message::Snapshot { term: snapshot.mark.term.max(Term(1)), snapshot });
    let head = message.encode_to_vec();
    [&(head.len() as u64).to_be_bytes()[..], &head, &sealed].concat()
}

fn fitting(bytes: &[u8]) -> Vec<u8> {
    let database = opened(bytes, bytes.len().max(1)).map_or_else(|_| Bytes::copy_from_slice(bytes), |(_, rest)| rest);
    body(&database)
}

/// Where a store stands, by the way that a start would find it out.
pub(crate) fn described(database: &[u8]) -> Option<Snapshot> {
    let store = ready(Store::load(MemoryBackend::holding(tables(database)?), rules())).ok()?;
    let (applied, configuration) = (store.applied(), Configuration::of(&store.membership()));
    Some(Snapshot { mark: Mark::new(applied.index, applied.term), configuration })
}

/// What the format's own reader finds.
fn tables(database: &[u8]) -> Option<Tables> {
    let bucket_of = |name: &Bytes| Bucket::ALL.into_iter().find(|bucket| bucket.name().as_bytes() == name.as_ref());
    let mut tables = Tables::new();
    for (name, rows) in bbolt::fuzz::found(database.to_vec()).ok()? {
        let bucket = bucket_of(&name)?;
        tables.extend(rows.into_iter().map(|(key, value)| ((bucket, key), value)));
    }
    Some(tables)
}

fn rules() -> LeaseRules {
    LeaseRules::new(Duration::from_millis(100), 10)
}

/// The message of a body that comes in such steps, and what is behind it.
fn opened(body: &[u8], step: usize) -> Result<(Announced, Bytes), NotTaken> {
    let directory = Directory::new(1, LOCAL);
    let mut head = Head::default();
    let mut chunks = body.chunks(step);
    loop {
        if let Some(message) = head.read()? {
            let rest = [&head.into_rest(), &chunks.flatten().copied().collect::<Vec<u8>>()[..]].concat();
            return Ok((accept(&directory, message)?, rest.into()));
        }
        head.feed(chunks.next().ok_or_else(|| head.ended())?);
        assert!(head.capacity() <= 1024 + 4 * body.len(), "nothing is set aside for what was only announced");
    }
}

fn take(body: &[u8], plan: Plan) -> Outcome {
    let whole = opened(body, body.len().max(1));
    assert_eq!(opened(body, plan.step), whole, "however it is cut");
    let (announced, database) = match whole {
        Ok(opened) => opened,
        Err(why) => return Outcome::NotTaken(why),
    };
    let mark = announced.snapshot.mark;
    let world = World::new();
    let result = world.receive(announced, &database, plan);
    assert!(plan.trouble == Trouble::Nothing || result.is_err(), "{plan:?}");
    let (member, snap) = (world.names(&world.places.member()), world.names(&world.places.snap()));
    match result {
        Ok(()) => {
            let waits = format!("lmdb.received-{:016x}-{:016x}", mark.index.0, mark.term.0);
            assert_eq!((member, snap.len()), (vec![OsString::from(waits), "snap".into()], 1));
            let shelved = world.shelf.shelved.lock().expect("one thread");
            let but_meta = |tables: &Tables| {
                let rows = tables.iter().filter(|((bucket, _), _)| *bucket != Bucket::Meta);
                rows.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
            };
            assert_eq!(Some(but_meta(&shelved)), tables(&database).map(|sent| but_meta(&sent)));
            Outcome::Staged { rows: shelved.len() }
        }
        Err(why) => {
            assert_eq!(member, ["snap"], "nothing is left of it: {why}");
            // What a failing disk keeps has a name that the next start removes.
            let is_passing =
                |name: &OsString| plan.trouble == Trouble::Stage && name.as_encoded_bytes().starts_with(b"tmp.");
            assert!(snap.iter().all(is_passing), "{snap:?} is left of it: {why}");
            Outcome::Refused(why)
        }
    }
}

/// A member's directory, and those who write there.
struct World {
    disk: MemoryDisk,
    places: Places,
    shelf: Shelf,
}

impl World {
    fn new() -> Self {
        let (disk, places) = (MemoryDisk::new(), Places::new(PathBuf::from("d"), None));
        ready(disk.create_dir_all(&places.snap())).expect("a disk in memory");
        let copy = places.member().join("lmdb.copy-0");
        let shelf = Shelf { memory: MemoryBackend::default(), disk: disk.clone(), copy, shelved: Arc::default() };
        Self { disk, places, shelf }
    }

    fn names(&self, directory: &Path) -> Vec<OsString> {
        ready(self.disk.list(directory)).expect("a disk in memory")
    }

    /// The way that a body goes: the spool, then the installer, each as a task of its own.
    fn receive(&self, announced: Announced, database: &Bytes, plan: Plan) -> Result<(), String> {
        let (spool, spooler) = spool(self.disk.clone(), &self.places.snap());
        let (jobs, todo) = mpsc::channel(1);
        let (done, staged) = mpsc::channel(1);
        let installer =
            Installer::new(self.shelf.clone(), self.disk.clone(), self.places.clone(), rules(), (todo, done));
        let work = self.take_in(announced, (database, plan), spooler, (jobs, staged));
        alongside(work, vec![Box::pin(spool.run()), Box::pin(installer.run())])
    }

    async fn take_in(
        &self,
        announced: Announced,
        (database, plan): (&Bytes, Plan),
        spooler: Spooler,
        (jobs, mut staged): (mpsc::Sender<Job>, mpsc::Receiver<Carried>),
    ) -> Result<(), String> {
        let Announced { from, message, snapshot } = announced;
        let mut incoming = spooler.begin(snapshot.mark.index).expect("nobody else is served");
        for chunk in database.chunks(plan.step) {
            incoming.write(Bytes::copy_from_slice(chunk)).await.map_err(|error| error.to_string())?;
        }
        match plan.trouble {
            Trouble::Cut => return Err("cut off".to_owned()),
            Trouble::Spool => self.disk.fail_syncs(1),
            Trouble::Nothing | Trouble::Stage => {}
        }
        let (path, _turn) = incoming.finish().await.map_err(|error| error.to_string())?;
        assert_eq!(self.disk.bytes(&path).as_deref(), Some(&database[..]));
        if plan.trouble == Trouble::Stage {
            self.disk.fail_syncs(1);
        }
        let (answer, answered) = oneshot::channel();
        let under_way = UnderWay::new(Arc::new(Gauges::default()));
        let received = Received { from, message, snapshot, path, answer, under_way };
        jobs.send(Job::Stage(received)).await.map_err(|_| "nobody takes it".to_owned())?;
        tokio::select! {
            biased;
            _ = staged.recv() => Ok(()),
            told = answered => Err(format!("{told:?}")),
        }
    }
}

/// Does the work while others do theirs, and lets them come to their end.
fn alongside<T>(work: impl Future<Output = T>, mut others: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) -> T {
    let context = &mut Context::from_waker(Waker::noop());
    let mut result = None;
    {
        let mut work = pin!(work);
        for _ in 0..TURNS_MAX {
            if let std::task::Poll::Ready(done) = work.as_mut().poll(context) {
                result = Some(done);
                break;
            }
            others.retain_mut(|other| other.as_mut().poll(context).is_pending());
        }
    }
    for _ in 0..4 {
        others.retain_mut(|other| other.as_mut().poll(context).is_pending());
    }
    assert!(others.is_empty(), "somebody waits for nobody");
    result.expect("it comes to an end")
}

/// A store in memory whose copies have a name on the disk, and go there when they are detached.
#[derive(Clone)]
struct Shelf {
    memory: MemoryBackend,
    disk: MemoryDisk,
    copy: PathBuf,
    shelved: Arc<Mutex<Tables>>,
}

impl Backend for Shelf {
    type Frozen = MemoryFrozen;

    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.memory.get(bucket, key)
    }

    fn scan(&self, slice: Slice<'_>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), Fault> {
        self.memory.scan(slice, visit)
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Fault> {
        self.memory.commit(batch).await
    }

    async fn size(&self) -> Result<Size, Fault> {
        self.memory.size().await
    }

    fn freeze(&self) -> Result<MemoryFrozen, Fault> {
        self.memory.freeze()
    }

    async fn load(&self, rows: &[RawRow]) -> Result<Committed, Fault> {
        self.memory.load(rows).await
    }

    async fn beside(&self) -> Result<Self, Fault> {
        self.disk.put(&self.copy, Vec::new());
        Ok(Self { memory: MemoryBackend::default(), ..self.clone() })
    }

    async fn replace(&self, copy: Self) -> Result<(), Fault> {
        self.memory.replace(copy.memory).await
    }

    async fn detach(&self, copy: Self, to: &Path) -> Result<(), Fault> {
        *self.shelved.lock().expect("one thread") = copy.memory.tables();
        self.disk.rename(&self.copy, to).await.map_err(Fault::disk("rename", to))
    }

    async fn discard(&self, _: Self) {
        let _ = self.disk.remove_file(&self.copy).await;
    }
}
