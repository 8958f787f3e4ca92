#!/bin/bash
# The paddock command and libpaddock against a real instance, as somebody uses them. Arguments select tests.
set -uo pipefail
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
. "$SOURCE/tests/lib/daemon.sh"
failed=0
WORK=$(mktemp -d)
trap 'daemon_stop; rm -rf "$WORK"' EXIT

# check NAME COMMAND...: one verdict.
check() {
	local name=$1
	shift
	if "$@" >"$WORK/why" 2>&1; then
		echo "ok $name"
	else
		echo "FAIL $name: $(tr -s '[:space:]' ' ' <"$WORK/why" | tail -c 300)"
		failed=1
	fi
}
p() { timeout 60 "$PADDOCK" "$@"; }
same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }
# status WANTED COMMAND...
status() {
	local wanted=$1 rc=0
	shift
	p "$@" >/dev/null 2>&1 </dev/null || rc=$?
	same $rc "$wanted"
}

exit_codes() {
	status 0 exec $id true && status 7 exec $id -- sh -c 'exit 7' && status 137 exec $id -- sh -c 'kill -9 $$' &&
		status 124 exec --timeout 300ms $id sleep 20 && status 127 exec $id no-such-program && status 126 exec $id /etc/passwd &&
		status 125 exec iaaaaaaaaaaaaaaaaaaaa true && status 2 exec $id && status 2 list --no-such && status 2 lsit &&
		status 1 info iaaaaaaaaaaaaaaaaaaaa
}
streams_apart() {
	p exec $id -- sh -c 'echo out; echo err >&2' >"$WORK/out" 2>"$WORK/err" &&
		same "$(cat "$WORK/out")" out && same "$(cat "$WORK/err")" err
}
input_whole() {
	head -c 5000000 /dev/urandom >"$WORK/in"
	same "$(p exec -i $id -- sha256sum <"$WORK/in")" "$(sha256sum <"$WORK/in")"
}
closed_descriptors() {
	local rc=0
	same "$(p exec -i $id -- sh -c 'cat; echo end' <&-)" end && p exec $id -- true >&- || return 1
	p exec $id -- echo text >&- 2>"$WORK/err" || rc=$?
	same $rc 125 && grep -q 'cannot write the output: Bad file descriptor' "$WORK/err"
}
closed_reader() {
	# The reader ends first: so does the command, and what it started inside is ended too.
	p exec $id -- yes closed-reader | head -1 >"$WORK/first"
	same "${PIPESTATUS[0]} $(cat "$WORK/first")" "141 closed-reader" && wait_for 10 no_process closed-reader || return 1
	# A full disk too; and \`run\` leaves no sandbox.
	p list -q | sort >"$WORK/before"
	! p exec $id -- yes full-disk >/dev/full 2>/dev/null && wait_for 10 no_process full-disk || return 1
	p run -- yes | head -1 >/dev/null
	p list -q | sort | diff "$WORK/before" -
}
no_process() { ! p ps $id | grep -q "$1"; }
input_unread() { head -c 5000000 /dev/zero >"$WORK/zero" && p exec -i $id true <"$WORK/zero"; }
output_whole() { same "$(p exec $id -- head -c 30000000 /dev/zero | wc -c)" 30000000; }
environment() {
	same "$(p exec -e A=b --cwd /tmp $id -- sh -c 'echo $A; pwd; id -un')" "$(printf 'b\n/tmp\nuser')" &&
		same "$(p exec --user root $id -- id -u)" 0
}
# Login shells, as the SDKs start for every command: bash asks no program who it is, which /bin/sh has to; with one result.
login_shells() {
	local user=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games root=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin shell
	for shell in bash sh; do
		same "$(p exec -e HOME=/ $id -- $shell -l -c 'echo $PATH')" $user && same "$(p exec -e HOME=/ --user root $id -- $shell -l -c 'echo $PATH')" $root || return 1
	done
	same "$(p exec -e HOME=/ -e PATH=/none $id -- /bin/bash -l -c 'echo $PATH' 2>&1)" $user &&
		p exec -e HOME=/ -e PATH=/none $id -- /bin/sh -l -c : >"$WORK/out" 2>&1 && grep 'id: not found' "$WORK/out" || { cat "$WORK/out"; return 1; }
	p exec --user root $id -- sh -c 'echo "export FROM_PROFILE=yes" >/etc/profile.d/test.sh' &&
		same "$(p exec $id -- bash -l -c 'echo $FROM_PROFILE')" yes
}
# From the archive, or without it.
locales() {
	local ask='import locale; locale.setlocale(locale.LC_ALL, ""); print(locale.nl_langinfo(locale.CODESET), locale.strcoll("a", "B") > 0)'
	same "$(p exec $id -- locale -a)" "$(printf 'C\nC.utf8\nPOSIX')" && p exec $id -- test -s /usr/lib/locale/locale-archive &&
		same "$(p exec $id -- python3 -c "$ask")" "UTF-8 True" && p exec --user root $id -- mv /usr/lib/locale/locale-archive /tmp/ &&
		same "$(p exec $id -- python3 -c "$ask")" "UTF-8 True" && p exec --user root $id -- mv /tmp/locale-archive /usr/lib/locale/
}
json_result() {
	p exec -o json $id -- sh -c 'echo "a\"b"; exit 3' >"$WORK/json"
	same $? 3 && /usr/bin/python3 -c 'import json,sys
r = json.load(open(sys.argv[1]))
assert r["stdout"] == "a\"b\n" and r["exit_code"] == 3, r' "$WORK/json"
}
detached() {
	local n rc=0
	n=$(p exec -d --tag job $id -- sh -c 'echo 1; sleep 0.3; echo 2; exit 3') && same "$(p logs -f $id "$n")" "$(printf '1\n2')" || return 1
	p wait $id "$n" || rc=$?
	same $rc 3 && same "$(p logs $id "$n" --from 2)" 2 && p ps -a $id | grep -q job
}
signalled() {
	local n rc=0
	n=$(p exec -d $id sleep 100) && same "$(p logs $id "$n")" "" && p signal $id "$n" INT || return 1
	p wait $id "$n" || rc=$?
	same $rc 130
}
ctrl_c() {
	local rc=0
	timeout 30 "$PADDOCK" exec $id -- sh -c 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.05; done' >"$WORK/int" &
	wait_for 20 grep -q ready "$WORK/int"
	# The command is the child of timeout.
	kill -INT "$(pgrep -P $! -x paddock)"
	wait $! || rc=$?
	same $rc 9 && grep -q caught "$WORK/int"
}
survives_restart() {
	local rc=0 wanted
	wanted=$(seq 1 30; echo "rc 4")
	{ timeout 90 "$PADDOCK" exec $id -- sh -c 'for i in $(seq 1 30); do echo $i; sleep 0.1; done; exit 4'; echo "rc $?"; } >"$WORK/restart" 2>"$WORK/restart.err" &
	wait_for 20 grep -q 5 "$WORK/restart"
	kill -9 "$paddockd_pid"
	wait "$paddockd_pid" 2>/dev/null
	daemon_start_server
	wait_for 60 grep -q rc "$WORK/restart"
	cat "$WORK/restart.err"
	same "$(cat "$WORK/restart")" "$wanted"
}
copy_files() {
	head -c 3000000 /dev/urandom >"$WORK/file"
	p cp "$WORK/file" $id:some/dir/file && p cp $id:some/dir/file "$WORK/back" && cmp "$WORK/file" "$WORK/back" &&
		p cp "$WORK/file" $id:some/dir && same "$(p ls $id:some/dir)" file &&
		echo text | p cp - $id:text && same "$(p cp $id:text -)" text && same "$(p cat $id:text)" text
}
copy_trees() {
	mkdir -p "$WORK/tree/empty" "$WORK/tree/a/b" "$WORK/to"
	echo x >"$WORK/tree/a/b/x"
	ln -s a/b/x "$WORK/tree/link"
	chmod 755 "$WORK/tree/a/b/x"
	p cp "$WORK/tree" $id: && p cp $id:tree "$WORK/to" && diff -r --no-dereference "$WORK/tree" "$WORK/to/tree" &&
		[ -x "$WORK/to/tree/a/b/x" ] && p cp $id:tree "$WORK/renamed" && diff -r --no-dereference "$WORK/tree" "$WORK/renamed" &&
		p cp "$WORK/tree" $id:other && same "$(p cat $id:other/a/b/x)" x
}
hostile_tree() {
	mkdir "$WORK/safe"
	p exec $id -- sh -c 'mkdir evil && ln -s /etc evil/out && mkfifo evil/pipe && printf "\033[2Jx" > "evil/$(printf "a\033[31mb")"' &&
		p cp $id:evil "$WORK/safe/" && [ -L "$WORK/safe/evil/out" ] && [ ! -e "$WORK/safe/evil/pipe" ] &&
		! p ls $id:evil | grep -q $'\033'
}
failed_copy_leaves_nothing() {
	echo old >"$WORK/kept"
	! p cp $id:no-such "$WORK/kept" 2>/dev/null && same "$(cat "$WORK/kept")" old && ! ls "$WORK"/kept.* 2>/dev/null
}
file_commands() {
	p mkdir -p $id:m/n && echo 1 | p cp - $id:m/one && p mv $id:m/one m/n/two && same "$(p cat $id:m/n/two)" 1 &&
		p ls -l $id m/n | grep -q two && p rm -r $id:m && ! p ls $id:m 2>/dev/null
}
watching() {
	local pid rc=0
	timeout 20 "$PADDOCK" watch -r $id:some >"$WORK/watch" &
	pid=$!
	wait_for 20 grep -q ready "$WORK/watch"
	p exec $id touch some/dir/new
	wait_for 20 grep -q 'created.*dir/new' "$WORK/watch" || rc=1
	pkill -P $pid -x paddock
	wait $pid
	return $rc
}
short_ids() { same "$(p info "${id:0:8}" -o json | grep -c "\"$id\"")" 1 && ! p info i 2>/dev/null >/dev/null || p list -q | grep -q "$id"; }
lifetimes() { p timeout $id 20m | grep -q "$id ends" && status 2 timeout $id soon; }
keys() {
	local key
	key=$(p key create suite 2>/dev/null) &&
		same "$(PADDOCK_API_KEY=$key PADDOCK_ADDR=unix:$INSTANCE/run/paddock.sock p list -q | grep -c "$id")" 1 &&
		! PADDOCK_ADDR=unix:$INSTANCE/run/paddock.sock p list 2>/dev/null &&
		p key revoke "$(cut -d_ -f2 <<<"$key")" >/dev/null &&
		! PADDOCK_API_KEY=$key PADDOCK_ADDR=unix:$INSTANCE/run/paddock.sock p list 2>"$WORK/err" && grep -q PADDOCK_API_KEY "$WORK/err"
}
previews() {
	local link preview
	p exec -d $id python3 -m http.server 3456 >/dev/null
	for _ in {1..50}; do p ports $id | grep -q '3456 .*any' && break; sleep 0.1; done
	p ports $id | grep -q '3456 .*any' && link=$(p preview $id 3456 --ttl 10m --one-visitor --read-only 2>"$WORK/err") &&
		grep -Eqx 'http://p[a-z2-7]{26}.localhost:7413/[?]paddock_token=[0-9a-f]{64}' <<<"$link" || return 1
	preview=${link#http://} && preview=${preview%%.*}
	grep -q "$preview of port 3456" "$WORK/err" && p previews list | grep "$preview" | grep -q 'active.*read-only one-visitor' &&
		p previews list $id -o json | grep -q "$preview" && same "$(p previews extend $preview 20m 2>/dev/null)" "$link" &&
		same "$(p previews revoke $preview)" "$preview is revoked" && ! p previews list | grep -q "$preview" &&
		p previews list --all | grep -q "$preview" && ! p previews extend $preview 1h 2>/dev/null &&
		status 2 preview $id 80x && ! p preview $id 49983 2>"$WORK/err" && grep -q 49983 "$WORK/err"
}
run_and_gone() {
	local before
	before=$(p list -q | wc -l)
	same "$(p run -e X=y -- sh -c 'echo $X')" y && same "$(p list -q | wc -l)" "$before"
}
snapshots() {
	local n shot copy forks
	[ -x "$PADDOCK_CACHE/criu/usr/sbin/criu" ] || [ -x /usr/sbin/criu ] || { echo "no CRIU"; return 1; }
	p exec $id -- sh -c 'echo kept > snapshot-me' && n=$(p exec -d $id sleep 1000) &&
		shot=$(p snapshot --name warm --ttl 10m $id) && copy=$(p create --snapshot warm) &&
		same "$(p cat $copy:snapshot-me)" kept && p ps $copy | grep -q "sleep 1000" || return 1
	same "$(p snapshots list -q)" "$shot" && p snapshots list | grep -q "warm.*$id" &&
		p snapshots list -o json | grep -q '"stopped_us"' && status 1 snapshot --name warm $id || return 1
	forks=$(p fork -n 2 --lifetime 10m $id) && same "$(wc -l <<<"$forks")" 2 &&
		same "$(p cat "$(tail -1 <<<"$forks")":snapshot-me)" kept || return 1
	p kill $copy $forks >/dev/null && p snapshots remove warm && same "$(p snapshots list -q)" "" &&
		status 1 create --snapshot warm && p signal $id "$n" KILL
}
resets() {
	local box
	box=$(p create --lifetime 10m --env COLOUR=red) && p exec $box -- sh -c 'echo dirty > mark' && same "$(p cat $box:mark)" dirty &&
		same "$(p reset $box)" $box && ! p cat $box:mark 2>/dev/null && same "$(p exec $box -- sh -c 'echo $COLOUR')" red &&
		p info $box | grep -q '^Reset' && p reset --lifetime 5m -o json $box | grep -q '"reset_unix_ms"' || return 1
	status 1 reset iaaaaaaaaaaaaaaaaaaaa && status 2 reset && status 2 reset --lifetime soon $box && p kill $box >/dev/null &&
		status 1 reset $box && p quota | grep -q '^Sandboxes.* of '
}
terminal() { /usr/bin/python3 "$SOURCE/tests/sdk/terminal.py" "$PADDOCK" $id; }
json_everywhere() {
	local command
	for command in "list" "info $id" "usage $id" "metrics $id" "ps -a $id" "ls $id" "template list" "template get base" "tenant list" "key list" \
		"audit list" "audit verify" "status" "quota" "ports $id" "previews list" "version"; do
		p $command -o json | /usr/bin/python3 -c 'import json,sys; json.load(sys.stdin)' || { echo "$command"; return 1; }
	done
}
audited() {
	p audit verify >/dev/null && p audit key >"$WORK/audit.pub" && p audit export >"$WORK/audit" &&
		head -1 "$WORK/audit" | grep -q '"sequence":1,' || return 1
	verify_offline() { env -i "$PADDOCK" audit verify "$WORK/$1" --key "$WORK/audit.pub" "${@:2}"; }
	verify_offline audit || return 1
	# each of these is found, and the untouched export above is not
	sed '5 s/"outcome":"OK"/"outcome":"NOT_FOUND"/; 5 s/"action":"/&x/' "$WORK/audit" >"$WORK/audit.shown"
	sed 5d "$WORK/audit" >"$WORK/audit.missing"
	sed '$d' "$WORK/audit" >"$WORK/audit.cut"
	sed '$ s/"checkpoint":"\(.*\)[0-9a-f]"/"checkpoint":"\10"/; $ s/ \([0-9]\{13\}\) / 1\1 /' "$WORK/audit" >"$WORK/audit.signature"
	for changed in shown missing cut signature; do
		! verify_offline "audit.$changed" >"$WORK/out" && grep -q '^broken' "$WORK/out" || { echo "$changed"; return 1; }
	done
	# cut at a checkpoint: only what was kept elsewhere tells
	tail -1 "$WORK/audit" | sed 's/.*"checkpoint":"\([^"]*\)".*/\1/' >"$WORK/audit.kept"
	verify_offline audit --checkpoints "$WORK/audit.kept" || return 1
	awk '{ line[NR] = $0 } /"checkpoint":"p/ { last = prev; prev = NR } END { for (i = 1; i <= last; i++) print line[i] }' \
		"$WORK/audit" >"$WORK/audit.rolled"
	[ -s "$WORK/audit.rolled" ] || return 0
	verify_offline audit.rolled && ! verify_offline audit.rolled --checkpoints "$WORK/audit.kept"
}
says_what_to_do() {
	! p create --memroy 1G 2>"$WORK/err" && grep -q 'did you mean --memory' "$WORK/err" &&
		! p help lsit 2>"$WORK/err" && grep -q 'did you mean `paddock help list`' "$WORK/err" &&
		! p create --memory 1 2>"$WORK/err" && grep -q -e '--memory takes 16 MiB to' "$WORK/err" &&
		! p info 2>"$WORK/err" && grep -q 'usage: paddock info SANDBOX' "$WORK/err"
}
helps_on() {
	! p exce 2>"$WORK/err" && grep -q 'did you mean `paddock exec`' "$WORK/err" &&
		! PADDOCK_ADDR=unix:/nonexistent p list 2>"$WORK/err" && grep -q 'no server answers at unix:/nonexistent' "$WORK/err"
}
ended_meanwhile() {
	local one watch
	one=$(p create) && { p watch "$one" /home/user >"$WORK/out" 2>"$WORK/err" & } && watch=$! && sleep 0.5 && p kill "$one" >/dev/null
	wait "$watch"
	grep -q 'sandbox has ended' "$WORK/err" && grep -q 'paddock info' "$WORK/err"
}
# In a chroot the kernel gives nobody a user namespace: said with its mend, on a machine that is whole otherwise.
doctor() {
	local warden=$BUILD/sandbox/warden/paddock-warden root=$WORK/root
	p doctor >"$WORK/out" && grep -q 'ok *namespaces' "$WORK/out" && ! grep -q MISSING "$WORK/out" || { cat "$WORK/out"; return 1; }
	# A pause to disk was tried, with a sandbox that is gone again.
	grep -q 'ok *pause to disk and back (' "$WORK/out" && p doctor -o json | grep -q '"pause_ms": [1-9]' && same "$(p list -q)" "$id" || { cat "$WORK/out"; return 1; }
	mkdir -p "$root"
	unshare -m sh -c 'mount --rbind / "$1" && chroot "$1" "$2" --check; echo "exit $?"' - "$root" "$warden" >"$WORK/out"
	rmdir "$root"
	grep -q 'namespaces *MISSING: enable' "$WORK/out" && [ "$(grep -c MISSING "$WORK/out")" = 1 ] && grep -q 'exit 1' "$WORK/out" || { cat "$WORK/out"; return 1; }
}
# A warden that finds no CRIU: said, with what to do.
doctor_without_criu() {
	local rc=0
	[ ! -x /usr/sbin/criu ] || return 0
	mv "$INSTANCE/libexec/criu" "$INSTANCE/libexec/gone" && stop_pid "$warden_pid" && daemon_start_warden && wait_for 20 p usage $id || return 1
	! p doctor >"$WORK/out" && grep -A1 'MISSING *pause to disk and back' "$WORK/out" | grep -q 'CRIU is not installed.*paddock-fetch-criu' &&
		{ p doctor -o json || true; } | grep -q '"mend": ".*paddock-fetch-criu' && same "$(p list -q)" "$id" || rc=1
	mv "$INSTANCE/libexec/gone" "$INSTANCE/libexec/criu" && stop_pid "$warden_pid" && daemon_start_warden && wait_for 20 p usage $id &&
		wait_for 20 p doctor || rc=1
	[ $rc = 0 ] || cat "$WORK/out"
	return $rc
}
# From steps: what is sent, what is taken over, what is said, and the exit status.
build_of_steps() {
	local dir=$WORK/steps
	mkdir -p "$dir/src/sub" && echo one >"$dir/src/one.txt" && echo two >"$dir/src/sub/two.txt" && echo no >"$dir/src/no.o" && echo '**/*.o' >"$dir/.dockerignore"
	printf '%s\n' 'FROM base' 'ENV A="two words"' 'WORKDIR /srv/app' 'COPY --chmod=700 src .' 'COPY src/*.txt src/sub/two.txt flat/' \
		'RUN echo "$A in $PWD" && ls -R' 'USER root' >"$dir/Paddockfile"
	p template build steps:v1 "$dir" --tag latest --memory 256M >"$WORK/out" 2>"$WORK/log" || { cat "$WORK/log"; return 1; }
	grep -q '^\[5/6\] *two words in /srv/app' "$WORK/log" && grep -q '^Template.*steps:v1' "$WORK/out" &&
		same "$(p run -t steps:latest -- sh -c 'id -un; pwd; stat -c "%U %a" one.txt; cat sub/two.txt flat/one.txt flat/two.txt; ls')" \
			"$(printf 'root\n/srv/app\nuser 700\ntwo\none\ntwo\nflat\none.txt\nsub')" || return 1
	# All is taken over; another content of a file, nothing from there on; -o json is the build alone.
	same "$(p template build steps "$dir" -q -o json 2>"$WORK/log" | jq -r '"\(.state) \(.cached_steps) \(.log)"')" "ready 5 []" && same "$(cat "$WORK/log")" "" &&
		echo three >"$dir/src/sub/two.txt" && same "$(p template build steps "$dir" -q -o json | jq .cached_steps)" 2 &&
		touch "$dir/src/one.txt" && same "$(p template build steps "$dir" -q -o json | jq .cached_steps)" 5 &&
		same "$(p template build steps "$dir" -q -o json --no-cache | jq .cached_steps)" 0 &&
		same "$(p template builds -o json | jq -r '.[0] | "\(.name) \(.state) \(.tags[0])"')" "steps ready default" &&
		p template remove steps && p template remove steps:v1 && p template remove steps:latest
}
build_that_fails() {
	local dir=$WORK/fails rc=0 id
	mkdir -p "$dir" && printf '# first\nFROM base\nRUN echo before\nRUN \\\n  echo why; exit 7\n' >"$dir/Dockerfile"
	p template build fails "$dir" >"$WORK/out" 2>"$WORK/err" || rc=$?
	same $rc 1 && grep -q "^\[2/2\] *why" "$WORK/err" && grep -q "^paddock: Dockerfile:4: failed to run command 'echo why; exit 7': exit status 7" "$WORK/err" &&
		same "$(cat "$WORK/out")" "" && ! p template get fails 2>/dev/null || { cat "$WORK/err"; return 1; }
	# Its log is told later, too.
	id=$(p template builds -o json | jq -r '.[0].id') && p template logs "$id" | grep -q '^\[2\] *why' && same "$(p template logs -o json "$id" | jq -r 'select(.message == "why") | .level + .step')" info2 &&
		p template builds | grep -q "$id.*fails.*failed" && status 1 template logs -f "$id" || return 1
	# What is wrong before anything is begun: by file and line, without a build.
	for text in 'FROM base\nEXPOSE 80|Dockerfile:2: EXPOSE is not available here' 'FROM base\nCOPY none .|Dockerfile:2: COPY: none: No such file' \
		'FROM base\nCOPY ../out .|Dockerfile:2: COPY: .*leads out' 'RUN x|Dockerfile:1: RUN: FROM comes first'; do
		printf "${text%|*}\n" >"$dir/Dockerfile"
		! p template build fails "$dir" 2>"$WORK/err" && grep -q "^paddock: ${text#*|}" "$WORK/err" || { cat "$WORK/err"; return 1; }
	done
	same "$(p template builds -o json | jq -r '.[0].id')" "$id" && ! p template build fails "$WORK/none" 2>/dev/null && rm "$dir/Dockerfile" &&
		! p template build fails "$dir" 2>"$WORK/err" && grep -q 'has no Paddockfile and no Dockerfile' "$WORK/err" &&
		printf 'FROM none\n' | { ! p template build fails "$dir" -f - 2>"$WORK/err"; } && grep -q 'template not found' "$WORK/err" &&
		status 2 template build fails && status 2 template build fails "$dir" --suite trixie && status 2 template build base --no-cache
}
# Ctrl-C, and \`template stop\` from elsewhere: it ends, as failed, and its sandbox goes.
build_stopped() {
	local dir=$WORK/stopped pid rc=0 build
	mkdir -p "$dir" && printf 'FROM base\nRUN echo here; sleep 1000\n' >"$dir/Paddockfile"
	"$PADDOCK" template build stopped "$dir" 2>"$WORK/err" &
	pid=$!
	wait_for 30 grep -q here "$WORK/err" && kill -INT $pid || { cat "$WORK/err"; return 1; }
	wait $pid || rc=$?
	same $rc 130 && grep -q 'the build was stopped' "$WORK/err" && wait_for 10 same "$(p list -q | grep -vx "$id")" "" || { cat "$WORK/err"; return 1; }
	"$PADDOCK" template build stopped "$dir" >/dev/null 2>"$WORK/err" &
	pid=$! rc=0
	wait_for 30 grep -q here "$WORK/err" && build=$(p template builds -o json | jq -r '.[0].id') && p template stop "$build" || { cat "$WORK/err"; return 1; }
	wait $pid || rc=$?
	same $rc 1 && grep -q 'Paddockfile:2: the build was stopped' "$WORK/err"
}
# A server that is started again in the middle of it: told when it is there again, with the line.
build_cut() {
	local dir=$WORK/stopped pid rc=0
	"$PADDOCK" template build cut "$dir" >/dev/null 2>"$WORK/err" &
	pid=$!
	wait_for 30 grep -q here "$WORK/err" && kill -9 "$paddockd_pid"
	wait "$paddockd_pid" 2>/dev/null
	daemon_start_server
	wait $pid || rc=$?
	same $rc 1 && grep -q 'Paddockfile:2: the server was restarted while it ran' "$WORK/err" || { cat "$WORK/err"; return 1; }
}
killed() { p kill $id >/dev/null && status 125 exec $id true && p list --all | grep -q "$id"; }

daemon_start && daemon_template >&2 || { echo "FAIL instance: it does not start"; exit 1; }
id=$(p create --lifetime 30m) || { echo "FAIL create: no sandbox"; exit 1; }
tests="exit_codes streams_apart input_whole input_unread closed_descriptors closed_reader output_whole environment login_shells locales json_result detached signalled ctrl_c
	copy_files copy_trees hostile_tree failed_copy_leaves_nothing file_commands watching short_ids lifetimes keys previews run_and_gone snapshots resets
	terminal json_everywhere audited says_what_to_do helps_on doctor doctor_without_criu ended_meanwhile build_of_steps build_that_fails build_stopped build_cut survives_restart killed"
for name in ${*:-$tests}; do
	check $name $name
done
exit $failed
