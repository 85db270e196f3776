//! Which actions a state allows.

use crate::ReplayError;

/// The allowed actions of one state, a bit each: bit `a` is set where action `a` is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ActionMask(u32);

impl ActionMask {
    /// The largest number of actions that a mask can hold.
    pub const MAX_ACTIONS: usize = 32;

    /// The mask with these bits.
    pub const fn from_bits(bits: u32) -> Self {
        ActionMask(bits)
    }

    /// The mask that allows actions 0 to `actions - 1`.
    ///
    /// # Panics
    /// If there are more actions than bits.
    pub const fn all(actions: usize) -> Self {
        assert!(actions <= Self::MAX_ACTIONS, "a mask holds at most 32 actions");
        if actions == Self::MAX_ACTIONS { ActionMask(u32::MAX) } else { ActionMask((1 << actions) - 1) }
    }

    /// The mask of one `bool` per action.
    ///
    /// # Panics
    /// If there are more actions than bits.
    pub fn from_bools(allowed: &[bool]) -> Self {
        assert!(allowed.len() <= Self::MAX_ACTIONS, "a mask holds at most 32 actions");
        ActionMask(allowed.iter().rev().fold(0, |bits, allowed| bits << 1 | u32::from(*allowed)))
    }

    /// Its bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether it allows `action`.
    pub const fn allows(self, action: u32) -> bool {
        action < 32 && self.0 >> action & 1 == 1
    }

    /// Writes one `bool` per action into `out`.
    pub fn write(self, out: &mut [bool]) {
        for (action, out) in out.iter_mut().enumerate() {
            *out = self.allows(action as u32);
        }
    }

    /// Refuses a mask that allows nothing, or an action that does not exist.
    ///
    /// # Errors
    /// [`ReplayError::Mask`].
    ///
    /// # Panics
    /// If there are more actions than bits.
    pub fn check(self, actions: u32) -> Result<(), ReplayError> {
        if self.0 == 0 || self.0 & !ActionMask::all(actions as usize).0 != 0 {
            return Err(ReplayError::Mask { bits: self.0, actions });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_allows_exactly_the_actions_there_are() {
        for actions in 0..=32 {
            let mask = ActionMask::all(actions);
            assert!((0..64).all(|a| mask.allows(a) == ((a as usize) < actions)), "{actions} actions: {mask:?}");
        }
        assert!(ActionMask::all(0).check(3).is_err());
        assert!(ActionMask::all(4).check(3).is_err());
        assert!(ActionMask::all(3).check(3).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn bools_come_back(allowed in proptest::collection::vec(any::<bool>(), 0..=32)) {
            let mut out = vec![false; allowed.len()];
            ActionMask::from_bools(&allowed).write(&mut out);
            prop_assert_eq!(out, allowed);
        }
    }
}
