//! The rules of endpoints, as the agent left them in files.
//!
//! A file is looked at when a flow of its endpoint comes and when it has changed, and read only if it is another one
//! than before. What cannot be read has no rules: nothing passes by it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_policy::requests::RequestJudge;
use sluice_policy::{Query, RequestTable};
use sluice_proxy_rules::{EndpointRules, Mode, NamedSecrets, file_name};
use sluice_types::{Direction, EndpointId};

/// How many compiled judges one endpoint keeps. With more peers and ports than that they are compiled again.
const JUDGES_MAX: usize = 4_096;

/// All files.
#[derive(Debug)]
pub(crate) struct RulesDirectory {
    directory: PathBuf,
    known: Mutex<HashMap<EndpointId, Arc<Loaded>>>,
}

/// The rules of one endpoint as they were at some moment.
#[derive(Debug)]
pub(crate) struct Loaded {
    stamp: Stamp,
    generation: u32,
    ingress: Mode,
    egress: Mode,
    enforced: RequestTable,
    staged: Option<RequestTable>,
    secrets: NamedSecrets,
    judges: Mutex<HashMap<Query, Arc<RequestJudge>>>,
}

/// Which file it is: each version is a file of its own, renamed into place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl Stamp {
    fn of(file: &std::fs::Metadata) -> Self {
        Self { inode: file.ino(), modified: (file.mtime(), file.mtime_nsec()), length: file.len() }
    }
}

impl RulesDirectory {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, known: Mutex::default() }
    }

    /// The rules of this life of an endpoint, as they are now.
    ///
    /// # Errors
    /// There are none, or they cannot be used.
    pub(crate) fn of(&self, endpoint: EndpointId, generation: u32) -> anyhow::Result<Arc<Loaded>> {
        let path = self.directory.join(file_name(endpoint));
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    self.forget(endpoint);
                }
                return Err(error.into());
            }
        };
        let stamp = Stamp::of(&file.metadata()?);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&endpoint).cloned();
        let loaded = match known.filter(|known| known.stamp == stamp) {
            Some(known) => known,
            None => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                let loaded = Arc::new(Loaded::new(stamp, serde_json::from_str(&text)?)?);
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(endpoint, Arc::clone(&loaded));
                loaded
            }
        };
        anyhow::ensure!(
            loaded.generation == generation,
            "the rules are of generation {}, the flow is of {generation}",
            loaded.generation
        );
        Ok(loaded)
    }

    fn forget(&self, endpoint: EndpointId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&endpoint);
    }
}

impl Loaded {
    fn new(stamp: Stamp, rules: EndpointRules) -> anyhow::Result<Self> {
        let (enforced, staged) = rules.tables()?;
        Ok(Self {
            stamp,
            generation: rules.generation,
            ingress: rules.ingress,
            egress: rules.egress,
            enforced,
            staged,
            secrets: rules.secrets,
            judges: Mutex::default(),
        })
    }

    /// How a direction is judged.
    pub(crate) const fn mode(&self, direction: Direction) -> &Mode {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// What headers are compared with.
    pub(crate) const fn secrets(&self) -> &NamedSecrets {
        &self.secrets
    }

    /// Who decides about the requests of connections like this.
    pub(crate) fn judge(&self, query: &Query) -> Arc<RequestJudge> {
        let mut judges = self.judges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(judge) = judges.get(query) {
            return Arc::clone(judge);
        }
        if judges.len() >= JUDGES_MAX {
            judges.clear();
        }
        let mode = self.mode(query.direction);
        // Without a table of their own, the policies in audit mode refuse what is refused anyway.
        let staged = self.staged.as_ref().filter(|_| mode.staged);
        let judge = Arc::new(RequestJudge::new(&self.enforced, staged, mode.audit, query));
        judges.insert(*query, Arc::clone(&judge));
        judge
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sluice_policy::Outcome;
    use sluice_policy::l7::HttpRequest;
    use sluice_proxy_rules::{FORM, Rule, Rules, Says, Slot, Table};
    use sluice_types::{Identity, Protocol, RuleId};

    use super::*;

    const QUERY: Query = Query {
        direction: Direction::Ingress,
        peer: Identity::WORLD,
        protocol: Protocol::Tcp,
        port: Some(80),
    };

    fn rules(generation: u32, path: &str) -> EndpointRules {
        let rule = Rule {
            part: "http[0]".to_owned(),
            method: None,
            path: Some(path.to_owned()),
            host: None,
            grpc: false,
            headers: Vec::new(),
        };
        let slot = Slot {
            direction: Direction::Ingress,
            peer: None,
            protocol: Some(6),
            port: Some((80, 16)),
            precedence: 1,
            rule: RuleId(7),
            exact: true,
            says: Says::Requests(0),
            at: None,
        };
        EndpointRules {
            form: FORM,
            endpoint: EndpointId::new(17).unwrap(),
            generation,
            identity: Identity::new(300),
            name: "shop/web".to_owned(),
            ingress: Mode::default(),
            egress: Mode::default(),
            enforced: Table { rules: vec![Rules::Http(vec![rule])], slots: vec![slot] },
            staged: None,
            secrets: NamedSecrets::default(),
        }
    }

    fn passes(loaded: &Loaded, path: &str) -> bool {
        let request = HttpRequest { method: "GET", path, authority: "web", headers: &[] };
        loaded.judge(&QUERY).judge(&request, &()).0 == Outcome::Allow
    }

    #[test]
    fn rules_are_those_of_the_file_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let id = EndpointId::new(17).unwrap();
        let path = directory.path().join(file_name(id));
        let put = |text: &str| {
            fs::write(path.with_extension("new"), text).unwrap();
            fs::rename(path.with_extension("new"), &path).unwrap();
        };
        let all = RulesDirectory::new(directory.path().to_owned());
        assert!(all.of(id, 70).is_err(), "there are none");
        put(&serde_json::to_string(&rules(70, "/a")).unwrap());
        let first = all.of(id, 70).unwrap();
        assert!(passes(&first, "/a") && !passes(&first, "/b"));
        assert!(Arc::ptr_eq(&first, &all.of(id, 70).unwrap()), "read once");
        assert!(all.of(id, 71).is_err(), "another life");
        put(&serde_json::to_string(&rules(70, "/b")).unwrap());
        let second = all.of(id, 70).unwrap();
        assert!(!passes(&second, "/a") && passes(&second, "/b"));
        for damaged in ["", "{", "null", &serde_json::to_string(&rules(70, "(")).unwrap()] {
            put(damaged);
            assert!(all.of(id, 70).is_err(), "{damaged:?}");
        }
        fs::remove_file(&path).unwrap();
        assert!(all.of(id, 70).is_err() && all.known.lock().unwrap().is_empty());
    }
}
