"""What a timeout does: kill, or pause; a paused sandbox that resumes on use; memory of one that is on disk does not count."""
import concurrent.futures
import time

from api import pb
from criu import needs_criu
from own import OwnInstance
from paddock import code_of, enum, wait_until

RUNNING, PAUSED, KILLED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED", "KILLED"))
KILL, PAUSE = enum("TIMEOUT_ACTION_KILL"), enum("TIMEOUT_ACTION_PAUSE")
FREEZE, CHECKPOINT = enum("PAUSE_MODE_FREEZE"), enum("PAUSE_MODE_CHECKPOINT")


@needs_criu
class OnTimeout(OwnInstance):
    def tearDown(self):
        for sandbox in self.client.Sandboxes.List(page_size=1000).sandboxes:
            self.client.Sandboxes.Kill(sandbox_id=sandbox.id)

    def get(self, box):
        return self.client.Sandboxes.Get(sandbox_id=box)

    def wait_for(self, box, state, seconds=10):
        wait_until(lambda: self.get(box).state == state, seconds, "state")
        return self.get(box)

    def test_kill_is_the_default(self):
        made = self.client.create(timeout_ms=1000)
        self.assertEqual((made.on_timeout, made.auto_resume), (KILL, False))
        self.assertEqual(self.wait_for(made.id, KILLED).end_text, "its timeout ran out")

    def test_pause(self):
        made = self.client.create(timeout_ms=1000, on_timeout=PAUSE)
        ticks = self.client.run(made.id, "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done", detach=True).id
        paused = self.wait_for(made.id, PAUSED)
        self.assertEqual((paused.pause_mode, paused.pause_text, paused.expires_unix_ms, paused.on_timeout),
                         (CHECKPOINT, "its timeout ran out", 0, PAUSE))
        self.refused("FAILED_PRECONDITION", lambda: self.client.run(made.id, "true"), "sandbox is paused")
        time.sleep(1.2)
        self.assertEqual(self.get(made.id).state, PAUSED, "it stays so")
        resumed = self.client.Sandboxes.Resume(sandbox_id=made.id)
        self.assertEqual((resumed.state, resumed.pause_text), (RUNNING, ""))
        self.assertAlmostEqual(resumed.expires_unix_ms / 1000, time.time() + 1, delta=0.9)
        self.assertEqual(self.wait_for(made.id, PAUSED).pause_text, "its timeout ran out", "and again")
        longer = self.client.Sandboxes.Resume(sandbox_id=made.id, timeout_ms=60000)
        self.assertAlmostEqual(longer.expires_unix_ms / 1000, time.time() + 60, delta=5)
        listed = [p.process_id for p in self.client.Processes.List(sandbox_id=made.id).processes]
        self.assertIn(ticks, listed)

    def test_a_pause_that_is_kept(self):
        for mode in (FREEZE, CHECKPOINT):
            made = self.client.create(timeout_ms=1500)
            paused = self.client.Sandboxes.Pause(sandbox_id=made.id, mode=mode, keep=True)
            self.assertEqual((paused.expires_unix_ms, paused.pause_text), (0, "paused on request"))
            self.assertEqual(self.client.Sandboxes.SetTimeout(sandbox_id=made.id, timeout_ms=90000).expires_unix_ms, 0)
            time.sleep(1.7)
            self.assertEqual(self.get(made.id).state, PAUSED)
            resumed = self.client.Sandboxes.Resume(sandbox_id=made.id)
            self.assertAlmostEqual(resumed.expires_unix_ms / 1000, time.time() + 90, delta=5)
        control = self.client.create(timeout_ms=1000).id
        self.client.Sandboxes.Pause(sandbox_id=control, mode=CHECKPOINT)
        self.wait_for(control, KILLED)

    def test_resume_on_use(self):
        made = self.client.create(auto_resume=True, timeout_ms=1000, on_timeout=PAUSE)
        self.assertTrue(made.auto_resume)
        self.client.write(made.id, "/tmp/x", b"kept")
        for mode in (FREEZE, CHECKPOINT):
            self.client.Sandboxes.Pause(sandbox_id=made.id, mode=mode, keep=True)
            self.assertEqual(self.client.run(made.id, "cat /tmp/x").out, b"kept")
            now = self.get(made.id)
            self.assertEqual(now.state, RUNNING)
            self.assertAlmostEqual(now.expires_unix_ms / 1000, time.time() + 300, delta=10)
        self.client.Sandboxes.Pause(sandbox_id=made.id, mode=CHECKPOINT, keep=True)
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            calls = [pool.submit(self.client.Files.Stat, sandbox_id=made.id, path=b"/tmp/x") for _ in range(3)]
            calls += [pool.submit(lambda: self.client.read(made.id, "/tmp/x")) for _ in range(3)]
            self.assertEqual([c.result() for c in calls[3:]], [b"kept"] * 3)
            self.assertEqual({c.result().size for c in calls[:3]}, {4})
        self.client.Sandboxes.Pause(sandbox_id=made.id, mode=CHECKPOINT, keep=True)
        self.refused("UNAVAILABLE", lambda: self.client.write(made.id, "/tmp/y", b"y"), "try again")
        wait_until(lambda: code_of(lambda: self.client.write(made.id, "/tmp/y", b"y"))[0] == "OK", 10)

    def test_what_is_use(self):
        box = self.client.create(auto_resume=True).id
        ended = self.client.run(box, "echo kept").id
        sleeper = self.client.run(box, "sleep 1000", detach=True).id
        calls = self.client
        def pause():
            calls.Sandboxes.Pause(sandbox_id=box, mode=CHECKPOINT, keep=True)
        pause()
        self.assertEqual(b"".join(e.output.data for e in calls.Processes.Attach(sandbox_id=box, process_id=ended)), b"kept\n")
        self.assertEqual(calls.Processes.Wait(sandbox_id=box, process_id=ended).exit_code, 0)
        calls.Processes.List(sandbox_id=box)
        calls.Previews.Grant(sandbox_id=box, port=80)
        calls.Previews.List(sandbox_id=box)
        calls.Sandboxes.SetTimeout(sandbox_id=box, timeout_ms=500000)
        calls.Sandboxes.SetIdleTimeout(sandbox_id=box, idle_timeout_ms=500000)
        calls.Sandboxes.GetAccess(sandbox_id=box)
        self.assertEqual(self.get(box).state, PAUSED, "what needs no inside")
        following = calls.Processes.Attach(sandbox_id=box, process_id=sleeper)
        self.wait_for(box, RUNNING)
        following.cancel()
        pause()
        waiting = calls.Processes.Wait(sandbox_id=box, process_id=sleeper, later=True)
        self.wait_for(box, RUNNING)
        pause()
        calls.Processes.Signal(sandbox_id=box, process_id=sleeper, signal=9)
        self.assertEqual(waiting.result().signal, 9)
        for use in (lambda: calls.Files.Stat(sandbox_id=box, path=b"/tmp"), lambda: calls.Files.List(sandbox_id=box, path=b"/tmp"),
                    lambda: calls.Files.MakeDir(sandbox_id=box, path=b"/tmp/d"), lambda: calls.Previews.ListPorts(sandbox_id=box),
                    lambda: next(calls.Files.Watch(sandbox_id=box, path=b"/tmp")), lambda: list(calls.Files.PackArchive(sandbox_id=box, path=b"/tmp/d")),
                    lambda: calls.Snapshots.Remove(snapshot=calls.Snapshots.Create(sandbox_id=box).id)):
            pause()
            use()
            self.assertEqual(self.get(box).state, RUNNING)
        other = self.client.create().id
        sleeper = self.client.run(other, "sleep 1000", detach=True).id
        calls.Sandboxes.Pause(sandbox_id=other)
        following = calls.Processes.Attach(sandbox_id=other, process_id=sleeper)
        time.sleep(0.3)
        self.assertEqual(self.get(other).state, PAUSED, "one that does not resume on use")
        following.cancel()

    def test_a_call_that_waits_can_be_given_up_and_ends_with_it(self):
        made = self.client.create(auto_resume=True)
        self.client.Sandboxes.Pause(sandbox_id=made.id, mode=CHECKPOINT)
        waiting = self.client.Files.Stat(sandbox_id=made.id, path=b"/tmp", later=True)
        waiting.cancel()
        self.assertEqual(self.client.Files.Stat(sandbox_id=made.id, path=b"/tmp").path, b"/tmp")
        self.client.Sandboxes.Pause(sandbox_id=made.id, mode=CHECKPOINT)
        waiting = self.client.Files.Stat(sandbox_id=made.id, path=b"/tmp", later=True)
        self.client.Sandboxes.Kill(sandbox_id=made.id)
        self.assertIn(code_of(waiting.result)[0], ("ABORTED", "FAILED_PRECONDITION", "OK", "UNAVAILABLE"))

    def test_calls_wait_while_a_snapshot_is_taken(self):
        box = self.client.create().id
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for _ in range(3):
                shot = pool.submit(self.client.Snapshots.Create, sandbox_id=box)
                while not shot.done():
                    name, text = code_of(lambda: self.client.Files.Stat(sandbox_id=box, path=b"/tmp"))
                    if name != "OK":  # it had begun when the snapshot did
                        self.assertEqual((name, text), ("UNAVAILABLE", "the sandbox is being paused or copied"))
                self.client.Snapshots.Remove(snapshot=shot.result().id)

    def test_memory_on_disk_does_not_count(self):
        self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(total_memory_bytes=300 << 20))
        try:
            first = self.client.create(resources={"memory_bytes": 200 << 20}).id
            self.refused("RESOURCE_EXHAUSTED", lambda: self.client.create(resources={"memory_bytes": 200 << 20}), "total_memory_bytes")
            self.client.Sandboxes.Pause(sandbox_id=first)
            self.refused("RESOURCE_EXHAUSTED", lambda: self.client.create(resources={"memory_bytes": 200 << 20}), "total_memory_bytes")
            self.client.Sandboxes.Resume(sandbox_id=first)
            self.client.Sandboxes.Pause(sandbox_id=first, mode=CHECKPOINT)
            before = self.instance.admin.Admin.GetStatus().reserved_memory_bytes
            second = self.client.create(resources={"memory_bytes": 200 << 20}).id
            self.assertEqual(self.instance.admin.Admin.GetStatus().reserved_memory_bytes, before + (200 << 20))
            self.refused("RESOURCE_EXHAUSTED", lambda: self.client.Sandboxes.Resume(sandbox_id=first), "total_memory_bytes")
            self.assertEqual(self.get(first).state, PAUSED)
            self.instance.stop_paddockd()
            self.instance.start_paddockd()
            wait_until(lambda: code_of(lambda: self.get(first))[0] == "OK", 10)
            self.refused("RESOURCE_EXHAUSTED", lambda: self.client.Sandboxes.Resume(sandbox_id=first), "total_memory_bytes")
            self.client.Sandboxes.Kill(sandbox_id=second)
            self.assertEqual(self.client.Sandboxes.Resume(sandbox_id=first).state, RUNNING)
            self.refused("RESOURCE_EXHAUSTED", lambda: self.client.create(resources={"memory_bytes": 200 << 20}), "total_memory_bytes")
        finally:
            self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(total_memory_bytes=1 << 50))

    def test_bad_fields_are_named(self):
        self.refused("INVALID_ARGUMENT", lambda: self.client.create(on_timeout=3), "on_timeout:")
