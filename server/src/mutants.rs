//! Whether services carry a known bug, in builds that prove the simulator's oracles can fail. The bugs are listed in [`detcd_io::mutants`].

/// Whether a value carries the named bug. Always `false`, and free, in a normal build.
macro_rules! mutated {
    ($value:expr, $mutant:ident) => {{
        #[cfg(mutants)]
        let mutated = $value.mutant == Some(detcd_io::mutants::Mutant::$mutant);
        #[cfg(not(mutants))]
        let mutated = false;
        mutated
    }};
}
pub(crate) use mutated;
