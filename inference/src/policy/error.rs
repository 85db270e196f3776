//! Why a policy refuses to change.

use thiserror::Error;

use super::ModelId;
use crate::release::GoldenError;

/// Why a policy was not made, or was not changed: what was served goes on being served.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The model reads other states or chooses among other actions than what is served.
    #[error("{field} is {found}, what is served has {expected}: start another policy for this model")]
    Contract {
        /// The field of the manifest.
        field: &'static str,
        /// What the model has.
        found: String,
        /// What is served.
        expected: String,
    },
    /// The manifest does not describe the network that came with it.
    #[error("the manifest has {field} {found}, the network {expected}: the two are of different models")]
    Binding {
        /// What differs.
        field: &'static str,
        /// What the manifest says.
        found: usize,
        /// What the network has.
        expected: usize,
    },
    /// A hidden layer is wider than deciders have memory for.
    #[error("hidden layer {layer} is {width} wide, the limit is {limit}: raise Limits::hidden_width")]
    TooWide {
        /// Number of the layer, from 0.
        layer: usize,
        /// Its width.
        width: usize,
        /// The limit.
        limit: usize,
    },
    /// Limits that no network can have.
    #[error("Limits::hidden_width is {hidden_width}; give 1 to 65536")]
    Limits {
        /// What was given.
        hidden_width: usize,
    },
    /// The golden vectors do not come out.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// The champion is pinned.
    #[error("the champion is pinned; unpin it first")]
    Pinned,
    /// There is no model to return to.
    #[error("no previous model is kept: nothing was swapped, or it was rolled back already")]
    NoPrevious,
    /// Another model became the champion meanwhile.
    #[error("{} is the champion by now, not {}: look at the status and decide anew", found.version, expected.version)]
    Changed {
        /// The champion.
        found: ModelId,
        /// The champion when somebody looked.
        expected: ModelId,
    },
    /// There is no canary.
    #[error("no canary is served; put a model on trial first")]
    NoCanary,
    /// A share that is no share.
    #[error("a share of {0} is not above 0 and at most 1; give 0.05 for one episode in twenty")]
    Share(f64),
    /// So many retired models are still in use by a decision or a batch that there is no room for another.
    #[error("{resident} models are still in use; let the decisions and batches under way end, then try again")]
    Crowded {
        /// Models in memory.
        resident: usize,
    },
}
