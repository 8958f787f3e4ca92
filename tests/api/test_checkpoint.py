"""Pause to disk and back (PAUSE_MODE_CHECKPOINT): real programs go on in the middle of their work, nothing is lost, a
damaged or foreign checkpoint is refused and stays, what cannot be stored is named and runs on."""
import hmac
import signal
import subprocess
import time
import unittest

import grpc
from api import Instance, attach
from criu import COUNTER, needs_criu
from own import OwnInstance
from paddock import code_of, enum, wait_until

RUNNING, PAUSED, KILLED = (enum("SANDBOX_STATE_" + n) for n in ("RUNNING", "PAUSED", "KILLED"))
CHECKPOINT = enum("PAUSE_MODE_CHECKPOINT")

THREADS = r"""
import sqlite3, threading, time, sys
db = sqlite3.connect("/home/user/t.db", check_same_thread=False)
db.execute("create table t(x integer)")
counts = [0] * 4
def work(i):
    while True:
        counts[i] += 1
        time.sleep(0.001)
for i in range(4):
    threading.Thread(target=work, args=(i,), daemon=True).start()
for i in range(10 ** 9):
    db.execute("insert into t values(?)", (i,))
    db.commit()
    before = list(counts)
    time.sleep(0.03)
    print(i, all(a > b for a, b in zip(counts, before)), flush=True)
"""


def pause(client, box):
    return client.Sandboxes.Pause(sandbox_id=box, mode=CHECKPOINT)


def resume(client, box):
    return client.Sandboxes.Resume(sandbox_id=box)


def follow(client, box, process, lines):
    return attach(client, box, process, lines)[1]


@needs_criu
class Checkpoint(OwnInstance):
    SETTINGS = {"template": "base", "pool": "20G"}

    def setUp(self):
        self.box = self.client.create().id
        self.addCleanup(lambda: self.client.Sandboxes.Kill(sandbox_id=self.box))

    def warden_sh(self, script):
        """In the warden's mounts, where the pool is."""
        return subprocess.run(["nsenter", "-m", "-t", str(self.instance.warden.pid), "sh", "-c", script],
                              capture_output=True, text=True, check=True).stdout

    def images(self):
        return f"{self.instance.run}/pool/checkpoints/{self.box}"

    def processes_on_host(self):
        groups = subprocess.run(["find", "/sys/fs/cgroup", "-type", "d", "-name", self.box], capture_output=True, text=True)
        return groups.stdout.split()

    def test_output_goes_on_without_a_gap(self):
        counter = self.client.run(self.box, COUNTER, detach=True).id
        time.sleep(0.3)
        for _ in range(3):
            paused = pause(self.client, self.box)
            self.assertEqual((paused.state, paused.pause_mode), (PAUSED, CHECKPOINT))
            self.assertEqual(self.processes_on_host(), [], "no process, no cgroup")
            self.assertEqual(resume(self.client, self.box).state, RUNNING)
        numbers = [int(n) for n in follow(self.client, self.box, counter, 60)]
        self.assertEqual(numbers, list(range(len(numbers))))
        self.assertEqual(self.client.run(self.box, "echo new").out, b"new\n")

    def test_threads_and_sqlite(self):
        worker = self.client.run(self.box, "python3", "-c", THREADS, detach=True).id
        follow(self.client, self.box, worker, 5)
        pause(self.client, self.box)
        resume(self.client, self.box)
        lines = follow(self.client, self.box, worker, 30)
        self.assertEqual([line.split()[0] for line in lines], [b"%d" % i for i in range(len(lines))])
        self.assertTrue(all(line.endswith(b"True") for line in lines[-5:]), "all threads go on")
        check = "import sqlite3; print(sqlite3.connect('/home/user/t.db').execute('pragma integrity_check').fetchone()[0])"
        self.assertEqual(self.client.run(self.box, "python3", "-c", check).out, b"ok\n")

    def test_terminal_and_input(self):
        events = self.client.Processes.Start(sandbox_id=self.box, argv=["bash", "--norc"], deadline=40,
                                             terminal={"columns": 80, "rows": 24})
        shell = next(events).started.process_id
        self.client.Processes.SendInput(sandbox_id=self.box, process_id=shell, data=b"x=kept; cd /tmp\n")
        cat = self.client.run(self.box, "cat", open_stdin=True, detach=True).id
        self.client.Processes.SendInput(sandbox_id=self.box, process_id=cat, data=b"before\n")
        pause(self.client, self.box)
        resume(self.client, self.box)
        self.client.Processes.SendInput(sandbox_id=self.box, process_id=shell, data=b"echo $x-$PWD; tty; exit 5\n")
        text, code = b"", None
        for event in events:
            text += event.output.data
            if event.HasField("exited"):
                code = event.exited.exit_code
        self.assertIn(b"kept-/tmp", text)
        self.assertIn(b"/dev/pts/", text)
        self.assertEqual(code, 5, "the client that was attached sees the end")
        self.client.Processes.SendInput(sandbox_id=self.box, process_id=cat, data=b"after\n")
        self.client.Processes.CloseStdin(sandbox_id=self.box, process_id=cat)
        self.assertEqual(self.client.Processes.Wait(sandbox_id=self.box, process_id=cat).exit_code, 0)
        self.assertEqual(follow(self.client, self.box, cat, 2), [b"before", b"after"])

    def test_a_tree_of_processes_and_files(self):
        self.client.run(self.box, "mkdir /tmp/d; echo t > /tmp/d/t; echo s > /dev/shm/s; echo h > h")
        self.client.run(self.box, "for i in $(seq 100); do (sleep 1000 & sleep 1000) & done; wait", detach=True)
        count = "cat /proc/[0-9]*/comm | grep -c ^sleep"
        wait_until(lambda: int(self.client.run(self.box, count).out) == 200, 20)
        pids = "grep -l ^sleep /proc/[0-9]*/comm | sort | md5sum"
        before = self.client.run(self.box, pids).out
        pause(self.client, self.box)
        resume(self.client, self.box)
        self.assertEqual(self.client.run(self.box, pids).out, before, "same pids")
        self.assertEqual(self.client.run(self.box, "cat /tmp/d/t /dev/shm/s h").out, b"t\ns\nh\n")

    def test_limits_and_confinement_are_back(self):
        look = "grep -E 'Seccomp:|NoNewPrivs|CapBnd|CapEff|Uid' /proc/self/status; id; hostname; " \
               "cat /proc/sys/vm/memfd_noexec; mount | sort | sed 's/(.*//'"
        child = "while :; do sleep 0.05; [ -e /tmp/go ] && { " + look + "; exit; }; done"
        twin = self.client.run(self.box, look).out
        old = self.client.run(self.box, child, detach=True).id
        pause(self.client, self.box)
        resume(self.client, self.box)
        self.assertEqual(self.client.run(self.box, look).out, twin, "a new process")
        self.client.write(self.box, "/tmp/go", b"")
        self.client.Processes.Wait(sandbox_id=self.box, process_id=old)
        lines = follow(self.client, self.box, old, twin.count(b"\n"))
        self.assertEqual(b"\n".join(lines) + b"\n", twin, "a restored process")
        shm = self.client.run(self.box, "python3 -c 'import os; os.memfd_create(\"x\", 0x10)'")
        self.assertNotEqual(shm.code, 0, "executable memory files are still refused")

    def test_time_limits_stand_still(self):
        limited = self.client.run(self.box, "sleep 1; exit 7", detach=True, timeout_ms=2500).id
        pause(self.client, self.box)
        time.sleep(3)
        resume(self.client, self.box)
        ended = self.client.Processes.Wait(sandbox_id=self.box, process_id=limited)
        self.assertEqual((ended.timed_out, ended.exit_code), (False, 7))

    def test_a_damaged_checkpoint_is_refused(self):
        pause(self.client, self.box)
        images = self.images()
        for damage, undo in (
                (f"cp {images}/pages-1.img /tmp/keep; printf X | dd of={images}/pages-1.img bs=1 seek=5000 conv=notrunc status=none",
                 f"cat /tmp/keep > {images}/pages-1.img"),
                (f"cp {images}/manifest /tmp/keep; sed -i 's/^token [0-9a-e]/token f/;t;s/^token f/token 0/' {images}/manifest", f"cat /tmp/keep > {images}/manifest"),
                (f"mv {images}/pstree.img /tmp/keep", f"mv /tmp/keep {images}/pstree.img"),
                (f"cp {images}/pages-1.img /tmp/keep; truncate -s -4096 {images}/pages-1.img", f"cat /tmp/keep > {images}/pages-1.img"),
                (f"cp {images}/core-1.img /tmp/keep; : > {images}/core-1.img", f"cat /tmp/keep > {images}/core-1.img"),
                (f"cd {images}; mv mm-1.img /tmp/keep; mv fs-1.img mm-1.img; mv /tmp/keep fs-1.img",
                 f"cd {images}; mv mm-1.img /tmp/keep; mv fs-1.img mm-1.img; mv /tmp/keep fs-1.img"),
                (f"cp {images}/files.img {images}/more.img", f"rm {images}/more.img")):
            self.warden_sh(damage)
            name, text = code_of(lambda: resume(self.client, self.box))
            self.assertEqual(name, "DATA_LOSS", text)
            self.assertEqual(self.client.Sandboxes.Get(sandbox_id=self.box).state, PAUSED)
            self.warden_sh(undo)
        self.assertEqual(resume(self.client, self.box).state, RUNNING, "control: undamaged it resumes")

    def test_an_old_checkpoint_is_refused(self):
        pause(self.client, self.box)
        images = self.images()
        self.warden_sh(f"cp -a {images} {images}.old")
        resume(self.client, self.box)
        pause(self.client, self.box)
        self.warden_sh(f"mkdir {images}/aside; mv {images}/*.img {images}/manifest {images}/aside/; cp -a {images}.old/* {images}/")
        name, text = code_of(lambda: resume(self.client, self.box))
        self.assertEqual(name, "DATA_LOSS", text)
        self.warden_sh(f"rm -f {images}/*.img {images}/manifest; mv {images}/aside/* {images}/; rmdir {images}/aside; rm -rf {images}.old")
        self.assertEqual(resume(self.client, self.box).state, RUNNING, "control: the newest resumes")

    def test_another_sandboxes_images_are_refused(self):
        other = self.client.create().id
        self.addCleanup(lambda: self.client.Sandboxes.Kill(sandbox_id=other))
        pause(self.client, self.box)
        pause(self.client, other)
        mine, theirs = self.images(), f"{self.instance.run}/pool/checkpoints/{other}"
        swap = f"mv {mine} {mine}.x && mv {theirs} {mine} && mv {mine}.x {theirs}"
        self.warden_sh(swap)
        for box in (self.box, other):
            name, text = code_of(lambda: resume(self.client, box))
            self.assertEqual((name, "not this sandbox's" in text), ("DATA_LOSS", True), text)
        self.warden_sh(swap)
        self.assertEqual([resume(self.client, box).state for box in (self.box, other)], [RUNNING] * 2, "control: each with its own")

    def test_what_another_machine_made_is_refused(self):
        """Sealed by this warden, and so believed, but for another kernel, processor or CRIU."""
        pause(self.client, self.box)
        with open(self.instance.data + "/checkpoint.key", "rb") as file:
            key = file.read()
        good = self.warden_sh(f"cat {self.images()}/manifest")
        body = good[:good.rindex("hmac ")]
        self.assertEqual(good[len(body):], f"hmac {hmac.new(key, body.encode(), 'sha256').hexdigest()}\n", "this is how it is sealed")
        try:
            for word, other in (("kernel", "kernel 6.1.0-1-amd64 x86_64"), ("cpu", "cpu 1:2:3"), ("criu", "criu 4.0")):
                lines = [other if line.startswith(word + " ") else line for line in body.split("\n")]
                changed = "\n".join(lines)
                self.assertNotEqual(changed, body)
                self.write_manifest(changed + f"hmac {hmac.new(key, changed.encode(), 'sha256').hexdigest()}\n")
                name, text = code_of(lambda: resume(self.client, self.box))
                self.assertEqual((name, f"another {word} " in text), ("FAILED_PRECONDITION", True), text)
                self.assertEqual(self.client.Sandboxes.Get(sandbox_id=self.box).state, PAUSED)
        finally:
            self.write_manifest(good)
        self.assertEqual(resume(self.client, self.box).state, RUNNING, "control")

    def write_manifest(self, text):
        subprocess.run(["nsenter", "-m", "-t", str(self.instance.warden.pid), "sh", "-c", f"cat > {self.images()}/manifest"],
                       input=text, text=True, check=True)

    def test_kill_while_on_disk(self):
        pause(self.client, self.box)
        self.assertEqual(self.client.Sandboxes.Kill(sandbox_id=self.box).state, KILLED)
        self.assertEqual(self.warden_sh(f"ls {self.instance.run}/pool/checkpoints").split(), [])


@needs_criu
class Restart(unittest.TestCase):
    def test_both_daemons_end_while_it_is_on_disk(self):
        with Instance(pool_size=0) as private:
            client = private.tenant("tenant")
            box = client.create().id
            counter = client.run(box, COUNTER, detach=True).id
            pause(client, box)
            private.warden.kill()
            private.warden.wait()
            private.stop_paddockd(signal.SIGKILL)
            private.start_warden()
            private.start_paddockd()

            def state():
                try:
                    return client.Sandboxes.Get(sandbox_id=box, deadline=2).state
                except grpc.RpcError:
                    return None
            self.assertEqual(wait_until(state, 20), PAUSED)
            wait_until(lambda: code_of(lambda: resume(client, box))[0] == "OK", 30, "resume")
            numbers = [int(n) for n in follow(client, box, counter, 40)]
            self.assertEqual(numbers, list(range(len(numbers))))
            client.Sandboxes.Kill(sandbox_id=box)
        self.assertEqual(private.complaints, [])
