//! Framing: however a client's bytes are cut, the same requests pass and the same bytes are forwarded, and whoever reads
//! those finds these requests and no others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_fuzz::see;

fuzz_target!(|bytes: &[u8]| {
    let denies = |path: &str| path.starts_with("/no");
    let whole = see(bytes, bytes.len().max(1), denies);
    for step in [1, 7] {
        let cut = see(bytes, step, denies);
        assert!(cut.is_same(&whole), "in steps of {step}: {cut:?} and not {whole:?}");
    }
    let behind = see(&whole.forwarded, whole.forwarded.len().max(1), |_| false);
    assert_eq!(behind.passed, whole.passed);
});
