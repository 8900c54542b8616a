//! The standard gRPC health service: this server as a whole, named by the empty string, serves.

use std::collections::HashMap;

use detcd_proto::grpc_health_v1::health_check_response::ServingStatus;
use detcd_proto::grpc_health_v1::health_server::Health;
use detcd_proto::grpc_health_v1::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::member::respond;

/// The service. It is reachable only while clients are served, so it has one answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct HealthService;

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if request.get_ref().service.is_empty() {
            return respond(response(ServingStatus::Serving));
        }
        Err(Status::not_found("unknown service"))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = HashMap::from([(String::new(), response(ServingStatus::Serving))]);
        respond(HealthListResponse { statuses })
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let status =
            if request.get_ref().service.is_empty() { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        let (updates, stream) = mpsc::channel(1);
        updates.try_send(Ok(response(status))).expect("an empty queue has room");
        // The status never changes: the stream stays open until its client or the server goes.
        tokio::spawn(async move { updates.closed().await });
        respond(ReceiverStream::new(stream))
    }
}
