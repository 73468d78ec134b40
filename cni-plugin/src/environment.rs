//! The parameters of a call: the environment variables of the specification, checked.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::args::PodArgs;
use crate::error::Error;

/// Longest container id. Runtimes use 64 hexadecimal digits; it becomes part of file names and an alias.
const CONTAINER_ID_LEN_MAX: usize = 128;
/// Longest interface name of the kernel.
const IFNAME_LEN_MAX: usize = 15;

/// What the runtime asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    /// `CNI_COMMAND`.
    pub(crate) fn from_environment(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let name = "CNI_COMMAND";
        let Some(value) = variable(name, environment)? else {
            let reason = "it is not set: this is a plugin that a container runtime starts, see docs/cni.md";
            return Err(invalid(name, reason));
        };
        let all = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];
        let found = all.into_iter().find(|verb| verb.as_str() == value);
        found.ok_or_else(|| invalid(name, &format!("`{}` is no verb", value.escape_default())))
    }

    /// As it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// Whether it is about one container.
    const fn is_about_container(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The parameters. Verbs that are not about a container have an empty container id and interface name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Environment {
    /// `CNI_CONTAINERID`.
    pub(crate) container_id: String,
    /// `CNI_IFNAME`.
    pub(crate) ifname: String,
    /// `CNI_NETNS`; may be absent for DEL only.
    pub(crate) netns: Option<PathBuf>,
    /// `CNI_PATH`, split.
    pub(crate) plugin_dirs: Vec<PathBuf>,
    /// What `CNI_ARGS` says about the pod.
    pub(crate) pod: PodArgs,
}

impl Environment {
    /// Reads and checks the parameters of `verb`.
    pub(crate) fn from_environment(
        verb: Verb,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let read = |name| variable(name, environment);
        let plugin_dirs = read("CNI_PATH")?.unwrap_or_default();
        let plugin_dirs = plugin_dirs.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect();
        if !verb.is_about_container() {
            return Ok(Self { plugin_dirs, ..Self::default() });
        }
        let container_id = required("CNI_CONTAINERID", read("CNI_CONTAINERID")?)?;
        check_container_id(&container_id).map_err(|reason| invalid("CNI_CONTAINERID", &reason))?;
        let ifname = required("CNI_IFNAME", read("CNI_IFNAME")?)?;
        check_ifname(&ifname).map_err(|reason| invalid("CNI_IFNAME", &reason))?;
        let netns = match read("CNI_NETNS")? {
            None if verb == Verb::Del => None,
            netns => Some(PathBuf::from(required("CNI_NETNS", netns)?)),
        };
        if netns.as_deref().is_some_and(|path| !path.is_absolute()) {
            return Err(invalid("CNI_NETNS", "it is not an absolute path"));
        }
        let pod = PodArgs::parse(&read("CNI_ARGS")?.unwrap_or_default())
            .map_err(|reason| invalid("CNI_ARGS", &reason))?;
        Ok(Self { container_id, ifname, netns, plugin_dirs, pod })
    }

    /// `CNI_NETNS`, or why it is needed.
    pub(crate) fn netns(&self) -> Result<&Path, Error> {
        self.netns.as_deref().ok_or_else(|| invalid("CNI_NETNS", "it is not set"))
    }
}

/// Checks an id by the specification's rule: letters, digits, `_`, `.` and `-`, the first a letter or digit.
pub(crate) fn check_container_id(id: &str) -> Result<(), String> {
    check_word(id, CONTAINER_ID_LEN_MAX)
}

/// Checks a word of the specification: a letter or digit, then letters, digits, `_`, `.` and `-`.
pub(crate) fn check_word(word: &str, len_max: usize) -> Result<(), String> {
    let mut bytes = word.bytes();
    if !bytes.next().is_some_and(|first| first.is_ascii_alphanumeric()) {
        return Err("it does not begin with a letter or digit".to_owned());
    }
    if let Some(bad) = bytes.find(|byte| !(byte.is_ascii_alphanumeric() || b"_.-".contains(byte))) {
        return Err(format!("it holds `{}`", bad.escape_ascii()));
    }
    if word.len() > len_max {
        return Err(format!("it is longer than {len_max} bytes"));
    }
    Ok(())
}

/// Checks the name of an interface. Stricter than the kernel, which takes all but `/`, `:` and white space and
/// reads `%d` as "choose a number": letters, digits and `. _ - @ +`.
pub(crate) fn check_ifname(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if name.len() > IFNAME_LEN_MAX {
        return Err(format!("it is longer than {IFNAME_LEN_MAX} bytes"));
    }
    if [".", "..", "lo"].contains(&name) {
        return Err(format!("`{name}` means something else"));
    }
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(byte);
    match name.bytes().find(|byte| !is_good(byte)) {
        Some(bad) => Err(format!("it holds `{}`", bad.escape_ascii())),
        None => Ok(()),
    }
}

/// The variable; set to nothing is the same as not set.
fn variable(
    name: &'static str,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<String>, Error> {
    let Some(value) = environment(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.into_string().map(Some).map_err(|_bytes| invalid(name, "it is not UTF-8"))
}

fn required(name: &'static str, value: Option<String>) -> Result<String, Error> {
    value.ok_or_else(|| invalid(name, "it is not set"))
}

fn invalid(name: &'static str, reason: &str) -> Error {
    Error::Environment { name, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn check(verb: Verb, changes: &[(&str, &str)]) -> Result<Environment, Error> {
        let lookup = |name: &str| {
            let base = [
                ("CNI_CONTAINERID", "abc"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", "/run/netns/abc"),
                ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
            ];
            let own = changes.iter().find(|(key, _)| *key == name);
            let value = own.or_else(|| base.iter().find(|(key, _)| *key == name));
            value.map(|(_, value)| OsString::from(*value))
        };
        Environment::from_environment(verb, &lookup)
    }

    #[test]
    fn complete() {
        let environment = check(Verb::Add, &[]).unwrap();
        assert_eq!(environment.container_id, "abc");
        assert_eq!(environment.ifname, "eth0");
        assert_eq!(environment.netns().unwrap(), Path::new("/run/netns/abc"));
        assert_eq!(environment.plugin_dirs, [Path::new("/opt/cni/bin"), Path::new("/usr/lib/cni")]);
        assert!(check(Verb::Del, &[("CNI_NETNS", "")]).unwrap().netns.is_none());
        assert!(
            check(Verb::Status, &[("CNI_CONTAINERID", ""), ("CNI_IFNAME", ""), ("CNI_NETNS", "")]).is_ok()
        );
    }

    #[test]
    fn refused() {
        let long_id = "a".repeat(129);
        let huge = "a".repeat(4096);
        let cases = [
            (Verb::Add, "CNI_CONTAINERID", ""),
            (Verb::Del, "CNI_CONTAINERID", ""),
            (Verb::Add, "CNI_CONTAINERID", "../x"),
            (Verb::Add, "CNI_CONTAINERID", ".."),
            (Verb::Add, "CNI_CONTAINERID", "a/b"),
            (Verb::Add, "CNI_CONTAINERID", "-a"),
            (Verb::Add, "CNI_CONTAINERID", "a b"),
            (Verb::Add, "CNI_CONTAINERID", "a\nb"),
            (Verb::Add, "CNI_CONTAINERID", "é"),
            (Verb::Add, "CNI_CONTAINERID", &long_id),
            (Verb::Add, "CNI_CONTAINERID", &huge),
            (Verb::Add, "CNI_IFNAME", ""),
            (Verb::Add, "CNI_IFNAME", "lo"),
            (Verb::Add, "CNI_IFNAME", "."),
            (Verb::Add, "CNI_IFNAME", ".."),
            (Verb::Add, "CNI_IFNAME", "../x"),
            (Verb::Add, "CNI_IFNAME", "a:1"),
            (Verb::Add, "CNI_IFNAME", "a b"),
            (Verb::Add, "CNI_IFNAME", "eth%d"),
            (Verb::Add, "CNI_IFNAME", "a?b"),
            (Verb::Add, "CNI_IFNAME", "sixteen-letters-"),
            (Verb::Add, "CNI_NETNS", ""),
            (Verb::Check, "CNI_NETNS", ""),
            (Verb::Add, "CNI_NETNS", "run/netns/abc"),
            (Verb::Add, "CNI_ARGS", "K8S_POD_NAME"),
        ];
        for (verb, name, value) in cases {
            match check(verb, &[(name, value)]) {
                Err(error @ Error::Environment { name: found, .. }) => {
                    assert_eq!((found, error.code()), (name, 4), "{verb} {name}={value:?}");
                }
                other => panic!("{verb} {name}={value:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn verbs() {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
            let found = Verb::from_environment(&|_| Some(verb.into())).unwrap();
            assert_eq!(found.to_string(), verb);
        }
        for bad in ["", "add", "ADD ", "DELETE", "\u{7f}"] {
            assert_eq!(Verb::from_environment(&|_| Some(bad.into())).unwrap_err().code(), 4, "{bad:?}");
        }
        assert_eq!(Verb::from_environment(&|_| None).unwrap_err().code(), 4);
        let bytes = || Some(OsString::from_vec(vec![0x41, 0xff]));
        assert_eq!(Verb::from_environment(&|_| bytes()).unwrap_err().code(), 4);
    }
}
