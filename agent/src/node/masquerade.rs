//! What pods send to the outside gets the node's address: one nftables table of our own, replaced as a whole.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use ipnet::IpNet;

use super::POD_LINK_PREFIX;

/// The table's name; its family is `inet`.
pub(crate) const TABLE: &str = "sluice";

/// The table cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MasqueradeError {
    /// There is no `nft`.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// It refuses.
    #[error("nft refuses: {0}")]
    Refused(String),
}

/// Puts the table in place of what it was, in one transaction.
///
/// # Errors
/// There is no `nft`, or it refuses; then the table is what it was.
pub(crate) fn install(pools: &[IpNet]) -> Result<(), MasqueradeError> {
    run(&script(pools))
}

/// Whether the table is there.
#[must_use]
pub(crate) fn is_installed() -> bool {
    let list = Command::new("nft")
        .args(["list", "table", "inet", TABLE])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    list.is_ok_and(|status| status.success())
}

/// Removes the table. None there is no error.
///
/// # Errors
/// There is no `nft`, or it refuses.
pub(crate) fn remove() -> Result<(), MasqueradeError> {
    run(&format!("add table inet {TABLE}\ndelete table inet {TABLE}\n"))
}

/// Packets from a pod's address to one that is no pod's, by a device that leads to no pod.
fn script(pools: &[IpNet]) -> String {
    let mut script = format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    script.push_str("  chain postrouting {\n    type nat hook postrouting priority srcnat; policy accept;\n");
    for pool in pools {
        let family = if pool.addr().is_ipv4() { "ip" } else { "ip6" };
        script.push_str(&format!(
            "    {family} saddr {pool} {family} daddr != {pool} oifname != {{ \"{POD_LINK_PREFIX}*\", \"lo\" }} masquerade\n"
        ));
    }
    script.push_str("  }\n}\n");
    script
}

fn run(script: &str) -> Result<(), MasqueradeError> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(MasqueradeError::Run)?;
    if let Some(mut stdin) = nft.stdin.take() {
        // If it does not read to the end, it says why.
        drop(stdin.write_all(script.as_bytes()));
    }
    let output = nft.wait_with_output().map_err(MasqueradeError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gives no reason");
    Err(MasqueradeError::Refused(first.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_for_each_pool() {
        let script = script(&["10.0.0.0/24".parse().unwrap(), "fd00::/112".parse().unwrap()]);
        assert!(script.starts_with("add table inet sluice\ndelete table inet sluice\ntable inet sluice {"));
        assert!(script.contains(
            "ip saddr 10.0.0.0/24 ip daddr != 10.0.0.0/24 oifname != { \"slu*\", \"lo\" } masquerade"
        ));
        assert!(script.contains("ip6 saddr fd00::/112 ip6 daddr != fd00::/112"));
        assert_eq!(script.matches('{').count(), script.matches('}').count());
    }
}
