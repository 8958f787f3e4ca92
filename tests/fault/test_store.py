#!/usr/bin/python3
"""A03, A04, A06, A07, L10, L11: the store and the state directory under full disks, failing disks, tampering, readers that die,
other owners and newer schemas. What cannot be made durable is refused, and never was "ok"; what cannot be trusted
does not start, and says why in a sentence."""
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
import grpc
import lmdb
import tap
from crash import Strace
from paddock import PADDOCKD, Instance, code_of, eventually, wait_until

SEED = int(os.environ.get("SEED", str(random.randrange(1 << 30))))


class SmallDisk:
    """A small ext4 on a loop device for the data directory of an instance."""

    def __init__(self, megabytes):
        self.image = tempfile.mktemp(prefix="paddock-small.", dir="/var/tmp")
        with open(self.image, "wb") as f:
            f.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self.image], check=True)

    def mount(self, where):
        self.where = where
        subprocess.run(["mount", "-o", "loop", self.image, where], check=True)

    def fill(self):
        """Take all that is free, to the last block."""
        with contextlib.suppress(OSError), open(self.where + "/filler", "wb", buffering=0) as f:
            while True:
                f.write(bytes(1 << 20))
        with contextlib.suppress(OSError), open(self.where + "/filler", "ab", buffering=0) as f:
            while True:
                f.write(bytes(1 << 10))
        os.sync()

    def empty(self):
        os.unlink(self.where + "/filler")
        os.sync()

    def close(self):
        subprocess.run(["umount", "-l", self.where], check=False)
        os.unlink(self.image)


def tenants(instance):
    return {t.name for t in instance.admin.Admin.ListTenants().tenants}


def fill_with(instance, stop, names):
    """Tenants until one is refused -> (acknowledged, code of the refusal)"""
    acknowledged = []
    for n in range(stop):
        name, _ = code_of(lambda n=n: instance.admin.Admin.CreateTenant(name=f"{names}{n}", deadline=10))
        if name != "OK":
            return acknowledged, name
        acknowledged.append(f"{names}{n}")
    return acknowledged, "OK"


class Disk(unittest.TestCase):
    def test_full(self):
        """A03: nothing is "ok" without its record; when there is room again it goes on without a restart."""
        disk = SmallDisk(64)
        instance = Instance(template=None)
        os.mkdir(instance.data)
        disk.mount(instance.data)
        os.rmdir(instance.data + "/lost+found")
        os.mkdir(instance.run)
        try:
            instance.libexec = instance._libexec()
            instance.write_config()
            # The pool lies elsewhere: this is about the store.
            pool = instance.dir + "/elsewhere"
            os.mkdir(pool)
            instance.data, data = pool, instance.data
            instance.start_warden()
            instance.data = data
            instance.start_paddockd()
            before, code = fill_with(instance, 20, "before")
            self.assertEqual((len(before), code), (20, "OK"))
            disk.fill()
            during, code = fill_with(instance, 20000, "during")
            self.assertIn(code, ("UNAVAILABLE", "RESOURCE_EXHAUSTED"))
            self.assertEqual(fill_with(instance, 1, "more"), ([], code))
            self.assertEqual(code_of(instance.admin.Admin.GetStatus)[0], "OK", "what changes nothing goes on")
            disk.empty()
            self.assertTrue(eventually(lambda: fill_with(instance, 1, "after")[1] == "OK", 20), "it does not go on")
            instance.stop_paddockd()
            instance.start_paddockd()
            self.assertLessEqual(set(before + during + ["after0"]), tenants(instance))
            self.assertTrue(instance.admin.Audit.Verify().ok)
        finally:
            instance.stop()
            disk.close()
            shutil.rmtree(instance.dir, ignore_errors=True)

    def test_failed_sync_is_the_end(self):
        """A03: after EIO of fdatasync() nothing is acknowledged until a restart, although the disk works again."""
        with Instance(template=None) as instance:
            before, _ = fill_with(instance, 5, "before")
            strace = Strace(instance.paddockd.pid, "fdatasync:error=EIO:when=1", threads=True)
            during, code = fill_with(instance, 5, "during")
            strace.stop()
            self.assertEqual(during, [])
            self.assertIn(code, ("UNAVAILABLE", "INTERNAL", "DATA_LOSS"))
            time.sleep(0.3)
            after, code = fill_with(instance, 5, "after")
            self.assertEqual(after, [], "it acknowledges after a failed sync")
            self.assertNotEqual(code_of(lambda: instance.admin.Admin.GetStatus())[0], "DEADLINE_EXCEEDED")
            instance.stop_paddockd()
            instance.start_paddockd()
            self.assertLessEqual(set(before), tenants(instance))
            self.assertEqual(fill_with(instance, 1, "again")[1], "OK")
            self.assertTrue(instance.admin.Audit.Verify().ok)

    def test_short_and_interrupted_writes(self):
        """A03: a disk error of each kind, at each of the first writes: acknowledged means there after the restart."""
        for call in ("pwrite64", "writev", "pwritev"):
            for error in ("EIO", "ENOSPC", "EINTR"):
                with self.subTest(call=call, error=error), Instance(template=None) as instance:
                    strace = Strace(instance.paddockd.pid, f"{call}:error={error}:when=1+2", threads=True)
                    acknowledged, _ = fill_with(instance, 4, "t")
                    strace.stop()
                    instance.stop_paddockd(signal.SIGKILL)
                    instance.start_paddockd()
                    self.assertLessEqual(set(acknowledged), tenants(instance))
                    self.assertEqual(fill_with(instance, 1, "again")[1], "OK")
                    self.assertTrue(instance.admin.Audit.Verify().ok)


class Readers(unittest.TestCase):
    def test_one_that_was_killed(self):
        """A07: a reader from outside that died in its transaction does not make the store grow for ever."""
        with Instance(template=None) as instance:
            store = instance.data + "/store"
            fill_with(instance, 5, "before")
            reader = subprocess.Popen([sys.executable, "-c",
                                       "import sys, time; sys.path.insert(0, sys.argv[1]); import lmdb\n"
                                       "with lmdb.transaction(sys.argv[2], lmdb.RDONLY): print('open', flush=True); time.sleep(600)",
                                       os.path.dirname(os.path.abspath(__file__)), store], stdout=subprocess.PIPE, text=True)
            self.assertEqual(reader.stdout.readline(), "open\n")
            reader.kill()
            reader.wait()
            for _ in range(2500):  # each makes a record, in pages of its own while an old reader may want the old ones
                instance.admin.Admin.WhoAmI()
            self.assertLess(os.path.getsize(store + "/data.mdb"), 17 << 20)
            self.assertEqual(fill_with(instance, 1, "after")[1], "OK")


class Tampering(unittest.TestCase):
    """A04, A05. Flips, swaps and rewrites of single records are in tests/unit/state/audit_test.c; here the whole file."""

    def test_rolled_back(self):
        with Instance(template=None) as instance:
            fill_with(instance, 5, "a")
            time.sleep(1.5)  # the anchor follows once a second
            instance.stop_paddockd()
            shutil.copytree(instance.data + "/store", instance.dir + "/old", copy_function=shutil.copy2)
            instance.start_paddockd()
            fill_with(instance, 5, "b")
            instance.stop_paddockd()
            shutil.copy(instance.dir + "/old/data.mdb", instance.data + "/store/data.mdb")
            instance.start_paddockd()
            verdict = instance.admin.Audit.Verify()
            self.assertFalse(verdict.ok)
            self.assertIn("rolled back", verdict.text)
            # A05: what follows does not cover it up
            fill_with(instance, 20, "c")
            instance.stop_paddockd()
            instance.start_paddockd()
            self.assertFalse(instance.admin.Audit.Verify().ok)

    def test_database_deleted(self):
        with Instance(template=None) as instance:
            fill_with(instance, 3, "a")
            instance.stop_paddockd()
            shutil.rmtree(instance.data + "/store")
            instance.start_paddockd()
            self.assertFalse(instance.admin.Audit.Verify().ok)

    def test_random_damage(self):
        """Bytes of the store changed at random: it starts and tells, or does not start and says why; it never crashes and
        never shows a log that is not the one that was written."""
        rng = random.Random(SEED)
        with Instance(template=None) as instance:
            fill_with(instance, 30, "t")
            records = [r.hash for r in instance.admin.Audit.Export()]
            instance.stop_paddockd()
            path = instance.data + "/store/data.mdb"
            with open(path, "rb") as f:
                good = f.read()
            for round in range(30):
                at = rng.randrange(len(good) // 4096) * 4096 + rng.choice([rng.randrange(64), rng.randrange(4096)])
                damage = bytes(rng.randrange(256) for _ in range(rng.choice([1, 8, 512])))
                with open(path, "r+b") as f:
                    f.write(good[:at] + damage + good[at + len(damage):])
                    f.truncate(len(good))
                with self.subTest(seed=SEED, round=round, at=at, length=len(damage)):
                    self.judge(instance, records)

    def judge(self, instance, records):
        said = os.path.getsize(instance.log)
        with open(instance.log, "ab") as log:
            process = subprocess.Popen([PADDOCKD, "--config", instance.conf], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually(lambda: process.poll() is not None or instance._listens(), 20)
            if process.poll() is None:
                self.judge_running(instance, records)
            self.assertIn(process.poll(), (None, 1), "it died")
            if process.poll() == 1:
                with open(instance.log, "rb") as f:
                    f.seek(said)
                    self.assertIn(b"server.failed", f.read())
        finally:
            process.kill()
            process.wait()

    def judge_running(self, instance, records):
        client = instance.client("unix:" + instance.run + "/admin.sock")
        with contextlib.suppress(grpc.RpcError):
            if client.Audit.Verify(deadline=10).ok:
                self.assertEqual([r.hash for r in client.Audit.Export()][:len(records)], records)


class Place(unittest.TestCase):
    """L10, L11: state that is not ours, or not for us."""

    def setUp(self):
        self.instance = Instance(template=None)
        self.instance.start()
        fill_with(self.instance, 2, "t")
        self.instance.stop_paddockd()

    def tearDown(self):
        self.instance.stop()

    def refuses(self, *words):
        """A start ends with 1 and one line that has these words; no file was changed."""
        before = self.files()
        result = subprocess.run([PADDOCKD, "--config", self.instance.conf], capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(result.returncode, 1, result.stderr[-500:])
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertEqual(self.files(), before)

    def starts(self):
        self.instance.start_paddockd()
        self.assertLessEqual({"t0", "t1"}, tenants(self.instance))
        self.instance.stop_paddockd()

    def files(self):
        found = {}
        for name in ("store/data.mdb", "audit.head"):
            with open(f"{self.instance.data}/{name}", "rb") as f:
                found[name] = f.read()
        return found

    def test_newer_schema(self):
        store = self.instance.data + "/store"
        old = lmdb.get(store, "meta", b"schema")
        lmdb.put(store, "meta", b"schema", b"99")
        self.refuses("newer paddockd", "99")
        lmdb.put(store, "meta", b"schema", b"x")
        self.refuses("schema")
        lmdb.put(store, "meta", b"schema", old)
        self.starts()

    def test_owner_and_mode(self):
        store = self.instance.data + "/store"
        owner = os.stat(store)
        os.chmod(store, 0o777)
        self.refuses("others can write")
        os.chmod(store, 0o700)
        os.chown(store + "/data.mdb", 12345, 12345)
        self.refuses("another user")
        os.chown(store + "/data.mdb", owner.st_uid, owner.st_gid)
        os.chmod(self.instance.data, 0o777)
        self.refuses("must belong to root")
        os.chmod(self.instance.data, 0o1775)
        os.rename(store, store + ".real")
        os.symlink(store + ".real", store)
        result = subprocess.run([PADDOCKD, "--config", self.instance.conf], capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("not a directory", result.stderr)
        os.unlink(store)
        os.rename(store + ".real", store)
        self.starts()

    def test_database_cut(self):
        path = self.instance.data + "/store/data.mdb"
        with open(path, "rb") as f:
            good = f.read()
        for size in (0, 100, 4096, 8192, len(good) // 2):
            with self.subTest(size=size):
                os.truncate(path, size)
                result = subprocess.run([PADDOCKD, "--config", self.instance.conf], capture_output=True, text=True, timeout=30,
                                        check=False)
                self.assertEqual(result.returncode, 1, result.stderr[-300:])
                self.assertIn("server.failed", result.stderr)
                with open(path, "wb") as f:
                    f.write(good)
        self.starts()

    def test_second_instance(self):
        """A06"""
        self.instance.start_paddockd()
        result = subprocess.run([PADDOCKD, "--config", self.instance.conf], capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("another paddockd", result.stderr)
        self.assertEqual(fill_with(self.instance, 1, "first")[1], "OK")

    def test_stale_sockets(self):
        for name in ("admin.sock", "paddock.sock"):
            path = f"{self.instance.run}/{name}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            subprocess.run([sys.executable, "-c", f"import socket; socket.socket(socket.AF_UNIX).bind({path!r})"], check=True)
            shutil.chown(path, "paddock", "paddock")
        self.starts()

    def test_odd_surroundings(self):
        """I07: closed standard descriptors, umask, few descriptors, another locale and time zone."""
        for before in ("exec 0<&- 1>&-", "umask 0777", "umask 0", "ulimit -n 64", "export LC_ALL=tr_TR.UTF-8 TZ=Asia/Kathmandu", "export TMPDIR=/proc"):
            with self.subTest(before=before):
                with open(self.instance.log, "ab") as log:
                    process = subprocess.Popen(["/bin/bash", "-c", f"{before}; exec {PADDOCKD} --config {self.instance.conf}"],
                                               stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                self.instance.paddockd = process
                try:
                    wait_until(self.instance._listens, 20, "start")
                    self.instance.admin = self.instance.client("unix:" + self.instance.run + "/admin.sock")
                    self.assertLessEqual({"t0", "t1"}, tenants(self.instance))
                finally:
                    self.instance.stop_paddockd()


if __name__ == "__main__":
    print(f"# seed {SEED}", flush=True)
    tap.main()
