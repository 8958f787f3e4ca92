#!/bin/bash
# The package as Debian, systemd, the linker and the shells see it. Needs no instance.
set -uo pipefail
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$SOURCE/build}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
ROOT=$WORK/root
failed=0

check() {
	local name=$1
	shift
	if "$@" >"$WORK/why" 2>&1; then
		echo "ok $name"
	else
		echo "FAIL $name: $(tr -s '[:space:]' ' ' <"$WORK/why" | tail -c 600)"
		failed=1
	fi
}

package() { (cd "$BUILD" && rm -f paddock_*.deb && cpack -G DEB) && dpkg-deb -x "$BUILD"/paddock_*.deb "$ROOT"; }
lints() { lintian --allow-root --fail-on error "$BUILD"/paddock_*.deb; }

# exposure UNIT MOST: systemd's figure, which grows with what the unit may do.
exposure() {
	local found
	found=$(systemd-analyze security --offline=true "$ROOT/usr/lib/systemd/system/$1.service" | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p')
	echo "$1: $found, at most $2"
	[ -n "$found" ] && awk -v found="$found" -v most="$2" 'BEGIN { exit !(found <= most) }'
}
manuals() {
	local file warnings
	for file in "$ROOT"/usr/share/man/man*/*.gz; do
		warnings=$(LC_ALL=C.UTF-8 MAN_KEEP_FORMATTING=1 man --warnings -E UTF-8 -l -Tutf8 -Z "$file" 2>&1 >/dev/null) && [ -z "$warnings" ] &&
			gunzip -c "$file" | mandoc -Tlint -W warning || { echo "$file: $warnings"; return 1; }
	done
}

# hardened FILE: what the compiler and the linker can do (H03 of the threat model).
hardened() {
	local file=$1 header dynamic
	header=$(readelf -hlW "$file") && dynamic=$(readelf -dW "$file") || return 1
	grep -q 'Type:.*DYN' <<<"$header" || { echo "$file: not position independent"; return 1; }
	grep -q GNU_RELRO <<<"$header" || { echo "$file: no RELRO"; return 1; }
	grep -qE 'BIND_NOW|FLAGS_1.*NOW' <<<"$dynamic" || { echo "$file: lazy binding"; return 1; }
	grep -E 'GNU_STACK.*RW ' <<<"$header" >/dev/null || { echo "$file: executable stack"; return 1; }
	! grep -qE 'RPATH|RUNPATH' <<<"$dynamic" || { echo "$file: RPATH"; return 1; }
	! grep -q TEXTREL <<<"$dynamic" || { echo "$file: text relocations"; return 1; }
}
# What the C library's checked functions and stack protector leave in a dynamic program.
fortified() {
	local symbols
	symbols=$(readelf --dyn-syms -W "$1") && grep -q __stack_chk_fail <<<"$symbols" && grep -q '_chk@' <<<"$symbols"
}
# Debian's start files carry no CET mark, so the linker drops it from every program, theirs too; the code has the landing pads.
control_flow() { [ "$(objdump -d "$1" | grep -c endbr64)" -gt 50 ]; }
programs() {
	local file
	for file in usr/bin/paddock usr/sbin/paddockd usr/sbin/paddock-warden usr/libexec/paddock/paddock-archive; do
		hardened "$ROOT/$file" || return 1
	done
	for file in usr/bin/paddock usr/sbin/paddockd usr/sbin/paddock-warden; do
		fortified "$ROOT/$file" || { echo "$file: not fortified"; return 1; }
		control_flow "$ROOT/$file" || { echo "$file: indirect branches may go anywhere"; return 1; }
	done
}
# The control of these: a program built without any of it is found out.
finds_a_soft_program() {
	echo 'int main(void) { return 0; }' >"$WORK/soft.c" && gcc -no-pie -fno-stack-protector -U_FORTIFY_SOURCE -fcf-protection=none -z lazy "$WORK/soft.c" -o "$WORK/soft" &&
		! hardened "$WORK/soft" && ! fortified "$WORK/soft" && ! control_flow "$WORK/soft"
}
no_privilege_bits() { [ -z "$(find "$ROOT" -perm /6000)" ] && [ -z "$(getcap -r "$ROOT" 2>/dev/null)" ]; }

# CRIU is a program of its own licence, so it is not in the package; what fetches it is, and leaves nothing when it cannot.
fetches_criu() {
	local fetch=$ROOT/usr/sbin/paddock-fetch-criu fake=$WORK/fake
	dpkg-deb -f "$BUILD"/paddock_*.deb Recommends | grep -q 'criu (>= 4.1)' && grep -q '^libexec=/usr/libexec/paddock$' "$fetch" || return 1
	mkdir -p "$fake" "$WORK/criu" && printf '#!/bin/sh\nexit 1\n' >"$fake/mmdebstrap" && chmod 755 "$fake/mmdebstrap"
	! PATH=$fake:$PATH "$fetch" "$WORK/criu/new" 2>"$WORK/err" && grep -q 'could not be fetched' "$WORK/err" && [ -z "$(ls "$WORK/criu")" ] || return 1
	cat >"$fake/mmdebstrap" <<-'END'
		#!/bin/sh
		for root; do :; done
		mkdir -p "$root/usr/sbin" && cp /bin/true "$root/usr/sbin/criu"
	END
	PATH=$fake:$PATH "$fetch" "$WORK/criu/new" && [ -x "$WORK/criu/new/usr/sbin/criu" ] && [ "$(ls "$WORK/criu")" = new ] &&
		[ -z "$(PATH=$fake:$PATH "$fetch" "$WORK/criu/new")" ] || return 1
	mkdir "$WORK/criu/other" && touch "$WORK/criu/other/file"
	! PATH=$fake:$PATH "$fetch" "$WORK/criu/other" 2>"$WORK/err" && grep -q 'is there already' "$WORK/err" && [ -e "$WORK/criu/other/file" ]
}

check package package
check lintian lints
check systemd-paddockd exposure paddockd 2.0
check systemd-warden exposure paddock-warden 7.5
check manuals manuals
[ -x /usr/sbin/criu ] || check fetches-criu fetches_criu
check hardening programs
check hardening-control finds_a_soft_program
check no-privilege-bits no_privilege_bits
exit $failed
