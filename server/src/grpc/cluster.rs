//! The Cluster service: decode, ask, encode.

use detcd_core::ids::MemberId;
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

    /// etcd leaves the revision out of the headers of this service.
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.member.header(0))
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
        respond(pb::MemberListResponse { header: self.header(), members })
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let pb::MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        let (added, members) = self.member.add_member(&peer_ur_ls, is_learner).await?;
        let members = members.iter().map(member).collect();
        respond(pb::MemberAddResponse { header: self.header(), member: Some(member(&added)), members })
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let members = self.member.remove_member(MemberId(request.get_ref().id)).await?;
        respond(pb::MemberRemoveResponse { header: self.header(), members: members.iter().map(member).collect() })
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let members = self.member.update_member(MemberId(id), &peer_ur_ls).await?;
        respond(pb::MemberUpdateResponse { header: self.header(), members: members.iter().map(member).collect() })
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let members = self.member.promote_member(MemberId(request.get_ref().id)).await?;
        respond(pb::MemberPromoteResponse { header: self.header(), members: members.iter().map(member).collect() })
    }
}
