//! Copies of the store: who keeps a place on the disk, for how long, and who is turned away.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use detcd_io::copier::{Copied, Copier, Copies, NoCopy, copier};
use detcd_io::disk::{Disk as _, MemoryDisk};
use detcd_io::driver::ask::Gauges;
use detcd_io::driver::bounds::{COPIES_MAX, COPY_ASKS_MAX};
use detcd_io::store::copying::Chunk;
use detcd_io::store::memory::MemoryBackend;

async fn new() -> (Copier<MemoryBackend, MemoryDisk>, Copies) {
    let (disk, directory) = (MemoryDisk::new(), Path::new("/copies"));
    disk.create_dir_all(directory).await.expect("an empty disk");
    copier(MemoryBackend::default(), disk, directory, Chunk::USUAL, Arc::<Gauges>::default())
}

/// So long that whatever can happen without further doing has happened.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn all_places(copies: &Copies) -> Vec<Copied> {
    let mut made = Vec::new();
    for _ in 0..COPIES_MAX {
        made.push(copies.make().await.expect("there is a place"));
    }
    made
}

#[tokio::test]
async fn a_copy_waits_for_a_place_and_gets_that_of_one_that_is_dropped() {
    let (copier, copies) = new().await;
    tokio::spawn(copier.run());
    let mut made = all_places(&copies).await;
    let next = tokio::spawn(async move { copies.make().await });
    settle().await;
    assert!(!next.is_finished(), "there is no place for it");
    drop(made.pop());
    let copied = next.await.expect("no panic").expect("now there is one");
    let size = usize::try_from(copied.size_bytes()).expect("a small file");
    assert_eq!(copied.read(0, size + 1).await.expect("it can be read").len(), size);
}

#[tokio::test]
async fn who_gives_up_keeps_no_place() {
    let (copier, copies) = new().await;
    tokio::spawn(copier.run());
    // Each time a bit later, so that every stage of the making is met.
    for patience in (0..8).cycle().take(16 * COPIES_MAX) {
        let asking = copies.clone();
        let asked = tokio::spawn(async move { asking.make().await.map(drop) });
        for _ in 0..patience {
            tokio::task::yield_now().await;
        }
        asked.abort();
    }
    drop(all_places(&copies).await);
}

#[tokio::test]
async fn a_copy_that_is_made_and_not_taken_keeps_no_place() {
    let (copier, copies) = new().await;
    let mut asked = Vec::new();
    for _ in 0..COPIES_MAX {
        let mut asking = Box::pin({
            let copies = copies.clone();
            async move { copies.make().await }
        });
        // Polled once, so that it waits for its answer; dropped with the answer inside.
        tokio::select! {
            biased;
            _ = &mut asking => panic!("nobody works yet"),
            () = std::future::ready(()) => {}
        }
        asked.push(asking);
    }
    tokio::spawn(copier.run());
    settle().await;
    drop(asked);
    drop(all_places(&copies).await);
}

#[tokio::test]
async fn a_reading_that_is_given_up_harms_nobody() {
    let (copier, copies) = new().await;
    tokio::spawn(copier.run());
    let copied = copies.make().await.expect("there is a place");
    {
        let mut reading = Box::pin(copied.read(0, 1));
        tokio::select! {
            biased;
            _ = &mut reading => panic!("it asks first"),
            () = std::future::ready(()) => {}
        }
    }
    drop(copied);
    copies.make().await.expect("it works on");
}

#[tokio::test]
async fn more_than_can_wait_are_refused_and_those_who_left_do_not_count() {
    let (copier, copies) = new().await;
    tokio::spawn(copier.run());
    let made = all_places(&copies).await;
    let ask = || {
        let copies = copies.clone();
        tokio::spawn(async move { copies.make().await.map(drop) })
    };
    let waiting: Vec<_> = (0..COPY_ASKS_MAX).map(|_| ask()).collect();
    settle().await;
    let refused = ask().await.expect("no panic");
    assert!(matches!(refused, Err(NoCopy::TooMany)), "{refused:?}");
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    settle().await;
    let last = ask();
    settle().await;
    assert!(!last.is_finished(), "it may wait, since the others are gone");
    drop(made);
    last.await.expect("no panic").expect("there is a place");
}
