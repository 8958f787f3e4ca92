#!/bin/bash
# Measure Paddock against the floors of this machine and against its peers, in one run.
# Writes a table (Markdown) and a picture of create latency against live sandboxes.
#
#	tests/bench/run.sh [--rounds N] [--live N] [--only lives|commands|streams|many] [--out DIR]
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
	*) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
	esac
	shift 2
done
mkdir -p "$out"
work=$(mktemp -d /var/tmp/paddock-bench.XXXXXX)

# The runtime directory is on tmpfs, as /run is where Paddock is installed.
INSTANCE=$(mktemp -d /var/tmp/paddock-test.XXXXXX)
mkdir -p "$INSTANCE/run"
mount -t tmpfs -o mode=755 paddock-bench "$INSTANCE/run"

cleanup() {
	daemon_stop 2>/dev/null || true # its last step meets the mount point
	umount "$INSTANCE/run"
	rm -rf "$INSTANCE" "$work"
}
trap cleanup EXIT

# A bundle for crun that holds nothing but the program that it runs: bundle NAME PROGRAM [ARGUMENT]...
crun_bundle() {
	local folder=$work/$1 program=$2 file
	shift
	mkdir -p "$folder/rootfs"/{proc,dev,tmp,sys}
	for file in /bin/true "$program" $(ldd /bin/true "$program" | grep -oE '/[^ :]+( |$)' | sort -u); do
		install -D "$(readlink -f "$file")" "$folder/rootfs$file"
	done
	(cd "$folder" && crun spec && python3 - "$@" <<'PY'
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
crun_bundle bundle /bin/true
crun_bundle running /bin/sleep 3600
sleep 3
# crun refuses hybrid cgroups: in a mount namespace of its own the v2 tree is out of its sight.
unshare --mount sh -c '
	umount /sys/fs/cgroup/unified 2>/dev/null
	crun --cgroup-manager=cgroupfs run --detach --bundle "$1" paddock-bench-running </dev/null >/dev/null 2>&1
	shift
	"$@"
	rc=$?
	crun --cgroup-manager=cgroupfs delete --force paddock-bench-running
	exit $rc
' sh "$work/running" "$BUILD/tests/bench/paddock-bench" --rounds "$rounds" --live "$live" --paddockd "$paddockd_pid" --warden "$warden_pid" \
	--crun-bundle "$work/bundle" --crun-container paddock-bench-running ${only:+--only "$only"} \
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
