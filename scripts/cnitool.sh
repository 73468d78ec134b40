#!/bin/sh
# Prints the path of cnitool, the CNI project's own runtime client, and builds it if it is not there yet.
#
# It is a Go program and needs Go 1.21 or newer. Debian 12 has 1.19 (golang-go), which cannot build it but can fetch
# what can: newer toolchains are published as versions of the Go module golang.org/toolchain. Everything is kept in
# ${SLUICE_CACHE:-~/.cache/sluice}, keyed by version.
set -eu
version=1.3.0
toolchain=1.21.13
cache=${SLUICE_CACHE:-${HOME:-/root}/.cache/sluice}
target=$cache/cnitool-$version/cnitool

if [ -x "$target" ]; then
    echo "$target"
    exit 0
fi

go=""
for candidate in ${GO:-} go /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
    if command -v "$candidate" >/dev/null 2>&1; then
        go=$(command -v "$candidate")
        break
    fi
done
if [ -z "$go" ]; then
    echo "cnitool $version is built from source and there is no Go: install golang-go, or set GO." >&2
    exit 1
fi

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export GOTOOLCHAIN=local GOFLAGS=-mod=mod GOWORK=off CGO_ENABLED=0

minor=$("$go" env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
if [ "${minor:-0}" -lt 21 ]; then
    case $(uname -m) in
        x86_64) arch=amd64 ;;
        aarch64) arch=arm64 ;;
        *) echo "cnitool $version needs Go 1.21 or newer; $go is 1.$minor. Set GO." >&2; exit 1 ;;
    esac
    echo "fetching Go $toolchain to build cnitool (once)" >&2
    (
        cd "$work"
        "$go" mod init cnitool.build >/dev/null 2>&1
        GOMODCACHE=$work/mod "$go" mod download "golang.org/toolchain@v0.0.1-go$toolchain.linux-$arch" >&2
    )
    root=$work/mod/golang.org/toolchain@v0.0.1-go$toolchain.linux-$arch
    chmod -R u+w "$root"
    chmod +x "$root"/bin/* "$root"/pkg/tool/linux_"$arch"/*
    go=$root/bin/go
    unset GOROOT
fi

echo "building cnitool $version (once)" >&2
(cd "$work" && GOBIN=$work/bin "$go" install "github.com/containernetworking/cni/cnitool@v$version" >&2)
mkdir -p "${target%/*}"
mv "$work/bin/cnitool" "$target.$$"
mv "$target.$$" "$target"
echo "$target"
