# Chooses the compilers and prints them as shell exports; sourced by nobody, evaluated by the Makefile's recipes.
#
#   eval "$(scripts/toolchain.sh)"     exports PATH, RUSTC, CARGO, SLUICE_BPF_LINKER_DIR
#   scripts/toolchain.sh --check       says what was chosen, exit 1 with one message if nothing usable is there
#
# Order: $RUSTC if set; a distribution's rustc that carries the BPF core library; rustup's default with a nightly
# that has rust-src. One compiler builds user space and, where it can, the kernel programs.
set -eu

RUST_MIN=1.95
LINKER_VERSION=0.13.0
cache=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}

at_least() { # VERSION MINIMUM
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

version_of() { # RUSTC
    "$1" --version 2>/dev/null | cut -d ' ' -f 2
}

has_bpf_core() { # RUSTC
    [ -d "$("$1" --print sysroot 2>/dev/null)/lib/rustlib/bpfel-unknown-none" ]
}

llvm_of() { # RUSTC
    "$1" --version --verbose 2>/dev/null | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'
}

usable() { # RUSTC
    [ -n "$1" ] && version=$(version_of "$1") && [ -n "$version" ] && at_least "$version" "$RUST_MIN"
}

nightly_with_source() {
    command -v rustup >/dev/null 2>&1 || return 1
    [ -f "$(rustc +nightly --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/core/src/lib.rs" ]
}

choose() {
    if [ -n "${RUSTC:-}" ]; then
        usable "$RUSTC" || fail "RUSTC=$RUSTC is not a rustc of version $RUST_MIN or newer."
        rustc=$RUSTC bpf_rustc=$RUSTC
        has_bpf_core "$rustc" || nightly_with_source || fail "RUSTC=$RUSTC has no core library for bpfel-unknown-none."
        return
    fi
    for rustc in /usr/bin/rustc "$(command -v rustc || true)"; do
        if usable "$rustc" && has_bpf_core "$rustc"; then bpf_rustc=$rustc; return; fi
    done
    rustc=$(command -v rustc || true)
    if usable "$rustc" && nightly_with_source; then bpf_rustc=$(rustup which --toolchain nightly rustc); return; fi
    fail "No usable Rust toolchain: needed is rustc $RUST_MIN or newer with a core library for BPF."
}

fail() {
    echo "$1" >&2
    echo "On Debian 12 run 'make setup' as root (packages rustc-web, libstd-rust-web-dev-bpf)." >&2
    echo "Elsewhere: rustup with a stable toolchain, a nightly, and 'rustup component add rust-src --toolchain nightly'." >&2
    exit 1
}

choose
llvm=$(llvm_of "$bpf_rustc")
linker_dir=$cache/bpf-linker-$LINKER_VERSION-llvm$llvm

case ${1:-} in
    --check)
        echo "rustc:       $rustc ($(version_of "$rustc"))"
        echo "BPF rustc:   $bpf_rustc (LLVM $llvm, $(has_bpf_core "$bpf_rustc" && echo 'core prebuilt' || echo 'core from rust-src'))"
        echo "bpf-linker:  $([ -x "$linker_dir/bin/bpf-linker" ] && echo "$linker_dir/bin/bpf-linker" || command -v bpf-linker || echo missing)"
        ;;
    *)
        dir=$(dirname "$rustc")
        cargo=$dir/cargo
        [ -x "$cargo" ] || cargo=$(command -v cargo)
        echo "export PATH='$linker_dir/bin:$dir:$PATH'"
        echo "export RUSTC='$rustc' CARGO='$cargo' SLUICE_BPF_RUSTC='$bpf_rustc'"
        echo "export SLUICE_BPF_LINKER_DIR='$linker_dir' SLUICE_BPF_LINKER_VERSION='$LINKER_VERSION' SLUICE_BPF_LLVM='$llvm'"
        ;;
esac
