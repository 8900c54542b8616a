//! The members of a conversation, what is under way between them, and the commands that move them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use detcd_core::ids::{MemberId, Term, Ticket};
use detcd_core::raft::{
    Change, Config, Configuration, Effect, EntryKind, Ignored, Input, Mark, Message, Raft, Restored, Snapshot, Timer,
};

use super::effect::Told;
use super::message;
use super::words::{Words, number};
use crate::disk::{Disk, first_life};

/// Everyone and everything.
#[derive(Default)]
pub(super) struct World {
    members: BTreeMap<MemberId, Member>,
    under_way: Vec<(MemberId, MemberId, Message)>,
    show_timers: bool,
    apply_by_hand: bool,
    pub(super) ignored: BTreeSet<Ignored>,
}

struct Member {
    raft: Raft,
    config: Config,
    disk: Disk,
}

type Done = Result<(), String>;

impl World {
    /// Carries out one command and writes down what is answered.
    pub(super) fn obey(&mut self, line: &str, out: &mut String) -> Done {
        let mut words = Words::new(line);
        match words.word()? {
            "cluster" => self.start_cluster(&mut words, out)?,
            "member" => self.start_member(&mut words, out)?,
            "settle" => self.settle(out),
            "lead" => self.lead(words.member()?)?,
            "deliver" => self.deliver(&mut words, out)?,
            "repeat" => self.repeat(&mut words, out)?,
            "drop" => {
                let way = way(&mut words)?;
                self.under_way.retain(|(from, to, _)| way.is_some_and(|way| way != (*from, *to)));
            }
            command => {
                let id = words.member()?;
                self.obey_for(command, id, &mut words, out)?;
            }
        }
        words.peek().map_or(Ok(()), |word| Err(format!("`{word}` is too much")))
    }

    fn obey_for(&mut self, command: &str, id: MemberId, words: &mut Words<'_>, out: &mut String) -> Done {
        let input = match command {
            "show" => return self.show(id, out),
            "members" => return self.show_members(id, out),
            "persist" => return self.persist(id, words, out),
            "crash" => return self.crash(id, words, out),
            "expire" => Input::Expired(timer(words.word()?)?),
            "read" => Input::ReadAsked { ticket: ticket(words)? },
            "changed" => Input::ConfigurationChanged { index: words.index()?, change: change(words.word()?) },
            "applied" => Input::Applied { upto: words.index()? },
            "transfer" => Input::TransferAsked { to: words.member()? },
            "snapshot-made" => self.make_snapshot(id, words)?,
            "snapshot-sent" => Input::SnapshotSent { to: words.member()?, is_received: !words.take("lost") },
            "trim" => Input::Trimmed { upto: words.index()? },
            "unreachable" => Input::Unreachable { member: words.member()? },
            "propose" => {
                let (ticket, kind, payload) = (ticket(words)?, words.kind(), words.text()?);
                let only_in = if words.take("in") { Some(words.term()?) } else { None };
                Input::Proposed { ticket, kind, payload, only_in }
            }
            "receive" => {
                words.expect("from")?;
                Input::Received { from: words.member()?, message: message::parse(words)? }
            }
            _ => return Err("no such command".into()),
        };
        if !self.members.contains_key(&id) {
            return Err("no such member".into());
        }
        self.step(id, input, out);
        Ok(())
    }

    fn start_cluster(&mut self, words: &mut Words<'_>, out: &mut String) -> Done {
        let voters = words.members();
        for &id in &voters {
            let (mut config, mut restored) = (Config::new(id), first_life(Configuration::of_voters(voters.clone())));
            let mut options = Words::new(words.rest());
            self.read_options(&mut options, &mut config, &mut restored)?;
            self.start(config, restored, out)?;
        }
        words.finish();
        Ok(())
    }

    fn start_member(&mut self, words: &mut Words<'_>, out: &mut String) -> Done {
        let id = words.member()?;
        let (mut config, mut restored) = (Config::new(id), first_life(words.configuration()?));
        self.read_options(words, &mut config, &mut restored)?;
        self.start(config, restored, out)
    }

    fn read_options(&mut self, words: &mut Words<'_>, config: &mut Config, restored: &mut Restored) -> Done {
        let limits = &mut config.limits;
        let small = |words: &mut Words<'_>| u32::try_from(words.number()?).map_err(|_| "too large".to_owned());
        while let Some(option) = words.next() {
            match option {
                "no-pre-vote" => config.pre_vote = false,
                "timers" => self.show_timers = true,
                "apply-by-hand" => self.apply_by_hand = true,
                "window" => limits.in_flight_messages_max = small(words)?,
                "window-bytes" => limits.in_flight_bytes_max = words.number()?,
                "append-bytes" => limits.append_bytes_max = words.number()?,
                "batch" => limits.apply_entries_max = small(words)?,
                "reads" => limits.reads_open_max = small(words)?,
                "rounds" => limits.read_rounds_max = small(words)?,
                "uncommitted" => limits.uncommitted_bytes_max = words.number()?,
                "term" => restored.hard_state.term = Term(words.number()?),
                "vote" => restored.hard_state.vote = Some(words.member()?),
                "commit" => restored.hard_state.commit = words.index()?,
                "applied" => restored.applied = words.index()?,
                "base" => restored.base = words.mark()?,
                "log" => restored.entries = words.entries()?,
                _ => return Err(format!("`{option}` is no option")),
            }
        }
        Ok(())
    }

    fn start(&mut self, config: Config, restored: Restored, out: &mut String) -> Done {
        let (id, disk) = (config.id, Disk::new(&restored));
        let mut effects = Vec::new();
        match Raft::restore(config.clone(), restored) {
            Ok(mut raft) => {
                raft.start(&mut effects);
                self.members.insert(id, Member { raft, config, disk });
                self.perform(id, effects, out);
            }
            Err(why) => {
                let _ = writeln!(out, "{id}: cannot start: {why}");
            }
        }
        Ok(())
    }

    fn step(&mut self, id: MemberId, input: Input, out: &mut String) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let mut effects = Vec::new();
        member.raft.step(input, &mut effects);
        self.perform(id, effects, out);
    }

    fn perform(&mut self, id: MemberId, effects: Vec<Effect>, out: &mut String) {
        for effect in effects {
            let _ = match &effect {
                Effect::Arm { .. } if !self.show_timers => Ok(()),
                Effect::Send { .. } => writeln!(out, "{id}{}", Told(&effect)),
                _ => writeln!(out, "{id}: {}", Told(&effect)),
            };
            match effect {
                Effect::Append(write) => {
                    self.members.get_mut(&id).expect("only members act").disk.write(write);
                }
                Effect::Send { to, message } => self.under_way.push((id, to, message)),
                Effect::Apply { entries } if !self.apply_by_hand => {
                    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange) {
                        let change = change(std::str::from_utf8(&entry.payload).unwrap_or_default());
                        self.step(id, Input::ConfigurationChanged { index: entry.index, change }, out);
                    }
                    let upto = entries.last().expect("a batch is not empty").index;
                    self.step(id, Input::Applied { upto }, out);
                }
                Effect::Install { snapshot } if !self.apply_by_hand => {
                    self.step(id, Input::Applied { upto: snapshot.mark.index }, out);
                }
                Effect::Ignored { why, .. } => {
                    self.ignored.insert(why);
                }
                Effect::Apply { .. }
                | Effect::Arm { .. }
                | Effect::MakeSnapshot { .. }
                | Effect::Install { .. }
                | Effect::ReadReady { .. }
                | Effect::Refused { .. }
                | Effect::LeaderChanged { .. } => {}
            }
        }
    }

    fn persist(&mut self, id: MemberId, words: &mut Words<'_>, out: &mut String) -> Done {
        let member = self.members.get_mut(&id).ok_or("no such member")?;
        let unsynced = member.disk.unsynced() as u64;
        let writes = words.next().map_or(Ok(unsynced), number)?;
        if writes == 0 || unsynced < writes {
            return Err(format!("{unsynced} writes are under way"));
        }
        member.disk.sync(usize::try_from(writes).map_err(|_| "too many")?);
        let writes = u32::try_from(writes).map_err(|_| "too many")?;
        self.step(id, Input::Persisted { writes }, out);
        Ok(())
    }

    fn crash(&mut self, id: MemberId, words: &mut Words<'_>, out: &mut String) -> Done {
        let survive = words.next().map_or(Ok(0), number)?;
        let mut member = self.members.remove(&id).ok_or("no such member")?;
        member.disk.crash(usize::try_from(survive).map_err(|_| "too many")?);
        let restored = member.disk.restored();
        self.start(member.config, restored, out)
    }

    /// The store, frozen at what is applied.
    fn make_snapshot(&self, id: MemberId, words: &mut Words<'_>) -> Result<Input, String> {
        let raft = &self.members.get(&id).ok_or("no such member")?.raft;
        let to = words.member()?;
        if words.take("at") {
            let (mark, configuration) = (words.mark()?, words.configuration()?);
            return Ok(Input::SnapshotMade { to, snapshot: Some(Snapshot { mark, configuration }) });
        }
        let mark = Mark::new(raft.applied(), raft.log().term_at(raft.applied()).ok_or("nothing is applied")?);
        let snapshot = Snapshot { mark, configuration: raft.configuration().clone() };
        Ok(Input::SnapshotMade { to, snapshot: if words.take("failed") { None } else { Some(snapshot) } })
    }

    /// An election that is not what the conversation is about.
    fn lead(&mut self, id: MemberId) -> Done {
        let mut unheard = String::new();
        self.step(id, Input::Expired(Timer::Election), &mut unheard);
        self.settle(&mut unheard);
        let leads = self.members.get(&id).is_some_and(|member| member.raft.is_leader());
        if leads { Ok(()) } else { Err(format!("{id} did not win")) }
    }

    /// The messages on this way, or on all, arrive in order.
    fn deliver(&mut self, words: &mut Words<'_>, out: &mut String) -> Done {
        let way = way(words)?;
        let fits = |(from, to, _): &(MemberId, MemberId, Message)| way.is_none_or(|way| way == (*from, *to));
        let (now, later) = std::mem::take(&mut self.under_way).into_iter().partition(fits);
        self.under_way = later;
        self.arrive(now, out);
        Ok(())
    }

    fn repeat(&mut self, words: &mut Words<'_>, out: &mut String) -> Done {
        let way = way(words)?;
        let now = self.under_way.iter().filter(|(from, to, _)| way.is_none_or(|way| way == (*from, *to)));
        self.arrive(now.cloned().collect(), out);
        Ok(())
    }

    fn arrive(&mut self, messages: Vec<(MemberId, MemberId, Message)>, out: &mut String) {
        for (from, to, message) in messages {
            self.step(to, Input::Received { from, message }, out);
        }
    }

    fn settle(&mut self, out: &mut String) {
        loop {
            let busy: Vec<_> = self.members.iter().filter(|(_, m)| 0 < m.disk.unsynced()).map(|(&id, _)| id).collect();
            if busy.is_empty() && self.under_way.is_empty() {
                return;
            }
            for id in busy {
                self.persist(id, &mut Words::new(""), out).expect("it has writes under way");
            }
            let now = std::mem::take(&mut self.under_way);
            self.arrive(now, out);
        }
    }

    fn show_members(&self, id: MemberId, out: &mut String) -> Done {
        let raft = &self.members.get(&id).ok_or("no such member")?.raft;
        let _ = writeln!(out, "{id}: {}", raft.configuration());
        Ok(())
    }

    fn show(&self, id: MemberId, out: &mut String) -> Done {
        let raft = &self.members.get(&id).ok_or("no such member")?.raft;
        let (term, last, commit) = (raft.term(), raft.last(), raft.commit());
        let (role, persisted, applied) = (raft.role().name(), raft.persisted(), raft.applied());
        let _ = writeln!(
            out,
            "{id}: {role} t{term} last {last} persisted {persisted} commit {commit} applied {applied} base {}",
            raft.log().base()
        );
        Ok(())
    }
}

/// What a payload means to the state machine of these conversations: `+4` a voter, `~4` a learner, `-4` none of them.
fn change(word: &str) -> Option<Change> {
    let (kind, member) = word.split_at_checked(1)?;
    let member = MemberId(number(member).ok()?);
    match kind {
        "+" => Some(Change::AddVoter(member)),
        "~" => Some(Change::AddLearner(member)),
        "-" => Some(Change::Remove(member)),
        _ => None,
    }
}

fn timer(word: &str) -> Result<Timer, String> {
    match word {
        "election" => Ok(Timer::Election),
        "heartbeat" => Ok(Timer::Heartbeat),
        "leader-alive" => Ok(Timer::LeaderAlive),
        "transfer" => Ok(Timer::Transfer),
        _ => Err(format!("`{word}` is no timer")),
    }
}

fn ticket(words: &mut Words<'_>) -> Result<Ticket, String> {
    number(words.word()?.strip_prefix('#').ok_or("a ticket like #7 expected")?).map(Ticket)
}

/// `1->2`, or nothing for all ways.
fn way(words: &mut Words<'_>) -> Result<Option<(MemberId, MemberId)>, String> {
    let Some(word) = words.next() else { return Ok(None) };
    let (from, to) = word.split_once("->").ok_or("a way like 1->2 expected")?;
    Ok(Some((MemberId(number(from)?), MemberId(number(to)?))))
}
