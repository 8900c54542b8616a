//! The Lease service: decode, ask, encode.

use detcd_core::ids::LeaseId;
use detcd_core::reply::Reply;
use detcd_io::codec::entry::Field;
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::lease_server::Lease;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::lease::LeaseSeen;
use crate::member::{Member, respond};
use crate::quota::Cost;
use crate::status;

/// Answers of one keep-alive stream that may wait for its client. Beyond it, no more of its requests are read.
const KEEP_ALIVES_MAX: usize = 16;

/// The service over a member.
pub struct LeaseService<B> {
    member: Member<B>,
}

impl<B: Backend> LeaseService<B> {
    /// The service over `member`.
    #[must_use]
    pub const fn new(member: Member<B>) -> Self {
        Self { member }
    }

    async fn apply(&self, field: Field, message: &impl prost::Message) -> Result<Reply, Status> {
        let answer = self.member.propose(field, message).await?;
        answer.reply.map_err(|why| status::status(status::rejected(why)))
    }

    /// A header with the present revision.
    fn header(&self) -> Option<pb::ResponseHeader> {
        header(&self.member)
    }

    /// An id that nobody has asked for: positive, from the generator of request ids.
    fn fresh_id(&self) -> i64 {
        loop {
            let id = (self.member.asker().ticket().0 & (u64::MAX >> 1)).cast_signed();
            if id != 0 {
                return id;
            }
        }
    }
}

fn header<B: Backend>(member: &Member<B>) -> Option<pb::ResponseHeader> {
    Some(member.header(member.store().current()))
}

#[tonic::async_trait]
impl<B: Backend> Lease for LeaseService<B> {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        self.member.check_quota(Cost::LEASE).await?;
        let mut request = request.into_inner();
        if request.id == 0 {
            request.id = self.fresh_id();
        }
        let reply = self.apply(Field::LeaseGrant, &request).await?;
        let Reply::LeaseGrant(granted) = reply else { unreachable!("a grant is answered by one, not by {reply:?}") };
        self.member.recheck_quota(Cost::LEASE).await?;
        let header = self.header();
        respond(pb::LeaseGrantResponse { header, id: granted.id.0, ttl: granted.ttl, error: String::new() })
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        self.apply(Field::LeaseRevoke, request.get_ref()).await?;
        respond(pb::LeaseRevokeResponse { header: self.header() })
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.member.check_metadata(request.metadata())?;
        let (answers, stream) = mpsc::channel(KEEP_ALIVES_MAX);
        let member = self.member.clone();
        let requests = request.into_inner();
        tokio::spawn(async move {
            if let Err(status) = keep_alive(&member, requests, &answers).await {
                // The client may be gone, too.
                let _ = answers.send(Err(status)).await;
            }
        });
        respond(ReceiverStream::new(stream))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let seen = self.member.look_at_lease(LeaseId(id), keys).await?;
        let response = pb::LeaseTimeToLiveResponse { header: self.header(), id, ..Default::default() };
        respond(match seen {
            None => pb::LeaseTimeToLiveResponse { ttl: -1, ..response },
            Some(LeaseSeen { left, ttl, keys }) => {
                pb::LeaseTimeToLiveResponse { ttl: left, granted_ttl: ttl, keys, ..response }
            }
        })
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let leases = self.member.store().leases().into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        respond(pb::LeaseLeasesResponse { header: self.header(), leases })
    }
}

/// Answers each request of a stream, in order, until the client ends it. The header is from before the renewal, as in etcd.
async fn keep_alive<B: Backend>(
    member: &Member<B>,
    mut requests: Streaming<pb::LeaseKeepAliveRequest>,
    answers: &mpsc::Sender<Result<pb::LeaseKeepAliveResponse, Status>>,
) -> Result<(), Status> {
    while let Some(pb::LeaseKeepAliveRequest { id }) = requests.message().await? {
        let header = header(member);
        let ttl = member.renew_lease(LeaseId(id)).await?;
        if answers.send(Ok(pb::LeaseKeepAliveResponse { header, id, ttl })).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
