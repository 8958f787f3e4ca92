"""What the api tests share: one instance with the base template, and assertions on refusals."""
import contextlib
import itertools
import unittest

import grpc
from paddock import Code, Instance, pb

_shared = None
_serial = itertools.count(1)


def instance():
    global _shared
    if _shared is None:
        started = Instance(template="base", pool="20G", log_level="debug")
        started.__enter__()
        _shared = started
    return _shared


def stop():
    """End the shared instance -> its complaints, or None if no test needed it."""
    if _shared is None:
        return None
    _shared.stop()
    return _shared.complaints


def unique(word):
    return f"{word}-{next(_serial)}"


def attach(client, box, process, lines, deadline=30):
    """The output from the first byte on -> (bytes missing at its start, whole lines behind that)."""
    events = client.Processes.Attach(sandbox_id=box, process_id=process, deadline=deadline)
    text, missing = b"", 0
    for event in events:
        missing += event.gap.dropped_bytes if event.HasField("gap") else 0
        text += event.output.data
        if text.count(b"\n") >= lines:
            break
    events.cancel()
    return missing, text.rsplit(b"\n", 1)[0].split(b"\n")


class Case(unittest.TestCase):
    """`self.client`: a key of a tenant of this class; `self.box`: the id of a sandbox that its tests share."""
    SANDBOX = True
    SCOPES = ("read", "sandbox")
    QUOTA = {}

    @classmethod
    def setUpClass(cls):
        cls.instance = instance()
        cls.admin = cls.instance.admin
        cls.tenant = unique(cls.__name__.lower())
        cls.client = cls.instance.tenant(cls.tenant, cls.SCOPES, **cls.QUOTA)
        cls.box = cls.client.create().id if cls.SANDBOX else None

    @classmethod
    def tearDownClass(cls):
        with contextlib.suppress(grpc.RpcError):
            cls.admin.Admin.RemoveTenant(tenant=cls.tenant, force=True)

    def new_box(self, **fields):
        box = self.client.create(**fields).id
        self.addCleanup(lambda: self.client.Sandboxes.Kill(sandbox_id=box))
        return box

    def sh(self, script, **fields):
        """Run a shell script in the shared sandbox; it must succeed -> its stdout."""
        result = self.client.run(fields.pop("box", self.box), "/bin/sh", "-c", script, **fields)
        self.assertEqual((result.code, result.signal), (0, 0), result.all)
        return result.out

    def refused(self, code, call, *args, text=None, **fields):
        """The call ends with this status. -> its text"""
        with self.assertRaises(grpc.RpcError) as raised:
            value = call(*args, **fields)
            if hasattr(value, "__next__"):
                for _ in value:
                    pass
        error = raised.exception
        self.assertEqual(error.code(), code, error.details())
        if text:
            self.assertTrue(error.details().startswith(text), f"{error.details()!r} should start with {text!r}")
        self.assertTrue(error.details() or code == Code.CANCELLED)
        for secret in (self.instance.dir, "/var/lib/paddock", "pdk_"):
            self.assertNotIn(secret, error.details())
        return error.details()

    def invalid(self, field, call, *args, **fields):
        return self.refused(Code.INVALID_ARGUMENT, call, *args, text=field, **fields)

    def kept_alive(self):
        """The positive control after hostile input: the server answers and the sandbox runs commands."""
        self.assertEqual(self.client.run(self.box, "/bin/echo", "alive").out, b"alive\n")


__all__ = ["Case", "Code", "Instance", "grpc", "instance", "pb", "unique"]
