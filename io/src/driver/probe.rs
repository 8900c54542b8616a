//! Who looks at the engine while it runs: those who check it. A member in service has nobody.

use std::sync::Arc;

use detcd_core::raft::Raft;

/// Looks at the engine after it has stepped, before anything of that leaves the member.
pub trait Probe: Send + Sync + 'static {
    /// The engine has stepped.
    fn look(&self, raft: &Raft);
}

/// Whoever looks at one driver's engine.
#[derive(Default)]
pub(super) struct Onlooker {
    probe: Option<Arc<dyn Probe>>,
    has_stepped: bool,
}

impl Onlooker {
    pub(super) fn new(probe: Arc<dyn Probe>) -> Self {
        Self { probe: Some(probe), has_stepped: false }
    }

    /// The engine steps: a look is due.
    pub(super) const fn on_step(&mut self) {
        self.has_stepped = true;
    }

    /// Lets the probe look, if the engine has stepped since it did.
    pub(super) fn look(&mut self, raft: &Raft) {
        if let Some(probe) = self.probe.as_ref().filter(|_| self.has_stepped) {
            probe.look(raft);
        }
        self.has_stepped = false;
    }
}
