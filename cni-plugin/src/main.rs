//! The binary `sluice-cni`: standard streams and environment around [`sluice_cni::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var_os(name);
    sluice_cni::run(&environment, &mut std::io::stdin().lock(), &mut std::io::stdout().lock())
}
