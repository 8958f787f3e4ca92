#!/bin/bash
# Measure Paddock against the floors of this machine and against its peers, in one run.
# Writes a table (Markdown) and a picture of create latency against live sandboxes.
#
# WARDEN_OPTIONS="--compress zstd" measures a warden that compresses, "--lazy-restore off" one that restores all at once.
#
#	tests/bench/run.sh [--rounds N] [--live N] [--only lives|commands|streams|checkpoints|freezes|pauses|heaps|copies|lazy|many] [--out DIR]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib/daemon.sh"

rounds=200 live=2000 only= out=$here/out
while [ $# -gt 0 ]; do
	case "$1" in
	--rounds) rounds=$2 ;;
	--live) live=$2 ;;
	--only) only=$2 ;;
	--out) out=$2 ;;
	*) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
	esac
	shift 2
done
mkdir -p "$out"
work=$(mktemp -d /var/tmp/paddock-bench.XXXXXX)

# The runtime directory is on tmpfs, as /run is where Paddock is installed.
INSTANCE=$(mktemp -d /var/tmp/paddock-test.XXXXXX)
mkdir -p "$INSTANCE/run"
mount -t tmpfs -o mode=755 paddock-bench "$INSTANCE/run"

# What runc and crun still run when the benchmark is ended in its middle: their records went with its /run.
containers_end() {
	local folder
	find /sys/fs/cgroup -depth -type d \( -name paddock-bench-runc -o -name paddock-bench-running \) 2>/dev/null | while read -r folder; do
		xargs -r kill -9 <"$folder/cgroup.procs" 2>/dev/null
		wait_for 5 rmdir "$folder"
	done
}

cleanup() {
	containers_end || true
	daemon_stop 2>/dev/null || true # its last step meets the mount point
	umount "$INSTANCE/run"
	rm -rf "$INSTANCE" "$work"
}
trap cleanup EXIT

# A bundle for crun or runc that holds nothing but the program that it runs: bundle NAME PROGRAM [ARGUMENT]...
bundle_make() {
	local folder=$work/$1 program=$2 file
	shift
	mkdir -p "$folder/rootfs"/{proc,dev,tmp,sys}
	for file in /bin/true "$program" $(ldd /bin/true "$program" | grep -oE '/[^ :]+( |$)' | sort -u); do
		install -D "$(readlink -f "$file")" "$folder/rootfs$file"
	done
	(cd "$folder" && ${SPEC:-crun} spec && python3 - "$@" <<'PY'
import json, sys
config = json.load(open("config.json"))
config["process"].update(terminal=False, args=sys.argv[1:])
json.dump(config, open("config.json", "w"))
PY
	)
}

daemon_start "max_sandboxes = $((live + 200))" "quota_max_sandboxes = $((live + 200))" \
	"memory_overcommit = 1000" "disk_overcommit = 1000" "default_memory_bytes = 256M" "pool_size = 16" \
	"quota_creates_per_minute = 10000000" "quota_total_memory_bytes = 100T" "quota_total_disk_bytes = 1000T"
daemon_template
bundle_make bundle /bin/true
bundle_make running /bin/sleep 3600
criu=$(command -v criu || true)
[ ! -x "$PADDOCK_CACHE/criu/usr/sbin/criu" ] || criu=$PADDOCK_CACHE/criu
runc=
if [ -n "$criu" ] && command -v runc >/dev/null; then
	# runc looks for CRIU by its name.
	mkdir -p "$work/bin"
	[ ! -d "$criu" ] || printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$criu/usr/lib64/ld-linux-x86-64.so.2" \
		"$criu/usr/lib/x86_64-linux-gnu" "$criu/usr/sbin/criu" >"$work/bin/criu"
	[ ! -d "$criu" ] || chmod 755 "$work/bin/criu"
	SPEC=runc bundle_make runc /bin/sleep 3600
	runc=paddock-bench-runc
fi
sleep 3
# crun refuses hybrid cgroups: in a mount namespace of its own the v2 tree is out of its sight.
unshare --mount sh -c '
	umount /sys/fs/cgroup/unified 2>/dev/null
	mount -t tmpfs paddock-bench /run # CRIU keeps what it knows of the kernel there
	crun --cgroup-manager=cgroupfs run --detach --bundle "$1" paddock-bench-running </dev/null >/dev/null 2>&1
	[ -z "$2" ] || runc run --detach --bundle "$3" "$2" </dev/null >/dev/null 2>&1
	runc=$2
	shift 3
	"$@"
	rc=$?
	crun --cgroup-manager=cgroupfs delete --force paddock-bench-running
	[ -z "$runc" ] || runc delete --force "$runc"
	exit $rc
' sh "$work/running" "$runc" "$work/runc" env PATH="$work/bin:$PATH" \
	"$BUILD/tests/bench/paddock-bench" --rounds "$rounds" --live "$live" --paddockd "$paddockd_pid" --warden "$warden_pid" \
	--crun-bundle "$work/bundle" --crun-container paddock-bench-running ${only:+--only "$only"} \
	${criu:+--criu "$criu" --work "$work"} ${runc:+--runc "$runc"} \
	--curve "$out/create.dat" | tee "$out/table.md"
if [ -s "$out/create.dat" ] && command -v gnuplot >/dev/null; then
	gnuplot <<PLOT
set terminal pngcairo size 900,480
set output "$out/create.png"
set title "Latency with many idle sandboxes alive"
set xlabel "sandboxes alive"
set ylabel "ms"
set yrange [0:]
set key left top
plot "$out/create.dat" using 1:2 with linespoints title "create + first command, p50", \
     "" using 1:3 with linespoints title "create + first command, p99", "" using 1:4 with linespoints title "exec, p50"
PLOT
	echo "picture: $out/create.png"
fi
