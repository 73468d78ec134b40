//! Killed at every step: DEL leaves nothing, ADD works again, with a DEL between or without.

use serde_json::json;

use crate::lab::{CONTAINER, Lab, Pod};

const ADD_STEPS: [&str; 11] = [
    "AddLocked",
    "AddLeased",
    "AddVethCreated",
    "AddVethNamed",
    "AddHostSettings",
    "AddProgramsAttached",
    "AddHostUp",
    "AddPodSetUp",
    "AddHostRoutes",
    "AddEndpointCreated",
    "AddDone",
];
const DEL_STEPS: [&str; 3] = ["DelAgentTold", "DelLinkDeleted", "DelProgramsDetached"];
const DEL_STEPS_WITHOUT_AGENT: [&str; 5] =
    ["DelRecordWritten", "DelRecordNamed", "DelAgentTold", "DelLinkDeleted", "DelProgramsDetached"];

fn die(lab: &Lab, pod: &Pod, verb: &str, step: &str) {
    let call = lab.call(verb, pod.netns.path(), &lab.config(&json!({})));
    let outcome = call.env("SLUICE_CNI_TEST_STOP_AFTER", step).run();
    assert!(outcome.killed && outcome.stdout.is_empty(), "{step}: {outcome:?}");
}

#[test]
fn add_killed_then_deleted() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    for step in ADD_STEPS {
        die(&lab, &pod, "ADD", step);
        lab.del(&pod).silent();
        assert_eq!(lab.traces(Some(&pod)), [""; 0], "{step}");
        lab.add(&pod).result();
        lab.del(&pod).silent();
        assert_eq!(lab.traces(Some(&pod)), [""; 0], "{step}");
    }
}

#[test]
fn add_killed_then_added() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    for step in ADD_STEPS {
        die(&lab, &pod, "ADD", step);
        if step == "AddDone" {
            lab.add(&pod).refused(105);
        } else {
            let result = lab.add(&pod).result();
            let config = lab.config(&json!({ "prevResult": result }));
            lab.call("CHECK", pod.netns.path(), &config).run().silent();
        }
        assert_eq!(lab.state().leases.len(), 1, "{step}");
        lab.del(&pod).silent();
        assert_eq!(lab.traces(Some(&pod)), [""; 0], "{step}");
    }
}

/// The container is gone with its namespace, and so is the veth: what is left are pins, lease and endpoint.
#[test]
fn add_killed_and_the_namespace_gone() {
    let lab = Lab::new();
    for (nth, step) in ADD_STEPS.into_iter().enumerate() {
        let mut pod = lab.pod(&format!("pod{nth}"));
        die(&lab, &pod, "ADD", step);
        pod.remove();
        let path = pod.netns.path().to_owned();
        drop(pod);
        lab.call("DEL", &path, &lab.config(&json!({}))).run().silent();
        assert_eq!(lab.traces(None), [""; 0], "{step}");
    }
}

#[test]
fn del_killed() {
    let mut lab = Lab::new();
    let pod = lab.pod("pod");
    for step in DEL_STEPS {
        lab.add(&pod).result();
        die(&lab, &pod, "DEL", step);
        lab.del(&pod).silent();
        assert_eq!(lab.traces(Some(&pod)), [""; 0], "{step}");
    }
    for step in DEL_STEPS_WITHOUT_AGENT {
        lab.add(&pod).result();
        lab.stop_agent();
        die(&lab, &pod, "DEL", step);
        lab.del(&pod).silent();
        let left = lab.traces(Some(&pod));
        let records: Vec<_> = left.iter().filter(|trace| trace.starts_with("record")).collect();
        assert_eq!(records, [&format!("record {CONTAINER}_eth0.json")], "{step}");
        assert_eq!(left.len(), 3, "{step}: record, lease and endpoint: {left:?}");
        lab.start_agent();
        lab.del(&pod).silent();
        assert_eq!(lab.traces(Some(&pod)), [""; 0], "{step}");
    }
}

/// A runtime that gave up on ADD sends DEL while ADD still runs: one waits for the other.
#[test]
fn calls_for_one_attachment_do_not_mix() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..12)
            .map(|nth| {
                let (lab, pod) = (&lab, &pod);
                scope.spawn(move || if nth % 2 == 0 { lab.add(pod) } else { lab.del(pod) })
            })
            .collect();
        for call in calls {
            let outcome = call.join().unwrap();
            assert!(outcome.success || outcome.stdout.contains("\"code\": 105"), "{outcome:?}");
        }
    });
    lab.del(&pod).silent();
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
}
