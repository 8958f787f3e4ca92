"""A hostile client: bad keys in every call, bombs of every kind, extreme numbers, and what error texts give away."""
import contextlib
import gzip
import re
import socket
import struct
import time

from api import Case, Code, grpc, pb, unique
import host
from paddock import POOL, all_methods, message_class
from test_auth import CLASSES, OPEN, empty_requests

MIB = 1 << 20


def outcome(call):
    """-> (code, text, metadata) of a call that is made to its end, or until its stream gives something"""
    try:
        reply = call()
        if hasattr(reply, "__next__"):
            next(reply, None)
            reply.cancel()
        return Code.OK, "", ()
    except grpc.RpcError as error:
        return error.code(), error.details(), tuple(error.trailing_metadata() or ())


class BadKeys(Case):
    """G01: every method of the descriptors, with every kind of key that opens nothing: one answer."""
    SANDBOX = False

    def test_every_method(self):
        revoked = self.instance.with_key(self.tenant)
        self.admin.Admin.RevokeKey(key_id=revoked.key_id)
        expired = self.instance.with_key(self.tenant, ttl_ms=1)
        gone = self.instance.tenant(unique("gone"))
        self.admin.Admin.RemoveTenant(tenant=gone.tenant if hasattr(gone, "tenant") else gone.Admin.WhoAmI().tenant)
        time.sleep(0.05)
        keys = {"empty": "", "nonsense": "x", "wrong secret": self.client.key[:-4] + "AAAA", "revoked": revoked.key, "expired": expired.key,
                "of a tenant that is gone": gone.key}
        answers = set()
        for path, scope in CLASSES.items():
            if scope == OPEN:
                continue
            for what, key in keys.items():
                with self.subTest(path=path, key=what):
                    code, text, metadata = outcome(lambda: self.client.call(path, empty_requests(path), deadline=10,
                                                                            grpc_metadata=[("authorization", "Bearer " + key)]))
                    self.assertEqual(code, Code.UNAUTHENTICATED, text)
                    answers.add((text, metadata))
        self.assertEqual(len(answers), 1, answers)
        self.assertEqual(self.client.Admin.WhoAmI().tenant, self.tenant)


class OwnedTokens(Case):
    """G03, G04: what belongs to one tenant means nothing in the hands of another."""

    def test_page_token_of_files(self):
        for i in range(5):
            self.client.write(self.box, f"/tmp/tokens/f{i}", b"x", make_parents=True)
        token = self.client.Files.List(sandbox_id=self.box, path=b"/tmp/tokens", page_size=2).next_page_token
        self.assertEqual(len(self.client.Files.List(sandbox_id=self.box, path=b"/tmp/tokens", page_size=2, page_token=token).files), 2)
        other = self.instance.tenant(unique("tokens"))
        box = other.create().id
        for i in range(5):
            other.write(box, f"/tmp/tokens/f{i}", b"x", make_parents=True)
        self.invalid("page_token", other.Files.List, sandbox_id=box, path=b"/tmp/tokens", page_size=2, page_token=token)
        self.invalid("page_token", self.client.Files.List, sandbox_id=self.new_box(), path=b"/tmp", page_size=2, page_token=token)
        other.Sandboxes.Kill(sandbox_id=box)

    def test_a_tenant_named_by_the_client_is_ignored(self):
        other = self.instance.tenant(unique("named"))
        tenant = other.Admin.WhoAmI().tenant
        claims = [("authorization", "Bearer " + self.client.key)] + [(name, tenant) for name in ("tenant", "x-tenant", "paddock-tenant", "x-tenant-id")]
        self.assertEqual(self.client.Admin.WhoAmI(grpc_metadata=claims).tenant, self.tenant)
        seen = {s.tenant for s in self.client.Sandboxes.List(grpc_metadata=claims).sandboxes}
        self.assertEqual(seen, {self.tenant})


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def nested(depth, number):
    data = b""
    for _ in range(depth):
        data = field(number, data)
    return data


class Bombs(Case):
    """G08: an answer that names the fault, and no memory spent on it."""

    def setUp(self):
        self.pid = self.instance.paddockd.pid
        self.before = host.rss(self.pid)

    def tearDown(self):
        self.assertLess(host.rss(self.pid) - self.before, 64 * MIB)
        self.kept_alive()

    def send(self, method, data, *codes):
        code, text, _ = outcome(lambda: self.client.call(method, data, deadline=30))
        self.assertIn(code, codes, text)
        return text

    def test_sizes(self):
        start = "/paddock.v1.Processes/Start"
        self.send(start, b"", Code.NOT_FOUND)
        padding = field(99, b"x" * (4 * MIB - 100))  # an unknown field: skipped
        box = field(1, self.box.encode()) + field(2, b"/bin/true")
        self.send(start, box + field(99, b"x" * 1000), Code.OK)
        self.send(start, box + padding, Code.OK, Code.RESOURCE_EXHAUSTED)
        self.send(start, box + field(99, b"x" * (4 * MIB + 1)), Code.RESOURCE_EXHAUSTED)
        self.send(start, box + field(99, b"x" * (40 * MIB)), Code.RESOURCE_EXHAUSTED)

    def test_shapes(self):
        create, start = "/paddock.v1.Sandboxes/Create", "/paddock.v1.Processes/Start"
        bad = (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED)
        self.send(create, nested(10000, 3), *bad)
        self.send(create, field(4, nested(10000, 1)), *bad)
        box = field(1, self.box.encode())
        self.send(start, box + b"\x12\x00" * 1000000, *bad)  # a million empty arguments
        self.send(start, box + field(2, b"/bin/true") + b"\x1a\x00" * 500000, *bad)  # half a million entries of a map
        self.send(create, b"\x10" + b"\xff" * 10 + b"\x01", *bad)  # a varint without an end
        self.send(create, b"\x0d\x01\x02\x03\x04", *bad)  # template as fixed32
        self.send(create, field(1, b"\xff\xfe"), *bad)
        self.send(create, b"\x07", *bad)  # wire type 7
        self.send(create, b"\x00\x00", *bad)  # field 0

    def test_repeated_fields_take_the_last(self):
        """As every protobuf implementation does it; a oneof too."""
        data = field(1, b"nosuch") + field(1, self.box.encode()) + field(2, b"/bin/true")
        self.send("/paddock.v1.Processes/Start", data, Code.OK)
        both = pb.InteractRequest(start=pb.StartProcessRequest(sandbox_id="nosuch")).SerializeToString() + \
            pb.InteractRequest(attach=pb.AttachRequest(sandbox_id=self.box, process_id=4711)).SerializeToString()
        code, text, _ = outcome(lambda: self.client.call("/paddock.v1.Processes/Interact", iter([both]), deadline=10))
        self.assertEqual((code, "sandbox" in text), (Code.NOT_FOUND, False), text)

    def test_compressed(self):
        """Refused before anything is inflated: 1000 to 1 would be 4 GB."""
        stub = self.client.channel.unary_unary("/paddock.v1.Sandboxes/Create", request_serializer=lambda data: data)
        bomb = gzip.compress(b"\0" * (64 * MIB))
        for data in (field(1, b"x" * 100000), bomb):
            with self.assertRaises(grpc.RpcError) as raised:
                stub(data, timeout=30, metadata=[("authorization", "Bearer " + self.client.key)], compression=grpc.Compression.Gzip)
            self.assertIn(raised.exception.code(), (Code.UNIMPLEMENTED, Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED))

    def frame(self, kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def request(self, extra, data):
        """The bytes of one call as HTTP/2, with headers and a message that no client library would send."""
        headers = {":method": "POST", ":scheme": "http", ":path": "/paddock.v1.Sandboxes/Create", ":authority": "x", "te": "trailers",
                   "content-type": "application/grpc", "authorization": "Bearer " + self.client.key, **extra}
        block = b"".join(b"\x10" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in headers.items())
        return (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0, b"") + self.frame(1, 4, 1, block) + self.frame(0, 0, 1, data))

    def test_length_of_two_gigabytes(self):
        """A promise of 2 or 4 GB is not believed, however much of it comes."""
        for prefix in (b"\0\x7f\xff\xff\xff", b"\0\xff\xff\xff\xff"):
            with socket.create_connection(("127.0.0.1", self.instance.port), 5) as s:
                s.sendall(self.request({}, prefix + b"data"))
                s.settimeout(1)
                with contextlib.suppress(OSError):
                    for _ in range(2000):  # 32 MB, if anybody takes them
                        s.sendall(self.frame(0, 0, 1, b"x" * 16384))
                self.assertLess(host.rss(self.pid) - self.before, 64 * MIB)
        code, _, _ = outcome(lambda: self.client.call("/paddock.v1.Sandboxes/Get", field(1, self.box.encode()), deadline=5))
        self.assertEqual(code, Code.OK)

    def test_unknown_compression(self):
        with socket.create_connection(("127.0.0.1", self.instance.port), 5) as s:
            s.sendall(self.request({"grpc-encoding": "nosuch"}, b"\x01\0\0\0\x04data"))
            s.settimeout(5)
            answer = b""
            while b"grpc-status" not in answer:
                answer += s.recv(65536) or self.fail("closed without a status")

class Numbers(Case):
    """G14, G15, G19: every number of every request at its extremes: a documented status, and a text that tells nothing of the host."""
    VALUES = (1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 54, 2 ** 63 - 1, 2 ** 64 - 1)
    SKIP = ("/paddock.v1.Sandboxes/Kill", "/paddock.v1.Sandboxes/Create", "/paddock.v1.Sandboxes/WatchEvents")
    BASE = {"argv": ["/bin/true"], "path": b"/tmp/x", "from": b"/tmp/x", "to": b"/tmp/y", "data": b"x", "process_id": 4711, "signal": 10}

    def numbers(self, message, prefix=()):
        for field in message.fields:
            if field.label == field.LABEL_REPEATED:
                continue
            if field.type == field.TYPE_MESSAGE and not prefix:
                yield from self.numbers(field.message_type, (field.name,))
            elif field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64, field.CPPTYPE_INT64, field.CPPTYPE_INT32):
                yield prefix + (field.name,), 32 if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_INT32) else 64

    def filled(self, name, path, value):
        request = message_class(name)()
        names = request.DESCRIPTOR.fields_by_name
        for key, given in {"sandbox_id": self.box, **self.BASE}.items():
            if key in names and names[key].label == names[key].LABEL_REPEATED:
                getattr(request, key).extend(given)
            elif key in names:
                setattr(request, key, given)
        if name in ("paddock.v1.SetTimeoutRequest", "paddock.v1.SetIdleTimeoutRequest"):
            request.sandbox_id = self.timed
        target = request
        for step in path[:-1]:
            target = getattr(target, step)
        field = target.DESCRIPTOR.fields_by_name[path[-1]]
        if field.cpp_type == field.CPPTYPE_INT64 and value >= 2 ** 63:
            value -= 2 ** 64
        setattr(target, path[-1], value)
        return request

    def check_text(self, text):
        for secret in (self.instance.dir, "/root", "/var/lib", "/proc/", "/sys/", "cgroup", "errno", ".c:"):
            self.assertNotIn(secret, text)
        self.assertIsNone(re.search(r"\bpid \d+", text), text)

    def test_extremes(self):
        made, self.timed = 0, self.new_box()
        for path, method in all_methods().items():
            if method.client_streaming or not path.startswith("/paddock.v1.") or path in self.SKIP or "/Admin/" in path:
                continue
            name = method.input_type[1:]
            for where, bits in self.numbers(POOL.FindMessageTypeByName(name)):
                for value in self.VALUES:
                    if value >= 2 ** bits:
                        continue
                    with self.subTest(path=path, field=".".join(where), value=value):
                        code, text, _ = outcome(lambda: self.client.call(path, self.filled(name, where, value), deadline=3))
                        self.assertNotIn(code, (Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS, Code.UNAVAILABLE), text)
                        self.check_text(text)
                        made += 1
        self.assertGreater(made, 100)
        self.kept_alive()

    def test_create(self):
        made = []
        for where, bits in self.numbers(pb.CreateSandboxRequest.DESCRIPTOR):
            for value in self.VALUES:
                if value >= 2 ** bits:
                    continue
                with self.subTest(field=".".join(where), value=value):
                    code, text, _ = outcome(lambda: made.append(self.client.Sandboxes.Create(self.filled("CreateSandboxRequest", where, value))))
                    self.assertIn(code, (Code.OK, Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED), text)
                    self.check_text(text)
        for sandbox in made:
            self.client.Sandboxes.Kill(sandbox_id=sandbox.id)

    def test_quotas(self):
        tenant = unique("numbers")
        self.admin.Admin.CreateTenant(name=tenant)
        for name, field in pb.Quota.DESCRIPTOR.fields_by_name.items():
            for value in self.VALUES:
                if value >= 2 ** (32 if field.cpp_type == field.CPPTYPE_UINT32 else 64):
                    continue
                with self.subTest(field=name, value=value):
                    code, text, _ = outcome(lambda: self.admin.Admin.SetQuota(tenant=tenant, quota=pb.Quota(**{name: value})))
                    self.assertIn(code, (Code.OK, Code.INVALID_ARGUMENT), text)
        self.admin.Admin.RemoveTenant(tenant=tenant)
