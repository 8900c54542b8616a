//! Whoever looks after a store with a quota: sees the alarm, makes room, lowers the alarm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use detcd_io::entropy::Entropy;
use detcd_proto::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;

use super::link::Link;
use super::{NO_ANSWER, PATIENCE, failed};
use crate::film::Scene;
use crate::options::{Options, chance};
use crate::record::{Answer, Ask, Outcome, Recorder, Trace};

/// Its number.
pub const STEWARD: u64 = 300;

/// The client.
pub struct Steward {
    link: Link,
    dice: Entropy,
    recorder: Recorder,
    trace: Trace,
}

impl Steward {
    /// The steward of a run.
    #[must_use]
    pub fn new(link: Link, options: &Options, recorder: Recorder, trace: Trace) -> Self {
        let dice = Entropy::seeded(options.seed ^ 0x0073_7465_7761_7264);
        Self { link, dice, recorder, trace }
    }

    /// Works until it is told to end.
    pub async fn run(mut self, is_over: Arc<AtomicBool>) {
        while !is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(self.dice.draw(100, 3_000))).await;
            let raised = self.alarm(AlarmAction::Get, pb::AlarmMember::default()).await;
            for alarm in raised.into_iter().filter(|alarm| alarm.alarm == i32::from(pb::AlarmType::Nospace)) {
                // One who lowers the alarm of a full store sees it raised again.
                if !chance(&mut self.dice, 100) {
                    self.make_room().await;
                }
                tokio::time::sleep(Duration::from_millis(self.dice.draw(0, 800))).await;
                self.alarm(AlarmAction::Deactivate, alarm).await;
            }
        }
    }

    async fn alarm(&self, action: AlarmAction, alarm: pb::AlarmMember) -> Vec<pb::AlarmMember> {
        let pb::AlarmMember { member_id, alarm } = alarm;
        let request = pb::AlarmRequest { action: action.into(), member_id, alarm };
        let answered = tokio::time::timeout(PATIENCE, self.link.alarm(&request)).await;
        self.trace.line(|| format!("steward: {action:?} {answered:?}"));
        answered.ok().and_then(Result::ok).map_or_else(Vec::new, |response| response.alarms)
    }

    /// Compacts everything, and mostly defragments. (The simulated store is as small as its rows without that.)
    async fn make_room(&mut self) {
        let newest = pb::RangeRequest { key: Bytes::from_static(b"k"), ..pb::RangeRequest::default() };
        let ask = Ask::Range(newest.clone());
        let told = self.record(ask, async { self.link.range(&newest).await.map(Answer::Range) }).await;
        let Some(header) = told.as_ref().and_then(|answer| answer.header()) else { return };
        let request = pb::CompactionRequest { revision: header.revision, physical: true };
        self.record(Ask::Compact(request), async { self.link.compact(&request).await.map(Answer::Compact) }).await;
        if chance(&mut self.dice, 700) {
            let done = tokio::time::timeout(PATIENCE, self.link.defragment(&pb::DefragmentRequest {})).await;
            self.trace.line(|| format!("steward: defragment {done:?}"));
        }
    }

    /// One operation like any other client's.
    async fn record(&self, ask: Ask, asking: impl Future<Output = Result<Answer, tonic::Status>>) -> Option<Answer> {
        let invoked = self.recorder.begin();
        self.trace.show(|| Scene::Asked { client: STEWARD, invoked, text: ask.sketch() });
        let outcome = match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(answer)) => Outcome::Answered(answer),
            Ok(Err(status)) => failed(&status),
            Err(_) => Outcome::Uncertain(NO_ANSWER.to_owned()),
        };
        self.trace.note(&[STEWARD, invoked, outcome.digest()], || format!("steward: {ask:?} {outcome:?}"));
        self.trace.show(|| Scene::Answered { invoked, text: outcome.sketch() });
        let answer = if let Outcome::Answered(answer) = &outcome { Some(answer.clone()) } else { None };
        self.recorder.end((STEWARD, self.link.place()), ask, invoked, outcome);
        answer
    }
}
