//! The log on the machine's own disk. Whatever is cut, it opens, says what some prefix of its records says – with all that was synced before – and takes the next entry.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use detcd_core::ids::{Index, MemberId, Term};
use detcd_core::raft::{Entry, EntryKind, HardState, Mark, Sync, Write};
use detcd_io::disk::RealDisk;
use detcd_io::entropy::Entropy;
use detcd_io::wal::fuzz::ready;
use detcd_io::wal::{Marked, Metadata, Options, Recovered, Wal, purge, read};

use super::recorder::{Call, Recorder};
use super::{Effort, ensure, judge, judge_from, new_root, real};

const METADATA: Metadata = Metadata { member: MemberId(1), cluster: 2 };

#[derive(Clone, Debug)]
enum Record {
    Entry(Entry),
    State(HardState),
    Mark(Mark),
}

/// What records say, the plain way.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Said {
    entries: Vec<Entry>,
    state: HardState,
    /// The newest that may be started from.
    mark: Mark,
}

struct Life {
    calls: Vec<Call>,
    records: Vec<Record>,
    /// In place of what was acknowledged, how many records that is.
    synced: Vec<usize>,
}

struct Living {
    wal: Wal<RealDisk>,
    directory: PathBuf,
    entropy: Entropy,
    recorder: Recorder,
    said: Said,
    records: Vec<Record>,
    synced: Vec<usize>,
}

impl Said {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => {
                self.entries.retain(|earlier| earlier.index < entry.index);
                self.entries.push(entry.clone());
            }
            Record::State(state) => self.state = *state,
            Record::Mark(mark) => self.mark = *mark,
        }
    }

    /// What a start finds: a mark, and what lies behind it.
    fn found(&self) -> Self {
        let behind = self.entries.iter().filter(|entry| self.mark.index < entry.index);
        Self { entries: behind.cloned().collect(), ..self.clone() }
    }

    fn last(&self) -> Index {
        self.entries.last().map_or(Index::ZERO, |entry| entry.index)
    }
}

fn options(directory: &Path) -> Options {
    Options { segment_bytes: 8 << 10, ..Options::new(directory) }
}

fn entry(term: u64, index: u64, payload: Vec<u8>) -> Entry {
    Entry { term: Term(term), index: Index(index), kind: EntryKind::Normal, payload: Bytes::from(payload) }
}

impl Living {
    fn begin(root: &Path, entropy: Entropy) -> Self {
        let recorder = Recorder::start(root);
        let directory = root.join("wal");
        let state = HardState { term: Term(1), vote: None, commit: Index(2) };
        let entries = vec![entry(1, 1, vec![1; 30]), entry(1, 2, vec![2; 30])];
        let records: Vec<Record> = entries.iter().cloned().map(Record::Entry).chain([Record::State(state)]).collect();
        let founding = Write { snapshot: None, entries, hard_state: Some(state), sync: Sync::Required };
        let wal = ready(Wal::create(RealDisk, options(&directory), METADATA, &founding)).unwrap();
        recorder.acknowledge(0);
        let mut said = Said::default();
        records.iter().for_each(|record| said.take(record));
        let synced = vec![records.len()];
        Self { wal, directory, entropy, recorder, said, records, synced }
    }

    fn say(&mut self, record: Record) {
        self.said.take(&record);
        self.records.push(record);
    }

    fn acknowledge(&mut self) {
        self.recorder.acknowledge(self.synced.len());
        self.synced.push(self.records.len());
    }

    /// Entries, at times over others that were never committed, and a state.
    fn append(&mut self) {
        let Said { state: HardState { term: Term(term), commit, .. }, .. } = self.said;
        let is_new_term = self.entropy.draw(0, 7) == 0;
        let term = term + u64::from(is_new_term);
        let last = self.said.last().0;
        let after = if is_new_term { self.entropy.draw(commit.0, last) } else { last };
        let count = self.entropy.draw(0, 3);
        let entries: Vec<Entry> = (after + 1..=after + count)
            .map(|index| {
                let length = self.entropy.draw(0, if index % 5 == 0 { 6_000 } else { 400 });
                entry(term, index, vec![index as u8; length as usize])
            })
            .collect();
        entries.iter().for_each(|entry| self.say(Record::Entry(entry.clone())));
        // A vote is durable before it counts; a commit index alone may wait.
        let vote = Some(MemberId(term % 3 + 1));
        let commit = Index(self.entropy.draw(commit.0, self.said.last().0));
        let state = HardState { term: Term(term), vote, commit };
        self.say(Record::State(state));
        let sync = if count == 0 { Sync::NotNeeded } else { Sync::Required };
        self.wal.append(&Write { snapshot: None, entries, hard_state: Some(state), sync });
        ready(self.wal.sync()).unwrap();
        if self.wal.pending_bytes() == 0 {
            self.acknowledge();
        }
        ready(self.wal.cut_if_full()).unwrap();
    }

    fn mark(&mut self) {
        let index = self.said.state.commit;
        let Some(entry) = self.said.entries.iter().find(|entry| entry.index == index) else { return };
        let mark = Mark { index, term: entry.term };
        if self.said.mark == mark {
            return;
        }
        self.say(Record::Mark(mark));
        ready(self.wal.save_mark(&Marked { mark, conf_state: None })).unwrap();
        self.acknowledge();
        ready(purge(&RealDisk, &self.directory, 1, index)).unwrap();
    }
}

fn live(seed: u64, steps: usize) -> Life {
    let root = new_root();
    let mut living = Living::begin(&real(&root), Entropy::seeded(seed));
    for _ in 0..steps {
        if living.entropy.draw(0, 11) == 0 { living.mark() } else { living.append() }
    }
    let Living { wal, recorder, records, synced, .. } = living;
    ready(wal.close()).unwrap();
    Life { calls: recorder.finish(), records, synced }
}

fn sayings(life: &Life, acknowledged: Option<usize>) -> Vec<Said> {
    let (first, last) = match acknowledged {
        None => (life.synced[0], life.synced[0]),
        Some(number) => (life.synced[number], life.synced.get(number + 1).copied().unwrap_or(life.records.len())),
    };
    let mut said = Said::default();
    let mut all = vec![said.clone()];
    for record in &life.records[..last] {
        said.take(record);
        all.push(said.clone());
    }
    all.split_off(first)
}

/// Opens what a crash left. Behind what was acknowledged there may be a part of what was under way.
fn check(life: &Life, root: &Path, acknowledged: Option<usize>, is_believed: bool) -> Result<(), String> {
    let directory = root.join("wal");
    if !directory.is_dir() {
        return ensure(acknowledged.is_none(), || "the log is gone".to_owned());
    }
    let sayings = sayings(life, acknowledged);
    // A start believes the newest `.snap` file, which may be there before the mark in the log, or be lost.
    let believed = if is_believed { sayings[sayings.len() - 1].mark } else { Mark::ZERO };
    let opened = ready(Wal::open_newest(RealDisk, options(&directory), believed, None));
    let (mut wal, recovered, mark) = opened.map_err(|error| error.to_string())?;
    let found = Said { entries: recovered.entries, state: recovered.hard_state, mark };
    let is_lawful = sayings.iter().any(|said| said.found() == found);
    ensure(is_lawful, || format!("acknowledged was {:?}, found is {found:?}", sayings[0].found()))?;
    let last = found.entries.last().map_or(mark.index, |entry| entry.index);
    let next = entry(found.state.term.0, last.0 + 1, vec![9; 700]);
    wal.append(&Write { snapshot: None, entries: vec![next.clone()], hard_state: None, sync: Sync::Required });
    ready(wal.sync()).map_err(|fault| fault.to_string())?;
    drop(wal);
    let read = ready(read(&RealDisk, &directory, mark)).map_err(|error| format!("written once more: {error}"))?;
    let is_whole = read.entries.last() == Some(&next) && read.entries.len() == found.entries.len() + 1;
    ensure(is_whole, || "the next entry is not there".to_owned())
}

/// Opens what a crash left, goes on, and has it cut short once more, before and after each call that this makes. What was opened once stays what it is. Says how many images that made.
fn check_again(life: &Life, root: &Path, acknowledged: Option<usize>, entropy: &mut Entropy) -> Result<usize, String> {
    let directory = root.canonicalize().unwrap().join("wal");
    if !directory.is_dir() {
        return Ok(0);
    }
    let lawful: Vec<Said> = sayings(life, acknowledged).iter().map(Said::found).collect();
    let (recorder, found_calls) = Recorder::take_over(root);
    let open = |directory: &Path| {
        let opened = ready(Wal::open_newest(RealDisk, options(directory), Mark::ZERO, None));
        let (wal, Recovered { entries, hard_state: state, .. }, mark) = opened.map_err(|error| error.to_string())?;
        Ok::<_, String>((wal, Said { entries, state, mark }))
    };
    let (mut wal, found) = open(&directory)?;
    recorder.acknowledge(0);
    let last = found.entries.last().map_or(found.mark.index, |entry| entry.index);
    let next = entry(found.state.term.0, last.0 + 1, vec![9; 700]);
    wal.append(&Write { snapshot: None, entries: vec![next.clone()], hard_state: None, sync: Sync::Required });
    ready(wal.sync()).map_err(|fault| fault.to_string())?;
    recorder.acknowledge(1);
    drop(wal);
    let calls = recorder.finish();
    let mut longer = found.clone();
    longer.entries.push(next);
    let judged = judge_from(found_calls, (&calls, 1), entropy, |root, number| {
        let (_, again) = open(&root.join("wal"))?;
        let is_lawful = match number {
            None => lawful.contains(&again),
            Some(0) => again == found || again == longer,
            Some(_) => again == longer,
        };
        ensure(is_lawful, || format!("found was {found:?}, and then {again:?}"))
    });
    ensure(judged.broken.is_empty(), || judged.broken.join("; and "))?;
    Ok(judged.images)
}

/// Of the first crash's images, one in so many is cut short a second time.
const AGAIN_EVERY: usize = 37;

#[test]
fn a_second_crash_while_the_first_is_mended_loses_nothing_either() {
    let effort = Effort::asked(4);
    for seed in 0..effort.lives {
        let life = live(seed, if effort.lives == 1 { 60 } else { 300 });
        let (mut entropy, mut dice) = (Entropy::seeded(seed), Entropy::seeded(!seed));
        let (mut firsts, mut seconds) = (0, 0);
        let judged = judge((&life.calls, effort.cuts), &mut entropy, |root, number| {
            firsts += 1;
            if firsts % AGAIN_EVERY == 0 {
                seconds += check_again(&life, root, number, &mut dice)?;
            }
            Ok(())
        });
        println!("life {seed} of the log: {firsts} images, and {seconds} of second crashes");
        assert_eq!(judged.broken, Vec::<String>::new());
        assert!(seconds > firsts, "only {seconds}");
    }
}

#[test]
fn a_log_that_is_cut_short_says_what_was_synced_and_at_most_a_part_of_the_rest() {
    let effort = Effort::asked(4);
    for seed in 0..effort.lives {
        let life = live(seed, if effort.lives == 1 { 60 } else { 300 });
        let mut entropy = Entropy::seeded(seed);
        let is_believed = Cell::new(false);
        let judged = judge((&life.calls, effort.cuts), &mut entropy, |root, number| {
            is_believed.set(!is_believed.get());
            check(&life, root, number, is_believed.get())
        });
        let (records, calls) = (life.records.len(), life.calls.len());
        println!("life {seed} of the log: {records} records, {calls} calls, {} images", judged.images);
        assert_eq!(judged.broken, Vec::<String>::new());
        for kind in ["Write", "Sync", "Rename", "Remove", "SyncDirectory", "Resize", "Allocate"] {
            let is_there = life.calls.iter().any(|call| call.to_string().starts_with(&format!("{kind} ")));
            assert!(is_there, "no {kind} among the calls");
        }
    }
}

/// The images can show a loss.
#[test]
fn a_log_that_does_not_sync_is_seen_to_lose_what_it_acknowledged() {
    let whole = live(0, 60);
    let is_data = |call: &Call| matches!(call, Call::Sync { .. });
    let is_name = |call: &Call| matches!(call, Call::SyncDirectory { .. });
    for is_dropped in [is_data, is_name] {
        let calls = whole.calls.iter().filter(|call| !is_dropped(call)).cloned().collect();
        let (records, synced) = (whole.records.clone(), whole.synced.clone());
        let life = Life { calls, records, synced };
        let judged = judge((&life.calls, 1), &mut Entropy::seeded(0), |root, number| check(&life, root, number, true));
        assert!(judged.broken.len() > 10, "{:?}", judged.broken);
    }
}
