//! Raised alarms. One that was seen at a scrape stays told, as 0, when it is lowered.

use std::collections::BTreeSet;
use std::sync::Mutex;

use detcd_core::alarm::Alarms;
use detcd_core::command::AlarmKind;
use detcd_core::ids::MemberId;

use super::families::Families;

/// The alarms that were ever told.
#[derive(Debug, Default)]
pub(super) struct Told {
    seen: Mutex<BTreeSet<(MemberId, &'static str)>>,
}

impl Told {
    pub(super) fn add(&self, out: &mut Families, alarms: &Alarms) {
        let named = |kind| match kind {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
            AlarmKind::None | AlarmKind::Unknown(_) => "UNKNOWN",
        };
        let raised: BTreeSet<_> = alarms.iter().map(|alarm| (alarm.member, named(alarm.kind))).collect();
        let mut seen = self.seen.lock().expect("a panic ends the process");
        seen.extend(&raised);
        let mut series = out.gauges("etcd_debugging_server_alarms", "Alarms that are raised, by member and kind.");
        for alarm @ (member, kind) in &*seen {
            let value = if raised.contains(alarm) { 1.0 } else { 0.0 };
            series.gauge(&[("alarm_type", kind), ("server_id", &member.to_string())], value);
        }
    }
}
