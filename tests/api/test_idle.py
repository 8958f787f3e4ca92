"""The idle timeout: what counts as use, what happens then, and what is recorded of it."""
import json
import time

from criu import needs_criu
from own import OwnInstance
from paddock import code_of, enum, wait_until

RUNNING, PAUSED, KILLED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED", "KILLED"))
IDLE, PAUSE = enum("END_REASON_IDLE"), enum("TIMEOUT_ACTION_PAUSE")
MS = 1500


class Idle(OwnInstance):
    def tearDown(self):
        for sandbox in self.client.Sandboxes.List(page_size=1000).sandboxes:
            self.client.Sandboxes.Kill(sandbox_id=sandbox.id)

    def get(self, box):
        return self.client.Sandboxes.Get(sandbox_id=box)

    def wait_for(self, box, state, seconds=20):
        wait_until(lambda: self.get(box).state == state, seconds, "state")
        return self.get(box)

    def new(self, **fields):
        return self.client.create(timeout_ms=600000, **{"idle_timeout_ms": MS, **fields}).id

    def recorded(self, box, action):
        def find():
            return [r for r in self.client.Audit.List(sandbox_id=box).records if r.action == action]
        wait_until(find, 10, action)
        return find()[0]

    def test_what_is_use_and_what_is_not(self):
        idle, patient, busy, attached, watched = self.new(), self.new(idle_timeout_ms=0), self.new(), self.new(), self.new()
        boxes = (busy, attached, watched)
        self.client.run(idle, "sleep 1000", detach=True)
        self.client.run(busy, "while :; do :; done", detach=True)
        follow = self.client.Processes.Start(sandbox_id=attached, argv=["sleep", "1000"])
        next(follow)
        watch = self.client.Files.Watch(sandbox_id=watched, path=b"/tmp")
        next(watch)
        began = time.time()
        ended = self.wait_for(idle, KILLED)
        self.assertGreaterEqual(time.time() - began, MS / 1000 - 0.5)
        self.assertEqual(ended.end_reason, IDLE)
        self.assertTrue(ended.end_text.startswith("it was idle for 1.5 s: "), ended.end_text)
        self.assertGreater(ended.expires_unix_ms, ended.ended_unix_ms + 500000, "its hard timeout was far away")
        again = self.new()  # a second life of the idle one, to have waited for long enough
        self.wait_for(again, KILLED)
        self.assertEqual([self.get(box).state for box in boxes + (patient,)], [RUNNING] * 4)
        follow.cancel()
        watch.cancel()
        for box in boxes[1:]:
            self.assertEqual(self.wait_for(box, KILLED).end_reason, IDLE)
        self.assertEqual(self.get(busy).state, RUNNING)

    def test_recorded_with_the_reason(self):
        events = self.client.Sandboxes.WatchEvents(deadline=60)
        box = self.new(idle_timeout_ms=1000)
        for event in events:
            if event.sandbox.id == box and event.sandbox.ended_unix_ms:
                break
        events.cancel()
        self.assertEqual((event.sandbox.end_reason, event.sandbox.idle_timeout_ms), (IDLE, 1000))
        self.assertEqual(json.loads(self.recorded(box, "sandbox.expired").detail), {"end_reason": "END_REASON_IDLE"})

    @needs_criu
    def test_pause_and_resume_on_use(self):
        box = self.new(on_timeout=PAUSE, auto_resume=True)
        self.client.write(box, "/tmp/x", b"kept")
        paused = self.wait_for(box, PAUSED)
        self.assertEqual((paused.pause_text, paused.expires_unix_ms, paused.pause_mode),
                         ("it was idle", 0, enum("PAUSE_MODE_CHECKPOINT")))
        self.assertEqual(json.loads(self.recorded(box, "sandbox.paused").detail), {"reason": "idle"})
        self.assertEqual(self.client.read(box, "/tmp/x"), b"kept")
        self.assertEqual(self.get(box).state, RUNNING)
        self.assertEqual(self.wait_for(box, PAUSED).pause_text, "it was idle", "and again")

    def test_set_and_taken_back_and_kept_over_a_restart(self):
        set_to = self.client.Sandboxes.SetIdleTimeout
        stays, goes = self.new(), self.new(idle_timeout_ms=0)
        self.assertEqual(set_to(sandbox_id=stays, idle_timeout_ms=0).idle_timeout_ms, 0)
        self.assertEqual(set_to(sandbox_id=goes, idle_timeout_ms=60000).idle_timeout_ms, 60000)
        self.instance.stop_paddockd()
        self.instance.start_paddockd()
        wait_until(lambda: code_of(lambda: self.get(goes))[0] == "OK", 10)
        self.assertEqual((self.get(stays).idle_timeout_ms, self.get(goes).idle_timeout_ms), (0, 60000))
        set_to(sandbox_id=goes, idle_timeout_ms=1000)
        self.wait_for(goes, KILLED)
        self.assertEqual(self.get(stays).state, RUNNING)
        self.refused("FAILED_PRECONDITION", lambda: set_to(sandbox_id=goes, idle_timeout_ms=1000), "sandbox has ended")
        for bad in (1, 999, 86400001, 2**64 - 1):
            self.refused("INVALID_ARGUMENT", lambda: set_to(sandbox_id=stays, idle_timeout_ms=bad), "idle_timeout_ms:")
            self.refused("INVALID_ARGUMENT", lambda: self.client.create(idle_timeout_ms=bad), "idle_timeout_ms:")
        self.assertEqual(set_to(sandbox_id=stays, idle_timeout_ms=86400000).idle_timeout_ms, 86400000)

    @needs_criu
    def test_copies_inherit_it(self):
        box = self.new(idle_timeout_ms=50000)
        for copy in self.client.Snapshots.Fork(sandbox_id=box, count=1).results:
            self.assertEqual(copy.sandbox.idle_timeout_ms, 50000)
