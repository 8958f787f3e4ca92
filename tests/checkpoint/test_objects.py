"""What the kernel holds for programs: each object is as it was, beside a twin that has not been away."""
import os

from criu import needs_criu
from lab import Case, Output, through_disk
from test_zoo import PROGRAMS


@needs_criu
class Objects(Case):
    def start(self, box):
        with open(os.path.join(PROGRAMS, "objects.py"), "rb") as stream:
            self.client.write(box, "/home/user/objects.py", stream.read())
        process = self.client.run(box, "python3", "objects.py", detach=True, open_stdin=True, cwd="/home/user").id
        output = Output(self.client, box, process)
        output.until(b"ready\n")
        return process, output

    def finish(self, box, process, output):
        self.client.Processes.SendInput(sandbox_id=box, process_id=process, data=b"\n")
        return output.end().decode().split("\n"), output.err

    def test_kernel_objects(self):
        twin = self.new()
        wanted, errors = self.finish(twin, *self.start(twin))
        self.assertEqual(wanted[-2], "done", errors)
        box = self.new()
        started = self.start(box)
        through_disk(self.client, box)
        through_disk(self.client, box)
        found, errors = self.finish(box, *started)
        self.assertEqual(found, wanted, errors)
