//! The programs in the kernel: packets in, verdict, counters and events out. Needs root; everything happens in
//! namespaces of the test's own.
#![cfg_attr(test, expect(clippy::print_stdout, reason = "what a case was is printed with its failure"))]
#![cfg_attr(test, expect(clippy::cast_possible_truncation, reason = "packets are made of small numbers"))]

#[cfg(test)]
mod basics;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod fragments;
#[cfg(test)]
mod icmp;
#[cfg(test)]
mod link;
#[cfg(test)]
mod packets;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod redirect;
#[cfg(test)]
mod spoof;
#[cfg(test)]
mod support;
#[cfg(test)]
mod wire;
