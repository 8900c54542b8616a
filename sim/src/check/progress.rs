//! When everything is healed, everything is answered.
//!
//! From the event on that the world names – a while after a healed member serves – no operation may end in doubt or be turned away.

use std::time::Duration;

use super::compactions::Compactions;
use super::{Promise, Violation};
use crate::clients::GIVEN_UP;
use crate::options::Options;
use crate::record::{History, NO_SPACE, Outcome};

/// Checks the operations that began at `healed` or later. There have to be some.
///
/// # Errors
/// One that was not answered, or none at all.
pub fn check(history: &History, healed: u64) -> Result<(), Violation> {
    let mut answered = 0;
    for operation in history.operations.iter().filter(|operation| operation.invoked >= healed) {
        match &operation.outcome {
            Outcome::Answered(_) | Outcome::Rejected(..) => answered += 1,
            // What a quota allows is for another oracle to say.
            Outcome::Uncertain(text) if text == NO_SPACE => {}
            Outcome::Refused(text) | Outcome::Uncertain(text) if text != GIVEN_UP => {
                let what = format!("operation {} after the end of all trouble: {text}", operation.invoked);
                return Err(Violation::new(Promise::Progress, what).by(operation.invoked));
            }
            Outcome::Refused(_) | Outcome::Uncertain(_) => {}
        }
    }
    if answered == 0 {
        return Err(Violation::new(Promise::Progress, "nothing was answered after the end of all trouble".to_owned()));
    }
    Ok(())
}

/// Checks that what is old was let go, where members compact by age.
///
/// # Errors
/// It is still there.
pub fn let_go(
    compactions: &Compactions,
    history: &History,
    (healed, options): (u64, &Options),
) -> Result<(), Violation> {
    let calm = Duration::from_secs(options.calm_seconds);
    compactions.check_end(history, healed, calm).map_err(|what| Violation::new(Promise::Progress, what))
}
