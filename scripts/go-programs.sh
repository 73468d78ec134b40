#!/bin/sh
# Prints the paths of programs that tests talk to, one a line, and installs those that are not there yet.
#
#   scripts/go-programs.sh cnitool|h2spec|grpc-client|grpc-server...
#
# They are versions of Go modules and need Go 1.21 or newer. Debian 12 has 1.19 (golang-go), which cannot build all of
# them but can fetch what can: newer toolchains are published as versions of the Go module golang.org/toolchain.
# Everything is kept in ${SLUICE_CACHE:-~/.cache/sluice}, keyed by version.
set -eu
toolchain=1.21.13
cache=${SLUICE_CACHE:-${HOME:-/root}/.cache/sluice}

# Sets `package`, `version` and `with`: versions of what a module from before go.mod does not choose itself.
choose() { # NAME
    with=""
    case $1 in
        # The CNI project's own runtime client.
        cnitool) package=github.com/containernetworking/cni/cnitool version=v1.3.0 ;;
        # Every rule of HTTP/2 and HPACK, broken once.
        h2spec)
            package=github.com/summerwind/h2spec/cmd/h2spec version=v2.2.1+incompatible
            with="github.com/fatih/color@v1.17.0 github.com/spf13/cobra@v1.8.1 golang.org/x/net@v0.26.0"
            ;;
        # The gRPC project's interoperability tests. Later versions need a newer Go.
        grpc-client) package=google.golang.org/grpc/interop/client version=v1.64.1 ;;
        grpc-server) package=google.golang.org/grpc/interop/server version=v1.64.1 ;;
        *) echo "$1 is none of cnitool, h2spec, grpc-client and grpc-server" >&2; exit 2 ;;
    esac
    target=$cache/$1-${version#v}/$1
}

find_go() {
    go=""
    for candidate in ${GO:-} go /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
        if command -v "$candidate" >/dev/null 2>&1; then
            go=$(command -v "$candidate")
            break
        fi
    done
    if [ -z "$go" ]; then
        echo "$1 is installed as a Go module and there is no Go: install golang-go, or set GO." >&2
        exit 1
    fi
    minor=$("$go" env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 21 ] || fetch_go "$1"
}

fetch_go() { # FOR
    case $(uname -m) in
        x86_64) arch=amd64 ;;
        aarch64) arch=arm64 ;;
        *) echo "$1 needs Go 1.21 or newer; $go is 1.$minor. Set GO." >&2; exit 1 ;;
    esac
    echo "fetching Go $toolchain to install $1 (once)" >&2
    (
        mkdir "$work/go" && cd "$work/go"
        "$go" mod init go.fetch >/dev/null 2>&1
        GOMODCACHE=$work/mod "$go" mod download "golang.org/toolchain@v0.0.1-go$toolchain.linux-$arch" >&2
    )
    root=$work/mod/golang.org/toolchain@v0.0.1-go$toolchain.linux-$arch
    chmod -R u+w "$root"
    chmod +x "$root"/bin/* "$root"/pkg/tool/linux_"$arch"/*
    go=$root/bin/go
    unset GOROOT
}

install() { # NAME, chosen
    [ -n "$go" ] || find_go "$1"
    echo "installing $1 ${version#v} (once)" >&2
    mkdir "$work/$1"
    (
        cd "$work/$1"
        "$go" mod init "$1.install" >/dev/null 2>&1
        # shellcheck disable=SC2086 # a list of words
        "$go" get "$package@$version" $with >/dev/null 2>log || { cat log >&2; exit 1; }
        GOBIN=$work/$1/bin "$go" install "$package" >&2
    )
    mkdir -p "${target%/*}"
    mv "$work/$1/bin/${package##*/}" "$target.$$"
    mv "$target.$$" "$target"
}

go=""
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export GOTOOLCHAIN=local GOFLAGS=-mod=mod GOWORK=off CGO_ENABLED=0
for name in "$@"; do
    choose "$name"
    [ -x "$target" ] || install "$name"
    echo "$target"
done
