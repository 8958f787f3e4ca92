#!/usr/bin/python3
"""L01: the exit of a process is told before it is durable, because init keeps it. A paddockd that dies between the two loses
nothing: the next one hears the same from init, and says the same."""
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
import grpc
import tap
from crash import Strace
from paddock import Instance

ENDS = {
    "an exit code": dict(argv=["sh", "-c", "sleep 2; echo out; exit 7"]),
    "a signal": dict(argv=["sh", "-c", "sleep 2; kill -SEGV $$"]),
    "a time limit": dict(argv=["sleep", "60"], timeout_ms=2000),
    "a terminal": dict(argv=["sh", "-c", "sleep 2; exit 3"], terminal=dict(columns=80, rows=24)),
}


class Exit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.instance = Instance(pool_size=0)
        cls.addClassCleanup(cls.instance.stop)
        cls.instance.start()
        cls.sandbox = cls.instance.admin.create().id

    def start(self, process):
        events = self.instance.admin.Processes.Start(sandbox_id=self.sandbox, deadline=30, **process)
        return events, next(events).started.process_id

    def told(self, events):
        """The exit that the stream brings, or None."""
        try:
            return next((event.exited for event in events if event.HasField("exited")), None)
        except grpc.RpcError:
            return None

    def restart(self):
        self.instance.start_paddockd()
        self.instance.admin.Sandboxes.Get(sandbox_id=self.sandbox, deadline=20)

    def asked(self, process_id):
        return self.instance.admin.Processes.Wait(sandbox_id=self.sandbox, process_id=process_id, deadline=20)

    def told_and_not_stored(self, process):
        """paddockd dies as it begins to write the exit that it has told. -> (process id, exit)"""
        for _ in range(5):
            events, process_id = self.start(process)
            time.sleep(1.3)  # what else there was to write (records, their anchor) is written
            with Strace(self.instance.paddockd.pid, "fdatasync:signal=KILL:when=1", threads=True):
                exited = self.told(events)
                self.instance.paddockd.wait(10)
            if exited:
                return process_id, exited
            self.restart()  # it died too early: of something else to write
        self.fail("paddockd never lived long enough to tell an exit")

    def test_between_told_and_stored(self):
        for name, process in ENDS.items():
            with self.subTest(name):
                process_id, exited = self.told_and_not_stored(process)
                self.assertFalse(exited.sandbox_ended)
                self.assertTrue(exited.exit_code or exited.signal)
                self.restart()
                self.assertEqual(self.asked(process_id), exited)
                # The store has it now, and init was told to forget it.
                time.sleep(0.5)
                self.instance.paddockd.kill()
                self.instance.paddockd.wait()
                self.restart()
                self.assertEqual(self.asked(process_id), exited)

    def test_stored(self):
        """The twin: nothing is between the two."""
        events, process_id = self.start(ENDS["an exit code"])
        exited = self.told(events)
        self.assertEqual(exited.exit_code, 7)
        time.sleep(0.5)
        self.instance.paddockd.kill()
        self.instance.paddockd.wait()
        self.restart()
        self.assertEqual(self.asked(process_id), exited)


if __name__ == "__main__":
    tap.main()
