"""What the crash tests share: an instance whose daemons are ended at a chosen place, and the invariants that must hold
after the next start."""
import contextlib
import os
import re
import subprocess
import threading
import time

import grpc
import host
from criu import COUNTER, counted, lazy_pending
from paddock import SOURCE, Instance, code_of, enum, eventually, wait_until

RUNNING = enum("SANDBOX_STATE_RUNNING")
PAUSED = enum("SANDBOX_STATE_PAUSED")
TO_DISK, FROZEN = (enum("PAUSE_MODE_" + n) for n in ("CHECKPOINT", "FREEZE"))
QUOTA = 2  # sandboxes of the tenant: the one that outlives everything, and one more


def fault_points(*folders):
    """The names in FAULT("...") of the sources: a new point is tested without being listed anywhere."""
    found = set()
    for folder in folders:
        for base, _, names in os.walk(os.path.join(SOURCE, folder)):
            for name in names:
                if name.endswith(".c"):
                    with open(os.path.join(base, name)) as stream:
                        found |= set(re.findall(r'\bFAULT\("([^"]+)"\)', stream.read()))
    return sorted(found)


class Strace:
    """strace on a living process: `inject` as its -e takes it. Ends with the process, or with stop()."""

    def __init__(self, pid, inject, threads=False):
        names = inject.split(":")[0]
        self.process = subprocess.Popen(["strace", "-p", str(pid), "-o", "/dev/null", "-e", "trace=" + names,
                                         "-e", "inject=" + inject] + (["-f"] if threads else []),
                                        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = []
        attached = threading.Event()

        def listen():
            for line in self.process.stderr:
                said.append(line.strip())
                if "attached" in line:
                    attached.set()
        threading.Thread(target=listen, daemon=True).start()
        if not attached.wait(20):
            raise RuntimeError(f"strace did not attach: {said}")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Crashing:
    """One instance and one tenant with a sandbox, the keeper, that lives through all crashes."""

    def __init__(self):
        self.instance = Instance(template="mini", pool="2G", pool_size=0, retention_ms="1s")
        self.groups = []  # the folders of this instance's cgroups, one in each hierarchy

    def __enter__(self):
        try:
            self.instance.start()
            self.tenant = self.instance.tenant("crash", max_sandboxes=QUOTA)
            self.keeper = self.create()[0]
            self.instance.admin.write(self.keeper, "/home/user/kept", b"kept")
            self.sleeper = next(self.tenant.Processes.Start(sandbox_id=self.keeper, argv=["sleep", "3600"])).started.process_id
            self.acknowledged = {self.keeper}
            self.groups = self._groups()
            wait_until(lambda: self._stocked(), 20, "the warden's stock")
            time.sleep(0.5)
            self.before = self.look()
        except BaseException:
            self.instance.stop()
            raise
        return self

    def __exit__(self, *unused):
        self.instance.stop()
        for group in self.groups:
            with contextlib.suppress(OSError):
                os.rmdir(group)

    def _groups(self):
        """The folder of this instance's cgroups in each hierarchy."""
        found = subprocess.run(["find", "/sys/fs/cgroup", "-type", "d", "-name", self.keeper], capture_output=True, text=True,
                               check=True).stdout.split()
        return [os.path.dirname(path) for path in found]

    # -- what there is

    def listed(self):
        """All that have not ended."""
        return self.instance.admin.Sandboxes.List(all_tenants=True, page_size=1000, deadline=10).sandboxes

    def living(self):
        return sorted(s.id for s in self.listed() if s.state == RUNNING)

    def pool(self, folder):
        """A folder of the storage pool, which is mounted in the warden's namespace only."""
        return os.listdir(f"/proc/{self.instance.warden.pid}/root{self.instance.run}/pool/{folder}")

    def _stocked(self):
        return len(self.pool("stock")) >= 4

    def cgroups(self):
        """The sandboxes that have a cgroup in any hierarchy."""
        return sorted({name for group in self.groups for name in self.cgroups_in(group)})

    @staticmethod
    def cgroups_in(group):
        return [name for name in os.listdir(group) if os.path.isdir(f"{group}/{name}")]

    def look(self):
        """Everything that could be left behind, as the host sees it."""
        warden = self.instance.warden.pid
        return {
            "cgroups": self.cgroups(),
            "layers": sorted(self.pool("sandboxes")),
            "trash": len(self.pool("trash")),
            "stock": len(self.pool("stock")),
            "records": sorted(os.listdir(self.instance.run + "/sandboxes")),
            "mounts of the warden": len(host.mounts(warden)),
            "descriptors of the warden": host.fds(warden),
            "loop devices": sum(self.instance.data in line for line in host.loops()),
            # Of the others: the keeper's init has a child ready for the next command for a few seconds after each.
            "processes": sum(host.in_cgroup(pid, self.groups) and not host.in_cgroup(pid, [self.keeper]) for pid in host.processes()),
        }

    # -- what is done

    def create(self, deadline=15):
        """-> (id, "") or (None, why). A daemon that has just started may need a moment to find the other."""
        for _ in range(100):
            try:
                return self.tenant.Sandboxes.Create(template="base", timeout_ms=3600000, deadline=deadline).id, ""
            except grpc.RpcError as error:
                why = f"{error.code().name} {error.details()}"
            if "manager is away" not in why or self.instance.warden.poll() is not None:
                break
            time.sleep(0.05)
        return None, why

    def kill(self, id, deadline=15):
        return code_of(lambda: self.instance.admin.Sandboxes.Kill(sandbox_id=id, deadline=deadline))

    def restart(self):
        """Start again whatever died."""
        instance = self.instance
        if instance.warden.poll() is not None:
            instance.start_warden()
        if instance.paddockd.poll() is not None:
            instance.start_paddockd()
        for client in (instance.admin, self.tenant):
            with contextlib.suppress(grpc.FutureTimeoutError):  # the calls that follow say what is wrong
                client.wait_ready(20)

    def again(self, who, env=None):
        """Kill a daemon and start it with this environment. It may meet its fault while it starts."""
        process = getattr(self.instance, who)
        process.kill()
        process.wait()
        with contextlib.suppress(RuntimeError, TimeoutError):
            getattr(self.instance, "start_" + who)(env)

    def through_disk(self, id):
        """Pause to disk and resume. Both work, or the child that does it met a fault. What becomes of the sandbox is the
        verdict's subject."""
        sandboxes = self.instance.admin.Sandboxes
        for call in (lambda: sandboxes.Pause(sandbox_id=id, mode=TO_DISK, deadline=20), lambda: sandboxes.Resume(sandbox_id=id, deadline=20)):
            if code_of(call)[0] != "OK":
                self.interrupted = True

    def through_lazy(self, id):
        """The same with so much memory that it comes back later, and a snapshot before it has. A server of pages that ends takes
        the sandbox along."""
        admin = self.instance.admin
        held = "x=$(head -c 40000000 /dev/zero | tr '\\0' x); echo up; read -r y"
        code_of(lambda: next(e for e in admin.Processes.Start(sandbox_id=id, argv=["sh", "-c", held], open_stdin=True, deadline=20)
                             if e.HasField("output")))
        self.through_disk(id)
        if not eventually(lambda: not lazy_pending(self.instance, id), 10) or not self._works(id):
            self.interrupted = True
        self.through_disk(id)
        self.through_snapshot(id)
        if not self._works(id):
            self.interrupted = True

    def counts_on(self, point):
        """A sandbox with a counter goes to disk and back, and into a snapshot, with a fault at this point of the warden or of its child
        -> what is wrong, or "\""""
        sandboxes = self.instance.admin.Sandboxes
        id, why = self.create()
        if not id:
            return why
        counter = self.instance.admin.run(id, COUNTER, detach=True).id
        self.again("warden", {"PADDOCK_FAULT": f"{point}:1"})
        self.restart()
        self.interrupted = False
        # A freeze shows that the daemons have found each other.
        wait_until(lambda: code_of(lambda: sandboxes.Pause(sandbox_id=id, mode=FROZEN, deadline=20))[0] == "OK", 20)
        sandboxes.Resume(sandbox_id=id, deadline=20)
        self.through_disk(id)
        self.through_snapshot(id)
        if not self.interrupted:
            return f"{point} was not passed"
        self.instance.warden.kill()
        self.instance.warden.wait()
        self.restart()
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: code_of(lambda: sandboxes.Resume(sandbox_id=id, deadline=20))[0] == "OK", 20)
        code, why = code_of(lambda: self.instance.admin.run(id, "true", deadline=20))
        if code != "OK":
            return f"{code} {why}"
        try:
            seen = counted(self.instance.admin, id, counter, 10)
            counted(self.instance.admin, id, counter, seen + 10)
        except (AssertionError, grpc.RpcError) as error:
            return f"what ran in it: {error}"
        return "; ".join(self.settle())

    def through_snapshot(self, id):
        """Take a snapshot and remove it. A failed one leaves none."""
        snapshots = self.instance.admin.Snapshots
        code, _ = code_of(lambda: snapshots.Create(sandbox_id=id, name="crash", deadline=20))
        if code != "OK":
            self.interrupted = True
        code_of(lambda: snapshots.Remove(snapshot="crash", deadline=20))

    def through_reset(self, id):
        """Write and reset. Whatever the answer: what is there later is what was written, or nothing at all."""
        admin = self.instance.admin
        code_of(lambda: admin.run(id, "echo written > /tmp/mark", deadline=5))
        code, _ = code_of(lambda: admin.Sandboxes.Reset(sandbox_id=id, deadline=20))
        if code == "OK" and admin.run(id, "ls /tmp", deadline=5).out != b"":
            raise AssertionError("the reset was acknowledged, and what was written is still there")

    def lives(self, victim, halfway=None):
        """Create, use (`halfway`, too), and kill until the victim dies; three times at most. -> (living, killed, died)"""
        created, killed = [], []
        self.interrupted = False
        for _ in range(3):
            id, _ = self.create()
            if id:
                created.append(id)
                code_of(lambda i=id: self.instance.admin.run(i, "true", deadline=5))
                if halfway and victim.poll() is None:
                    halfway(id)
                if victim.poll() is None:
                    name, _ = self.kill(id, deadline=3)  # it waits for a warden that is away
                    created.remove(id)  # from here on either outcome is right, unless it was acknowledged
                    if name == "OK":
                        killed.append(id)
            if victim.poll() is not None:
                return created, killed, True
        with contextlib.suppress(subprocess.TimeoutExpired):
            victim.wait(0.5)
        return created, killed, victim.poll() is not None

    # -- what must hold

    def inspect(self, created, killed):
        """What is wrong after a restart, as sentences; empty when all is well."""
        wrong = []
        expected = {self.keeper, *created}
        if not eventually(lambda: expected <= set(self.living()), 20):
            wrong.append(f"lost: {sorted(expected - set(self.living()))}")
        living = self.living()
        wrong += [f"listed twice: {id}" for id in set(living) if living.count(id) > 1]
        wrong += [f"back from the dead: {id}" for id in killed if id in living]
        for id in sorted(expected & set(living)):
            if not eventually(lambda i=id: self._works(i), 20):  # it may be in the middle of being taken over
                wrong.append(f"{id} does not work: {code_of(lambda i=id: self.instance.admin.run(i, 'true', deadline=20))}")
        return wrong + self._keeper_is_whole()

    def _works(self, id):
        return code_of(lambda: self.instance.admin.run(id, "true", deadline=20))[0] == "OK"

    def _keeper_is_whole(self):
        wrong = []
        with contextlib.suppress(grpc.RpcError):
            if self.instance.admin.read(self.keeper, "/home/user/kept") != b"kept":
                wrong.append("the keeper's file changed")
            processes = self.tenant.Processes.List(sandbox_id=self.keeper, deadline=10).processes
            if self.sleeper not in [p.process_id for p in processes]:
                wrong.append("the keeper's process is gone")
            return wrong
        return ["the keeper cannot be asked"]

    def _more(self):
        """What there is more of than there was, or other."""
        now = self.look()
        return [f"{name}: {before} -> {now[name]}" for name, before in self.before.items()
                if (now[name] > before if isinstance(before, int) else now[name] != before)]

    def _only_the_keeper(self):
        return [s.id for s in self.listed()] == [self.keeper]

    def resume_paused(self):
        """One that a crash left paused is as good as one that runs, if it can be resumed."""
        for sandbox in self.listed():
            if sandbox.state == PAUSED:
                eventually(lambda i=sandbox.id: code_of(lambda: self.instance.admin.Sandboxes.Resume(sandbox_id=i, deadline=20))[0] == "OK", 20)

    def settle(self):
        """Kill all but the keeper: only what the keeper holds may be left, and the quota must know it."""
        for id in self.living():
            if id != self.keeper:
                self.kill(id)
        # The end of one whose kill was interrupted is asked for again by paddockd, which takes it a moment.
        eventually(lambda: not self._more() and self._only_the_keeper(), 20)
        wrong = self._more()
        extra, why = self.create()
        if not extra:
            wrong.append(f"nothing can be created any more: {why}")
            return wrong
        _, why = self.create()
        if "max_sandboxes" not in why:
            wrong.append(f"the quota does not count right: {why or 'one too many was let in'}")
        self.kill(extra)
        return wrong

    def audit(self):
        verdict = self.instance.admin.Audit.Verify(deadline=30)
        return [] if verdict.ok else [f"audit: {verdict.text}"]

    def verdict(self, created, killed):
        self.restart()
        self.resume_paused()
        return self.inspect(created, killed) + self.settle() + self.audit()
