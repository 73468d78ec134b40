//! Carries out batches: the only writer of the kernel's maps and of the state files.
//!
//! Runs on a thread of its own, one batch after the other. What fails is reported, and an endpoint whose new state
//! cannot be written is closed before the next step. Decides nothing.

mod collector;
mod thread;
mod totals;

pub(crate) use collector::{Collector, Forget};
pub(crate) use thread::{Kernel, Work};
pub(crate) use totals::{Fate, Totals};

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use ipnet::IpNet;
use sluice_ebpf_common::{EndpointFlags, EndpointInfo, IpcacheEntry};
use sluice_ebpf_loader::policy::{InPlace, Policies, PolicyMap};
use sluice_ebpf_loader::{LoaderError, SettingsMap, endpoints::Endpoints, ipcache::Ipcache};
use sluice_policy::MapState;
use sluice_types::EndpointId;

use crate::effect::{Amendment, Batch, Failed, Failure, Installation, Record, Report, Step};
use crate::report::chain;
use crate::store::{Store, StoreError};

/// Names of state files.
pub(crate) mod file {
    /// Leases.
    pub(crate) const IPAM: &str = "ipam.json";
    /// Identities.
    pub(crate) const IDENTITIES: &str = "identities.json";
    /// Used-up numbers.
    pub(crate) const NUMBERS: &str = "numbers.json";
    /// Directory of endpoints.
    pub(crate) const ENDPOINTS: &str = "endpoints";

    /// One endpoint.
    #[must_use]
    pub(crate) fn endpoint(id: sluice_types::EndpointId) -> String {
        format!("{ENDPOINTS}/{id}.json")
    }

    /// What the proxies know of one endpoint.
    #[must_use]
    pub(crate) fn rules(id: sluice_types::EndpointId) -> String {
        format!("{}/{}", sluice_proxy_rules::DIRECTORY, sluice_proxy_rules::file_name(id))
    }
}

type SharedMap = Rc<RefCell<PolicyMap>>;

/// Carries out steps.
#[derive(Debug)]
pub(crate) struct Executor {
    endpoints: Endpoints,
    ipcache: Ipcache,
    policies: Policies,
    settings: SettingsMap,
    store: Store,
    maps: HashMap<EndpointId, SharedMap>,
    is_epoch_stale: bool,
}

impl Executor {
    pub(crate) fn new(
        endpoints: Endpoints,
        ipcache: Ipcache,
        policies: Policies,
        settings: SettingsMap,
        store: Store,
    ) -> Self {
        Self { endpoints, ipcache, policies, settings, store, maps: HashMap::new(), is_epoch_stale: false }
    }

    /// Carries out a batch.
    pub(crate) fn execute(&mut self, batch: Batch) -> Report {
        let mut report = Report::default();
        for step in batch.steps {
            match step {
                Step::Store(record) => self.keep(&record, &mut report),
                Step::Install(installations) => self.install(installations, &mut report),
                Step::Amend(amendments) => self.amend(&amendments, &mut report),
                Step::Endpoint(infos) => self.write_entries(&infos, &mut report),
                Step::Unbind(ifindex) => {
                    let result = self.endpoints.remove_interface(ifindex).map(drop);
                    note(&mut report, Failed::Unbind(ifindex), result);
                }
                Step::Ipcache { set, remove } => self.write_ipcache(&set, &remove, &mut report),
                Step::Remove(id) => self.remove(id, &mut report),
            }
        }
        if self.is_epoch_stale {
            self.bump_epoch(&mut report);
        }
        report
    }

    fn keep(&self, record: &Record, report: &mut Report) {
        let store = &self.store;
        let (failed, result) = match record {
            Record::Ipam(record) => (Failed::StoreIpam, store.write(file::IPAM, record)),
            Record::Identities(rows) => (Failed::StoreTables, store.write(file::IDENTITIES, rows)),
            Record::Numbers(numbers) => (Failed::StoreTables, store.write(file::NUMBERS, numbers)),
            Record::Endpoint(endpoint) => {
                let result = store.write(&file::endpoint(endpoint.id), endpoint);
                (Failed::StoreEndpoint(endpoint.id), result)
            }
            // If it stays, the next start finds an endpoint without interface and removes it.
            Record::EndpointGone(id) => (Failed::StoreTables, self.store.remove(&file::endpoint(*id))),
            Record::Rules(rules) => {
                (Failed::StoreRules(rules.endpoint), store.publish(&file::rules(rules.endpoint), rules))
            }
            // What stays is of a life of the endpoint that is over, or nobody asks for it.
            Record::RulesGone(id) => (Failed::StoreRules(*id), self.store.remove(&file::rules(*id))),
        };
        if let Err(error) = result {
            report.failures.push(Failure { what: failed, reason: chain(&error) });
        }
    }

    /// Makes all maps, puts all of them in force in one call, then writes the entries with their new revisions.
    fn install(&mut self, installations: Vec<Installation>, report: &mut Report) {
        let mut made: Vec<(SharedMap, Vec<EndpointInfo>)> = Vec::new();
        for installation in installations {
            match self.policies.prepare(&installation.policy.map_state) {
                Ok(map) => made.push((Rc::new(RefCell::new(map)), installation.endpoints)),
                Err(error) => self.close_all(&installation.endpoints, &error, report),
            }
        }
        if self.put_in_force(&made).is_err() {
            // Which of them it was is found one by one.
            made = self.put_in_force_singly(made, report);
        }
        for (map, infos) in made {
            for info in &infos {
                if let Some(id) = EndpointId::new(info.id) {
                    self.maps.insert(id, Rc::clone(&map));
                }
            }
            self.write_entries(&infos, report);
        }
    }

    fn put_in_force(&self, made: &[(SharedMap, Vec<EndpointInfo>)]) -> Result<(), LoaderError> {
        let borrowed: Vec<_> = made.iter().map(|(map, infos)| (map.borrow(), infos)).collect();
        let places: Vec<(EndpointId, &PolicyMap)> = borrowed
            .iter()
            .flat_map(|(map, infos)| {
                infos.iter().filter_map(move |info| Some((EndpointId::new(info.id)?, &**map)))
            })
            .collect();
        if places.is_empty() { Ok(()) } else { self.policies.put_in_force(&places) }
    }

    fn put_in_force_singly(
        &mut self,
        made: Vec<(SharedMap, Vec<EndpointInfo>)>,
        report: &mut Report,
    ) -> Vec<(SharedMap, Vec<EndpointInfo>)> {
        let mut good = Vec::new();
        for (map, infos) in made {
            for info in infos {
                let one = [(Rc::clone(&map), vec![info])];
                match self.put_in_force(&one) {
                    Ok(()) => good.extend(one),
                    Err(error) => self.close_all(&[info], &error, report),
                }
            }
        }
        good
    }

    fn write_entries(&mut self, infos: &[EndpointInfo], report: &mut Report) {
        for info in infos {
            if let Err(error) = self.endpoints.insert(info) {
                self.close_all(&[*info], &error, report);
            }
        }
    }

    /// Takes endpoints' ready bit, or their policy if even that cannot be done.
    fn close_all(&mut self, infos: &[EndpointInfo], error: &LoaderError, report: &mut Report) {
        for info in infos {
            let Some(id) = EndpointId::new(info.id) else { continue };
            let mut reason = chain(error);
            let closed = EndpointInfo { flags: EndpointFlags::default(), ..*info };
            if self.endpoints.insert(&closed).is_err()
                && let Err(worse) = self.policies.remove(id)
            {
                reason = format!("{reason}; it cannot be closed either: {}", chain(&worse));
            }
            self.maps.remove(&id);
            report.failures.push(Failure { what: Failed::Install(id), reason });
        }
    }

    fn amend(&mut self, amendments: &[Amendment], report: &mut Report) {
        for amendment in amendments {
            if let Err(error) = self.amend_one(amendment) {
                for id in &amendment.endpoints {
                    let info = self.endpoints.read(*id).ok().flatten();
                    let info = info.unwrap_or(EndpointInfo { id: id.as_u16(), ..EndpointInfo::default() });
                    self.close_all(&[info], &error, report);
                }
            }
        }
    }

    fn amend_one(&mut self, amendment: &Amendment) -> Result<(), LoaderError> {
        let mut done: Vec<SharedMap> = Vec::new();
        for id in &amendment.endpoints {
            let Some(map) = self.maps.get(id).cloned() else {
                return self.replace(&amendment.endpoints, &amendment.policy.map_state);
            };
            if done.iter().any(|known| Rc::ptr_eq(known, &map)) {
                continue;
            }
            let mut open = map.borrow_mut();
            if open.add_entries(&amendment.add)? == InPlace::Rebuild {
                drop(open);
                return self.replace(&amendment.endpoints, &amendment.policy.map_state);
            }
            open.remove_entries(&amendment.remove)?;
            drop(open);
            done.push(map);
        }
        Ok(())
    }

    /// The same policy for packets that there are, in a new map: no verdict changes, so the revision stays.
    fn replace(&mut self, endpoints: &[EndpointId], state: &MapState) -> Result<(), LoaderError> {
        let map = Rc::new(RefCell::new(self.policies.install(endpoints, state)?));
        for id in endpoints {
            self.maps.insert(*id, Rc::clone(&map));
        }
        Ok(())
    }

    fn write_ipcache(&mut self, set: &[(IpNet, IpcacheEntry)], remove: &[IpNet], report: &mut Report) {
        self.is_epoch_stale = true;
        if self.ipcache.upsert_many(set).is_err() {
            for (prefix, entry) in set {
                note(report, Failed::Ipcache(*prefix), self.ipcache.upsert(*prefix, entry));
            }
        }
        for prefix in remove {
            note(report, Failed::Ipcache(*prefix), self.ipcache.remove(*prefix).map(drop));
        }
        self.bump_epoch(report);
    }

    fn bump_epoch(&mut self, report: &mut Report) {
        let result = self.settings.bump_epoch();
        self.is_epoch_stale = result.is_err();
        note(report, Failed::Epoch, result.map(drop));
    }

    fn remove(&mut self, id: EndpointId, report: &mut Report) {
        let result = self.endpoints.remove(id).and_then(|()| self.policies.remove(id));
        if result.is_ok() {
            self.maps.remove(&id);
        }
        note(report, Failed::Remove(id), result);
    }

    /// Reports verdicts that allow, or only drops.
    pub(crate) fn report_verdicts(&self, is_on: bool) {
        use sluice_ebpf_common::ConfigFlags;
        let mut settings = sluice_ebpf_loader::Settings::default();
        if is_on {
            settings.flags = settings.flags.with(ConfigFlags::VERDICT_EVENTS);
        }
        if let Err(error) = self.settings.write(&settings) {
            tracing::error!(error = chain(&error), "verdict events not switched");
        }
    }
}

fn note(report: &mut Report, what: Failed, result: Result<(), LoaderError>) {
    if let Err(error) = result {
        report.failures.push(Failure { what, reason: chain(&error) });
    }
}

/// Reads a state file; what is wrong with it becomes a problem.
pub(crate) fn read_file<T: serde::de::DeserializeOwned>(
    store: &Store,
    name: &str,
    problems: &mut Vec<sluice_client::model::Problem>,
) -> Option<T> {
    store.read(name).unwrap_or_else(|error: StoreError| {
        let message = format!("{}; what it held is rebuilt from the kernel and the manifests", chain(&error));
        tracing::error!(file = name, error = chain(&error), "state file not usable");
        problems.push(sluice_client::model::Problem { object: name.to_owned(), message });
        None
    })
}
