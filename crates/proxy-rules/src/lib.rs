//! What the agent tells the proxies about one endpoint: its rules about requests, as a file.
//!
//! The agent writes the file before the kernel redirects anything by it, whole and at once; a proxy reads it when it is
//! handed a flow, and again when it changes. So a proxy has what it needs whether the agent runs or not
//! (`docs/adr/0008-rules-for-proxies-are-files.md`). The rules become the engine's [`RequestTable`] again: both sides
//! ask the same code.

mod secrets;
mod table;

use serde::{Deserialize, Serialize};
use sluice_policy::l7::{PatternError, Secrets};
use sluice_policy::{EndpointPolicy, RequestTable};
use sluice_types::{Direction, EndpointId, Identity};

pub use secrets::NamedSecrets;
pub use table::{Rule, Rules, Says, Slot, Table};

/// Below the agent's state directory: where the files are.
pub const DIRECTORY: &str = "proxy/endpoints";
/// The form of the file that is described here. A file of another form is not read.
pub const FORM: u32 = 1;

/// The name of an endpoint's file.
#[must_use]
pub fn file_name(id: EndpointId) -> String {
    format!("{id}.json")
}

/// The rules of one endpoint.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointRules {
    /// [`FORM`].
    pub form: u32,
    /// Whose they are.
    pub endpoint: EndpointId,
    /// Which life of the endpoint; flows of another one are not judged by them.
    pub generation: u32,
    /// The endpoint's identity.
    pub identity: Identity,
    /// `namespace/pod`, for messages.
    pub name: String,
    /// How what it receives is judged.
    pub ingress: Mode,
    /// How what it sends is judged.
    pub egress: Mode,
    /// What is enforced.
    pub enforced: Table,
    /// The same with the policies in audit mode: what it refuses and `enforced` does not is only reported. `None` if
    /// there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Table>,
    /// What headers are compared with that is not in the rules.
    #[serde(default, skip_serializing_if = "NamedSecrets::is_empty")]
    pub secrets: NamedSecrets,
}

/// How one direction is judged.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mode {
    /// What is refused is only reported.
    pub audit: bool,
    /// Policies in audit mode are about it: `staged` says what they would refuse.
    pub staged: bool,
    /// The policies because of which something is refused that no rule allows, `cnp/shop/web`.
    pub isolated_by: Vec<String>,
}

/// Why rules cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RulesError {
    /// They are of another version.
    #[error("form {0} of the rules is not known, only {FORM}")]
    Form(u32),
    /// A pattern is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A slot that no table can have.
    #[error("slot {0} of the rules is none")]
    Slot(usize),
}

impl EndpointRules {
    /// The rules that `policy` has about requests, with those of `secrets` that they name.
    #[must_use]
    pub fn new(
        endpoint: EndpointId,
        generation: u32,
        identity: Identity,
        name: String,
        policy: &EndpointPolicy,
        secrets: &dyn Secrets,
    ) -> Self {
        let mode = |direction, staged| Mode {
            audit: policy.map_state.audit(direction),
            staged,
            isolated_by: policy.direction(direction).isolated_by.iter().map(ToString::to_string).collect(),
        };
        let is_staged = policy.staged_requests != policy.requests;
        Self {
            form: FORM,
            endpoint,
            generation,
            identity,
            name,
            ingress: mode(Direction::Ingress, policy.map_state.staged_ingress),
            egress: mode(Direction::Egress, policy.map_state.staged_egress),
            enforced: Table::new(&policy.requests),
            staged: is_staged.then(|| Table::new(&policy.staged_requests)),
            secrets: NamedSecrets::of([&policy.requests, &policy.staged_requests], secrets),
        }
    }

    /// How `direction` is judged.
    #[must_use]
    pub const fn mode(&self, direction: Direction) -> &Mode {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// The tables as the engine has them: what is enforced, and what is only reported.
    ///
    /// # Errors
    /// They are of another form, or damaged. Then nothing is known, and nothing may pass.
    pub fn tables(&self) -> Result<(RequestTable, Option<RequestTable>), RulesError> {
        if self.form != FORM {
            return Err(RulesError::Form(self.form));
        }
        let staged = self.staged.as_ref().map(Table::to_engine).transpose()?;
        Ok((self.enforced.to_engine()?, staged))
    }
}

#[cfg(test)]
mod tests;
