//! Requests and answers in a few words, for people who look at a diagram.

use std::fmt::Write as _;

use detcd_proto::etcdserverpb as pb;
use detcd_proto::mvccpb::KeyValue;
use pb::compare::TargetUnion;
use pb::request_op::Request;
use pb::response_op::Response;

use crate::record::{Answer, Ask, Outcome};

/// Keys and values of an answer that are told; the rest is counted.
const SHOWN_MAX: usize = 4;
/// Bytes of a value that are told.
const VALUE_BYTES_MAX: usize = 12;

impl Ask {
    /// What is asked for, in a few words.
    #[must_use]
    pub fn sketch(&self) -> String {
        match self {
            Self::Put(request) => put(request),
            Self::Range(request) => format!("get {}", range(request)),
            Self::Stream(request) => format!("stream {}", range(request)),
            Self::Delete(request) => delete(request),
            Self::Txn(request) => txn(request),
            Self::HashKv(request) => format!("hash at {}", request.revision),
            Self::Compact(request) => {
                format!("compact {}{}", request.revision, if request.physical { " physically" } else { "" })
            }
        }
    }
}

impl Outcome {
    /// How it ended, in a few words.
    #[must_use]
    pub fn sketch(&self) -> String {
        match self {
            Self::Answered(answer) => {
                let revision = answer.header().map_or(0, |header| header.revision);
                format!("revision {revision}{}", told(answer))
            }
            Self::Rejected(_, text) => format!("rejected: {text}"),
            Self::Refused(text) => format!("refused: {text}"),
            Self::Uncertain(text) => format!("unknown: {text}"),
        }
    }
}

/// Bytes as text, cut.
fn text(bytes: &[u8], max: usize) -> String {
    // Values begin with a word that is theirs alone; what follows only fills them.
    let own = bytes.iter().position(|byte| *byte == b';').map_or(bytes.len(), |end| end + 1);
    let cut = own.min(max);
    let dots = if cut < own { "…" } else { "" };
    format!("{}{dots}", bytes[..cut].escape_ascii())
}

fn span(key: &[u8], range_end: &[u8]) -> String {
    let first = text(key, VALUE_BYTES_MAX);
    match range_end {
        [] => first,
        [0] => format!("{first}.."),
        end => format!("{first}..{}", text(end, VALUE_BYTES_MAX)),
    }
}

fn put(request: &pb::PutRequest) -> String {
    let mut said = format!("put {} ", text(&request.key, VALUE_BYTES_MAX));
    if request.ignore_value {
        said.push_str("as it is");
    } else {
        let _ = write!(said, "= {}", text(&request.value, VALUE_BYTES_MAX));
    }
    if request.lease != 0 {
        let _ = write!(said, " lease {}", request.lease);
    }
    said
}

fn range(request: &pb::RangeRequest) -> String {
    let mut said = span(&request.key, &request.range_end);
    if request.revision > 0 {
        let _ = write!(said, " at {}", request.revision);
    }
    if request.limit > 0 {
        let _ = write!(said, " limit {}", request.limit);
    }
    for (is_so, word) in [
        (request.serializable, " serializable"),
        (request.keys_only, " keys only"),
        (request.count_only, " count only"),
        (request.sort_order != 0, " sorted"),
    ] {
        if is_so {
            said.push_str(word);
        }
    }
    said
}

fn delete(request: &pb::DeleteRangeRequest) -> String {
    format!("delete {}", span(&request.key, &request.range_end))
}

fn txn(request: &pb::TxnRequest) -> String {
    let compares: Vec<_> = request.compare.iter().map(compare).collect();
    let branch = |ops: &[pb::RequestOp]| ops.iter().filter_map(|op| op.request.as_ref()).map(op).collect::<Vec<_>>();
    let (success, failure) = (branch(&request.success), branch(&request.failure));
    format!("txn if [{}] then [{}] else [{}]", compares.join(", "), success.join(", "), failure.join(", "))
}

fn op(request: &Request) -> String {
    match request {
        Request::RequestRange(request) => format!("get {}", range(request)),
        Request::RequestPut(request) => put(request),
        Request::RequestDeleteRange(request) => delete(request),
        Request::RequestTxn(request) => txn(request),
    }
}

fn compare(compare: &pb::Compare) -> String {
    let sign = ["=", ">", "<", "≠"].get(compare.result.unsigned_abs() as usize).copied().unwrap_or("?");
    let key = span(&compare.key, &compare.range_end);
    match &compare.target_union {
        Some(TargetUnion::Version(given)) => format!("version({key}) {sign} {given}"),
        Some(TargetUnion::CreateRevision(given)) => format!("created({key}) {sign} {given}"),
        Some(TargetUnion::ModRevision(given)) => format!("modified({key}) {sign} {given}"),
        Some(TargetUnion::Value(given)) => format!("value({key}) {sign} {}", text(given, VALUE_BYTES_MAX)),
        Some(TargetUnion::Lease(given)) => format!("lease({key}) {sign} {given}"),
        None => format!("{key} {sign} nothing"),
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Put(response) => response.prev_kv.as_ref().map_or_else(String::new, |kv| format!(", was {}", pair(kv))),
        Answer::Range(response) => ranged(response),
        Answer::Delete(response) => format!(", {} deleted", response.deleted),
        Answer::Txn(response) => txn_told(response),
        Answer::HashKv(response) => format!(", hash {:08x} at {}", response.hash, response.hash_revision),
        Answer::Compact(_) => String::new(),
    }
}

fn ranged(response: &pb::RangeResponse) -> String {
    let pairs: Vec<_> = response.kvs.iter().take(SHOWN_MAX).map(pair).collect();
    let more = if SHOWN_MAX < response.kvs.len() { ", …" } else { "" };
    format!(": {} of [{}{more}]", response.count, pairs.join(", "))
}

fn pair(kv: &KeyValue) -> String {
    let (key, value) = (text(&kv.key, VALUE_BYTES_MAX), text(&kv.value, VALUE_BYTES_MAX));
    format!("{key}={value}@{}", kv.mod_revision)
}

fn txn_told(response: &pb::TxnResponse) -> String {
    let responses = response.responses.iter().filter_map(|op| op.response.as_ref());
    let told: Vec<_> = responses
        .map(|response| match response {
            Response::ResponseRange(response) => format!("got{}", ranged(response)),
            Response::ResponsePut(_) => "put".to_owned(),
            Response::ResponseDeleteRange(response) => format!("{} deleted", response.deleted),
            Response::ResponseTxn(response) => format!("txn{}", txn_told(response)),
        })
        .collect();
    format!(" {} [{}]", if response.succeeded { "then" } else { "else" }, told.join(", "))
}
