//! The network configuration through which the container runtime finds the plugin.

use std::path::Path;

use serde_json::json;
use sluice_ebpf_common::PIN_SUBDIR;

use crate::config::Config;
use crate::store::{self, StoreError};

/// Sorts before most others: runtimes take the first.
const FILE: &str = "05-sluice.conflist";

/// Writes the configuration, if a directory for it was given. It is the last thing done at the start: a runtime that
/// sees it may call the plugin at once.
///
/// # Errors
/// The file system refuses.
pub(crate) fn write(config: &Config) -> Result<(), StoreError> {
    let Some(directory) = &config.cni_conf_dir else { return Ok(()) };
    store::make_dir(directory)?;
    let body = content(config);
    let path = directory.join(FILE);
    store::write_atomically(&path, body.to_string().as_bytes(), 0o644)
}

fn content(config: &Config) -> serde_json::Value {
    let path = |path: &Path| path.display().to_string();
    json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": config.network_name,
        "plugins": [{
            "type": "sluice-cni",
            "agentSocket": path(&config.socket),
            "stateDir": path(&config.state_dir),
            "pinDir": path(&config.bpffs.join(PIN_SUBDIR)),
            "mtu": config.mtu,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn names_what_the_plugin_needs() {
        let dir = tempfile::tempdir().unwrap();
        let conf_dir = dir.path().join("net.d");
        let flags =
            ["sluice-agent", "--bpffs", "/b", "--state-dir", "/s", "--socket", "/a.sock", "--cni-conf-dir"];
        let arguments = flags.into_iter().map(Into::into).chain([conf_dir.clone().into_os_string()]);
        let config = crate::config::Cli::try_parse_from(arguments).unwrap().config;
        write(&config).unwrap();
        write(&config).unwrap();
        let text = std::fs::read_to_string(conf_dir.join("05-sluice.conflist")).unwrap();
        let conflist: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(conflist["cniVersion"], "1.0.0");
        assert_eq!(conflist["plugins"][0]["pinDir"], "/b/sluice/v1");
        assert_eq!(std::fs::read_dir(conf_dir).unwrap().count(), 1, "no temporary file stays");
    }
}
