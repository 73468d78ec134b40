//! Builds the kernel programs: finds a compiler that can, runs it, and leaves one stripped object.
//!
//! Never installs anything: a toolchain that cannot do it is one clear error. `ebpf/loader` embeds the result.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.13.0";

/// A compiler that can build for the BPF target.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    llvm_major: String,
    /// The core library has to be built from source (a nightly with rust-src).
    build_std: bool,
}

/// Builds `ebpf/programs` and returns the path of the datapath's object, `target/ebpf/sluice.bpf.o`; the one for
/// measurements stands beside it.
///
/// The file is written only when its content changes, so that nothing that embeds it is rebuilt for nothing.
///
/// # Errors
/// No usable compiler or linker, or the programs do not compile.
pub(crate) fn build() -> Result<PathBuf> {
    let root = workspace_root()?;
    let target_dir = root.join("target/ebpf");
    let toolchain = Toolchain::detect()?;
    let path = path_with_linker(&toolchain.llvm_major)?;
    compile(&root, &target_dir, &toolchain, &path)?;
    finish(&target_dir, "bench", &toolchain)?;
    finish(&target_dir, "sluice", &toolchain)
}

/// Strips one binary and leaves it as `NAME.bpf.o`.
fn finish(target_dir: &Path, name: &str, toolchain: &Toolchain) -> Result<PathBuf> {
    let built = target_dir.join(TARGET).join("bpf").join(name);
    let stripped = target_dir.join(format!("{name}.stripped.o"));
    strip(&built, &stripped, &toolchain.llvm_major)?;
    let object = target_dir.join(format!("{name}.bpf.o"));
    let new = std::fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))?;
    if std::fs::read(&object).ok().as_deref() != Some(new.as_slice()) {
        std::fs::rename(&stripped, &object).with_context(|| format!("cannot write {}", object.display()))?;
    }
    Ok(object)
}

impl Toolchain {
    fn detect() -> Result<Self> {
        if let Some(rustc) = candidates().into_iter().find(|rustc| has_prebuilt_core(rustc)) {
            let cargo = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
            return Ok(Self { llvm_major: llvm_major(&rustc)?, cargo, rustc, build_std: false });
        }
        if let Some(rustc) = nightly_with_source() {
            let cargo = rustc.with_file_name("cargo");
            return Ok(Self { llvm_major: llvm_major(&rustc)?, cargo, rustc, build_std: true });
        }
        bail!(
            "no Rust compiler here can build for {TARGET}. Either install one with a prebuilt core library \
             (Debian: `make setup`, or the packages rustc-web and libstd-rust-web-dev-bpf), or with rustup: \
             `rustup toolchain install nightly --component rust-src`"
        )
    }
}

/// Compilers to try for a prebuilt core library, in order of preference.
fn candidates() -> Vec<PathBuf> {
    ["SLUICE_BPF_RUSTC", "RUSTC"]
        .into_iter()
        .filter_map(std::env::var_os)
        .filter(|value| !value.is_empty())
        .chain(["rustc", "/usr/bin/rustc"].map(OsString::from))
        .map(PathBuf::from)
        .collect()
}

fn has_prebuilt_core(rustc: &Path) -> bool {
    sysroot(rustc).is_some_and(|sysroot| sysroot.join("lib/rustlib").join(TARGET).is_dir())
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
    Some(PathBuf::from(sysroot.trim()))
}

/// The `rustc` of rustup's nightly, if the source of the standard library is installed with it.
fn nightly_with_source() -> Option<PathBuf> {
    let rustc = output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"])).ok()?;
    let rustc = PathBuf::from(rustc.trim());
    let source = sysroot(&rustc)?.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    source.is_file().then_some(rustc)
}

fn llvm_major(rustc: &Path) -> Result<String> {
    let text = output(Command::new(rustc).args(["--version", "--verbose"]))?;
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = version.and_then(|version| version.split('.').next());
    major.map(str::to_owned).with_context(|| format!("{} does not say its LLVM version", rustc.display()))
}

/// `PATH` with the directory of a bpf-linker that was built against this LLVM in front.
fn path_with_linker(llvm_major: &str) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cached =
        cache_dir().map(|cache| cache.join(format!("bpf-linker-{LINKER_VERSION}-llvm{llvm_major}/bin")));
    let mut places: Vec<PathBuf> = cached.into_iter().collect();
    places.extend(std::env::split_paths(&path));
    ensure!(
        places.iter().any(|place| place.join("bpf-linker").is_file()),
        "bpf-linker is missing. `make setup` builds it, or: `cargo install bpf-linker --version {LINKER_VERSION}` \
         against LLVM {llvm_major}, the compiler's own"
    );
    std::env::join_paths(places).context("PATH has an entry with a colon")
}

fn cache_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SLUICE_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?.join("sluice")))
}

fn compile(root: &Path, target_dir: &Path, toolchain: &Toolchain, path: &OsString) -> Result<()> {
    let rustflags = format!(
        "--cfg bpf_target_arch=\"{}\" -C linker=bpf-linker -C link-arg=--btf -C debuginfo=2",
        std::env::consts::ARCH
    );
    let mut command = Command::new(&toolchain.cargo);
    command
        .current_dir(root)
        .args([
            "build",
            "-q",
            "-p",
            "sluice-ebpf-programs",
            "--profile",
            "bpf",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(target_dir)
        .env("PATH", path)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", rustflags)
        // Settings of a surrounding cargo or rustup would choose another compiler or other flags.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    if toolchain.build_std {
        command.args(["-Z", "build-std=core"]);
    }
    let status = command.status().with_context(|| format!("cannot start {}", toolchain.cargo.display()))?;
    ensure!(status.success(), "the kernel programs do not compile (compiler {})", toolchain.rustc.display());
    Ok(())
}

/// Removes DWARF (five sixths of the object) and keeps BTF. Without llvm-strip the object stays large but works.
fn strip(built: &Path, stripped: &Path, llvm_major: &str) -> Result<()> {
    std::fs::copy(built, stripped).with_context(|| format!("cannot copy {}", built.display()))?;
    let tools = [
        format!("/usr/lib/llvm-{llvm_major}/bin/llvm-strip"),
        format!("llvm-strip-{llvm_major}"),
        "llvm-strip".to_owned(),
    ];
    for tool in tools {
        if Command::new(&tool).arg("-g").arg(stripped).status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    eprintln!("note: no llvm-strip found; the object keeps its debug sections");
    Ok(())
}

fn workspace_root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_path_buf).context("xtask has no parent directory")
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?} failed");
    Ok(String::from_utf8(output.stdout)?)
}
