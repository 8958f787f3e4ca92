#!/usr/bin/python3
"""L05, U: what happens when a process dies, or a daemon is started again, in the middle of a pause, a resume or a snapshot. Whatever
it was: the sandbox is there, with what ran in it, and the caller hears what became of the call."""
import contextlib
import os
import re
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
import grpc
import host
import tap
from criu import COUNTER, counted, needs_criu
from own import OwnInstance
from paddock import code_of, enum, eventually, wait_until

RUNNING, PAUSED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED"))
TO_DISK = enum("PAUSE_MODE_CHECKPOINT")
KILLS = int(os.environ.get("CRIU_KILLS", "6"))


def children(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as stream:
        return [int(child) for child in stream.read().split()]
    return []


def descendants(pid):
    found = children(pid)
    for child in found:
        found += children(child)
    return found


def command(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as stream:
        return stream.read()
    return b""


@needs_criu
class Deaths(OwnInstance):
    SETTINGS = {"template": "mini", "pool": "2G"}
    LIMITS = {}

    def setUp(self):
        self.box = self.client.create(resources=self.LIMITS).id
        self.addCleanup(lambda: self.client.Sandboxes.Kill(sandbox_id=self.box))
        self.counter = self.client.run(self.box, COUNTER, detach=True).id
        self.idle = set(descendants(self.instance.warden.pid))

    # -- a job of the warden that is under way

    def jobs(self):
        """Children of the warden that dump or restore."""
        return [pid for pid in children(self.instance.warden.pid) if pid not in self.idle and b"paddock-warden" in command(pid)]

    def criu(self):
        return [pid for pid in descendants(self.instance.warden.pid) if re.search(rb"/criu\0(dump|restore)\0", command(pid))]

    def begin(self, call):
        """Make a call, and stop its job in the middle. -> (the call's future, the job)"""
        future = call(later=True)
        deadline = time.monotonic() + 10
        while not self.criu():  # a small sandbox is through in less than a usual poll
            self.assertLess(time.monotonic(), deadline, "CRIU")
        job = self.jobs()[0]
        os.kill(job, signal.SIGSTOP)
        return future, job

    def pause(self, **fields):
        return self.client.Sandboxes.Pause(sandbox_id=self.box, mode=TO_DISK, **fields)

    def resume(self, **fields):
        return self.client.Sandboxes.Resume(sandbox_id=self.box, **fields)

    def snapshot(self, **fields):
        return self.client.Snapshots.Create(sandbox_id=self.box, **fields)

    # -- what must hold

    def state(self):
        with contextlib.suppress(grpc.RpcError):
            return self.client.Sandboxes.Get(sandbox_id=self.box, deadline=5).state

    def check_whole(self):
        """It runs or can be resumed, what ran in it runs on, and no number is missing."""
        wait_until(lambda: self.state() in (RUNNING, PAUSED), 30, f"state {self.state()}")
        wait_until(lambda: code_of(self.resume)[0] == "OK", 30, f"{code_of(self.resume)}")
        wait_until(lambda: code_of(lambda: self.client.run(self.box, "true"))[0] == "OK", 30, f"{code_of(lambda: self.client.run(self.box, 'true'))}")
        self.assertEqual(self.client.run(self.box, "echo new").out, b"new\n")
        self.assertEqual(host.cpu_quota(self.box), "100000", "a dump lifts it, whoever ends it sets it again")
        seen = self.numbers(10)
        self.numbers(seen + 10)

    def numbers(self, more_than):
        return counted(self.client, self.box, self.counter, more_than)

    def restart_paddockd(self):
        self.instance.stop_paddockd(signal.SIGKILL)
        self.instance.start_paddockd()

    def restart_warden(self):
        self.instance.warden.kill()
        self.instance.warden.wait()
        self.instance.start_warden()
        self.idle = set(descendants(self.instance.warden.pid))

    def nothing_is_half_made(self):
        pool = f"/proc/{self.instance.warden.pid}/root{self.instance.run}/pool"

        def left():
            return [name for folder in ("checkpoints", "snapshots") for name in os.listdir(f"{pool}/{folder}")]
        eventually(lambda: not left(), 10)
        self.assertEqual(left(), [])

    # -- paddockd

    def test_paddockd_dies_during_a_dump(self):
        _, job = self.begin(self.pause)
        self.restart_paddockd()
        time.sleep(0.2)
        os.kill(job, signal.SIGCONT)
        self.check_whole()

    def test_paddockd_dies_during_a_restore(self):
        self.pause()
        _, job = self.begin(self.resume)
        self.restart_paddockd()
        time.sleep(0.2)
        self.assertIn(self.state(), (PAUSED, enum("SANDBOX_STATE_PAUSING")), "it is not taken for lost")
        os.kill(job, signal.SIGCONT)
        self.check_whole()

    def test_paddockd_dies_during_a_snapshot(self):
        _, job = self.begin(self.snapshot)
        self.restart_paddockd()
        time.sleep(0.2)
        os.kill(job, signal.SIGCONT)
        self.check_whole()
        self.assertEqual(self.client.Snapshots.List().snapshots[:], [], "nobody was told of it")

    # -- the warden

    def test_the_warden_dies_during_a_dump(self):
        future, job = self.begin(self.pause)
        self.restart_warden()
        self.assertEqual(code_of(future.result)[0], "UNAVAILABLE")
        self.check_whole()
        self.nothing_is_half_made()

    def test_the_warden_dies_during_a_restore(self):
        self.pause()
        future, job = self.begin(self.resume)
        self.restart_warden()
        self.assertEqual(code_of(future.result)[0], "UNAVAILABLE")
        self.check_whole()

    def test_the_warden_dies_during_a_snapshot(self):
        future, job = self.begin(self.snapshot)
        self.restart_warden()
        self.assertEqual(code_of(future.result)[0], "UNAVAILABLE")
        self.check_whole()
        self.nothing_is_half_made()

    # -- CRIU and the child that watches it

    def die(self, call, find, delay):
        """The call, and the death of a process of it a moment after that appeared. -> the call's status"""
        future = call(later=True)
        with contextlib.suppress(TimeoutError, ProcessLookupError):
            victim = wait_until(lambda: find() or future.done() and [0], 10)[0]
            if victim:
                time.sleep(delay)
                os.kill(victim, signal.SIGKILL)
        return code_of(future.result)

    def test_criu_dies_during_a_restore(self):
        """At any moment up to its end: nothing runs before that is over."""
        said = []
        for i in range(KILLS):
            self.pause()
            said.append(self.die(self.resume, self.criu, 0.06 * i / KILLS))
            self.assertIn(said[-1][0], ("OK", "UNAVAILABLE"), said)
            self.check_whole()
        self.assertTrue([text for _, text in said if "signal 9" in text], said)

    def test_criu_dies_during_a_dump(self):
        """Its code is in the processes then. They are as they were before it, but for one that reaches a trap of that code in the
        moment in which CRIU dies: that ends, the caller hears which, and the others run on."""
        said, ended = [], 0
        for i in range(KILLS):
            said.append(self.die(self.pause, self.criu, 0.06 * i / KILLS))
            code, text = said[-1]
            self.assertTrue(code == "OK" or "CRIU was ended by signal 9" in text, said)
            if "ended with it" in text:
                self.assertRegex(text, r"process [0-9]+ \([a-z]+\) ended with it")
                ended += 1
                self.client.Sandboxes.Kill(sandbox_id=self.box)
                self.setUp()
            self.check_whole()
        self.assertTrue([text for _, text in said if "signal 9" in text], said)
        self.assertLessEqual(ended, 2 + KILLS // 5, said)
        self.nothing_is_half_made()

    def guards(self):
        """Those that watch over a CRIU."""
        return [pid for pid in descendants(self.instance.warden.pid) if set(children(pid)) & set(self.criu())]

    def test_the_guard_dies(self):
        said = []
        for i in range(KILLS):
            code, text = self.die(self.pause, self.guards, 0.04 * i / KILLS)
            said.append((code, text))
            self.assertIn(code, ("OK", "UNAVAILABLE"), said)
            self.check_whole()
        self.assertTrue([s for s in said if s[0] != "OK"], said)
        self.nothing_is_half_made()

    def test_the_job_dies(self):
        said = []
        for i in range(KILLS):
            delay = 0.12 * (i + 1) / KILLS
            for call in (self.pause, self.resume, self.snapshot):
                code, text = self.die(call, self.jobs, delay)
                said.append((call.__name__, code, text))
                self.assertIn(code, ("OK", "FAILED_PRECONDITION", "UNAVAILABLE"), said)
                if (call, code) == (self.snapshot, "OK"):
                    self.client.Snapshots.Remove(snapshot=self.client.Snapshots.List().snapshots[0].id)
                if (call, code) != (self.pause, "OK"):
                    self.check_whole()
        self.assertTrue([s for s in said if s[1] != "OK"], said)
        self.nothing_is_half_made()


@needs_criu
class Deadlines(Deaths):
    """A CRIU that stands still is ended, and the call with it."""
    SETTINGS = {**Deaths.SETTINGS, "warden_options": ("--checkpoint-timeout", "1")}
    LIMITS = {"memory_bytes": 32 << 20}

    def stand_still(self, call):
        future = call(later=True)
        os.kill(wait_until(self.criu, 10, "CRIU")[0], signal.SIGSTOP)
        begin = time.monotonic()
        code, text = code_of(future.result)
        self.assertEqual(code, "DEADLINE_EXCEEDED", text)
        self.assertIn(" in time", text)
        self.assertLess(time.monotonic() - begin, 15)

    def test_a_dump(self):
        self.stand_still(self.pause)
        self.assertEqual(self.state(), RUNNING)
        self.check_whole()
        self.nothing_is_half_made()

    def test_a_restore(self):
        self.pause()
        self.stand_still(self.resume)
        self.assertEqual(self.state(), PAUSED)
        self.check_whole()

    def test_a_snapshot(self):
        self.stand_still(self.snapshot)
        self.check_whole()
        self.nothing_is_half_made()

    def test_in_time(self):
        """Control: the same limits are enough for one that works."""
        self.pause()
        self.check_whole()


def load_tests(loader, tests, pattern):
    """Those of a base class are not run again."""
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(Deaths))
    suite.addTests(Deadlines(name) for name in loader.getTestCaseNames(Deadlines) if name in vars(Deadlines))
    return suite


if __name__ == "__main__":
    tap.main()
