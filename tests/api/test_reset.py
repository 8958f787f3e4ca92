"""Reset: a sandbox is what it was when it was created, under the same id, and it is never half of anything: at once, while it
is paused or killed, refused, and with the server killed meanwhile or afterwards."""
import concurrent.futures
import signal
import threading
import time

import grpc
from api import Case, Code, attach, pb
from criu import COUNTER, needs_criu
from own import OwnInstance
from paddock import code_of, enum, wait_until

RUNNING, PAUSED, KILLED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED", "KILLED"))
CHECKPOINT = enum("PAUSE_MODE_CHECKPOINT")
REVOKED = enum("PREVIEW_STATE_REVOKED")
LOOK = "cat /home/user/mark /tmp/mark 2>/dev/null; echo end; cat /proc/sys/kernel/random/boot_id"


def reset(client, box, **fields):
    return client.Sandboxes.Reset(sandbox_id=box, **fields)


class Reset(Case):
    SANDBOX = False

    def setUp(self):
        self.box = self.new_box(metadata={"who": "me"}, env={"COLOUR": "red"}, hostname="mine")

    def dirty(self):
        return self.sh("echo m > /home/user/mark; echo m > /tmp/mark; sudo sh -c 'echo other > /etc/issue'; " + LOOK)

    def test_it_is_what_it_was(self):
        issue = self.sh("cat /etc/issue")
        self.assertEqual(self.sh("echo $COLOUR; hostname"), b"red\nmine\n")
        before, token = self.client.Sandboxes.Get(sandbox_id=self.box), self.client.Sandboxes.GetAccess(sandbox_id=self.box)
        dirty = self.dirty()
        self.assertTrue(dirty.startswith(b"m\nm\nend\n"), "control: what is written stays without a reset")
        done = reset(self.client, self.box)
        clean = self.sh(LOOK)
        self.assertTrue(clean.startswith(b"end\n"), clean)
        self.assertNotEqual(clean[-37:], dirty[-37:], "another boot")
        self.assertEqual(self.sh("cat /etc/issue"), issue)
        self.assertEqual(self.sh("echo $COLOUR; hostname"), b"red\nmine\n")
        self.assertAlmostEqual(done.reset_unix_ms / 1000, time.time(), delta=10)
        self.assertEqual((before.reset_unix_ms, done.state), (0, RUNNING))
        for name in ("id", "tenant", "template", "template_name", "created_unix_ms", "hostname", "port_access"):
            self.assertEqual(getattr(done, name), getattr(before, name), name)
        self.assertEqual((dict(done.metadata), done.resources), (dict(before.metadata), before.resources))
        self.assertEqual(self.client.Sandboxes.GetAccess(sandbox_id=self.box), token)
        self.assertEqual([s.id for s in self.client.Sandboxes.List().sandboxes], [self.box])
        self.assertEqual(self.client.Sandboxes.GetQuota().sandboxes, 1)

    def test_again_and_again(self):
        for _ in range(5):
            self.assertTrue(self.dirty().startswith(b"m\nm\n"))
            reset(self.client, self.box)
            self.assertTrue(self.sh(LOOK).startswith(b"end\n"))
        self.assertGreater(self.client.Sandboxes.GetUsage(sandbox_id=self.box).pids, 0)
        self.assertGreater(len(self.client.Sandboxes.GetMetrics(sandbox_id=self.box).samples), 0)
        wait_until(lambda: self.admin.Admin.GetStatus().sandboxes == len(self.admin.Sandboxes.List(all_tenants=True).sandboxes), 10)

    def test_what_ran_ends(self):
        events = self.client.Processes.Start(sandbox_id=self.box, argv=["/bin/sh", "-c", COUNTER], deadline=30)
        process = next(events).started.process_id
        waiting = self.client.Processes.Wait(sandbox_id=self.box, process_id=process, later=True)
        while next(events).output.data.find(b"5") < 0:
            pass
        self.client.run(self.box, "sleep 600", detach=True)
        reset(self.client, self.box)
        exits = [event.exited for event in events if event.WhichOneof("event") == "exited"]
        self.assertEqual([e.sandbox_ended for e in exits], [True])
        self.assertTrue(waiting.result().sandbox_ended)
        self.assertEqual(len(self.client.Processes.List(sandbox_id=self.box, include_ended=True).processes), 0)
        self.refused(Code.NOT_FOUND, self.client.Processes.Attach, sandbox_id=self.box, process_id=process)
        self.assertEqual(self.sh("ps -e | grep -c slee[p] || true"), b"0\n")
        self.assertGreater(self.client.run(self.box, "true").started.process_id, process, "numbers are not used again")

    def test_what_is_under_way_ends(self):
        watch = self.client.Files.Watch(sandbox_id=self.box, path=b"/home/user", deadline=30)
        next(watch)
        reset(self.client, self.box)
        self.refused(Code.UNAVAILABLE, lambda: list(watch), text="the sandbox was reset")
        self.client.write(self.box, "/home/user/new", b"x")
        self.assertEqual(self.client.read(self.box, "/home/user/new"), b"x")

    def test_grants_of_previews_are_void(self):
        grant = self.client.Previews.Grant(sandbox_id=self.box, port=8000, ttl_ms=600000)
        reset(self.client, self.box)
        self.assertEqual([(p.id, p.state) for p in self.client.Previews.List(sandbox_id=self.box).previews],
                         [(grant.id, REVOKED)])
        again = self.client.Previews.Grant(sandbox_id=self.box, port=8000, ttl_ms=600000)
        self.assertEqual([p.id for p in self.client.Previews.List(sandbox_id=self.box, active_only=True).previews], [again.id])

    def test_timeout_and_ports(self):
        box = self.new_box(timeout_ms=100000)
        time.sleep(1.1)
        left = lambda sandbox: sandbox.expires_unix_ms / 1000 - time.time()
        self.assertLess(left(self.client.Sandboxes.Get(sandbox_id=box)), 99)
        self.assertAlmostEqual(left(reset(self.client, box)), 100, delta=0.9)
        done = reset(self.client, box, timeout_ms=2000, port_access=enum("PORT_ACCESS_TOKEN"))
        self.assertEqual(done.port_access, enum("PORT_ACCESS_TOKEN"))
        wait_until(lambda: self.client.Sandboxes.Get(sandbox_id=box).state == KILLED, 10)

    def test_a_frozen_one_runs_afterwards(self):
        self.dirty()
        self.client.Sandboxes.Pause(sandbox_id=self.box)
        done = reset(self.client, self.box)
        self.assertEqual((done.state, done.pause_mode, done.paused_unix_ms), (RUNNING, 0, 0))
        self.assertTrue(self.sh(LOOK).startswith(b"end\n"))
        self.assertEqual(self.client.Sandboxes.Pause(sandbox_id=self.box).state, PAUSED)
        self.assertEqual(self.client.Sandboxes.Resume(sandbox_id=self.box).state, RUNNING)

    def test_refusals(self):
        self.invalid("timeout_ms", reset, self.client, self.box, timeout_ms=999)
        self.invalid("port_access", reset, self.client, self.box, port_access=9)
        for id in ("i" + "z" * 20, "", "../x"):
            self.refused(Code.NOT_FOUND, reset, self.client, id, text="sandbox not found")
        stranger = self.instance.tenant(self.tenant + "-stranger")
        self.refused(Code.NOT_FOUND, reset, stranger, self.box, text="sandbox not found")
        self.refused(Code.PERMISSION_DENIED, reset, self.instance.with_key(self.tenant, ("read",)), self.box)
        self.dirty()
        self.assertTrue(self.sh(LOOK).startswith(b"m\nm\n"), "as it was")
        self.client.Sandboxes.Kill(sandbox_id=self.box)
        self.refused(Code.FAILED_PRECONDITION, reset, self.client, self.box, text="sandbox has ended")

    def test_many_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            codes = list(pool.map(lambda _: code_of(lambda: reset(self.client, self.box))[0], range(12)))
        self.assertIn("OK", codes)
        self.assertLessEqual(set(codes), {"OK", "ABORTED", "UNAVAILABLE"})
        self.assertTrue(self.sh(LOOK).startswith(b"end\n"))

    def test_against_everything_else(self):
        """Pauses, resumes, snapshots of nothing, kills: each call has an answer, and the sandbox is whole."""
        def other():
            for _ in range(8):
                code_of(lambda: self.client.Sandboxes.Pause(sandbox_id=self.box))
                code_of(lambda: self.client.Sandboxes.Resume(sandbox_id=self.box))
        thread = threading.Thread(target=other)
        thread.start()
        codes = [code_of(lambda: reset(self.client, self.box))[0] for _ in range(20)]
        thread.join()
        self.assertLessEqual(set(codes), {"OK", "ABORTED", "UNAVAILABLE"})
        self.assertEqual(self.client.Sandboxes.Resume(sandbox_id=self.box).state, RUNNING)
        reset(self.client, self.box)
        self.assertTrue(self.sh(LOOK).startswith(b"end\n"))
        for pause in (0, 0.002, 0.01):
            box = self.client.create().id
            waiting = self.client.Sandboxes.Reset(sandbox_id=box, later=True)
            time.sleep(pause)
            self.assertEqual(self.client.Sandboxes.Kill(sandbox_id=box).state, KILLED)
            try:
                waiting.result()
            except grpc.RpcError as error:
                self.assertIn(error.code(), (Code.ABORTED, Code.FAILED_PRECONDITION))

    def test_events_and_audit(self):
        events = self.client.Sandboxes.WatchEvents(sandbox_id=self.box, deadline=20)
        time.sleep(0.3)
        done = reset(self.client, self.box)
        event = next(events)
        self.assertEqual((event.type, event.sandbox.reset_unix_ms), (pb.SandboxEvent.TYPE_RESET, done.reset_unix_ms))
        events.cancel()
        records = self.client.Audit.List(sandbox_id=self.box, page_size=100).records
        actions = [r.action.split("/")[-1] for r in records if r.outcome == "OK"]
        self.assertEqual((actions.count("Reset"), actions.count("sandbox.reset"), actions.count("sandbox.adopted")), (1, 1, 0))


class Quotas(Case):
    QUOTA = {"max_sandboxes": 1, "total_memory_bytes": 512 << 20, "max_memory_bytes": 512 << 20, "creates_per_minute": 4}

    def test_it_needs_no_room_of_its_owner(self):
        self.refused(Code.RESOURCE_EXHAUSTED, self.client.create, text="tenant quota max_sandboxes")
        usage = self.client.Sandboxes.GetQuota()
        self.assertEqual((usage.sandboxes, usage.memory_bytes, usage.quota.max_sandboxes), (1, 512 << 20, 1))
        reset(self.client, self.box)
        after = self.client.Sandboxes.GetQuota()
        self.assertEqual((after.sandboxes, after.memory_bytes, after.disk_bytes, after.cpu_millis),
                         (usage.sandboxes, usage.memory_bytes, usage.disk_bytes, usage.cpu_millis))
        self.refused(Code.RESOURCE_EXHAUSTED, lambda: [reset(self.client, self.box) for _ in range(8)],
                     text="tenant quota creates_per_minute")


@needs_criu
class Memory(OwnInstance):
    SETTINGS = {"template": "base", "pool": "20G"}

    def setUp(self):
        self.box = self.client.create(env={"COLOUR": "red"}).id

    def tearDown(self):
        for sandbox in self.client.Sandboxes.List(page_size=1000).sandboxes:
            self.client.Sandboxes.Kill(sandbox_id=sandbox.id)
        for snapshot in self.client.Snapshots.List(page_size=1000).snapshots:
            self.client.Snapshots.Remove(snapshot=snapshot.id)

    def sh(self, box, script):
        return self.client.run(box, "/bin/sh", "-c", script).out

    def copy(self, **fields):
        """-> a copy of a snapshot with a file and a counter, the counter, and how far it was."""
        self.sh(self.box, "echo snapshot > /home/user/mark")
        counter = self.client.run(self.box, COUNTER, detach=True).id
        attach(self.client, self.box, counter, 30)
        shot = self.client.Snapshots.Create(sandbox_id=self.box, name="one")
        return self.client.create(snapshot=shot.id, **fields).id, counter

    def test_to_the_snapshot_with_its_processes(self):
        copy, counter = self.copy()
        for _ in range(2):
            self.sh(copy, "echo changed > /home/user/mark; echo more > /home/user/more; sleep 0.5")
            late = int(attach(self.client, copy, counter, 40)[1][-1])
            boot = self.sh(copy, "cat /proc/sys/kernel/random/boot_id")
            reset(self.client, copy)
            self.assertEqual(self.sh(copy, "cat /home/user/*; echo $COLOUR"), b"snapshot\nred\n")
            processes = self.client.Processes.List(sandbox_id=copy).processes
            self.assertEqual([p.process_id for p in processes], [counter])
            missing, lines = attach(self.client, copy, counter, 3)
            self.assertTrue(0 < missing and int(lines[0]) < late, (missing, lines[0], late))
            numbers = [int(n) for n in lines[1:]]
            self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
            self.assertNotEqual(self.sh(copy, "cat /proc/sys/kernel/random/boot_id"), boot)

    def test_files_only_stay_so(self):
        copy, _ = self.copy(files_only=True)
        self.sh(copy, "echo changed > /home/user/mark")
        reset(self.client, copy)
        self.assertEqual(self.sh(copy, "cat /home/user/mark"), b"snapshot\n")
        self.assertEqual(len(self.client.Processes.List(sandbox_id=copy).processes), 0)

    def test_what_is_gone_is_said(self):
        copy, _ = self.copy()
        fork = self.client.Snapshots.Fork(sandbox_id=self.box).results[0].sandbox.id
        self.client.Snapshots.Remove(snapshot="one")
        for box in (copy, fork):
            said = code_of(lambda b=box: reset(self.client, b))
            self.assertEqual(said[0], "FAILED_PRECONDITION", said)
            self.assertIn("is not there any more", said[1])
            self.assertEqual(self.sh(box, "cat /home/user/mark"), b"snapshot\n", "as it was")
        reset(self.client, self.box)
        self.assertEqual(self.sh(self.box, "ls /home/user"), b"", "control: of its template")

    def test_one_on_disk(self):
        self.sh(self.box, "echo m > /home/user/mark")
        self.client.Sandboxes.Pause(sandbox_id=self.box, mode=CHECKPOINT)
        less = self.client.Sandboxes.GetQuota().memory_bytes
        self.assertEqual(reset(self.client, self.box).state, RUNNING)
        self.assertEqual(self.sh(self.box, "ls /home/user"), b"")
        self.assertEqual((less, self.client.Sandboxes.GetQuota().memory_bytes), (0, 512 << 20))
        self.sh(self.box, "echo after > /home/user/mark")
        self.client.Sandboxes.Pause(sandbox_id=self.box, mode=CHECKPOINT)
        self.assertEqual(self.client.Sandboxes.Resume(sandbox_id=self.box).state, RUNNING)
        self.assertEqual(self.sh(self.box, "cat /home/user/mark"), b"after\n")

    def restart(self, sig=signal.SIGKILL, warden=False):
        if warden:
            self.instance.warden.kill()
            self.instance.warden.wait(20)
        self.instance.stop_paddockd(sig)
        if warden:
            self.instance.start_warden()
        self.instance.start_paddockd()

    def test_restarts(self):
        copy, counter = self.copy()
        for box in (self.box, copy):
            self.sh(box, "echo dirty > /home/user/mark")
            reset(self.client, box)
            self.sh(box, "echo after > /home/user/after")
        for options in ({}, {"sig": signal.SIGTERM}, {"warden": True}):
            self.restart(**options)
            wait_until(lambda: {code_of(lambda b=b: self.client.run(b, "true"))[0] for b in (self.box, copy)} == {"OK"}, 20)
            self.assertEqual(self.sh(self.box, "cat /home/user/*"), b"after\n")
            self.assertEqual(self.sh(copy, "cat /home/user/*"), b"after\nsnapshot\n")
            self.assertEqual([p.process_id for p in self.client.Processes.List(sandbox_id=copy).processes], [counter])
        self.client.Sandboxes.Pause(sandbox_id=copy, mode=CHECKPOINT)
        self.restart()
        # A new warden verifies the template first.
        wait_until(lambda: code_of(lambda: self.client.Sandboxes.Resume(sandbox_id=copy))[0] == "OK", 20)
        self.assertEqual(self.sh(copy, "cat /home/user/after"), b"after\n")
        reset(self.client, copy)
        self.assertEqual(self.sh(copy, "cat /home/user/*"), b"snapshot\n")
        self.assertEqual(self.instance.admin.Admin.GetStatus().sandboxes, 2)

    def test_the_server_dies_meanwhile(self):
        """Whenever it is: the old one or the new one is there, whole."""
        for i, wait in enumerate((0, 0.003, 0.006, 0.01, 0.015, 0.02, 0.04, 0.005, 0.012)):
            self.sh(self.box, "echo old > /home/user/mark")
            process = self.client.run(self.box, "sleep 600", detach=True).id
            call = self.client.Sandboxes.Reset(sandbox_id=self.box, later=True)
            time.sleep(wait)
            self.restart(warden=i % 3 == 2)
            acknowledged = call.code() == Code.OK
            wait_until(lambda: code_of(lambda: self.client.run(self.box, "true"))[0] == "OK", 20)
            mark = self.sh(self.box, "cat /home/user/mark 2>/dev/null")
            running = [p.process_id for p in self.client.Processes.List(sandbox_id=self.box).processes]
            self.assertIn((mark, running), ((b"", []), (b"old\n", [process])), wait)
            if acknowledged:
                self.assertEqual(mark, b"", "what was acknowledged is durable")
            self.assertEqual(self.instance.admin.Admin.GetStatus().sandboxes, 1)
            reset(self.client, self.box)
