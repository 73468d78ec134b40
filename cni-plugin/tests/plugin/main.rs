//! The built plugin against the kernel and an agent that is played by a thread: real namespaces, real programs,
//! hostile input, and death at every step. Needs root.

#[cfg(test)]
mod chained;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod delegated;
#[cfg(test)]
mod fake_agent;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod primary;
