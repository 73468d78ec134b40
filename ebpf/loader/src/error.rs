//! What can go wrong between user space and the kernel.

use std::io;
use std::path::PathBuf;

use sluice_types::EndpointId;

/// Why the datapath could not do what was asked. Nothing here is a verdict about a packet.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The embedded object could not be parsed, or a map not created.
    #[error("cannot load the kernel programs")]
    Load(#[source] Box<aya::EbpfError>),
    /// The kernel's verifier refused a program; what was attached before stays.
    #[error("the kernel refused the program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object does not hold what this build expects.
    #[error("the kernel programs have no {kind} {name}")]
    Missing {
        /// "map" or "program".
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A system call on a map failed.
    #[error("cannot {operation} map {map}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// The map's name.
        map: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A pin could not be made, opened or removed.
    #[error("cannot {operation} {}", path.display())]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A program could not be attached to, or looked for at, an interface.
    #[error("cannot {operation} {program} at interface {ifindex}")]
    Attach {
        /// What was tried.
        operation: &'static str,
        /// The program's name.
        program: &'static str,
        /// The interface.
        ifindex: u32,
        /// The kernel's answer. `EINVAL` on kernels before 6.6, which have no TCX.
        #[source]
        source: io::Error,
    },
    /// No such interface in this network namespace.
    #[error("there is no interface {name}")]
    NoInterface {
        /// Its name.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The events could not be read.
    #[error("cannot read events")]
    Events(#[source] Box<aya::maps::MapError>),
    /// The number of possible CPUs is unknown, so per-CPU maps cannot be read.
    #[error("cannot tell the number of possible CPUs")]
    Cpus(#[source] io::Error),
    /// The endpoint has no policy map.
    #[error("endpoint {0} has no policy in the kernel")]
    NoPolicy(EndpointId),
}
