"""Many at once: idempotency, calls that are given up, races on one sandbox with a check of the history (for LOAD_SECONDS),
fairness, stops."""
import concurrent.futures
import os
import random
import threading
import time
import unittest

from api import Case, Code, Instance, grpc, pb, unique
from paddock import enum, wait_until

RUNNING, KILLED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "KILLED"))
SECONDS = float(os.environ.get("LOAD_SECONDS", "10"))


def code_of(call):
    try:
        call()
        return Code.OK
    except grpc.RpcError as error:
        return error.code()
    except grpc.FutureCancelledError:
        return Code.CANCELLED


def alive(client):
    """The tenant's sandboxes that live."""
    return [s.id for s in client.Sandboxes.List(page_size=1000).sandboxes]


class Idempotency(Case):
    SANDBOX = False

    def test_a_hundred_at_once(self):
        """G07"""
        key = unique("hundred")
        same = [self.client.Sandboxes.Create(idempotency_key=key, later=True) for _ in range(100)]
        self.assertEqual(len({future.result().id for future in same}), 1)
        self.assertEqual(len(alive(self.client)), 1)
        other = [self.client.Sandboxes.Create(idempotency_key=key, hostname=f"h{i}", later=True) for i in range(50)]
        self.assertEqual({code_of(future.result) for future in other}, {Code.ABORTED})

    def test_two_requests_race_for_a_key(self):
        key, client = unique("race"), self.instance.tenant(unique("race"))
        futures = [client.Sandboxes.Create(idempotency_key=key, hostname=("a", "b")[i % 2], later=True) for i in range(40)]
        codes = [code_of(future.result) for future in futures]
        self.assertEqual((codes.count(Code.OK), codes.count(Code.ABORTED)), (20, 20))
        self.assertEqual(len(alive(client)), 1)


class GivenUp(Case):
    """G13: a create that was cancelled is taken back or listed; nothing is left that nobody can name."""
    SANDBOX = False

    def kept(self):
        return set(os.listdir(self.instance.run + "/sandboxes"))

    def known(self):
        listed = {s.id for s in self.admin.Sandboxes.List(all_tenants=True, page_size=1000).sandboxes}
        return listed, self.admin.Admin.GetStatus().pooled

    def check_nothing_unknown(self):
        def same():
            listed, pooled = self.known()
            return len(self.kept() - listed) <= pooled
        wait_until(same, 20, "every sandbox of the warden is listed or in the pool")

    def test_cancelled_creates(self):
        rng = random.Random(13)
        for batch in range(20):
            futures = [self.client.Sandboxes.Create(later=True) for _ in range(10)]
            for future in futures:
                time.sleep(rng.random() * 0.02)
                future.cancel()
        wait_until(lambda: all(s.state == RUNNING for s in self.client.Sandboxes.List(page_size=1000).sandboxes), 20)
        self.check_nothing_unknown()
        left = alive(self.client)
        for box in left[:3]:
            self.assertEqual(self.client.run(box, "/bin/echo", "whole").out, b"whole\n")
        for box in left:
            self.client.Sandboxes.Kill(sandbox_id=box)
        self.assertEqual(alive(self.client), [])
        self.check_nothing_unknown()

    def test_deadlines_of_creates(self):
        for deadline in (0.0001, 0.001, 0.003, 0.01, 0.03):
            code = code_of(lambda: self.client.Sandboxes.Create(deadline=deadline))
            self.assertIn(code, (Code.OK, Code.DEADLINE_EXCEEDED))
        self.check_nothing_unknown()
        self.assertEqual(code_of(lambda: self.client.create(deadline=10 ** 8)), Code.OK)


class KilledMeanwhile(Case):
    """G17: whatever goes on in a sandbox ends with it, and it ends."""
    SANDBOX = False
    ENDS = (Code.FAILED_PRECONDITION, Code.ABORTED, Code.NOT_FOUND, Code.UNAVAILABLE, Code.CANCELLED)

    def test_during_an_upload(self):
        box = self.client.create().id
        going = threading.Event()

        def messages():
            yield pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=box, path=b"/home/user/big"))
            for _ in range(600):
                yield pb.WriteFileRequest(data=b"x" * 65536)
                going.set()
                time.sleep(0.05)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            upload = pool.submit(code_of, lambda: self.client.Files.Write(messages(), deadline=60))
            going.wait(10)
            self.assertEqual(self.client.Sandboxes.Kill(sandbox_id=box).state, KILLED)
            self.assertIn(upload.result(10), self.ENDS)

    def test_during_commands_and_reads(self):
        box = self.client.create().id
        self.client.run(box, "head -c 64M /dev/zero > /home/user/big")
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            ends = [pool.submit(code_of, lambda: self.client.run(box, "sleep", "30")) for _ in range(8)]
            ends += [pool.submit(code_of, lambda: [self.client.read(box, "/home/user/big") for _ in range(50)]) for _ in range(4)]
            time.sleep(0.5)
            states = list(pool.map(lambda _: self.client.Sandboxes.Kill(sandbox_id=box).state, range(4)))
            self.assertEqual(set(states), {KILLED})
            for end in ends:
                self.assertIn(end.result(15), self.ENDS + (Code.OK,))  # OK: `exited` says that the sandbox ended
        self.assertIn(code_of(lambda: self.client.run(box, "/bin/true")), (Code.FAILED_PRECONDITION,))


class History(Case):
    """G16: 64 clients create, use, look at and kill the same few sandboxes. A sandbox goes from alive to ended once, so the
    history of one is linearizable exactly if no call that began after somebody had seen it ended saw it alive, and nobody saw
    it ended before a kill began."""
    SANDBOX = False
    SLOTS = 6

    def take(self, slots, slot, box):
        """Several may kill one: the first puts another in its place."""
        with self.lock:
            first = slots[slot] == box and box not in self.taken
            self.taken.add(box)
            return first

    def echo(self, client, box):
        """-> the status, and what it says: alive, ended, or (None) on the way from one to the other"""
        try:
            result = client.run(box, "/bin/echo", box)
        except grpc.RpcError as error:
            return error.code(), False if error.code() == Code.FAILED_PRECONDITION else None
        if result.exited.sandbox_ended or result.signal == 9:
            return Code.OK, None
        self.assertEqual(result.out, box.encode() + b"\n")
        return Code.OK, True

    def act(self, rng, client, slots, history):
        slot = rng.randrange(self.SLOTS)
        box, kind = slots[slot], rng.random()
        began = time.monotonic()
        if kind < 0.5:
            code, saw = self.echo(client, box)
            op = "exec"
        elif kind < 0.85:
            saw = client.Sandboxes.Get(sandbox_id=box).state == RUNNING  # killing: no more
            code, op = Code.OK, "get"
        else:
            code, op, saw = code_of(lambda: client.Sandboxes.Kill(sandbox_id=box)), "kill", False
        history.append((box, op, began, time.monotonic(), saw, code))
        if op == "kill" and self.take(slots, slot, box):
            slots[slot] = client.create().id

    def check(self, history):
        for box in {entry[0] for entry in history}:
            mine = [entry for entry in history if entry[0] == box]
            ended = min((end for _, _, _, end, saw, _ in mine if saw is False), default=float("inf"))
            killed = min((began for _, op, began, _, _, _ in mine if op == "kill"), default=float("inf"))
            self.assertGreaterEqual(ended, killed, (box, "ended before anybody killed it"))
            late = [entry for entry in mine if entry[4] and entry[2] > ended]
            self.assertEqual(late, [], (box, "seen alive after it had been seen ended"))

    def test_64_clients(self):
        clients = [self.instance.client(key=self.client.key) for _ in range(8)]
        for client in clients:
            grpc.channel_ready_future(client.channel).result(30)
        slots = [self.client.create().id for _ in range(self.SLOTS)]
        history, stop = [], time.monotonic() + SECONDS
        self.lock, self.taken = threading.Lock(), set()
        failures = []

        def work(n):
            rng = random.Random(n)
            while time.monotonic() < stop:
                try:
                    self.act(rng, clients[n % 8], slots, history)
                except (grpc.RpcError, AssertionError, AttributeError) as error:
                    failures.append(repr(error)[:300])
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            list(pool.map(work, range(64)))
        self.assertEqual(failures, [])
        codes = {entry[5] for entry in history}
        self.assertLessEqual(codes, {Code.OK, Code.FAILED_PRECONDITION, Code.ABORTED, Code.UNAVAILABLE}, codes)
        self.assertGreater(len(history), 100)
        self.assertGreater(sum(entry[1] == "kill" for entry in history), 3)
        self.check(history)
        self.assertTrue(self.admin.Audit.Verify().ok)


class Saturation(Case):
    """O02, O04: one tenant floods; another one's calls, kills and health checks still get through."""

    def test_a_flood_does_not_stop_others(self):
        flood, stop = self.instance.tenant(unique("flood")), threading.Event()
        boxes = [flood.create().id for _ in range(4)]
        done = [0]

        def work(n):
            while not stop.is_set():
                code_of(lambda: flood.run(boxes[n % 4], "/bin/true"))
                done[0] += 1
        health, execs, kills = [], [], []

        def timed(into, call):
            began = time.monotonic()
            call()
            into.append(time.monotonic() - began)
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            for n in range(100):
                pool.submit(work, n)
            time.sleep(1)
            try:
                plain = self.instance.client()
                for _ in range(10):
                    timed(health, lambda: plain.Health.Check(service=""))
                    timed(execs, lambda: self.client.run(self.box, "/bin/true"))
                    box = self.client.create().id
                    timed(kills, lambda: self.client.Sandboxes.Kill(sandbox_id=box))
            finally:
                stop.set()
        self.assertGreater(done[0], 20, "it was a flood")
        for name, times, bound in (("health", health, 1), ("kill", kills, 1), ("exec of another tenant", execs, 2)):
            self.assertLess(sorted(times)[len(times) // 2], bound, (name, times))

    def test_a_thousand_on_one_sandbox(self):
        """O03: more than init takes at once wait or are refused; all are answered, and a kill overtakes them."""
        box = self.client.create().id
        client = self.instance.client(key=self.client.key)
        futures = [client.Files.Stat(sandbox_id=box, path=b"/etc/passwd", later=True) for _ in range(900)]
        codes = [code_of(future.result) for future in futures]
        self.assertLessEqual(set(codes), {Code.OK, Code.RESOURCE_EXHAUSTED})
        self.assertGreater(codes.count(Code.OK), 30)
        streams = [client.Processes.Start(sandbox_id=box, argv=["sleep", "30"]) for _ in range(300)]
        began = time.monotonic()
        self.assertEqual(self.client.Sandboxes.Kill(sandbox_id=box).state, KILLED)
        self.assertLess(time.monotonic() - began, 5)
        for stream in streams:
            code_of(lambda: list(stream))


class Stops(unittest.TestCase):
    def test_graceful_under_load(self):
        """L10: it ends in time, and what it acknowledged is there afterwards."""
        with Instance() as private:
            client = private.tenant("tenant")
            boxes = [client.create().id for _ in range(4)]
            stop, written = threading.Event(), []

            def work(n):
                i = 0
                while not stop.is_set():
                    i += 1
                    name = f"/home/user/{n}-{i}"
                    if code_of(lambda: client.write(boxes[n % 4], name, b"kept")) == Code.OK:
                        written.append((boxes[n % 4], name))
                    code_of(lambda: client.run(boxes[n % 4], "/bin/true"))
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                for n in range(16):
                    pool.submit(work, n)
                time.sleep(2)
                began = time.monotonic()
                private.stop_paddockd()
                took = time.monotonic() - began
                stop.set()
            self.assertLess(took, 10)
            self.assertGreater(len(written), 10)
            private.start_paddockd()
            client.wait_ready(20)
            for box, name in written[-20:]:
                self.assertEqual(client.read(box, name), b"kept")
            self.assertTrue(private.admin.Audit.Verify().ok)
        self.assertEqual(private.complaints, [])

    def test_expiry_while_it_was_down(self):
        """L06"""
        with Instance() as private:
            client = private.tenant("tenant")
            due = [client.create(timeout_ms=1000 + 300 * i).id for i in range(5)]
            later = client.create(timeout_ms=600000).id
            began = time.monotonic()
            private.stop_paddockd()
            self.assertLess(time.monotonic() - began, 5, "it waits for a client that has no call")
            time.sleep(3)
            private.start_paddockd()
            began = time.monotonic()
            client.wait_ready(20)
            for box in due:
                ended = wait_until(lambda: next((s for s in [client.Sandboxes.Get(sandbox_id=box)] if s.ended_unix_ms), None), 10)
                self.assertEqual((ended.state, ended.end_reason), (KILLED, enum("END_REASON_TIMEOUT")))
            self.assertLess(time.monotonic() - began, 10)
            self.assertEqual(client.Sandboxes.Get(sandbox_id=later).state, RUNNING)
            expired = {r.sandbox_id for r in private.admin.Audit.List(page_size=1000, action_prefix="sandbox.expired").records}
            self.assertEqual(expired, set(due))
        self.assertEqual(private.complaints, [])
