"""Sandboxes: create, get, list, timeouts, kill, events, usage, idempotency, quotas."""
import concurrent.futures
import os
import subprocess
import time
import unittest

from api import Case, Code, Instance, grpc, pb, unique
from paddock import enum, wait_until

RUNNING, KILLED, FAILED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "KILLED", "FAILED"))
MIB = 1 << 20


class Create(Case):
    SANDBOX = False

    def test_defaults(self):
        made = self.client.Sandboxes.Create()
        self.addCleanup(lambda: self.client.Sandboxes.Kill(sandbox_id=made.id))
        self.assertRegex(made.id, r"\Ai[a-z0-9]{20}\Z")
        self.assertEqual((made.tenant, made.template_name, made.state), (self.tenant, "base", RUNNING))
        self.assertRegex(made.template, r"\At[0-9a-f]{40}\Z")
        self.assertAlmostEqual(made.expires_unix_ms - made.created_unix_ms, 300000, delta=2000)
        self.assertAlmostEqual(made.created_unix_ms / 1000, time.time(), delta=10)
        self.assertEqual(made.ended_unix_ms, 0)
        self.assertEqual(made.end_text, "")
        self.assertEqual(made.hostname, "paddock")
        self.assertGreater(made.resources.memory_bytes, 0)
        self.assertGreater(made.resources.max_pids, 0)
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=made.id), made)

    def test_everything_given(self):
        limits = pb.Resources(memory_bytes=128 * MIB, cpu_millis=500, max_pids=100, disk_bytes=64 * MIB, max_inodes=5000)
        made = self.client.create(resources=limits, metadata={"task": "4711", "über": "\U0001f40e"},
                                  env={"GREETING": "hello world"}, hostname="worker-1", template="base")
        self.addCleanup(lambda: self.client.Sandboxes.Kill(sandbox_id=made.id))
        self.assertEqual(made.resources, limits)
        self.assertEqual(dict(made.metadata), {"task": "4711", "über": "\U0001f40e"})
        self.assertEqual(self.client.run(made.id, 'hostname; echo "$GREETING"').out, b"worker-1\nhello world\n")

    def test_template_by_id(self):
        template = self.client.Templates.Get(template="base").id
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=self.new_box(template=template)).template, template)

    def test_unknown_template(self):
        for name in ("nosuch", "t" + "0" * 40):
            self.refused(Code.NOT_FOUND, self.client.create, template=name)

    def test_every_limit(self):
        cases = [
            ("template", dict(template="x" * 129)),
            ("timeout_ms", dict(timeout_ms=999)), ("timeout_ms", dict(timeout_ms=86400001)),
            ("timeout_ms", dict(timeout_ms=2 ** 64 - 1)),
            ("resources.memory_bytes", dict(resources=pb.Resources(memory_bytes=16 * MIB - 1))),
            ("resources.cpu_millis", dict(resources=pb.Resources(cpu_millis=49))),
            ("resources.cpu_millis", dict(resources=pb.Resources(cpu_millis=2 ** 32 - 1))),
            ("resources.max_pids", dict(resources=pb.Resources(max_pids=15))),
            ("resources.max_pids", dict(resources=pb.Resources(max_pids=32769))),
            ("resources.disk_bytes", dict(resources=pb.Resources(disk_bytes=16 * MIB - 1))),
            ("resources.max_inodes", dict(resources=pb.Resources(max_inodes=999))),
            ("resources.max_inodes", dict(resources=pb.Resources(max_inodes=10000001))),
            ("metadata", dict(metadata={f"k{i}": "" for i in range(65)})),
            ("metadata", dict(metadata={"": "x"})),
            ("metadata", dict(metadata={"k" * 129: "x"})),
            ("metadata", dict(metadata={"k": "x" * 1025})),
            ("env", dict(env={f"K{i}": "" for i in range(257)})),
            ("env", dict(env={"": "x"})), ("env", dict(env={"1A": "x"})), ("env", dict(env={"A=B": "x"})),
            ("env", dict(env={"A B": "x"})), ("env", dict(env={"Ä": "x"})),
            ("env", dict(env={"A": "x" * 32769})), ("env", dict(env={"A": "a\0b"})),
            ("idempotency_key", dict(idempotency_key="k" * 129)),
            ("hostname", dict(hostname="a" * 64)), ("hostname", dict(hostname="-a")), ("hostname", dict(hostname="a.b")),
            ("hostname", dict(hostname="a\nb")),
        ]
        for field, fields in cases:
            with self.subTest(field=field, case=str(fields)[:60]):
                self.invalid(field, self.client.Sandboxes.Create, **fields)

    def test_limits_themselves_are_accepted(self):
        limits = pb.Resources(memory_bytes=16 * MIB, cpu_millis=50, max_pids=16, disk_bytes=16 * MIB, max_inodes=1000)
        self.new_box(timeout_ms=86400000, resources=limits, metadata={f"k{i}": "x" * 1024 for i in range(64)},
                     env={f"K{i}": "v" for i in range(256)}, hostname="a" * 63)
        self.new_box(timeout_ms=1000)

    def test_garbage_bytes(self):
        for data in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x2a\x02\x0a", b"\x08\x01" * 30000):
            with self.subTest(data=data[:8]):
                with self.assertRaises(grpc.RpcError) as raised:
                    self.client.Sandboxes.Create(data)
                self.assertIn(raised.exception.code(), (Code.INVALID_ARGUMENT, Code.INTERNAL))
        self.assertTrue(self.client.Admin.WhoAmI().tenant)

    def test_request_larger_than_its_method_allows(self):
        self.refused(Code.RESOURCE_EXHAUSTED, self.client.Sandboxes.Get, sandbox_id="i" * (1 << 20))


class Ids(Case):
    def test_get_set_timeout_kill_usage_watch(self):
        ended = self.client.create().id
        self.client.Sandboxes.Kill(sandbox_id=ended)
        texts = set()
        service = self.client.Sandboxes
        for id in ("", "x", "../etc", "I" + "a" * 20, "i" + "a" * 19, "i" + "a" * 20, "i" + "a" * 21, "i" * 4000, "i\n" + "a" * 19):
            for call, fields in ((service.Get, {}), (service.SetTimeout, {"timeout_ms": 5000}), (service.SetIdleTimeout, {"idle_timeout_ms": 5000}), (service.Kill, {}),
                                 (service.GetUsage, {}), (service.GetMetrics, {})):
                with self.subTest(id=id[:24]):
                    texts.add(self.refused(Code.NOT_FOUND, call, sandbox_id=id, **fields))
        self.assertEqual(len(texts), 1, texts)
        self.refused(Code.NOT_FOUND, service.WatchEvents, sandbox_id="i" + "a" * 20, deadline=5)
        self.refused(Code.FAILED_PRECONDITION, service.SetTimeout, sandbox_id=ended, timeout_ms=5000)
        self.refused(Code.FAILED_PRECONDITION, service.GetUsage, sandbox_id=ended)
        self.refused(Code.FAILED_PRECONDITION, service.GetMetrics, sandbox_id=ended)
        self.assertEqual(service.Kill(sandbox_id=ended).state, KILLED)
        self.assertEqual(service.Get(sandbox_id=ended).state, KILLED)


class LifeCycle(Case):
    SANDBOX = False

    def test_kill_is_final_and_idempotent(self):
        box = self.client.create().id
        killed = self.client.Sandboxes.Kill(sandbox_id=box)
        self.assertEqual((killed.state, killed.end_reason), (KILLED, enum("END_REASON_KILLED")))
        self.assertGreater(killed.ended_unix_ms, 0)
        self.assertTrue(killed.end_text)
        self.assertEqual(self.client.Sandboxes.Kill(sandbox_id=box), killed)
        self.refused(Code.FAILED_PRECONDITION, self.client.run, box, "/bin/true")
        self.refused(Code.FAILED_PRECONDITION, self.client.Files.Stat, sandbox_id=box, path=b"/")

    def test_concurrent_kills_agree(self):
        box = self.client.create().id
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            states = {k.state for k in pool.map(lambda _: self.client.Sandboxes.Kill(sandbox_id=box), range(8))}
        self.assertEqual(states, {KILLED})

    def test_timeout_kills(self):
        box = self.client.create(timeout_ms=1000).id
        began = time.monotonic()
        ended = wait_until(lambda: next((s for s in [self.client.Sandboxes.Get(sandbox_id=box)] if s.ended_unix_ms), None), 10)
        self.assertLess(time.monotonic() - began, 4)
        self.assertEqual((ended.state, ended.end_reason), (KILLED, enum("END_REASON_TIMEOUT")))

    def test_timeout_extends_and_shortens(self):
        box = self.client.create(timeout_ms=1500).id
        longer = self.client.Sandboxes.SetTimeout(sandbox_id=box, timeout_ms=600000)
        self.assertAlmostEqual(longer.expires_unix_ms / 1000, time.time() + 600, delta=5)
        time.sleep(2)
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=box).state, RUNNING)
        self.client.Sandboxes.SetTimeout(sandbox_id=box, timeout_ms=300)
        wait_until(lambda: self.client.Sandboxes.Get(sandbox_id=box).state == KILLED, 5)

    def test_timeout_zero_kills_at_once(self):
        box = self.client.create().id
        self.client.Sandboxes.SetTimeout(sandbox_id=box, timeout_ms=0)
        wait_until(lambda: self.client.Sandboxes.Get(sandbox_id=box).state == KILLED, 5)

    def test_timeout_limit(self):
        box = self.new_box()
        self.invalid("timeout_ms", self.client.Sandboxes.SetTimeout, sandbox_id=box, timeout_ms=86400001)

    def test_kill_ends_the_streams(self):
        box = self.client.create().id
        follow = self.client.Processes.Start(sandbox_id=box, argv=["sleep", "600"])
        next(follow)
        self.client.Sandboxes.Kill(sandbox_id=box)
        began = time.monotonic()
        last = None
        try:
            for last in follow:
                pass
            self.assertTrue(last.exited.sandbox_ended)
        except grpc.RpcError as error:
            self.assertIn(error.code(), (Code.FAILED_PRECONDITION, Code.ABORTED, Code.CANCELLED, Code.NOT_FOUND))
        self.assertLess(time.monotonic() - began, 5)


class Listing(Case):
    SANDBOX = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.boxes = [cls.client.create(metadata={"n": str(i), "odd": str(i % 2)}).id for i in range(7)]

    def ids(self, **fields):
        return [s.id for s in self.client.Sandboxes.List(**fields).sandboxes]

    def test_newest_first(self):
        self.assertEqual(self.ids(), self.boxes[::-1])

    def test_pages(self):
        seen, token = [], ""
        for _ in range(10):
            page = self.client.Sandboxes.List(page_size=3, page_token=token)
            self.assertLessEqual(len(page.sandboxes), 3)
            seen += [s.id for s in page.sandboxes]
            token = page.next_page_token
            if not token:
                break
        self.assertEqual(seen, self.boxes[::-1])

    def test_filters(self):
        self.assertEqual(self.ids(metadata={"odd": "1"}), [self.boxes[i] for i in (5, 3, 1)])
        self.assertEqual(self.ids(metadata={"odd": "1", "n": "3"}), [self.boxes[3]])
        self.assertEqual(self.ids(metadata={"odd": "2"}), [])
        self.assertEqual(len(self.ids(template="base")), 7)
        self.assertEqual(self.ids(states=[FAILED]), [])

    def test_ended_ones_on_request(self):
        box = self.client.create().id
        self.client.Sandboxes.Kill(sandbox_id=box)
        self.assertNotIn(box, self.ids())
        self.assertIn(box, self.ids(states=[KILLED]))

    def test_limits(self):
        call = self.client.Sandboxes.List
        token = call(page_size=3).next_page_token
        self.invalid("page_size", call, page_size=1001)
        self.invalid("page_token", call, page_token="nonsense")
        self.invalid("page_token", call, page_token="x" * 60000)
        self.invalid("states", call, states=[RUNNING] * 9)
        self.invalid("states", call, states=[77])
        self.invalid("metadata", call, metadata={str(i): "" for i in range(17)})
        self.refused(Code.PERMISSION_DENIED, call, all_tenants=True)
        other = self.instance.tenant(unique("pages"))
        self.invalid("page_token", other.Sandboxes.List, page_token=token)

    def test_operator_sees_all(self):
        seen = {s.id for s in self.admin.Sandboxes.List(all_tenants=True, page_size=1000).sandboxes}
        self.assertLessEqual(set(self.boxes), seen)


class Idempotency(Case):
    SANDBOX = False

    def test_same_key_same_request(self):
        fields = dict(idempotency_key=unique("key"), metadata={"a": "b"})
        first, second = self.client.create(**fields), self.client.create(**fields)
        self.assertEqual(first.id, second.id)
        self.assertNotEqual(self.client.create(idempotency_key=unique("key"), metadata={"a": "b"}).id, first.id)

    def test_same_key_other_request(self):
        key = unique("key")
        self.client.create(idempotency_key=key)
        self.refused(Code.ABORTED, self.client.create, idempotency_key=key, hostname="other")

    def test_map_order_does_not_matter(self):
        key = unique("key")
        first = self.client.create(idempotency_key=key, metadata={"a": "1", "b": "2", "c": "3"})
        second = self.client.create(idempotency_key=key, metadata={"c": "3", "b": "2", "a": "1"})
        self.assertEqual(first.id, second.id)

    def test_concurrent(self):
        key = unique("key")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: self.client.create(idempotency_key=key).id, range(8)))
        self.assertEqual(len(set(made)), 1, made)

    def test_per_tenant(self):
        key = unique("key")
        other = self.instance.tenant(unique("idem"))
        self.assertNotEqual(self.client.create(idempotency_key=key).id, other.create(idempotency_key=key).id)

    def test_killed_one_is_returned_not_made_again(self):
        key = unique("key")
        first = self.client.create(idempotency_key=key).id
        self.client.Sandboxes.Kill(sandbox_id=first)
        self.assertEqual(self.client.create(idempotency_key=key).id, first)


class Events(Case):
    SANDBOX = False

    def test_life_of_one(self):
        stream = self.client.Sandboxes.WatchEvents(deadline=30)
        time.sleep(0.5)
        box = self.client.create().id
        self.client.Sandboxes.SetTimeout(sandbox_id=box, timeout_ms=500000)
        self.client.Sandboxes.Kill(sandbox_id=box)
        seen = [next(stream) for _ in range(3)]
        stream.cancel()
        self.assertEqual([e.type for e in seen], [1, 2, 3])
        self.assertEqual({e.sandbox.id for e in seen}, {box})
        self.assertEqual(seen[2].sandbox.state, KILLED)
        self.assertTrue(seen[0].sequence < seen[1].sequence < seen[2].sequence)
        again = self.client.Sandboxes.WatchEvents(after_sequence=seen[0].sequence, deadline=10)
        self.assertEqual([next(again).sequence for _ in range(2)], [e.sequence for e in seen[1:]])
        again.cancel()

    def test_only_the_callers(self):
        other = self.instance.tenant(unique("events"))
        stream = other.Sandboxes.WatchEvents(deadline=20)
        time.sleep(0.5)
        self.client.create()
        mine = other.create().id
        self.assertEqual(next(stream).sandbox.id, mine)
        stream.cancel()

    def test_one_sandbox(self):
        first, second = self.new_box(), self.new_box()
        stream = self.client.Sandboxes.WatchEvents(sandbox_id=second, deadline=20)
        time.sleep(0.5)
        for box in (first, second):
            self.client.Sandboxes.SetTimeout(sandbox_id=box, timeout_ms=400000)
        self.assertEqual(next(stream).sandbox.id, second)
        stream.cancel()

    def test_cancel_leaves_nothing(self):
        for _ in range(50):
            self.client.Sandboxes.WatchEvents().cancel()
        self.assertTrue(self.client.Admin.WhoAmI().tenant)


class Usage(Case):
    def test_counts_what_is_used(self):
        before = self.client.Sandboxes.GetUsage(sandbox_id=self.box)
        self.assertGreater(before.pids, 0)
        self.assertGreater(before.memory_bytes, 0)
        self.sh("dd if=/dev/urandom of=/home/user/blob bs=1M count=20 2>/dev/null; sync; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")

        def enough():
            os.sync()  # the pool counts what it has written
            usage = self.client.Sandboxes.GetUsage(sandbox_id=self.box)
            return usage if usage.disk_bytes >= 20 * MIB else None
        after = wait_until(enough, 20, "disk usage of 20 MiB")
        self.assertGreater(after.cpu_usec, before.cpu_usec)
        self.assertGreaterEqual(after.memory_peak_bytes, after.memory_bytes)
        self.assertGreater(after.inodes, 0)

    def test_oom_kills_are_counted(self):
        box = self.new_box(resources=pb.Resources(memory_bytes=64 * MIB))
        result = self.client.run(box, "/usr/bin/python3", "-c", "x = bytearray(300 << 20); print(len(x))")
        self.assertTrue(result.signal == 9 or result.code != 0, result.all)
        self.assertGreaterEqual(self.client.Sandboxes.GetUsage(sandbox_id=box).oom_kills, 1)
        self.assertEqual(self.client.run(box, "/bin/echo", "still here").out, b"still here\n")


class Metrics(Case):
    """What the server has seen of a sandbox over time."""
    SANDBOX = False

    def setUp(self):
        super().setUp()
        self.box = self.new_box()

    def metrics(self, **fields):
        return self.client.Sandboxes.GetMetrics(sandbox_id=self.box, **fields)

    def test_history(self):
        first = self.metrics()
        self.assertEqual(len(first.samples), 1, "there is one of now at once")
        self.assertEqual(first.resources.memory_bytes, self.client.Sandboxes.Get(sandbox_id=self.box).resources.memory_bytes)
        began = time.time()
        self.sh("head -c 30000000 /dev/urandom > /home/user/blob; cat /home/user/blob >/dev/null; head -c 20000000 /dev/zero > /tmp/held; "
                "(timeout 4 sh -c 'while :; do :; done' &) >/dev/null 2>&1")
        kept = wait_until(lambda: (lambda m: m if len(m) >= 4 else None)(self.metrics().samples), 30, "samples of the past")
        times = [sample.time_unix_ms for sample in kept]
        self.assertEqual(times, sorted(times))
        for earlier, later in zip(times[1:], times[2:-1]):
            self.assertTrue(4000 < later - earlier < 9000, times)
        self.assertLess(abs(times[-1] / 1000 - time.time()), 3)
        # What the means say in sum is what the kernel has counted, however little of a processor there was.
        created = self.client.Sandboxes.Get(sandbox_id=self.box).created_unix_ms
        told = sum(s.cpu_percent / 100 * (s.time_unix_ms - before) / 1000 for before, s in zip([created] + times, kept))
        counted = self.client.Sandboxes.GetUsage(sandbox_id=self.box).cpu_usec / 1e6
        self.assertGreater(counted, 0.1)
        self.assertLess(abs(told - counted), 0.1 + 0.15 * counted)
        self.assertGreater(max(sample.cpu_percent for sample in kept), 2 * kept[-1].cpu_percent, "it is idle now")
        self.assertGreater(kept[-1].cache_bytes, 25 << 20, "what it has written is cached")
        self.assertGreater(kept[-1].memory_bytes - kept[-1].cache_bytes, 19 << 20, "what tmpfs holds cannot be given back")
        self.assertLess(kept[-1].cache_bytes, kept[-1].memory_bytes)
        # Ranges: the past alone, from then on, the future.
        middle = times[1]
        self.assertEqual([s.time_unix_ms for s in self.metrics(end_unix_ms=middle + 500).samples][-1] // 1000, middle // 1000)
        self.assertTrue(all(s.time_unix_ms >= middle - 200 for s in self.metrics(start_unix_ms=middle - 100).samples))
        self.assertEqual(len(self.metrics(end_unix_ms=int(began * 1000) - 3600_000).samples), 0)
        self.assertEqual(len(self.metrics(start_unix_ms=int(time.time() * 1000) + 3600_000).samples), 0)
        for field in ("start_unix_ms", "end_unix_ms"):
            self.assertIn(field, self.refused(Code.INVALID_ARGUMENT, self.metrics, **{field: -1}))

    def test_whoever_asks_often_pushes_nothing_out(self):
        wait_until(lambda: self.metrics(end_unix_ms=int(time.time() * 1000) - 100).samples, 10, "the first sample")
        for _ in range(300):
            count = len(self.metrics().samples)
        self.assertLess(count, 8)

    def test_several(self):
        other, ended = self.new_box(), self.new_box()
        self.client.Sandboxes.Kill(sandbox_id=ended)
        stranger = self.instance.tenant(unique("stranger"))
        theirs = stranger.create().id
        listed = wait_until(lambda: (lambda m: m if len(m) == 2 else None)(self.client.Sandboxes.ListMetrics(
            sandbox_ids=[other, theirs, ended, "i" + "a" * 20, "x", self.box]).sandboxes), 10, "a sample of both")
        self.assertEqual([one.sandbox_id for one in listed], [other, self.box])
        self.assertGreater(listed[0].sample.memory_bytes, 0)
        self.assertGreater(listed[0].resources.memory_bytes, 0)
        wait_until(lambda: stranger.Sandboxes.ListMetrics(sandbox_ids=[theirs]).sandboxes, 10, "the other tenant's own")
        for ids in ([], [self.box] * 101):
            self.assertIn("sandbox_ids", self.refused(Code.INVALID_ARGUMENT, self.client.Sandboxes.ListMetrics, sandbox_ids=ids))
        self.assertEqual(len(self.client.Sandboxes.ListMetrics(sandbox_ids=[self.box] * 100).sandboxes), 100)

    def test_paused(self):
        wait_until(lambda: len(self.metrics().samples) >= 2, 10, "a sample")
        self.client.Sandboxes.Pause(sandbox_id=self.box)
        before = self.metrics().samples
        time.sleep(6)
        self.assertEqual(len(self.metrics().samples), len(before), "nothing is looked at while it stands still")
        self.client.Sandboxes.Resume(sandbox_id=self.box)
        self.assertGreater(len(self.metrics().samples), len(before))
        wait_until(lambda: len(self.metrics(end_unix_ms=int(time.time() * 1000) - 100).samples) > len(before), 10, "samples go on")


class Quotas(Case):
    SANDBOX = False

    def quota_client(self, **quota):
        client = self.instance.tenant(unique("quota"), **quota)
        return client

    def test_max_sandboxes_and_release(self):
        client = self.quota_client(max_sandboxes=2)
        first, _ = client.create().id, client.create().id
        text = self.refused(Code.RESOURCE_EXHAUSTED, client.create)
        self.assertIn("max_sandboxes", text)
        client.Sandboxes.Kill(sandbox_id=first)
        client.create()

    def test_max_memory(self):
        client = self.quota_client(max_memory_bytes=256 * MIB)
        client.create(resources=pb.Resources(memory_bytes=256 * MIB))
        self.invalid("resources.memory_bytes", client.create, resources=pb.Resources(memory_bytes=256 * MIB + 4096))

    def test_max_disk(self):
        client = self.quota_client(max_disk_bytes=64 * MIB)
        client.create(resources=pb.Resources(disk_bytes=64 * MIB))
        self.invalid("resources.disk_bytes", client.create, resources=pb.Resources(disk_bytes=65 * MIB))

    def test_totals(self):
        client = self.quota_client(total_memory_bytes=256 * MIB)
        client.create(resources=pb.Resources(memory_bytes=200 * MIB))
        self.assertIn("memory", self.refused(Code.RESOURCE_EXHAUSTED, client.create, resources=pb.Resources(memory_bytes=64 * MIB)))
        client = self.quota_client(total_disk_bytes=256 * MIB)
        client.create(resources=pb.Resources(disk_bytes=200 * MIB))
        self.assertIn("disk", self.refused(Code.RESOURCE_EXHAUSTED, client.create, resources=pb.Resources(disk_bytes=64 * MIB)))

    def test_creates_per_minute(self):
        client = self.quota_client(creates_per_minute=3)
        codes = []
        for _ in range(6):
            try:
                client.Sandboxes.Kill(sandbox_id=client.create().id)
                codes.append("ok")
            except grpc.RpcError as error:
                codes.append(error.code())
                self.assertIn("creates_per_minute", error.details())
        self.assertEqual(codes[:3], ["ok"] * 3)
        self.assertIn(Code.RESOURCE_EXHAUSTED, codes)


class Admission(unittest.TestCase):
    """A full box: a create is refused at once, and says what is exhausted and when to try again."""

    def refused(self, client, what, **fields):
        began = time.monotonic()
        with self.assertRaises(grpc.RpcError) as raised:
            client.create(**fields)
        self.assertLess(time.monotonic() - began, 1)
        self.assertEqual(raised.exception.code(), Code.RESOURCE_EXHAUSTED)
        self.assertRegex(raised.exception.details(), rf"\A{what} exhausted: .*; retry in \d+ ms\Z")

    def limit_files(self, pid, soft):
        """As the daemon's own user: a limit of another user's process needs CAP_SYS_RESOURCE."""
        subprocess.run(["setpriv", "--reuid=paddock", "--regid=paddock", "--clear-groups",
                        "prlimit", f"--pid={pid}", f"--nofile={soft}:"], check=True)

    def test_everything_that_can_be_full(self):
        with Instance(pool="4G", pool_size=0, max_sandboxes=3, memory_overcommit="1.0", disk_overcommit="1.0") as private:
            client = private.tenant("tenant", max_memory_bytes=1 << 50, max_disk_bytes=1 << 50, creates_per_minute=1000)
            status = private.admin.Admin.GetStatus()
            self.refused(client, "server memory", resources=pb.Resources(memory_bytes=status.reservable_memory_bytes + 4096))
            self.refused(client, "server disk", resources=pb.Resources(disk_bytes=status.reservable_disk_bytes + 4096))
            limits = pb.Resources(memory_bytes=64 * MIB, disk_bytes=64 * MIB)
            pid = private.paddockd.pid
            with open(f"/proc/{pid}/limits") as f:
                soft = next(line.split()[3] for line in f if line.startswith("Max open files"))
            self.limit_files(pid, len(os.listdir(f"/proc/{pid}/fd")) + 100)
            self.refused(client, "server fds", resources=limits)
            self.limit_files(pid, soft)
            boxes = [client.create(resources=limits).id for _ in range(3)]
            self.refused(client, "server max_sandboxes", resources=limits)
            client.Sandboxes.Kill(sandbox_id=boxes[0])
            self.assertEqual(client.run(client.create(resources=limits).id, "/bin/echo", "room").out, b"room\n")
            private.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(max_sandboxes=1))
            self.refused(client, "tenant quota max_sandboxes", resources=limits)

    def test_memory_that_is_really_gone(self):
        with Instance(pool_size=0, memory_reserve_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - (1 << 20)) as private:
            with self.assertRaises(grpc.RpcError) as raised:
                private.admin.create(resources=pb.Resources(memory_bytes=16 * MIB))
            self.assertRegex(raised.exception.details(), r"\Aserver memory exhausted: .* retry in \d+ ms\Z")
