"""Builds of templates: what each step does, layers that are taken over, logs, names, memory; refusals, bounds, other tenants;
what a restart says of one that it cut."""
import hashlib
import io
import os
import signal
import tarfile
import threading
import time
import unittest

from api import grpc, pb
from criu import needs_criu
from own import OwnInstance
from paddock import enum, wait_until

WAITING, BUILDING, READY, FAILED = (enum("TEMPLATE_BUILD_STATE_" + n) for n in ("WAITING", "BUILDING", "READY", "FAILED"))
SCOPES = ("read", "sandbox", "template")


def step(kind, *args, **fields):
    return pb.TemplateBuildStep(type=kind, args=args, **fields)


def tar(*entries):
    """name, content or None for a folder, or ("link", target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, content[1]
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


class Base(OwnInstance):
    SETTINGS = {"template": "base", "pool": "20G"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.keys()

    @classmethod
    def keys(cls):
        cls.client = cls.instance.with_key("tenant", SCOPES)
        with_other = getattr(cls, "other", None)
        cls.other = cls.instance.with_key("stranger", SCOPES) if with_other else cls.instance.tenant("stranger", SCOPES)

    def tearDown(self):
        for sandbox in self.client.Sandboxes.List(page_size=1000).sandboxes:
            self.client.Sandboxes.Kill(sandbox_id=sandbox.id)
        for template in self.client.Templates.List().templates:
            if template.tenant:
                self.client.Templates.Remove(template=template.name)

    def upload(self, data, token=None, name=None):
        digest = name or hashlib.sha256(data).hexdigest()
        token = token or self.client.Templates.GetBuildFiles(hash=digest).upload_token

        def messages():
            yield pb.UploadBuildFilesRequest(header=pb.UploadBuildFilesHeader(hash=digest, upload_token=token))
            for at in range(0, len(data), 1 << 20):
                yield pb.UploadBuildFilesRequest(data=data[at:at + (1 << 20)])
        self.client.Templates.UploadBuildFiles(messages())
        return digest

    def start(self, *steps, name="web", tags=(), **fields):
        build = self.client.Templates.CreateBuild(name=name, tags=tags, resources=fields.pop("resources", None))
        self.assertEqual(build.state, WAITING)
        self.client.Templates.StartBuild(build_id=build.id, steps=steps, **fields)
        return build.id

    def finish(self, build):
        wait_until(lambda: self.client.Templates.GetBuild(build_id=build).state in (READY, FAILED), 60)
        return self.client.Templates.GetBuild(build_id=build)

    def build(self, *steps, **fields):
        done = self.finish(self.start(*steps, **fields))
        self.assertEqual((done.state, done.reason), (READY, ""), [e.message for e in done.log])
        return done

    def fails(self, *steps, **fields):
        done = self.finish(self.start(*steps, **fields))
        self.assertEqual(done.state, FAILED)
        wait_until(lambda: not self.client.Sandboxes.List().sandboxes, 10)
        return done

    def sh(self, script, template="web", **fields):
        box = self.client.create(template=template).id
        result = self.client.run(box, "/bin/bash", "-c", script, **fields)
        self.client.Sandboxes.Kill(sandbox_id=box)
        self.assertEqual(result.code, 0, result.all)
        return result.out.decode()


class Steps(Base):
    def test_every_step(self):
        files = self.upload(tar(("src", None), ("src/a.txt", b"A"), ("src/sub", None), ("src/sub/b.txt", b"B"),
                                ("src/link", ("link", "a.txt"))))
        done = self.build(
            step("ENV", "COLOUR", "red", "BOTH", "$COLOUR and $(id -u) `id` \\ \""),
            step("ENV", "PATH", "/opt/bin:$PATH"),
            step("WORKDIR", "/srv/app"),
            step("RUN", "echo \"$COLOUR $PWD $(id -un)\"; echo oops >&2; echo made > made; id -un > who"),
            step("RUN", "id -un > root; mkdir -p /opt/bin; printf '#!/bin/sh\\necho tool\\n' > /opt/bin/tool; "
                 "chmod 755 /opt/bin/tool", "root"),
            step("COPY", "src", "copied/", "", "", files_hash=files),
            step("COPY", "src/a.txt", "one.txt", "root", "600", files_hash=files),
            step("COPY", "src/sub/*", "/home/user/glob", "", "", files_hash=files),
            step("USER", "root"),
            step("WORKDIR", "deeper"))
        self.assertEqual(self.sh("echo \"$COLOUR|$BOTH|$PWD|$(id -un)\"; tool"),
                         "red|red and $(id -u) `id` \\ \"|/srv/app/deeper|root\ntool\n")
        self.assertEqual(self.sh("cd /srv/app; cat made who root copied/link copied/sub/b.txt one.txt /home/user/glob/b.txt; "
                                 "stat -c '%U %a' one.txt copied/sub copied . root; ls -A /var/tmp"),
                         "made\nuser\nroot\nABAB" "root 600\nuser 755\nuser 755\nuser 755\nroot 644\n")
        self.assertEqual(self.sh("id -un; pwd", user="user"), "user\n/srv/app/deeper\n")
        log = [(e.step, e.message) for e in done.log]
        self.assertIn(("4", "red /srv/app user"), log)
        self.assertIn(("4", "oops"), log)
        self.assertEqual(log[-1][0], "finalize")
        self.assertEqual(list(self.client.Sandboxes.List().sandboxes), [])

    def test_a_folder_that_is_there_stays_as_it_is(self):
        files = self.upload(tar(("src", None), ("src/a", b"A")))
        self.build(step("RUN", "mkdir -p /srv/t; chmod 1777 /srv/t", "root"),
                   step("COPY", "src", "/srv/t", "", "", files_hash=files), step("COPY", "src", "/srv/new", "", "700", files_hash=files))
        self.assertEqual(self.sh("stat -c '%U %a' /srv/t /srv/t/a /srv/new /srv /"), "root 1777\nuser 755\nuser 700\nroot 755\nroot 755\n")

    def test_list(self):
        one, two = (self.client.Templates.CreateBuild(name=name, tags=["v1"]).id for name in ("one", "two"))
        self.client.Templates.StopBuild(build_id=one)
        builds = [b for b in self.client.Templates.ListBuilds().builds if b.id in (one, two)]
        self.assertEqual([(b.id, b.name, b.state, list(b.tags), list(b.log)) for b in builds],
                         [(two, "two", WAITING, ["v1"], []), (one, "one", FAILED, ["v1"], [])])
        self.assertEqual([b for b in self.other.Templates.ListBuilds().builds if b.id in (one, two)], [])
        self.client.Templates.StopBuild(build_id=two)

    def test_layers_are_taken_over(self):
        first = [step("RUN", "date +%s%N > /home/user/one"), step("ENV", "A", "1"), step("RUN", "echo $A > /home/user/two")]
        self.build(*first)
        one = self.sh("cat one")
        again = self.build(*first)
        self.assertEqual((again.cached_steps, self.sh("cat one")), (3, one))
        more = self.build(*first[:2], step("RUN", "echo other$A > /home/user/two"))
        self.assertEqual((more.cached_steps, self.sh("cat one two")), (1, one + "other1\n"))
        forced = self.build(first[0], first[1], step("RUN", "echo $A > /home/user/two", force=True))
        self.assertEqual((forced.cached_steps, self.sh("cat one")), (1, one))
        self.assertEqual(self.build(*first, force=True).cached_steps, 0)
        self.assertNotEqual(self.sh("cat one"), one)
        # On a template that was built: its files, environment and directory.
        self.build(step("WORKDIR", "/srv/w"), step("RUN", "echo $A > /tmp/a; cat /home/user/two > /tmp/b; mv /tmp/? ."),
                   name="second", from_template="web")
        self.assertEqual(self.sh("cat a b; pwd; echo $A", template="second"), "1\n1\n/srv/w\n1\n")
        self.client.Templates.Remove(template="web")
        self.assertEqual(self.sh("cat a", template="second"), "1\n")
        # Another tenant has none of these layers.
        build = self.other.Templates.CreateBuild(name="web")
        self.other.Templates.StartBuild(build_id=build.id, steps=first)
        wait_until(lambda: self.other.Templates.GetBuild(build_id=build.id).state == READY, 30)
        self.assertEqual(self.other.Templates.GetBuild(build_id=build.id).cached_steps, 0)
        self.other.Templates.Remove(template="web")

    def test_tags(self):
        one = self.build(step("RUN", "echo 1 > file"), name="web:v1", tags=["latest", "v1"])
        self.assertEqual(sorted(one.tags), ["latest", "v1"])
        self.build(step("RUN", "echo 2 > file"), name="web")
        names = {t.name: t.build_id for t in self.client.Templates.List().templates if t.tenant}
        self.assertEqual(sorted(names), ["web", "web:latest", "web:v1"])
        self.assertEqual(names["web:v1"], one.id)
        self.assertEqual(self.client.Templates.SetTags(target="web:v1", tags=["default"]).build_id, one.id)
        self.assertEqual(self.sh("cat file"), "1\n")

    def test_failures(self):
        done = self.fails(step("RUN", "echo before"), step("RUN", "echo why >&2; exit 7"))
        self.assertEqual((done.reason, done.reason_step), ("failed to run command 'echo why >&2; exit 7': exit status 7", "2"))
        self.assertIn(("error", "2"), [(e.level, e.step) for e in done.log])
        self.refused("NOT_FOUND", lambda: self.client.create(template="web"), "template not found")
        self.assertIn("invalid username: 'root123'", self.fails(step("RUN", "whoami", "root123")).reason)
        self.assertIn("'nobody' is not", self.fails(step("USER", "nobody")).reason)
        missing = "0" * 64
        self.assertIn("upload them again", self.fails(step("COPY", "a", "b", files_hash=missing)).reason)
        files = self.upload(tar(("a", b"A")))
        for source, text in (("../a", "leads out"), ("b", "could not be put in place: exit status 1")):
            self.assertIn(text, self.fails(step("COPY", source, "x", files_hash=files)).reason)
        for field, text in ((("", "8"), "octal"), (("-R", ""), "owner")):
            self.assertIn(text, self.fails(step("COPY", "a", "x", *field, files_hash=files)).reason)
        junk = self.upload(b"no tar at all" * 100)
        self.assertIn("could not be unpacked", self.fails(step("COPY", "a", "x", files_hash=junk)).reason)
        self.assertIn("ENV: ", self.fails(step("ENV", "1A", "x")).reason)
        self.assertIn("cpu_millis", self.fails(resources=pb.Resources(cpu_millis=10 ** 6)).reason)
        # A failed build leaves the name as it was.
        self.build(step("RUN", "echo good > file"))
        self.fails(step("RUN", "false"))
        self.assertEqual(self.sh("cat file"), "good\n")

    def test_a_hostile_tar_stays_in_its_folder(self):
        files = self.upload(tar(("ok", b"fine"), ("out", ("link", "/etc")), ("out/evil", b"x"), ("/abs", b"x")))
        self.fails(step("COPY", "ok", "/home/user/ok", files_hash=files))
        good = self.upload(tar(("ok", b"fine"), ("out", ("link", "/etc"))))
        self.build(step("COPY", "ok", "/home/user/ok", files_hash=good))
        self.assertEqual(self.sh("cat ok; ls /etc/evil /abs 2>/dev/null || true"), "fine")

    def test_stop(self):
        build = self.start(step("RUN", "echo here; sleep 1000"))
        wait_until(lambda: any(e.message == "here" for e in self.client.Templates.GetBuild(build_id=build).log), 20)
        self.client.Templates.StopBuild(build_id=build)
        done = self.finish(build)
        self.assertEqual((done.state, done.reason, done.reason_step), (FAILED, "the build was stopped", "1"))
        wait_until(lambda: not self.client.Sandboxes.List().sandboxes, 10)
        # Killing its sandbox fails it, too.
        build = self.start(step("RUN", "echo here; sleep 1000"))
        wait_until(lambda: any(e.message == "here" for e in self.client.Templates.GetBuild(build_id=build).log), 20)
        box, = self.client.Sandboxes.List().sandboxes
        self.assertEqual(dict(box.metadata), {"paddock.build": build})
        self.client.Sandboxes.Kill(sandbox_id=box.id)
        self.assertEqual(self.finish(build).state, FAILED)

    def whole_log(self, build):
        log = []
        while True:
            page = self.client.Templates.GetBuild(build_id=build, log_offset=len(log))
            log += [(e.level, e.step, e.message, e.unix_ms) for e in page.log]
            if len(log) == page.log_entries:
                return log

    def test_a_restart_cuts_it(self):
        whole = self.build(step("RUN", "echo 1 > file"), step("RUN", "seq 1 150"))
        before = self.whole_log(whole.id)
        build = self.start(step("RUN", "echo 1 > file"), step("RUN", "echo here; sleep 1000"))
        wait_until(lambda: any(e.message == "here" for e in self.client.Templates.GetBuild(build_id=build).log), 20)
        self.instance.stop_paddockd(signal.SIGKILL)
        self.instance.start_paddockd()
        self.keys_again()
        done = self.client.Templates.GetBuild(build_id=build)
        why = "the server was restarted while it ran"
        self.assertEqual((done.state, done.reason, done.reason_step), (FAILED, why, "2"))
        self.assertEqual([entry[:3] for entry in self.whole_log(build)][-2:], [("info", "2", "here"), ("error", "2", why)])
        self.assertEqual(self.whole_log(whole.id), before)
        self.assertGreater(len(before), 150)
        wait_until(lambda: not self.client.Sandboxes.List().sandboxes, 10)
        self.assertEqual(self.sh("cat file"), "1\n")
        self.assertEqual(self.build(step("RUN", "echo 1 > file")).cached_steps, 1)

    def test_logs_go_with_their_builds(self):
        """Of those that have ended, a tenant's oldest make room for new ones; and with a tenant all of its own go."""
        client = self.instance.tenant("logs", SCOPES)
        folder = self.instance.data + "/build-logs"
        before = set(os.listdir(folder))
        builds = []
        for _ in range(66):
            builds.append(client.Templates.CreateBuild(name="web").id)
            client.Templates.StopBuild(build_id=builds[-1])
        wait_until(lambda: set(os.listdir(folder)) - before == set(builds[2:]), 10)
        self.refused("NOT_FOUND", lambda: client.Templates.GetBuild(build_id=builds[1]), "build not found")
        self.assertEqual(client.Templates.GetBuild(build_id=builds[2]).log[0].message, "the build was stopped")
        self.instance.admin.Admin.RemoveTenant(tenant="logs", force=True)
        wait_until(lambda: set(os.listdir(folder)) == before, 10)

    @classmethod
    def keys_again(cls):
        cls.client = cls.instance.with_key("tenant", SCOPES)
        cls.other = cls.instance.with_key("stranger", SCOPES)

    def test_log_is_paged_and_bounded(self):
        done = self.build(step("RUN", "seq 1 300; head -c 20000 /dev/zero | tr '\\0' x; echo; printf 'a\\033[1mb\\n'"))
        seen = []
        while True:
            page = self.client.Templates.GetBuild(build_id=done.id, log_offset=len(seen)).log
            self.assertLessEqual(len(page), 100)
            if not page:
                break
            seen += [e.message for e in page]
        self.assertEqual(len(seen), done.log_entries)
        self.assertEqual([m for m in seen if m.isdigit()], [str(n) for n in range(1, 301)])
        self.assertEqual([len(m) for m in seen if m.startswith("xxxx")], [4096] * 4 + [20000 - 4 * 4096])
        self.assertIn("a?[1mb", seen)
        full = self.build(step("RUN", "seq 1 20000"))
        self.assertEqual(full.log_entries, 10000)
        self.assertIn("the log is full", self.client.Templates.GetBuild(build_id=full.id, log_offset=9999).log[0].message)

    def test_refusals(self):
        t, o = self.client.Templates, self.other.Templates
        for name in ("", "A", "a:B", "a:"):
            self.refused("INVALID_ARGUMENT", lambda n=name: t.CreateBuild(name=n), "name: ")
        self.refused("INVALID_ARGUMENT", lambda: t.CreateBuild(name="a", tags=["t"] * 17), "tags: ")
        self.refused("INVALID_ARGUMENT", lambda: t.CreateBuild(name="a", tags=["T"]), "tags: ")
        build = t.CreateBuild(name="web").id
        for call in (lambda: o.GetBuild(build_id=build), lambda: o.StartBuild(build_id=build),
                     lambda: o.StopBuild(build_id=build), lambda: t.GetBuild(build_id="none")):
            self.refused("NOT_FOUND", call, "build not found")
        for bad, text in ((step("FROM", "x"), "steps[0].type"), (step("RUN"), "steps[0].args"), (step("ENV", "a"), "steps[0].args"),
                          (step("COPY", "a", "b", files_hash="x"), "steps[0].files_hash"),
                          (step("RUN", "x" * (129 << 10)), "steps[0].args")):
            self.refused("INVALID_ARGUMENT", lambda b=bad: t.StartBuild(build_id=build, steps=[b]), text)
        self.refused("INVALID_ARGUMENT", lambda: t.StartBuild(build_id=build, steps=[step("USER", "root")] * 129), "steps")
        self.refused("NOT_FOUND", lambda: t.StartBuild(build_id=build, from_template="none"), "from_template")
        t.StartBuild(build_id=build)
        self.refused("FAILED_PRECONDITION", lambda: t.StartBuild(build_id=build), "started before")
        self.assertEqual(self.finish(build).state, READY)
        # Uploads: the token is for these files of this tenant.
        self.refused("INVALID_ARGUMENT", lambda: t.GetBuildFiles(hash="x"), "hash: ")
        data = tar(("a", b"A"))
        digest = hashlib.sha256(data + b"1").hexdigest()
        token = t.GetBuildFiles(hash=digest).upload_token
        self.assertFalse(t.GetBuildFiles(hash=digest).present)
        for wrong in (token[:-1], "f" + token[1:], token.replace(".tenant", ".stranger"), "x"):
            self.refused("UNAUTHENTICATED", lambda w=wrong: self.upload(data, w, digest), "upload_token")
        self.refused("UNAUTHENTICATED", lambda: self.upload(data, token, "1" * 64), "upload_token")
        self.upload(data, token, digest)
        self.assertTrue(t.GetBuildFiles(hash=digest).present)
        self.assertFalse(o.GetBuildFiles(hash=digest).present)

    def test_variables(self):
        """So many that a call for each would be too deep, a copy for each too long, or all of them too large for a record."""
        few = [step("ENV", *["A", "b"] * 256) for _ in range(3)]
        build = self.client.Templates.CreateBuild(name="web").id
        self.refused("INVALID_ARGUMENT", lambda: self.client.Templates.StartBuild(build_id=build, steps=[step("ENV", *["A", ""] * 256)] * 128),
                     "at most 1024 variables")
        self.build(*few, step("ENV", "B", "$A$A"))
        self.assertEqual(self.sh("echo $A$B"), "bbb\n")
        names = [[chr(c) for c in range(ord(first), ord(first) + 3)] for first in "ADG"]
        large = [step("ENV", *sum(([name, "x" * 32000] for name in three), [])) for three in names]
        self.assertIn("256 KiB", self.fails(*large, step("WORKDIR", "/srv/w")).reason)
        self.build(*large[:2], step("WORKDIR", "/srv/w"))

    def test_a_revoked_key(self):
        """What it started ends with it: at once where something runs for it, before the next thing otherwise."""
        own = self.instance.with_key("tenant", SCOPES)
        build = own.Templates.CreateBuild(name="web").id
        own.Templates.StartBuild(build_id=build, steps=[step("RUN", "echo here; sleep 1000")])
        wait_until(lambda: any(e.message == "here" for e in self.client.Templates.GetBuild(build_id=build).log), 20)
        self.instance.admin.Admin.RevokeKey(key_id=own.key_id)
        self.assertEqual((self.finish(build).state, self.finish(build).reason), (FAILED, "a valid API key is needed"))
        wait_until(lambda: not self.client.Sandboxes.List().sandboxes, 10)

    def test_stop_at_any_moment(self):
        """Also while its sandbox is made, which must not stay behind: the moments are spread over the time that this takes."""
        for n in range(16):
            build = self.start(step("RUN", "sleep 1000"))
            time.sleep(n * 0.002)
            self.client.Templates.StopBuild(build_id=build)
            self.assertEqual(self.finish(build).state, FAILED)
        wait_until(lambda: not self.client.Sandboxes.List().sandboxes, 10)

    def test_a_tenant_that_is_removed(self):
        """A build and an upload end with it, and a token is nothing to the next tenant of its name."""
        def tenant():
            return self.instance.tenant("passing", SCOPES)
        client = tenant()
        build = client.Templates.CreateBuild(name="web").id
        client.Templates.StartBuild(build_id=build, steps=[step("RUN", "echo here; sleep 1000")])
        wait_until(lambda: any(e.message == "here" for e in client.Templates.GetBuild(build_id=build).log), 20)
        data = tar(("a", b"A"))
        digest = hashlib.sha256(data).hexdigest()
        token = client.Templates.GetBuildFiles(hash=digest).upload_token
        self.upload(data, token, digest)
        begun, go_on, ends = threading.Event(), threading.Event(), []

        def messages():
            yield pb.UploadBuildFilesRequest(header=pb.UploadBuildFilesHeader(hash=digest, upload_token=token))
            yield pb.UploadBuildFilesRequest(data=data)
            begun.set()
            go_on.wait(30)

        def upload():
            try:
                ends.append(self.client.Templates.UploadBuildFiles(messages()))
            except grpc.RpcError as e:
                ends.append(e.code().name)
        thread = threading.Thread(target=upload)
        thread.start()
        self.assertTrue(begun.wait(10))
        self.instance.admin.Admin.RemoveTenant(tenant="passing", force=True)
        client = tenant()
        wait_until(lambda: ends, 10)
        go_on.set()
        thread.join()
        self.assertEqual(ends, ["ABORTED"])
        self.refused("NOT_FOUND", lambda: client.Templates.GetBuild(build_id=build), "build not found")
        self.assertFalse(client.Templates.GetBuildFiles(hash=digest).present)
        self.refused("UNAUTHENTICATED", lambda: self.upload(data, token, digest), "upload_token")
        self.upload(data, client.Templates.GetBuildFiles(hash=digest).upload_token, digest)
        self.assertTrue(client.Templates.GetBuildFiles(hash=digest).present)
        self.instance.admin.Admin.RemoveTenant(tenant="passing", force=True)

    def test_an_upload_ends_with_its_key(self):
        """The token is worth as much as the key that asked for it: at its begin, in its middle, and at its end."""
        data = tar(("a", b"A"))

        def upload_with(key, digest, revoke_before):
            token = key.Templates.GetBuildFiles(hash=digest).upload_token

            def messages():
                for number, message in enumerate((
                        pb.UploadBuildFilesRequest(header=pb.UploadBuildFilesHeader(hash=digest, upload_token=token)),
                        pb.UploadBuildFilesRequest(data=data), None)):
                    if number == revoke_before:
                        time.sleep(0.2)  # what was sent is there
                        self.instance.admin.Admin.RevokeKey(key_id=key.key_id)
                    if message:
                        yield message
            self.client.Templates.UploadBuildFiles(messages())
        for number, text in enumerate(("upload_token: is not valid", "not valid any more", "not valid any more")):
            digest = hashlib.sha256(data + bytes([number])).hexdigest()
            key = self.instance.with_key("tenant", SCOPES)
            self.refused("UNAUTHENTICATED", lambda k=key, d=digest, n=number: upload_with(k, d, n), text)
            self.assertFalse(self.client.Templates.GetBuildFiles(hash=digest).present)
            upload_with(self.client, digest, None)
            self.assertTrue(self.client.Templates.GetBuildFiles(hash=digest).present)

    def test_uploads_of_one_tenant_leave_others_theirs(self):
        data = tar(("a", b"A"))
        kept = self.upload(data, self.other.Templates.GetBuildFiles(hash="e" * 64).upload_token, "e" * 64)
        for n in range(514):
            self.upload(b"x", name=f"{n:064x}")
        self.assertTrue(self.other.Templates.GetBuildFiles(hash=kept).present)
        self.assertFalse(self.client.Templates.GetBuildFiles(hash=f"{0:064x}").present)
        self.assertTrue(self.client.Templates.GetBuildFiles(hash=f"{513:064x}").present)

    def test_upload_that_says_nothing(self):
        """Anybody may begin one, so it may not stay."""
        def nothing():
            threading.Event().wait(30)
            yield
        began = time.monotonic()
        self.refused("DEADLINE_EXCEEDED", lambda: self.client.Templates.UploadBuildFiles(nothing()), "stands still")
        self.assertGreater(time.monotonic() - began, 9)

    def test_layers_make_room(self):
        """They count in the quota, and nobody can remove them."""
        admin = self.instance.admin.Admin
        self.addCleanup(lambda: admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=100, max_templates=64, total_disk_bytes=1 << 40)))
        admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=100, max_templates=64, total_disk_bytes=300 << 20))

        def build(name):
            fill = [step("RUN", f"head -c 30M /dev/urandom > /home/user/{n}") for n in range(3)]
            return self.finish(self.start(*fill, name=name, force=True, resources=pb.Resources(disk_bytes=200 << 20)))
        for name in ("one", "two"):
            self.assertEqual(build(name).reason, "")
        admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=100, max_templates=64, total_disk_bytes=210 << 20))
        self.assertIn("total_disk_bytes", build("three").reason)

    def test_quotas(self):
        admin = self.instance.admin.Admin
        self.addCleanup(lambda: admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=100, max_templates=64)))
        builds = [self.start(step("RUN", "echo here; sleep 1000"), name=f"n{i}") for i in range(4)]
        for build in builds:  # a sandbox that is given up while it is made is in no list, and counts until it is gone
            wait_until(lambda b=build: any(e.message == "here" for e in self.client.Templates.GetBuild(build_id=b).log), 20)
        fifth = self.client.Templates.CreateBuild(name="n5").id
        self.refused("RESOURCE_EXHAUSTED", lambda: self.client.Templates.StartBuild(build_id=fifth), "4 of 4 running")
        for build in builds:
            self.client.Templates.StopBuild(build_id=build)
        wait_until(lambda: not self.client.Sandboxes.List().sandboxes, 10)
        admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=1, max_templates=1))
        box = self.client.create().id
        self.client.Templates.StartBuild(build_id=fifth)
        self.assertIn("max_sandboxes", self.finish(fifth).reason)
        self.client.Sandboxes.Kill(sandbox_id=box)
        self.assertIn("max_templates", self.fails(tags=["a", "b"]).reason)
        self.build(step("RUN", "true"))


@needs_criu
class Memory(Base):
    def test_start_and_ready(self):
        serve = "cd /srv && exec python3 -m http.server 8000 --bind 127.0.0.1"
        done = self.build(step("RUN", "mkdir -p /srv && echo page > /srv/p", "root"),
                          start_command=serve, ready_command="curl -fs localhost:8000/p || "
                          "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8000/p\")'")
        template = self.client.Templates.Get(template="web")
        self.assertEqual((template.has_memory, template.build_id), (True, done.id))
        ask = "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8000/p\").read())'"
        self.assertIn("page", self.sh(ask))
        self.assertEqual(list(self.client.Snapshots.List().snapshots), [])
        # Another build begins on its files alone.
        self.build(step("RUN", "! pgrep -f http.server; cat /srv/p > /home/user/p"), name="second", from_template="web")
        self.assertEqual(self.sh("cat p", template="second"), "page\n")

    def test_ready_fails_with_its_sandbox(self):
        build = self.start(start_command="sleep 1000", ready_command="echo trying; false")
        wait_until(lambda: sum(e.message == "trying" for e in self.client.Templates.GetBuild(build_id=build).log) > 1, 20)
        self.client.Templates.StopBuild(build_id=build)
        self.assertEqual(self.finish(build).reason_step, "finalize")


if __name__ == "__main__":
    unittest.main()
