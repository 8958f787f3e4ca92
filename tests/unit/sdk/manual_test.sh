#!/bin/sh
# The manual knows every command and every option of the configuration, and is well-formed.
set -eu
paddock=$1 source=$2
failed=0
complain() { echo "$*" >&2; failed=1; }

for command in $("$paddock" help | awk '/^  [a-z]/ { print $1 }'); do
	grep -Eq "^\.It Cm .*\b$command\b" "$source/sdk/man/paddock.1" || complain "paddock.1 does not tell of $command"
	"$paddock" help "$command" | grep -q '^Usage: paddock' || complain "no help for $command"
	"$paddock" "$command" --help | grep -q '^Usage: paddock' || complain "$command has no --help"
done
for name in $(grep -oE '\{ *FIELD\([a-z_]+\)' "$source/server/config.c" | sed 's/.*(//; s/)//'); do
	grep -qx "\.It Ic $name" "$source/sdk/man/paddock.conf.5" || complain "paddock.conf.5 does not tell of $name"
done
for page in "$source"/sdk/man/*.[158]; do
	if command -v groff >/dev/null; then
		messages=$(groff -mdoc -Tutf8 -ww "$page" 2>&1 >/dev/null)
		[ -z "$messages" ] || complain "$page: $messages"
	fi
	head -3 "$page" | grep -q '^\.Dd' || complain "$page: no date"
done
exit $failed
