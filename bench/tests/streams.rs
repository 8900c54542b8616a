//! The generator's streams against a small server that can be told to do wrong: what is missing, cancelled or altered must show.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use detcd_bench::load::disturb::{Disturbance, Disturber};
use detcd_bench::load::watchers::{Aim, Fleet, FleetPlan};
use detcd_bench::load::{LoadError, leases, stamp};
use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::lease_server::{Lease, LeaseServer};
use detcd_proto::etcdserverpb::watch_server::{Watch, WatchServer};
use detcd_proto::mvccpb::{Event, KeyValue};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

type Told = mpsc::Sender<Result<pb::WatchResponse, Status>>;

/// Confirms every watcher and keeps the way to tell it something.
#[derive(Clone, Default)]
struct Watchers {
    told: Arc<Mutex<Vec<Told>>>,
}

impl Watchers {
    fn all(&self) -> Vec<Told> {
        self.told.lock().expect("no panic").clone()
    }
}

#[tonic::async_trait]
impl Watch for Watchers {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(1_000);
        let (told, mut requests) = (Arc::clone(&self.told), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(_)) = requests.message().await {
                let created = pb::WatchResponse { created: true, ..pb::WatchResponse::default() };
                sender.send(Ok(created)).await.expect("room");
                told.lock().expect("no panic").push(sender.clone());
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Grants what is asked, and renews with the time to live that it was made with.
#[derive(Clone)]
struct Leases {
    seconds: i64,
}

#[tonic::async_trait]
impl Lease for Leases {
    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        Ok(Response::new(pb::LeaseGrantResponse { ttl, id, ..pb::LeaseGrantResponse::default() }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (sender, receiver) = mpsc::channel(10);
        let (ttl, mut requests) = (self.seconds, request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(pb::LeaseKeepAliveRequest { id })) = requests.message().await {
                let kept = pb::LeaseKeepAliveResponse { id, ttl, ..pb::LeaseKeepAliveResponse::default() };
                if sender.send(Ok(kept)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn lease_revoke(
        &self,
        _: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let leases = vec![pb::LeaseStatus { id: 1 }, pb::LeaseStatus { id: 2 }];
        Ok(Response::new(pb::LeaseLeasesResponse { leases, ..pb::LeaseLeasesResponse::default() }))
    }
}

struct Served {
    address: SocketAddr,
    watchers: Watchers,
    service: AbortHandle,
}

impl Served {
    async fn start(seconds: i64) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let watchers = Watchers::default();
        let router = tonic::transport::Server::builder()
            .add_service(WatchServer::new(watchers.clone()))
            .add_service(LeaseServer::new(Leases { seconds }));
        let service = tokio::spawn(router.serve(address)).abort_handle();
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return Self { address, watchers, service };
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the server does not listen");
    }

    async fn fleet(&self, aim: Aim) -> Fleet {
        let plan = FleetPlan { server: self.address, connections: 2, streams: 3, watchers: 7, aim };
        Fleet::start(plan).await.expect("all watchers are confirmed")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.service.abort();
    }
}

fn events(count: usize) -> pb::WatchResponse {
    let kv = KeyValue { value: stamp::now().to_vec().into(), ..KeyValue::default() };
    let event = Event { kv: Some(kv), ..Event::default() };
    pb::WatchResponse { events: vec![event; count], ..pb::WatchResponse::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_counts_and_times_what_each_watcher_is_told() {
    let served = Served::start(1).await;
    let fleet = served.fleet(Aim::AllKeys).await;
    let told = served.watchers.all();
    assert_eq!(told.len(), 7);
    fleet.record(true);
    for told in &told {
        told.send(Ok(events(1))).await.expect("room");
        told.send(Ok(events(2))).await.expect("room");
    }
    while fleet.events() < 21 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(fleet.latency().requests(), 21);
    fleet.finish(3).await.expect("three puts for each of seven");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_too_many_fails_the_run() {
    let served = Served::start(1).await;
    let fleet = served.fleet(Aim::OwnKey).await;
    served.watchers.all()[0].send(Ok(events(5))).await.expect("room");
    let finished = fleet.finish(4).await;
    assert!(matches!(finished, Err(LoadError::Events { told: 5, written: 4 })), "{finished:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_watcher_fails_the_run() {
    let served = Served::start(1).await;
    let fleet = served.fleet(Aim::OwnKey).await;
    let cancelled = pb::WatchResponse { canceled: true, cancel_reason: "why".to_owned(), ..events(0) };
    let told = served.watchers.all();
    // In this order: after the cancellation the run may be over.
    told[1].send(Ok(events(1))).await.expect("room");
    told[0].send(Ok(cancelled)).await.expect("room");
    while !told[0].is_closed() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let finished = fleet.finish(0).await;
    assert!(matches!(&finished, Err(LoadError::Ended(why)) if why.contains("why")), "{finished:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_granted_counted_and_kept() {
    let served = Served::start(600).await;
    let granted = leases::grant(served.address, 3, 50, 9).await.expect("granted");
    assert_eq!(granted.latency.requests(), 50);
    assert_eq!(leases::count(served.address).await.expect("two"), 2);
    let times = (Duration::from_millis(20), Duration::from_millis(100));
    let mut edges = Vec::new();
    let kept = leases::keep_alive(served.address, 3, times, |edge| edges.push(edge)).await.expect("kept");
    assert_eq!(edges.len(), 2);
    assert!(0 < kept.latency.requests());
    assert!(times.1 <= kept.elapsed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_not_kept_as_granted_fails_the_run() {
    let served = Served::start(599).await;
    let times = (Duration::ZERO, Duration::from_millis(100));
    let kept = leases::keep_alive(served.address, 1, times, |_| ()).await;
    assert!(matches!(&kept, Err(LoadError::Ended(why)) if why.contains("599")), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_lacks_is_not_served() {
    let served = Served::start(1).await;
    for disturbance in [Disturbance::Defragmentation, Disturbance::Snapshot, Disturbance::Compaction { revision: 1 }] {
        let disturber = Disturber::start(served.address, disturbance).await.expect("a connection");
        disturber.begin();
        while !disturber.is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let stopped = disturber.stop();
        assert!(matches!(stopped, Err(LoadError::NotServed(_))), "{disturbance:?}: {stopped:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disturbance_waits_for_its_beginning_and_tells_how_long_it_took() {
    let served = Served::start(1).await;
    let late = Disturbance::LateWatcher { from: 1, upto: 0 };
    let disturber = Disturber::start(served.address, late).await.expect("a connection");
    assert!(served.watchers.all().is_empty() && !disturber.is_over(), "nobody has begun it");
    disturber.begin();
    while served.watchers.all().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while !disturber.is_over() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(disturber.stop().expect("it was served").len(), 1);

    let stuck = Disturbance::StuckWatchers { watchers: 4 };
    let disturber = Disturber::start(served.address, stuck).await.expect("all are confirmed");
    assert_eq!(served.watchers.all().len(), 5);
    assert!(disturber.stop().expect("they end").is_empty());
}
