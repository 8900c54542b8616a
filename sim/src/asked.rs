//! What is asked for on the simulator's command line: the words, what each means, and which of them go together.
//!
//! Nothing that is asked for is passed over in silence: a word that would do nothing beside another one is refused.

use std::path::PathBuf;

use crate::failures::{Subject, Wanted};
use crate::less::Less;
use crate::mutants::{self, Mutant};
use crate::options::Kind;
use crate::record::Lines;

/// What was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    pub(crate) seed: u64,
    pub(crate) count: u64,
    pub(crate) jobs: u64,
    pub(crate) lines: Lines,
    pub(crate) check_determinism: bool,
    pub(crate) scoreboard: Option<PathBuf>,
    pub(crate) ledger: Option<PathBuf>,
    pub(crate) subject: Subject,
    pub(crate) wanted: Wanted,
}

/// A word, what stands behind it, and what it means.
const WORDS: [(&str, &str, &str); 18] = [
    ("--kind", "KIND", "engine: a member below gRPC, the fastest; server: a whole server (the default);"),
    ("", "", "cluster: several members; services: several whole servers"),
    ("--engine", "", "the same as --kind engine"),
    ("--seed", "S", "the first seed (1)"),
    ("--count", "N", "how many seeds from there on (1); of a hunt, at most (2000)"),
    ("--jobs", "J", "how many runs at a time (1)"),
    ("--check-determinism", "", "plays the first run, and then one of twenty, twice: both must be the same"),
    ("--less", "WORDS", "takes something away from what the seeds draw: crashes,clients=2,trouble=12"),
    ("--trace", "", "prints everything that happens"),
    ("--report", "", "draws every run: target/sim/<kind>-<seed>.html"),
    ("--history", "DIRECTORY", "writes what clients saw, as JSON lines (docs/format/history.md)"),
    ("--only-broken", "", "... or draws it, only of runs that break a promise"),
    ("--mutant", "NAME", "puts a known bug into the runs (a build with --cfg mutants)"),
    ("--scoreboard", "FILE", "hunts every known bug, or that of --mutant, and writes the table (such a build, too)"),
    ("--ledger", "FILE", "adds the campaign: commit, kind, seeds, verdict"),
    ("--commit", "HASH", "which code this is, for pages, histories, the table and the ledger"),
    ("--help", "", "this text"),
    ("-h", "", "this text"),
];

/// The usage.
pub(crate) fn help() -> String {
    let line = |(word, value, meaning): &(&str, &str, &str)| format!("  {:<24}{meaning}\n", format!("{word} {value}"));
    format!(
        "detcd-sim plays members of detcd under simulated time and troubles, a run from each seed, and says which promises broke.

{}
The first two failures are shrunk and drawn by themselves (docs/simulation.md).
Ends with 0 if every promise was kept or every bug found, with 1 if not, and with 2 if it was asked wrongly or a file cannot be written.",
        WORDS.iter().map(line).collect::<String>()
    )
}

/// Whether the usage is what is wanted.
pub(crate) fn asks_for_help(words: &[String]) -> bool {
    words.iter().any(|word| word == "--help" || word == "-h")
}

/// Reads the command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(words: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        seed: 1,
        count: 1,
        jobs: 1,
        lines: Lines::Forget,
        check_determinism: false,
        scoreboard: None,
        ledger: None,
        subject: Subject { kind: Kind::Server, less: Less::nothing(), mutant: None, commit: String::new() },
        wanted: Wanted::default(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: &str| text.parse().map_err(|_| format!("{word}: {text:?} is no number"));
        match word.as_str() {
            "--seed" => asked.seed = number(value()?)?,
            "--count" => asked.count = number(value()?)?,
            "--jobs" => asked.jobs = number(value()?)?.max(1),
            "--trace" => asked.lines = Lines::Print,
            "--check-determinism" => asked.check_determinism = true,
            "--mutant" => asked.subject.mutant = Some(mutant(value()?)?),
            "--scoreboard" => asked.scoreboard = Some(PathBuf::from(value()?)),
            "--ledger" => asked.ledger = Some(PathBuf::from(value()?)),
            "--commit" => value()?.clone_into(&mut asked.subject.commit),
            "--less" => asked.subject.less = Less::parse(value()?)?,
            "--report" => asked.wanted.report = true,
            "--history" => asked.wanted.history = Some(PathBuf::from(value()?)),
            "--only-broken" => asked.wanted.only_broken = true,
            "--engine" => asked.subject.kind = Kind::Engine,
            "--kind" => {
                let word = value()?;
                asked.subject.kind = Kind::parse(word)
                    .ok_or_else(|| format!("no kind {word:?}: engine, server, cluster or services"))?;
            }
            _ => return Err(format!("unknown word {word:?}")),
        }
    }
    asked.agree()?;
    Ok(asked)
}

fn mutant(name: &str) -> Result<(Mutant, String), String> {
    let mutant = Mutant::parse(name).ok_or_else(|| unknown(name, &mutants::names(None)))?;
    Ok((mutant, name.to_owned()))
}

fn unknown(name: &str, known: &[String]) -> String {
    if known.is_empty() { NO_MUTANTS.to_owned() } else { format!("no known bug {name:?}: {}", known.join(" ")) }
}

/// A hunt for a bug that none of its runs can have finds nothing and misses nothing.
fn is_hunted(name: Option<&str>, kind: Kind, hunted: &[String]) -> Result<(), String> {
    match name {
        _ if hunted.is_empty() => Err(NO_MUTANTS.to_owned()),
        Some(name) if hunted.iter().all(|hunted| hunted != name) => {
            Err(format!("--scoreboard: {} runs do not hunt {name}. They hunt {}", kind.word(), hunted.join(" ")))
        }
        _ => Ok(()),
    }
}

const NO_MUTANTS: &str = "this build holds no known bugs: --mutant and --scoreboard need one with --cfg mutants";

impl Asked {
    /// Refuses words that do not go together.
    fn agree(&self) -> Result<(), String> {
        let Self { count, lines, wanted, scoreboard, ledger, .. } = self;
        let refused = |is_so: bool, why: &str| if is_so { Err(why.to_owned()) } else { Ok(()) };
        refused(*count == 0, "--count: there is nothing to run")?;
        let is_traced = *lines == Lines::Print;
        refused(is_traced && wanted.report, "--trace and --report: a run is printed or drawn, not both")?;
        let is_written = wanted.report || wanted.history.is_some();
        refused(wanted.only_broken && !is_written, "--only-broken needs --history or --report")?;
        if ledger.is_some() {
            self.is_for_the_ledger()?;
        }
        if scoreboard.is_some() {
            self.is_a_hunt()?;
        }
        Ok(())
    }

    /// The ledger says of which code and which seeds, and of nothing else.
    fn is_for_the_ledger(&self) -> Result<(), String> {
        let Subject { less, mutant, commit, .. } = &self.subject;
        let why = if self.scoreboard.is_some() {
            "--scoreboard: a hunt is no campaign"
        } else if mutant.is_some() {
            "--mutant: what has a bug put into it says nothing of the product"
        } else if !less.is_nothing() {
            "--less: its seeds are not what the ledger's reader would repeat"
        } else if commit.is_empty() {
            "it needs --commit, since nobody knows otherwise what ran"
        } else {
            return Ok(());
        };
        Err(format!("nothing is entered into --ledger. {why}"))
    }

    /// A hunt writes the table of its kind, of bugs that this kind hunts, and takes runs as their seeds draw them.
    fn is_a_hunt(&self) -> Result<(), String> {
        let Subject { kind, less, mutant, .. } = &self.subject;
        if !matches!(kind, Kind::Engine | Kind::Cluster) {
            return Err(format!("--scoreboard: there is no table of {} runs, only of engine and cluster", kind.word()));
        }
        let is_plain = less.is_nothing() && self.wanted == Wanted::default() && self.lines == Lines::Forget;
        if !is_plain || self.check_determinism {
            return Err("--scoreboard goes with --kind, --seed, --count, --jobs, --mutant and --commit only".to_owned());
        }
        is_hunted(mutant.as_ref().map(|(_, name)| name.as_str()), *kind, &mutants::names(Some(*kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn refusal(line: &str) -> String {
        asked(line).expect_err(line)
    }

    #[test]
    fn every_word_has_its_meaning() {
        for (word, value, meaning) in WORDS.iter().filter(|(word, ..)| !word.is_empty()) {
            assert!(!meaning.is_empty() && help().contains(&format!("  {word} ")), "{word}");
            let line = format!("{word} {}", if value.is_empty() { "" } else { "1" });
            let is_known = asks_for_help(&[(*word).to_owned()]);
            assert!(is_known || !asked(&line).is_err_and(|why| why.starts_with("unknown word")), "{line}");
            // And it takes a value where the text says so.
            assert_eq!(!value.is_empty(), asked(word).is_err_and(|why| why.ends_with("needs a value")), "{word}");
        }
        assert!(refusal("--sed 1").starts_with("unknown word"));
    }

    #[test]
    fn the_ledger_takes_whole_seeds_of_a_named_commit() {
        assert!(asked("--kind engine --count 9 --ledger f --commit abc --check-determinism").is_ok());
        assert!(refusal("--ledger f --commit abc --less trouble=2").contains("--less"));
        assert!(refusal("--ledger f").contains("--commit"));
        assert!(refusal("--ledger f --commit abc --kind engine --scoreboard g").contains("--scoreboard"));
        if let Some(name) = mutants::names(None).first() {
            assert!(refusal(&format!("--ledger f --commit abc --mutant {name}")).contains("--mutant"));
        }
    }

    #[test]
    fn no_runs_are_refused() {
        assert!(refusal("--count 0").starts_with("--count"));
        assert!(refusal("--count 0 --ledger f --commit abc").starts_with("--count"));
    }

    #[test]
    fn a_word_that_would_do_nothing_is_refused() {
        assert!(refusal("--trace --report").contains("--trace and --report"));
        assert!(refusal("--only-broken").contains("--history"));
        assert!(asked("--only-broken --report").is_ok());
        for word in ["--less crashes", "--trace", "--report", "--history d", "--check-determinism"] {
            assert!(refusal(&format!("--kind engine --scoreboard f {word}")).contains("only"), "{word}");
        }
    }

    #[test]
    fn only_kinds_with_a_table_hunt() {
        for kind in ["server", "services"] {
            let why = refusal(&format!("--kind {kind} --scoreboard f"));
            assert!(why.contains("engine and cluster"), "{why}");
        }
    }

    #[cfg(not(mutants))]
    #[test]
    fn a_build_without_bugs_says_so() {
        for line in ["--mutant VoteTwice", "--kind engine --scoreboard f"] {
            assert_eq!(refusal(line), NO_MUTANTS);
        }
    }

    #[test]
    fn bugs_that_are_unknown_or_not_hunted_are_answered_with_those_that_are() {
        let names = ["SyncErrorIgnored", "TornTailAccepted"].map(str::to_owned);
        assert_eq!(unknown("Nope", &names), "no known bug \"Nope\": SyncErrorIgnored TornTailAccepted");
        let why = is_hunted(Some("VoteTwice"), Kind::Engine, &names).expect_err("of clusters");
        assert!(why.contains("engine runs do not hunt VoteTwice") && why.contains("SyncErrorIgnored"), "{why}");
        for name in [None, Some("TornTailAccepted")] {
            assert_eq!(is_hunted(name, Kind::Engine, &names), Ok(()));
        }
    }
}
