#!/bin/bash
# Install the Debian packages that Paddock's build, daemons and tests need: only what is missing, quiet when
# nothing is. Debian 12 and 13. Usage: tests/lib/install.sh build|run|test ...   (or sourced, for its functions)
set -euo pipefail

paddock_packages() {
	case "$1" in
	build)
		echo build-essential file cmake ninja-build pkgconf musl-tools linux-libc-dev \
			libgrpc-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libprotobuf-dev \
			liblmdb-dev libseccomp-dev libnghttp2-dev libssl-dev libjansson-dev libmicrohttpd-dev \
			libarchive-dev zlib1g-dev libzstd-dev liblzma-dev libbz2-dev
		;;
	run)
		echo btrfs-progs mmdebstrap ca-certificates
		;;
	test)
		echo libcmocka-dev python3 python3-grpcio python3-protobuf openssl strace clang libclang-rt-dev-any \
			git curl python3-h2 busybox-static crun bubblewrap gnuplot-nox procps e2fsprogs util-linux \
			lintian mandoc man-db systemd libcap2-bin node-any npm-any chromium fonts-dejavu-core
		;;
	*)
		echo "install.sh: no package set '$1' (build, run, test)" >&2
		return 2
		;;
	esac
}

# A name that differs between the releases.
paddock_resolve() {
	case "$1" in
	libclang-rt-dev-any)
		local version
		version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -1)
		[ -n "$version" ] && echo "libclang-rt-$version-dev" || true
		;;
	# Whoever has a newer one than the release keeps it.
	node-any) command -v node >/dev/null || echo nodejs ;;
	npm-any) command -v npm >/dev/null || echo npm ;;
	*) echo "$1" ;;
	esac
}

# CRIU 4.1 or newer in DIR (usr/sbin/criu with its own loader and libraries), unless the system has one.
paddock_criu() {
	"$(dirname "${BASH_SOURCE[0]}")/../../sandbox/criu/paddock-fetch-criu" "$1"
}

# Node.js 20 or newer in DIR (bin/node), unless the system has one: the SDKs that are tested need it, and Debian 12 has 18.
paddock_node() {
	local dir=$1 arch major
	major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p')
	[ "${major:-0}" -lt 20 ] || return 0
	[ ! -x "$dir/bin/node" ] || return 0
	arch=$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')
	echo "unpacking Node.js 20 into $dir"
	rm -rf "$dir.new"
	mkdir -p "$dir.new"
	npm install --prefix "$dir.new" --no-save --ignore-scripts --no-audit --no-fund "node-linux-$arch@20.20.2" >/dev/null 2>&1 || {
		rm -rf "$dir.new"
		echo "install.sh: Node.js 20 could not be fetched: the SDKs are not tested" >&2
		return 1
	}
	rm -rf "$dir" && mv "$dir.new/node_modules/node-linux-$arch" "$dir" && rm -rf "$dir.new"
}

paddock_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

paddock_install() {
	local set name real missing=()
	if ! command -v apt-get >/dev/null; then
		echo "install.sh: this needs Debian 12 or 13 (no apt-get here)" >&2
		return 1
	fi
	if ! apt-cache show libgrpc-dev >/dev/null 2>&1; then
		echo "fetching the package lists"
		apt-get update -qq
	fi
	for set in "$@"; do
		for name in $(paddock_packages "$set"); do
			real=$(paddock_resolve "$name")
			[ -z "$real" ] || paddock_installed "$real" || missing+=("$real")
		done
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" != 0 ]; then
		echo "install.sh: these packages are missing, and installing them needs root: ${missing[*]}" >&2
		return 1
	fi
	echo "installing ${#missing[@]} packages: ${missing[*]}"
	local log
	log=$(mktemp)
	if ! DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
		apt-get update -qq
		if ! DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
			tail -20 "$log" >&2
			rm -f "$log"
			return 1
		fi
	fi
	rm -f "$log"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
	paddock_install "$@"
	cache=${PADDOCK_CACHE:-/var/cache/paddock}
	case " $* " in
	*" run "*) [ "$(id -u)" != 0 ] || paddock_criu "$cache/criu" || true ;;
	esac
	case " $* " in
	*" test "*) [ "$(id -u)" != 0 ] || paddock_node "$cache/node" || true ;;
	esac
fi
