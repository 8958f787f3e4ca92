"""What these tests share: one instance, the template with the programs, ways to and from the disk, and what is left afterwards."""
import os
import subprocess

import host
import zoo
from own import Refusals
from paddock import Instance, code_of, enum, eventually, wait_until

RUNNING, PAUSED, KILLED, FAILED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED", "KILLED", "FAILED"))
CHECKPOINT = enum("PAUSE_MODE_CHECKPOINT")
STDERR = enum("STREAM_STDERR")

_shared = None


def instance():
    global _shared
    if _shared is None:
        _shared = Instance(template=None, pool="20G", pool_size=0)
        _shared.start()
        zoo.add(_shared)
    return _shared


def stop():
    """End the shared instance -> [(name, what is wrong or "")]"""
    if _shared is None:
        return []
    _shared.stop()

    def left():
        return [path for path in _shared.groups if os.path.isdir(path)] + [line for line in host.loops() if _shared.dir in line]
    eventually(lambda: not left(), 10)  # the kernel lets go of a loop device a moment after its last mount
    return [("instance.ends_cleanly", "; ".join(_shared.complaints)), ("instance.leaves_nothing", f"{left()}" if left() else "")]


def in_warden(script, of=None):
    """A shell script where the pool is mounted: in the warden's mounts."""
    return subprocess.run(["nsenter", "-m", "-t", str((of or instance()).warden.pid), "sh", "-c", script],
                          capture_output=True, text=True, check=True).stdout


def pool(folder, of=None):
    of = of or instance()
    return sorted(os.listdir(f"/proc/{of.warden.pid}/root{of.run}/pool/{folder}"))


def to_disk(client, box):
    paused = client.Sandboxes.Pause(sandbox_id=box, mode=CHECKPOINT)
    assert (paused.state, paused.pause_mode) == (PAUSED, CHECKPOINT), paused


def back(client, box):
    resumed = client.Sandboxes.Resume(sandbox_id=box)
    assert resumed.state == RUNNING, resumed


def through_disk(client, box):
    to_disk(client, box)
    back(client, box)


class Output:
    """The output of a process from its first byte, read as far as it is asked for."""

    def __init__(self, client, box, process, deadline=60):
        self.events = client.Processes.Attach(sandbox_id=box, process_id=process, deadline=deadline)
        self.data, self.err, self.missing, self.exited = b"", b"", 0, None

    def _take(self):
        event = next(self.events, None)
        if event is None:
            return False
        if event.HasField("output") and event.output.stream == STDERR:
            self.err += event.output.data
        elif event.HasField("output"):
            self.data += event.output.data
        elif event.HasField("gap"):
            self.missing += event.gap.dropped_bytes
        elif event.HasField("exited"):
            self.exited = event.exited
        return True

    def until(self, text, after=0):
        """Read on until this is in the output, behind its first `after` bytes, or in the errors -> the output so far."""
        while text not in self.data[after:] and text not in self.err:
            if not self._take():
                raise AssertionError(f"{text!r} did not come: {self.data[-2000:]!r} {self.err[-500:]!r} {self.exited}")
        return self.data

    def lines(self, count):
        while self.data.count(b"\n") < count:
            if not self._take():
                raise AssertionError(f"it ended early: {self.data[-2000:]!r} {self.exited}")
        return self.data.rsplit(b"\n", 1)[0].split(b"\n")

    def end(self):
        while self._take():
            pass
        return self.data

    def cancel(self):
        self.events.cancel()


class Case(Refusals):
    """`self.client`: a key of the tenant of this class. Its sandboxes end with each test."""
    RESOURCES = {}

    @classmethod
    def setUpClass(cls):
        cls.instance = instance()
        cls.client = cls.instance.tenant(cls.__name__.lower())

    def tearDown(self):
        for sandbox in self.client.Sandboxes.List(page_size=1000).sandboxes:
            self.client.Sandboxes.Kill(sandbox_id=sandbox.id)
        for snapshot in self.client.Snapshots.List(page_size=1000).snapshots:
            self.client.Snapshots.Remove(snapshot=snapshot.id)

    def new(self, **fields):
        fields.setdefault("template", "zoo")
        fields.setdefault("resources", self.RESOURCES)
        return self.client.create(**fields).id

    def sh(self, box, script, **fields):
        result = self.client.run(box, "/bin/bash", "-c", script, **fields)
        self.assertEqual((result.code, result.signal), (0, 0), result.all[-2000:])
        return result.out


__all__ = ["CHECKPOINT", "Case", "FAILED", "Instance", "KILLED", "Output", "PAUSED", "RUNNING", "back", "code_of", "in_warden", "instance",
           "needs_criu", "pool", "through_disk", "to_disk", "wait_until"]
