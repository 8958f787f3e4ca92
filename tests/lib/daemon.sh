# Sourced: a private Paddock instance for tests. Every instance has its own state and runtime folders, so any
# number can run side by side; nothing of it is left after daemon_stop.
#
#	daemon_start [name=value ...]   extra paddockd settings ($WARDEN_OPTIONS: the warden's); sets $PADDOCK_ADDR, $paddockd_pid, $warden_pid
#	daemon_stop                     stop both, check that nothing is left
#	daemon_template                 make sure that the instance has the template "base"
#
# BUILD is the build folder; PADDOCK_CACHE keeps the templates' tars between runs.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${BUILD:-$ROOT/build}
PADDOCK_CACHE=${PADDOCK_CACHE:-/var/cache/paddock}
PADDOCKD=$BUILD/server/paddockd
WARDEN=$BUILD/sandbox/warden/paddock-warden
PADDOCK=$BUILD/sdk/paddock

daemon_user() {
	getent passwd paddock >/dev/null ||
		useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin paddock
}

# The libexec folder of an installed Paddock, out of the build tree.
daemon_libexec() {
	mkdir -p "$1"
	cp "$BUILD/sandbox/init/paddock-init" "$BUILD/sandbox/archive/paddock-archive" \
		"$BUILD/sandbox/sudo/paddock-sudo" "$BUILD/sandbox/warden/paddock-criu.so" "$1/"
	[ ! -x "$PADDOCK_CACHE/criu/usr/sbin/criu" ] || ln -sfn "$PADDOCK_CACHE/criu" "$1/criu"
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
	local until=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $until ] || return 1
		sleep 0.05
	done
}

daemon_start_warden() {
	"$WARDEN" --data-dir "$INSTANCE/data" --runtime-dir "$INSTANCE/run" --user paddock \
		--pool-size "${POOL_SIZE:-20G}" --libexec-dir "$INSTANCE/libexec" \
		--policy-dir "$ROOT/policies" ${WARDEN_OPTIONS:-} >>"$INSTANCE/warden.log" 2>&1 &
	warden_pid=$!
	wait_for 60 test -S "$INSTANCE/run/warden.sock" || {
		echo "the warden did not start:" >&2
		tail -5 "$INSTANCE/warden.log" >&2
		return 1
	}
}

daemon_start_server() {
	"$PADDOCKD" --config "$INSTANCE/paddock.conf" >>"$INSTANCE/paddockd.log" 2>&1 &
	paddockd_pid=$!
	wait_for 60 "$PADDOCK" status || {
		echo "paddockd did not start:" >&2
		tail -5 "$INSTANCE/paddockd.log" >&2
		return 1
	}
}

daemon_start() {
	daemon_user
	INSTANCE=${INSTANCE:-$(mktemp -d /var/tmp/paddock-test.XXXXXX)}
	chmod 755 "$INSTANCE"
	mkdir -p "$INSTANCE/data" "$INSTANCE/run"
	daemon_libexec "$INSTANCE/libexec"
	{
		echo "data_dir = $INSTANCE/data"
		echo "runtime_dir = $INSTANCE/run"
		echo "listen ="
		echo "metrics_listen ="
		printf '%s\n' "$@"
	} >"$INSTANCE/paddock.conf"
	export PADDOCK_ADDR=unix:$INSTANCE/run/admin.sock
	daemon_start_warden && daemon_start_server
}

daemon_template() {
	"$PADDOCK" template get base >/dev/null 2>&1 && return
	local tar
	tar=$(SOURCE=$ROOT BUILD=$BUILD PADDOCK_CACHE=$PADDOCK_CACHE /usr/bin/python3 "$ROOT/tests/lib/template_tar.py") || return
	"$PADDOCK" template import base "$tar" --public
}

# Stop one process of ours and wait until it is gone.
stop_pid() {
	[ -n "${1:-}" ] && kill "$1" 2>/dev/null || return 0
	wait "$1" 2>/dev/null || true
}

# Sandboxes outlive the daemons by design, also the pre-made ones that nobody can name: end them through their cgroups
# while the warden is there to clean up.
daemon_is_empty() { [ -z "$(ls "$INSTANCE/run/sandboxes" 2>/dev/null)" ]; }

daemon_end_stock() {
	local id path groups=
	for id in $(ls "$INSTANCE/run/sandboxes" 2>/dev/null); do
		for path in $(find /sys/fs/cgroup -type d -name "$id"); do
			groups="$groups ${path%/*}"
			[ ! -e "$path/cgroup.kill" ] || echo 1 >"$path/cgroup.kill"
		done
	done
	wait_for 10 daemon_is_empty || true
	stop_pid "${warden_pid:-}"
	rmdir $(printf '%s\n' $groups | sort -u) 2>/dev/null || true
}

daemon_stop() {
	local id
	for id in $("$PADDOCK" list -o json 2>/dev/null | grep -oE '"i[a-z0-9]{20}"' | tr -d '"' | sort -u); do
		"$PADDOCK" kill "$id" >/dev/null 2>&1 || true
	done
	stop_pid "${paddockd_pid:-}"
	daemon_end_stock
	paddockd_pid= warden_pid=
	rm -rf "$INSTANCE"
}
