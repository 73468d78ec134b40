//! Finds what is probably not meant in policies: what can never match, what is void, what locks somebody out.
//!
//! [`lint`] looks at all documents together, because most mistakes are between objects. A finding is only made where
//! it follows from the documents; what depends on something that is not in them stays unsaid. Whom a rule selects and
//! what it decides is asked of the policy engine. Pure; the command `sluice policy lint` calls this.

mod checks;
mod cover;
mod finding;
mod report;
mod rules;
mod scene;
mod written;

use sluice_api::Manifest;
use sluice_policy::Config;

pub use finding::{Finding, Related, Severity};
pub use rules::{RULES, Rule, find};

use report::Report;
use scene::Scene;

/// The annotation by which an object silences findings about itself: codes, separated by commas.
pub const IGNORE: &str = "sluice.dev/lint-ignore";
/// How many entries the policy map of one endpoint may have upstream unless told otherwise (`bpf-policy-map-max`).
pub const MAP_BUDGET: usize = 16_384;

/// One object of a file, or what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What reports call the file.
    pub file: String,
    /// The object with its places.
    pub manifest: Manifest,
}

/// What is looked for, and under which assumptions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Also say what other implementations would refuse or understand differently.
    pub portable: bool,
    /// How many entries one endpoint's policy may have before that is a finding.
    pub map_budget: usize,
    /// The options of the cluster that the documents are for.
    pub config: Config,
}

impl Default for Options {
    fn default() -> Self {
        let config = Config::complete();
        Self { portable: false, map_budget: MAP_BUDGET, config }
    }
}

/// Everything that is found in the documents, ordered by file, place and code.
///
/// ```
/// let text = "
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata: {name: closed, namespace: shop}
/// spec:
///   podSelector: {}
///   policyTypes: [Ingress]
///   egress: [{}]
/// ";
/// let documents: Vec<_> = sluice_api::read_manifests(text)
///     .into_iter()
///     .map(|manifest| sluice_lint::Document { file: "closed.yaml".to_owned(), manifest })
///     .collect();
/// let findings = sluice_lint::lint(&documents, &sluice_lint::Options::default());
/// let worst = findings.iter().max_by_key(|finding| finding.severity).unwrap();
/// assert_eq!((worst.code, worst.line, worst.column), ("SL028", 8, 11));
/// ```
#[must_use]
pub fn lint(documents: &[Document], options: &Options) -> Vec<Finding> {
    let mut report = Report::default();
    let scene = Scene::new(documents, options, &mut report);
    for check in checks::ALL {
        check(&scene, &mut report);
    }
    report.finish(documents)
}

#[cfg(test)]
mod tests;
