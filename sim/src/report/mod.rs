//! A run as a page: members and clients side by side, time running down, and what broke at the top.
//!
//! One file that needs nothing else, no network and no server. It begins where the promise broke; everything else of the run can be scrolled to. Its size is bounded: of what is too
//! much for it, the part that is farthest from that moment is left out, and the page says how much. Texts of members and clients are data in it, never markup.

mod data;
mod suspects;

use std::fmt::Write as _;
use std::time::Duration;

use self::data::Data;
use self::suspects::Suspect;
use crate::check::Violation;
use crate::film::Shot;
use crate::less::Less;
use crate::options::Options;
use crate::record::History;
use crate::run::Verdict;

/// The largest page. The sum of all that is bounded in it is less.
pub const PAGE_BYTES_MAX: usize = 8 << 20;
/// Letters of a text in the page's head.
const TEXT_MAX: usize = 4_000;
/// Virtual time that is shown first, at least and at most.
const FOCUS_MIN: Duration = Duration::from_millis(250);
const FOCUS_MAX: Duration = Duration::from_secs(3);

/// What a page is made of.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The options, and what was taken away from those that the seed drew.
    pub options: &'a Options,
    /// What was taken away.
    pub less: &'a Less,
    /// The seed that was asked for; the options' own may be other dice.
    pub seed: u64,
    /// The name of the bug in it, if somebody put one there.
    pub mutant: Option<&'a str>,
    /// Which code.
    pub commit: &'a str,
    /// What came of the run.
    pub verdict: &'a Verdict,
    /// What happened.
    pub shots: &'a [Shot],
    /// What clients saw.
    pub history: &'a History,
}

impl Source<'_> {
    /// The line that repeats the run.
    #[must_use]
    pub fn command(&self) -> String {
        let mut line = format!("make sim KIND={} SEED={} N=1", self.options.kind.word(), self.seed);
        if !self.less.is_nothing() {
            let _ = write!(line, " LESS={}", self.less);
        }
        if let Some(mutant) = self.mutant {
            let _ = write!(line, " MUTANT={mutant}");
        }
        line
    }
}

/// The page.
#[must_use]
pub fn page(source: &Source<'_>) -> String {
    let suspects = suspects::find(source.verdict.violation.as_ref(), source.history);
    let data = Data::gather(source, &suspects);
    let mut page = String::with_capacity(1 << 20);
    let title = match &source.verdict.violation {
        Some(violation) => format!("{} is broken: seed {}", violation.promise, source.seed),
        None => format!("seed {} keeps every promise", source.seed),
    };
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n",
        escape(&title),
        include_str!("page.css")
    );
    head(&mut page, source, &title, &data);
    table(&mut page, &suspects, &data);
    lanes(&mut page, &data);
    let _ = write!(
        page,
        "<script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{}</script>\n</body>\n</html>\n",
        data.json(),
        include_str!("page.js")
    );
    assert!(page.len() <= PAGE_BYTES_MAX, "the parts are bounded");
    page
}

fn head(page: &mut String, source: &Source<'_>, title: &str, data: &Data) {
    let Source { options, mutant, commit, verdict, .. } = source;
    let _ = writeln!(page, "<h1>{}</h1>", escape(title));
    if let Some(Violation { what, .. }) = &verdict.violation {
        let _ = writeln!(page, "<p class=\"violation\">{}</p>", escape(&cut(&data.named(what), TEXT_MAX)));
    }
    let left = data.left_out();
    let members = data.members();
    let facts = [
        ("repeat", format!("{} REPORT=1", source.command())),
        ("known bug", mutant.unwrap_or("none").to_owned()),
        ("commit", if commit.is_empty() { "unknown".to_owned() } else { (*commit).to_owned() }),
        ("trace", format!("{:016x}", verdict.hash)),
        ("members", if members.is_empty() { "m0".to_owned() } else { members }),
        ("operations", verdict.operations.to_string()),
        ("left out of this page", if left.is_empty() { "nothing".to_owned() } else { left }),
    ];
    page.push_str("<dl>\n");
    for (name, fact) in facts {
        let (class, tag) = if fact.starts_with("make ") { (" class=\"wide\"", "code") } else { ("", "span") };
        let _ = writeln!(page, "<dt>{name}</dt><dd{class}><{tag}>{}</{tag}></dd>", escape(&fact));
    }
    page.push_str("</dl>\n");
    let options = escape(&cut(&format!("{options:#?}"), 4 * TEXT_MAX));
    let _ = writeln!(page, "<details><summary>all options of the run</summary><pre>{options}</pre></details>");
}

/// The operations that contradict each other.
fn table(page: &mut String, suspects: &[Suspect<'_>], data: &Data) {
    if suspects.is_empty() {
        return;
    }
    page.push_str("<table class=\"suspects\">\n<tr><th></th><th>client</th><th>operation</th><th>from – to, seconds</th><th>asked</th><th>told</th></tr>\n");
    for (number, suspect) in (1..).zip(suspects) {
        let operation = suspect.operation;
        let _ = writeln!(
            page,
            "<tr class=\"{}\" data-operation=\"{}\"><td>{number}</td><td>{}</td><td>{}<br/>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            if suspect.is_first { "first" } else { "other" },
            operation.invoked,
            operation.client,
            operation.invoked,
            escape(&suspect.role),
            data.span_of(operation.invoked),
            escape(&cut(&operation.ask.sketch(), TEXT_MAX / 4)),
            escape(&cut(&operation.outcome.sketch(), TEXT_MAX / 4)),
        );
    }
    page.push_str("</table>\n");
}

/// What the script draws into: one lane for each member and each client.
fn lanes(page: &mut String, data: &Data) {
    page.push_str("<div id=\"tools\"></div>\n<noscript>The diagram needs JavaScript.</noscript>\n<div id=\"lanes\">\n");
    for place in 0..data.members {
        let _ = writeln!(page, "<span class=\"lane\" data-member=\"{place}\">m{place}</span>");
    }
    for client in &data.clients {
        let _ = writeln!(page, "<span class=\"lane\" data-client=\"{client}\">{client}</span>");
    }
    page.push_str("</div>\n<div id=\"diagram\"></div>\n<p id=\"legend\"></p>\n");
}

/// At most so many letters.
fn cut(text: &str, letters_max: usize) -> String {
    match text.char_indices().nth(letters_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
