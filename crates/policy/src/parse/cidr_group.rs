//! Groups of prefixes (`pkg/k8s/apis/cilium.io/v2/cidrgroups_types.go`).

use sluice_api as api;

use super::{ParseError, Path, check_name, cidr, collect};
use crate::{labels::object_labels, referents::CidrGroup};

/// The prefixes of a `CiliumCIDRGroup`. Its name is the object's.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document.
pub fn cidr_group(group: &api::CiliumCidrGroup) -> Result<CidrGroup, Vec<ParseError>> {
    collect(|report| {
        check_name(&group.metadata, report);
        let path = Path::root("spec.externalCIDRs");
        let mut prefixes = std::collections::BTreeSet::new();
        for (path, text) in path.items(Some(&group.spec.external_cidrs)) {
            prefixes.extend(report.accept(&path, cidr::prefix(text)));
        }
        CidrGroup { labels: object_labels(group.metadata.labels.as_ref()), prefixes }
    })
}
