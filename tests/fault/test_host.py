#!/usr/bin/python3
"""I05, L05, L10, O05: a host that refuses: no descriptors, no memory, no space, calls that fail. A create that cannot be
done says so and leaves nothing; what runs goes on; when the host is well again, so is Paddock."""
import contextlib
import os
import random
import resource
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
import grpc
import host
import tap
from crash import Crashing, Strace
from paddock import WARDEN, Instance, code_of, eventually, pb, wait_until

SEED = int(os.environ.get("SEED", str(random.randrange(1 << 30))))
STEPS = os.environ.get("HOST_STEPS", "16")

# What the warden asks of the kernel to make and to remove a sandbox, and how it could be refused.
FAILURES = [(call, error, k) for call, error, times in (
    ("mkdirat", "ENOSPC", 4), ("openat", "EMFILE", 12), ("openat", "ENFILE", 6), ("write", "ENOSPC", 12), ("write", "EIO", 6),
    ("pwrite64", "ENOSPC", 2), ("ioctl", "EIO", 4), ("ioctl", "ENOSPC", 4), ("clone3", "EAGAIN", 1), ("clone3", "ENOMEM", 1),
    ("renameat2", "EIO", 2), ("socket", "EMFILE", 2), ("bind", "ENOSPC", 1), ("listen", "ENOMEM", 1), ("connect", "ECONNREFUSED", 1),
    ("pipe2", "EMFILE", 1), ("epoll_ctl", "ENOMEM", 2), ("epoll_ctl", "ENOSPC", 2), ("unlinkat", "EBUSY", 6), ("unlinkat", "EIO", 2),
    ("waitid", "EINTR", 1), ("read", "EINTR", 2)) for k in range(1, times + 1)]


class Failing(unittest.TestCase):
    def test_calls_of_the_warden(self):
        """I05: the k-th call of a kind fails, for each kind and k: a clean refusal or success, and nothing is left."""
        steps = FAILURES if STEPS == "all" else random.Random(SEED).sample(FAILURES, min(int(STEPS), len(FAILURES)))
        with Crashing() as crashing:
            refused = 0
            for call, error, k in steps:
                with self.subTest(seed=SEED, call=call, error=error, k=k):
                    with Strace(crashing.instance.warden.pid, f"{call}:error={error}:when={k}"):
                        id, why = crashing.create()
                        refused += not id
                        if id:
                            code_of(lambda i=id: crashing.instance.admin.run(i, "true", deadline=10))
                            self.assertIn(crashing.kill(id)[0], ("OK", "UNAVAILABLE"))
                        else:
                            self.assertRegex(why, "^(UNAVAILABLE|RESOURCE_EXHAUSTED) ", "the refusal")
                            self.assertNotIn(crashing.instance.dir, why, "a client sees a host path")
                    self.assertIsNone(crashing.instance.warden.poll(), "the warden died")
                    self.assertEqual(crashing.inspect([], []), [])
                    self.assertEqual(crashing.settle(), [])
            self.assertGreater(refused, 0, "no call was ever refused")


class Descriptors(unittest.TestCase):
    """O05"""

    def test_paddockd(self):
        with Instance() as instance:
            kept = instance.admin.create()
            instance.stop_paddockd()
            instance.start_paddockd(files=128)
            pid = instance.paddockd.pid
            sockets = []
            for _ in range(300):
                s = socket.socket()
                s.settimeout(2)
                try:
                    s.connect(("127.0.0.1", instance.port))
                    sockets.append(s)
                except OSError:
                    s.close()
            wait_until(lambda: host.fds(pid) >= 110, 10, "descriptors are used up")
            used = self.cpu(pid)
            time.sleep(2)
            self.assertLess(self.cpu(pid) - used, 1.0, "it spins on accept")
            # The connection that is there goes on.
            self.assertEqual(instance.admin.Sandboxes.Get(sandbox_id=kept.id).id, kept.id)
            self.assertEqual(code_of(lambda: instance.admin.Admin.CreateTenant(name="full"))[0], "OK")
            for s in sockets:
                s.close()
            self.assertTrue(eventually(lambda: host.fds(pid) < 100, 20), "the connections stay")
            self.assertEqual(instance.admin.run(kept.id, "true").code, 0)
            # gRPC before 1.57 gives up a listener whose accept() met EMFILE (grpc/grpc#20418); here none is met (accept.c).
            self.assertEqual(instance.client().Health.Check(deadline=5).status, 1)
            instance.admin.Sandboxes.Kill(sandbox_id=kept.id)

    def dropped(self, instance):
        """A connection is closed at once."""
        with socket.socket() as s:
            s.settimeout(10)
            s.connect(("127.0.0.1", instance.port))
            with contextlib.suppress(ConnectionResetError):
                return s.recv(1) == b""
            return True

    def test_paddockd_without_room_for_pipes(self):
        """Pipes that init sends find no room: the call is refused, the sandbox and what runs in it live, nothing that was refused
        runs on, and what a new daemon could not take over at first it takes over later."""
        with Instance() as instance:
            box = instance.admin.create().id
            steady = instance.admin.run(box, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done", detach=True).id
            instance.stop_paddockd()
            instance.start_paddockd(files=96)
            admin, codes = instance.admin, []
            for _ in range(60):
                codes.append(code_of(lambda: admin.run(box, "exec sleep 7777", detach=True, deadline=10))[0])
            for i in range(6):
                codes.append(code_of(lambda n=i: admin.write(box, f"/home/user/f{n}", b"x"))[0])
                codes.append(code_of(lambda: admin.read(box, "/etc/passwd"))[0])
            self.assertEqual(set(codes), {"OK", "RESOURCE_EXHAUSTED"})
            for _ in range(3):
                self.assertTrue(self.dropped(instance))
            self.assertEqual(admin.Sandboxes.Get(sandbox_id=box).state, 2)
            known = [p.process_id for p in admin.Processes.List(sandbox_id=box).processes]
            self.assertIn(steady, known)
            self.assertEqual(len(known), codes[:60].count("OK") + 1)
            for id in known[-12:]:
                admin.Processes.Signal(sandbox_id=box, process_id=id, signal=9)
            self.assertTrue(eventually(lambda: code_of(lambda: admin.run(box, "echo alive"))[0] == "OK", 10), "there is room again")
            self.assertEqual(instance.client().Health.Check(deadline=5).status, 1)
            self.assertTrue(eventually(lambda: int(admin.run(box, "ps | grep -c '[s]leep 7777'; true").out) == len(known) - 13, 10),
                            (len(known), admin.run(box, "ps").out))
            instance.stop_paddockd()
            instance.start_paddockd(files=80)  # fewer than what runs needs
            count = lambda: next(p for p in instance.admin.Processes.List(sandbox_id=box).processes if p.process_id == steady).output_bytes
            running = [p.process_id for p in instance.admin.Processes.List(sandbox_id=box).processes]
            self.assertEqual(sorted(running), sorted(known[:-12]))
            for id in running:
                if id != steady:
                    instance.admin.Processes.Signal(sandbox_id=box, process_id=id, signal=9)
            before = count()
            self.assertTrue(eventually(lambda: count() > before, 10), "its output is not read")
            self.assertEqual(instance.admin.run(box, "echo again").out, b"again\n")

    @staticmethod
    def cpu(pid):
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def test_warden(self):
        with Crashing() as crashing:
            pid = crashing.instance.warden.pid
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))  # those numbers are taken: it gets no other
            id, why = crashing.create()
            self.assertIsNone(id)
            self.assertRegex(why, "^(UNAVAILABLE|RESOURCE_EXHAUSTED) ")
            self.assertEqual(crashing.instance.admin.run(crashing.keeper, "true").code, 0)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            self.assertEqual(crashing.inspect([], []), [])
            self.assertEqual(crashing.settle(), [])


class Namespaces(unittest.TestCase):
    """The host is at one of its limits: a create is refused cleanly, nothing is left, and when there is room again it works."""

    def refuse(self, call, error, tries):
        """Refuse a call of the warden and its children, and create until the stock of ready parts is used up."""
        with Crashing() as crashing:
            refused = None
            with Strace(crashing.instance.warden.pid, f"{call}:error={error}", threads=True):
                for _ in range(tries):
                    id, why = crashing.create()
                    if id:
                        self.assertEqual(crashing.kill(id)[0], "OK")
                    else:
                        refused = why
                        break
                self.assertEqual(crashing.instance.admin.run(crashing.keeper, "echo alive", deadline=20).out, b"alive\n")
            self.assertRegex(refused or "never refused", "^(RESOURCE_EXHAUSTED|UNAVAILABLE) ")
            self.assertNotIn(crashing.instance.dir, refused, "a client sees a host path")
            self.assertIsNone(crashing.instance.warden.poll(), "the warden died")
            self.assertEqual(crashing.inspect([], []), [])
            self.assertEqual(crashing.settle(), [])

    def test_R12_no_more_user_and_network_namespaces(self):
        self.refuse("unshare", "ENOSPC", 20)

    def test_R12_no_more_other_namespaces(self):
        self.refuse("clone3", "ENOSPC", 5)

    def test_R13_no_more_mounts(self):
        for call in ("fsmount", "move_mount"):
            with self.subTest(call=call):
                self.refuse(call, "ENOSPC", 5)


class Pool(unittest.TestCase):
    def test_full(self):
        """Sandboxes may be promised more than the pool holds: one that takes it all is told so, the others live, and its
        end gives the space back."""
        with Instance(pool="512M", disk_overcommit="100", pool_size=0) as instance:
            limits = pb.Resources(disk_bytes=1 << 30)
            one, other = instance.admin.create(resources=limits), instance.admin.create(resources=limits)
            result = instance.admin.run(one.id, "dd if=/dev/zero of=/home/user/big bs=64k; sync; echo end", user="root")
            self.assertIn(b"No space left", result.err)
            self.assertEqual(result.out, b"end\n")
            self.assertEqual(instance.admin.run(other.id, "echo alive").out, b"alive\n")
            instance.admin.Sandboxes.Kill(sandbox_id=one.id)
            third = None

            def usable():
                nonlocal third
                try:
                    third = instance.admin.create(resources=limits)
                except grpc.RpcError:
                    return False
                result = instance.admin.run(third.id, "dd if=/dev/zero of=/home/user/some bs=64k count=1600; sync")
                instance.admin.Sandboxes.Kill(sandbox_id=third.id)
                return result.code == 0 and b"No space" not in result.err
            self.assertTrue(eventually(usable, 60), "the space does not come back")
            self.assertEqual(instance.admin.run(other.id, "echo x > /home/user/x; cat /home/user/x").out, b"x\n")


class State(unittest.TestCase):
    """L10, L11 of the warden: a state file that is not what it was; a runtime directory that is in use or not ours."""

    def test_damaged_record(self):
        for damage in (b"", b"x" * 10, bytes(400), b"\xff" * 400):
            with self.subTest(length=len(damage)), Instance(pool_size=0) as instance:
                hurt, well = instance.admin.create(), instance.admin.create()
                instance.warden.kill()
                instance.warden.wait()
                with open(f"{instance.run}/sandboxes/{hurt.id}/state", "wb") as f:
                    f.write(damage)
                instance.start_warden()
                self.assertTrue(eventually(lambda: self.ended(instance, hurt.id), 20), "it is neither there nor gone")
                self.assertEqual(instance.admin.run(well.id, "echo alive").out, b"alive\n")
                self.assertFalse(os.path.exists(f"{instance.run}/sandboxes/{hurt.id}"))
                self.assertEqual(subprocess.run(["find", "/sys/fs/cgroup", "-name", hurt.id], capture_output=True, check=True).stdout, b"")

    @staticmethod
    def ended(instance, id):
        return [s.id for s in instance.admin.Sandboxes.List().sandboxes if s.state == 2].count(id) == 0

    def test_second_warden(self):
        with Instance(template=None) as instance:
            result = subprocess.run([WARDEN, "--data-dir", instance.data, "--runtime-dir", instance.run, "--user", "paddock",
                                     "--libexec-dir", instance.libexec] + instance.warden.args[instance.warden.args.index("--policy-dir"):],
                                    capture_output=True, text=True, timeout=30, check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn("another warden", result.stderr)
            self.assertIsNone(instance.warden.poll())

    def test_stale_socket(self):
        with Instance(template=None) as instance:
            instance.warden.kill()
            instance.warden.wait()
            self.assertTrue(os.path.exists(instance.run + "/warden.sock"))
            instance.start_warden()
            self.assertTrue(eventually(lambda: code_of(lambda: instance.admin.build_template("none", b"x"))[0] == "INVALID_ARGUMENT", 20))


if __name__ == "__main__":
    print(f"# seed {SEED}", flush=True)
    tap.main()
