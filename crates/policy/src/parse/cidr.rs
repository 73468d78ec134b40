//! Prefixes as text. Stricter than the libraries: what two readers could take for two prefixes is refused.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Reason;

/// Reads `10.0.0.0/8`. Host bits are cleared.
pub(super) fn prefix(text: &str) -> Result<IpNet, Reason> {
    let (address, length) = text.split_once('/').ok_or_else(|| Reason::NoPrefix(text.to_owned()))?;
    let plain = !length.is_empty()
        && length.bytes().all(|byte| byte.is_ascii_digit())
        && (length == "0" || !length.starts_with('0'));
    let length = plain.then(|| length.parse::<u8>().ok()).flatten();
    let net = length.and_then(|length| IpNet::new(parse_address(address).ok()?, length).ok());
    let net = net.ok_or_else(|| Reason::NoPrefix(text.to_owned()))?;
    refuse_mapped(net.addr(), text)?;
    Ok(net.trunc())
}

/// Reads `10.0.0.0/8`, or `10.0.0.1` as the prefix of that address alone.
pub(super) fn prefix_or_address(text: &str) -> Result<IpNet, Reason> {
    if text.contains('/') {
        return prefix(text);
    }
    let address = parse_address(text)?;
    refuse_mapped(address, text)?;
    Ok(IpNet::from(address))
}

/// The standard library takes neither leading zeros nor zones.
fn parse_address(text: &str) -> Result<IpAddr, Reason> {
    text.parse().ok().ok_or_else(|| Reason::NoAddress(text.to_owned()))
}

fn refuse_mapped(address: IpAddr, text: &str) -> Result<(), Reason> {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err(Reason::MappedAddress(text.to_owned()))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    }
}

/// The holes of a prefix, each of which must lie inside.
pub(super) fn check_hole(prefix: IpNet, hole: IpNet) -> Result<IpNet, Reason> {
    if prefix.contains(&hole) { Ok(hole) } else { Err(Reason::HoleOutside { prefix, hole }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let cases = [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.0.0.1/8", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::/0", Some("::/0")),
            ("2001:DB8::1/32", Some("2001:db8::/32")),
            ("10.0.0.1", Some("10.0.0.1/32")),
            ("fd00::1", Some("fd00::1/128")),
            ("10.0.0.0/33", None),
            ("::/129", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/08", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/-1", None),
            ("10.0.0.0/8/8", None),
            ("010.0.0.1", None),
            ("010.0.0.1/8", None),
            ("10.0.0", None),
            ("10.0.0.1 ", None),
            ("::ffff:10.0.0.1", None),
            ("::ffff:10.0.0.1/104", None),
            ("::ffff:0a00:1/128", None),
            ("fe80::1%eth0", None),
            ("fe80::1%eth0/64", None),
            ("localhost", None),
            ("", None),
        ];
        for (text, want) in cases {
            let got = prefix_or_address(text).ok().map(|net| net.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        }
        assert_eq!(prefix("10.0.0.1"), Err(Reason::NoPrefix("10.0.0.1".to_owned())));
    }
}
