//! Settings below `/proc/sys`, as seen from the namespace of the calling thread.
//!
//! Settings of another namespace: call from [`crate::Netns::run`].

use std::io;
use std::path::PathBuf;

/// Writes `value` to the setting named by `path`, for example `["net", "ipv4", "conf", "eth0", "rp_filter"]`.
/// Parts are joined with `/`, so that interface names with dots mean themselves.
///
/// # Errors
/// [`SysctlError`]: a part is not a plain file name, or writing failed.
pub fn write(path: &[&str], value: &str) -> Result<(), SysctlError> {
    let file = locate(path)?;
    std::fs::write(&file, value).map_err(|source| SysctlError::Write {
        name: path.join("."),
        value: value.to_owned(),
        source,
    })
}

/// Reads the setting named by `path`, without the line's end.
///
/// # Errors
/// [`SysctlError`]: a part is not a plain file name, or reading failed.
pub fn read(path: &[&str]) -> Result<String, SysctlError> {
    let file = locate(path)?;
    std::fs::read_to_string(&file)
        .map(|text| text.trim_end().to_owned())
        .map_err(|source| SysctlError::Read { name: path.join("."), source })
}

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// A part of the name is empty, `.`, `..` or holds a `/`.
    #[error("`{0}` is not the name of a kernel setting")]
    Name(String),
    /// Reading failed.
    #[error("cannot read the kernel setting {name}")]
    Read {
        /// The setting.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot set the kernel setting {name} to {value}")]
    Write {
        /// The setting.
        name: String,
        /// What was to be written.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SysctlError {
    /// Whether there is no such setting (for example IPv6 is off).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Name(_) => false,
            Self::Read { source, .. } | Self::Write { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
            }
        }
    }
}

fn locate(path: &[&str]) -> Result<PathBuf, SysctlError> {
    let plain = |part: &&str| !part.is_empty() && *part != "." && *part != ".." && !part.contains('/');
    if path.iter().all(plain) {
        Ok(PathBuf::from("/proc/sys").join(path.join("/")))
    } else {
        Err(SysctlError::Name(path.join(".")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_proc_sys() {
        for bad in [["net", ".."], ["net", ""], ["net", "a/b"], [".", "net"]] {
            assert!(matches!(read(&bad), Err(SysctlError::Name(_))), "{bad:?}");
        }
        assert!(read(&["kernel", "ostype"]).is_ok_and(|value| value == "Linux"));
        assert!(read(&["kernel", "no_such_setting"]).unwrap_err().is_not_found());
    }
}
