//! The compiled descriptors against the golden tables: every message, field number, type, label, oneof, enum value and method of etcd 3.7.
//!
//! The tables were made from the reference, not from the .proto files, so a slip in a .proto file shows here.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use detcd_proto::FILE_DESCRIPTOR_SET;
use prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Syntax};

fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap()
}

/// The first `columns` columns of a golden table, as a set of rows.
fn table(text: &str, columns: usize) -> BTreeSet<Vec<String>> {
    text.lines().skip(1).map(|line| line.split('\t').take(columns).map(str::to_owned).collect()).collect()
}

fn is_ours(package: &str) -> bool {
    !package.starts_with("google.")
}

fn type_name(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(kind) => kind.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn label(message: &MessageDescriptor, field: &FieldDescriptor) -> &'static str {
    match (field.cardinality(), message.parent_file().syntax()) {
        (Cardinality::Repeated, _) => "repeated",
        (Cardinality::Optional, Syntax::Proto2) => "optional",
        (Cardinality::Required, _) => "required",
        (Cardinality::Optional, _) => "",
    }
}

fn field_row(message: &MessageDescriptor, field: &FieldDescriptor) -> Vec<String> {
    let package = message.package_name();
    let local = message.full_name().strip_prefix(package).unwrap().trim_start_matches('.');
    let oneof = field.containing_oneof().map_or(String::new(), |oneof| oneof.name().to_owned());
    vec![
        package.to_owned(),
        local.to_owned(),
        field.name().to_owned(),
        field.number().to_string(),
        type_name(field),
        label(message, field).to_owned(),
        oneof,
    ]
}

#[test]
fn every_field_is_as_in_the_reference() {
    let golden: BTreeSet<_> =
        table(include_str!("reference.tsv"), 7).into_iter().filter(|row| !row[2].is_empty()).collect();
    let mut seen = BTreeSet::new();
    for message in pool().all_messages().filter(|message| is_ours(message.package_name()) && !message.is_map_entry()) {
        for field in message.fields() {
            seen.insert(field_row(&message, &field));
        }
    }
    assert_eq!(golden.difference(&seen).collect::<Vec<_>>(), Vec::<&Vec<String>>::new(), "missing");
    assert_eq!(seen.difference(&golden).collect::<Vec<_>>(), Vec::<&Vec<String>>::new(), "not in the reference");
    assert!(golden.len() >= 366);
}

#[test]
fn every_enum_value_is_as_in_the_reference() {
    let golden: BTreeSet<_> =
        table(include_str!("enums.tsv"), 4).into_iter().filter(|row| !row[2].is_empty()).collect();
    let mut seen = BTreeSet::new();
    for kind in pool().all_enums().filter(|kind| is_ours(kind.package_name())) {
        let package = kind.package_name().to_owned();
        let local = kind.full_name().strip_prefix(&package).unwrap().trim_start_matches('.').to_owned();
        for value in kind.values() {
            seen.insert(vec![package.clone(), local.clone(), value.name().to_owned(), value.number().to_string()]);
        }
    }
    assert_eq!(golden, seen);
}

fn kind(method: &MethodDescriptor) -> &'static str {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => "unary",
        (false, true) => "server-stream",
        (true, true) => "bidi-stream",
        (true, false) => "client-stream",
    }
}

#[test]
fn every_method_is_as_in_the_reference() {
    let golden = table(include_str!("methods.tsv"), 4);
    let mut seen = BTreeSet::new();
    for service in pool().services() {
        for method in service.methods() {
            seen.insert(vec![
                format!("/{}/{}", service.full_name(), method.name()),
                method.input().full_name().to_owned(),
                method.output().full_name().to_owned(),
                kind(&method).to_owned(),
            ]);
        }
    }
    assert_eq!(golden, seen);
    assert_eq!(golden.len(), 49 + 3);
}
