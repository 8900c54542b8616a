//! The way of a cluster to an older version: asked for, begun, given up, and what it means for the version that all members agree on.
//!
//! As in etcd: one step of a minor version at a time; the leader lowers the cluster's version once a downgrade is enabled, each store follows with the version of its
//! layout, and a downgrade that is cancelled before the members were exchanged ends in the version that they speak.

use detcd_core::membership::{Downgrade, Membership, Version};
use detcd_io::codec::entry::Field;
use detcd_io::store::backend::Backend;
use detcd_proto::membershippb;
use tonic::Status;

use crate::member::Member;
use crate::publish::VERSION_LEAST;
use crate::status::{self, Refused};

impl<B: Backend> Member<B> {
    /// Whether the cluster may be downgraded to `target`. Answers its version, as the answer has it.
    ///
    /// # Errors
    /// etcd's status.
    pub async fn validate_downgrade(&self, target: &str) -> Result<String, Status> {
        let target = parse(target).ok_or(Refused::DowngradeFormat)?;
        let version = self.store().membership().cluster_version().ok_or(Refused::NoClusterVersion)?;
        self.check_downgrade(target).await?;
        Ok(shown(version))
    }

    /// Begins a downgrade.
    ///
    /// # Errors
    /// etcd's status.
    pub async fn enable_downgrade(&self, target: &str) -> Result<String, Status> {
        let target = parse(target).ok_or(Refused::DowngradeFormat)?;
        self.check_downgrade(target).await?;
        let set = membershippb::DowngradeInfoSetRequest { enabled: true, ver: target.to_string() };
        self.set_downgrade(&set).await?;
        Ok(self.shown_version())
    }

    /// Gives a downgrade up. That there is none, or that it did not work, is no error, as in etcd.
    pub async fn cancel_downgrade(&self) -> String {
        if let Err(status) = self.try_cancel().await {
            tracing::warn!(%status, "failed to cancel downgrade");
        }
        self.shown_version()
    }

    async fn try_cancel(&self) -> Result<(), Status> {
        self.read_barrier().await?;
        if !self.store().membership().downgrade().enabled {
            return Err(Refused::NoDowngrade.into());
        }
        self.set_downgrade(&membershippb::DowngradeInfoSetRequest { enabled: false, ver: String::new() }).await
    }

    async fn check_downgrade(&self, target: Version) -> Result<(), Status> {
        self.read_barrier().await?;
        may_downgrade(&self.store().membership(), target).map_err(Status::from)
    }

    async fn set_downgrade(&self, set: &membershippb::DowngradeInfoSetRequest) -> Result<(), Status> {
        let answer = self.propose(Field::DowngradeInfoSet, set).await?;
        answer.reply.map(drop).map_err(|why| status::status(status::rejected(why)))
    }

    fn shown_version(&self) -> String {
        self.store().membership().cluster_version().map_or_else(String::new, shown)
    }
}

fn may_downgrade(membership: &Membership, target: Version) -> Result<(), Refused> {
    let version = membership.cluster_version().ok_or(Refused::NoClusterVersion)?;
    if !is_step_down(version, target) {
        return Err(Refused::DowngradeTarget);
    }
    if membership.downgrade().enabled { Err(Refused::DowngradeInProcess) } else { Ok(()) }
}

/// The version to set, if another one is due: the oldest that a member speaks or, on a downgrade, its target. As long as a member cannot be asked (`oldest` is none), what was
/// decided stays; and if nothing was, the members are taken for as old as can be.
#[must_use]
pub fn version_to_set(decided: Option<Version>, oldest: Option<Version>, downgrade: &Downgrade) -> Option<Version> {
    let Some(decided) = decided else { return Some(oldest.unwrap_or(VERSION_LEAST)) };
    let oldest = oldest?;
    if !downgrade.enabled {
        return (decided < oldest && decided.major == oldest.major).then_some(oldest);
    }
    let target = Version::parse(&downgrade.target)?;
    if target == decided {
        return None;
    }
    if !is_step_down(decided, target) || !is_step_down(oldest, target) {
        tracing::error!(%target, %decided, %oldest, "the target of the downgrade cannot be reached from here");
        return None;
    }
    Some(target)
}

const fn is_step_down(version: Version, target: Version) -> bool {
    target.major == version.major && target.minor + 1 == version.minor && target.patch == 0
}

/// Only the first two numbers, as a cluster's version is told.
fn shown(version: Version) -> String {
    format!("{}.{}", version.major, version.minor)
}

/// A target as etcd reads it: with or without a third number, which does not count.
fn parse(text: &str) -> Option<Version> {
    semantic(text).or_else(|| semantic(&format!("{text}.0")))
}

/// `major.minor.patch[-pre-release][+metadata]`, with what the second and third are made of.
fn semantic(text: &str) -> Option<Version> {
    let is_identifier = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let (rest, metadata) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, release) = rest.split_once('-').unwrap_or((rest, ""));
    if !is_identifier(metadata) || !is_identifier(release) {
        return None;
    }
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_plain { text.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok()) } else { None }
    };
    let mut parts = numbers.splitn(3, '.').map(number);
    let (major, minor, _patch) = (parts.next()??, parts.next()??, parts.next()??);
    Some(Version::new(major, minor, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_etcd_reads_them() {
        for text in ["3.6", "3.6.0", "3.6.9", "03.06", "3.6.0-rc.1+a", "3.6.0+a-b"] {
            assert_eq!(parse(text), Some(Version::new(3, 6, 0)), "{text}");
        }
        for text in
            ["", "3", "3.", "3.6.", "v3.6", "3.6.0.1", "3.x", "-3.6", "3.6.0-a_b", "3.6-", "9223372036854775808.1"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        // A pre-release hides the third number that is missing.
        assert_eq!(parse("3.6-rc"), None);
    }

    #[test]
    fn a_cluster_follows_its_members_up_and_a_downgrade_down() {
        let version = |minor| Version::new(3, minor, 0);
        let none = Downgrade::default();
        let to = |target: &str| Downgrade { enabled: true, target: target.to_owned() };
        for (decided, oldest, downgrade, expected) in [
            (None, None, &none, Some(VERSION_LEAST)),
            (None, Some(7), &none, Some(version(7))),
            (Some(6), Some(7), &none, Some(version(7))),
            (Some(7), Some(7), &none, None),
            (Some(7), Some(6), &none, None),
            (Some(7), None, &to("3.6.0"), None),
            (Some(7), Some(7), &to("3.6.0"), Some(version(6))),
            (Some(6), Some(7), &to("3.6.0"), None),
            (Some(6), Some(7), &to("3.5.0"), None),
            (Some(7), Some(8), &to("3.6.0"), None),
            (Some(7), Some(7), &to("soon"), None),
        ] {
            let set = version_to_set(decided.map(version), oldest.map(version), downgrade);
            assert_eq!(set, expected, "{decided:?} {oldest:?} {downgrade:?}");
        }
    }

    #[test]
    fn one_step_down_at_a_time_and_one_downgrade() {
        let mut membership = Membership::default();
        let may = |membership: &Membership, text: &str| may_downgrade(membership, parse(text).expect("a version"));
        assert_eq!(may(&membership, "3.6"), Err(Refused::NoClusterVersion));
        membership = Membership::restore([], [], Some(Version::new(3, 7, 0))).expect("sound");
        assert_eq!(may(&membership, "3.6.4"), Ok(()));
        for text in ["3.5", "3.7", "3.8", "2.6"] {
            assert_eq!(may(&membership, text), Err(Refused::DowngradeTarget), "{text}");
        }
        let enabled = Downgrade { enabled: true, target: "3.6.0".to_owned() };
        membership.on_write(&detcd_core::apply::Write::Downgrade(enabled));
        assert_eq!(may(&membership, "3.6"), Err(Refused::DowngradeInProcess));
    }
}
