#!/bin/sh
# Let a command work on a copy of a git repository and get back what it changed, as a patch. The repository stays as it is.
#
#	examples/patch.sh REPOSITORY COMMAND [ARG...] >change.patch
#
# Exit status: the command's.
set -eu
repository=$1
shift

sandbox=$(paddock create --lifetime 1h)
trap 'paddock kill "$sandbox" >/dev/null' EXIT
paddock cp "$repository" "$sandbox:/home/user/work"
rc=0
paddock exec --cwd /home/user/work "$sandbox" -- "$@" >&2 || rc=$?
paddock exec --cwd /home/user/work "$sandbox" -- sh -c 'git add -A && git diff --cached --binary'
exit $rc
