//! Conversations as text: commands, a line `----`, what was answered, an empty line.
//!
//! The first line of a file gives its reason. With `REWRITE=1` the answers are recorded anew; read the difference before
//! you keep it. The commands:
//!
//! | command | what happens |
//! |---|---|
//! | `cluster 1 2 3 OPTION..` | members start with empty disks |
//! | `member 1 of 1 2 3 [learners 4] OPTION..` | one member starts with what its disk has: `term N`, `vote N`, `commit N`, `applied N`, `base 4@2`, `log [5@2 "x"]` |
//! | `expire 1 election` | a timer runs out: `election`, `heartbeat`, `leader-alive`, `transfer` |
//! | `propose 1 #7 [conf] "x" [in t2]`, `read 1 #8` | a client asks |
//! | `persist 1 [N]` | the oldest `N` writes, or all, are on disk |
//! | `deliver [1->2]`, `drop [1->2]`, `repeat 1->2` | messages under way arrive, are lost, arrive and stay under way |
//! | `receive 1 from 2 MESSAGE` | a message out of nowhere |
//! | `lead 1` | the member wins an election, unheard |
//! | `settle` | persist and deliver until nothing moves |
//! | `changed 1 5 +4`, `applied 1 5`, `trim 1 5`, `unreachable 1 2`, `transfer 1 2` | as the inputs of these names |
//! | `snapshot-made 1 2 [failed]`, `snapshot-made 1 2 at 5@2 of 1`, `snapshot-sent 1 2 [lost]` | 1's store is frozen where it is, or not; its way to 2 has ended |
//! | `crash 1 [N]` | power cut: all but the oldest `N` unsynced writes are lost; then a restart |
//! | `show 1`, `members 1` | what the member is, and who it thinks belongs to the cluster |
//!
//! The state machine of these conversations takes `propose 1 #7 conf "+4"` for a new voter, `~4` for a learner, `-4` for a
//! removal, and anything else for a change without effect.
//!
//! Options: `no-pre-vote`; `window N` and `window-bytes N` (appends in flight); `append-bytes N`; `batch N` (entries to apply at once); `reads N`;
//! `rounds N`; `uncommitted N`; `timers` (show timers, too); `apply-by-hand`.

mod effect;
mod message;
mod words;
mod world;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use detcd_core::raft::Ignored;
use world::World;

/// What a file's conversation was and what it showed.
pub struct Heard {
    /// The file with fresh answers.
    pub text: String,
    /// The reasons for which something was ignored.
    pub ignored: BTreeSet<Ignored>,
}

/// Holds the conversation of a file. An error names the line that is no command.
pub fn hear(text: &str) -> Result<Heard, String> {
    let mut world = World::default();
    let mut fresh = String::new();
    let mut in_answer = false;
    let mut answer = String::new();
    for (number, line) in text.lines().enumerate() {
        if in_answer {
            in_answer = !line.is_empty();
            if !in_answer {
                fresh.push('\n');
            }
            continue;
        }
        let _ = writeln!(fresh, "{line}");
        if line == "----" {
            fresh.push_str(&std::mem::take(&mut answer));
            in_answer = true;
        } else if !line.is_empty() && !line.starts_with('#') {
            world.obey(line, &mut answer).map_err(|why| format!("line {}: {why}: {line}", number + 1))?;
        }
    }
    if !answer.is_empty() {
        return Err("the last commands have no answer: end them with ----".into());
    }
    Ok(Heard { text: fresh, ignored: world.ignored })
}

/// Holds the conversation of a file and compares it with what is recorded, or records it when told to.
pub fn check(path: &Path) -> Result<BTreeSet<Ignored>, String> {
    let recorded = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if !recorded.starts_with("# ") {
        return Err(format!("{}: the first line must say why", path.display()));
    }
    let heard = hear(&recorded).map_err(|why| format!("{}: {why}", path.display()))?;
    if heard.text != recorded {
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(path, &heard.text).map_err(|error| format!("{}: {error}", path.display()))?;
        } else {
            return Err(difference(path, &recorded, &heard.text));
        }
    }
    Ok(heard.ignored)
}

fn difference(path: &Path, recorded: &str, fresh: &str) -> String {
    let at = recorded.lines().zip(fresh.lines()).take_while(|(old, new)| old == new).count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("(end)").to_owned();
    format!("{}:{}\n  recorded: {}\n  now:      {}", path.display(), at + 1, line(recorded), line(fresh))
}
