"""Processes: start, streams, exit codes, signals, timeouts, input, terminals, replay, back-pressure."""
import concurrent.futures
import glob
import hashlib
import os
import re
import threading
import time

from api import Case, Code, grpc, pb, unique
import host
from paddock import Result, enum, wait_until

STDOUT, STDERR, PTY = (enum("STREAM_" + n) for n in ("STDOUT", "STDERR", "PTY"))


class Start(Case):
    def test_echo(self):
        result = self.client.run(self.box, "echo", "hello", "wörld", "")
        self.assertEqual((result.out, result.err, result.code, result.signal), ("hello wörld \n".encode(), b"", 0, 0))
        self.assertEqual(result.chunks[0].sequence, 0)
        self.assertEqual(result.exited.output_bytes, len(result.out))
        self.assertEqual(result.exited.process_id, result.started.process_id)
        self.assertFalse(result.exited.timed_out or result.exited.sandbox_ended or result.exited.core_dumped)

    def test_stdout_and_stderr_apart(self):
        result = self.client.run(self.box, "echo out; echo err >&2; exit 3")
        self.assertEqual((result.out, result.err, result.code), (b"out\n", b"err\n", 3))

    def test_sequences_are_gapless(self):
        result = self.client.run(self.box, "for i in 1 2 3 4 5; do echo $i; echo e$i >&2; sleep 0.02; done; seq 1 20000")
        at = 0
        for chunk in result.chunks:
            self.assertEqual(chunk.sequence, at)
            self.assertLessEqual(len(chunk.data), 1 << 20)
            at += len(chunk.data)
        self.assertEqual((at, result.exited.dropped_bytes), (result.exited.output_bytes, 0))
        self.assertTrue(result.out.endswith(b"20000\n"))

    def test_environment(self):
        box = self.new_box(env={"A": "sandbox", "B": "sandbox"})
        result = self.client.run(box, 'echo "$A $B $HOME $USER $(id -u) $PWD"', env={"B": "call", "EMPTY": ""})
        self.assertEqual(result.out, b"sandbox call /home/user user 1000 /home/user\n")
        self.assertIn(b"EMPTY=\n", self.client.run(box, "env", env={"EMPTY": ""}).out)

    def test_nothing_of_the_host_in_the_environment(self):
        names = {line.split(b"=")[0] for line in self.client.run(self.box, "/usr/bin/env").out.splitlines()}
        self.assertLessEqual(names, {b"PATH", b"HOME", b"USER", b"LOGNAME", b"SHELL", b"LANG", b"PWD", b"TERM", b"LC_ALL", b"TMPDIR",
                                     b"HOSTNAME", b"PADDOCK_SANDBOX_ID", b"_", b"SHLVL"})

    def test_user_and_root(self):
        self.assertEqual(self.client.run(self.box, "id", "-un").out, b"user\n")
        self.assertEqual(self.client.run(self.box, "id", "-u", user="root").out, b"0\n")
        self.assertEqual(self.client.run(self.box, "pwd", user="root").out, b"/root\n")
        self.invalid("user", self.client.run, self.box, "/bin/true", user="nobody")

    def test_cwd(self):
        self.assertEqual(self.client.run(self.box, "pwd", cwd="/tmp").out, b"/tmp\n")
        self.refused(Code.NOT_FOUND, self.client.run, self.box, "/bin/true", cwd="/nosuch")
        self.refused(Code.FAILED_PRECONDITION, self.client.run, self.box, "/bin/true", cwd="/etc/passwd")
        for cwd in ("relative", "/" + "a" * 256, "/" + "a/" * 2100):
            with self.subTest(cwd=cwd[:20]):
                self.invalid("cwd", self.client.run, self.box, "/bin/true", cwd=cwd)

    def test_F05_cwd_never_leads_out(self):
        """F05: magic links and dot-dot as the working directory stay inside."""
        self.sh("ln -sfn /proc/self/root /home/user/magic; ln -sfn /proc/1/cwd /home/user/magic1")
        mark = unique("mark")
        self.sh(f"touch /tmp/{mark}")
        for cwd in ("/proc/self/fd/3", "/proc/self/fd/4", "/proc/1/cwd", "/proc/1/root", "/home/user/magic", "/home/user/magic1",
                    "/" + "../" * 64, "/proc/self/cwd"):
            with self.subTest(cwd=cwd):
                try:
                    where = self.client.run(self.box, "/bin/sh", "-c", f"pwd -P; ls /tmp/{mark}", cwd=cwd)
                except grpc.RpcError as error:
                    self.assertIn(error.code(), (Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT))
                    continue
                self.assertTrue(where.out.startswith(b"/"), where.all)
                self.assertNotIn(b"unreachable", where.out)
                self.assertIn(mark.encode(), where.out)
        self.assertEqual(self.client.run(self.box, "pwd", cwd="/home").out, b"/home\n")

    def test_cannot_execute(self):
        self.sh("printf 'not a program' > /home/user/plain; echo '#!/nosuch' > /home/user/bang; chmod +x /home/user/bang")
        for program in ("/nosuch", "nosuch-in-path", "/home/user/plain", "/home/user/bang", "/etc"):
            with self.subTest(program=program):
                self.refused(Code.FAILED_PRECONDITION, self.client.run, self.box, program)

    def test_P14_P15_every_limit(self):
        start = self.client.Processes.Start
        cases = [
            ("argv", dict(argv=[])), ("argv", dict(argv=[""])), ("argv", dict(argv=["true"] * 4097)),
            ("argv", dict(argv=["true", "x" * 131072])), ("argv", dict(argv=["true"] + ["x" * 131000] * 9)),
            ("argv", dict(argv=["true", "a\0b"])),
            ("env", dict(env={"A=": "x"})), ("env", dict(env={"": "x"})), ("env", dict(env={"A": "x" * 32769})),
            ("env", dict(env={"A": "a\0b"})), ("env", dict(env={f"E{i}": "" for i in range(257)})),
            ("timeout_ms", dict(timeout_ms=86400001)), ("grace_ms", dict(grace_ms=60001)),
            ("tag", dict(tag="t" * 129)), ("user", dict(user="0")), ("user", dict(user="root\n")),
            ("terminal", dict(terminal=pb.TerminalSize(columns=0, rows=24))),
            ("terminal", dict(terminal=pb.TerminalSize(columns=80, rows=4097))),
        ]
        for field, fields in cases:
            with self.subTest(field=field, case=str(fields)[:50]):
                self.invalid(field, start, **{"sandbox_id": self.box, "argv": ["true"], **fields})
        self.kept_alive()

    def test_P15_largest_argv(self):
        result = self.client.run(self.box, "/bin/sh", "-c", 'echo $# ${#1}', "sh", "x" * 131071, *["y"] * 4091)
        self.assertEqual(result.out, b"4092 131071\n")

    def test_arguments_reach_no_shell(self):
        hostile = ["$(id)", "`id`", ";id", "a b", "*", "'\"", "\\n", "-n", "\x1b[31m", "line\nbreak"]
        result = self.client.run(self.box, "/usr/bin/printf", "%s\\0", *hostile)
        self.assertEqual(result.out.split(b"\0")[:-1], [h.encode() for h in hostile])

    def test_detach(self):
        result = self.client.run(self.box, "sleep 0.3; echo late; exit 7", detach=True)
        self.assertIsNone(result.exited)
        self.assertEqual(self.client.Processes.Wait(sandbox_id=self.box, process_id=result.id).exit_code, 7)
        self.assertEqual(Result(self.client.Processes.Attach(sandbox_id=self.box, process_id=result.id)).out, b"late\n")

    def test_P08_ends_on_exit_not_on_eof(self):
        """P08: a grandchild that holds stdout does not hold the call."""
        began = time.monotonic()
        result = self.client.run(self.box, "echo done; sleep 20 & exit 5")
        self.assertEqual((result.out, result.code), (b"done\n", 5))
        self.assertLess(time.monotonic() - began, 8)

    def test_closed_stdout_runs_on(self):
        result = self.client.run(self.box, "exec >&- 2>&-; sleep 0.5; exit 9")
        self.assertEqual(result.code, 9)

    def test_many_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            codes = list(pool.map(lambda i: self.client.run(self.box, "/bin/sh", "-c", f"exit {i}").code, range(128)))
        self.assertEqual(codes, list(range(128)))

    def test_F26_F27_stdio_are_pipes(self):
        """F26, F27: three descriptors, none a file or directory of the host."""
        out = self.client.run(self.box, "/bin/ls", "-l", "/proc/self/fd").out.decode()
        found = dict(re.search(r" (\d+) -> (.*)", line).groups() for line in out.splitlines() if "->" in line)
        self.assertEqual(found.get("0"), "/dev/null")
        self.assertRegex(found["1"], "^pipe:")
        self.assertRegex(found["2"], "^pipe:")
        self.assertRegex(found.pop("3"), r"^/proc/\d+/fd$")  # the listing itself
        self.assertEqual(set(found), {"0", "1", "2"})


class ExitAndSignals(Case):
    def test_P09_every_exit_code(self):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(lambda i: self.client.run(self.box, "/bin/sh", "-c", f"exit {i}"), range(256)))
        self.assertEqual([(r.code, r.signal) for r in codes], [(i, 0) for i in range(256)])

    def test_P09_death_by_every_signal(self):
        ignored = {17, 18, 23, 28, 19, 20, 21, 22}  # CHLD CONT URG WINCH do nothing; STOP TSTP TTIN TTOU stop
        for number in [n for n in range(1, 65) if n not in ignored and n not in (32, 33)]:
            with self.subTest(signal=number):
                result = self.client.run(self.box, "/usr/bin/python3", "-c",
                                         f"import os, signal\nfor s in ({number},):\n"
                                         " if s not in (9, 19): signal.signal(s, signal.SIG_DFL)\n"
                                         f"os.kill(os.getpid(), {number})\nimport time; time.sleep(5)")
                self.assertEqual((result.signal, result.exited.core_dumped), (number, False))

    def test_signal_the_group(self):
        started = self.client.run(self.box, "sleep 300 & sleep 300", detach=True)
        self.client.Processes.Signal(sandbox_id=self.box, process_id=started.id, signal=15)
        exit = self.client.Processes.Wait(sandbox_id=self.box, process_id=started.id, deadline=5)
        self.assertEqual(exit.signal, 15)
        wait_until(lambda: self.client.run(self.box, "pgrep -c -x sleep || true").out == b"0\n", 5, "the whole group is gone")

    def test_signal_one_process(self):
        started = self.client.run(self.box, "/bin/bash", "-c", "trap 'echo got; exit 4' USR1; sleep 300 & wait", detach=True)
        time.sleep(0.3)
        self.client.Processes.Signal(sandbox_id=self.box, process_id=started.id, signal=10, process_only=True)
        self.assertEqual(self.client.Processes.Wait(sandbox_id=self.box, process_id=started.id, deadline=5).exit_code, 4)
        self.assertEqual(self.client.run(self.box, "pgrep -c -x sleep || true").out, b"1\n")
        self.sh("pkill -x sleep")

    def test_P05_signal_limits(self):
        """P05"""
        started = self.client.run(self.box, "sleep", "300", detach=True)
        call = self.client.Processes.Signal
        for number in (0, 65, 128, 2 ** 31, 2 ** 32 - 1):
            with self.subTest(signal=number):
                self.invalid("signal", call, sandbox_id=self.box, process_id=started.id, signal=number)
        for id in (0, 1 << 40, 2 ** 64 - 1):
            with self.subTest(id=id):
                self.refused(Code.NOT_FOUND, call, sandbox_id=self.box, process_id=id, signal=9)
        call(sandbox_id=self.box, process_id=started.id, signal=9)
        self.assertEqual(self.client.Processes.Wait(sandbox_id=self.box, process_id=started.id).signal, 9)
        self.refused(Code.NOT_FOUND, call, sandbox_id=self.box, process_id=started.id, signal=9)

    def test_P16_timeout_term_then_kill(self):
        began = time.monotonic()
        polite = self.client.run(self.box, "sleep", "300", timeout_ms=300)
        self.assertEqual((polite.signal, polite.exited.timed_out), (15, True))
        self.assertLess(time.monotonic() - began, 3)
        began = time.monotonic()
        stubborn = self.client.run(self.box, "/bin/bash", "-c", "trap '' TERM; while :; do sleep 0.1; done", timeout_ms=300, grace_ms=500)
        self.assertEqual((stubborn.signal, stubborn.exited.timed_out), (9, True))
        self.assertTrue(0.7 < time.monotonic() - began < 4)
        caught = self.client.run(self.box, "/bin/bash", "-c", "trap 'exit 12' TERM; sleep 300 & wait", timeout_ms=300)
        self.assertEqual((caught.code, caught.signal, caught.exited.timed_out), (12, 0, True))
        quick = self.client.run(self.box, "/bin/true", timeout_ms=5000)
        self.assertFalse(quick.exited.timed_out)

    def test_P03_timeout_of_a_stopped_process(self):
        """P03: a process that stopped itself still goes."""
        result = self.client.run(self.box, "kill -STOP $$; sleep 300", timeout_ms=300, grace_ms=300)
        self.assertTrue(result.exited.timed_out)

    def test_P16_timeout_one_millisecond(self):
        self.assertTrue(self.client.run(self.box, "sleep", "60", timeout_ms=1).exited.timed_out)


class Input(Case):
    def start(self, *argv, **fields):
        result = self.client.run(self.box, *argv, detach=True, open_stdin=True, **fields)
        return dict(sandbox_id=self.box, process_id=result.id)

    def test_cat(self):
        where = self.start("cat")
        self.assertEqual(self.client.Processes.SendInput(data=b"one\n", **where).bytes, 4)
        self.client.Processes.SendInput(data=b"\0two\xff", **where)
        self.client.Processes.CloseStdin(**where)
        self.client.Processes.CloseStdin(**where)
        self.assertEqual(Result(self.client.Processes.Attach(**where)).out, b"one\n\0two\xff")
        self.refused(Code.FAILED_PRECONDITION, self.client.Processes.SendInput, data=b"x", **where)

    def test_large(self):
        where = self.start("sha256sum")
        digest = hashlib.sha256()
        for i in range(32):
            data = bytes([i]) * (1 << 20)
            digest.update(data)
            self.assertEqual(self.client.Processes.SendInput(data=data, **where).bytes, len(data))
        self.client.Processes.CloseStdin(**where)
        self.assertIn(digest.hexdigest().encode(), Result(self.client.Processes.Attach(**where)).out)

    def test_stdin_off_by_default(self):
        result = self.client.run(self.box, "cat; sleep 0.5", detach=True)
        self.refused(Code.FAILED_PRECONDITION, self.client.Processes.SendInput, sandbox_id=self.box, process_id=result.id, data=b"x")
        self.assertEqual(self.client.run(self.box, "wc", "-c").out, b"0\n")

    def test_limits(self):
        where = self.start("sleep", "30")
        self.invalid("data", self.client.Processes.SendInput, data=b"x" * ((1 << 20) + 1), **where)
        self.refused(Code.NOT_FOUND, self.client.Processes.SendInput, sandbox_id=self.box, process_id=999999, data=b"x")
        self.refused(Code.NOT_FOUND, self.client.Processes.CloseStdin, sandbox_id=self.box, process_id=999999)

    def test_reader_that_does_not_read(self):
        """The pipe fills, the call waits for its deadline and says what was taken."""
        where = self.start("sleep", "30")
        call = self.client.Processes.SendInput
        with self.assertRaises(grpc.RpcError) as raised:
            for _ in range(8):
                call(data=b"x" * (1 << 20), deadline=1, **where)
        self.assertEqual(raised.exception.code(), Code.DEADLINE_EXCEEDED)
        self.kept_alive()

    def test_P08_process_that_exits_without_reading(self):
        where = self.start("/bin/true")
        self.client.Processes.Wait(**where)
        with self.assertRaises(grpc.RpcError) as raised:
            self.client.Processes.SendInput(data=b"x" * (1 << 20), **where)
        self.assertIn(raised.exception.code(), (Code.FAILED_PRECONDITION, Code.NOT_FOUND))


class Interact(Case):
    def talk(self, messages, deadline=30):
        return self.client.Processes.Interact(iter(messages), deadline=deadline)

    def start(self, *argv, **fields):
        return pb.InteractRequest(start=pb.StartProcessRequest(sandbox_id=self.box, argv=argv, **fields))

    def test_start_input_close(self):
        result = Result(self.talk([self.start("tr", "a-z", "A-Z", open_stdin=True), pb.InteractRequest(input=b"hello"),
                                   pb.InteractRequest(close_stdin=True)]))
        self.assertEqual((result.out, result.code), (b"HELLO", 0))

    def test_signal(self):
        ready = threading.Event()

        def messages():
            yield self.start("sleep", "300")
            ready.wait(10)
            yield pb.InteractRequest(signal=15)
        call = self.client.Processes.Interact(messages(), deadline=20)
        self.assertTrue(next(call).HasField("started"))
        ready.set()
        self.assertEqual(Result(call).signal, 15)

    def test_attach(self):
        started = self.client.run(self.box, "cat", open_stdin=True, detach=True)
        attach = pb.InteractRequest(attach=pb.AttachRequest(sandbox_id=self.box, process_id=started.id))
        result = Result(self.talk([attach, pb.InteractRequest(input=b"x\n"), pb.InteractRequest(close_stdin=True)]))
        self.assertEqual(result.out, b"x\n")

    def test_first_message_must_start(self):
        self.refused(Code.INVALID_ARGUMENT, self.talk, [pb.InteractRequest(input=b"x")])
        self.refused(Code.INVALID_ARGUMENT, self.talk, [pb.InteractRequest()])
        self.refused(Code.INVALID_ARGUMENT, self.talk, [])

    def test_start_twice(self):
        self.refused(Code.INVALID_ARGUMENT, self.talk, [self.start("sleep", "5"), self.start("sleep", "5")])

    def test_limits(self):
        self.invalid("signal", self.talk, [self.start("sleep", "5"), pb.InteractRequest(signal=65)])
        self.invalid("input", self.talk, [self.start("cat", open_stdin=True), pb.InteractRequest(input=b"x" * ((1 << 20) + 1))])

    def test_hang_up_leaves_it_running(self):
        call = self.talk([self.start("sleep", "300", tag="survivor")])
        id = next(call).started.process_id
        call.cancel()
        time.sleep(0.3)
        listed = {p.process_id: p for p in self.client.Processes.List(sandbox_id=self.box).processes}
        self.assertTrue(listed[id].running)
        self.client.Processes.Signal(sandbox_id=self.box, process_id=id, signal=9)


class Terminal(Case):
    def test_it_is_a_terminal(self):
        result = self.client.run(self.box, "test -t 0 && test -t 1 && test -t 2 && stty size && tty", terminal=pb.TerminalSize(columns=101, rows=37))
        self.assertEqual(result.code, 0, result.all)
        self.assertIn(b"37 101\r\n", result.pty)
        self.assertIn(b"/dev/pts/", result.pty)
        self.assertEqual((result.out, result.err), (b"", b""))

    def test_resize_and_sigwinch(self):
        started = self.client.run(self.box, "/bin/bash", "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done",
                                  terminal=pb.TerminalSize(columns=80, rows=24), detach=True)
        where = dict(sandbox_id=self.box, process_id=started.id)
        follow = self.client.Processes.Attach(**where)
        for event in follow:
            if b"ready" in event.output.data:
                break
        self.client.Processes.Resize(size=pb.TerminalSize(columns=132, rows=50), **where)
        self.assertIn(b"50 132", Result(follow).pty)

    def test_P12_resize_limits(self):
        plain = self.client.run(self.box, "sleep", "30", detach=True)
        self.refused(Code.FAILED_PRECONDITION, self.client.Processes.Resize, sandbox_id=self.box, process_id=plain.id,
                     size=pb.TerminalSize(columns=80, rows=24))
        started = self.client.run(self.box, "sleep", "30", terminal=pb.TerminalSize(columns=80, rows=24), detach=True)
        for columns, rows in ((0, 24), (80, 0), (4097, 24), (80, 4097), (65535, 65535)):
            with self.subTest(columns=columns, rows=rows):
                self.invalid("size", self.client.Processes.Resize, sandbox_id=self.box, process_id=started.id,
                             size=pb.TerminalSize(columns=columns, rows=rows))
        self.refused(Code.NOT_FOUND, self.client.Processes.Resize, sandbox_id=self.box, process_id=424242,
                     size=pb.TerminalSize(columns=80, rows=24))

    def test_control_c_and_end_of_file(self):
        started = self.client.run(self.box, "cat", terminal=pb.TerminalSize(columns=80, rows=24), detach=True)
        where = dict(sandbox_id=self.box, process_id=started.id)
        time.sleep(0.2)
        self.client.Processes.SendInput(data=b"\x03", **where)
        self.assertEqual(self.client.Processes.Wait(deadline=5, **where).signal, 2)
        started = self.client.run(self.box, "cat", terminal=pb.TerminalSize(columns=80, rows=24), detach=True)
        where = dict(sandbox_id=self.box, process_id=started.id)
        self.client.Processes.SendInput(data=b"line\n", **where)
        self.client.Processes.CloseStdin(**where)
        self.assertEqual(self.client.Processes.Wait(deadline=5, **where).exit_code, 0)
        self.assertEqual(Result(self.client.Processes.Attach(**where)).pty, b"line\r\nline\r\n")

    def test_P12_resize_storm(self):
        """P12"""
        def messages():
            yield pb.InteractRequest(start=pb.StartProcessRequest(sandbox_id=self.box, argv=["sh", "-c", "read x; stty size"],
                                                                  terminal=pb.TerminalSize(columns=80, rows=24)))
            for i in range(5000):
                yield pb.InteractRequest(resize=pb.TerminalSize(columns=1 + i % 4096, rows=1 + i % 100))
            yield pb.InteractRequest(resize=pb.TerminalSize(columns=90, rows=30))
            yield pb.InteractRequest(input=b"\n")
        self.assertIn(b"30 90", Result(self.client.Processes.Interact(messages(), deadline=60)).pty)
        self.kept_alive()

    def test_job_control_shell(self):
        def messages():
            yield pb.InteractRequest(start=pb.StartProcessRequest(sandbox_id=self.box, argv=["bash", "--norc", "-i"],
                                                                  terminal=pb.TerminalSize(columns=80, rows=24), env={"PS1": "> "}))
            yield pb.InteractRequest(input=b"echo $((40+2)); exit 6\n")
        result = Result(self.client.Processes.Interact(messages(), deadline=30))
        self.assertRegex(result.pty, rb"[\r\n]42\r\n")
        self.assertEqual(result.code, 6)
        self.assertNotIn(b"no job control", result.pty)


class Replay(Case):
    def test_attach_from_any_number(self):
        done = self.client.run(self.box, "seq 1 5000")
        for start in (0, 1, 100, len(done.all) - 1, len(done.all)):
            with self.subTest(start=start):
                again = Result(self.client.Processes.Attach(sandbox_id=self.box, process_id=done.id, from_sequence=start))
                self.assertEqual(again.all, done.all[start:])
                self.assertEqual(again.exited, done.exited)

    def test_after_a_disconnect(self):
        """Cut in the middle, continue from the last number seen: nothing twice, nothing missing."""
        first = self.client.Processes.Start(sandbox_id=self.box, argv=["bash", "-c", "for i in $(seq 1 400); do echo line $i; sleep 0.005; done"])
        id, got = next(first).started.process_id, b""
        for event in first:
            got += event.output.data
            if len(got) > 500:
                break
        first.cancel()
        time.sleep(0.3)
        rest = Result(self.client.Processes.Attach(sandbox_id=self.box, process_id=id, from_sequence=len(got)))
        self.assertEqual(got + rest.all, b"".join(b"line %d\n" % i for i in range(1, 401)))

    def test_two_followers(self):
        started = self.client.run(self.box, "sleep 0.3; seq 1 30000", detach=True)
        where = dict(sandbox_id=self.box, process_id=started.id)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda _: Result(self.client.Processes.Attach(**where)).out, range(2)))
        self.assertEqual(both[0], b"".join(b"%d\n" % i for i in range(1, 30001)))
        self.assertEqual(both[0], both[1])

    def test_by_tag(self):
        tag = unique("tag")
        self.client.run(self.box, "echo older", tag=tag)
        self.client.run(self.box, "echo newer", tag=tag)
        again = Result(self.client.Processes.Attach(sandbox_id=self.box, tag=tag))
        self.assertEqual((again.out, again.started.tag), (b"newer\n", tag))
        self.refused(Code.NOT_FOUND, self.client.Processes.Attach, sandbox_id=self.box, tag="nosuch")
        self.refused(Code.NOT_FOUND, self.client.Processes.Attach, sandbox_id=self.box, process_id=31337)

    def test_R07_truncation_is_stated(self):
        """R07: nobody follows, far more than is kept: head and tail, and a gap that adds up."""
        started = self.client.run(self.box, "/usr/bin/python3", "-c",
                                  "import os\nfor i in range(2000): os.write(1, b'%08d' % i + b'x' * 5000 + b'\\n')", detach=True)
        where = dict(sandbox_id=self.box, process_id=started.id)
        total = 2000 * 5009
        exit = self.client.Processes.Wait(**where)
        self.assertEqual(exit.output_bytes, total)
        kept = Result(self.client.Processes.Attach(**where))
        self.assertEqual(len(kept.gaps), 1)
        self.assertEqual(len(kept.all) + kept.gaps[0].dropped_bytes, total)
        self.assertEqual(exit.dropped_bytes, kept.gaps[0].dropped_bytes)
        self.assertTrue(kept.all.startswith(b"00000000x"))
        self.assertEqual(kept.all[-5009:-5001], b"00001999")
        head = kept.gaps[0].sequence
        self.assertEqual(sum(len(c.data) for c in kept.chunks if c.sequence < head), head)


class SlowReaders(Case):
    def test_R08_followed_process_waits_for_its_client(self):
        """R08: a client that stops reading stops the process, and the server's memory stays flat."""
        pid = self.instance.paddockd.pid
        slow = self.instance.client(key=self.client.key)
        follow = slow.Processes.Start(sandbox_id=self.box, argv=["head", "-c", "2G", "/dev/zero"], deadline=120)
        id = next(follow).started.process_id
        next(follow)
        time.sleep(2)
        before = host.rss(pid)
        taken = self.client.Processes.List(sandbox_id=self.box, include_ended=True).processes
        produced = next(p.output_bytes for p in taken if p.process_id == id)
        self.assertLess(produced, 1 << 30, "the process did not wait")
        time.sleep(3)
        self.assertLess(host.rss(pid) - before, host.memory(16 << 20))
        follow.cancel()
        slow.close()
        self.assertEqual(self.client.Processes.Wait(sandbox_id=self.box, process_id=id, deadline=60).output_bytes, 2 << 30)
        self.assertLess(host.rss(pid) - before, host.memory(32 << 20))

    def test_fast_reader_gets_everything(self):
        count = 0
        for event in self.client.Processes.Start(sandbox_id=self.box, argv=["head", "-c", "256M", "/dev/zero"]):
            count += len(event.output.data)
            last = event
        self.assertEqual((count, last.exited.output_bytes), (256 << 20, 256 << 20))


class ListAndWait(Case):
    def test_list(self):
        box = self.new_box()
        done = self.client.run(box, "echo", "x", tag="first")
        running = self.client.run(box, "sleep", "300", detach=True, cwd="/tmp", user="root", env={"SECRET": "hidden"})
        listed = self.client.Processes.List(sandbox_id=box).processes
        self.assertEqual([p.process_id for p in listed], [running.id])
        info = listed[0]
        self.assertEqual((list(info.argv), info.cwd, info.user, info.running, info.terminal, info.stdin_open),
                         (["sleep", "300"], "/tmp", "root", True, False, False))
        everything = {p.process_id: p for p in self.client.Processes.List(sandbox_id=box, include_ended=True).processes}
        self.assertEqual(set(everything), {done.id, running.id})
        ended = everything[done.id]
        self.assertEqual((ended.running, ended.exit.exit_code, ended.tag, ended.output_bytes), (False, 0, "first", 2))
        self.assertNotIn("hidden", str(everything))

    def test_last_256_ended_are_kept(self):
        box = self.new_box()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: self.client.run(box, "/bin/true"), range(270)))
        kept = self.client.Processes.List(sandbox_id=box, include_ended=True).processes
        self.assertLessEqual(len(kept), 256)
        self.assertGreaterEqual(len(kept), 250)

    def test_wait(self):
        started = self.client.run(self.box, "sleep 0.4; exit 8", detach=True)
        where = dict(sandbox_id=self.box, process_id=started.id)
        self.refused(Code.DEADLINE_EXCEEDED, self.client.Processes.Wait, deadline=0.1, **where)
        self.assertEqual(self.client.Processes.Wait(**where).exit_code, 8)
        self.assertEqual(self.client.Processes.Wait(**where).exit_code, 8)
        self.refused(Code.NOT_FOUND, self.client.Processes.Wait, sandbox_id=self.box, process_id=77777)

    def test_ids_are_never_used_again(self):
        ids = [self.client.run(self.box, "/bin/true").id for _ in range(5)]
        self.assertEqual(ids, sorted(set(ids)))

    def test_pid_inside(self):
        result = self.client.run(self.box, "/bin/sh", "-c", "echo $$")
        self.assertEqual(int(result.out), result.started.pid)

    def test_pids_limit_is_said(self):
        box = self.new_box(resources=pb.Resources(max_pids=24))
        started = []
        with self.assertRaises(grpc.RpcError) as raised:
            for _ in range(40):
                started.append(self.client.run(box, "sleep", "300", detach=True))
        self.assertEqual(raised.exception.code(), Code.RESOURCE_EXHAUSTED)
        self.assertGreater(len(started), 5)
        self.client.Processes.Signal(sandbox_id=box, process_id=started[0].id, signal=9)
        self.client.Processes.Wait(sandbox_id=box, process_id=started[0].id)
        self.assertEqual(self.client.run(box, "/bin/echo", "room").out, b"room\n")


class Orphans(Case):
    def test_P02_daemon_outlives_its_command_but_not_its_sandbox(self):
        """P02"""
        box = self.client.create().id
        mark = "7171" + str(os.getpid())
        self.client.run(box, f"setsid sh -c 'cd /; exec <&- >&- 2>&-; exec sleep {mark}' & exit 0")
        self.assertEqual(self.client.run(box, f"pgrep -cf 'sleep {mark}' || true").out[:1] != b"0", True)
        self.client.Sandboxes.Kill(sandbox_id=box)
        left = [p for p in glob.glob("/proc/[0-9]*/cmdline") if self.cmdline(p) == b"sleep\0" + mark.encode() + b"\0"]
        self.assertEqual(left, [])

    def cmdline(self, path):
        try:
            with open(path, "rb") as f:
                return f.read()
        except OSError:
            return b""


class Sudo(Case):
    def test_sudo_is_root_inside(self):
        result = self.client.run(self.box, "sudo id -u; echo $?; sudo -n sh -c 'exit 5'; echo $?")
        self.assertEqual(result.out, b"0\n0\n5\n", result.all)

    def test_sudo_passes_stdio(self):
        self.assertEqual(self.client.run(self.box, "echo piped | sudo cat").out, b"piped\n")
        self.assertEqual(self.client.run(self.box, "sudo sh -c 'echo e >&2'").err, b"e\n")

    def test_sudo_gains_nothing_outside(self):
        out = self.client.run(self.box, "sudo grep -E 'NoNewPrivs|Seccomp:' /proc/self/status").out
        self.assertRegex(out, rb"NoNewPrivs:\s+1\nSeccomp:\s+2\n")
