"""process.Process: the SDKs' contract, with a key and with an access token."""
import base64
import time

from api import Case, Code, unique
from paddock import message_class

REQUESTS = {name: message_class("process." + name) for name in ("StartRequest", "StreamInputRequest", "ProcessSelector", "ProcessConfig", "ProcessInput")}


class Process(Case):
    def setUp(self):
        super().setUp()
        self.token = self.client.Sandboxes.GetAccess(sandbox_id=self.box).access_token
        self.bearer = self.instance.client()

    def headers(self, box=None, user=None):
        headers = [("e2b-sandbox-id", box or self.box), ("x-access-token", self.token)]
        return headers + ([("authorization", "Basic " + base64.b64encode(f"{user}:".encode()).decode())] if user else [])

    def start(self, *argv, config=None, headers=None, deadline=30, **fields):
        config = dict(cmd=argv[0], args=argv[1:], **(config or {}))
        return self.bearer.Process.Start(process=config, grpc_metadata=headers or self.headers(), deadline=deadline, **fields)

    def run_all(self, *argv, **options):
        """-> pid, stdout, stderr, end"""
        out, err, pid, end = b"", b"", None, None
        for reply in self.start(*argv, **options):
            kind = reply.event.WhichOneof("event")
            if kind == "start":
                pid = reply.event.start.pid
            elif kind == "data":
                out += reply.event.data.stdout + reply.event.data.pty
                err += reply.event.data.stderr
            elif kind == "end":
                end = reply.event.end
        return pid, out, err, end

    def background(self, *argv, **options):
        stream = self.start(*argv, **options)
        return stream, next(stream).event.start.pid

    def test_run(self):
        pid, out, err, end = self.run_all("/bin/sh", "-c", "echo $$; echo bad >&2; exit 3")
        self.assertEqual((out, err), (b"%d\n" % pid, b"bad\n"))
        self.assertEqual((end.exit_code, end.exited, end.status, end.error), (3, True, "exit status 3", "exit status 3"))
        end = self.run_all("/bin/true")[3]
        self.assertEqual((end.exit_code, end.exited, end.status, end.HasField("error")), (0, True, "exit status 0", False))
        end = self.run_all("/bin/sh", "-c", "kill -9 $$")[3]
        self.assertEqual((end.exit_code, end.exited, end.status), (-1, False, "signal: killed"))

    def test_with_a_key(self):
        headers = [("e2b-sandbox-id", self.box), ("authorization", "Bearer " + self.client.key)]
        self.assertEqual(self.run_all("/bin/echo", "hi", headers=headers)[1], b"hi\n")

    def test_env_cwd_user(self):
        out = self.run_all("/bin/sh", "-c", "echo $A; pwd; id -un", config=dict(envs={"A": "1"}, cwd="/tmp"))[1]
        self.assertEqual(out, b"1\n/tmp\nuser\n")
        self.sh("mkdir -p /home/user/sub")
        for cwd, home in (("sub", b"/home/user/sub\n"), ("~/sub", b"/home/user/sub\n"), ("~", b"/home/user\n"), ("", b"/home/user\n")):
            self.assertEqual(self.run_all("/bin/pwd", config=dict(cwd=cwd))[1].replace(b"/home/user/\n", b"/home/user\n"), home)
        self.assertEqual(self.run_all("/usr/bin/id", "-un", headers=self.headers(user="root"))[1], b"root\n")
        self.refused(Code.INVALID_ARGUMENT, self.start, "/bin/true", headers=self.headers(user="nobody"))
        self.refused(Code.INVALID_ARGUMENT, self.start, "/bin/pwd", config=dict(cwd="/nowhere"))

    def test_large_output(self):
        out = self.run_all("/bin/sh", "-c", "head -c 20000000 /dev/zero")[1]
        self.assertEqual(len(out), 20000000)

    def test_input(self):
        stream, pid = self.background("cat")
        send = lambda **fields: self.bearer.Process.SendInput(process=dict(pid=pid), grpc_metadata=self.headers(), **fields)
        send(input=dict(stdin=b"one"))
        self.assertEqual(next(stream).event.data.stdout, b"one")
        def messages():
            yield REQUESTS["StreamInputRequest"](start=dict(process=dict(pid=pid)))
            yield REQUESTS["StreamInputRequest"](keepalive={})
            for piece in (b"two", b"three"):
                yield REQUESTS["StreamInputRequest"](data=dict(input=dict(stdin=piece)))
        self.bearer.Process.StreamInput(messages(), grpc_metadata=self.headers())
        self.bearer.Process.CloseStdin(process=dict(pid=pid), grpc_metadata=self.headers())
        rest = list(stream)
        self.assertEqual(b"".join(r.event.data.stdout for r in rest), b"twothree")
        self.assertEqual(rest[-1].event.end.status, "exit status 0")
        off, pid = self.background("sleep", "60", stdin=False)
        self.refused(Code.FAILED_PRECONDITION, send, input=dict(stdin=b"x"))
        self.refused(Code.INVALID_ARGUMENT, send)
        self.refused(Code.INVALID_ARGUMENT, self.bearer.Process.StreamInput,
                     iter([REQUESTS["StreamInputRequest"](data=dict(input=dict(stdin=b"x")))]), grpc_metadata=self.headers())
        off.cancel()

    def test_terminal(self):
        stream, pid = self.background("/bin/sh", "-c", "stty size; read x; stty size", pty=dict(size=dict(cols=80, rows=24)))
        self.assertIn(b"24 80", next(stream).event.data.pty)
        self.bearer.Process.Update(process=dict(pid=pid), pty=dict(size=dict(cols=100, rows=30)), grpc_metadata=self.headers())
        self.bearer.Process.SendInput(process=dict(pid=pid), input=dict(pty=b"\n"), grpc_metadata=self.headers())
        self.assertIn(b"30 100", b"".join(r.event.data.pty for r in stream))
        self.refused(Code.INVALID_ARGUMENT, self.bearer.Process.Update, process=dict(pid=pid), grpc_metadata=self.headers())

    def test_list_connect_signal(self):
        tag = unique("tagged")
        stream, pid = self.background("/bin/sh", "-c", "echo early; read x; echo late; sleep 60", tag=tag)
        self.assertEqual(next(stream).event.data.stdout, b"early\n")
        mine = [p for p in self.bearer.Process.List(grpc_metadata=self.headers()).processes if p.tag == tag]
        self.assertEqual([(p.pid, p.config.cmd, list(p.config.args)[:1]) for p in mine], [(pid, "/bin/sh", ["-c"])])
        stream.cancel()
        for selector in (dict(pid=pid), dict(tag=tag)):
            connected = self.bearer.Process.Connect(process=selector, grpc_metadata=self.headers(), deadline=30)
            self.assertEqual(next(connected).event.start.pid, pid)
            if "tag" in selector:
                self.bearer.Process.SendInput(process=selector, input=dict(stdin=b"\n"), grpc_metadata=self.headers())
                self.assertEqual(next(connected).event.data.stdout, b"late\n")  # and nothing of what was before
                self.bearer.Process.SendSignal(process=selector, signal="SIGNAL_SIGKILL", grpc_metadata=self.headers())
                self.assertEqual([r.event.end.status for r in connected if r.event.HasField("end")], ["signal: killed"])
            else:
                connected.cancel()
        for call, fields in ((self.bearer.Process.Connect, {}), (self.bearer.Process.SendSignal, dict(signal="SIGNAL_SIGTERM")),
                             (self.bearer.Process.CloseStdin, {}), (self.bearer.Process.SendInput, dict(input=dict(stdin=b"x")))):
            self.refused(Code.NOT_FOUND, call, process=dict(pid=4000000), grpc_metadata=self.headers(), **fields)
            self.refused(Code.INVALID_ARGUMENT, call, grpc_metadata=self.headers(), **fields)
        self.refused(Code.INVALID_ARGUMENT, self.bearer.Process.SendSignal, process=dict(pid=pid), signal=2, grpc_metadata=self.headers())

    def test_a_client_that_leaves_and_a_deadline(self):
        stream, pid = self.background("sleep", "60")
        stream.cancel()
        self.sh(f"kill -0 {pid}")
        stream, pid = self.background("sleep", "61", deadline=1)
        self.refused(Code.DEADLINE_EXCEEDED, lambda: list(stream))
        for _ in range(50):
            if self.client.run(self.box, "/bin/sh", "-c", f"kill -0 {pid} 2>/dev/null").code:
                break
            time.sleep(0.2)
        else:
            self.fail("the process outlived its deadline")

    def test_refusals(self):
        self.refused(Code.INVALID_ARGUMENT, self.client.Process.List)  # no sandbox named
        self.refused(Code.UNAUTHENTICATED, self.bearer.Process.List, grpc_metadata=[("e2b-sandbox-id", self.box)])
        self.refused(Code.INVALID_ARGUMENT, self.bearer.Process.Start, grpc_metadata=self.headers())
        stranger = self.instance.tenant(unique("stranger"))
        headers = [("e2b-sandbox-id", self.box), ("authorization", "Bearer " + stranger.key)]
        self.refused(Code.NOT_FOUND, stranger.Process.List, grpc_metadata=headers)
        self.refused(Code.NOT_FOUND, self.start, "/bin/true", headers=headers)
        reader = self.instance.with_key(self.tenant, ("read",))
        headers = [("e2b-sandbox-id", self.box), ("authorization", "Bearer " + reader.key)]
        self.assertIsNotNone(reader.Process.List(grpc_metadata=headers))
        self.refused(Code.PERMISSION_DENIED, self.start, "/bin/true", headers=headers)

    def test_ends_with_the_sandbox(self):
        box = self.new_box()
        headers = [("e2b-sandbox-id", box), ("authorization", "Bearer " + self.client.key)]
        stream, _ = self.background("sleep", "60", headers=headers)
        self.client.Sandboxes.Kill(sandbox_id=box)
        self.refused(Code.UNAVAILABLE, lambda: list(stream))
        self.refused(Code.UNAVAILABLE, self.start, "/bin/true", headers=headers)

    def test_audit_has_the_translated_call_once(self):
        box = self.new_box()
        headers = [("e2b-sandbox-id", box), ("authorization", "Bearer " + self.client.key)]
        self.run_all("/bin/true", headers=headers)
        actions = [r.action for r in self.client.Audit.List(sandbox_id=box).records]
        self.assertEqual(actions.count("paddock.v1.Processes/Start"), 1)
        self.assertFalse([a for a in actions if a.startswith("process.Process")])
