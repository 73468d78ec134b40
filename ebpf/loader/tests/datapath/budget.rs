//! The kernel accepts the programs, and with room to spare: the verifier gives up at a million instructions.

use sluice_ebpf_loader::{Datapath, Sizes};

/// A quarter of what the verifier allows.
const LIMIT: u32 = 250_000;

#[test]
fn programs_stay_well_inside_the_verifiers_budget() {
    let datapath = Datapath::load_unpinned(&Sizes::default()).unwrap();
    for (program, instructions) in datapath.verified_instructions() {
        println!("{program}: {instructions} verified instructions");
        assert!(instructions > 0, "{program}: the kernel does not say");
        assert!(instructions < LIMIT, "{program}: {instructions} instructions, limit {LIMIT}");
    }
}
