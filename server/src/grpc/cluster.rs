//! The Cluster service. A member lists its members; changing them comes with clusters.

use detcd_core::membership;
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use crate::member::{Member, respond};

/// The service over a member.
pub struct ClusterService<B> {
    member: Member<B>,
}

impl<B: Backend> ClusterService<B> {
    /// The service over `member`.
    #[must_use]
    pub const fn new(member: Member<B>) -> Self {
        Self { member }
    }
}

/// A member as clients see it.
#[must_use]
pub fn member(member: &membership::Member) -> pb::Member {
    pb::Member {
        id: member.id.0,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

fn unbuilt<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("membership changes are not built yet"))
}

#[tonic::async_trait]
impl<B: Backend> Cluster for ClusterService<B> {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        if request.get_ref().linearizable {
            self.member.read_barrier().await?;
        }
        let members = self.member.store().membership().iter().map(member).collect();
        // etcd leaves the revision out of the headers of this service.
        respond(pb::MemberListResponse { header: Some(self.member.header(0)), members })
    }

    async fn member_add(&self, _: Request<pb::MemberAddRequest>) -> Result<Response<pb::MemberAddResponse>, Status> {
        unbuilt()
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        unbuilt()
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        unbuilt()
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        unbuilt()
    }
}
