"""What is on disk takes less there, if the warden is told so, is the same when it comes back, and says how much it takes."""
from criu import needs_criu
from lab import Case, Instance, back, to_disk

HEAP = "yes 'the same again' | head -c 48m >/dev/shm/heap; sleep 1000"


@needs_criu
class Compress(Case):
    HOW, LEAST, MOST = "zstd", 0.0, 0.3

    @classmethod
    def setUpClass(cls):
        cls.instance = Instance(template="mini", pool="8G", pool_size=0, warden_options=["--compress", cls.HOW] if cls.HOW else [])
        cls.addClassCleanup(cls.instance.stop)
        cls.instance.start()
        cls.client = cls.instance.tenant("compress")

    def is_right(self, stored, whole):
        self.assertGreater(whole, 48 << 20)
        self.assertTrue(self.LEAST * whole <= stored <= self.MOST * whole and stored > 0, f"{stored} of {whole}")

    def digest(self, box):
        return self.client.run(box, "sha256sum", "/dev/shm/heap").out

    def test_a_pause_and_a_snapshot(self):
        box = self.client.create(template="base").id
        self.client.run(box, "sh", "-c", HEAP, detach=True)
        while int(self.client.run(box, "stat -c %s /dev/shm/heap").out or b"0") != 48 << 20:
            pass
        digest = self.digest(box)
        to_disk(self.client, box)
        paused = self.client.Sandboxes.Get(sandbox_id=box)
        self.is_right(paused.stored_bytes, paused.checkpoint_bytes)
        back(self.client, box)
        running = self.client.Sandboxes.Get(sandbox_id=box)
        self.assertEqual((running.stored_bytes, running.checkpoint_bytes), (0, 0))
        self.assertEqual(self.digest(box), digest)
        shot = self.client.Snapshots.Create(sandbox_id=box)
        self.is_right(shot.stored_bytes, shot.memory_bytes)
        self.assertEqual(self.client.Snapshots.Get(snapshot=shot.id).stored_bytes, shot.stored_bytes)
        self.assertEqual(self.digest(self.client.create(snapshot=shot.id).id), digest)


class Uncompressed(Compress):
    """The twin: as large on disk as it is."""
    HOW, LEAST, MOST = None, 0.9, 1.2


class Lzo(Compress):
    HOW = "lzo"
