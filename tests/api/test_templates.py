"""Templates: build from tar streams, hostile images (F03), names, visibility, removal."""
import gzip
import io
import lzma
import os
import tarfile

from api import Case, Code, grpc, pb, unique
from paddock import mini_template, wait_until


def with_entries(*entries, without=()):
    """The mini template with entries replaced or added: (name, type, content or link target)."""
    names = {e[0] for e in entries} | set(without)
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(mini_template())) as base, tarfile.open(fileobj=out, mode="w") as tar:
        for info in base:
            if not any(info.name == n or info.name.startswith(n + "/") for n in names):
                tar.addfile(info, base.extractfile(info) if info.isreg() else None)
        for name, kind, payload in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                info.size = len(payload)
                tar.addfile(info, io.BytesIO(payload))
            else:
                if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                    info.devmajor, info.devminor = payload
                else:
                    info.linkname = payload or ""
                tar.addfile(info)
    return out.getvalue()


class Build(Case):
    SANDBOX = False
    SCOPES = ("read", "sandbox", "template")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.mini = mini_template()

    def build(self, name=None, data=None, **header):
        return self.client.build_template(name or unique("tpl"), self.mini if data is None else data, **header)

    def test_build_and_use(self):
        name = unique("tpl")
        made = self.build(name, labels={"purpose": "test"})
        self.assertRegex(made.id, r"\At[0-9a-f]{40}\Z")
        self.assertRegex(made.digest, r"\Asha256:[0-9a-f]{64}\Z")
        self.assertEqual(made.digest[7:47], made.id[1:])
        self.assertEqual((made.name, made.tenant, dict(made.labels), made.sandboxes), (name, self.tenant, {"purpose": "test"}, 0))
        self.assertGreater(made.files, 0)
        box = self.new_box(template=name)
        self.assertEqual(self.client.run(box, "echo $((6*7)); id -un").out, b"42\nuser\n")
        self.assertEqual(self.client.Templates.Get(template=name).sandboxes, 1)
        self.assertIn(name, [t.name for t in self.client.Templates.List().templates if t.id == made.id])

    def test_same_content_same_id(self):
        first, second = self.build(), self.build(data=gzip.compress(self.mini))
        self.assertEqual((first.id, first.digest), (second.id, second.digest))
        self.assertEqual(self.build(data=lzma.compress(self.mini, preset=1)).id, first.id)
        self.assertNotEqual(self.build(data=with_entries(("etc/motd", tarfile.REGTYPE, b"x"))).id, first.id)

    def test_progress(self):
        def messages():
            yield pb.BuildTemplateRequest(header=pb.BuildTemplateHeader(name=unique("tpl")))
            for at in range(0, len(self.mini), 100000):
                yield pb.BuildTemplateRequest(data=self.mini[at:at + 100000])
        seen = list(self.client.Templates.Build(messages()))
        self.assertEqual(seen[-1].phase, "done")
        self.assertTrue(seen[-1].HasField("template"))
        self.assertLessEqual({p.phase for p in seen}, {"receiving", "unpacking", "verifying", "done"})

    def test_name_taken_and_replaced(self):
        name = unique("tpl")
        old = self.build(name)
        self.refused(Code.ALREADY_EXISTS, self.build, name, data=with_entries(("etc/a", tarfile.REGTYPE, b"1")))
        new = self.build(name, data=with_entries(("etc/a", tarfile.REGTYPE, b"1")), replace=True)
        self.assertNotEqual(old.id, new.id)
        self.assertEqual(self.client.Templates.Get(template=name).id, new.id)

    def test_running_sandbox_keeps_its_template(self):
        name = unique("tpl")
        self.build(name, data=with_entries(("etc/which", tarfile.REGTYPE, b"old")))
        box = self.new_box(template=name)
        self.build(name, data=with_entries(("etc/which", tarfile.REGTYPE, b"new")), replace=True)
        self.assertEqual(self.client.run(box, "cat", "/etc/which").out, b"old")
        self.assertEqual(self.client.run(self.new_box(template=name), "cat", "/etc/which").out, b"new")

    def test_limits(self):
        for name in ("", "A", "-a", "a" * 64, "a/b", "..", "a b", "a\n"):
            with self.subTest(name=name):
                self.invalid("name", self.client.build_template, name, self.mini)
        self.invalid("labels", self.build, labels={str(i): "" for i in range(17)})
        self.invalid("labels", self.build, labels={"k" * 65: ""})
        self.invalid("labels", self.build, labels={"k": "v" * 257})
        self.refused(Code.PERMISSION_DENIED, self.build, public=True)
        for messages in ([], [pb.BuildTemplateRequest()], [pb.BuildTemplateRequest(data=b"x")]):
            self.refused(Code.INVALID_ARGUMENT, self.client.Templates.Build, iter(messages))

    def test_not_an_image(self):
        for what, data in {"empty": b"", "text": b"hello" * 1000, "truncated": self.mini[:100000], "bad gzip": gzip.compress(self.mini)[:5000],
                           "no shell": with_entries(without=["bin"])}.items():
            with self.subTest(what):
                self.refused(Code.INVALID_ARGUMENT, self.build, data=data)
        for what, entry in {"dotdot": ("../escape", tarfile.REGTYPE, b"x"), "absolute dotdot": ("/../../escape", tarfile.REGTYPE, b"x"),
                            "hard link out": ("etc/shadow", tarfile.LNKTYPE, "../../../../etc/shadow")}.items():
            with self.subTest(what):
                self.refused(Code.INVALID_ARGUMENT, self.build, data=with_entries(entry))
        self.build()

    def test_too_large(self):
        big = with_entries(("big", tarfile.REGTYPE, b"\0" * (40 << 20)))
        self.refused(Code.RESOURCE_EXHAUSTED, self.build, data=gzip.compress(big), max_bytes=20 << 20)
        self.build(data=gzip.compress(big), max_bytes=60 << 20)

    def test_quota(self):
        client = self.instance.tenant(unique("tplquota"), ("template",), max_templates=1)
        client.build_template("one", self.mini)
        self.refused(Code.RESOURCE_EXHAUSTED, client.build_template, "two", self.mini)

    def test_upload_that_breaks_leaves_nothing(self):
        name = unique("tpl")

        def messages():
            yield pb.BuildTemplateRequest(header=pb.BuildTemplateHeader(name=name))
            yield pb.BuildTemplateRequest(data=self.mini[:300000])
            raise RuntimeError("the client dies")
        with self.assertRaises(grpc.RpcError):
            list(self.client.Templates.Build(messages(), deadline=20))
        self.refused(Code.NOT_FOUND, self.client.Templates.Get, template=name)
        self.build(name)

    def test_F03_hostile_images(self):
        """F03: /dev, /proc and others as links to places of the host: ours replace them, nothing of the host is touched."""
        canary = self.instance.dir + "/template-canary"
        with open(canary, "w") as f:
            f.write("HOST")
        up = "../" * 12 + canary.lstrip("/")
        link, char = tarfile.SYMTYPE, tarfile.CHRTYPE
        images = {
            "dev to root": [("dev", link, "/")], "dev to host": [("dev", link, self.instance.dir)],
            "dev up": [("dev", link, "../" * 12 + self.instance.dir.lstrip("/"))],
            "null to host": [("dev/null", link, up)], "pts to host": [("dev/pts", link, self.instance.dir)],
            "console to host": [("dev/console", link, canary)],
            "proc to root": [("proc", link, "/")], "sys to host": [("sys", link, self.instance.dir)],
            "tmp to host": [("tmp", link, self.instance.dir)], "run to host": [("run", link, self.instance.dir)],
            "etc to host": [("etc", link, self.instance.dir)], "home to host": [("home", link, self.instance.dir)],
            "passwd to host": [("etc/passwd", link, canary)],
            "null is zero": [("dev/null", char, (1, 5))],
        }
        for what, entries in images.items():
            with self.subTest(what):
                try:
                    made = self.build(data=with_entries(*entries))
                    box = self.client.create(template=made.id).id
                except grpc.RpcError as error:
                    self.assertIn(error.code(), (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.INTERNAL), error.details())
                    self.assertNotEqual(error.code(), Code.INTERNAL, error.details())
                else:
                    out = self.client.run(box, "echo x > /dev/null; echo y > /tmp/probe; stat -c '%t:%T' /dev/null; ls /proc/self/status; "
                                          f"cat {canary} 2>/dev/null; cat /template-canary /dev/template-canary /tmp/template-canary 2>/dev/null", cwd="/").out
                    self.assertIn(b"1:3\n/proc/self/status\n", out)
                    self.assertNotIn(b"HOST", out)
                    self.client.Sandboxes.Kill(sandbox_id=box)
                with open(canary) as f:
                    self.assertEqual(f.read(), "HOST")
                self.assertFalse(os.path.exists(self.instance.dir + "/probe"))


class ListGetRemove(Case):
    SANDBOX = False
    SCOPES = ("read", "sandbox", "template")

    def test_visibility(self):
        name = unique("tpl")
        made = self.client.build_template(name, mini_template())
        other = self.instance.tenant(unique("viewer"), ("read", "sandbox", "template"))
        mine = [t.name for t in self.client.Templates.List().templates]
        self.assertEqual(mine, sorted(mine))
        self.assertLessEqual({"base", name}, set(mine))
        self.assertNotIn(name, [t.name for t in other.Templates.List().templates])
        texts = {self.refused(Code.NOT_FOUND, other.Templates.Get, template=name),
                 self.refused(Code.NOT_FOUND, other.Templates.Remove, template=name),
                 self.refused(Code.NOT_FOUND, other.Templates.Get, template="nosuch"),
                 self.refused(Code.NOT_FOUND, other.Templates.Get, template=""),
                 self.refused(Code.NOT_FOUND, other.Templates.Get, template=made.id),
                 self.refused(Code.NOT_FOUND, other.Templates.Get, template="../base")}
        self.assertEqual(len(texts), 1, texts)
        self.refused(Code.NOT_FOUND, other.create, template=name)
        self.refused(Code.NOT_FOUND, other.create, template=made.id)
        other.build_template(name, mini_template())
        self.assertEqual(other.Templates.Get(template=name).tenant, other.Admin.WhoAmI().tenant)

    def test_remove(self):
        name = unique("tpl")
        self.client.build_template(name, with_entries(("etc/only", tarfile.REGTYPE, name.encode())))
        box = self.client.create(template=name).id
        self.refused(Code.FAILED_PRECONDITION, self.client.Templates.Remove, template=name)
        self.client.Templates.Remove(template=name, force=True)
        self.refused(Code.NOT_FOUND, self.client.Templates.Get, template=name)
        self.refused(Code.NOT_FOUND, self.client.create, template=name)
        self.assertEqual(self.client.run(box, "cat", "/etc/only").out, name.encode())
        self.client.Sandboxes.Kill(sandbox_id=box)

    def test_public_one_is_the_operators(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.client.Templates.Remove(template="base")
        self.assertIn(raised.exception.code(), (Code.PERMISSION_DENIED, Code.NOT_FOUND))
        self.assertEqual(self.client.Templates.Get(template="base").tenant, "")

    def test_scope(self):
        client = self.instance.with_key(self.tenant)
        self.refused(Code.PERMISSION_DENIED, client.build_template, unique("tpl"), mini_template())
        self.refused(Code.PERMISSION_DENIED, client.Templates.Remove, template="base")
        self.assertTrue(client.Templates.List().templates)


class Start(Case):
    """What an image starts in each sandbox that is made from it."""
    SANDBOX = False
    SCOPES = ("read", "sandbox", "template")

    def image(self, start=None, ready=None):
        files = [("etc/paddock", tarfile.DIRTYPE, None)]
        for name, script in (("start", start), ("ready", ready)):
            if script is not None:
                files.append((f"etc/paddock/{name}", tarfile.REGTYPE, b"#!/bin/sh\n" + script))
        return self.client.build_template(unique("start"), with_entries(*files)).name

    def processes(self, box):
        return {p.tag: p for p in self.client.Processes.List(sandbox_id=box, include_ended=True).processes}

    def test_is_there_when_the_create_is_answered(self):
        name = self.image(b'echo "started by $(id -un) with $GREETING"; sleep 0.3; echo up > /tmp/up; exec sleep 1000\n',
                          b"until [ -e /tmp/up ]; do sleep 0.05; done; echo waited\n")
        box = self.new_box(template=name, env={"GREETING": "hello"})
        self.assertEqual(self.client.run(box, "cat /tmp/up").out, b"up\n")
        started = self.processes(box)
        self.assertTrue(started["start"].running)
        self.assertFalse(started["ready"].running)
        events = self.client.Processes.Attach(sandbox_id=box, process_id=started["start"].process_id)
        output = next(e.output.data for e in events if e.WhichOneof("event") == "output")
        events.cancel()
        self.assertEqual(output, b"started by user with hello\n")
        # A reset starts it again, and waits for it.
        self.client.run(box, "rm /tmp/up; pkill sleep; true")
        self.client.Sandboxes.Reset(sandbox_id=box)
        self.assertEqual(self.client.run(box, "cat /tmp/up").out, b"up\n")
        self.assertTrue(self.processes(box)["start"].running)
        # The same image without it starts nothing, and a file that cannot be executed is no command.
        self.assertEqual(self.processes(self.new_box(template=self.image())), {})
        # A copy has it already.
        copy = self.client.Snapshots.Fork(sandbox_id=box, count=1).results[0].sandbox.id
        self.addCleanup(self.client.Sandboxes.Kill, sandbox_id=copy)
        self.assertEqual(self.client.run(copy, "ps | grep -c '[s]leep 1000'").out, b"1\n")
        # One that has only the files has not.
        shot = self.client.Snapshots.Create(sandbox_id=box).id
        self.addCleanup(self.client.Snapshots.Remove, snapshot=shot)
        self.assertTrue(self.processes(self.new_box(snapshot=shot, files_only=True))["start"].running)

    def test_a_create_that_is_never_ready_fails(self):
        name = self.image(b"exec sleep 1000\n", b"exit 3\n")
        with self.assertRaises(grpc.RpcError) as refused:
            self.client.create(template=name)
        self.assertEqual(refused.exception.code(), Code.UNAVAILABLE)
        self.assertIn("/etc/paddock/ready ended with status 3", refused.exception.details())
        wait_until(lambda: self.client.Templates.Get(template=name).sandboxes == 0, what="the sandbox is gone")

    def test_a_client_that_goes_away_leaves_nothing(self):
        name = self.image(b"exec sleep 1000\n", b"exec sleep 1000\n")
        with self.assertRaises(grpc.RpcError) as late:
            self.client.Sandboxes.Create(template=name, deadline=1)
        self.assertEqual(late.exception.code(), Code.DEADLINE_EXCEEDED)
        wait_until(lambda: self.client.Templates.Get(template=name).sandboxes == 0, what="the sandbox is gone")

    def test_who_has_longer_waits_on(self):
        """Two creates are one, by their key; the first one's deadline is not the other's."""
        name = self.image(b"exec sleep 1000\n", b"sleep 2.5\n")

        def create(seconds):
            return self.client.Sandboxes.Create(template=name, timeout_ms=600000, idempotency_key="both", deadline=seconds, later=True)
        first = create(1)
        wait_until(lambda: self.client.Templates.Get(template=name).sandboxes, what="the sandbox is made")
        second = create(30)
        with self.assertRaises(grpc.RpcError) as late:
            first.result()
        self.assertEqual(late.exception.code(), Code.DEADLINE_EXCEEDED)
        box = second.result().id
        self.addCleanup(self.client.Sandboxes.Kill, sandbox_id=box)
        self.assertEqual({tag: p.running for tag, p in self.processes(box).items()}, {"start": True, "ready": False})
