//! Failures that people can read: a filmed run is the same run, its page is whole and bounded, and what is shrunk can be repeated.
#![cfg(madsim)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use detcd_sim::check::{Promise, Violation};
use detcd_sim::failures::{Subject, Wanted};
use detcd_sim::film::{Film, Scene, Shot, Stage};
use detcd_sim::less::{Less, NUMBERS, WORDS};
use detcd_sim::options::{Kind, Options};
use detcd_sim::record::{History, Lines, Recorder, Trace};
use detcd_sim::report::{PAGE_BYTES_MAX, Source, page};
use detcd_sim::run::{Verdict, run, run_into};
use detcd_sim::shrink::{ATTEMPTS_MAX, Broken, SECONDS_MAX, shrink_by};

const SHORT: &str = "trouble=6,calm=2";

struct Filmed {
    options: Options,
    less: Less,
    verdict: Verdict,
    shots: Vec<Shot>,
    history: History,
}

fn film(kind: Kind, seed: u64) -> Filmed {
    let less = Less::parse(SHORT).unwrap();
    let options = less.of(kind, seed);
    let (film, recorder) = (Film::default(), Recorder::default());
    let verdict = run_into(&options, None, &Trace::filmed(film.clone()), &recorder);
    let history = recorder.history().clone();
    Filmed { options, less, verdict, shots: film.shots(), history }
}

impl Filmed {
    fn page(&self) -> String {
        page(&Source {
            options: &self.options,
            less: &self.less,
            seed: self.options.seed,
            mutant: None,
            commit: "c0ffee",
            verdict: &self.verdict,
            shots: &self.shots,
            history: &self.history,
        })
    }

    /// As if an oracle had named the operation in the middle.
    fn break_in_the_middle(&mut self, what: &str) -> u64 {
        let invoked = self.history.operations[self.history.operations.len() / 2].invoked;
        self.verdict.violation = Some(Violation::new(Promise::Linear, what.to_owned()).by(invoked).about(2));
        invoked
    }
}

#[test]
fn a_filmed_run_is_the_same_run() {
    for kind in Kind::ALL {
        let filmed = film(kind, 7);
        assert!(filmed.shots.len() > 100, "{kind:?}: {} shots", filmed.shots.len());
        assert_eq!(filmed.verdict.hash, run(&filmed.options, None, Lines::Forget).hash, "{kind:?}");
    }
}

/// Every tag is closed by its own; returns the text of the data.
fn check_page(page: &str) -> &str {
    const EMPTY: [&str; 2] = ["meta", "br"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").expect("a page");
    let mut data = "";
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        rest = after;
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "a tag is closed by its own");
        } else if !EMPTY.contains(&name) {
            open.push(name);
        }
        if matches!(name, "script" | "style") && !tag.starts_with('/') {
            let close = format!("</{name}>");
            let length = rest.find(&close).expect("it is closed");
            if tag.contains("application/json") {
                data = &rest[..length];
            }
            rest = &rest[length..];
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "everything is closed");
    data
}

/// Reads one value of JSON; returns what is behind it.
fn skip_json(text: &str) -> &str {
    let list = |mut rest: &'_ str, close: char| -> usize {
        let begin = rest.len();
        if let Some(after) = rest.strip_prefix(close) {
            return begin - after.len();
        }
        loop {
            rest = skip_json(rest);
            if close == '}' {
                rest = skip_json(rest.strip_prefix(':').expect("a colon"));
            }
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => return begin - rest.strip_prefix(close).expect("the end of a list").len(),
            }
        }
    };
    match text.chars().next().expect("a value") {
        '[' => &text[1 + list(&text[1..], ']')..],
        '{' => &text[1 + list(&text[1..], '}')..],
        '"' => {
            let mut letters = text[1..].char_indices();
            loop {
                match letters.next().expect("a text ends") {
                    (_, '\\') => drop(letters.next()),
                    (at, '"') => return &text[at + 2..],
                    (_, letter) => assert!(!letter.is_control() && letter != '<', "{letter:?} in a text"),
                }
            }
        }
        _ => {
            let end = text.find([',', ']', '}', ':']).unwrap_or(text.len());
            let word = &text[..end];
            assert!(["true", "false", "null"].contains(&word) || word.parse::<i64>().is_ok(), "{word:?}");
            &text[end..]
        }
    }
}

#[test]
fn a_page_is_whole_and_tells_what_broke() {
    for kind in Kind::ALL {
        let mut filmed = film(kind, 3);
        let invoked = filmed.break_in_the_middle("it </script> <b>broke & that's it");
        let page = filmed.page();
        let data = check_page(&page);
        assert_eq!(skip_json(data), "", "{kind:?}");
        assert!(page.len() <= PAGE_BYTES_MAX);
        assert!(page.contains("it &lt;/script&gt; &lt;b&gt;broke &amp; that's it"), "the violation, as text");
        assert!(page.contains("Linear is broken") && page.contains("c0ffee"));
        let command = format!("make sim KIND={} SEED=3 N=1 LESS={SHORT}", kind.word());
        assert!(page.contains(&command), "the line that repeats it");
        for place in 0..filmed.options.cluster.places() {
            assert!(page.contains(&format!("data-member=\"{place}\"")), "{kind:?} member {place}");
        }
        for client in 0..filmed.options.load.clients {
            assert!(page.contains(&format!("data-client=\"{client}\"")), "{kind:?} client {client}");
        }
        assert!(page.contains(&format!("data-operation=\"{invoked}\"")), "{kind:?}: the operation that shows it");
        assert!(data.contains("\"serving\"") && data.contains("\"operations\":[["));
        let is_one = matches!(kind, Kind::Engine | Kind::Server);
        assert_eq!(!is_one, data.contains("\"messages\":[[") && data.contains("\"roles\":[["));
        assert_eq!(fetched(&page), Vec::<String>::new(), "{kind:?}");
    }
}

/// What a page would fetch from elsewhere: addresses, but for the names of namespaces, and whatever takes one. The data may hold any: they are texts.
fn fetched(page: &str) -> Vec<String> {
    const TAKERS: [&str; 19] = [
        "src=",
        ".src",
        "'src",
        "\"src",
        "srcset",
        "href=",
        ".href",
        "'href",
        "\"href",
        "<link",
        "<base",
        "url(",
        "@import",
        "import(",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "EventSource",
        "sendBeacon",
    ];
    const NAMES: [&str; 3] =
        ["http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml", "http://www.w3.org/1999/xlink"];
    let own = page.replace(check_page(page), "");
    let is_of_the_page =
        |(at, taker): &(usize, &str)| own[at + taker.len()..].trim_start_matches(['"', '\'']).starts_with('#');
    let takers = TAKERS.iter().flat_map(|taker| own.match_indices(taker)).filter(|found| !is_of_the_page(found));
    let addresses = own.match_indices("://").filter(|(at, _)| {
        let begin = own[..*at].rfind(|letter: char| !letter.is_ascii_alphanumeric()).map_or(0, |before| before + 1);
        let end = own[*at..].find(['"', '\'', '<', ' ', ')']).map_or(own.len(), |length| at + length);
        !NAMES.contains(&&own[begin..end])
    });
    let around = |(at, _): (usize, &str)| own[at..].chars().take(40).collect::<String>();
    takers.chain(addresses).map(around).collect()
}

#[test]
fn whatever_a_page_would_fetch_is_seen() {
    let page = |head: &str, script: &str| {
        let data = "<script type=\"application/json\" id=\"data\">[\"http://m0:2380\"]</script>";
        format!("<!DOCTYPE html>\n<html><head>{head}</head><body>{data}<script>{script}</script></body></html>")
    };
    let drawn = page("<a href=\"#top\">up</a>", "draw(\"http://www.w3.org/2000/svg\", \"url(#hatch)\")");
    assert_eq!(fetched(&drawn), Vec::<String>::new());
    for head in [
        "<base href=\"/\"></base>",
        "<style>@import '//a'</style>",
        "<style>p { background: url(//a) }</style>",
        "<a href=\"//a\">a</a>",
        "<p>https://a</p>",
        "<p>http://www.w3.org/2000/svg/a.js</p>",
        "<img src=\"//a\"></img>",
    ] {
        assert_ne!(fetched(&page(head, "")), Vec::<String>::new(), "{head}");
    }
    for script in
        ["fetch('//a')", "image.src = '//a'", "new XMLHttpRequest()", "import('/a')", "tag.setAttribute('href', a)"]
    {
        assert_ne!(fetched(&page("", script)), Vec::<String>::new(), "{script}");
    }
}

#[test]
fn a_run_that_keeps_every_promise_has_a_page_too() {
    let page = film(Kind::Engine, 4).page();
    check_page(&page);
    assert!(page.contains("seed 4 keeps every promise"));
    assert!(!page.contains("<p class=\"violation\">") && !page.contains("<table"));
}

#[test]
fn a_page_has_a_bound_and_keeps_what_is_near() {
    let mut filmed = film(Kind::Cluster, 3);
    filmed.verdict.violation =
        Some(Violation::new(Promise::Consensus, "x".repeat(100_000)).at(Duration::from_millis(40_000)));
    let long = "<\u{1}\"".repeat(1_000);
    filmed.shots = (0..80_000u64)
        .flat_map(|number| {
            let shot = |scene| Shot { nanos: number * 1_000_000, place: Some(0), scene };
            let (from, to, client) = (0, 1, number % 5);
            [
                shot(Scene::Sent { number, from, to, text: format!("append {number}# {long}") }),
                shot(Scene::Ended { number, fate: "arrived" }),
                shot(Scene::Stage(Stage::Starting)),
                shot(Scene::Asked { client, invoked: number, text: long.clone() }),
                shot(Scene::Note(long.clone())),
            ]
        })
        .collect();
    let page = filmed.page();
    assert!(page.len() <= PAGE_BYTES_MAX, "{} bytes", page.len());
    assert_eq!(skip_json(check_page(&page)), "");
    assert!(page.contains("append 40000#"), "what is near stays");
    assert!(!page.contains("append 1#") && !page.contains("append 79999#"), "what is far goes");
    assert!(page.contains(" messages, ") && page.contains("left out of this page"));
}

#[test]
fn kinds_do_not_share_pages() {
    let subject = |kind| Subject { kind, less: Less::nothing(), mutant: None, commit: String::new() };
    let pages: BTreeSet<_> = Kind::ALL.into_iter().map(|kind| subject(kind).page(9)).collect();
    assert_eq!(pages.len(), Kind::ALL.len());
    assert!(pages.contains(Path::new("target/sim/cluster-9.html")), "as docs/simulation.md says: {pages:?}");
}

#[test]
fn a_history_has_a_line_for_each_operation() {
    let directory = std::env::temp_dir().join(format!("detcd-history-{}", std::process::id()));
    let less = Less::parse(SHORT).unwrap();
    let subject = Subject { kind: Kind::Engine, less, mutant: None, commit: "c0ffee".to_owned() };
    let broken = Wanted { history: Some(directory.clone()), only_broken: true, ..Wanted::default() };
    let (verdict, made) = subject.play(5, Lines::Forget, &broken).unwrap();
    assert_eq!((verdict.violation, made.len()), (None, 0), "a run that keeps every promise");
    let all = Wanted { only_broken: false, ..broken };
    let (verdict, made) = subject.play(5, Lines::Forget, &all).unwrap();
    assert_eq!(made.len(), 1);
    let text = std::fs::read_to_string(directory.join("engine-5.jsonl")).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let mut lines = text.lines();
    let head = lines.next().unwrap();
    assert!(head.contains(&format!("\"operations\":{}}}", verdict.operations)), "{head}");
    assert!(head.contains("\"commit\":\"c0ffee\"") && head.contains(&format!("\"less\":\"{SHORT}\"")), "{head}");
    assert_eq!(lines.clone().count(), verdict.operations);
    assert!(verdict.operations > 500);
    for line in lines {
        assert_eq!(skip_json(line), "");
        assert!(line.contains("\"ask\":{\"") && line.contains("\"outcome\":{\""), "{line}");
    }
}

#[test]
fn words_take_something_away_and_are_written_as_they_are_read() {
    let line = "crashes,clients=2,trouble=12,dice=5";
    assert_eq!(Less::parse(line).unwrap().to_string(), line);
    assert_eq!(Less::parse("trouble=12,crashes,trouble=3").unwrap().to_string(), "crashes,trouble=3");
    assert_eq!(Less::parse("").unwrap(), Less::nothing());
    for wrong in ["crash", "clients", "clients=", "clients=two", "crashes=1", "dice=-1"] {
        assert!(Less::parse(wrong).is_err(), "{wrong}");
    }
    let changes = |less: &Less| {
        Kind::ALL.into_iter().any(|kind| (0..300).any(|seed| less.of(kind, seed) != Options::draw(kind, seed)))
    };
    for word in WORDS {
        assert!(changes(&Less::nothing().and(word, None)), "{word} takes nothing away");
    }
    for name in NUMBERS {
        assert!(changes(&Less::nothing().and(name, Some(1))), "{name} takes nothing away");
        let more = Less::nothing().and(name, Some(1_000_000));
        assert_eq!(changes(&more), name == "dice", "{name} adds something");
    }
}

#[test]
fn shrinking_keeps_what_the_promise_needs() {
    // Breaks by a power cut under two clients, after eleven seconds, if anybody puts values of some length.
    let breaks = |options: &Options| {
        options.faults.crash_millis > 0 && options.load.clients >= 2 && options.trouble_seconds > 11
    };
    let less = Less::nothing();
    let seed = (1..)
        .find(|seed| breaks(&less.of(Kind::Cluster, *seed)) && less.of(Kind::Cluster, *seed).cluster.members == 5)
        .unwrap();
    let violation = |promise| Violation::new(promise, "seen".to_owned());
    let broken = Broken { kind: Kind::Cluster, seed, less, mutant: None, violation: violation(Promise::Linear) };
    let mut runs = 0;
    let shrunk = shrink_by(&broken, &mut |options| {
        runs += 1;
        // What breaks without crashes is something else.
        let promise = if breaks(options) { Promise::Linear } else { Promise::Watch };
        Verdict { seed, violation: Some(violation(promise)), hash: 0, operations: 0, seconds: 1 }
    });
    assert_eq!(runs, shrunk.attempts);
    let options = shrunk.broken.less.of(Kind::Cluster, seed);
    assert!(breaks(&options), "{}", shrunk.broken.less);
    assert_eq!((options.load.clients, options.cluster.members, options.load.keys), (2, 3, 3), "{}", shrunk.broken.less);
    assert!(options.trouble_seconds <= 14, "{}", shrunk.broken.less);
    assert_eq!((options.watch.clients, options.load.holders, options.faults.pause_millis), (0, 0, 0));
    // The line that is printed is the run.
    assert_eq!(Less::parse(&shrunk.broken.less.to_string()).unwrap().of(Kind::Cluster, seed), options);
}

#[test]
fn shrinking_has_an_end() {
    let violation = Violation::new(Promise::Linear, "seen".to_owned());
    let broken =
        Broken { kind: Kind::Cluster, seed: 1, less: Less::nothing(), mutant: None, violation: violation.clone() };
    let mut seconds = 0;
    let shrunk = shrink_by(&broken, &mut |options| {
        seconds += 400;
        let _ = options;
        Verdict { seed: 1, violation: Some(violation.clone()), hash: 0, operations: 0, seconds: 400 }
    });
    assert!(shrunk.attempts <= ATTEMPTS_MAX && seconds < SECONDS_MAX + 400, "{seconds} virtual seconds");
}

#[test]
fn what_cannot_be_written_is_an_error_that_names_the_file() {
    let subject =
        Subject { kind: Kind::Engine, less: Less::parse(SHORT).unwrap(), mutant: None, commit: String::new() };
    let wanted = Wanted { history: Some("/proc/nope".into()), ..Wanted::default() };
    let error = subject.play(5, Lines::Forget, &wanted).unwrap_err();
    assert!(error.to_string().starts_with("cannot write /proc/nope: "), "{error}");
}

#[test]
fn the_line_of_two_plays_that_differ_plays_twice() {
    let subject =
        Subject { kind: Kind::Cluster, less: Less::parse(SHORT).unwrap(), mutant: None, commit: String::new() };
    let violation = |promise| Violation::new(promise, "seen".to_owned());
    let line = format!("make sim KIND=cluster SEED=9 N=1 LESS={SHORT}");
    assert_eq!(subject.repeat(9, &violation(Promise::Determinism)), format!("{line} TWICE=1"));
    assert_eq!(subject.repeat(9, &violation(Promise::Linear)), line);
}

#[test]
fn a_failure_that_does_not_come_again_is_not_drawn() {
    let subject =
        Subject { kind: Kind::Engine, less: Less::parse(SHORT).unwrap(), mutant: None, commit: String::new() };
    for (promise, what) in [(Promise::Determinism, "TWICE=1 TRACE=1"), (Promise::Linear, "keeps every promise")] {
        let lines = subject.explain(5, &Violation::new(promise, "seen".to_owned()), &Wanted::default()).unwrap();
        assert!(lines.len() == 1 && lines[0].contains(what), "{lines:?}");
        assert!(!subject.page(5).exists(), "{promise}");
    }
}

#[test]
fn what_is_less_already_is_drawn_once_and_not_shrunk() {
    let subject =
        Subject { kind: Kind::Engine, less: Less::parse(SHORT).unwrap(), mutant: None, commit: String::new() };
    let drawn = Wanted { report: true, ..Wanted::default() };
    let violation = Violation::new(Promise::Linear, "seen".to_owned());
    assert_eq!(subject.explain(5, &violation, &drawn).unwrap(), Vec::<String>::new());
}
