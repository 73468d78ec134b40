//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address, shown as `02:00:5e:10:00:01`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// This address made locally administered and unicast, so that it cannot be a vendor's or a group's.
    #[must_use]
    pub const fn local_unicast(self) -> Self {
        let [first, b, c, d, e, f] = self.0;
        Self([(first | 0x02) & !0x01, b, c, d, e, f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = MacParseError;

    /// Six pairs of hexadecimal digits with colons between them, in either case.
    fn from_str(text: &str) -> Result<Self, MacParseError> {
        let error = || MacParseError(text.to_owned());
        let mut bytes = [0_u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).ok().ok_or_else(error)?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

/// The text is no Ethernet address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not an Ethernet address")]
pub struct MacParseError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let mac: MacAddr = "02:00:5E:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        for bad in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "02:00:5e:10:00:f", "+2:00:5e:10:00:ff", "02-00"]
        {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn local_and_unicast() {
        assert_eq!(MacAddr([0xff, 1, 2, 3, 4, 5]).local_unicast(), MacAddr([0xfe, 1, 2, 3, 4, 5]));
        assert_eq!(MacAddr([0x00, 1, 2, 3, 4, 5]).local_unicast(), MacAddr([0x02, 1, 2, 3, 4, 5]));
    }
}
