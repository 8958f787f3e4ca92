"""Real programs go to disk and back in the middle of their work, and end as their undisturbed twin does: the same output byte by
byte, which each closes with digests of what it made."""
import glob
import io
import os
import re
import tarfile

from criu import needs_criu
from lab import Case, Output, through_disk
from paddock import SOURCE

PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
BY = {"py": ["python3"], "js": ["node"], "sh": ["bash"], "c": ["sh", "-c", "gcc -O1 $0 -o program && exec ./program"]}
SLOW = {"cpu_millis": 400}  # a slow processor has a longer middle


@needs_criu
class Zoo(Case):
    def start(self, name, box):
        with open(f"{PROGRAMS}/{name}", "rb") as stream:
            self.client.write(box, f"/home/user/{name}", stream.read())
        process = self.client.run(box, *BY[name.rsplit(".", 1)[1]], name, detach=True, cwd="/home/user").id
        return Output(self.client, box, process, deadline=120)

    def same_as_twin(self, name, *moments, prepare=None, during=None, resources=None):
        """Both run the program to its end, one of them by way of the disk at these moments of its output."""
        subject, twin = (self.new(resources=resources or {}) for _ in range(2))
        for box in (subject, twin):
            if prepare:
                prepare(box)
        undisturbed = self.start(name, twin)
        output = self.start(name, subject)
        for moment in moments:
            output.until(moment)
            self.assertIsNone(output.exited, "in the middle of its work")
            through_disk(self.client, subject)
            if during:
                during(subject)
        self.assertEqual(output.end(), undisturbed.end(), output.err + undisturbed.err)
        self.assertEqual((output.exited.exit_code, output.exited.signal, output.missing), (0, 0, 0), output.data + output.err)
        return output.data

    def test_python_with_threads_and_sqlite(self):
        self.assertIn(b"\nok\n", self.same_as_twin("threads.py", b"@1\n", b"@4\n"))

    def test_node_with_open_connections(self):
        self.assertIn(b" over 4 connections\n", self.same_as_twin("keepalive.js", b"@1\n", b"@4\n"))

    def test_a_tree_of_200(self):
        self.assertIn(b" right\n", self.same_as_twin("ring.c", b"@1\n", during=self.are_200))

    def are_200(self, box):
        self.assertEqual(self.sh(box, "cat /proc/[0-9]*/comm | grep -c ^program"), b"200\n")

    def test_redis(self):
        self.assertIn(b"4000", self.same_as_twin("redis.py", b"@1\n", b"@4\n"))

    def test_postgres(self):
        text = self.same_as_twin("postgres.sh", b"@1\n", b"@4\n")
        rows = re.findall(rb"^800\|319600\|[0-9a-f]{32}$", text, re.MULTILINE)
        self.assertEqual((len(rows), len(set(rows))), (2, 1), "also after a restart of its own")
        self.assertIn(b"Asynchronous notification", text)

    def test_git_in_the_middle_of_a_clone(self):
        text = self.same_as_twin("clone.sh", b"@clone\n", resources=SLOW)
        self.assertIn(b"@cloned\n", text)

    def test_make_and_gcc(self):
        def sources(box):
            data = io.BytesIO()
            with tarfile.open(fileobj=data, mode="w") as tar:
                for path in glob.glob(f"{SOURCE}/sandbox/base/*.[ch]"):
                    tar.add(path, os.path.relpath(path, SOURCE))
            self.client.unpack(box, b"/home/user", data.getvalue())
        text = self.same_as_twin("build.sh", b"@\n@\n", b"@\n" * 7, prepare=sources)
        first, second = re.findall(rb"^hash ([0-9a-f]{8})$", text, re.MULTILINE)
        self.assertEqual(first, second, "the program that was built is right")
