//! Three members under load, and the leader gone again and again. `KILLS=n` makes it long.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::Cluster;
use super::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_killed_and_stopped_under_load_lose_nothing() {
    let rounds: u32 = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(3);
    let mut cluster = Cluster::of(3).await;
    let load = Load::start(&cluster, cluster.follower().await);
    for round in 0..rounds {
        load.progress(60).await;
        let leader = cluster.leader().await;
        if round % 3 == 1 {
            // It does not know that it was away: it must not answer from what it believed before.
            cluster.nodes[leader].signal(Signal::SIGSTOP);
            tokio::time::sleep(Duration::from_secs(3)).await;
            cluster.leader_but(Some(leader)).await;
            cluster.nodes[leader].signal(Signal::SIGCONT);
        } else {
            cluster.nodes[leader].kill();
            cluster.leader_but(Some(leader)).await;
            load.progress(30).await;
            cluster.nodes[leader].start().await;
        }
    }
    load.progress(60).await;
    for node in &cluster.nodes {
        node.signal(Signal::SIGKILL);
    }
    for node in &mut cluster.nodes {
        node.ended();
        node.spawn();
    }
    for node in &mut cluster.nodes {
        node.serves().await;
    }
    load.progress(60).await;
    println!("{rounds} leaders lost, {}", load.check(&cluster).await);
}
