//! STATUS: whether ADD would work now. Answers within about a second whatever state the node is in.

use sluice_client::model::PoolStatus;

use crate::Request;
use crate::agent::Agent;
use crate::config::Ipam;
use crate::environment::Verb;
use crate::error::Error;
use crate::{ipam, programs};

/// Succeeds if pods can be added.
pub(crate) fn status(request: &Request) -> Result<(), Error> {
    let config = &request.config;
    let status = Agent::new(config).status().map_err(|source| Error::NotAvailable {
        reason: "the agent does not answer".to_owned(),
        source: Some(source),
    })?;
    let unavailable = |reason: String| Err(Error::NotAvailable { reason, source: None });
    if status.state == "starting" {
        return unavailable("the agent is starting".to_owned());
    }
    // Without pins the links of running pods may be gone too, and nobody enforces anything for them.
    if !programs::are_pinned(&config.pin_dir) {
        let reason = format!("the datapath's programs are not in {}", config.pin_dir.display());
        return Err(Error::LimitedConnectivity { reason });
    }
    match &config.ipam {
        Ipam::Delegated(plugin) => ipam::run_if_able(request, plugin, Verb::Status),
        Ipam::Own if status.ipam.iter().any(has_room) => Ok(()),
        Ipam::Own => {
            let pools: Vec<_> = status.ipam.iter().map(|pool| pool.pool.as_str()).collect();
            unavailable(format!("there is no free address in the pools ({})", pools.join(", ")))
        }
    }
}

fn has_room(pool: &PoolStatus) -> bool {
    pool.used.saturating_add(pool.resting) < pool.capacity
}
