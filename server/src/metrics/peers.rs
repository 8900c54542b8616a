//! What is told of the talk with other members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use detcd_core::ids::MemberId;

use super::families::{Families, SECONDS};
use crate::peer::counts::{Copies, Counts, Talk};

/// A count of the talk with one member.
type Of = fn(&Talk) -> &AtomicU64;
/// The stores on their way to or from it.
type CopiesOf = fn(&Talk) -> &Copies;

/// Everybody's series. One that never happened is not told, as in etcd.
pub(super) fn add(out: &mut Families, own: MemberId, counts: &Counts) {
    let talks: Vec<(String, Arc<Talk>)> =
        counts.all().into_iter().map(|(member, talk)| (member.to_string(), talk)).collect();
    let own = own.to_string();
    activity(out, &own, &talks);
    let rows: [(&str, &str, &str, Of); 4] = [
        ("etcd_network_peer_sent_bytes_total", "Bytes sent to members.", "To", |talk| &talk.sent_bytes),
        ("etcd_network_peer_sent_failures_total", "Failures to send to members.", "To", |talk| &talk.sent_failures),
        (
            "etcd_network_peer_received_bytes_total",
            "Bytes received from members; 0 gives signs of life.",
            "From",
            |talk| &talk.received_bytes,
        ),
        ("etcd_network_peer_received_failures_total", "Failures to receive from members.", "From", |talk| {
            &talk.received_failures
        }),
    ];
    for (name, help, label, of) in rows {
        let mut series = out.counters(name, help);
        if name.contains("received_bytes") && 0 < counts.heartbeat_bytes() {
            series.count(&[(label, "0")], counts.heartbeat_bytes());
        }
        for (member, talk) in &talks {
            let count = of(talk).load(Ordering::Relaxed);
            if 0 < count {
                series.count(&[(label, member)], count);
            }
        }
    }
    let mut series =
        out.histograms("etcd_network_peer_round_trip_time_seconds", "Time of a member's answer to a probe.");
    for (member, talk) in &talks {
        if 0 < talk.round_trips.read().count {
            series.histogram(&[("To", member)], SECONDS, &talk.round_trips);
        }
    }
    copies(out, ("send", "sent to", "To"), &talks, |talk| &talk.shipped);
    copies(out, ("receive", "received from", "From"), &talks, |talk| &talk.received);
    let (name, help) = ("etcd_snap_db_save_total_duration_seconds", "Time to save a store that a member sent.");
    out.histogram(name, help, SECONDS, &counts.stored);
    let (name, help) = ("etcd_snap_db_fsync_duration_seconds", "Time of its last sync.");
    out.histogram(name, help, SECONDS, &counts.synced);
}

fn activity(out: &mut Families, own: &str, talks: &[(String, Arc<Talk>)]) {
    let mut active = out.gauges("etcd_network_active_peers", "1 while a member is connected.");
    for (member, talk) in talks {
        if let (true, is_active, _) = talk.activity() {
            active.gauge(&[("Local", own), ("Remote", member)], f64::from(u8::from(is_active)));
        }
    }
    let mut ceased =
        out.counters("etcd_network_disconnected_peers_total", "Times that a member was connected no more.");
    for (member, talk) in talks {
        let (_, _, count) = talk.activity();
        if 0 < count {
            ceased.count(&[("Local", own), ("Remote", member)], count);
        }
    }
}

fn copies(out: &mut Families, (way, said, label): (&str, &str, &str), talks: &[(String, Arc<Talk>)], of: CopiesOf) {
    let name = |what: &str| format!("etcd_network_snapshot_{way}_{what}");
    let begun: Vec<_> = talks.iter().filter(|(_, talk)| 0 < of(talk).counts().0).collect();
    let mut series = out.gauges(&name("inflights_total"), &format!("Stores that are being {said} members."));
    begun.iter().for_each(|(member, talk)| series.gauge(&[(label, member)], of(talk).counts().1 as f64));
    let mut series = out.counters(&name("failures"), &format!("Stores that were not {said} members."));
    for (member, talk) in talks.iter().filter(|(_, talk)| 0 < of(talk).failures()) {
        series.count(&[(label, member)], of(talk).failures());
    }
    let done: Vec<_> = begun.iter().filter(|(_, talk)| 0 < of(talk).counts().2).collect();
    let mut series = out.counters(&name("success"), &format!("Stores that were {said} members."));
    done.iter().for_each(|(member, talk)| series.count(&[(label, member)], of(talk).counts().2));
    let mut series =
        out.histograms(&name("total_duration_seconds"), &format!("Time until a store was {said} a member."));
    done.iter().for_each(|(member, talk)| series.histogram(&[(label, member)], SECONDS, &of(talk).done));
}
