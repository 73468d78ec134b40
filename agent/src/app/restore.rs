//! Reads what an earlier run left in the kernel and on disk.

use anyhow::Context;
use sluice_client::model::Problem;
use sluice_ebpf_loader::Datapath;
use sluice_netlink::Netlink;

use crate::datapath::{file, read_file};
use crate::effect::EndpointRecord;
use crate::state::Restored;
use crate::store::Store;

/// Everything that is there. Files that are damaged are left out and named as problems.
pub(super) fn gather(
    datapath: &Datapath,
    store: &Store,
    mut problems: Vec<Problem>,
) -> anyhow::Result<Restored> {
    let mut netlink = Netlink::open()?;
    let endpoints = read_endpoints(store, &mut problems);
    let bound = datapath.endpoints.interfaces()?;
    let restored = Restored {
        endpoints,
        identities: read_file(store, file::IDENTITIES, &mut problems).unwrap_or_default(),
        numbers: read_file(store, file::NUMBERS, &mut problems).unwrap_or_default(),
        ipam: read_file(store, file::IPAM, &mut problems).unwrap_or_default(),
        kernel: datapath.endpoints.list()?,
        bound: bound
            .into_iter()
            .filter_map(|(ifindex, id)| Some((ifindex, u16::try_from(id).ok()?)))
            .collect(),
        ipcache: datapath.ipcache.dump()?,
        links: crate::node::links(&mut netlink).context("list the node's links")?,
        problems,
    };
    tracing::info!(
        endpoints = restored.endpoints.len(),
        in_kernel = restored.kernel.len(),
        ipcache = restored.ipcache.len(),
        "earlier state read"
    );
    Ok(restored)
}

fn read_endpoints(store: &Store, problems: &mut Vec<Problem>) -> Vec<EndpointRecord> {
    let names = store.list(file::ENDPOINTS).unwrap_or_else(|error| {
        problems.push(Problem { object: file::ENDPOINTS.to_owned(), message: crate::report::chain(&error) });
        Vec::new()
    });
    names.iter().filter_map(|name| read_file(store, name, problems)).collect()
}
