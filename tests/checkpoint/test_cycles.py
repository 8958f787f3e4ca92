"""Again and again: to the disk and back, copies of one snapshot, at once and while output flows. No byte is lost, nothing is left.

CYCLES (of one sandbox), FORKS (of one snapshot) and SMALL_PAUSES (of a sandbox with a small processor limit): how often; the full
numbers are 200, 100 and 50."""
import concurrent.futures
import os
import random
import subprocess
import threading
import time

import host
from criu import needs_criu
from lab import KILLED, PAUSED, RUNNING, Case, Output, back, pool, through_disk, to_disk, wait_until
from paddock import code_of

CYCLES = int(os.environ.get("CYCLES", "12"))
FORKS = int(os.environ.get("FORKS", "10"))
SMALL_PAUSES = int(os.environ.get("SMALL_PAUSES", "10"))

# Two connections of its own, a thread, numbers as fast as they are taken.
BUSY = r"""
import socket, sys, threading
server = socket.create_server(("127.0.0.1", 8000))
client = socket.create_connection(("127.0.0.1", 8000))
peer = server.accept()[0]
def echo():
    while True:
        peer.sendall(peer.recv(100))
threading.Thread(target=echo, daemon=True).start()
i = 0
while True:
    client.sendall(b"%d" % i)
    assert client.recv(100) == b"%d" % i
    sys.stdout.write(f"{i}\n")
    sys.stdout.flush()
    i += 1
"""
COMPILE = "i=0; while echo 'int main(void) { return 0; }' | gcc -x c -o program - && ./program; do echo $i; i=$((i+1)); done"
FLOOD = "i=0; while :; do echo $i-0123456789012345678901234567890123456789012345678901234567890123456789; i=$((i+1)); done"


@needs_criu
class Cycles(Case):
    def numbers(self, lines):
        self.assertEqual([int(line.split(b"-")[0]) for line in lines], list(range(len(lines))))

    def test_to_disk_and_back_again_and_again(self):
        box = self.new()
        busy = self.client.run(box, "python3", "-c", BUSY, detach=True, user="root").id
        output = Output(self.client, box, busy, deadline=600)
        seen = 10
        output.lines(seen)
        through_disk(self.client, box)
        before = self.settled()
        for _ in range(CYCLES):
            through_disk(self.client, box)
            seen = len(output.lines(seen + 1)) + 20
            self.numbers(output.lines(seen))
        self.numbers(Output(self.client, box, busy).lines(seen))
        self.assertEqual(output.missing, 0)
        wait_until(lambda: self.left() == before, 20, f"{before} -> {self.left()}")

    def test_compilers_on_a_small_processor(self):
        """They are in vfork() most of the time, where nothing can stop them, and their time slices are far apart."""
        for millis in (100, 400):
            box = self.new(resources={"cpu_millis": millis})
            output = Output(self.client, box, self.client.run(box, "bash", "-c", COMPILE, detach=True).id, deadline=600)
            for pause in range(SMALL_PAUSES):
                time.sleep(random.uniform(0, 0.2))
                through_disk(self.client, box)
                if pause % 10 == 9:
                    self.numbers(output.lines(output.data.count(b"\n") + 1))
            self.numbers(output.lines(output.data.count(b"\n") + 2))
            output.cancel()
            self.client.Sandboxes.Kill(sandbox_id=box)

    def settled(self):
        """What is left when nothing has changed for 2 s: the warden fills its stocks in a quiet moment."""
        seen, since = self.left(), time.monotonic()
        while time.monotonic() - since < 2:
            time.sleep(0.2)
            now = self.left()
            if now != seen:
                seen, since = now, time.monotonic()
        return seen

    def left(self):
        """What this instance holds on the host."""
        groups = subprocess.run(["find", "/sys/fs/cgroup", "-type", "d", "-name", "i" + "?" * 20], capture_output=True, text=True).stdout.split()
        boxes = os.listdir(self.instance.run + "/sandboxes")
        groups = [path for path in groups if os.path.basename(path) in boxes]
        warden, paddockd = self.instance.warden.pid, self.instance.paddockd.pid
        return {"mounts": len(host.mounts(warden)), "groups": len(groups), "sandboxes": len(boxes),
                "processes": sum(host.in_cgroup(pid, groups[:1]) for pid in host.processes()),
                "descriptors": (host.fds(warden), host.fds(paddockd)),
                "pool": [(folder, len(pool(folder))) for folder in ("sandboxes", "checkpoints", "snapshots")]}

    def test_a_cycle_leaves_nothing(self):
        def one():
            box = self.new()
            self.sh(box, "echo x > x")
            through_disk(self.client, box)
            shot = self.client.Snapshots.Create(sandbox_id=box)
            copy = self.client.create(snapshot=shot.id).id
            to_disk(self.client, copy)
            for id in (box, copy):
                self.client.Sandboxes.Kill(sandbox_id=id)
            self.client.Snapshots.Remove(snapshot=shot.id)
        one()
        wait_until(lambda: not pool("trash"), 20)
        before = self.left()
        one()
        wait_until(lambda: self.left() == before, 20, f"{before} -> {self.left()}")

    def test_forks_of_one_snapshot(self):
        box = self.new(resources={"memory_bytes": 96 << 20, "disk_bytes": 256 << 20})  # room is set aside for each copy
        busy = self.client.run(box, "python3", "-c", BUSY, detach=True, user="root").id
        Output(self.client, box, busy).lines(10)
        shot = self.client.Snapshots.Create(sandbox_id=box)
        with concurrent.futures.ThreadPoolExecutor(5) as threads:
            copies = list(threads.map(lambda _: self.client.create(snapshot=shot.id).id, range(FORKS)))
        firsts = set()
        for copy in copies:
            output = Output(self.client, copy, busy)
            lines = output.lines(30)
            firsts.add((output.missing, lines[0]))
            self.assertGreater(output.missing, 0, "what was written before the snapshot is the source's")
            self.assertEqual([int(n) for n in lines], list(range(int(lines[0]), int(lines[0]) + len(lines))))
            output.cancel()
        self.assertEqual(len(firsts), 1, f"all go on from the same byte: {firsts}")
        self.assertEqual(len({self.sh(copy, "hostname") for copy in copies}), FORKS)

    def test_output_streams_through_a_pause(self):
        box = self.new()
        flood = self.client.run(box, FLOOD, detach=True).id
        output, stop = Output(self.client, box, flood, deadline=120), threading.Event()

        def follow():
            while not stop.is_set() and output._take():
                pass
        follower = threading.Thread(target=follow)
        follower.start()
        for _ in range(3):
            had = len(output.data)
            wait_until(lambda: len(output.data) > had + 100000, 30, "output flows")
            through_disk(self.client, box)
        had = len(output.data)
        wait_until(lambda: len(output.data) > had + 100000, 30, "output flows")
        stop.set()
        self.client.Processes.Signal(sandbox_id=box, process_id=flood, signal=9)
        follower.join()
        self.assertEqual(output.missing, 0, "it was attached all the time")
        self.numbers(output.data.rsplit(b"\n", 1)[0].split(b"\n"))

    def test_two_clients_pause_at_once(self):
        box = self.new()
        busy = self.client.run(box, "python3", "-c", BUSY, detach=True, user="root").id
        other = self.instance.with_key(type(self).__name__.lower())
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            for _ in range(2):
                for call in (to_disk, back):
                    for future in [threads.submit(call, client, box) for client in (self.client, other) * 2]:
                        future.result()
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=box).state, RUNNING)
        self.numbers(Output(self.client, box, busy).lines(50))

    def test_a_dump_does_not_wait_for_the_quota(self):
        box = self.new(resources={"cpu_millis": 50})
        self.client.run(box, "sleep 1000 & sleep 1000 & sleep 1000 & wait", detach=True)
        path = host.cpu_quota_file(box)
        self.assertEqual(host.cpu_quota(box, path), "5000")
        taken, seen = self.client.Snapshots.Create(sandbox_id=box, later=True), set()
        while not taken.done():
            seen.add(host.cpu_quota(box, path))
        self.assertEqual(taken.result().sandbox_id, box)
        self.assertTrue(seen & {"-1", "max"}, seen)
        self.assertEqual(host.cpu_quota(box), "5000")
        through_disk(self.client, box)
        self.assertEqual(host.cpu_quota(box), "5000")

    def test_timeouts(self):
        """The sandbox's own goes on while it is on disk, unless it is kept; that of a process stands still."""
        box = self.new(timeout_ms=20000)
        limited = self.client.run(box, "sleep 0.5; exit 7", detach=True, timeout_ms=2500).id
        to_disk(self.client, box)
        time.sleep(2.6)
        resumed = self.client.Sandboxes.Resume(sandbox_id=box, timeout_ms=60000)
        self.assertGreater(resumed.expires_unix_ms / 1000, time.time() + 50)
        ended = self.client.Processes.Wait(sandbox_id=box, process_id=limited)
        self.assertEqual((ended.timed_out, ended.exit_code), (False, 7))
        late = self.new(timeout_ms=4000)
        to_disk(self.client, late)
        wait_until(lambda: self.client.Sandboxes.Get(sandbox_id=late).state == KILLED, 10)
        self.refused("FAILED_PRECONDITION", lambda: self.client.Sandboxes.Resume(sandbox_id=late), "ended")
        kept = self.new(timeout_ms=4000)
        self.assertEqual(code_of(lambda: self.client.Sandboxes.Pause(sandbox_id=kept, mode=2, keep=True)), ("OK", ""))
        time.sleep(4.5)
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=kept).state, PAUSED, "control")
        back(self.client, kept)
