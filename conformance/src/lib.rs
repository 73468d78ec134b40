//! Black-box conformance: nodes and pods as network namespaces, traffic between them, and verdicts that somebody
//! wrote down by hand.
//!
//! Links none of our crates. It starts the binaries that stand in the target directory, speaks JSON with the
//! agent's socket, and otherwise believes only what arrives at the other end of a wire. Cases are data
//! (`cases/CHAPTER/CASE.yaml`); what does not fit that form is a test under `tests/`.

pub mod agent;
pub mod case;
pub mod clock;
pub mod echo;
pub mod http;
pub mod link;
pub mod load;
pub mod netns;
pub mod node;
pub mod policy_test;
pub mod probe;
pub mod program;
pub mod report;
pub mod request;
pub mod run;
pub mod scene;
mod settle;
pub mod topology;
pub mod traffic;
mod verdict;
pub mod wire;
