#!/bin/bash
# Completion is valid in its shell, and knows every command and option.
set -eu
paddock=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
complain() { echo "$*" >&2; failed=1; }

for shell in bash zsh fish; do "$paddock" completion $shell >"$work/$shell"; done
bash -n "$work/bash" || complain "bash refuses it"
! command -v zsh >/dev/null || zsh -n "$work/zsh" || complain "zsh refuses it"
! command -v fish >/dev/null || fish --no-execute "$work/fish" || complain "fish refuses it"

mkdir "$work/bin"
printf '#!/bin/sh\ncase "$1" in list) echo iaaa; echo ibbb;; template) echo NAME; echo base;; esac\n' >"$work/bin/paddock"
chmod +x "$work/bin/paddock"
PATH=$work/bin:$PATH
. "$work/bash"
# What bash offers for the words that are given.
offered() {
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	COMPREPLY=()
	_paddock
	echo "${COMPREPLY[*]}"
}
expect() {
	local wanted=$1 got
	shift
	got=$(offered "$@")
	[[ " $got " == *" $wanted "* ]] || complain "'$*' offers '$got', not $wanted"
}
expect exec paddock ex
expect ibbb paddock kill ""
expect iaaa paddock info i
expect --user paddock exec --u
expect base paddock create -t ""
expect json paddock list -o ""
expect build paddock template ""
expect --suite paddock template build --s
expect base paddock template get ""
expect "iaaa:" paddock cp i

for command in $("$paddock" help | awk '/^  [a-z]/ { print $1 }'); do
	for shell in bash zsh fish; do
		grep -qw -- "$command" "$work/$shell" || complain "$shell does not know $command"
	done
	for option in $("$paddock" help "$command" | grep -oE '^ +(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+'); do
		expect "$option" paddock "$command" "$option"
		grep -q -- "$option" "$work/zsh" || complain "zsh does not know $command $option"
		grep -qw -- "-l ${option#--}" "$work/fish" || complain "fish does not know $command $option"
	done
done
exit $failed
