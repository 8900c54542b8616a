//! Raised alarms: which members, and of which kind.
//!
//! A plain set, changed only by apply. Invariant: an alarm without a kind is never raised.

use alloc::collections::BTreeSet;

use crate::apply::Write;
use crate::command::AlarmKind;
use crate::ids::MemberId;

/// One raised alarm.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Alarm {
    /// Whose.
    pub member: MemberId,
    /// Of which kind.
    pub kind: AlarmKind,
}

/// All raised alarms.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Alarms {
    /// The kind's number and the member, in this order.
    raised: BTreeSet<(i32, MemberId)>,
}

impl Alarms {
    /// Whether this alarm is raised.
    #[must_use]
    pub fn contains(&self, alarm: Alarm) -> bool {
        self.raised.contains(&(alarm.kind.number(), alarm.member))
    }

    /// Whether any member's alarm of this kind is raised.
    #[must_use]
    pub fn any(&self, kind: AlarmKind) -> bool {
        self.iter().any(|alarm| alarm.kind == kind)
    }

    /// Every raised alarm, by kind and member.
    pub fn iter(&self) -> impl Iterator<Item = Alarm> + '_ {
        self.raised.iter().map(|(kind, member)| Alarm { member: *member, kind: AlarmKind::from_number(*kind) })
    }

    /// Takes in what apply decided.
    pub fn on_write(&mut self, write: &Write) {
        match write {
            Write::AlarmRaised(alarm) => {
                assert!(alarm.kind != AlarmKind::None, "apply raises no alarm without a kind");
                self.raised.insert((alarm.kind.number(), alarm.member));
            }
            Write::AlarmLowered(alarm) => {
                self.raised.remove(&(alarm.kind.number(), alarm.member));
            }
            _ => {}
        }
    }
}

impl FromIterator<Alarm> for Alarms {
    fn from_iter<T: IntoIterator<Item = Alarm>>(alarms: T) -> Self {
        Self { raised: alarms.into_iter().map(|alarm| (alarm.kind.number(), alarm.member)).collect() }
    }
}
