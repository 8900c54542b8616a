//! The wire: every message and service of etcd 3.7, generated from our own .proto files.
//!
//! One module per etcd package, named as on the wire. Nothing here decides anything; texts, checks and conversions live with their users.
//! All bytes fields are [`bytes::Bytes`]: a key is a slice of the buffer it arrived in. proto2 messages (the log's own) keep presence,
//! because etcd writes explicit zeros and its files are compatible to the byte.

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    clippy::all,
    clippy::nursery,
    clippy::pedantic
)]
mod generated {
    pub mod authpb {
        tonic::include_proto!("authpb");
    }
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    pub mod leasepb {
        tonic::include_proto!("leasepb");
    }
    pub mod membershippb {
        tonic::include_proto!("membershippb");
    }
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    pub mod raftpb {
        tonic::include_proto!("raftpb");
    }
    pub mod snappb {
        tonic::include_proto!("snappb");
    }
    pub mod v3electionpb {
        tonic::include_proto!("v3electionpb");
    }
    pub mod v3lockpb {
        tonic::include_proto!("v3lockpb");
    }
    pub mod walpb {
        tonic::include_proto!("walpb");
    }
    pub mod grpc_health_v1 {
        tonic::include_proto!("grpc.health.v1");
    }
}

pub use generated::*;

/// The compiled descriptors of everything above, as a serialized `FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/detcd.bin"));
