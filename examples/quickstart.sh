#!/bin/bash
# From a fresh Debian machine to a real project whose tests ran in a sandbox: installs what is missing, builds, starts the
# daemons (unless an instance runs already), makes the base template, and does a coding agent's usual job on GNU gzip.
# Needs root. Run it as often as you like. `--stop` ends an instance that an earlier run started without systemd.
set -euo pipefail
cd "$(dirname "$0")/.."

SOURCE=$PWD
STATE=${PADDOCK_DATA_DIR:-/var/lib/paddock}
RUNTIME=${PADDOCK_RUNTIME_DIR:-/run/paddock}
CONFIG=$SOURCE/server/paddock.conf
PADDOCK_CACHE=${PADDOCK_CACHE:-/var/cache/paddock}
CACHE=$PADDOCK_CACHE
PROJECT=${PADDOCK_EXAMPLE_PACKAGE:-gzip}
BUILD=$SOURCE/build
WORK=$(mktemp -d /tmp/paddock-quickstart.XXXXXX)
sandbox=
trap finish EXIT

bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }

finish() {
	local rc=$?
	[ -z "$sandbox" ] || "$PADDOCK" kill "$sandbox" >/dev/null 2>&1 || true
	[ $rc = 0 ] || [ ! -s "$WORK/log" ] || tail -20 "$WORK/log" >&2
	rm -rf "$WORK"
	exit $rc
}

# progress TEXT COMMAND...: quiet, with the elapsed time while it runs; its output is shown if it fails.
progress() {
	local text=$1 began=$SECONDS pid rc=0
	shift
	"$@" >"$WORK/log" 2>&1 </dev/null &
	pid=$!
	while kill -0 $pid 2>/dev/null; do
		if [ -t 1 ]; then
			printf '\r%s ... %ds ' "$text" $((SECONDS - began))
		elif [ $(((SECONDS - began) % 15)) = 14 ]; then
			printf '%s ... %ds: %s\n' "$text" $((SECONDS - began)) "$(tail -1 "$WORK/log" | tr '\r' '\n' | tail -1 | cut -c1-60)"
			sleep 1
		fi
		sleep 0.2
	done
	wait $pid || rc=$?
	[ ! -t 1 ] || printf '\r'
	if [ $rc = 0 ]; then
		printf '%s: done (%ds)\n' "$text" $((SECONDS - began))
	else
		printf '%s: failed (%ds)\n' "$text" $((SECONDS - began))
	fi
	return $rc
}

configure_and_build() {
	cmake -S . -B "$BUILD" -G Ninja -DPADDOCK_TESTS=OFF && ninja -C "$BUILD"
}

answers() { "$PADDOCK" status >/dev/null 2>&1; }

make_package() {
	rm -f "$BUILD"/paddock_*.deb
	(cd "$BUILD" && cpack -G DEB)
}

install_package() {
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --reinstall "$BUILD"/paddock_*.deb &&
		{ paddock-fetch-criu || true; }
}

start_directly() {
	local libexec=$RUNTIME/libexec
	getent passwd paddock >/dev/null ||
		useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin paddock
	getent passwd paddock-ingress >/dev/null ||
		useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin paddock-ingress
	usermod --append --groups paddock-ingress paddock
	mkdir -p "$STATE" "$RUNTIME" "$libexec"
	chmod 755 "$STATE" "$RUNTIME"
	cp "$BUILD/sandbox/init/paddock-init" "$BUILD/sandbox/archive/paddock-archive" "$BUILD/sandbox/sudo/paddock-sudo" \
		"$BUILD/sandbox/warden/paddock-criu.so" "$libexec/"
	[ ! -x "$PADDOCK_CACHE/criu/usr/sbin/criu" ] || ln -sfn "$PADDOCK_CACHE/criu" "$libexec/criu"
	setsid "$BUILD/sandbox/warden/paddock-warden" --data-dir "$STATE" --runtime-dir "$RUNTIME" --user paddock \
		--libexec-dir "$libexec" --policy-dir "$SOURCE/policies" >>"$RUNTIME/warden.log" 2>&1 </dev/null &
	echo $! >"$RUNTIME/warden.pid"
	wait_for 60 test -S "$RUNTIME/warden.sock" || { tail -5 "$RUNTIME/warden.log" >&2; return 1; }
	setsid "$BUILD/server/paddockd" --config "$CONFIG" --set data_dir="$STATE" --set runtime_dir="$RUNTIME" \
		${PADDOCK_LISTEN+--set listen="$PADDOCK_LISTEN" --set metrics_listen=} >>"$RUNTIME/paddockd.log" 2>&1 </dev/null &
	echo $! >"$RUNTIME/paddockd.pid"
	wait_for 60 answers || { tail -5 "$RUNTIME/paddockd.log" >&2; return 1; }
	setsid "$BUILD/preview/paddock-ingress" --config "$SOURCE/preview/ingress.conf" --set runtime_dir="$RUNTIME" \
		${PADDOCK_HTTP_LISTEN+--set listen= --set listen="$PADDOCK_HTTP_LISTEN"} >>"$RUNTIME/ingress.log" 2>&1 </dev/null &
	echo $! >"$RUNTIME/ingress.pid"
}

# Sandboxes outlive the daemons by design; here they end with them, also the pre-made ones (through their cgroups, while the
# warden is there to clean up).
stop_directly() {
	local name pid id path
	for id in $("$PADDOCK" list --all-tenants -o json 2>/dev/null | grep -oE '"i[a-z0-9]{20}"' | tr -d '"' | sort -u); do
		"$PADDOCK" kill "$id" >/dev/null 2>&1 || true
	done
	for name in ingress paddockd warden; do
		pid=$(cat "$RUNTIME/$name.pid" 2>/dev/null) || continue
		if [ "$name" = warden ]; then
			for id in $(ls "$RUNTIME/sandboxes" 2>/dev/null); do
				for path in $(find /sys/fs/cgroup -type d -name "$id"); do
					[ ! -e "$path/cgroup.kill" ] || echo 1 >"$path/cgroup.kill"
				done
			done
			wait_for 10 rmdir "$RUNTIME/sandboxes" || true
		fi
		# Only what still is our daemon: numbers are used again.
		case "$(readlink "/proc/$pid/exe" 2>/dev/null)" in
		*/paddockd* | */paddock-warden* | */paddock-ingress*)
			kill "$pid"
			while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
			;;
		esac
		rm -f "$RUNTIME/$name.pid"
	done
}

start_daemons() {
	if answers; then
		echo "an instance answers at $PADDOCK_ADDR: using it"
	elif [ -d /run/systemd/system ] && [ "$STATE" = /var/lib/paddock ]; then
		progress "making the package" make_package
		progress "installing it (systemd starts its daemons)" install_package
		wait_for 60 answers || { systemctl --no-pager status paddock-warden paddockd >&2 || true; return 1; }
	else
		echo "starting the daemons (no systemd here; logs in $RUNTIME)"
		start_directly
	fi
}

# The source of a Debian package, from the mirrors that this machine uses, checked by apt.
fetch_source() {
	local folder=$WORK/apt file
	mkdir -p "$folder/parts" "$folder/lists/partial" "$CACHE/source"
	chmod 755 "$WORK" "$folder"
	for file in /etc/apt/sources.list.d/*.sources; do
		[ ! -e "$file" ] || sed 's/^Types:.*/Types: deb-src/' "$file" >"$folder/parts/$(basename "$file")"
	done
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ ! -e "$file" ] || sed -n 's/^deb /deb-src /p' "$file" >"$folder/parts/$(basename "$file" .list).list"
	done
	local options=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$folder/parts" -o Dir::State::Lists="$folder/lists" -o APT::Sandbox::User=root)
	apt-get -qq "${options[@]}" update
	(cd "$CACHE/source" && apt-get -qq "${options[@]}" source --download-only "$1")
}

have_source() { ls "$CACHE/source/$PROJECT"_*.orig.tar.[gx]z >/dev/null 2>&1; }

inside() { "$PADDOCK" exec --cwd /home/user/project "$sandbox" -- "$@"; }

. tests/lib/daemon.sh
export PADDOCK_ADDR=${PADDOCK_ADDR:-unix:$RUNTIME/admin.sock}
[ "$(id -u)" = 0 ] || { echo "quickstart.sh needs root: it installs packages and starts daemons" >&2; exit 1; }
case "${1:-}" in
--stop) stop_directly; exit 0 ;;
"") ;;
*) sed -n '2,4s/^# //p' "$0"; exit 2 ;;
esac

bold "1. Install, build, start"
progress "installing what is missing" tests/lib/install.sh build run
progress "building" configure_and_build
start_daemons

bold "2. The base template"
if "$PADDOCK" template get base >/dev/null 2>&1; then
	echo "base is there"
else
	progress "making base (Debian with git, python, node, gcc, make ...)" daemon_template
fi

bold "3. A sandbox with a real project: the Debian source of $PROJECT"
have_source || progress "fetching the source of $PROJECT" fetch_source "$PROJECT"
archive=$(ls "$CACHE/source/$PROJECT"_*.orig.tar.[gx]z | head -1)
sandbox=$("$PADDOCK" create --lifetime 1h --memory 1G)
echo "sandbox $sandbox"
"$PADDOCK" cp "$archive" "$sandbox:/home/user/source.tar"
"$PADDOCK" exec "$sandbox" -- sh -c 'python3 -m tarfile -e source.tar unpacked && mv unpacked/* project && cd project && git init -q . && git add -A &&
	git -c user.name=quickstart -c user.email=quickstart@localhost commit -q -m "as released" && git log --oneline && ls | head -8'

bold "4. Build it and run its tests inside (no network there)"
inside sh -c './configure -q && make -j2 -s 2>&1 | tail -3'
inside sh -c 'make -s check 2>&1 | grep --line-buffered -E "^(PASS|FAIL|ERROR|SKIP|# [A-Z]+:)"'

bold "5. Edit a file, build again, see what changed"
inside sh -c 'sed -i "s/Compress or uncompress FILEs (by default, compress FILES in-place)/Squeeze FILEs, or let them out again/" gzip.c && make -s 2>&1 | tail -3; ./gzip --help | head -3'
inside git --no-pager diff --stat -- gzip.c
inside git --no-pager diff -U1 -- gzip.c

bold "6. Gone without a trace"
"$PADDOCK" kill "$sandbox"
sandbox=

bold "What to type next"
cat <<NEXT
  export PADDOCK_ADDR=$PADDOCK_ADDR PATH=$BUILD/sdk:\$PATH
  paddock run -- python3 -c 'print(6 * 7)'     one command in a sandbox of its own
  id=\$(paddock create); paddock shell \$id      a terminal in it
  paddock tenant create agents && paddock key create --tenant agents    a key for a program of yours
  E2B_API_KEY=\$(paddock key create sdk) E2B_API_URL=http://${PADDOCK_HTTP_LISTEN:-127.0.0.1:7413} E2B_SANDBOX_URL=http://${PADDOCK_HTTP_LISTEN:-127.0.0.1:7413}
                                               the environment for npm's e2b (sdk/README.md)
  paddock template build code-interpreter      what @e2b/code-interpreter asks for
  paddock audit list                           every call of this demonstration
  paddock help
NEXT
[ -d /run/systemd/system ] || echo "  examples/quickstart.sh --stop                 stop the daemons again"
