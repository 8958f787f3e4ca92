"""Authorization. Every RPC of the contract is classified here; one that is added later fails until it is.
A foreign, random, malformed and deleted id get the same answer in every call that takes one."""
import hashlib
import os
import stat

from api import Case, Code, grpc, pb, unique
from paddock import POOL, all_methods

OPEN = "open"          # anybody
ANY = "any key"
READ = "read"          # read, sandbox, admin
USE = "sandbox"        # sandbox, admin
TEMPLATE = "template"  # template, admin
LIST = "read or template"
OPERATOR = "admin"

METHODS = {
    "Sandboxes": {"Create": USE, "Get": READ, "List": READ, "SetTimeout": USE, "SetIdleTimeout": USE, "Kill": USE, "Pause": USE, "Resume": USE, "WatchEvents": READ,
                  "GetUsage": READ, "GetAccess": USE, "Reset": USE, "GetQuota": READ, "GetMetrics": READ, "ListMetrics": READ},
    "Processes": {"Start": USE, "Attach": READ, "Interact": USE, "List": READ, "SendInput": USE, "CloseStdin": USE, "Resize": USE,
                  "Signal": USE, "Wait": READ},
    "Files": {"Stat": READ, "List": READ, "Read": READ, "Write": USE, "MakeDir": USE, "Move": USE, "Remove": USE, "Watch": READ,
              "UnpackArchive": USE, "PackArchive": READ},
    "Previews": {"Grant": USE, "List": READ, "Revoke": USE, "Extend": USE, "ListPorts": READ},
    "Snapshots": {"Create": USE, "Get": READ, "List": READ, "Remove": USE, "Fork": USE},
    "Templates": {"List": LIST, "Get": LIST, "Build": TEMPLATE, "Remove": TEMPLATE, "CreateFromSnapshot": TEMPLATE,
                  "SetTags": TEMPLATE, "RemoveTags": TEMPLATE, "CreateBuild": TEMPLATE, "GetBuildFiles": TEMPLATE,
                  "UploadBuildFiles": OPEN, "StartBuild": TEMPLATE, "GetBuild": LIST, "ListBuilds": LIST, "StopBuild": TEMPLATE},
    "Admin": {"CreateTenant": OPERATOR, "ListTenants": OPERATOR, "SetQuota": OPERATOR, "RemoveTenant": OPERATOR, "CreateKey": OPERATOR,
              "ListKeys": OPERATOR, "RevokeKey": OPERATOR, "WhoAmI": ANY, "GetStatus": OPERATOR},
    "Audit": {"List": READ, "Verify": OPERATOR, "Export": OPERATOR, "GetKey": OPERATOR},
}
CLASSES = {f"/paddock.v1.{service}/{method}": scope for service, methods in METHODS.items() for method, scope in methods.items()}
CLASSES.update({"/grpc.health.v1.Health/Check": OPEN, "/grpc.health.v1.Health/Watch": OPEN,
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": ANY,
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANY})

for method in ("List", "Connect", "Start", "Update", "StreamInput", "SendInput", "SendSignal", "CloseStdin"):
    CLASSES["/process.Process/" + method] = READ  # and what it is translated to asks again

for method in ("Stat", "MakeDir", "Move", "ListDir", "Remove", "WatchDir", "CreateWatcher", "GetWatcherEvents", "RemoveWatcher"):
    CLASSES["/filesystem.Filesystem/" + method] = READ

ALLOWED = {OPEN: {"", "read", "sandbox", "template", "admin"}, ANY: {"read", "sandbox", "template", "admin"}, READ: {"read", "sandbox", "admin"},
           USE: {"sandbox", "admin"}, TEMPLATE: {"template", "admin"}, LIST: {"read", "sandbox", "template", "admin"}, OPERATOR: {"admin"}}


def empty_requests(path):
    """An argument for a call that the handler refuses, but only after authorization."""
    return iter(()) if all_methods()[path].client_streaming else None


class Classification(Case):
    SANDBOX = False

    def outcome(self, client, path, **options):
        try:
            reply = client.call(path, empty_requests(path), deadline=5, **options)
            if hasattr(reply, "__next__"):
                stream = reply
                try:
                    next(stream, None)
                finally:
                    stream.cancel()
            return Code.OK
        except grpc.RpcError as error:
            # A stream that waits for something to happen was let in.
            return Code.OK if error.code() in (Code.DEADLINE_EXCEEDED, Code.CANCELLED) else error.code()

    def test_every_method_is_classified(self):
        self.assertEqual(set(all_methods()), set(CLASSES))

    def test_without_a_key(self):
        client = self.instance.client()
        for path, scope in CLASSES.items():
            if path.endswith(("WatchEvents", "Health/Watch")):
                continue
            with self.subTest(path):
                code = self.outcome(client, path)
                if scope == OPEN:
                    self.assertNotIn(code, (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED))
                else:
                    self.assertEqual(code, Code.UNAUTHENTICATED)

    def test_every_scope_alone(self):
        for held in ("read", "sandbox", "template", "admin"):
            client = self.instance.with_key(self.tenant, (held,))
            for path, scope in CLASSES.items():
                if path.endswith(("WatchEvents", "Health/Watch", "Audit/Export", "CreateKey")) and held in ALLOWED[scope]:
                    continue
                with self.subTest(path=path, held=held):
                    code = self.outcome(client, path)
                    if held in ALLOWED[scope]:
                        self.assertNotIn(code, (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED))
                    else:
                        self.assertEqual(code, Code.PERMISSION_DENIED)

    def test_malformed_credentials(self):
        key = self.client.key
        good = dict(deadline=5)
        texts = set()
        for value in ("", key, "Bearer", "Bearer ", "Bearer  " + key, "bearer" + key, "Basic " + key, "Bearer " + key[:-1], "Bearer " + key + "x",
                      "Bearer " + key.swapcase(), "Bearer pdk_", "Bearer pdk_" + "a" * 16 + "_" + "b" * 43, "Bearer " + key[:21] + "A" * 43,
                      "Bearer " + "x" * 4000):
            with self.subTest(value=value[:20], length=len(value)):
                texts.add(self.refused(Code.UNAUTHENTICATED, self.client.Admin.WhoAmI, grpc_metadata=[("authorization", value)], **good))
        texts.add(self.refused(Code.UNAUTHENTICATED, self.client.Admin.WhoAmI, grpc_metadata=[("x-api-key", key)], **good))
        self.assertEqual(len(texts), 1, texts)
        self.assertEqual(self.client.Admin.WhoAmI(**good).tenant, self.tenant)

    def test_two_credentials(self):
        other = self.instance.tenant(unique("second"))
        metadata = [("authorization", "Bearer " + self.client.key), ("authorization", "Bearer " + other.key)]
        try:
            self.assertIn(self.client.Admin.WhoAmI(grpc_metadata=metadata).tenant, (self.tenant,))
        except grpc.RpcError as error:
            self.assertEqual(error.code(), Code.UNAUTHENTICATED)

    def test_unknown_method(self):
        for path in ("/paddock.v1.Sandboxes/Nosuch", "/paddock.v1.Nosuch/Get", "/", "/x", "/paddock.v1.Sandboxes/create"):
            with self.subTest(path):
                stub = self.client.channel.unary_unary(path)
                self.refused(Code.UNIMPLEMENTED, stub, b"", timeout=5, metadata=[("authorization", "Bearer " + self.client.key)])

    def test_local_socket_needs_a_key(self):
        """paddock.sock is for local users with a key; admin.sock is root's."""
        client = self.instance.client(f"unix:{self.instance.run}/paddock.sock")
        self.refused(Code.UNAUTHENTICATED, client.Admin.WhoAmI)
        client.key = self.client.key
        self.assertEqual(client.Admin.WhoAmI().tenant, self.tenant)
        mode = os.stat(self.instance.run + "/admin.sock")
        self.assertEqual(stat.S_IMODE(mode.st_mode) & 0o077, 0)


class Ownership(Case):
    """Every call that names a sandbox, made for a foreign, a random, a malformed and a deleted id."""

    def requests(self, id):
        box = dict(sandbox_id=id)
        yield "/paddock.v1.Sandboxes/Get", box
        yield "/paddock.v1.Sandboxes/SetTimeout", dict(box, timeout_ms=60000)
        yield "/paddock.v1.Sandboxes/SetIdleTimeout", dict(box, idle_timeout_ms=60000)
        yield "/paddock.v1.Sandboxes/Kill", box
        yield "/paddock.v1.Sandboxes/Pause", box
        yield "/paddock.v1.Sandboxes/Resume", box
        yield "/paddock.v1.Sandboxes/Reset", box
        yield "/paddock.v1.Sandboxes/WatchEvents", box
        yield "/paddock.v1.Sandboxes/GetUsage", box
        yield "/paddock.v1.Sandboxes/GetMetrics", box
        yield "/paddock.v1.Sandboxes/GetAccess", box
        yield "/paddock.v1.Processes/Start", dict(box, argv=["true"])
        yield "/paddock.v1.Processes/Attach", dict(box, process_id=1)
        yield "/paddock.v1.Processes/Interact", [pb.InteractRequest(start=pb.StartProcessRequest(sandbox_id=id, argv=["true"]))]
        yield "/paddock.v1.Processes/Interact", [pb.InteractRequest(attach=pb.AttachRequest(sandbox_id=id, process_id=1))]
        yield "/paddock.v1.Processes/List", box
        yield "/paddock.v1.Processes/SendInput", dict(box, process_id=1, data=b"x")
        yield "/paddock.v1.Processes/CloseStdin", dict(box, process_id=1)
        yield "/paddock.v1.Processes/Resize", dict(box, process_id=1, size=pb.TerminalSize(columns=80, rows=24))
        yield "/paddock.v1.Processes/Signal", dict(box, process_id=1, signal=9)
        yield "/paddock.v1.Processes/Wait", dict(box, process_id=1)
        yield "/paddock.v1.Previews/Grant", dict(box, port=8080)
        yield "/paddock.v1.Previews/List", box
        yield "/paddock.v1.Previews/ListPorts", box
        yield "/paddock.v1.Snapshots/Create", box
        yield "/paddock.v1.Snapshots/Fork", box
        for method in ("Stat", "List", "Read", "MakeDir", "Remove", "Watch", "PackArchive"):
            yield "/paddock.v1.Files/" + method, dict(box, path=b"/tmp/x")
        yield "/paddock.v1.Files/Move", dict(box, **{"from": b"/tmp/x", "to": b"/tmp/y"})
        yield "/paddock.v1.Files/Write", [pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=id, path=b"/tmp/x"))]
        yield "/paddock.v1.Files/UnpackArchive", [pb.UnpackArchiveRequest(header=pb.UnpackArchiveHeader(sandbox_id=id, path=b"/tmp/x"))]

    def test_covers_every_method_with_a_sandbox(self):
        named = set()
        for path, method in all_methods().items():
            message = POOL.FindMessageTypeByName(method.input_type.lstrip("."))
            inner = [message] + [f.message_type for f in message.fields if f.message_type]
            if any("sandbox_id" in m.fields_by_name for m in inner):
                named.add(path)
        self.assertEqual(named - {"/paddock.v1.Audit/List", "/paddock.v1.Snapshots/List"}, {path for path, _ in self.requests("x")})

    def answer(self, client, path, request):
        try:
            if isinstance(request, list):
                reply = client.call(path, iter(request), deadline=10)
            else:
                reply = client.call(path, deadline=10, **request)
            if hasattr(reply, "__next__"):
                list(reply)
            return "OK", ""
        except grpc.RpcError as error:
            # With all that a client sees: status, text, and the metadata behind it.
            return error.code(), error.details() + "".join(f" {key}={value!r}" for key, value in error.trailing_metadata() or ())

    def test_foreign_random_malformed_deleted_are_the_same(self):
        owner = self.instance.tenant(unique("owner"))
        foreign = owner.create().id
        gone_client = self.instance.tenant(unique("goneowner"))
        deleted = gone_client.create().id
        gone_client.Sandboxes.Kill(sandbox_id=deleted)
        ids = {"foreign": foreign, "foreign deleted": deleted, "random": "i" + hashlib.sha256(b"x").hexdigest()[:20], "malformed": "!!", "empty": "",
               "long": "i" * 5000}
        answers = set()
        for what, id in ids.items():
            for path, request in self.requests(id):
                if not id and path.endswith(("WatchEvents", "Previews/List")):
                    continue  # empty there: all of the caller's
                with self.subTest(what=what, path=path):
                    code, text = self.answer(self.client, path, request)
                    self.assertEqual(code, Code.NOT_FOUND, text)
                    answers.add(text)
        self.assertEqual(len(answers), 1, answers)
        self.assertEqual(owner.run(foreign, "/bin/echo", "untouched").out, b"untouched\n")
        self.assertEqual(len(owner.Processes.List(sandbox_id=foreign, include_ended=True).processes), 1)

    def test_positive_control(self):
        """The same requests with the caller's own id are not NOT_FOUND for the sandbox."""
        self.client.run(self.box, "cat", open_stdin=True, detach=True)
        self.client.write(self.box, "/tmp/x", b"x")
        box_text = self.answer(self.client, "/paddock.v1.Sandboxes/Get", dict(sandbox_id="!!"))[1]
        for path, request in self.requests(self.box):
            if path.endswith(("Kill", "WatchEvents", "Wait", "Attach")) or (path.endswith("Interact") and request[0].HasField("attach")):
                continue
            with self.subTest(path):
                code, text = self.answer(self.client, path, request)
                self.assertFalse(code == Code.NOT_FOUND and text == box_text)

    def test_P13_process_of_another_sandbox(self):
        """P13: a process id counts only in its own sandbox; another tenant cannot even guess it."""
        other_box = self.new_box()
        started = self.client.run(other_box, "sleep", "60", detach=True, tag="private")
        for _ in range(3):
            self.client.run(self.box, "/bin/true")
        stranger = self.instance.tenant(unique("stranger"))
        for path, request in (("/paddock.v1.Processes/Attach", dict(process_id=started.id)), ("/paddock.v1.Processes/Attach", dict(tag="private")),
                              ("/paddock.v1.Processes/Signal", dict(process_id=started.id, signal=9))):
            self.assertEqual(self.answer(stranger, path, dict(request, sandbox_id=other_box))[0], Code.NOT_FOUND)
        self.assertTrue(self.client.Processes.List(sandbox_id=other_box).processes[0].running)

    def test_audit_is_the_tenants_own(self):
        owner = self.instance.tenant(unique("audited"))
        box = owner.create().id
        self.assertTrue(owner.Audit.List(sandbox_id=box).records)
        self.assertFalse(self.client.Audit.List(sandbox_id=box).records)
        self.assertEqual({r.tenant for r in self.client.Audit.List(page_size=1000).records}, {self.tenant})
