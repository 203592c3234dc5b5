//! Many replicas, one archive: who is there, who holds which shard, and how to ask them. Kubernetes gives membership and object storage durability, so
//! that there is neither consensus nor gossip here.
//!
//! Reading order: [`discovery`] (where replicas are), [`peer`] (what is known of one), [`members`] (asked again and again how they are), [`placement`]
//! (which shards whom, pure), [`pin`] (which version all of them have, pure), [`wire`] (what they say to each other), [`fan_out`] (one query to those
//! who hold what is missing here).

pub mod discovery;
pub mod fan_out;
pub mod members;
pub mod peer;
pub mod pin;
pub mod placement;
pub mod wire;

pub use discovery::Discovery;
pub use fan_out::{FannedOut, Shards};
pub use members::{Cluster, ClusterSettings, Member};
pub use pin::{Held, Other, pin};
pub use placement::place;
