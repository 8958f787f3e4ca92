#!/usr/bin/python3
"""L01: a freeze and a thaw are told before the store has them, because the kernel keeps what they change, and the journal what is said
of it. A paddockd that dies between the two loses neither: the next one says the same, and the audit log has the call."""
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
import grpc
import tap
from crash import Strace
from criu import COUNTER
from paddock import Instance, enum

RUNNING, PAUSED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED"))


class Frozen(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.instance = Instance(pool_size=0)
        cls.addClassCleanup(cls.instance.stop)
        cls.instance.start()
        cls.client = cls.instance.tenant("tenant")

    def setUp(self):
        self.box = self.client.create().id
        self.counter = self.client.run(self.box, "sh", "-c", COUNTER, detach=True).id

    def tearDown(self):
        self.client.Sandboxes.Kill(sandbox_id=self.box)

    def restart(self):
        self.instance.paddockd.wait(10)
        self.instance.start_paddockd()
        self.client.wait_ready(20)

    def told_and_not_stored(self, call, back):
        """paddockd dies as it begins to write what it has told -> the reply."""
        for _ in range(5):
            time.sleep(1.3)  # what else there was to write (records, their anchor) is written
            reply = None
            with Strace(self.instance.paddockd.pid, "fdatasync:signal=KILL:when=1", threads=True):
                try:
                    reply = call(sandbox_id=self.box, deadline=10)
                except grpc.RpcError:
                    pass
                self.instance.paddockd.wait(10)
            self.restart()
            if reply:
                return reply
            back(sandbox_id=self.box)  # it died too early: of something else to write
        self.fail("paddockd never lived long enough to answer")

    def runs(self):
        """Does the program in it go on? By the processor time that the kernel counts."""
        paths = [f"{base}/cpu.stat" for base, _, files in os.walk("/sys/fs/cgroup") if os.path.basename(base) == self.box and "cgroup.events" in files]
        self.assertEqual(len(paths), 1)

        def used():
            with open(paths[0]) as stream:
                return stream.readline()
        before = used()
        time.sleep(0.5)
        return used() != before

    def recorded(self, method):
        return [(record.actor, record.outcome) for record in self.client.Audit.List(page_size=1000).records
                if record.sandbox_id == self.box and record.action.endswith("Sandboxes/" + method)]

    def verify(self):
        self.assertTrue(self.instance.admin.Audit.Verify().ok)

    def test_frozen_between_told_and_stored(self):
        told = self.told_and_not_stored(self.client.Sandboxes.Pause, self.client.Sandboxes.Resume)
        self.assertEqual(told.state, PAUSED)
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=self.box), told)
        self.assertFalse(self.runs())
        self.assertEqual({outcome for _, outcome in self.recorded("Pause")}, {"OK"})
        self.verify()
        self.client.Sandboxes.Resume(sandbox_id=self.box)
        self.assertTrue(self.runs())
        self.assertEqual(self.client.run(self.box, "true").code, 0)

    def test_thawed_between_told_and_stored(self):
        self.client.Sandboxes.Pause(sandbox_id=self.box, keep=True)
        told = self.told_and_not_stored(lambda **call: self.client.Sandboxes.Resume(timeout_ms=500000, **call), self.client.Sandboxes.Pause)
        self.assertEqual((told.state, told.paused_unix_ms), (RUNNING, 0))
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=self.box), told)
        self.assertTrue(self.runs())
        self.assertEqual({outcome for _, outcome in self.recorded("Resume")}, {"OK"})
        self.verify()
        self.assertEqual(self.client.run(self.box, "true").code, 0)

    def test_stored(self):
        """The twin: nothing is between the two."""
        for call, runs in ((self.client.Sandboxes.Pause, False), (self.client.Sandboxes.Resume, True)):
            told = call(sandbox_id=self.box)
            time.sleep(1.3)
            self.instance.paddockd.kill()
            self.restart()
            self.assertEqual(self.client.Sandboxes.Get(sandbox_id=self.box), told)
            self.assertEqual(self.runs(), runs)
        self.verify()


if __name__ == "__main__":
    tap.main()
