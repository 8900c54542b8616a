//! Sockets: bound early, served late. Clients get gRPC and HTTP/1.1 on one port, members HTTP/1.1 on another.

use detcd_io::boot::url::{Scheme, Url};
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb::cluster_server::ClusterServer;
use detcd_proto::etcdserverpb::kv_server::KvServer;
use detcd_proto::etcdserverpb::lease_server::LeaseServer;
use detcd_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use detcd_proto::etcdserverpb::watch_server::WatchServer;
use detcd_proto::grpc_health_v1::health_server::HealthServer;
use detcd_server::config::{Config, Limits};
use detcd_server::grpc::cluster::ClusterService;
use detcd_server::grpc::health::HealthService;
use detcd_server::grpc::kv::KvService;
use detcd_server::grpc::lease::LeaseService;
use detcd_server::grpc::maintenance::MaintenanceService;
use detcd_server::grpc::watch::WatchService;
use detcd_server::member::Member;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::http;
use crate::metrics::Metrics;
use crate::peer::{self, Network};
use crate::run::Failure;
use crate::serve;

/// What gRPC adds to a request's own limit (etcd's overhead allowance).
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// Sockets that are bound and not served yet.
pub(crate) struct Bound {
    pub(crate) clients: Vec<TcpListener>,
    pub(crate) peers: Vec<TcpListener>,
}

/// Binds every address that was asked for.
pub(crate) async fn bind(config: &Config) -> Result<Bound, Failure> {
    Ok(Bound { peers: bind_all(&config.urls.listen_peer).await?, clients: bind_all(&config.urls.listen_client).await? })
}

async fn bind_all(urls: &[Url]) -> Result<Vec<TcpListener>, Failure> {
    let mut listeners = Vec::new();
    for url in urls {
        let failure = |cause: String| Failure::Listener { address: url.authority().to_owned(), cause };
        if url.scheme() != Scheme::Http {
            return Err(failure("only http is built yet".to_owned()));
        }
        let listener = TcpListener::bind(url.authority()).await.map_err(|error| {
            let in_use = error.kind() == std::io::ErrorKind::AddrInUse;
            failure(if in_use { "address already in use".to_owned() } else { error.to_string() })
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Listeners that are being served.
pub(crate) struct Serving {
    tasks: JoinSet<()>,
}

impl Serving {
    /// Waits until all of them have drained.
    pub(crate) async fn finished(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Serves gRPC and HTTP to clients.
pub(crate) fn serve_clients<B: Backend>(
    listeners: Vec<TcpListener>,
    member: &Member<B>,
    metrics: Metrics,
    limits: &Limits,
    closed: &watch::Receiver<bool>,
) -> Serving {
    let request_bytes = usize::try_from(limits.request_bytes_max).unwrap_or(usize::MAX);
    let receive_max = request_bytes.saturating_add(GRPC_OVERHEAD_BYTES);
    let send_max = usize::try_from(i32::MAX).expect("31 bits fit");
    let kv = KvServer::new(KvService::new(member.clone()));
    let maintenance = MaintenanceServer::new(MaintenanceService::new(member.clone()));
    let watch = WatchServer::new(WatchService::new(member.clone()));
    let routes = Routes::new(kv.max_decoding_message_size(receive_max).max_encoding_message_size(send_max))
        .add_service(ClusterServer::new(ClusterService::new(member.clone())).max_decoding_message_size(receive_max))
        .add_service(watch.max_decoding_message_size(receive_max).max_encoding_message_size(send_max))
        .add_service(LeaseServer::new(LeaseService::new(member.clone())).max_decoding_message_size(receive_max))
        .add_service(maintenance.max_decoding_message_size(receive_max))
        .add_service(HealthServer::new(HealthService));
    let router = http::client_router(routes.into_axum_router(), member.clone(), metrics, receive_max);
    serve(listeners, &router, limits.streams_max, closed)
}

/// Serves what other members may ask.
pub(crate) fn serve_peers<B: Backend>(
    listeners: Vec<TcpListener>,
    member: Member<B>,
    network: Network,
    closed: &watch::Receiver<bool>,
) -> Serving {
    let router = http::peer_router(member.clone()).merge(peer::router(network)).merge(peer::about::router(member));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let closed = closed.clone();
        tasks.spawn(peer::serve::serve(listener, router.clone(), move || serve::until_closed(closed.clone())));
    }
    Serving { tasks }
}

fn serve(
    listeners: Vec<TcpListener>,
    router: &axum::Router,
    streams_max: u32,
    closed: &watch::Receiver<bool>,
) -> Serving {
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(serve::serve(listener, router.clone(), streams_max, closed.clone()));
    }
    Serving { tasks }
}
