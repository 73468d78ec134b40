//! Policy tests: what people expect of their policies, held against the engine (`sluice policy test`).
//!
//! Text of test files and of manifests goes in, a [`Report`] comes out, and its forms for people's machines (JSON,
//! JUnit, TAP, SARIF). Every verdict is the engine's, asked through a cluster on paper. Pure: no I/O, no clock.

mod case;
mod coverage;
mod format;
mod report;
mod run;
mod scene;
#[cfg(feature = "schema")]
mod schema;
mod stand_ins;
mod suite;
mod trace_command;

pub use coverage::Coverage;
pub use format::{API_VERSION, KIND};
pub use report::{Detail, Got, Outcome, Report, TestResult, Want, junit::junit, sarif::sarif, tap::tap};
#[cfg(feature = "schema")]
pub use schema::schema;
pub use suite::{Mistake, Source, Suite, is_policy_test, read};

#[cfg(test)]
mod tests;
