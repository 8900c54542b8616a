//! What the page's script draws, as JSON: lists of what happened, each within its budget.
//!
//! Moments are microseconds of virtual time. What is nearest to the moment at which the promise broke stays; heartbeats go first.

use std::collections::{BTreeMap, BTreeSet};

use super::suspects::Suspect;
use super::{FOCUS_MAX, FOCUS_MIN, Source, cut};
use crate::film::{Scene, Shot};
use crate::json::{Object, list, text};

/// Bytes of each list. With the texts of the page's head they stay below the bound of the page.
const MESSAGES_BYTES: usize = 3 << 20;
const OPERATIONS_BYTES: usize = 2 << 20;
const NOTES_BYTES: usize = 1 << 20;
const STAGES_BYTES: usize = 256 << 10;
/// Letters of a text.
const TEXT_MAX: usize = 120;
const OPERATION_TEXT_MAX: usize = 400;
/// How much farther away a heartbeat counts.
const HEARTBEAT_WEIGHT: u64 = 8;

/// An operation as it was filmed.
#[derive(Clone, Debug)]
struct Filmed {
    client: u64,
    asked: u64,
    answered: Option<u64>,
    ask: String,
    outcome: String,
}

/// A message as it was filmed.
#[derive(Clone, Debug)]
struct Flight {
    sent: u64,
    from: usize,
    to: usize,
    text: String,
    ends: Vec<(u64, &'static str)>,
}

/// A list, and how far each part of it is from the moment.
#[derive(Debug, Default)]
struct Bounded {
    items: Vec<(u64, String)>,
    left_out: usize,
}

/// Everything that is drawn.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) members: usize,
    pub(super) clients: BTreeSet<u64>,
    operations: BTreeMap<u64, Filmed>,
    /// Where the promise broke, and what to show first.
    at: Option<u64>,
    focus: (u64, u64),
    end: u64,
    /// Named lists.
    lists: Vec<(&'static str, Bounded)>,
    suspects: String,
    /// Who is where, by ids that texts are full of.
    names: BTreeMap<String, String>,
}

impl Data {
    /// Puts together what was filmed.
    pub(super) fn gather(source: &Source<'_>, suspects: &[Suspect<'_>]) -> Self {
        let members = source.options.cluster.places();
        let end = source.shots.iter().map(micros).max().unwrap_or(0);
        let operations = operations(source.shots);
        let names = names(source.shots);
        let said = |plain: &str, max: usize| text(&cut(&named(&names, plain), max));
        let (at, focus) = focus(source, suspects, &operations, end);
        let moment = at.unwrap_or(end);
        let far = |from: u64, to: u64| {
            if (from..=to).contains(&moment) { 0 } else { moment.abs_diff(from).min(moment.abs_diff(to)) }
        };
        let is_one = !source.options.kind.is_of_several();
        let mut lists: BTreeMap<&'static str, Bounded> = BTreeMap::new();
        let mut add =
            |name: &'static str, far: u64, item: String| lists.entry(name).or_default().items.push((far, item));
        for flight in flights(source.shots).values() {
            let (end, fate) = flight.ends.first().copied().unwrap_or((flight.sent, "under way"));
            let again = flight.ends.iter().skip(1).map(|(end, _)| *end).max().unwrap_or(0);
            let weight = if flight.text.starts_with("heartbeat") { HEARTBEAT_WEIGHT } else { 1 };
            let Flight { sent, from, to, text: words, .. } = flight;
            let said = said(words, TEXT_MAX);
            add("messages", weight * far(*sent, end), format!("[{sent},{end},{from},{to},\"{fate}\",{said},{again}]"));
        }
        for (invoked, filmed) in &operations {
            let Filmed { client, asked, answered, ask, outcome } = filmed;
            let (ask, outcome) = (text(&cut(ask, OPERATION_TEXT_MAX)), text(&cut(outcome, OPERATION_TEXT_MAX)));
            let ended = answered.map_or_else(|| "null".to_owned(), |answered| answered.to_string());
            add(
                "operations",
                far(*asked, answered.unwrap_or(end)),
                format!("[{client},{asked},{ended},{invoked},{ask},{outcome}]"),
            );
        }
        for shot in source.shots {
            let (at, place) = (micros(shot), shot.place.map_or(-1, |place| place as i64));
            let place = if is_one && shot.place.is_none() { 0 } else { place };
            match &shot.scene {
                Scene::Stage(stage) => add("stages", 0, format!("[{place},{at},\"{}\"]", stage.word())),
                Scene::Role { term, leads, .. } => add("roles", 0, format!("[{place},{at},{term},{leads}]")),
                Scene::Cut(ways) => {
                    let ways: Vec<_> = ways.iter().map(|(from, to)| format!("[{from},{to}]")).collect();
                    add("cuts", 0, format!("[{at},{}]", list(&ways)));
                }
                // Who looks at members stops at the first thing that is wrong; what it says after that means nothing.
                Scene::Note(words) if words.starts_with("member ") && moment < at => {}
                Scene::Note(words) => {
                    let place = if is_elsewhere(words) { -1 } else { place };
                    add("notes", far(at, at), format!("[{place},{at},{}]", said(words, TEXT_MAX)));
                }
                Scene::Sent { .. } | Scene::Ended { .. } | Scene::Asked { .. } | Scene::Answered { .. } => {}
            }
        }
        for name in ["messages", "operations", "notes", "stages", "roles", "cuts"] {
            lists.entry(name).or_default().bound(budget(name));
        }
        let clients = operations.values().map(|filmed| filmed.client).collect();
        let suspects: Vec<_> =
            suspects.iter().map(|suspect| format!("[{},{}]", suspect.operation.invoked, suspect.is_first)).collect();
        Self {
            members,
            clients,
            operations,
            at,
            focus,
            end,
            lists: lists.into_iter().collect(),
            suspects: list(&suspects),
            names,
        }
    }

    /// A text in which members are called by their places.
    pub(super) fn named(&self, plain: &str) -> String {
        named(&self.names, plain)
    }

    /// Who is called what.
    pub(super) fn members(&self) -> String {
        self.names.iter().map(|(id, name)| format!("{name} = {id}")).collect::<Vec<_>>().join(", ")
    }

    /// When an operation was asked and answered, in seconds.
    pub(super) fn span_of(&self, invoked: u64) -> String {
        let seconds = |micros: u64| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        match self.operations.get(&invoked) {
            None => "not filmed".to_owned(),
            Some(filmed) => {
                let answered = filmed.answered.map_or_else(|| "never".to_owned(), seconds);
                format!("{} – {answered}", seconds(filmed.asked))
            }
        }
    }

    /// What there was no room for.
    pub(super) fn left_out(&self) -> String {
        let lists = self.lists.iter().filter(|(_, bounded)| bounded.left_out > 0);
        lists.map(|(name, bounded)| format!("{} {name}", bounded.left_out)).collect::<Vec<_>>().join(", ")
    }

    /// All of it.
    pub(super) fn json(&self) -> String {
        let clients: Vec<_> = self.clients.iter().map(u64::to_string).collect();
        let at = self.at.map_or_else(|| "null".to_owned(), |at| at.to_string());
        let mut object = Object::default()
            .with("members", &self.members.to_string())
            .with("clients", &list(&clients))
            .with("at", &at)
            .with("focus", &format!("[{},{}]", self.focus.0, self.focus.1))
            .with("end", &self.end.to_string())
            .with("suspects", &self.suspects);
        for (name, bounded) in &self.lists {
            let items: Vec<_> = bounded.items.iter().map(|(_, item)| item.clone()).collect();
            object = object.with(name, &list(&items));
        }
        object.close()
    }
}

impl Bounded {
    /// Keeps what is nearest, in the order in which it came.
    fn bound(&mut self, bytes_max: usize) {
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.sort_by_key(|place| self.items[*place].0);
        let mut bytes = 0;
        let fits = |place: &usize| {
            bytes += self.items[*place].1.len() + 1;
            bytes <= bytes_max
        };
        let kept: BTreeSet<usize> = order.into_iter().take_while(fits).collect();
        self.left_out = self.items.len() - kept.len();
        let items = std::mem::take(&mut self.items).into_iter().enumerate();
        self.items = items.filter(|(place, _)| kept.contains(place)).map(|(_, item)| item).collect();
    }
}

fn budget(name: &str) -> usize {
    match name {
        "messages" => MESSAGES_BYTES,
        "operations" => OPERATIONS_BYTES,
        "notes" => NOTES_BYTES,
        _ => STAGES_BYTES,
    }
}

const fn micros(shot: &Shot) -> u64 {
    shot.nanos / 1_000
}

/// Whether a note of a run with one member is about somebody else.
fn is_elsewhere(said: &str) -> bool {
    ["holder", "steward", "archivist", "watcher", "operator", "mover", "healed", "Options"]
        .iter()
        .any(|who| said.starts_with(who))
}

/// Ids of members, and the places where they were last seen.
fn names(shots: &[Shot]) -> BTreeMap<String, String> {
    let named = shots.iter().filter_map(|shot| match (&shot.scene, shot.place) {
        (Scene::Role { id, .. }, Some(place)) => Some((format!("{id:x}"), format!("m{place}"))),
        _ => None,
    });
    named.collect()
}

fn named(names: &BTreeMap<String, String>, plain: &str) -> String {
    // Ids are long: a text without a long word has none.
    if names.is_empty() || plain.len() < 8 {
        return plain.to_owned();
    }
    names.iter().fold(plain.to_owned(), |plain, (id, name)| {
        if plain.contains(id.as_str()) { plain.replace(id.as_str(), name) } else { plain }
    })
}

fn operations(shots: &[Shot]) -> BTreeMap<u64, Filmed> {
    let mut operations: BTreeMap<u64, Filmed> = BTreeMap::new();
    for shot in shots {
        match &shot.scene {
            Scene::Asked { client, invoked, text } => {
                let (asked, ask) = (micros(shot), text.clone());
                let filmed = Filmed { client: *client, asked, answered: None, ask, outcome: "nothing yet".to_owned() };
                operations.insert(*invoked, filmed);
            }
            Scene::Answered { invoked, text } => {
                if let Some(filmed) = operations.get_mut(invoked) {
                    (filmed.answered, filmed.outcome) = (Some(micros(shot)), text.clone());
                }
            }
            _ => {}
        }
    }
    operations
}

fn flights(shots: &[Shot]) -> BTreeMap<u64, Flight> {
    let mut flights: BTreeMap<u64, Flight> = BTreeMap::new();
    for shot in shots {
        match &shot.scene {
            Scene::Sent { number, from, to, text } => {
                let (sent, text) = (micros(shot), text.clone());
                flights.insert(*number, Flight { sent, from: *from, to: *to, text, ends: Vec::new() });
            }
            Scene::Ended { number, fate } => {
                if let Some(flight) = flights.get_mut(number) {
                    // What waited for a paused member comes again.
                    flight.ends.retain(|(_, fate)| *fate != "held");
                    flight.ends.push((micros(shot), *fate));
                }
            }
            _ => {}
        }
    }
    flights
}

/// The moment at which the promise broke, if it did, and what to show first: the operations that show it, if they are near each other.
fn focus(
    source: &Source<'_>,
    suspects: &[Suspect<'_>],
    operations: &BTreeMap<u64, Filmed>,
    end: u64,
) -> (Option<u64>, (u64, u64)) {
    let (min, max) = (FOCUS_MIN.as_micros() as u64, FOCUS_MAX.as_micros() as u64);
    let Some(violation) = &source.verdict.violation else {
        return (None, (0, end.clamp(1, max)));
    };
    let filmed = |is_first: bool| {
        let wanted = suspects.iter().filter(move |suspect| !is_first || suspect.is_first);
        wanted.filter_map(|suspect| operations.get(&suspect.operation.invoked))
    };
    let seen = violation.evidence.at.map(|at| at.as_micros() as u64);
    let answered = filmed(true).filter_map(|filmed| filmed.answered).max();
    let about = filmed(false).filter_map(|filmed| filmed.answered).max();
    let at = seen.or(answered).or(about).unwrap_or(end);
    let begin = filmed(false).map(|filmed| filmed.asked).filter(|asked| at.saturating_sub(*asked) <= max).min();
    let begin = begin.unwrap_or(at).min(at.saturating_sub(min));
    let room = (at - begin) / 8;
    (Some(at), (begin.saturating_sub(room), at + 2 * room))
}
