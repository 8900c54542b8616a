//! Writers that remember what was acknowledged to them, and the check that it is all there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::kv_client::KvClient;
use tonic::transport::Channel;

const WRITERS: usize = 8;

/// One acknowledged write.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Written {
    key: String,
    value: String,
}

/// Everything that was acknowledged, by revision, over all lives of the member.
#[derive(Default)]
pub(crate) struct Load {
    by_revision: Arc<Mutex<BTreeMap<i64, Written>>>,
    /// Each writer's next number. It goes on over restarts, so a value is written once.
    next: Arc<Mutex<[u64; WRITERS]>>,
    checked: i64,
}

impl Load {
    pub(crate) fn acknowledged(&self) -> u64 {
        self.by_revision.lock().unwrap().len() as u64
    }

    /// Writes until `kill` was called after `life`.
    pub(crate) async fn run(&self, client: &KvClient<Channel>, life: Duration, kill: impl FnOnce()) {
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (mut client, over) = (client.clone(), Arc::clone(&over));
                let (acknowledged, next) = (Arc::clone(&self.by_revision), Arc::clone(&self.next));
                tokio::spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        let number = {
                            let mut next = next.lock().unwrap();
                            next[writer] += 1;
                            next[writer]
                        };
                        let written = Written {
                            key: format!("key-{writer}-{}", number % 5),
                            value: format!("{writer}/{number}"),
                        };
                        let (key, value) = (written.key.clone().into(), written.value.clone().into());
                        let Ok(response) = client.put(pb::PutRequest { key, value, ..Default::default() }).await else {
                            return;
                        };
                        let revision = response.into_inner().header.unwrap().revision;
                        let before = acknowledged.lock().unwrap().insert(revision, written);
                        assert_eq!(before, None, "revision {revision} has two meanings");
                    }
                })
            })
            .collect();
        tokio::time::sleep(life).await;
        kill();
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
    }

    /// As [`Self::check`], of what is left when everything before `compacted` is gone.
    pub(crate) async fn check_since(&mut self, client: &KvClient<Channel>, compacted: i64) {
        self.by_revision.lock().unwrap().retain(|revision, _| compacted <= *revision);
        self.checked = 0;
        self.check(client).await;
    }

    /// Every acknowledged write is found at its revision: all since the last check, and a sample of the older ones.
    pub(crate) async fn check(&mut self, client: &KvClient<Channel>) {
        let acknowledged = self.by_revision.lock().unwrap().clone();
        let mut client = client.clone();
        let last = acknowledged.keys().last().copied().unwrap_or(1);
        for (revision, written) in &acknowledged {
            if *revision <= self.checked && revision % 997 != 0 {
                continue;
            }
            let request =
                pb::RangeRequest { key: written.key.clone().into(), revision: *revision, ..Default::default() };
            let response = client.range(request).await.unwrap().into_inner();
            assert!(response.header.unwrap().revision >= last, "the store's revision went back");
            let kv = response.kvs.first().unwrap_or_else(|| panic!("revision {revision}: {written:?} is lost"));
            assert_eq!(kv.mod_revision, *revision, "{written:?}");
            assert_eq!(kv.value, written.value, "{written:?}");
        }
        self.checked = last;
    }
}
