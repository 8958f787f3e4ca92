"""Memory that comes back after the program: whatever happens to it before it is there, the program finds what it left, or ends with
its reason; never anything else. `memory.py` does it, and its twin has not been away."""
import os
import signal
import time

import host
from criu import lazy_pending, needs_criu
from lab import FAILED, PAUSED, RUNNING, Case, Output, back, in_warden, instance, to_disk, wait_until
from paddock import code_of
from test_zoo import PROGRAMS

MB = 32
WORDS = ("everything", "forks", "unmaps", "moves", "forgets", "threads", "writes", "system")


def servers(box):
    """The processes that serve pages to a sandbox, and their guards: they hold its record."""
    record = os.path.join(instance().run, "sandboxes", box, "lazy")
    found = {"paddock-pages": [], "paddock-guard": []}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as stream:
                name = stream.read().strip()
            if name in found and any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith(record) for fd in os.listdir(f"/proc/{pid}/fd")):
                found[name].append(int(pid))
        except OSError:
            pass
    return found["paddock-pages"], found["paddock-guard"]


def pending(box):
    return lazy_pending(instance(), box)


def answers(output):
    """A copy has not the output of before."""
    whole = output.data[:output.data.rfind(b"\n") + 1].decode()
    return [line for line in whole.splitlines() if line != "up"]


@needs_criu
class Lazy(Case):
    RESOURCES = {"memory_bytes": 1 << 30}

    def setUp(self):
        with open(os.path.join(PROGRAMS, "memory.py"), "rb") as stream:
            self.program = stream.read()
        self.asked = {}  # by box: how many answers it has given

    def start(self, box, megabytes=MB):
        self.client.write(box, "memory.py", self.program)
        worker = self.client.run(box, "python3", "memory.py", str(megabytes), detach=True, open_stdin=True).id
        Output(self.client, box, worker).until(b"up\n")
        return worker

    def say(self, box, worker, word):
        self.client.Processes.SendInput(sandbox_id=box, process_id=worker, data=word.encode() + b"\n")

    def ask(self, box, worker, *words):
        """The answers, one line each."""
        for word in words:
            self.say(box, worker, word)
        self.asked[box] = self.asked.get(box, 0) + len(words)
        output = Output(self.client, box, worker, deadline=60)
        while len(lines := answers(output)) < self.asked[box]:
            output.lines(output.data.count(b"\n") + 1)
        return lines[-len(words):]

    def twin(self, box, *words, megabytes=MB):
        """One that stays: the answers of a program of its own."""
        said = self.sh(box, f"printf '%s\\n' {' '.join(words)} | python3 memory.py {megabytes}", deadline=120)
        return said.decode().splitlines()[1:]

    def copied(self):
        """A snapshot with a program in it, whose copies get their memory late -> (source, worker, snapshot)"""
        box = self.new()
        worker = self.start(box)
        return box, worker, self.client.Snapshots.Create(sandbox_id=box).id

    def copy(self, snapshot):
        box = self.client.Sandboxes.Create(snapshot=snapshot, timeout_ms=600000).id
        self.assertTrue(pending(box), "it was restored at once")
        return box

    # -- what a program does

    def test_as_its_twin(self):
        source, worker, snapshot = self.copied()
        for word in WORDS:
            copy = self.copy(snapshot)
            self.assertEqual(self.ask(copy, worker, word), self.twin(source, word), word)
            self.client.Sandboxes.Kill(sandbox_id=copy)
        copy = self.copy(snapshot)
        order = (*WORDS[1:], "everything")
        self.assertEqual(self.ask(copy, worker, *order), self.twin(source, *order))

    def test_while_all_of_it_comes(self):
        """The same after a resume, when the rest comes at the same time."""
        box = self.new()
        worker = self.start(box, 160)
        wanted = self.twin(box, *WORDS[1:], megabytes=160)
        to_disk(self.client, box)
        back(self.client, box)
        self.assertTrue(pending(box))
        self.assertEqual(self.ask(box, worker, *WORDS[1:]), wanted)
        wait_until(lambda: not pending(box), 30, "all of its memory")
        wait_until(lambda: servers(box) == ([], []), 10, "the end of the server")
        self.assertEqual(self.ask(box, worker, "threads")[0].split()[-8:], wanted[-1].split()[-8:])

    def test_small_is_plain(self):
        box = self.new()
        worker = self.start(box, 1)
        to_disk(self.client, box)
        back(self.client, box)
        self.assertFalse(pending(box))
        self.assertEqual(self.ask(box, worker, "everything"), self.twin(box, "everything", megabytes=1))

    # -- what is done to the sandbox

    def test_paused_and_copied_before_it_is_whole(self):
        source, worker, snapshot = self.copied()
        wanted = self.twin(source, "everything", "forks")
        copy = self.copy(snapshot)
        forked = self.client.Snapshots.Fork(sandbox_id=copy, count=2, all=True)
        again = self.client.Snapshots.Create(sandbox_id=copy).id
        for box in [result.sandbox.id for result in forked.results] + [self.copy(again)]:
            self.assertEqual(self.ask(box, worker, "everything", "forks"), wanted)
            self.assertEqual(self.asked[box], 2)
        box = self.copy(snapshot)
        for _ in range(3):
            to_disk(self.client, box)
            back(self.client, box)
        self.assertTrue(pending(box))
        self.assertEqual(self.ask(box, worker, "everything", "forks"), wanted)

    def test_frozen_before_it_is_whole(self):
        source, worker, snapshot = self.copied()
        copy = self.copy(snapshot)
        self.say(copy, worker, "everything")
        self.client.Sandboxes.Pause(sandbox_id=copy)
        self.client.Sandboxes.Resume(sandbox_id=copy)
        output = Output(self.client, copy, worker)
        output.until(b"everything ")
        output.until(b"\n", output.data.index(b"everything"))
        self.assertEqual(answers(output), self.twin(source, "everything"))

    def test_killed_before_it_is_whole(self):
        source, worker, snapshot = self.copied()
        boxes = [self.copy(snapshot) for _ in range(3)]
        self.say(boxes[0], worker, "everything")
        found = [pid for box in boxes for pid in sum(servers(box), [])]
        self.assertEqual(len(found), 6)
        # The images of a snapshot may go first.
        self.client.Snapshots.Remove(snapshot=snapshot)
        self.assertEqual(self.ask(boxes[1], worker, "everything"), self.twin(source, "everything"))
        for box in boxes:
            self.client.Sandboxes.Kill(sandbox_id=box)
            self.assertFalse(os.path.exists(f"{self.instance.run}/sandboxes/{box}"))

        def alive(pid):
            try:
                with open(f"/proc/{pid}/stat") as stream:
                    return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
            except OSError:
                return False
        wait_until(lambda: not any(alive(pid) for pid in found), 10, "the end of all servers")

    # -- what goes wrong

    def ended(self, box, text):
        wait_until(lambda: self.client.Sandboxes.Get(sandbox_id=box).state == FAILED, 20, "its end")
        said = self.client.Sandboxes.Get(sandbox_id=box).end_text
        self.assertIn(text, said)
        self.assertNotIn(self.instance.dir, said)

    def test_server_is_ended(self):
        """Where nobody can give the pages any more, nobody goes on without them."""
        source, worker, snapshot = self.copied()
        wanted = self.twin(source, "forks")
        for moment in (0, 0.01, 0.05):
            copy = self.copy(snapshot)
            self.say(copy, worker, "forks")
            time.sleep(moment)
            os.kill(servers(copy)[0][0], signal.SIGKILL)
            self.ended(copy, "the server of its memory was ended")
        copy = self.copy(snapshot)
        self.assertEqual(self.ask(copy, worker, "forks"), wanted)

    def test_server_is_ended_while_a_program_looks(self):
        """It writes down what it finds, on a disk that is looked at afterwards by nobody: so it is told over its output."""
        source, worker, snapshot = self.copied()
        wanted = self.twin(source, "everything")
        for _ in range(5):
            copy = self.copy(snapshot)
            output = Output(self.client, copy, worker)
            self.say(copy, worker, "everything")
            os.kill(servers(copy)[0][0], signal.SIGKILL)
            output.end()
            self.assertIn(answers(output), ([], wanted))
            self.ended(copy, "the server of its memory was ended")

    def test_guard_is_ended(self):
        source, worker, snapshot = self.copied()
        copy = self.copy(snapshot)
        for _ in range(3):
            guard = servers(copy)[1][0]
            os.kill(guard, signal.SIGKILL)
            wait_until(lambda g=guard: servers(copy)[1] not in ([], [g]), 10, "another guard")
        self.assertEqual(self.ask(copy, worker, "forks"), self.twin(source, "forks"))
        # The last of them guards as the first did.
        other = self.copy(snapshot)
        os.kill(servers(other)[1][0], signal.SIGKILL)
        wait_until(lambda: len(servers(other)[1]) == 1, 10, "another guard")
        os.kill(servers(other)[0][0], signal.SIGKILL)
        self.ended(other, "the server of its memory was ended")

    def restart_warden(self, meanwhile=lambda: None):
        self.instance.warden.kill()
        self.instance.warden.wait()
        meanwhile()
        self.instance.start_warden()
        wait_until(lambda: code_of(self.new)[0] == "OK", 30, "the new warden")

    def test_warden_is_ended(self):
        """The next one finds what is missing, and who brings it, as they were."""
        source, worker, snapshot = self.copied()
        wanted = self.twin(source, "forks", "everything")
        copy, other = self.copy(snapshot), self.copy(snapshot)
        found = servers(copy)
        self.restart_warden()
        self.assertEqual((pending(copy), servers(copy)), (True, found))
        self.assertEqual(self.ask(copy, worker, "forks"), wanted[:1])
        to_disk(self.client, copy)
        back(self.client, copy)
        self.assertEqual(self.ask(copy, worker, "everything"), wanted[1:])
        # Nobody is there to hear of it, and it ends all the same.
        server = servers(other)[0][0]

        def end():
            os.kill(server, signal.SIGKILL)
            wait_until(lambda: servers(other) == ([], []), 10, "the end of the guard")
        self.restart_warden(end)
        wait_until(lambda: self.client.Sandboxes.Get(sandbox_id=other).state == FAILED, 20, "its end")

    def test_damaged_page_is_never_given(self):
        """The images are damaged where nothing is read before the program asks."""
        for damage in ("printf '\\377\\376' | dd of={0} bs=1 seek=$(($(stat -c %s {0})/2)) conv=notrunc status=none",
                       "truncate -s $(($(stat -c %s {0})-65536)) {0}", "echo sound {0}"):
            box = self.new()
            worker = self.start(box, 160)
            output = Output(self.client, box, worker)
            wanted = self.twin(box, "everything", megabytes=160)
            to_disk(self.client, box)
            images = f"{self.instance.run}/pool/checkpoints/{box}"
            large = in_warden(f"ls -S {images}/pages-*.img | head -1").strip()
            in_warden(damage.format(large))
            if "truncate" in damage:  # which is seen at once
                self.refused("DATA_LOSS", lambda b=box: self.client.Sandboxes.Resume(sandbox_id=b), os.path.basename(large))
                self.assertEqual(self.client.Sandboxes.Get(sandbox_id=box).state, PAUSED)
                continue
            back(self.client, box)
            self.say(box, worker, "everything")
            if "sound" in damage:
                self.assertEqual(self.ask(box, worker, "everything")[0], wanted[0])
                continue
            output.end()
            self.assertEqual(output.data, b"up\n")
            self.ended(box, "its memory on disk is damaged: " + os.path.basename(large))

    def test_digests_are_damaged(self):
        """Then every page is read, and those are good."""
        box = self.new()
        worker = self.start(box)
        wanted = self.twin(box, "everything")
        to_disk(self.client, box)
        images = f"{self.instance.run}/pool/checkpoints/{box}"
        in_warden(f"for f in {images}/*.sums; do printf '\\377' | dd of=$f bs=1 seek=3 conv=notrunc status=none; done")
        back(self.client, box)
        self.assertFalse(pending(box))
        self.assertEqual(self.ask(box, worker, "everything"), wanted)

    # -- who may what

    def test_server_has_no_authority(self):
        _, _, snapshot = self.copied()
        copy = self.copy(snapshot)
        for pid in sum(servers(copy), []):
            with open(f"/proc/{pid}/status") as stream:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in stream if ":\t" in line)
            self.assertEqual(status["Uid"].split(), ["65534"] * 4)
            self.assertEqual({status[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")}, {"0" * 16})
            self.assertEqual((status["NoNewPrivs"], status["Seccomp"], status["Groups"].strip()), ("1", "2", ""))
            files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            self.assertEqual([name for name in files if name.startswith("socket:") or name == "/dev/userfaultfd"], [])
        inside = [pid for pid in host.processes() if host.in_cgroup(pid, [copy])]
        held = {os.readlink(f"/proc/{pid}/fd/{fd}") for pid in inside for fd in os.listdir(f"/proc/{pid}/fd")}
        self.assertIn("/dev/null", held)
        self.assertEqual([name for name in held if "userfaultfd" in name], [])
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=copy).state, RUNNING)
