//! Generates the messages and services from our own .proto files, without protoc.
//!
//! The generator emits two sets of service code, one over tonic and one over its simulated twin; `tonic::include_proto!` of the
//! `tonic` in force picks the right one. Bytes fields become `Bytes`, so keys and values are slices of the request's buffer.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const FILES: [&str; 21] = [
    "authpb/auth.proto",
    "etcdserverpb/auth.proto",
    "etcdserverpb/cluster.proto",
    "etcdserverpb/etcdserver.proto",
    "etcdserverpb/header.proto",
    "etcdserverpb/kv.proto",
    "etcdserverpb/lease.proto",
    "etcdserverpb/maintenance.proto",
    "etcdserverpb/raft_internal.proto",
    "etcdserverpb/rpc.proto",
    "etcdserverpb/watch.proto",
    "grpc/health/v1/health.proto",
    "leasepb/lease.proto",
    "membershippb/membership.proto",
    "mvccpb/kv.proto",
    "raftpb/raft.proto",
    "snappb/snap.proto",
    "v3electionpb/election.proto",
    "v3lockpb/lock.proto",
    "versionpb/version.proto",
    "walpb/record.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("detcd.bin");
    // The compiler's own encoder keeps our version annotations, which prost's types would drop.
    fs::write(&out, compiler.encode_file_descriptor_set())?;
    madsim_tonic_build::configure()
        .file_descriptor_set_path(&out)
        .skip_protoc_run()
        .emit_rerun_if_changed(false)
        .bytes(["."])
        .compile_protos(&FILES.map(|file| root.join(file)), &[root.to_path_buf()])?;
    Ok(())
}
