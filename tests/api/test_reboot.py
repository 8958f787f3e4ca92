"""The machine is started anew (Instance.reboot() says what of that is played): what is on disk goes on, what ran is lost and said to be."""
import json
import subprocess

from api import attach
from criu import COUNTER, needs_criu
from own import OwnInstance
from paddock import code_of, enum, wait_until

RUNNING, PAUSED, KILLED, FAILED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED", "KILLED", "FAILED"))
FREEZE, CHECKPOINT, LOST = enum("PAUSE_MODE_FREEZE"), enum("PAUSE_MODE_CHECKPOINT"), enum("END_REASON_HOST_LOST")


@needs_criu
class Reboot(OwnInstance):
    def test_all_of_it(self):
        client = self.client
        stored, frozen, running, source = (client.create().id for _ in range(4))
        counter = client.run(stored, COUNTER, detach=True).id
        client.write(stored, "/tmp/memory", b"on tmpfs")
        client.write(stored, "/home/user/disk", b"on disk")
        attach(client, stored, counter, 5)
        client.write(source, "/tmp/memory", b"of the snapshot")
        client.run(source, "sleep 1000", detach=True)
        snapshot = client.Snapshots.Create(sandbox_id=source).id
        client.run(running, "sleep 1000", detach=True)
        client.Sandboxes.Pause(sandbox_id=stored, mode=CHECKPOINT, keep=True)
        client.Sandboxes.Pause(sandbox_id=frozen, mode=FREEZE)
        ended = client.create().id
        client.Sandboxes.Kill(sandbox_id=ended)
        self.instance.reboot()
        wait_until(lambda: code_of(lambda: client.Sandboxes.List())[0] == "OK", 20)

        get = client.Sandboxes.Get
        for box in (frozen, running, source):
            wait_until(lambda: get(sandbox_id=box).state == FAILED, 20, "lost")
            lost = get(sandbox_id=box)
            self.assertEqual((lost.end_reason, lost.end_text.split(";")[0]), (LOST, "the machine was started anew"))
            def records():
                return [json.loads(r.detail) for r in client.Audit.List(sandbox_id=box).records if r.action == "sandbox.failed"]
            wait_until(records, 10)
            self.assertEqual(records(), [{"end_reason": "END_REASON_HOST_LOST"}])
        self.assertEqual(get(sandbox_id=ended).state, KILLED)
        self.assertEqual((get(sandbox_id=stored).state, get(sandbox_id=stored).pause_mode), (PAUSED, CHECKPOINT))
        self.assertEqual(self.on_pool("sandboxes"), {stored}, "what is lost has no layer")

        resumed = client.Sandboxes.Resume(sandbox_id=stored, timeout_ms=60000)
        self.assertEqual(resumed.state, RUNNING)
        missing, lines = attach(client, stored, counter, 40)
        self.assertEqual([int(line) for line in lines], list(range(int(lines[0]), int(lines[0]) + len(lines))), "it counts on")
        self.assertEqual(client.read(stored, "/tmp/memory") + client.read(stored, "/home/user/disk"), b"on tmpfson disk")
        copy = client.create(snapshot=snapshot).id
        self.assertEqual(client.read(copy, "/tmp/memory"), b"of the snapshot")
        self.assertEqual(client.run(copy, "pgrep -x sleep | wc -l || true").code, 0)
        self.assertEqual(client.run(client.create().id, "echo new").out, b"new\n")
        status = self.instance.admin.Admin.GetStatus()
        self.assertEqual(status.sandboxes, 3)

    def on_pool(self, kind):
        """Names of layers that there are, but for those in stock."""
        listed = subprocess.run(["nsenter", "-m", "-t", str(self.instance.warden.pid), "ls", f"{self.instance.run}/pool/{kind}"],
                                capture_output=True, text=True, check=True).stdout.split()
        return {name for name in listed if name.startswith("i") and len(name) == 21}
