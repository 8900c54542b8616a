//! The generator against the floor, in one process: every answered put is in the file, and a server that refuses gets
//! no figures.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use detcd_bench::floor;
use detcd_bench::load::client::Caller;
use detcd_bench::load::{Edge, KeyOrder, LoadError, Pace, Plan, Shape, Span, Workload, run};
use tempfile::TempDir;
use tokio::task::AbortHandle;

struct Served {
    address: SocketAddr,
    directory: TempDir,
    service: AbortHandle,
    writer: JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (service, writer) = floor::open(directory.path()).expect("an empty directory");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let service = tokio::spawn(floor::serve(service, address)).abort_handle();
        let writer = std::thread::spawn(move || writer.run());
        for _ in 0..500 {
            if Caller::connect(address).await.is_ok() {
                return Self { address, directory, service, writer };
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the floor does not listen");
    }

    fn plan(&self, workload: Workload, span: Span) -> Plan {
        Plan {
            servers: [self.address; 3],
            clients: 20,
            connections: 3,
            shape: Shape { workload, key_order: KeyOrder::Sequential, keys: 1_000, value_bytes: 256, seed: 1 },
            span,
            pace: Pace::Closed,
            refusals_allowed: 0,
        }
    }

    fn written(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join(floor::FILE_NAME)).expect("the floor's file")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.service.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_put_is_in_the_file() {
    let served = Served::start().await;
    let mut edges = Vec::new();
    let report = run(&served.plan(Workload::Put, Span::Count(500)), |edge| edges.push(edge)).await.expect("a run");
    assert_eq!(edges, [Edge::Opened, Edge::Closed]);
    assert_eq!((report.requests(), report.refused), (500, 0));

    let written = served.written();
    assert_eq!(written.len(), 64 << 20);
    let (used, unused) = written.split_at(500 * 300);
    assert!(unused.iter().all(|&byte| byte == 0));
    let text = String::from_utf8_lossy(used);
    for number in 0..500 {
        assert_eq!(text.matches(&format!("bench/{number:010}")).count(), 1, "key {number}");
    }
    assert!(!served.writer.is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_measures_its_time_and_its_requests_only() {
    let served = Served::start().await;
    let span = Span::Window { warm_up: Duration::from_millis(100), measured: Duration::from_millis(200) };
    let report = run(&served.plan(Workload::Put, span), |_| ()).await.expect("a run");
    assert!(Duration::from_millis(200) <= report.elapsed);
    assert!(0 < report.requests());
    let written = String::from_utf8_lossy(&served.written()).matches("bench/").count() as u64;
    assert!(report.requests() < written, "the warm-up of {written} puts was counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_pace_is_not_exceeded() {
    let served = Served::start().await;
    let plan = Plan { pace: Pace::Scheduled { per_second: 200 }, ..served.plan(Workload::Put, Span::Count(41)) };
    let report = run(&plan, |_| ()).await.expect("a run");
    assert_eq!(report.requests(), 41);
    // Half of what the schedule takes: a late start is caught up with. Without a schedule it takes a few milliseconds.
    assert!(Duration::from_millis(100) <= report.elapsed, "40 intervals of 5 ms took {:?}", report.elapsed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_gets_no_figures() {
    let served = Served::start().await;
    let plan = served.plan(Workload::LinearizableRange, Span::Count(100));
    match run(&plan, |_| ()).await {
        Err(LoadError::Refused { refusal, .. }) => assert_eq!(refusal.code, 12),
        other => panic!("{other:?}"),
    }
    let tolerant = Plan { refusals_allowed: 100, ..plan };
    assert!(matches!(run(&tolerant, |_| ()).await, Err(LoadError::NothingDone)));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let served = Served::start().await;
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let plan = Plan { servers: [free; 3], ..served.plan(Workload::Put, Span::Count(1)) };
    assert!(matches!(run(&plan, |_| ()).await, Err(LoadError::Call(_))));
}
