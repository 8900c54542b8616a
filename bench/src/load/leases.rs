//! Runs over leases: many granted, and some kept alive as fast as the server answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use detcd_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse,
};
use prost::Message;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Answer, Caller};
use super::report::Latency;
use super::requests::WrongReply;
use super::run::{Edge, LoadError, STALL};
use super::stream::Next;

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";
/// The time to live of leases that are kept alive.
const KEPT_SECONDS: i64 = 600;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Leased {
    /// How long was measured.
    pub elapsed: Duration,
    /// How long each answer took.
    pub latency: Latency,
}

/// Grants leases with the ids from 1 to `leases`, each client one after the other on a connection of its own.
pub async fn grant(server: SocketAddr, clients: usize, leases: i64, seconds: i64) -> Result<Leased, LoadError> {
    let callers = connect(server, clients).await?;
    let (last, latency) = (Arc::new(AtomicI64::new(0)), Arc::new(Mutex::new(Latency::default())));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        let (last, latency) = (Arc::clone(&last), Arc::clone(&latency));
        tasks.spawn(async move {
            loop {
                let id = last.fetch_add(1, Ordering::Relaxed) + 1;
                if leases < id {
                    return Ok(());
                }
                let asked = Instant::now();
                grant_one(&mut caller, id, seconds).await?;
                latency.lock().expect("recording does not panic").record(asked.elapsed());
            }
        });
    }
    all(tasks).await?;
    let latency = latency.lock().expect("recording does not panic").clone();
    Ok(Leased { elapsed: began.elapsed(), latency })
}

/// How many leases there are.
pub async fn count(server: SocketAddr) -> Result<usize, LoadError> {
    let mut caller = Caller::connect(server).await?;
    match timeout(STALL, caller.ask(LEASES, &LeaseLeasesRequest {})).await.map_err(|_| LoadError::Stalled)?? {
        Answer::Message(message) => Ok(LeaseLeasesResponse::decode(message).map_err(WrongReply::from)?.leases.len()),
        Answer::Refused(refusal) => Err(LoadError::Refused { count: 1, refusal }),
    }
}

const WARM_UP: u8 = 0;
const MEASURED: u8 = 1;
const CLOSED: u8 = 2;

/// Keeps one lease of each client alive, each on a stream and a connection of its own.
pub async fn keep_alive(
    server: SocketAddr,
    clients: usize,
    (warm_up, measured): (Duration, Duration),
    mut on_edge: impl FnMut(Edge),
) -> Result<Leased, LoadError> {
    let (phase, latency) = (Arc::new(AtomicU8::new(WARM_UP)), Arc::new(Mutex::new(Latency::default())));
    let mut tasks = JoinSet::new();
    for (caller, id) in connect(server, clients).await?.into_iter().zip(1..) {
        let (phase, latency) = (Arc::clone(&phase), Arc::clone(&latency));
        tasks.spawn(keep_one(caller, id, phase, latency));
    }
    sleep(warm_up).await;
    on_edge(Edge::Opened);
    phase.store(MEASURED, Ordering::Release);
    let opened = Instant::now();
    sleep(measured).await;
    phase.store(CLOSED, Ordering::Release);
    let elapsed = opened.elapsed();
    on_edge(Edge::Closed);
    all(tasks).await?;
    let latency = latency.lock().expect("recording does not panic").clone();
    if latency.requests() == 0 { Err(LoadError::NothingDone) } else { Ok(Leased { elapsed, latency }) }
}

async fn keep_one(
    mut caller: Caller,
    id: i64,
    phase: Arc<AtomicU8>,
    latency: Arc<Mutex<Latency>>,
) -> Result<(), LoadError> {
    grant_one(&mut caller, id, KEPT_SECONDS).await?;
    let mut call = caller.open(KEEP_ALIVE).await?;
    while phase.load(Ordering::Acquire) != CLOSED {
        let asked = Instant::now();
        call.send(&LeaseKeepAliveRequest { id })?;
        let message = match call.next().await? {
            Next::Message(message) => message,
            Next::Ended(end) => return Err(LoadError::Ended(format!("keeping lease {id} alive: {end:?}"))),
        };
        if phase.load(Ordering::Acquire) == MEASURED {
            latency.lock().expect("recording does not panic").record(asked.elapsed());
        }
        let kept = LeaseKeepAliveResponse::decode(message).map_err(WrongReply::from)?;
        if (kept.id, kept.ttl) != (id, KEPT_SECONDS) {
            return Err(LoadError::Ended(format!("lease {id} was kept as {kept:?}")));
        }
    }
    Ok(())
}

async fn grant_one(caller: &mut Caller, id: i64, ttl: i64) -> Result<(), LoadError> {
    match caller.ask(GRANT, &LeaseGrantRequest { id, ttl }).await? {
        Answer::Refused(refusal) => Err(LoadError::Refused { count: 1, refusal }),
        Answer::Message(message) => {
            let granted = LeaseGrantResponse::decode(message).map_err(WrongReply::from)?;
            match (granted.id, granted.ttl) == (id, ttl) {
                true => Ok(()),
                false => Err(LoadError::Ended(format!("lease {id} of {ttl} s was granted as {granted:?}"))),
            }
        }
    }
}

async fn connect(server: SocketAddr, clients: usize) -> Result<Vec<Caller>, LoadError> {
    let mut callers = Vec::with_capacity(clients);
    for _ in 0..clients {
        callers.push(Caller::connect(server).await?);
    }
    Ok(callers)
}

async fn all(mut tasks: JoinSet<Result<(), LoadError>>) -> Result<(), LoadError> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
