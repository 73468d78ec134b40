//! What documents say about themselves. Those that cannot be read are reported where they are read.

use sluice_api::nearest;
use sluice_policy::{PolicyKind, parse::AUDIT_ANNOTATION as AUDIT};

use crate::{
    Document, IGNORE,
    report::{At, Report, ignored, metadata},
    rules::{self, NAMESPACE_MISSING, UNKNOWN_ANNOTATION},
    scene::{Policy, Scene},
};

/// What stands before our annotations.
const OURS: &str = "sluice.dev/";

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for policy in &scene.policies {
        namespace_missing(policy, report);
    }
    for document in scene.documents {
        annotations(document, report);
    }
}

fn namespace_missing(policy: &Policy<'_>, report: &mut Report) {
    let named = policy.document.manifest.namespace.as_deref().is_some_and(|name| !name.is_empty());
    if !named && matches!(policy.name.kind, PolicyKind::Cnp | PolicyKind::Knp) {
        let message = "no namespace is given: where the policy ends up depends on who applies it";
        let help = "Write `metadata.namespace`. It is taken for `default` here; kubectl takes the one of its context.";
        report.add(&NAMESPACE_MISSING, &policy.at("metadata.name"), message, help);
    }
}

fn annotations(document: &Document, report: &mut Report) {
    let annotations = metadata(document).and_then(|metadata| metadata.annotations.as_ref());
    for key in annotations.into_iter().flatten().map(|(key, _)| key) {
        let at = At::new(document, format!("metadata.annotations[{key}]"));
        if key.starts_with(OURS) && ![IGNORE, AUDIT].contains(&key.as_str()) {
            let known = nearest(key, &[IGNORE, AUDIT]);
            let message = format!("the annotation {key} means nothing");
            let help = match known {
                Some(known) => format!("Did you mean `{known}`?"),
                None => format!("Known are `{IGNORE}` and `{AUDIT}`."),
            };
            report.add(&UNKNOWN_ANNOTATION, &at, message, help);
        }
    }
    for code in
        ignored(document).iter().filter(|code| rules::find(code).is_none_or(|rule| rule.code != **code))
    {
        let at = At::new(document, format!("metadata.annotations[{IGNORE}]"));
        let message = format!("{code:?} is no code, so nothing is silenced by it");
        let help = "Codes look like SL001; several are separated by commas.";
        report.add(&UNKNOWN_ANNOTATION, &at, message, help);
    }
}
