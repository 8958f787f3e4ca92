#!/bin/bash
# Every program of examples/ against a private instance, built from what `cmake --install` puts into an empty folder.
set -uo pipefail
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
. "$SOURCE/tests/lib/daemon.sh"
WORK=$(mktemp -d)
trap 'daemon_stop; rm -rf "$WORK"' EXIT
failed=0

check() {
	if "$1" >"$WORK/why" 2>&1; then
		echo "ok $1"
	else
		echo "FAIL $1: $(tr -s '[:space:]' ' ' <"$WORK/why" | tail -c 400)"
		failed=1
	fi
}
same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }
libraries() { dirname "$(find "$WORK/root" -name libpaddock.so)"; }
no_sandbox() { same "$("$PADDOCK" list -q)" ""; }

installs() { DESTDIR=$WORK/root cmake --install "$BUILD" && [ -x "$WORK/root/usr/bin/paddock" ] && [ -f "$WORK/root/usr/include/paddock.h" ]; }
c_with_pkg_config() {
	local flags
	flags=$(PKG_CONFIG_SYSROOT_DIR=$WORK/root PKG_CONFIG_PATH=$(libraries)/pkgconfig pkg-config --cflags --libs libpaddock) &&
		cc -Wall -Wextra -Werror "$SOURCE/examples/answer.c" -o "$WORK/answer" $flags &&
		same "$(LD_LIBRARY_PATH=$(libraries) "$WORK/answer")" 42 && no_sandbox
}
c_with_cmake() {
	cmake -S "$SOURCE/examples/cmake" -B "$WORK/build" -DCMAKE_PREFIX_PATH="$WORK/root/usr" && cmake --build "$WORK/build" &&
		readelf -d "$WORK/build/answer" | grep -q 'NEEDED.*libpaddock.so.0' && same "$("$WORK/build/answer")" 42 && no_sandbox
}
c_of_the_manual() { sed -n '/^```c$/,/^```$/{/^```/!p}' "$SOURCE/sdk/README.md" | diff - "$SOURCE/examples/answer.c"; }
# Without the tests' own modules, one of which has the name of the package.
python_with_grpc() { same "$(env -u PYTHONPATH PADDOCK_PROTO=$WORK/root/usr/share/paddock/proto "$SOURCE/examples/answer.py")" 42 && no_sandbox; }
shell_patch() {
	local rc=0
	export PATH=$WORK/root/usr/bin:$PATH
	git init -q "$WORK/repository" && echo before >"$WORK/repository/file" && git -C "$WORK/repository" add file &&
		git -C "$WORK/repository" -c user.name=t -c user.email=t@localhost commit -q -m first || return 1
	"$SOURCE/examples/patch.sh" "$WORK/repository" sh -c 'echo after >file; exit 3' >"$WORK/patch" || rc=$?
	same $rc 3 && same "$(cat "$WORK/repository/file")" before && git -C "$WORK/repository" apply "$WORK/patch" &&
		same "$(cat "$WORK/repository/file")" after && no_sandbox
}

# Twice: the second build takes every step over. The page has been asked for once, by the ready command, when a sandbox begins.
template_of_steps() {
	local ask="python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8000\").read().decode(), end=\"\")'" id rc=0
	[ -e "$INSTANCE/libexec/criu" ] || [ -x /usr/sbin/criu ] || { echo "no CRIU"; return 1; }
	"$PADDOCK" template build hello "$SOURCE/examples/template" --ready "$ask" 2>"$WORK/log" >/dev/null && grep -q 'compiled by user' "$WORK/log" &&
		"$PADDOCK" template build hello "$SOURCE/examples/template" --ready "$ask" 2>"$WORK/log" >/dev/null &&
		grep -q '4 of 4 steps are cached' "$WORK/log" && id=$("$PADDOCK" create --template hello) || { cat "$WORK/log"; return 1; }
	same "$("$PADDOCK" exec "$id" -- sh -c "$ask")" "Hello from a template: 2" || rc=1
	"$PADDOCK" kill "$id" >/dev/null && "$PADDOCK" template remove hello && return $rc
}

check installs
daemon_start && daemon_template >&2 || { echo "FAIL instance: it does not start"; exit 1; }
for name in c_with_pkg_config c_with_cmake c_of_the_manual python_with_grpc shell_patch template_of_steps; do
	check $name
done
exit $failed
