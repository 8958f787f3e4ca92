"""Images that are not what was sealed are refused, and named; a disk that is full is no reason to lose what runs; what cannot be stored
is named, runs on, and its twin without it is stored."""
import host
from criu import needs_criu
from lab import CHECKPOINT, PAUSED, RUNNING, Case, Output, back, in_warden, pool, through_disk, to_disk, wait_until
from own import OwnInstance
from paddock import code_of

# A connection that waits to be accepted cannot be stored; accepted, it can.
CONNECTION = "import socket, sys, time\ns = socket.create_server(('127.0.0.1', 7000))\nc = socket.create_connection(('127.0.0.1', 7000))\n" \
             "a = s.accept() if len(sys.argv) > 1 else None\nprint('up', flush=True)\ntime.sleep(1000)"
HEAP = "head -c 200m /dev/urandom >/dev/shm/heap; echo up; sleep 1000"


@needs_criu
class Damage(Case):
    def images(self, box):
        return f"{self.instance.run}/pool/checkpoints/{box}"

    def test_every_file(self):
        """One flipped bit, and one byte less, in each of them."""
        box = self.new()
        self.client.run(box, "python3", "-c", "import time; time.sleep(1000)", detach=True)
        to_disk(self.client, box)
        files = in_warden(f"cd {self.images(box)}; ls *.img manifest").split()
        self.assertGreater(len(files), 20)
        said = set()
        for name in files:
            path = f"{self.images(box)}/{name}"
            for damage in (f"truncate -s -1 {path}", f"printf '\\377\\376' | dd of={path} bs=1 seek=$(($(stat -c %s {path})/2)) conv=notrunc status=none"):
                in_warden(f"cp {path} /tmp/keep; {damage}; ! cmp -s {path} /tmp/keep")
                said.add(self.refused("DATA_LOSS", lambda: self.client.Sandboxes.Resume(sandbox_id=box), "manifest" if name == "manifest" else name))
                in_warden(f"cat /tmp/keep > {path}; rm /tmp/keep")
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=box).state, PAUSED)
        back(self.client, box)

    def test_swapped_between_sandboxes(self):
        boxes = [self.new() for _ in range(2)]
        for number, box in enumerate(boxes):
            self.sh(box, f"echo {number} > number")
            to_disk(self.client, box)
        one, other = (self.images(box) for box in boxes)
        swap = f"mv {one} {one}.x; mv {other} {one}; mv {one}.x {other}"
        in_warden(swap)
        for box in boxes:
            self.refused("DATA_LOSS", lambda b=box: self.client.Sandboxes.Resume(sandbox_id=b), "not this sandbox's")
        in_warden(swap)
        in_warden(f"cp {other}/pages-1.img /tmp/keep; cat {one}/pages-1.img > {other}/pages-1.img")
        self.refused("DATA_LOSS", lambda: self.client.Sandboxes.Resume(sandbox_id=boxes[1]), "pages-1.img")
        in_warden(f"cat /tmp/keep > {other}/pages-1.img; rm /tmp/keep")
        for number, box in enumerate(boxes):
            back(self.client, box)
            self.assertEqual(self.sh(box, "cat number"), b"%d\n" % number)

    def test_what_cannot_be_stored(self):
        for accepted in ([], ["accepted"]):
            box = self.new()
            worker = self.client.run(box, "python3", "-c", CONNECTION, *accepted, detach=True).id
            Output(self.client, box, worker).until(b"up\n")
            if accepted:
                through_disk(self.client, box)
            else:
                said = self.refused("FAILED_PRECONDITION", lambda b=box: self.client.Sandboxes.Pause(sandbox_id=b, mode=CHECKPOINT), "n-flight connection")
                self.assertRegex(said, r"process [0-9]+ \(python3\): ")
            self.assertEqual(host.cpu_quota(box), "100000", "a dump lifts it")
            self.assertEqual(self.client.Sandboxes.Get(sandbox_id=box).state, RUNNING)
            self.assertEqual(self.sh(box, "echo on"), b"on\n")
            self.assertEqual([p.process_id for p in self.client.Processes.List(sandbox_id=box).processes if p.process_id == worker], [worker])
            self.assertEqual([name for name in pool("checkpoints") if box in name], [])


@needs_criu
class Full(OwnInstance, Case):
    SETTINGS = {"template": "mini", "pool": "1G"}

    def test_the_pool_is_full(self):
        box = self.new(template="base", resources={"memory_bytes": 512 << 20})
        worker = self.client.run(box, HEAP, detach=True).id
        Output(self.client, box, worker).until(b"up\n")
        free = int(in_warden(f"df --output=avail -B1M {self.instance.run}/pool | tail -1", self.instance))
        filler = f"{self.instance.run}/pool/filler"
        in_warden(f"fallocate -l {max(free - 100, 1)}M {filler}; sync -f {filler}", self.instance)
        for call in (lambda: self.client.Sandboxes.Pause(sandbox_id=box, mode=CHECKPOINT), lambda: self.client.Snapshots.Create(sandbox_id=box)):
            said = self.refused("RESOURCE_EXHAUSTED", call, "could not be ")
            self.assertRegex(said, "the storage pool is full|No space left")
            self.assertEqual(self.client.Sandboxes.Get(sandbox_id=box).state, RUNNING)
            self.assertEqual(self.client.run(box, "true").code, 0)
        self.assertEqual(pool("checkpoints", self.instance) + pool("snapshots", self.instance), [])
        in_warden(f"rm {filler}; sync -f {self.instance.run}/pool", self.instance)
        # Space comes back when the trash is emptied and the file system has written that down.
        wait_until(lambda: code_of(lambda: through_disk(self.client, box))[0] == "OK", 30, "it is stored when there is room")
        self.assertEqual([p.process_id for p in self.client.Processes.List(sandbox_id=box).processes if p.process_id == worker], [worker])
