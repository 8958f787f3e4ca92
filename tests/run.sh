#!/bin/bash
# Install what is missing, build, and run every test. Ends with one line: "N passed, N failed, N skipped".
# Exit status 0 only if nothing failed; with CI set in the environment a skipped test counts as failed, and the sanitizer
# build is part of the run.
#
#	tests/run.sh [--only SUITE]... [--fast] [--asan] [--list]
#
#	--only SUITE  only this suite (repeatable): "unit", "asan", or the name of a folder of tests/
#	--fast        leave out the suites that say "# slow" and the sanitizer build
#	--asan        the sanitizer build too: unit tests and the suite "api" against it
#	--list        print the names of the suites
#
# How suites are found and what they print: tests/README.md.
set -uo pipefail
cd "$(dirname "$0")/.."

SOURCE=$PWD
CI=${CI:-}
ONLY=()
FAST=
ASAN=$CI
PASSED=0 FAILED=0 SKIPPED=0
TARGETS=() # of build(); all if empty
FAILURES=() # their names and reasons, said once more at the end
AHEAD=      # process of build_ahead()
LOGS=
SUPPRESSIONS=
STARTED=$SECONDS

usage() {
	sed -n '2,/^set -uo/{/^#/s/^# \{0,1\}//p}' "$SOURCE/tests/run.sh"
}

say() {
	printf '== %s [%d:%02d]\n' "$*" $(((SECONDS - STARTED) / 60)) $(((SECONDS - STARTED) % 60))
}

now_ms() {
	local t=$EPOCHREALTIME
	echo $((${t/[.,]/} / 1000))
}

# count ok|FAIL|skip "name[: why]" MILLISECONDS
count() {
	local status=$1
	[ "$status" != skip ] || [ -z "$CI" ] || status=FAIL
	case "$status" in
	ok) PASSED=$((PASSED + 1)) ;;
	FAIL) FAILED=$((FAILED + 1)) FAILURES+=("$2") ;;
	skip) SKIPPED=$((SKIPPED + 1)) ;;
	esac
	printf '%s %s (%d.%03d)\n' "$status" "$2" $(($3 / 1000)) $(($3 % 1000))
}

# A step that every test needs: quiet when it works, its last lines when it does not.
must() {
	local name=$1 log=$LOGS/$1.log
	shift
	"$@" >"$log" 2>&1 && return
	tail -40 "$log" >&2
	count FAIL "$name: see $log" 0
	finish
}

finish() {
	rm -f ${SUPPRESSIONS:+"$SUPPRESSIONS"}
	[ $FAILED = 0 ] || { say "failed" && printf '%s\n' "${FAILURES[@]}"; }
	printf '%d passed, %d failed, %d skipped\n' $PASSED $FAILED $SKIPPED
	[ $FAILED = 0 ] && [ $PASSED -gt 0 ]
	exit
}

# Folders of tests/ with an executable run.sh or test_*.py. "bench" measures and decides nothing.
suites() {
	local folder name
	for folder in tests/*/; do
		name=$(basename "$folder")
		case "$name" in lib | unit | bench) continue ;; esac
		[ -n "$(suite_programs "$name")" ] && echo "$name"
	done
	return 0
}

suite_programs() {
	if [ -x "tests/$1/run.sh" ]; then
		echo "tests/$1/run.sh"
	else
		find "tests/$1" -maxdepth 1 -name 'test_*.py' -perm /100 | sort
	fi
}

wanted() {
	local name
	[ ${#ONLY[@]} -gt 0 ] || return 0
	for name in "${ONLY[@]}"; do
		[ "$name" != "$1" ] || return 0
	done
	return 1
}

build() { # build FOLDER [cmake options]
	local folder=$1
	shift
	say "building $(basename "$folder")"
	must "configure-$(basename "$folder")" cmake -S . -B "$folder" -G Ninja -DPADDOCK_TESTS=ON "$@"
	must "build-$(basename "$folder")" ninja -C "$folder" ${TARGETS[@]+"${TARGETS[@]}"}
}

build_faults() { # crash points are not in what is shipped: a build of its own, of the daemons only
	TARGETS=(paddockd paddock-warden paddock paddock-archive paddock_init paddock_sudo paddock_criu paddock_descriptors)
	build "$BUILD-faults" -DPADDOCK_FAULTS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo
	TARGETS=()
}

build_asan() {
	CC=clang build "$SOURCE/build-asan" -DPADDOCK_FAULTS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DPADDOCK_SANITIZE=address;undefined"
}

# The templates of some suites, where they are not in PADDOCK_CACHE.
make_zoo() { /usr/bin/python3 tests/lib/zoo.py; }
make_interpreter() { /usr/bin/python3 tests/lib/interpreter.py; }

# Make what is needed later with what the suites leave of the processors. A failure is not looked at here: who needs it
# tries again.
build_ahead() { # build_ahead FUNCTION...
	set -m
	(
		chrt --idle --pid 0 $BASHPID
		for step in "$@"; do ("$step"); done
	) >/dev/null 2>&1 &
	AHEAD=$!
	set +m
	trap '[ -z "$AHEAD" ] || kill -- "-$AHEAD" 2>/dev/null' EXIT
}

wait_ahead() {
	[ -z "$AHEAD" ] || wait "$AHEAD" || :
	AHEAD=
}

# One line per test of ctest's own list.
run_unit() { # run_unit FOLDER PREFIX
	local line name seconds log=$LOGS/$2.log before=$((PASSED + FAILED + SKIPPED))
	local result='Test +#[0-9]+: ([^ ]+) \.+ *(.*[^ ]) +([0-9.]+) sec'
	say "unit tests of $(basename "$1")"
	while IFS= read -r line; do
		echo "$line" >>"$log"
		[[ $line =~ $result ]] || continue
		name=$2/${BASH_REMATCH[1]}
		seconds=$(printf '%.0f' "$(echo "${BASH_REMATCH[3]}" | awk '{print $1 * 1000}')")
		case "${BASH_REMATCH[2]}" in
		*Passed*) count ok "$name" "$seconds" ;;
		*Skipped*) count skip "$name: it says so" "$seconds" ;;
		*) count FAIL "$name: ctest --test-dir $(basename "$1") -R '^${BASH_REMATCH[1]}\$' --output-on-failure" "$seconds" ;;
		esac
	done < <(ctest --test-dir "$1" -j2 --timeout 120 --output-on-failure 2>&1)
	[ $((PASSED + FAILED + SKIPPED)) -gt $before ] || count FAIL "$2: ctest ran no test, see $log" 0
}

# One program of a suite: its verdict lines are counted, all else goes to its log.
run_program() { # run_program SUITE PROGRAM PREFIX
	local line before last log rc=0 failed=$FAILED
	log=$LOGS/$3-$(basename "$2").log
	before=$((PASSED + FAILED + SKIPPED))
	last=$(now_ms)
	: >"$log"
	while IFS= read -r line; do
		echo "$line" >>"$log"
		case "$line" in
		"ok "* | "FAIL "* | "skip "*)
			count "${line%% *}" "$3/${line#* }" $(($(now_ms) - last))
			last=$(now_ms)
			;;
		esac
	done < <(
		timeout --kill-after=20 "${SUITE_TIMEOUT:-1200}" "$2" 2>>"$log" </dev/null &
		wait $! || rc=$?
		echo "exit $rc"
		# One that crashed has left its daemons, with our pipe in their hands. timeout leads their process group.
		[ "$rc" -lt 124 ] || kill -- "-$!" 2>/dev/null
	)
	rc=$(tail -1 "$log" | sed -n 's/^exit //p')
	if [ $((PASSED + FAILED + SKIPPED)) = $before ]; then
		count FAIL "$3/$(basename "$2"): printed no result (exit $rc), see $log" 0
	elif [ "${rc:-1}" != 0 ] && [ $FAILED = $failed ]; then
		count FAIL "$3/$(basename "$2"): exit status ${rc:-?} although no test failed, see $log" 0
	fi
	[ $FAILED = $failed ] || grep -v '^ok ' "$log" | tail -30 | sed 's/^/    /' >&2
}

run_suite() { # run_suite SUITE PREFIX
	local program
	say "suite $2"
	for program in $(suite_programs "$1"); do
		if [ -n "$FAST" ] && head -5 "$program" | grep -q '^# slow'; then
			echo "(left out by --fast: $program)"
			continue
		fi
		run_program "$1" "$program" "$2"
	done
}

# The base template, made once and kept between runs, so that no suite pays for it.
prepare_template() (
	. tests/lib/daemon.sh
	trap daemon_stop EXIT
	daemon_start && daemon_template
)

while [ $# -gt 0 ]; do
	case "$1" in
	--only) shift; ONLY+=("${1:?--only needs the name of a suite}") ;;
	--fast) FAST=1 ASAN= ;;
	--asan) ASAN=1 ;;
	--list) echo unit; suites; echo asan; exit 0 ;;
	-h | --help) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
	shift
done
[ "$(id -u)" = 0 ] || { echo "tests/run.sh needs root: sandboxes are made of mounts, namespaces and cgroups" >&2; exit 2; }

export SOURCE BUILD=$SOURCE/build PADDOCK_CACHE=${PADDOCK_CACHE:-/var/cache/paddock} PYTHONPATH=$SOURCE/tests/lib
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 GRPC_ENABLE_FORK_SUPPORT=0
unset PADDOCK_ADDR PADDOCK_API_KEY
mkdir -p "$BUILD"
LOGS=$(mktemp -d "$BUILD/logs.XXXXXX")
rm -f "$BUILD/logs" && ln -s "$(basename "$LOGS")" "$BUILD/logs"
find "$BUILD" -maxdepth 1 -name 'logs.*' -type d ! -path "$LOGS" -mtime +1 -exec rm -rf {} +

say "packages"
must install tests/lib/install.sh build run test
build "$BUILD" -DCMAKE_BUILD_TYPE=RelWithDebInfo

black_box=()
ahead=()
for suite in $(suites); do
	wanted "$suite" || continue
	black_box+=("$suite")
	case "$suite" in
	checkpoint) ahead=(make_zoo "${ahead[@]}") ;;
	fault) ahead+=(build_faults) ;;
	sdk-gateway) ahead+=(make_interpreter) ;;
	esac
done
[ -z "$ASAN" ] || [ ${#ONLY[@]} -gt 0 ] || ahead+=(build_asan)
[ ${#ahead[@]} = 0 ] || build_ahead "${ahead[@]}"
if wanted unit; then
	run_unit "$BUILD" unit
fi
if [ ${#black_box[@]} -gt 0 ] || { [ -n "$ASAN" ] && wanted asan; }; then
	say "base template (about 2 minutes the first time)"
	must template prepare_template
fi
for suite in "${black_box[@]}"; do
	if [ "$suite" = fault ]; then
		wait_ahead
		build_faults
		BUILD=$BUILD-faults run_suite fault fault
	else
		run_suite "$suite" "$suite"
	fi
done

if { [ -n "$ASAN" ] && [ ${#ONLY[@]} = 0 ]; } || { [ ${#ONLY[@]} -gt 0 ] && wanted asan; }; then
	wait_ahead
	build_asan
	export BUILD=$SOURCE/build-asan
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:halt_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
	# paddockd reads it as its own user, who may not see the folder of this clone.
	SUPPRESSIONS=$(mktemp)
	install -m 644 tests/lib/lsan.supp "$SUPPRESSIONS"
	export LSAN_OPTIONS=suppressions=$SUPPRESSIONS
	run_unit "$BUILD" asan-unit
	run_suite api asan-api
fi

for name in "${ONLY[@]}"; do
	[ "$name" = unit ] || [ "$name" = asan ] || [ -n "$(suite_programs "$name" 2>/dev/null)" ] ||
		count FAIL "$name: no such suite (tests/run.sh --list)" 0
done
finish
