//! The Maintenance service: status, hashes, alarms, defragmentation, snapshots, leadership and downgrades.

use detcd_core::alarm::{Alarm, Alarms};
use detcd_core::command::AlarmAction;
use detcd_core::ids::MemberId;
use detcd_core::membership::Membership;
use detcd_core::reply::Reply;
use detcd_io::clock::Instant;
use detcd_io::codec::entry::Field;
use detcd_io::driver::bounds;
use detcd_io::store::backend::Backend;
use detcd_io::store::hash::{HashAll, HashKeys, Hashed, KeysHash};
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::maintenance_server::Maintenance;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::snapshot;
use crate::member::{Member, VERSION, respond};
use crate::mutants::mutated;
use crate::status::{self, Refused};

/// Pieces of a snapshot that wait for their client.
const PIECES_MAX: usize = 2;

/// The service over a member.
pub struct MaintenanceService<B> {
    member: Member<B>,
}

impl<B: Backend> MaintenanceService<B> {
    /// The service over `member`.
    #[must_use]
    pub const fn new(member: Member<B>) -> Self {
        Self { member }
    }
}

impl<B: Backend> MaintenanceService<B> {
    async fn hash_keys(&self, asked: i64) -> Result<KeysHash, Status> {
        let begin = || {
            let hashing = HashKeys::new(self.member.store(), asked);
            hashing.map_err(|why| status::status(status::rejected(why)))
        };
        let mut hashing = begin()?;
        loop {
            match hashing.advance(bounds::READ_KEYS_PER_TURN).map_err(|fault| self.member.fail(fault))? {
                Hashed::Done(hashed) => return Ok(hashed),
                Hashed::More => tokio::task::yield_now().await,
                Hashed::Overtaken => hashing = begin()?,
            }
        }
    }
}

fn alarm_member(alarm: Alarm) -> pb::AlarmMember {
    pb::AlarmMember { member_id: alarm.member.0, alarm: alarm.kind.number() }
}

fn downgrade_info(membership: &Membership) -> pb::DowngradeInfo {
    let downgrade = membership.downgrade();
    pb::DowngradeInfo { enabled: downgrade.enabled, target_version: downgrade.target.clone() }
}

/// What is wrong, for Status. Alarms come in Go's text form of a protobuf message.
fn errors(leaderless: bool, alarms: &Alarms) -> Vec<String> {
    let mut errors = Vec::new();
    if leaderless {
        errors.push("etcdserver: no leader".to_owned());
    }
    errors.extend(alarms.iter().map(|Alarm { member, kind }| {
        let member = if member.0 == 0 { String::new() } else { format!("memberID:{} ", member.0) };
        match pb::AlarmType::try_from(kind.number()) {
            Ok(kind) => format!("{member}alarm:{}", kind.as_str_name()),
            Err(_) => format!("{member}alarm:{}", kind.number()),
        }
    }));
    errors
}

#[tonic::async_trait]
impl<B: Backend> Maintenance for MaintenanceService<B> {
    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        self.member.check_metadata_at_any(request.metadata())?;
        let (store, gauges) = (self.member.store(), self.member.asker().gauges());
        let size = store.size();
        let leader = gauges.leader();
        respond(pb::StatusResponse {
            header: Some(self.member.header(store.current())),
            version: VERSION.to_owned(),
            db_size: i64::try_from(size.allocated).unwrap_or(i64::MAX),
            leader: leader.map_or(0, |id| id.0),
            raft_index: gauges.committed().0,
            raft_term: gauges.term().0,
            raft_applied_index: gauges.applied().0,
            errors: errors(leader.is_none(), &store.alarms()),
            db_size_in_use: i64::try_from(size.in_use).unwrap_or(i64::MAX),
            is_learner: self.member.is_learner(),
            storage_version: store.storage_version().map_or(String::new(), |version| version.to_string()),
            db_size_quota: self.member.limits().quota_bytes,
            downgrade_info: Some(downgrade_info(&store.membership())),
        })
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let store = self.member.store();
        let asked = request.get_ref().revision;
        let hashed = match store.compaction_hash(asked) {
            Some(hashed) => hashed,
            None => {
                let began = Instant::now();
                let hashed = self.hash_keys(asked).await?;
                self.member.counts().key_hashes.observe(began.elapsed());
                hashed
            }
        };
        let is_apart = asked == 0 && mutated!(self.member.limits(), HashAndRevisionApart);
        respond(pb::HashKvResponse {
            header: Some(self.member.header(store.current())),
            hash: hashed.hash,
            compact_revision: hashed.compacted,
            hash_revision: if is_apart { store.current() } else { hashed.revision },
        })
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let store = self.member.store();
        let began = Instant::now();
        let mut hashing = HashAll::new(store);
        let hash = loop {
            match hashing.advance(bounds::READ_KEYS_PER_TURN).map_err(|fault| self.member.fail(fault))? {
                Some(hash) => break hash,
                None => tokio::task::yield_now().await,
            }
        };
        self.member.counts().hashes.observe(began.elapsed());
        respond(pb::HashResponse { header: Some(self.member.header(store.current())), hash })
    }

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let request = request.into_inner();
        // etcd proposes any number and then panics.
        if let AlarmAction::Unknown(number) = AlarmAction::from_number(request.action) {
            return Err(Status::invalid_argument(format!("etcdserver: unknown alarm action {number}")));
        }
        let answer = self.member.propose(Field::Alarm, &request).await?;
        let reply = answer.reply.map_err(|why| status::status(status::rejected(why)))?;
        let Reply::Alarms(alarms) = reply else {
            unreachable!("an alarm request is answered by one, not by {reply:?}")
        };
        let alarms = alarms.into_iter().map(alarm_member).collect();
        respond(pb::AlarmResponse { header: Some(self.member.header(answer.revision)), alarms })
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let (ask, answered) = oneshot::channel();
        let asked = self.member.upkeep().defragment.send(ask).await;
        asked.map_err(|_| Refused::Stopped)?;
        match answered.await {
            Ok(Ok(())) => respond(pb::DefragmentResponse { header: None }),
            Ok(Err(cause)) => Err(Status::unknown(cause)),
            Err(_) => Err(Refused::Stopped.into()),
        }
    }

    type SnapshotStream = ReceiverStream<Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(&self, request: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        self.member.check_metadata_at_any(request.metadata())?;
        let member = self.member.clone();
        let (pieces, stream) = mpsc::channel(PIECES_MAX);
        tokio::spawn(async move {
            let version = member.store().storage_version().map_or(String::new(), |version| version.to_string());
            let began = Instant::now();
            let copied = tokio::select! {
                copied = snapshot::copy(&member) => copied,
                // A client that left while it waited needs no copy.
                () = pieces.closed() => return,
            };
            match copied {
                Ok(copied) => {
                    snapshot::send(copied, version, pieces).await;
                    member.counts().snapshots.observe(began.elapsed());
                }
                Err(status) => drop(pieces.send(Err(status)).await),
            }
        });
        respond(ReceiverStream::new(stream))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        self.member.move_leader(MemberId(request.get_ref().target_id)).await?;
        respond(pb::MoveLeaderResponse { header: Some(self.member.header(self.member.store().current())) })
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.member.check_metadata(request.metadata())?;
        let pb::DowngradeRequest { action, version } = request.get_ref();
        let version = match pb::downgrade_request::DowngradeAction::try_from(*action) {
            Ok(pb::downgrade_request::DowngradeAction::Validate) => self.member.validate_downgrade(version).await?,
            Ok(pb::downgrade_request::DowngradeAction::Enable) => self.member.enable_downgrade(version).await?,
            Ok(pb::downgrade_request::DowngradeAction::Cancel) => self.member.cancel_downgrade().await,
            Err(_) => return Err(Refused::UnknownMethod.into()),
        };
        respond(pb::DowngradeResponse { header: Some(self.member.header(self.member.store().current())), version })
    }
}
