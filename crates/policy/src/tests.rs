//! Tests of the whole engine: policies as users write them, verdicts as the semantics say.

mod cidr;
mod cluster;
mod entities;
mod histories;
mod kubernetes;
mod modes;
mod oracle;
mod ports;
mod properties;
mod referents;
mod refused;
mod requests;
mod robustness;
mod scene;
mod seeds;
mod semantics;
mod staged;
mod subjects;
