//! The worker on real directories, with a clock that the test moves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use sluice_client::model::PolicyDocument;
use sluice_policy::{PolicyKind, PolicyRef};

use super::worker::Worker;
use super::{apply, scan};
use crate::event::RefusalCode;
use crate::source::{Object, ObjectKey, SourceChanges};
use crate::store::Store;

struct Rig {
    dir: tempfile::TempDir,
    worker: Worker,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["user", "applied", "state"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let worker = worker(dir.path());
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        let now = Instant::now();
        Self { dir, worker, now }
    }

    /// The next agent on the same directories.
    fn restart(self) -> Self {
        Self { worker: worker(self.dir.path()), dir: self.dir, now: self.now }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("user").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Looks after everything has been left alone for long enough.
    fn look(&mut self) -> SourceChanges {
        let mut all = self.look_now();
        self.now += scan::SETTLE;
        let late = self.look_now();
        all.set.extend(late.set);
        all.removed.extend(late.removed);
        SourceChanges { set: all.set, removed: all.removed, ..late }
    }

    /// Looks at once; the wall clock says that every file was written this moment.
    fn look_now(&mut self) -> SourceChanges {
        self.worker.look(self.now, SystemTime::UNIX_EPOCH)
    }
}

fn worker(dir: &Path) -> Worker {
    let store = Store::open(dir.join("state")).unwrap();
    Worker::new(dir.join("user"), dir.join("applied"), sluice_policy::Config::default(), store)
}

fn namespace(name: &str, team: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {team}}}}}\n")
}

fn policy(name: &str, port: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         endpointSelector: {{}}\n  ingress: [{{toPorts: [{{ports: [{{port: \"{port}\"}}]}}]}}]\n"
    )
}

fn keys(changes: &SourceChanges) -> Vec<String> {
    changes.set.iter().map(|object| object.key().to_string()).collect()
}

fn removed(changes: &SourceChanges) -> Vec<String> {
    changes.removed.iter().map(ToString::to_string).collect()
}

#[test]
fn create_change_delete_rename() {
    let mut rig = Rig::new();
    rig.write("a.yaml", &namespace("a", "x"));
    rig.write("deep/er/b.yml", &policy("p", "80"));
    rig.write("c.json", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"c"}}"#);
    for ignored in
        [".hidden.yaml", "a.yaml~", "b.yaml.swp", "c.yaml.tmp", "#d.yaml#", "readme.md", ".git/e.yaml"]
    {
        rig.write(ignored, &namespace("ignored", "x"));
    }
    assert_eq!(keys(&rig.look()), ["namespace/a", "namespace/c", "cnp/shop/p"]);
    assert_eq!(rig.look(), SourceChanges::default());

    rig.write("a.yaml", &namespace("a", "y"));
    assert_eq!(keys(&rig.look()), ["namespace/a"]);

    fs::rename(rig.path("a.yaml"), rig.path("z.yaml")).unwrap();
    assert_eq!(rig.look(), SourceChanges::default(), "the same object from another file");

    fs::remove_file(rig.path("z.yaml")).unwrap();
    let changes = rig.look();
    assert_eq!((keys(&changes), removed(&changes)), (vec![], vec!["namespace/a".to_owned()]));
}

#[test]
fn a_file_that_is_replaced_is_never_gone() {
    let mut rig = Rig::new();
    rig.write("a.yaml", &namespace("a", "x"));
    rig.look();
    fs::remove_file(rig.path("a.yaml")).unwrap();
    assert_eq!(rig.look_now(), SourceChanges::default(), "it may be on its way");
    rig.now += scan::SETTLE / 2;
    rig.write("a.yaml", &namespace("a", "y"));
    assert_eq!(rig.look_now(), SourceChanges::default());
    rig.now += scan::SETTLE;
    let changes = rig.look_now();
    assert_eq!((keys(&changes), removed(&changes)), (vec!["namespace/a".to_owned()], vec![]));
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let mut rig = Rig::new();
    rig.write("a.yaml", "apiVersion: v1\nkind: Namespace\nmetad");
    assert_eq!(rig.look_now(), SourceChanges::default());
    rig.now += Duration::from_millis(200);
    rig.write("a.yaml", &namespace("a", "x"));
    rig.now += Duration::from_millis(200);
    assert_eq!(
        rig.look_now(),
        SourceChanges::default(),
        "changed since it was last seen: the time starts anew"
    );
    rig.now += scan::SETTLE;
    let changes = rig.look_now();
    assert_eq!((keys(&changes), changes.problems.len()), (vec!["namespace/a".to_owned()], 0));
}

#[test]
fn a_file_that_is_old_is_read_at_once() {
    let mut rig = Rig::new();
    rig.write("a.yaml", &namespace("a", "x"));
    let wall = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(keys(&rig.worker.look(rig.now, wall)), ["namespace/a"]);
}

#[test]
fn what_is_refused_keeps_its_last_good_version() {
    let mut rig = Rig::new();
    rig.write("a.yaml", &[policy("p", "80"), policy("q", "81"), namespace("n", "x")].join("---\n"));
    assert_eq!(rig.look().set.len(), 3);

    // One document is wrong in its meaning, one is gone, one changed.
    rig.write("a.yaml", &[policy("p", "99999"), namespace("n", "y")].join("---\n"));
    let changes = rig.look();
    assert_eq!(
        (keys(&changes), removed(&changes)),
        (vec!["namespace/n".to_owned()], vec!["cnp/shop/q".to_owned()])
    );
    let refused = &changes.refused[&ObjectKey::Policy(PolicyRef::new(PolicyKind::Cnp, "shop", "p"))];
    assert!(refused.origin.ends_with("a.yaml:1"), "{refused}");
    assert!(refused.reason.contains("spec.ingress[0].toPorts[0].ports[0].port"), "{refused}");
    assert!(changes.problems[0].object.ends_with("a.yaml:1"));

    // The whole file is no YAML: everything stays.
    rig.write("a.yaml", "{nonsense");
    let changes = rig.look();
    assert_eq!((changes.set.len(), changes.removed.len(), changes.problems.len()), (0, 0, 1), "{changes:?}");

    rig.write("a.yaml", &policy("p", "82"));
    let changes = rig.look();
    assert_eq!(
        (keys(&changes), removed(&changes)),
        (vec!["cnp/shop/p".to_owned()], vec!["namespace/n".to_owned()])
    );
    assert_eq!((changes.problems.len(), changes.refused.len()), (0, 0));
}

#[test]
fn the_last_good_version_survives_a_restart() {
    let mut rig = Rig::new();
    rig.write("a.yaml", &["# a comment".to_owned(), policy("p", "80")].join("\n"));
    rig.look();
    rig.write("a.yaml", "{nonsense");
    let mut rig = rig.restart();
    let changes = rig.look();
    assert_eq!((keys(&changes), changes.problems.len()), (vec!["cnp/shop/p".to_owned()], 1));
    let Object::Policy(policy) = &changes.set[0] else { panic!("{changes:?}") };
    assert!(policy.origin.ends_with("a.yaml:2"), "{}", policy.origin);

    fs::remove_file(rig.path("a.yaml")).unwrap();
    let mut rig = rig.restart();
    assert_eq!(rig.look(), SourceChanges::default(), "a file that was removed meanwhile is gone");
    assert_eq!(fs::read_dir(rig.dir.path().join("state/last-good")).unwrap().count(), 0);
}

#[test]
fn of_two_the_first_by_path_is_in_force() {
    let mut rig = Rig::new();
    rig.write("b.yaml", &namespace("n", "second"));
    rig.look();
    rig.write("a.yaml", &namespace("n", "first"));
    let changes = rig.look();
    assert_eq!(keys(&changes), ["namespace/n"]);
    assert!(changes.problems[0].object.ends_with("b.yaml:1"), "{:?}", changes.problems);
    assert!(changes.problems[0].message.contains("a.yaml"));
    fs::remove_file(rig.path("a.yaml")).unwrap();
    let changes = rig.look();
    let Object::Namespace(namespace) = &changes.set[0] else { panic!("{changes:?}") };
    assert_eq!((namespace.labels["team"].as_str(), changes.problems.len()), ("second", 0));
}

#[test]
fn a_directory_that_vanishes_takes_nothing_along() {
    let mut rig = Rig::new();
    rig.write("a.yaml", &policy("p", "80"));
    rig.look();
    fs::rename(rig.dir.path().join("user"), rig.dir.path().join("moved")).unwrap();
    let changes = rig.look();
    assert_eq!((changes.removed.len(), changes.problems.len()), (0, 1), "{changes:?}");
    assert!(changes.problems[0].message.contains("stays in force"));
    let mut rig = rig.restart();
    let changes = rig.look();
    assert_eq!((keys(&changes), changes.problems.len()), (vec!["cnp/shop/p".to_owned()], 1));
    fs::create_dir(rig.dir.path().join("user")).unwrap();
    assert_eq!(removed(&rig.look()), ["cnp/shop/p"], "an empty one is empty");
}

#[test]
fn hostile_files_are_refused_alone() {
    let mut rig = Rig::new();
    rig.write("good.yaml", &namespace("n", "x"));
    fs::write(rig.path("binary.yaml"), [0xff, 0xfe, 0]).unwrap();
    fs::write(rig.path("large.yaml"), vec![b'#'; 9 << 20]).unwrap();
    std::os::unix::fs::symlink("/nonexistent", rig.path("dangling.yaml")).unwrap();
    std::os::unix::fs::symlink(rig.dir.path(), rig.path("loop")).unwrap();
    let changes = rig.look();
    assert_eq!((keys(&changes), changes.problems.len()), (vec!["namespace/n".to_owned()], 2), "{changes:?}");
}

fn document(text: &str) -> PolicyDocument {
    PolicyDocument { text: text.to_owned(), name: "my.yaml".to_owned() }
}

impl Rig {
    fn apply(&mut self, text: &str) -> Result<Vec<String>, crate::event::Refusal> {
        let applied = self.dir.path().join("applied");
        let done = apply::apply(self.worker.catalog(), &applied, &document(text));
        self.look();
        done.map(|done| done.results)
    }

    fn delete(&mut self, name: &str) -> Result<Vec<String>, crate::event::Refusal> {
        let applied = self.dir.path().join("applied");
        let reference = PolicyRef::new(PolicyKind::Cnp, "shop", name);
        let done = apply::delete(self.worker.catalog(), &applied, &reference);
        self.look();
        done.map(|done| done.results)
    }
}

#[test]
fn applying_is_all_or_nothing() {
    let mut rig = Rig::new();
    let refusal = rig.apply(&[policy("p", "80"), policy("q", "x y")].join("---\n")).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Invalid);
    assert!(refusal.message.starts_with("my.yaml:8: line 1"), "{refusal}");
    assert!(refusal.message.contains(": spec.ingress[0]"), "{refusal}");
    assert_eq!(fs::read_dir(rig.dir.path().join("applied")).unwrap().count(), 0, "nothing was written");
    for (text, reason) in [
        ("", "there is no policy in it"),
        (namespace("n", "x").as_str(), "namespace/n is no policy"),
        ([policy("p", "80"), policy("p", "81")].join("---\n").as_str(), "comes twice"),
        (policy("../../x", "80").as_str(), "is no valid name"),
    ] {
        let refusal = rig.apply(text).unwrap_err();
        assert!(refusal.message.contains(reason), "{refusal}");
    }

    assert_eq!(rig.apply(&policy("p", "80")).unwrap(), ["CiliumNetworkPolicy/shop/p created"]);
    assert_eq!(rig.apply(&policy("p", "80")).unwrap(), ["CiliumNetworkPolicy/shop/p unchanged"]);
    assert_eq!(rig.apply(&policy("p", "81")).unwrap(), ["CiliumNetworkPolicy/shop/p configured"]);
    assert!(rig.dir.path().join("applied/cnp_shop_p.yaml").exists());
    assert_eq!(rig.delete("p").unwrap(), ["CiliumNetworkPolicy/shop/p deleted"]);
    assert_eq!(rig.delete("p").unwrap_err().code, RefusalCode::NotFound);
}

#[test]
fn what_the_users_directory_holds_is_changed_there() {
    let mut rig = Rig::new();
    rig.write("mine.yaml", &policy("p", "80"));
    rig.look();
    assert_eq!(rig.apply(&policy("p", "80")).unwrap(), ["CiliumNetworkPolicy/shop/p unchanged"]);
    for refusal in [rig.apply(&policy("p", "81")).unwrap_err(), rig.delete("p").unwrap_err()] {
        assert_eq!(refusal.code, RefusalCode::Conflict);
        assert!(refusal.message.contains("mine.yaml"), "{refusal}");
    }
}
