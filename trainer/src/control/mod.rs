//! Small environments of known solution, on which a learner shows that it learns.

mod cart_pole;
mod identity;

pub use cart_pole::CartPole;
pub use identity::Identity;
