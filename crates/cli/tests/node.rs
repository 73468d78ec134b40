//! `up`, `pod` and `demo` with the real agent and the real CNI plugin, in namespaces of their own. Needs root, and all
//! programs built (`make build`).

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Output, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process};

    const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");
    /// Steps of a twentieth of a second that something may take.
    const TRIES: u32 = 600;

    /// A node of the test's own, which goes away with the test.
    struct Node {
        name: String,
        manifests: tempfile::TempDir,
        up: Child,
    }

    impl Node {
        fn start() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            assert!(
                rustix::process::geteuid().is_root(),
                "this test makes network namespaces: run it as root"
            );
            for program in ["sluice-agent", "sluice-cni"] {
                let path = Path::new(SLUICE).with_file_name(program);
                assert!(path.exists(), "{} is not built: `make build` does", path.display());
            }
            let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let manifests = tempfile::tempdir().unwrap();
            let up = Command::new(SLUICE)
                .args(["up", manifests.path().to_str().unwrap(), "--name", &name])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let mut node = Self { name, manifests, up };
            let ready = || node.run(&["status", "--brief"]).status.success();
            assert!(eventually(ready), "the node does not come up");
            assert!(node.up.try_wait().unwrap().is_none(), "`up` ended by itself");
            node
        }

        fn run(&self, arguments: &[&str]) -> Output {
            let mut command = Command::new(SLUICE);
            command
                .args(["--node", &self.name])
                .args(arguments)
                .env_remove("SLUICE_SOCKET")
                .stdin(Stdio::null());
            command.output().unwrap()
        }

        fn ok(&self, arguments: &[&str]) -> String {
            let output = self.run(arguments);
            assert!(output.status.success(), "sluice {arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        }

        fn fails(&self, arguments: &[&str], code: i32) -> String {
            let output = self.run(arguments);
            assert_eq!(output.status.code(), Some(code), "sluice {arguments:?}: {output:?}");
            String::from_utf8(output.stderr).unwrap()
        }

        fn end(&mut self, signal: Signal) {
            kill_process(Pid::from_child(&self.up), signal).unwrap();
            self.up.wait().unwrap();
        }

        /// Everything that stands on this machine with the node's name.
        fn traces(&self) -> Vec<PathBuf> {
            let below =
                |dir: &str| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
            let named = |path: &PathBuf| path.to_string_lossy().contains(&self.name);
            let files = below("/run/netns").chain(below("/run/sluice")).filter(named);
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
            let mounts = mounts.lines().filter(|line| line.contains(&format!("/{}/", self.name)));
            files.chain(mounts.map(PathBuf::from)).collect()
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            if matches!(self.up.try_wait(), Ok(None)) {
                self.end(Signal::TERM);
            }
        }
    }

    fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
        (0..TRIES).any(|_| {
            let so = is_so();
            if !so {
                std::thread::sleep(Duration::from_millis(50));
            }
            so
        })
    }

    fn alive(pid: u64) -> bool {
        // Who ended but was not waited for by its new parent yet is a line in a table, nothing more.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    const ALLOW_WEB: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEndpoints: [{matchLabels: {app: good}}]}]
";

    #[test]
    fn pods_live_and_go() {
        let mut node = Node::start();
        let serve = ["--", SLUICE, "serve", "--name", "web", "8080"];
        node.ok(&[["pod", "run", "shop/web", "-l", "app=web"].as_slice(), &serve].concat());
        let pods: serde_json::Value = serde_json::from_str(&node.ok(&["pod", "list", "-o", "json"])).unwrap();
        let server = pods[0]["pid"].as_u64().unwrap();
        let [v4, v6] = ["ipv4", "ipv6"].map(|family| pods[0][family].as_str().unwrap().to_owned());
        let targets = [format!("{v4}:8080"), format!("[{v6}]:8080")];

        assert!(node.fails(&["pod", "run", "shop/web"], 1).contains("exists already"));
        node.fails(&["pod", "run", "shop/bad", "-l", "app=-"], 4);
        node.fails(&["pod", "run", "shop/bad", "--", "/no/such/program"], 5);
        node.fails(&["pod", "run", "nonsense"], 2);

        node.ok(&["pod", "run", "shop/good", "-l", "app=good"]);
        node.ok(&["pod", "run", "shop/evil", "-l", "app=evil"]);
        let probe = |pod: &str, target: &str| {
            node.run(&["pod", "exec", pod, "--", SLUICE, "probe", target, "--timeout-ms", "400"])
        };
        for target in &targets {
            let up = || probe("shop/evil", target).status.success();
            assert!(eventually(up), "without a policy everybody may: {target}");
        }
        let file = node.manifests.path().join("../").join(format!("{}.yaml", node.name));
        std::fs::write(&file, ALLOW_WEB).unwrap();
        node.ok(&["policy", "apply", "-f", file.to_str().unwrap()]);
        std::fs::remove_file(&file).unwrap();
        let closed = || targets.iter().all(|target| !probe("shop/evil", target).status.success());
        assert!(eventually(closed), "the policy does not arrive");
        for target in &targets {
            assert!(probe("shop/good", target).status.success(), "{target}");
        }
        assert!(node.ok(&["endpoint", "get", "shop/web"]).contains("cnp/shop/web"));
        node.ok(&["policy", "delete", "cnp/shop/web"]);

        assert_eq!(
            node.run(&["pod", "run", "shop/job", "-i", "--", "sh", "-c", "exit 7"]).status.code(),
            Some(7)
        );
        node.ok(&["pod", "rm", "shop/web"]);
        assert!(!alive(server), "the pod's process is still there");
        node.fails(&["pod", "rm", "shop/web"], 5);
        let left = node.ok(&["pod", "list"]);
        assert!(
            left.contains("shop/good") && !left.contains("shop/web") && !left.contains("shop/job"),
            "{left}"
        );
        assert!(!node.ok(&["endpoint", "list", "-o", "json"]).contains("\"web\""));

        node.end(Signal::TERM);
        assert_eq!(node.traces(), Vec::<PathBuf>::new());
        assert_eq!(
            std::fs::read_dir(node.manifests.path()).unwrap().count(),
            0,
            "a manifest of a pod is left"
        );
    }

    #[test]
    fn a_killed_node_is_removed_by_the_next() {
        let mut node = Node::start();
        node.ok(&["pod", "run", "shop/web", "-l", "app=web", "--", "sleep", "600"]);
        let pods: serde_json::Value = serde_json::from_str(&node.ok(&["pod", "list", "-o", "json"])).unwrap();
        let sleeper = pods[0]["pid"].as_u64().unwrap();
        node.end(Signal::KILL);
        node.fails(&["pod", "list"], 3);
        let next = Node::start();
        assert_eq!(node.traces(), Vec::<PathBuf>::new());
        assert!(eventually(|| !alive(sleeper)), "the pod's process is still there");
        drop(next);
    }

    #[test]
    fn the_demo_shows_what_it_says() {
        let output = Command::new(SLUICE).args(["demo", "--fast"]).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("Everything ended as the policies say."), "{text}");
    }
}
