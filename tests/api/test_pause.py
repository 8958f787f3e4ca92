"""Pause and resume by freezing: nothing moves, nothing is lost, states are linear, restarts keep it."""
import concurrent.futures
import contextlib
import signal
import time
import unittest

from api import Case, Code, Instance, grpc, pb
from criu import COUNTER
from paddock import enum, wait_until

RUNNING, PAUSED, KILLED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED", "KILLED"))
FREEZE = enum("PAUSE_MODE_FREEZE")


def follow_until(client, box, process, lines, deadline=20):
    """Attach from the first byte and read that many lines -> the numbers."""
    events = client.Processes.Attach(sandbox_id=box, process_id=process, deadline=deadline)
    text = b""
    for event in events:
        text += event.output.data
        if text.count(b"\n") >= lines:
            break
    events.cancel()
    return [int(n) for n in text.rsplit(b"\n", 1)[0].split()]


def in_order(numbers):
    return numbers == list(range(len(numbers)))


class Freeze(Case):
    def setUp(self):
        self.client.Sandboxes.Resume(sandbox_id=self.box)

    def pause(self, box=None):
        return self.client.Sandboxes.Pause(sandbox_id=box or self.box)

    def resume(self, box=None, **fields):
        return self.client.Sandboxes.Resume(sandbox_id=box or self.box, **fields)

    def cpu(self):
        return self.client.Sandboxes.GetUsage(sandbox_id=self.box).cpu_usec

    def test_nothing_moves_and_nothing_is_lost(self):
        counter = self.client.run(self.box, COUNTER, detach=True).id
        burner = self.client.run(self.box, "while :; do :; done", detach=True).id
        before = self.cpu()
        wait_until(lambda: self.cpu() > before, 5, "control: it runs before the pause")
        paused = self.pause()
        self.assertEqual((paused.state, paused.pause_mode), (PAUSED, FREEZE))
        self.assertAlmostEqual(paused.paused_unix_ms / 1000, time.time(), delta=5)
        stands = self.cpu()
        time.sleep(0.4)
        self.assertEqual(self.cpu(), stands)
        resumed = self.resume()
        self.assertEqual((resumed.state, resumed.pause_mode, resumed.paused_unix_ms), (RUNNING, 0, 0))
        wait_until(lambda: self.cpu() > stands, 5, "it runs after the resume")
        numbers = follow_until(self.client, self.box, counter, 60)
        self.assertTrue(in_order(numbers), numbers)
        for process in (counter, burner):
            self.client.Processes.Signal(sandbox_id=self.box, process_id=process, signal=9)

    def test_what_needs_the_inside_is_refused(self):
        done = self.client.run(self.box, "echo kept").id
        self.pause()
        for call in (lambda: self.client.run(self.box, "true"),
                     lambda: self.client.Files.Stat(sandbox_id=self.box, path=b"/tmp"),
                     lambda: self.client.write(self.box, "/tmp/x", b"x")):
            self.refused(Code.FAILED_PRECONDITION, call, text="sandbox is paused; resume it first")
        self.assertEqual([s.state for s in self.client.Sandboxes.List().sandboxes], [PAUSED])
        self.assertEqual(follow_output(self.client, self.box, done), b"kept\n")
        self.resume()
        self.kept_alive()

    def test_what_is_under_way_waits(self):
        waits = self.client.Processes.Start(sandbox_id=self.box, argv=["/bin/sh", "-c", "read x; echo got $x"],
                                            open_stdin=True, deadline=20)
        process = next(waits).started.process_id
        waiting = self.client.Processes.Wait(sandbox_id=self.box, process_id=process, later=True)
        self.pause()
        time.sleep(0.2)
        self.assertFalse(waiting.done())
        self.resume()
        self.client.Processes.SendInput(sandbox_id=self.box, process_id=process, data=b"it\n")
        self.assertEqual(waiting.result().exit_code, 0)
        self.assertIn(b"got it\n", [event.output.data for event in waits])

    def test_time_limits_stand_still(self):
        limited = self.client.run(self.box, "sleep 0.8; exit 7", detach=True, timeout_ms=1500).id
        self.pause()
        time.sleep(2)
        self.resume()
        ended = self.client.Processes.Wait(sandbox_id=self.box, process_id=limited)
        self.assertEqual((ended.timed_out, ended.exit_code), (False, 7))
        late = self.client.run(self.box, "sleep 30", timeout_ms=300)
        self.assertTrue(late.exited.timed_out, "control: the limit is there")

    def test_the_sandbox_timeout_goes_on(self):
        box = self.new_box(timeout_ms=2000)
        self.pause(box)
        wait_until(lambda: self.client.Sandboxes.Get(sandbox_id=box).state == KILLED, 10)
        box = self.new_box(timeout_ms=2000)
        self.pause(box)
        self.resume(box, timeout_ms=60000)
        time.sleep(2.5)
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=box).state, RUNNING, "control: extended by Resume")

    def test_fields(self):
        self.invalid("mode", self.client.Sandboxes.Pause, sandbox_id=self.box, mode=99)
        self.invalid("timeout_ms", self.client.Sandboxes.Resume, sandbox_id=self.box, timeout_ms=999)
        self.refused(Code.NOT_FOUND, self.client.Sandboxes.Pause, sandbox_id="i" + "z" * 20)
        self.assertEqual(self.client.Sandboxes.Pause(sandbox_id=self.box, mode=FREEZE).state, PAUSED)
        self.assertEqual(self.pause().state, PAUSED, "twice is once")

    def test_kill_while_paused(self):
        box = self.new_box()
        self.client.run(box, "sleep 600", detach=True)
        self.pause(box)
        self.assertEqual(self.client.Sandboxes.Kill(sandbox_id=box).state, KILLED)
        for call in (self.pause, self.resume):
            self.refused(Code.FAILED_PRECONDITION, call, box, text="sandbox has ended")

    def test_events_and_audit(self):
        box = self.new_box()
        events = self.client.Sandboxes.WatchEvents(sandbox_id=box, deadline=20)
        time.sleep(0.3)
        self.pause(box)
        self.resume(box)
        self.assertEqual([next(events).type for _ in range(2)], [pb.SandboxEvent.TYPE_PAUSED, pb.SandboxEvent.TYPE_RESUMED])
        events.cancel()

        def recorded():
            records = self.client.Audit.List(sandbox_id=box, page_size=100).records
            actions = [r.action.split("/")[-1] for r in records if r.outcome == "OK"]
            return actions.count("Pause"), actions.count("Resume")
        wait_until(lambda: recorded() == (1, 1), 5, "both are in the log a moment later")
        self.assertEqual(recorded(), (1, 1))

    def test_many_at_once(self):
        counter = self.client.run(self.box, COUNTER, detach=True).id
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            states = list(pool.map(lambda i: (self.pause if i % 2 else self.resume)().state, range(80)))
        self.assertTrue(all(state == (PAUSED if i % 2 else RUNNING) for i, state in enumerate(states)), states)
        self.resume()
        self.kept_alive()
        numbers = follow_until(self.client, self.box, counter, 20)
        self.assertTrue(in_order(numbers), numbers)
        self.client.Processes.Signal(sandbox_id=self.box, process_id=counter, signal=9)

    def test_kill_races_with_pause(self):
        for _ in range(5):
            box = self.client.create().id
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                calls = [pool.submit(self.pause, box), pool.submit(self.resume, box),
                         pool.submit(self.client.Sandboxes.Kill, sandbox_id=box)]
            for call in calls[:2]:
                with contextlib.suppress(grpc.RpcError):
                    call.result()
            self.assertEqual(calls[2].result().state, KILLED)

    def test_a_fork_storm_stands_still(self):
        box = self.new_box(resources=pb.Resources(max_pids=200))
        self.client.run(box, "f() { while :; do (setsid sleep 0.01 &) ; done; }; f & f & f & wait", detach=True)
        time.sleep(0.3)
        began = time.monotonic()
        self.pause(box)
        self.assertLess(time.monotonic() - began, 10)
        usage = self.client.Sandboxes.GetUsage(sandbox_id=box).cpu_usec
        time.sleep(0.3)
        self.assertEqual(self.client.Sandboxes.GetUsage(sandbox_id=box).cpu_usec, usage)


def follow_output(client, box, process):
    return b"".join(e.output.data for e in client.Processes.Attach(sandbox_id=box, process_id=process, deadline=20))


class Restart(unittest.TestCase):
    """The daemons end while a sandbox is frozen: it stays so, and resumes."""

    def survive(self, end):
        with Instance() as private:
            client = private.tenant("tenant")
            box = client.create().id
            counter = client.run(box, COUNTER, detach=True).id
            limited = client.run(box, "sleep 0.5; exit 7", detach=True, timeout_ms=1500).id
            client.Sandboxes.Pause(sandbox_id=box)
            end(private)
            time.sleep(2)
            self.assertEqual(wait_until(lambda: get(client, box), 20).state, PAUSED)
            used = client.Sandboxes.GetUsage(sandbox_id=box).cpu_usec
            time.sleep(0.3)
            self.assertEqual(client.Sandboxes.GetUsage(sandbox_id=box).cpu_usec, used, "still frozen")
            wait_until(lambda: resume(client, box), 20)
            ended = client.Processes.Wait(sandbox_id=box, process_id=limited)
            self.assertEqual((ended.timed_out, ended.exit_code), (False, 7))
            numbers = follow_until(client, box, counter, 40)
            self.assertTrue(in_order(numbers), numbers)
            self.assertEqual(client.run(box, "echo new").out, b"new\n")
            client.Sandboxes.Kill(sandbox_id=box)
        self.assertEqual(private.complaints, [])

    def test_paddockd_killed(self):
        def end(private):
            private.stop_paddockd(signal.SIGKILL)
            private.start_paddockd()
        self.survive(end)

    def test_both_killed(self):
        def end(private):
            private.warden.kill()
            private.warden.wait()
            private.stop_paddockd(signal.SIGKILL)
            private.start_warden()
            private.start_paddockd()
        self.survive(end)

    def test_warden_killed(self):
        def end(private):
            private.warden.kill()
            private.warden.wait()
            private.start_warden()
        self.survive(end)


def get(client, box):
    with contextlib.suppress(grpc.RpcError):
        return client.Sandboxes.Get(sandbox_id=box, deadline=2)


def resume(client, box):
    with contextlib.suppress(grpc.RpcError):
        return client.Sandboxes.Resume(sandbox_id=box, deadline=5)
