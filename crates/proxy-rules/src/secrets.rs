//! The values in Secrets that an endpoint's rules compare headers with: those that they name, and no others.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sluice_policy::RequestTable;
use sluice_policy::l7::{HttpRule, L7Rules, Secrets};
use sluice_policy::requests::Says;

/// One value. `Debug` does not show it.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Named {
    /// As the rule names it.
    namespace: Option<String>,
    name: String,
    value: Vec<u8>,
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace.as_deref().unwrap_or_default(), self.name)
    }
}

/// The values that some rules name. One that is not among them is not there.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct NamedSecrets(Vec<Named>);

impl NamedSecrets {
    /// Those of `secrets` that the rules of `tables` name.
    pub(crate) fn of(tables: [&RequestTable; 2], secrets: &dyn Secrets) -> Self {
        let slots = tables.into_iter().flat_map(RequestTable::iter);
        let rules = slots.flat_map(|(_, slot)| match &slot.says {
            Says::Requests { rules, .. } => http(rules),
            Says::Allow | Says::Deny | Says::Pass => &[],
        });
        let headers = rules.flat_map(|rule| &rule.headers);
        let named: BTreeSet<_> = headers.filter_map(|header| header.secret.as_ref()).collect();
        let value = |(namespace, name): &(Option<String>, String)| {
            let value = secrets.value(namespace.as_deref(), name)?;
            Some(Named { namespace: namespace.clone(), name: name.clone(), value })
        };
        Self(named.into_iter().filter_map(value).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn http(rules: &L7Rules) -> &[HttpRule] {
    match rules {
        L7Rules::Http(rules) => rules,
        L7Rules::Kafka(_) | L7Rules::Dns(_) | L7Rules::Tls(_) => &[],
    }
}

impl Secrets for NamedSecrets {
    fn value(&self, namespace: Option<&str>, name: &str) -> Option<Vec<u8>> {
        let is_it = |own: &&Named| own.namespace.as_deref() == namespace && own.name == name;
        self.0.iter().find(is_it).map(|own| own.value.clone())
    }
}
