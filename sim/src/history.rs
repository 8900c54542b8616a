//! A history as a file: JSON lines that anybody can judge, with other rules and another language than ours. The format is `docs/format/history.md`.
//!
//! Nothing is left out of what clients asked and were told, but for the bytes of long values, which a sum stands for.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use detcd_proto::etcdserverpb as pb;
use detcd_proto::mvccpb::KeyValue;
use pb::compare::TargetUnion;
use pb::request_op::Request;
use pb::response_op::Response;

use crate::failures::Subject;
use crate::json::{Object, list, text};
use crate::options::Options;
use crate::record::{Answer, Ask, History, Operation, Outcome};

/// Values up to this length are written as they are.
const WHOLE_BYTES_MAX: usize = 24;
/// The bytes of longer ones that are.
const HEAD_BYTES: usize = 16;

/// What the first line says.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Which runs.
    pub subject: &'a Subject,
    /// Which of them.
    pub seed: u64,
    /// Its options.
    pub options: &'a Options,
}

/// Writes a history to `path`.
///
/// # Errors
/// The file's.
pub fn write(path: &Path, head: &Head<'_>, history: &History) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "{}", first_line(head, history))?;
    for operation in &history.operations {
        writeln!(file, "{}", line(operation))?;
    }
    file.flush()
}

fn first_line(head: &Head<'_>, history: &History) -> String {
    let Head { subject, seed, options } = head;
    let unasked = history.unasked.iter().flatten().map(ToString::to_string);
    let unasked = list(&unasked.collect::<Vec<_>>());
    let is_known = history.unasked.is_some() || options.member.retention_seconds == 0;
    let mutant = subject.mutant.as_ref().map_or("", |(_, name)| name.as_str());
    let head = Object::default()
        .with("format", &text("detcd-history"))
        .with("version", "1")
        .with("kind", &text(subject.kind.word()))
        .with("seed", &seed.to_string())
        .with("less", &text(&subject.less.to_string()))
        .with("mutant", &text(mutant))
        .with("commit", &text(&subject.commit))
        .with("members", &options.cluster.members.to_string());
    let head = if is_known { head.with("compacted", &unasked) } else { head };
    head.with("operations", &history.operations.len().to_string()).close()
}

/// One operation.
#[must_use]
pub fn line(operation: &Operation) -> String {
    let Operation { client, ask, invoked, completed, outcome, .. } = operation;
    Object::default()
        .with("client", &client.to_string())
        .with("invoked", &invoked.to_string())
        .with("completed", &completed.to_string())
        .with("ask", &asked(ask))
        .with("outcome", &ended(outcome))
        .close()
}

fn named(name: &str, value: &str) -> String {
    Object::default().with(name, value).close()
}

fn asked(ask: &Ask) -> String {
    match ask {
        Ask::Put(request) => named("put", &put(request)),
        Ask::Range(request) => named("range", &range(request)),
        Ask::Stream(request) => named("stream", &range(request)),
        Ask::Delete(request) => named("delete", &delete(request)),
        Ask::Txn(request) => named("txn", &txn(request)),
        Ask::HashKv(request) => named("hash", &Object::default().number("revision", request.revision).close()),
        Ask::Compact(request) => {
            let compact = Object::default().number("revision", request.revision).flag("physical", request.physical);
            named("compact", &compact.close())
        }
    }
}

fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered(answer) => named("answered", &answered(answer)),
        Outcome::Rejected(code, said) => {
            let rejected = Object::default().with("code", &text(&format!("{code:?}"))).with("text", &text(said));
            named("rejected", &rejected.close())
        }
        Outcome::Refused(said) => named("refused", &text(said)),
        Outcome::Uncertain(said) => named("unknown", &text(said)),
    }
}

/// Bytes as a text of as many letters, each of them one byte. A long value's end is its length and CRC-32C.
fn bytes(value: &[u8]) -> String {
    let letters = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    if value.len() <= WHOLE_BYTES_MAX {
        return text(&letters(value));
    }
    text(&format!("{}~{}~{:08x}", letters(&value[..HEAD_BYTES]), value.len(), crc32c::crc32c(value)))
}

/// A member that is left out if there is nothing in it.
fn some(object: Object, name: &str, value: &[u8]) -> Object {
    if value.is_empty() { object } else { object.with(name, &bytes(value)) }
}

fn put(request: &pb::PutRequest) -> String {
    let object = some(Object::default().with("key", &bytes(&request.key)), "value", &request.value);
    let object = object.number("lease", request.lease).flag("prev_kv", request.prev_kv);
    object.flag("ignore_value", request.ignore_value).flag("ignore_lease", request.ignore_lease).close()
}

fn range(request: &pb::RangeRequest) -> String {
    let object = some(Object::default().with("key", &bytes(&request.key)), "range_end", &request.range_end);
    object
        .number("limit", request.limit)
        .number("revision", request.revision)
        .number("sort_order", request.sort_order.into())
        .number("sort_target", request.sort_target.into())
        .flag("serializable", request.serializable)
        .flag("keys_only", request.keys_only)
        .flag("count_only", request.count_only)
        .number("min_mod_revision", request.min_mod_revision)
        .number("max_mod_revision", request.max_mod_revision)
        .number("min_create_revision", request.min_create_revision)
        .number("max_create_revision", request.max_create_revision)
        .close()
}

fn delete(request: &pb::DeleteRangeRequest) -> String {
    let object = some(Object::default().with("key", &bytes(&request.key)), "range_end", &request.range_end);
    object.flag("prev_kv", request.prev_kv).close()
}

fn txn(request: &pb::TxnRequest) -> String {
    let compares: Vec<_> = request.compare.iter().map(compare).collect();
    let branch = |ops: &[pb::RequestOp]| {
        let ops = ops.iter().map(|op| match &op.request {
            Some(Request::RequestPut(request)) => named("put", &put(request)),
            Some(Request::RequestRange(request)) => named("range", &range(request)),
            Some(Request::RequestDeleteRange(request)) => named("delete", &delete(request)),
            Some(Request::RequestTxn(request)) => named("txn", &txn(request)),
            None => Object::default().close(),
        });
        list(&ops.collect::<Vec<_>>())
    };
    Object::default()
        .with("compare", &list(&compares))
        .with("success", &branch(&request.success))
        .with("failure", &branch(&request.failure))
        .close()
}

fn compare(compare: &pb::Compare) -> String {
    let result = usize::try_from(compare.result).ok();
    let result = result.and_then(|result| ["equal", "greater", "less", "not_equal"].get(result).copied());
    let object = some(Object::default().with("key", &bytes(&compare.key)), "range_end", &compare.range_end);
    let object = match result {
        Some(result) => object.with("result", &text(result)),
        None => object,
    };
    let (object, own) = match &compare.target_union {
        Some(TargetUnion::Version(given)) => (object.with("version", &given.to_string()), Some(0)),
        Some(TargetUnion::CreateRevision(given)) => (object.with("create_revision", &given.to_string()), Some(1)),
        Some(TargetUnion::ModRevision(given)) => (object.with("mod_revision", &given.to_string()), Some(2)),
        Some(TargetUnion::Value(given)) => (object.with("value", &bytes(given)), Some(3)),
        Some(TargetUnion::Lease(given)) => (object.with("lease", &given.to_string()), Some(4)),
        None => (object, None),
    };
    if own == Some(compare.target) {
        return object.close();
    }
    object.with("target", &compare.target.to_string()).close()
}

fn answered(answer: &Answer) -> String {
    let header = |object: Object| match answer.header() {
        None => object,
        Some(header) => {
            let member = text(&format!("{:016x}", header.member_id));
            object.with("member", &member).with("term", &header.raft_term.to_string())
        }
    };
    let object = header(Object::default());
    match answer {
        Answer::Put(response) => put_told(object, response),
        Answer::Range(response) => range_told(object, response),
        Answer::Delete(response) => delete_told(object, response),
        Answer::Txn(response) => txn_told(object, response),
        Answer::HashKv(response) => revision(object, response.header.as_ref())
            .with("hash", &response.hash.to_string())
            .number("hash_revision", response.hash_revision)
            .number("compact_revision", response.compact_revision)
            .close(),
        Answer::Compact(response) => revision(object, response.header.as_ref()).close(),
    }
}

fn revision(object: Object, header: Option<&pb::ResponseHeader>) -> Object {
    object.number("revision", header.map_or(0, |header| header.revision))
}

fn put_told(object: Object, response: &pb::PutResponse) -> String {
    let object = revision(object, response.header.as_ref());
    match &response.prev_kv {
        Some(kv) => object.with("prev_kv", &key_value(kv)).close(),
        None => object.close(),
    }
}

fn range_told(object: Object, response: &pb::RangeResponse) -> String {
    let object = revision(object, response.header.as_ref()).with("kvs", &key_values(&response.kvs));
    object.number("count", response.count).flag("more", response.more).close()
}

fn delete_told(object: Object, response: &pb::DeleteRangeResponse) -> String {
    let object = revision(object, response.header.as_ref()).number("deleted", response.deleted);
    object.with("prev_kvs", &key_values(&response.prev_kvs)).close()
}

fn txn_told(object: Object, response: &pb::TxnResponse) -> String {
    let responses = response.responses.iter().filter_map(|op| op.response.as_ref());
    let responses = responses.map(|response| match response {
        Response::ResponsePut(response) => named("put", &put_told(Object::default(), response)),
        Response::ResponseRange(response) => named("range", &range_told(Object::default(), response)),
        Response::ResponseDeleteRange(response) => named("delete", &delete_told(Object::default(), response)),
        Response::ResponseTxn(response) => named("txn", &txn_told(Object::default(), response)),
    });
    let responses: Vec<_> = responses.collect();
    let object = revision(object, response.header.as_ref()).flag("succeeded", response.succeeded);
    object.with("responses", &list(&responses)).close()
}

fn key_values(kvs: &[KeyValue]) -> String {
    list(&kvs.iter().map(key_value).collect::<Vec<_>>())
}

fn key_value(kv: &KeyValue) -> String {
    let object = some(Object::default().with("key", &bytes(&kv.key)), "value", &kv.value);
    object
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .number("lease", kv.lease)
        .close()
}
