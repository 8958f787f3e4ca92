"""Snapshots and forks: the source goes on, copies go on where it was and are sandboxes of their own, records and quotas
are true, every documented error comes, and restarts lose nothing and leave nothing."""
import concurrent.futures
import signal
import subprocess
import time
import unittest

import grpc
from api import Instance, attach, pb
from criu import COUNTER, needs_criu
from own import OwnInstance
from paddock import code_of, enum, wait_until

RUNNING, PAUSED, KILLED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED", "KILLED"))
CHECKPOINT = enum("PAUSE_MODE_CHECKPOINT")

# Holds 60 MB, counts, and answers on a port.
SERVER = r"""
import http.server, os, threading, time
heap = [bytes([i]) * 1048576 for i in range(60)]
ticks = [0]
def tick():
    while True:
        ticks[0] += 1
        time.sleep(0.01)
threading.Thread(target=tick, daemon=True).start()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"{os.getpid()} {ticks[0]} {sum(b[-1] for b in heap)}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *unused):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""
# A connection that waits to be accepted cannot be stored.
IN_FLIGHT = "import socket, time\ns = socket.create_server(('127.0.0.1', 7))\n" \
            "c = socket.create_connection(('127.0.0.1', 7))\nprint('up', flush=True)\ntime.sleep(1000)"
ASK = "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8000\").read().decode())'"


class Base(OwnInstance):
    SETTINGS = {"template": "base", "pool": "20G"}

    def setUp(self):
        self.box = self.new()

    def tearDown(self):
        for sandbox in self.client.Sandboxes.List(page_size=1000).sandboxes:
            self.client.Sandboxes.Kill(sandbox_id=sandbox.id)
        for snapshot in self.client.Snapshots.List(page_size=1000).snapshots:
            self.client.Snapshots.Remove(snapshot=snapshot.id)

    def new(self, **fields):
        return self.client.create(**fields).id

    def take(self, **fields):
        return self.client.Snapshots.Create(sandbox_id=fields.pop("sandbox_id", self.box), **fields)



@needs_criu
class Snapshots(Base):
    def test_the_source_goes_on(self):
        counter = self.client.run(self.box, COUNTER, detach=True).id
        time.sleep(0.2)
        shot = self.take(name="one")
        self.assertEqual((shot.sandbox_id, shot.name, shot.tenant, shot.processes), (self.box, "one", "tenant", 1))
        self.assertTrue(0 < shot.stopped_us < 3_000_000, shot.stopped_us)
        self.assertGreater(shot.memory_bytes, 100_000)
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=self.box).state, RUNNING)
        missing, lines = attach(self.client, self.box, counter, 40)
        self.assertEqual((missing, [int(n) for n in lines]), (0, list(range(len(lines)))))
        self.assertEqual(self.client.run(self.box, "echo new").out, b"new\n")

    def test_a_copy_goes_on_where_it_was(self):
        self.client.run(self.box, "echo home > h; echo tmp > /tmp/t; echo $TOKEN", env={})
        server = self.client.run(self.box, "python3", "-c", SERVER, detach=True).id
        cat = self.client.run(self.box, "cat", open_stdin=True, detach=True).id
        counter = self.client.run(self.box, COUNTER, detach=True).id
        wait_until(lambda: self.client.run(self.box, ASK).code == 0, 20)
        pid, before, heap = self.client.run(self.box, ASK).out.split()
        shot = self.take()
        after = self.client.run(self.box, ASK).out.split()
        self.client.Sandboxes.Kill(sandbox_id=self.box)
        copies = [self.new(snapshot=shot.id) for _ in range(2)]
        for copy in copies:
            answer = self.client.run(copy, ASK).out.split()
            self.assertEqual((answer[0], answer[2]), (pid, heap), "same pid, same memory")
            self.assertLess(int(before), int(answer[1]))
            self.assertEqual(self.client.run(copy, "cat h /tmp/t").out, b"home\ntmp\n")
            listed = {p.process_id for p in self.client.Processes.List(sandbox_id=copy).processes}
            self.assertTrue({server, cat, counter} <= listed, listed)
            missing, lines = attach(self.client, copy, counter, 30)
            numbers = [int(n) for n in lines]
            self.assertGreater(missing, 0, "output of the source is not inherited")
            self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))), "but goes on from there")
        self.client.run(copies[0], "echo mine > h")
        self.assertEqual(self.client.run(copies[1], "cat h").out, b"home\n", "each has files of its own")
        self.client.Processes.SendInput(sandbox_id=copies[1], process_id=cat, data=b"in\n")
        self.client.Processes.CloseStdin(sandbox_id=copies[1], process_id=cat)
        self.assertEqual(self.client.Processes.Wait(sandbox_id=copies[1], process_id=cat).exit_code, 0)
        self.assertEqual(attach(self.client, copies[1], cat, 1)[1], [b"in"])
        self.assertGreater(int(after[1]), int(before))

    def test_identity_differs(self):
        machine = "cat /etc/machine-id 2>/dev/null; true"
        self.client.run(self.box, "echo 0123456789abcdef0123456789abcdef > /etc/machine-id", user="root")
        shot = self.take()
        boxes = [self.box] + [self.new(snapshot=shot.id) for _ in range(2)]
        self.assertEqual(len({self.client.run(b, "hostname").out for b in boxes}), 3)
        self.assertEqual(len({self.client.run(b, machine).out for b in boxes}), 3)
        boot = "cat /proc/sys/kernel/random/boot_id"
        boots = [self.client.run(b, boot).out for b in boxes]
        for one in boots:
            self.assertRegex(one, b"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n$")
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            self.assertEqual(len({*boots, file.read()}), 4, "nor is it the host's")
        self.client.Sandboxes.Pause(sandbox_id=boxes[1], mode=enum("PAUSE_MODE_CHECKPOINT"))
        self.client.Sandboxes.Resume(sandbox_id=boxes[1])
        self.assertEqual(self.client.run(boxes[1], boot).out, boots[1], "a pause is no boot")
        for attempt in ("echo x > /proc/sys/kernel/random/boot_id", "umount /proc/sys/kernel/random/boot_id",
                        "mount -o remount,bind,rw /proc/sys/kernel/random/boot_id"):
            for box in (boxes[0], boxes[1]):
                self.assertNotEqual(self.client.run(box, "/bin/sh", "-c", attempt, user="root").code, 0, attempt)
        self.assertEqual([self.client.run(b, boot).out for b in boxes], boots)
        self.assertIn(b" ro,", self.client.run(boxes[1], "grep boot_id /proc/self/mountinfo").out, "restored as it was made")
        self.assertEqual(len({self.client.run(b, "head -c 16 /dev/urandom | od -t x1").out for b in boxes}), 3)
        self.assertEqual(len({self.client.Sandboxes.GetAccess(sandbox_id=b).access_token for b in boxes}), 3)
        self.assertEqual(len({self.range_of(b) for b in boxes}), 3, "each has user ids of its own")
        named = self.new(snapshot=shot.id, hostname="other")
        self.assertEqual(self.client.run(named, "hostname").out, b"other\n")

    def range_of(self, box):
        leaf = subprocess.run(["find", "/sys/fs/cgroup", "-type", "d", "-name", box], capture_output=True, text=True).stdout.split()[0]
        with open(leaf + "/cgroup.procs") as f:
            pid = f.readline().strip()
        with open(f"/proc/{pid}/uid_map") as f:
            return f.read().split()[1]

    def test_environment_limits_and_labels(self):
        box = self.new(env={"KEPT": "old", "CHANGED": "old"}, metadata={"a": "b"}, resources={"max_pids": 77, "memory_bytes": 300 << 20})
        shot = self.take(sandbox_id=box)
        self.assertEqual(shot.resources.max_pids, 77)
        made = self.client.create(snapshot=shot.id, env={"CHANGED": "new"}, metadata={"c": "d"}, resources={"max_pids": 99})
        self.assertEqual((made.resources.max_pids, made.resources.memory_bytes), (99, 300 << 20))
        self.assertEqual(dict(made.metadata), {"c": "d"})
        self.assertEqual(self.client.run(made.id, "echo $KEPT $CHANGED").out, b"old new\n")
        limits = self.client.run(made.id, "cat /proc/self/status | grep -E 'Seccomp:|NoNewPrivs'").out
        self.assertIn(b"NoNewPrivs:\t1", limits)
        self.assertIn(b"Seccomp:\t2", limits)

    def test_list_get_remove(self):
        shots = [self.take(name=f"shot-{i}" if i else "") for i in range(3)]
        ids = [s.id for s in shots]
        listed = self.client.Snapshots.List()
        self.assertEqual([s.id for s in listed.snapshots], ids[::-1])
        first = self.client.Snapshots.List(page_size=2)
        rest = self.client.Snapshots.List(page_size=2, page_token=first.next_page_token)
        self.assertEqual([s.id for s in list(first.snapshots) + list(rest.snapshots)], ids[::-1])
        self.assertEqual(rest.next_page_token, "")
        self.assertEqual([s.id for s in self.client.Snapshots.List(name="shot-1").snapshots], [ids[1]])
        self.assertEqual(self.client.Snapshots.List(sandbox_id="i" + "a" * 20).snapshots[:], [])
        self.assertEqual(self.client.Snapshots.Get(snapshot="shot-2").id, ids[2])
        self.assertEqual(self.client.Snapshots.Get(snapshot=ids[2]), shots[2])
        self.client.Snapshots.Remove(snapshot="shot-1")
        self.refused("NOT_FOUND", lambda: self.client.Snapshots.Get(snapshot=ids[1]), "snapshot not found")
        self.refused("NOT_FOUND", lambda: self.client.Snapshots.Remove(snapshot=ids[1]), "snapshot not found")
        self.refused("NOT_FOUND", lambda: self.new(snapshot=ids[1]), "snapshot not found")
        self.take(name="shot-1")

    def test_other_tenants_do_not_see_it(self):
        shot = self.take(name="private")
        other = self.instance.tenant("other")
        for call in (lambda: other.Snapshots.Get(snapshot=shot.id), lambda: other.Snapshots.Get(snapshot="private"),
                     lambda: other.Snapshots.Remove(snapshot=shot.id), lambda: other.create(snapshot=shot.id)):
            self.refused("NOT_FOUND", call, "snapshot not found")
        for call in (lambda: other.Snapshots.Create(sandbox_id=self.box), lambda: other.Snapshots.Fork(sandbox_id=self.box)):
            self.refused("NOT_FOUND", call, "sandbox not found")
        self.assertEqual(other.Snapshots.List().snapshots[:], [])
        self.assertEqual(self.instance.admin.Snapshots.Get(snapshot=shot.id).id, shot.id, "control: the operator does")

    def test_bad_fields_are_named(self):
        shot = self.take()
        for text, call in (("name:", lambda: self.take(name="No Spaces")), ("name:", lambda: self.take(name="s" + "a" * 20)),
                           ("ttl_ms:", lambda: self.take(ttl_ms=999)), ("ttl_ms:", lambda: self.take(ttl_ms=31_536_000_001)),
                           ("count:", lambda: self.client.Snapshots.Fork(sandbox_id=self.box, count=101)),
                           ("timeout_ms:", lambda: self.client.Snapshots.Fork(sandbox_id=self.box, timeout_ms=1)),
                           ("page_size:", lambda: self.client.Snapshots.List(page_size=1001)),
                           ("page_token:", lambda: self.client.Snapshots.List(page_token="ab" * 45)),
                           ("snapshot:", lambda: self.client.Snapshots.Get(snapshot="x" * 129)),
                           ("template:", lambda: self.new(snapshot=shot.id, template="base")),
                           ("resources.memory_bytes:", lambda: self.new(snapshot=shot.id, resources={"memory_bytes": 1}))):
            self.refused("INVALID_ARGUMENT", call, text)

    def test_names_are_unique_and_states_are_checked(self):
        self.take(name="same")
        self.refused("ALREADY_EXISTS", lambda: self.take(name="same"), "name:")
        self.client.Sandboxes.Pause(sandbox_id=self.box)
        self.refused("FAILED_PRECONDITION", self.take, "paused")
        self.client.Sandboxes.Resume(sandbox_id=self.box)
        self.take()
        self.client.Sandboxes.Kill(sandbox_id=self.box)
        self.refused("FAILED_PRECONDITION", self.take, "ended")

    def test_quotas(self):
        self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(max_snapshots=2))
        self.take()
        self.take()
        self.refused("RESOURCE_EXHAUSTED", self.take, "max_snapshots")
        self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(max_snapshots=100))
        used = sum(s.memory_bytes + s.disk_bytes for s in self.client.Snapshots.List().snapshots)
        disk = self.client.Sandboxes.Get(sandbox_id=self.box).resources.disk_bytes
        memory = self.client.Sandboxes.Get(sandbox_id=self.box).resources.memory_bytes
        self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(total_disk_bytes=used + disk + memory - 1))
        self.refused("RESOURCE_EXHAUSTED", self.take, "total_disk_bytes")
        self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(total_disk_bytes=used + disk + memory))
        self.take()
        self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(total_disk_bytes=1 << 50))

    def test_it_expires(self):
        shot = self.take(ttl_ms=1000)
        self.assertAlmostEqual(shot.expires_unix_ms / 1000, time.time() + 1, delta=1)
        wait_until(lambda: code_of(lambda: self.client.Snapshots.Get(snapshot=shot.id))[0] == "NOT_FOUND", 5)
        wait_until(lambda: not self.pool("snapshots"), 5, "its files are gone")

    def pool(self, folder):
        return subprocess.run(["nsenter", "-m", "-t", str(self.instance.warden.pid), "ls",
                               f"{self.instance.run}/pool/{folder}"], capture_output=True, text=True, check=True).stdout.split()

    def test_a_damaged_snapshot_is_refused(self):
        shot = self.take()
        good = self.new(snapshot=shot.id)
        images = f"{self.instance.run}/pool/snapshots/{shot.id}"

        def sh(script):
            subprocess.run(["nsenter", "-m", "-t", str(self.instance.warden.pid), "sh", "-c", script], check=True)
        sh(f"btrfs property set {images} ro false; printf X | dd of={images}/pages-1.img bs=1 seek=5000 conv=notrunc status=none; "
           f"sync -f {images}; btrfs property set {images} ro true")
        self.refused("DATA_LOSS", lambda: self.new(snapshot=shot.id), "pages-1.img")
        self.assertEqual(self.client.run(good, "echo ok").out, b"ok\n", "the copy that was made before is not touched")
        self.assertEqual([s.id for s in self.client.Sandboxes.List().sandboxes if s.id not in (good, self.box)], [])

    def test_what_cannot_be_stored_is_named_and_runs_on(self):
        worker = self.client.run(self.box, "python3", "-c", IN_FLIGHT, user="root", detach=True).id
        attach(self.client, self.box, worker, 1)
        self.refused("FAILED_PRECONDITION", self.take, "(python3): ")
        self.refused("FAILED_PRECONDITION", lambda: self.client.Snapshots.Fork(sandbox_id=self.box), "n-flight connection")
        self.assertEqual(self.client.run(self.box, "echo on").out, b"on\n")
        self.assertEqual(self.pool("snapshots"), [])
        self.client.Processes.Signal(sandbox_id=self.box, process_id=worker, signal=9)
        self.take()

    def test_a_timeout_freezes_what_cannot_be_stored(self):
        box = self.new(timeout_ms=2000, on_timeout=enum("TIMEOUT_ACTION_PAUSE"))
        self.client.run(box, "python3", "-c", IN_FLIGHT, user="root", detach=True)
        wait_until(lambda: self.client.Sandboxes.Get(sandbox_id=box).state == PAUSED, 10)
        paused = self.client.Sandboxes.Get(sandbox_id=box)
        self.assertEqual((paused.pause_mode, paused.pause_text, paused.expires_unix_ms),
                         (enum("PAUSE_MODE_FREEZE"), "its timeout ran out", 0))
        self.assertEqual(self.client.Sandboxes.Resume(sandbox_id=box, timeout_ms=60000).state, RUNNING)
        any_mode = self.client.Sandboxes.Pause(sandbox_id=box, mode=enum("PAUSE_MODE_ANY"))
        self.assertEqual(any_mode.pause_mode, enum("PAUSE_MODE_FREEZE"))
        any_mode = self.client.Sandboxes.Pause(sandbox_id=self.box, mode=enum("PAUSE_MODE_ANY"))
        self.assertEqual(any_mode.pause_mode, CHECKPOINT, "control")

    def test_two_at_once_and_a_pause_meanwhile(self):
        self.client.run(self.box, "python3", "-c", SERVER, detach=True)
        wait_until(lambda: self.client.run(self.box, ASK).code == 0, 20)
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            shots = [pool.submit(code_of, self.take) for _ in range(2)]
            time.sleep(0.03)
            paused = pool.submit(self.client.Sandboxes.Pause, sandbox_id=self.box)
            names = [s.result()[0] for s in shots]
            self.assertEqual(paused.result().state, PAUSED)
        self.assertIn("OK", names)
        self.assertTrue(set(names) <= {"OK", "ABORTED", "UNAVAILABLE", "FAILED_PRECONDITION"}, names)
        self.client.Sandboxes.Resume(sandbox_id=self.box)
        self.assertEqual(self.client.run(self.box, ASK).code, 0)

    def test_fork(self):
        self.client.run(self.box, "python3", "-c", SERVER, detach=True)
        wait_until(lambda: self.client.run(self.box, ASK).code == 0, 20)
        reply = self.client.Snapshots.Fork(sandbox_id=self.box, count=5, timeout_ms=60000)
        self.assertEqual([r.code for r in reply.results], [0] * 5, reply)
        self.assertGreater(reply.stopped_us, 0)
        boxes = [r.sandbox.id for r in reply.results]
        self.assertEqual(len(set(boxes)), 5)
        answers = {self.client.run(box, ASK).out.split()[0] for box in boxes + [self.box]}
        self.assertEqual(len(answers), 1)
        self.assertEqual(self.client.Snapshots.List().snapshots[:], [], "its own snapshot is nobody's business")
        wait_until(lambda: not self.pool("snapshots"), 5, "and goes with it")
        again = self.client.Snapshots.Fork(sandbox_id=boxes[0])
        self.assertEqual(self.client.run(again.results[0].sandbox.id, ASK).code, 0, "a copy of a copy")

    def test_a_fork_tells_what_failed(self):
        self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=3))
        try:
            reply = self.client.Snapshots.Fork(sandbox_id=self.box, count=4)
        finally:
            self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=1000))
        self.assertEqual(sorted(bool(r.code) for r in reply.results), [False, False, True, True])
        failed = [r for r in reply.results if r.code]
        self.assertTrue(all(len(r.access_token) == 64 for r in reply.results if not r.code))
        self.assertTrue(all(r.code == 8 and "max_sandboxes" in r.message and not r.HasField("sandbox") for r in failed), reply)

    def test_a_fork_of_all_or_none(self):
        self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=3))
        try:
            self.refused("RESOURCE_EXHAUSTED", lambda: self.client.Snapshots.Fork(sandbox_id=self.box, count=4, all=True), "max_sandboxes")
            wait_until(lambda: [s.id for s in self.client.Sandboxes.List().sandboxes] == [self.box], 20)
            self.assertEqual(len(self.client.Snapshots.Fork(sandbox_id=self.box, count=2, all=True).results), 2)
        finally:
            self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=1000))

    def test_a_fork_that_is_given_up_leaves_nothing(self):
        call = self.client.Snapshots.Fork(sandbox_id=self.box, count=20, later=True)
        time.sleep(0.25)
        call.cancel()
        wait_until(lambda: [s.id for s in self.client.Sandboxes.List().sandboxes] == [self.box], 20)
        wait_until(lambda: not self.pool("snapshots"), 10)
        self.assertEqual(self.pool("sandboxes"), [self.box])


@needs_criu
class Restart(unittest.TestCase):
    def answers(self, client, box):
        try:
            return client.Sandboxes.Get(sandbox_id=box, deadline=2).state
        except grpc.RpcError:
            return None

    def test_the_template_stays(self):
        with Instance(pool_size=0) as private:
            client = private.tenant("tenant")
            box = client.create().id
            shot = client.Snapshots.Create(sandbox_id=box)
            private.admin.Templates.Remove(template="base", force=True)
            client.Sandboxes.Kill(sandbox_id=box)
            copy = client.create(snapshot=shot.id).id
            self.assertEqual(client.run(copy, "echo there").out, b"there\n")
            client.Sandboxes.Kill(sandbox_id=copy)
            client.Snapshots.Remove(snapshot=shot.id)
        self.assertEqual(private.complaints, [])

    def test_both_daemons_end(self):
        with Instance(pool_size=0) as private:
            client = private.tenant("tenant")
            box = client.create().id
            counter = client.run(box, COUNTER, detach=True).id
            attach(client, box, counter, 5)  # a copy does not have these lines
            shot = client.Snapshots.Create(sandbox_id=box, name="kept")
            copy = client.create(snapshot="kept").id
            client.Sandboxes.Kill(sandbox_id=box)
            private.warden.kill()
            private.warden.wait()
            private.stop_paddockd(signal.SIGKILL)
            private.start_warden()
            private.start_paddockd()
            self.assertEqual(wait_until(lambda: self.answers(client, copy), 20), RUNNING)
            self.assertEqual(client.Snapshots.Get(snapshot="kept"), shot)
            wait_until(lambda: code_of(lambda: client.run(copy, "true"))[0] == "OK", 20)
            missing, lines = attach(client, copy, counter, 20)
            self.assertGreater(missing, 0)
            self.assertEqual([int(n) for n in lines], list(range(int(lines[0]), int(lines[0]) + len(lines))))
            second = client.create(snapshot="kept").id
            self.assertGreater(len(attach(client, second, counter, 5)[1]), 4)
            for one in (copy, second):
                client.Sandboxes.Kill(sandbox_id=one)
            client.Snapshots.Remove(snapshot="kept")
        self.assertEqual(private.complaints, [])
