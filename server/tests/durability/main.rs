//! What a member promises about disks: nothing is answered before it is durable, nothing is touched after a failure, and a full disk closes
//! one door only. Time stands still while anything can run, so that every wait here is exact.
#![allow(clippy::unwrap_used)]

mod disk;
mod member;

use std::time::Duration;

use detcd_io::driver::bounds;
use detcd_io::fault::Fault;
use tonic::{Code, Status};

use crate::member::{Life, World, settle};

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

fn value(number: usize) -> String {
    format!("<value {number:04}>")
}

fn assert_no_space(result: &Result<(), Status>) {
    let status = result.as_ref().expect_err("there is no room");
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, NO_SPACE));
}

/// Puts until one is refused.
async fn put_until_refused(life: &Life) -> Result<(), Status> {
    for number in 0..200 {
        life.put(value(number)).await.unwrap()?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_put_is_answered_after_the_sync_that_covers_it() {
    let world = World::new();
    let life = world.live().await;
    settle().await;
    world.disk.close();
    let before = world.disk.syncs_begun();

    let first = life.put(value(0));
    settle().await;
    assert_eq!(world.disk.syncs_begun(), before + 1);
    assert!(!first.is_finished(), "its sync has not returned");
    let others: Vec<_> = (1..=50).map(|number| life.put(value(number))).collect();
    settle().await;
    assert_eq!(world.disk.syncs_begun(), before + 1, "one sync at a time");

    world.disk.let_one_pass();
    settle().await;
    assert!(first.is_finished());
    assert!(world.disk.has_durable(value(0).as_bytes()));
    assert!(!others.iter().any(|put| put.is_finished()), "they were written after that sync began");
    assert!(!world.disk.has_durable(value(1).as_bytes()));

    world.disk.let_one_pass();
    settle().await;
    assert_eq!(world.disk.syncs_begun(), before + 2, "what waits shares one sync");
    for (number, put) in others.into_iter().enumerate() {
        put.await.unwrap().unwrap();
        assert!(world.disk.has_durable(value(number + 1).as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_sync_nothing_is_promised_and_nothing_is_touched() {
    let world = World::new();
    let life = world.live().await;
    settle().await;
    world.disk.close();
    world.disk.memory.fail_syncs(1);
    let first = life.put(value(0));
    settle().await;
    let second = life.put(value(1));
    settle().await;
    world.disk.let_one_pass();
    settle().await;
    let changes = world.disk.changes();

    for put in [first, second] {
        let status = put.await.unwrap().expect_err("its sync failed, or never came");
        assert_eq!(status.message(), "etcdserver: server stopped");
    }
    let late = life.put(value(2)).await.unwrap().expect_err("the member has ended");
    assert_eq!(late.message(), "etcdserver: server stopped");
    assert_eq!(life.get().await.expect_err("reads end too").message(), "etcdserver: server stopped");
    assert!(matches!(life.driver.await.unwrap(), Err(Fault::Disk { op: "sync", .. })));
    settle().await;
    assert_eq!(world.disk.changes(), changes, "a disk that failed is left alone");
}

#[tokio::test(start_paused = true)]
async fn no_room_for_the_next_log_file_closes_puts_until_there_is() {
    let world = World::new();
    let life = world.live().await;
    life.put(value(0)).await.unwrap().unwrap();
    world.disk.memory.limit_allocation(Some(0));
    assert_no_space(&put_until_refused(&life).await);
    let kept = life.get().await.unwrap();
    assert!(kept.starts_with(b"<value "), "reads go on");
    settle().await;
    assert_no_space(&life.put("again").await.unwrap());
    assert_eq!(life.get().await.unwrap(), kept, "what is refused does not happen");
    assert!(life.member.asker().gauges().no_room());

    world.disk.memory.limit_allocation(None);
    settle().await;
    assert!(!life.member.asker().gauges().no_room(), "nobody had to ask");
    life.put("room").await.unwrap().unwrap();
    assert_eq!(life.get().await.unwrap(), "room");
    assert!(!life.driver.is_finished());
}

#[tokio::test(start_paused = true)]
async fn no_room_in_the_store_closes_puts_until_there_is() {
    let world = World::new();
    let life = world.live().await;
    settle().await;
    world.store.fill(true);
    life.put("before").await.unwrap().unwrap();
    // The put is in the log; its batch finds no room when it is due.
    settle().await;
    assert_no_space(&life.put("refused").await.unwrap());
    assert_eq!(life.get().await.unwrap(), "before", "reads go on");

    world.store.fill(false);
    settle().await;
    life.put("room").await.unwrap().unwrap();
    assert_eq!(life.get().await.unwrap(), "room");
    settle().await;
    drop(life);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let again = world.live().await;
    assert_eq!(again.get().await.unwrap(), "room", "the batch that waited was committed");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_an_answer() {
    let world = World::new();
    let mut life = world.assemble().await;
    let waiting: Vec<_> = (0..bounds::ASKS_MAX).map(|number| life.put(value(number))).collect();
    tokio::task::yield_now().await;
    let status = life.put("one too many").await.unwrap().expect_err("the queue is full");
    assert_eq!((status.code(), status.message()), (Code::Unknown, "etcdserver: too many requests"));
    assert!(!waiting.iter().any(|put| put.is_finished()));
    life.release();
    for put in waiting {
        put.await.unwrap().unwrap();
    }
}
