"""Files: every method, hostile paths and objects (security catalogue F05-F11, F13, F18, F22-F24)."""
import concurrent.futures
import hashlib
import os
import threading
import time

from api import Case, Code, grpc, pb, unique
import host
from paddock import enum, wait_until

REGULAR, DIRECTORY, SYMLINK, OTHER = (enum("FILE_TYPE_" + n) for n in ("REGULAR", "DIRECTORY", "SYMLINK", "OTHER"))
MIB = 1 << 20


class FileCase(Case):
    def setUp(self):
        self.dir = "/home/user/" + unique("t")
        self.files = self.client.Files
        self.sh("mkdir " + self.dir)

    def at(self, path, **fields):
        path = path if isinstance(path, bytes) else path.encode()
        return dict(sandbox_id=self.box, path=path, **fields)

    def stat(self, path, **fields):
        return self.files.Stat(**self.at(path, **fields))

    def missing(self, path):
        self.refused(Code.NOT_FOUND, self.files.Stat, **self.at(path))


class StatAndList(FileCase):
    def test_stat(self):
        self.sh(f"cd {self.dir}; printf 12345 > f; chmod 640 f; ln -s f l; mkfifo p; ln f hard; mkdir d; chmod 1777 d")
        f = self.stat(self.dir + "/f")
        self.assertEqual((f.path, f.type, f.mode, f.size, f.uid, f.gid, f.user, f.group, f.links),
                         ((self.dir + "/f").encode(), REGULAR, 0o640, 5, 1000, 1000, "user", "user", 2))
        self.assertAlmostEqual(f.modified_unix_ms / 1000, time.time(), delta=60)
        self.assertEqual(self.stat(self.dir + "/hard").inode, f.inode)
        link = self.stat(self.dir + "/l")
        self.assertEqual((link.type, link.symlink_target), (SYMLINK, b"f"))
        self.assertEqual(self.stat(self.dir + "/l", follow=True).type, REGULAR)
        self.assertEqual(self.stat(self.dir + "/p").type, OTHER)
        self.assertEqual((self.stat(self.dir + "/d").type, self.stat(self.dir + "/d").mode), (DIRECTORY, 0o1777))
        self.assertEqual(self.stat("/etc/passwd").user, "root")

    def test_relative_to_home(self):
        self.sh("echo x > /home/user/relative")
        self.assertEqual(self.stat("relative").path, b"/home/user/relative")
        self.assertEqual(self.stat(".").path, b"/home/user")
        self.assertEqual(self.stat(".", user="root").path, b"/root")

    def test_as_user_not_root(self):
        self.sh("mkdir -p /root/private && echo s > /root/private/f && chmod 700 /root/private && chmod 700 /root", user="root")
        self.refused(Code.PERMISSION_DENIED, self.files.Stat, **self.at("/root/private/f"))
        self.refused(Code.PERMISSION_DENIED, self.client.read, self.box, "/root/private/f")
        self.refused(Code.PERMISSION_DENIED, self.client.write, self.box, "/etc/new", b"x")
        self.refused(Code.PERMISSION_DENIED, self.files.MakeDir, **self.at("/etc/new"))
        self.refused(Code.PERMISSION_DENIED, self.files.Remove, **self.at("/etc/passwd"))
        self.assertEqual(self.client.read(self.box, "/root/private/f", user="root"), b"s\n")
        self.invalid("user", self.files.Stat, **self.at("/etc", user="daemon"))

    def test_list(self):
        self.sh(f"cd {self.dir}; mkdir -p b/c; touch a b/x b/c/y z; ln -s /etc b/link")
        names = [f.path.decode() for f in self.files.List(**self.at(self.dir)).files]
        self.assertEqual(names, [self.dir + n for n in ("/a", "/b", "/z")])
        deep = [f.path.decode()[len(self.dir):] for f in self.files.List(**self.at(self.dir, depth=3)).files]
        self.assertEqual(sorted(deep), ["/a", "/b", "/b/c", "/b/c/y", "/b/link", "/b/x", "/z"])
        self.refused(Code.FAILED_PRECONDITION, self.files.List, **self.at(self.dir + "/a"))
        self.refused(Code.NOT_FOUND, self.files.List, **self.at(self.dir + "/nosuch"))

    def test_list_limits(self):
        self.invalid("depth", self.files.List, **self.at("/", depth=65))
        self.invalid("page_size", self.files.List, **self.at("/", page_size=10001))
        self.invalid("page_token", self.files.List, **self.at("/", page_token="nonsense!"))

    def test_F18_list_pages(self):
        """F18: a large directory comes in pages, each name once."""
        self.sh(f"cd {self.dir}; seq 1 20000 | xargs touch")
        seen, token, pages = [], "", 0
        while True:
            page = self.files.List(**self.at(self.dir, page_size=3000, page_token=token))
            self.assertLessEqual(len(page.files), 3000)
            seen += [f.path.rsplit(b"/", 1)[1] for f in page.files]
            pages, token = pages + 1, page.next_page_token
            if not token:
                break
        self.assertEqual(pages, 7)
        self.assertEqual(sorted(seen), sorted(b"%d" % i for i in range(1, 20001)))
        self.sh(f"rm -rf {self.dir}")

    def test_F18_F22_list_names_are_bytes(self):
        """F18, F22: names of 255 bytes, not UTF-8, escapes, newlines: byte for byte."""
        names = [b"\xff" * 255, b"a\nb", b"\x1b]0;x\x07", "\u202egnp.exe".encode(), b" ", b"-rf", b"\\", b"%2e%2e", b"~", b"$HOME"]
        for name in names:
            self.client.write(self.box, self.dir.encode() + b"/" + name, name)
        listed = {f.path[len(self.dir) + 1:] for f in self.files.List(**self.at(self.dir)).files}
        self.assertEqual(listed, set(names))
        for name in names:
            self.assertEqual(self.client.read(self.box, self.dir.encode() + b"/" + name), name)
        with open(self.instance.log, "rb") as log:
            for line in log:
                self.assertNotRegex(line, rb"[\x00-\x08\x0b-\x1f\x7f]")

    def test_F18_list_cycle(self):
        self.sh(f"cd {self.dir}; mkdir a; ln -s ../a a/self; ln -s / a/root")
        self.assertEqual(len(self.files.List(**self.at(self.dir, depth=64)).files), 3)

    def test_list_special_trees(self):
        """/proc as a tree ends, and is bounded by pages."""
        page = self.files.List(**self.at("/proc", depth=3, page_size=100))
        self.assertEqual(len(page.files), 100)


class Paths(FileCase):
    def every_call(self, path):
        yield "Stat", lambda: self.files.Stat(**self.at(path))
        yield "List", lambda: self.files.List(**self.at(path))
        yield "Read", lambda: list(self.files.Read(**self.at(path)))
        yield "Write", lambda: self.client.write(self.box, path, b"x")
        yield "MakeDir", lambda: self.files.MakeDir(**self.at(path))
        yield "Move.from", lambda: self.files.Move(sandbox_id=self.box, **{"from": path, "to": b"/tmp/never"})
        yield "Move.to", lambda: self.files.Move(sandbox_id=self.box, **{"from": b"/tmp/never-from", "to": path})
        yield "Remove", lambda: self.files.Remove(**self.at(path))
        yield "Watch", lambda: next(self.files.Watch(**self.at(path), deadline=5))
        yield "Unpack", lambda: self.client.unpack(self.box, path, b"")
        yield "Pack", lambda: list(self.files.PackArchive(**self.at(path)))

    def test_F06_bad_paths_are_refused_by_every_call(self):
        """F06"""
        for path in (b"", b"a\0b", b"/tmp/\0", b"x" * 256, b"/a/" + b"y" * 256 + b"/b", b"/" + b"a/" * 2048, b"z/" * 2048):
            for name, call in self.every_call(path):
                with self.subTest(call=name, path=path[:12], length=len(path)):
                    text = self.refused(Code.INVALID_ARGUMENT, call)
                    self.assertRegex(text, "^(path|from|to):")

    def test_F06_dots_stay_inside(self):
        """F06: whatever the spelling, it is the sandbox's own file."""
        self.client.write(self.box, "/tmp/inside", b"inside")
        for path in ("/../tmp/inside", "/../../../../tmp/inside", "../../../../../tmp/inside", "//tmp//inside", "/tmp/./inside",
                     "/proc/../tmp/inside", "/tmp/../../tmp/inside", "/" + "../" * 500 + "tmp/inside"):
            with self.subTest(path=path[:40]):
                self.assertEqual(self.client.read(self.box, path), b"inside")
        inside = {b"/" + f.path.rsplit(b"/", 1)[1] for f in self.files.List(**self.at("/../../..")).files}
        self.assertIn(b"/home", inside)
        self.assertNotIn(self.instance.dir.encode(), inside)

    def test_F06_host_paths_do_not_exist(self):
        """The instance's own folders are on the host; the same names are nothing inside."""
        for path in (self.instance.dir, self.instance.data, self.instance.run + "/admin.sock", self.instance.conf):
            self.assertTrue(os.path.exists(path))
            with self.assertRaises(grpc.RpcError) as raised:
                self.stat(path)
            self.assertEqual(raised.exception.code(), Code.NOT_FOUND)

    def test_F07_symlinks(self):
        """F07: absolute links resolve in the sandbox's root; loops and long chains end."""
        self.sh(f"cd {self.dir}; ln -s /etc/hostname abs; ln -s nowhere dangling; ln -s loop loop; ln -s {self.instance.conf} host; "
                "echo end > c0; i=1; while [ $i -le 41 ]; do ln -s c$((i-1)) c$i; i=$((i+1)); done; ln -s .. up")
        inside = self.sh("cat /etc/hostname")
        self.assertEqual(self.client.read(self.box, self.dir + "/abs"), inside)
        self.refused(Code.NOT_FOUND, self.client.read, self.box, self.dir + "/dangling")
        with self.assertRaises(grpc.RpcError) as raised:
            self.client.read(self.box, self.dir + "/host")
        self.assertEqual(raised.exception.code(), Code.NOT_FOUND)
        self.refused(Code.FAILED_PRECONDITION, self.client.read, self.box, self.dir + "/loop")
        self.assertEqual(self.client.read(self.box, self.dir + "/c40"), b"end\n")
        self.refused(Code.FAILED_PRECONDITION, self.client.read, self.box, self.dir + "/c41")
        self.assertEqual(self.stat(self.dir + "/loop").type, SYMLINK)
        self.assertEqual(self.stat(self.dir + "/up/", follow=True).type, DIRECTORY)

    def test_F09_magic_links(self):
        """F09: the server's own descriptors, root and binaries are not reachable through /proc."""
        for path in ("/proc/self/root", "/proc/self/cwd", "/proc/1/root", "/proc/self/fd/0", "/proc/self/fd/3", "/dev/stdin", "/dev/fd/1",
                     "/proc/self/exe", "/proc/1/exe"):
            with self.subTest(path=path):
                for tail in ("", self.instance.conf):
                    with self.assertRaises(grpc.RpcError) as raised:
                        data = self.client.read(self.box, path + tail)
                        self.fail(f"read {data[:40]!r}")
                    self.assertIn(raised.exception.code(), (Code.NOT_FOUND, Code.PERMISSION_DENIED, Code.FAILED_PRECONDITION))
        self.assertIn(b"Name:", self.client.read(self.box, "/proc/self/status"))

    def test_F08_flip_race(self):
        """F08: a directory that is exchanged with a link to / while files are read and written: only inside."""
        canary = os.path.join(self.instance.dir, "canary")
        with open(canary, "w") as f:
            f.write("HOST")
        self.sh(f"mkdir -p {self.dir}/real{self.instance.dir}; echo INSIDE > {self.dir}/real{self.instance.dir}/canary; ln -s / {self.dir}/link")
        flip = self.client.run(self.box, "/usr/bin/python3", "-c", f"""
import ctypes, os
libc = ctypes.CDLL(None)
os.chdir({self.dir!r})
while True: libc.renameat2(-100, b'real', -100, b'link', 2)""", detach=True)
        seen = set()

        def read(_):
            try:
                return self.client.read(self.box, f"{self.dir}/real{self.instance.dir}/canary")
            except grpc.RpcError as error:
                return error.code()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            seen = set(pool.map(read, range(1500)))
        for _ in range(100):
            try:
                self.client.write(self.box, f"{self.dir}/real{canary}", b"CHANGED", in_place=True)
            except grpc.RpcError:
                pass
        self.client.Processes.Signal(sandbox_id=self.box, process_id=flip.id, signal=9)
        self.assertIn(b"INSIDE\n", {s if s != b"CHANGED" else b"INSIDE\n" for s in seen})
        self.assertNotIn(b"HOST", seen)
        with open(canary) as f:
            self.assertEqual(f.read(), "HOST")


class Read(FileCase):
    def test_ranges(self):
        data = os.urandom(3 * MIB + 17)
        self.client.write(self.box, self.dir + "/f", data)
        for offset, length in ((0, 0), (0, 1), (1, 0), (MIB - 1, 2), (len(data) - 1, 100), (len(data), 0), (len(data) + 5, 5), (2 ** 63 - 1, 0)):
            with self.subTest(offset=offset, length=length):
                got = self.client.read(self.box, self.dir + "/f", offset=offset, length=length)
                self.assertEqual(got, data[offset:offset + length] if length else data[offset:])
        first = next(self.files.Read(**self.at(self.dir + "/f")))
        self.assertEqual((first.info.size, first.info.type), (len(data), REGULAR))
        self.invalid("offset", self.client.read, self.box, self.dir + "/f", offset=2 ** 63)

    def test_empty_file(self):
        self.sh(f"touch {self.dir}/e")
        chunks = list(self.files.Read(**self.at(self.dir + "/e")))
        self.assertEqual((chunks[0].info.size, b"".join(c.data for c in chunks)), (0, b""))

    def test_F10_not_regular(self):
        """F10: refused at once, nothing hangs."""
        self.sh(f"cd {self.dir}; mkfifo fifo; mkdir d; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'")
        for path in (self.dir + "/fifo", self.dir + "/d", self.dir + "/sock", "/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx"):
            with self.subTest(path=path):
                began = time.monotonic()
                with self.assertRaises(grpc.RpcError) as raised:
                    self.client.read(self.box, path, deadline=10)
                self.assertIn(raised.exception.code(), (Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.PERMISSION_DENIED))
                self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(self.client.read(self.box, "/proc/kmsg", deadline=10), b"", "an empty file covers it")
        self.assertEqual(self.client.read(self.box, "/proc/sys/kernel/hostname"), b"paddock\n")

    def test_F10_sparse_terabyte(self):
        """F10: 1 TiB of nothing is streamed, bounded, and can be abandoned."""
        self.sh(f"truncate -s 1T {self.dir}/sparse || truncate -s 100G {self.dir}/sparse")
        pid, count = self.instance.paddockd.pid, 0
        before = host.rss(pid)
        stream = self.files.Read(**self.at(self.dir + "/sparse"))
        for chunk in stream:
            self.assertLessEqual(len(chunk.data), MIB)
            count += len(chunk.data)
            if count > 64 * MIB:
                break
        stream.cancel()
        self.assertLess(host.rss(pid) - before, host.memory(24 * MIB))
        self.assertEqual(self.client.read(self.box, self.dir + "/sparse", offset=50 << 30, length=10), b"\0" * 10)

    def test_F10_shrinks_and_grows(self):
        """F10: a file that shrinks ends the stream without an error; one that grows is bounded."""
        self.sh(f"truncate -s 200M {self.dir}/s")
        stream = self.files.Read(**self.at(self.dir + "/s"))
        count = len(next(stream).data)
        self.sh(f"truncate -s 1M {self.dir}/s")
        for chunk in stream:
            count += len(chunk.data)
        self.assertLess(count, 200 << 20)
        grow = self.client.run(self.box, f"while :; do head -c 100000 /dev/zero; done >> {self.dir}/g", detach=True, timeout_ms=20000)
        time.sleep(0.2)
        self.assertGreater(len(self.client.read(self.box, self.dir + "/g", length=500000, deadline=20)), 0)
        self.client.Processes.Signal(sandbox_id=self.box, process_id=grow.id, signal=9)
        self.kept_alive()


class Write(FileCase):
    def test_new_file(self):
        info = self.client.write(self.box, self.dir + "/f", b"hello")
        self.assertEqual((info.path.decode(), info.size, info.mode, info.uid), (self.dir + "/f", 5, 0o644, 1000))
        self.assertEqual(self.client.read(self.box, self.dir + "/f"), b"hello")
        self.assertEqual(self.client.write(self.box, self.dir + "/empty", b"").size, 0)
        self.assertEqual(self.client.write(self.box, self.dir + "/m", b"x", mode=0o600).mode, 0o600)

    def test_F23_replace_is_atomic(self):
        """F23: a reader sees the old or the new content, never a mixture; the inode changes."""
        old, new = b"a" * (2 * MIB), b"b" * (MIB + 3)
        before = self.client.write(self.box, self.dir + "/f", old)
        stop, seen = threading.Event(), []

        def read():
            while not stop.is_set():
                seen.append(self.client.read(self.box, self.dir + "/f"))
        reader = threading.Thread(target=read)
        reader.start()
        for i in range(20):
            after = self.client.write(self.box, self.dir + "/f", new if i % 2 == 0 else old)
        stop.set()
        reader.join()
        self.assertLessEqual(set(seen), {old, new})
        self.assertNotEqual(before.inode, after.inode)
        self.assertEqual(self.sh(f"ls -A {self.dir}"), b"f\n")

    def test_replace_keeps_mode(self):
        self.sh(f"printf old > {self.dir}/x; chmod 750 {self.dir}/x")
        self.assertIn(self.client.write(self.box, self.dir + "/x", b"new").mode, (0o750, 0o644))

    def test_exclusive_and_parents(self):
        self.client.write(self.box, self.dir + "/a/b/c", b"x", make_parents=True)
        self.refused(Code.ALREADY_EXISTS, self.client.write, self.box, self.dir + "/a/b/c", b"y", exclusive=True)
        self.client.write(self.box, self.dir + "/a/b/d", b"y", exclusive=True)
        self.refused(Code.NOT_FOUND, self.client.write, self.box, self.dir + "/no/such/f", b"x")
        self.refused(Code.FAILED_PRECONDITION, self.client.write, self.box, self.dir + "/a", b"x")
        self.refused(Code.FAILED_PRECONDITION, self.client.write, self.box, self.dir + "/a/b/c/d", b"x")

    def test_in_place(self):
        path = self.dir + "/f"
        inode = self.client.write(self.box, path, b"0123456789").inode
        self.assertEqual(self.client.write(self.box, path, b"AB", in_place=True, offset=3).inode, inode)
        self.assertEqual(self.client.read(self.box, path), b"012AB56789")
        self.client.write(self.box, path, b"END", in_place=True, append=True)
        self.assertEqual(self.client.read(self.box, path), b"012AB56789END")
        self.client.write(self.box, path, b"x", in_place=True, offset=20)
        self.assertEqual(self.client.read(self.box, path), b"012AB56789END" + b"\0" * 7 + b"x")

    def test_F23_limits(self):
        """F23"""
        path = self.dir + "/f"
        write = self.client.write
        self.invalid("mode", write, self.box, path, b"", mode=0o1000)
        self.invalid("mode", write, self.box, path, b"", mode=0o4755)
        self.invalid("offset", write, self.box, path, b"x", in_place=True, append=True, offset=1)
        self.invalid("offset", write, self.box, path, b"x", in_place=True, offset=2 ** 63)
        with self.assertRaises(grpc.RpcError) as raised:
            write(self.box, path, b"xx", in_place=True, offset=2 ** 63 - 1)
        self.assertIn(raised.exception.code(), (Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE, Code.RESOURCE_EXHAUSTED))
        self.sh(f"rm -f {path}")
        header = pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=self.box, path=path.encode()))
        for bad in ([pb.WriteFileRequest(data=b"x")], [], [pb.WriteFileRequest()], [header, header],
                    [header, pb.WriteFileRequest(data=b"x" * (MIB + 1))]):
            with self.subTest(messages=len(bad)):
                self.refused(Code.INVALID_ARGUMENT, self.files.Write, iter(bad))
        self.assertEqual(self.sh(f"ls -A {self.dir}"), b"")

    def test_F13_setuid_is_not_kept(self):
        """F13: no set-id bit through the API, and one made inside gains nothing."""
        self.sh(f"cp /usr/bin/id {self.dir}/id; chmod 4755 {self.dir}/id", user="root")
        self.assertEqual(self.client.run(self.box, self.dir + "/id", "-u").out, b"1000\n")

    def test_F11_full_device_and_fifo(self):
        """F11: an error within two seconds, nothing stuck."""
        self.sh(f"mkfifo {self.dir}/fifo")
        for path in ("/dev/full", self.dir + "/fifo", "/proc/version", "/dev/null"):
            with self.subTest(path=path):
                began = time.monotonic()
                with self.assertRaises(grpc.RpcError):
                    self.client.write(self.box, path, b"x", in_place=True)
                self.assertLess(time.monotonic() - began, 2)
        self.kept_alive()

    def test_F11_F28_over_quota(self):
        """F11, F28: the sandbox's own limit; what was there stays; others go on."""
        box = self.new_box(resources=pb.Resources(disk_bytes=32 * MIB))
        self.client.write(box, "/home/user/f", b"old")
        with self.assertRaises(grpc.RpcError) as raised:
            self.client.write(box, "/home/user/f", os.urandom(64 * MIB))
        self.assertEqual(raised.exception.code(), Code.RESOURCE_EXHAUSTED)
        self.assertEqual(self.client.read(box, "/home/user/f"), b"old")
        self.assertEqual(self.client.run(box, "ls", "-A", "/home/user").out.count(b".paddock"), 0)
        self.client.write(self.box, self.dir + "/other", os.urandom(8 * MIB))

    def test_F24_interrupted_upload(self):
        """F24: cut at many points: the old content, and nothing else in the directory."""
        path = self.dir + "/f"
        self.client.write(self.box, path, b"old")
        for cut in (0, 1, 2, 5, 20):
            done = threading.Event()

            def messages():
                yield pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=self.box, path=path.encode()))
                for _ in range(cut):
                    yield pb.WriteFileRequest(data=b"n" * 100000)
                done.wait(5)
            threading.Timer(0.2, done.set)
            with self.assertRaises(grpc.RpcError):
                self.files.Write(messages(), deadline=0.4)
            done.set()
        wait_until(lambda: self.sh(f"ls -A {self.dir}") == b"f\n", 5, "no leftovers")
        self.assertEqual(self.client.read(self.box, path), b"old")

    def test_F23_two_writers(self):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: self.client.write(self.box, self.dir + "/f", bytes([65 + i]) * MIB), range(8)))
        data = self.client.read(self.box, self.dir + "/f")
        self.assertEqual(len(data), MIB)
        self.assertEqual(len(set(data)), 1)

    def test_large_stays_flat(self):
        """Large files stream without being held in memory."""
        pid, digest = self.instance.paddockd.pid, hashlib.sha256()
        block = os.urandom(MIB)
        box = self.new_box(resources=pb.Resources(disk_bytes=1 << 30))
        before = host.rss(pid)

        def messages():
            yield pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=box, path=b"big"))
            for _ in range(300):
                digest.update(block)
                yield pb.WriteFileRequest(data=block)
        self.assertEqual(self.files.Write(messages()).size, 300 * MIB)
        self.assertLess(host.rss(pid) - before, host.memory(48 * MIB))
        back = hashlib.sha256()
        for chunk in self.files.Read(sandbox_id=box, path=b"big"):
            back.update(chunk.data)
        self.assertEqual(back.hexdigest(), digest.hexdigest())
        self.assertLess(host.rss(pid) - before, host.memory(48 * MIB))


class Metadata(FileCase):
    """Extended attributes "user.e2b.NAME"."""

    def stat(self, path, **fields):
        return dict(self.client.Files.Stat(sandbox_id=self.box, path=path.encode(), **fields).metadata)

    def attributes(self, path, script):
        """Of the file, from inside."""
        self.sh(f"python3 -c \"import os; p = '{path}'; s = lambda n, v: os.setxattr(p, n, v); {script}\"")

    def test_written_and_replaced(self):
        path = f"/home/user/{unique('meta')}"
        limits = {"n" * 246: "v" * 1000, "!#$%&'*+-.^_`|~": " ~"}
        self.assertEqual(dict(self.client.write(self.box, path, b"one", metadata=limits).metadata), limits)
        self.assertEqual(self.stat(path), limits)
        self.assertEqual(self.client.read(self.box, path), b"one")
        for _ in range(2):  # the new file has none of the old one's
            self.client.write(self.box, path, b"two", metadata={"b": ""})
            self.assertEqual(self.stat(path), {"b": ""})
        self.client.write(self.box, path, b"3", in_place=True)
        self.assertEqual(self.stat(path), {"b": ""}, "a file that is written into stays what it is")
        self.client.write(self.box, path, b"four")
        self.assertEqual(self.stat(path), {})
        self.client.write(self.box, path, b"five", metadata={"r": "oot"}, user="root")
        self.assertEqual(self.stat(path), {"r": "oot"})
        for folder in ("/tmp", "/root", "/opt"):
            self.assertEqual(dict(self.client.write(self.box, f"{folder}/noted", b"", metadata={"a": "b"}, user="root").metadata), {"a": "b"})

    def test_limits(self):
        path = f"/home/user/{unique('meta')}"
        for metadata in ({"": "x"}, {"n" * 247: "x"}, {"a b": "x"}, {"a/b": "x"}, {"\u00e4": "x"}, {"a": "\u00e4"}, {"a": "x\n"}, {"a": "\x7f"},
                         {"a": "v" * 4096}, {f"n{i}": "" for i in range(101)}):
            with self.subTest(str(metadata)[:40]):
                self.assertIn("metadata", self.refused(Code.INVALID_ARGUMENT, self.client.write, self.box, path, b"x", metadata=metadata))
        self.assertIn("in_place", self.refused(Code.INVALID_ARGUMENT, self.client.write, self.box, path, b"x", in_place=True, metadata={"a": "b"}))
        self.refused(Code.NOT_FOUND, self.client.Files.Stat, sandbox_id=self.box, path=path.encode())
        self.client.write(self.box, path, b"x", metadata={**{f"n{i}": "" for i in range(99)}, "a": "v" * 3000})
        self.assertEqual(len(self.stat(path)), 100)

    def test_what_the_sandbox_sets(self):
        """Whatever is there, an answer stays bounded and text."""
        path = f"/home/user/{unique('meta')}"
        self.sh(f"echo > {path}; mkdir {path}.d; ln -s {path} {path}.link")
        self.attributes(path, "s('user.e2b.ok', b'fine'); s('user.other', b'no'); s('user.e2b.raw', bytes([255, 254])); s('user.e2b.nul', bytes(3)); "
                              "s('user.e2b.', b'nameless'); s('user.e2b.text', 'gr\u00fc\u00df'.encode())")
        seen = self.stat(path)
        self.assertEqual({name: seen[name] for name in seen if name}, {"ok": "fine", "text": "gr\u00fc\u00df"})
        self.attributes(path + ".d", "s('user.e2b.of', b'folder')")
        self.assertEqual(self.stat(path + ".d"), {"of": "folder"})
        self.assertEqual(self.stat(path + ".link"), {})
        self.assertEqual(self.stat(path + ".link", follow=True), seen)
        self.attributes(path, "[s(f'user.e2b.n{i}', b'x' * 90) for i in range(120)]")
        many = self.stat(path)
        self.assertLessEqual(sum(len(name) + len(value) for name, value in many.items()), 4096)
        self.assertGreater(len(many), 30)
        self.attributes(path + ".d", "s('user.e2b.large', b'x' * 5000)")
        self.assertEqual(self.stat(path + ".d"), {"of": "folder"}, "what is too large alone is left out")
        # What its owner keeps to itself is not read for others; root sees it.
        self.sh(f"chmod 600 {path}.d; chmod 700 {path}.d")
        self.client.write(self.box, "/root/noted", b"", metadata={"a": "b"}, user="root")
        self.sh("chmod 755 /root; chmod 600 /root/noted", user="root")
        self.assertEqual(self.stat("/root/noted"), {})
        self.assertEqual(self.stat("/root/noted", user="root"), {"a": "b"})

    def test_pages_of_large_metadata(self):
        folder = f"/home/user/{unique('meta')}"
        self.sh(f"mkdir {folder}; python3 -c \"import os\nfor i in range(600):\n p = '{folder}/%03d' % i\n open(p, 'w').close()\n os.setxattr(p, 'user.e2b.big', b'x' * 3000)\"")
        names, token = [], ""
        while True:
            page = self.client.Files.List(sandbox_id=self.box, path=folder.encode(), page_size=1000, page_token=token)
            names += [f.path.decode().rsplit("/", 1)[1] for f in page.files if len(f.metadata["big"]) == 3000]
            token = page.next_page_token
            if not token:
                break
            self.assertLess(len(page.files), 600)
        self.assertEqual(names, ["%03d" % i for i in range(600)])


class Change(FileCase):
    def test_make_dir(self):
        info = self.files.MakeDir(**self.at(self.dir + "/d", mode=0o700))
        self.assertEqual((info.type, info.mode, info.uid), (DIRECTORY, 0o700, 1000))
        self.refused(Code.ALREADY_EXISTS, self.files.MakeDir, **self.at(self.dir + "/d"))
        self.files.MakeDir(**self.at(self.dir + "/d", parents=True))
        self.files.MakeDir(**self.at(self.dir + "/x/y/z", parents=True))
        self.refused(Code.NOT_FOUND, self.files.MakeDir, **self.at(self.dir + "/no/such"))
        self.sh(f"touch {self.dir}/f")
        self.refused(Code.ALREADY_EXISTS, self.files.MakeDir, **self.at(self.dir + "/f", parents=True))
        self.invalid("mode", self.files.MakeDir, **self.at(self.dir + "/m", mode=0o10000))

    def test_move(self):
        def move(source, target, **fields):
            return self.files.Move(sandbox_id=self.box, **{"from": f"{self.dir}/{source}".encode(), "to": f"{self.dir}/{target}".encode()}, **fields)
        self.sh(f"cd {self.dir}; echo 1 > a; echo 2 > b; mkdir d e; touch e/x")
        self.assertEqual(move("a", "c").path.decode(), self.dir + "/c")
        self.refused(Code.ALREADY_EXISTS, move, "b", "c", no_replace=True)
        move("b", "c")
        self.assertEqual(self.client.read(self.box, self.dir + "/c"), b"2\n")
        self.refused(Code.NOT_FOUND, move, "nosuch", "x")
        self.refused(Code.FAILED_PRECONDITION, move, "d", "e")
        self.refused(Code.FAILED_PRECONDITION, move, "c", "d")
        with self.assertRaises(grpc.RpcError):
            move("d", "d/inner")
        move("e", "d/e")
        self.assertEqual(self.sh(f"ls {self.dir}/d/e"), b"x\n")

    def test_remove(self):
        self.sh(f"cd {self.dir}; touch f; mkdir -p t/u/v; touch t/u/v/x t/y; ln -s t link; mkdir empty")
        self.assertEqual(self.files.Remove(**self.at(self.dir + "/f")).removed, 1)
        self.missing(self.dir + "/f")
        self.refused(Code.NOT_FOUND, self.files.Remove, **self.at(self.dir + "/f"))
        self.refused(Code.FAILED_PRECONDITION, self.files.Remove, **self.at(self.dir + "/t"))
        self.files.Remove(**self.at(self.dir + "/empty"))
        self.assertEqual(self.files.Remove(**self.at(self.dir + "/link", recursive=True)).removed, 1)
        self.assertEqual(self.stat(self.dir + "/t").type, DIRECTORY)
        self.assertEqual(self.files.Remove(**self.at(self.dir + "/t", recursive=True)).removed, 5)
        self.missing(self.dir + "/t")

    def test_F08_remove_race(self):
        """F08: recursive removal while a directory becomes a link to a tree that must stay."""
        self.sh(f"mkdir -p {self.dir}/keep {self.dir}/victim/d; touch {self.dir}/keep/file; ln -s {self.dir}/keep {self.dir}/l")
        flip = self.client.run(self.box, "/usr/bin/python3", "-c", f"""
import ctypes, os
libc = ctypes.CDLL(None)
while True:
    libc.renameat2(-100, {self.dir.encode()!r} + b'/victim/d', -100, {self.dir.encode()!r} + b'/l', 2)""", detach=True)
        for _ in range(60):
            try:
                self.files.Remove(**self.at(self.dir + "/victim", recursive=True))
            except grpc.RpcError:
                pass
            self.sh(f"mkdir -p {self.dir}/victim/d || true; test -f {self.dir}/keep/file")
        self.client.Processes.Signal(sandbox_id=self.box, process_id=flip.id, signal=9)

    def test_F21_mount_points_cannot_be_removed(self):
        """F21"""
        for path in ("/proc", "/dev", "/tmp", "/"):
            with self.assertRaises(grpc.RpcError):
                self.files.Remove(**self.at(path, user="root", recursive=False))
        self.kept_alive()


class Watch(FileCase):
    CREATED, WRITTEN, REMOVED, RENAMED, READY = (enumerated for enumerated in (2, 3, 4, 5, 1))

    def watch(self, path, **fields):
        stream = self.files.Watch(**self.at(path, **fields), deadline=30)
        self.assertEqual(next(stream).type, self.READY)
        return stream

    def until(self, stream, type, path):
        for event in stream:
            if event.type == type and event.path == path:
                return event
        self.fail(f"no event {type} {path}")

    def test_changes(self):
        stream = self.watch(self.dir)
        self.sh(f"cd {self.dir}; echo x > f; mv f g; rm g; mkdir d")
        self.until(stream, self.CREATED, b"f")
        self.until(stream, self.WRITTEN, b"f")
        self.assertEqual(self.until(stream, self.RENAMED, b"g").old_path, b"f")
        self.until(stream, self.REMOVED, b"g")
        self.assertEqual(self.until(stream, self.CREATED, b"d").file_type, DIRECTORY)
        stream.cancel()

    def test_recursive(self):
        self.sh(f"mkdir -p {self.dir}/a/b")
        stream = self.watch(self.dir, recursive=True)
        self.sh(f"touch {self.dir}/a/b/f; mkdir -p {self.dir}/n/m; sleep 0.2; touch {self.dir}/n/m/deep")
        self.until(stream, self.CREATED, b"a/b/f")
        self.until(stream, self.CREATED, b"n")
        self.until(stream, self.CREATED, b"n/m/deep")
        stream.cancel()

    def test_not_recursive(self):
        self.sh(f"mkdir {self.dir}/a")
        stream = self.watch(self.dir)
        self.sh(f"touch {self.dir}/a/hidden {self.dir}/shown")
        self.assertEqual(next(stream).path, b"shown")
        stream.cancel()

    def test_errors(self):
        self.sh(f"touch {self.dir}/f")
        self.refused(Code.NOT_FOUND, self.files.Watch, **self.at(self.dir + "/nosuch"), deadline=5)
        self.refused(Code.FAILED_PRECONDITION, self.files.Watch, **self.at(self.dir + "/f"), deadline=5)

    def test_F17_bounds(self):
        """F17: 16 watches on a sandbox, 8,192 directories in one."""
        box = self.new_box()
        streams = []
        try:
            for _ in range(16):
                stream = self.files.Watch(sandbox_id=box, path=b"/tmp", deadline=30)
                next(stream)
                streams.append(stream)
            self.refused(Code.RESOURCE_EXHAUSTED, self.files.Watch, sandbox_id=box, path=b"/tmp", deadline=5)
        finally:
            for stream in streams:
                stream.cancel()

        def again():
            try:
                stream = self.files.Watch(sandbox_id=box, path=b"/tmp", deadline=5)
                next(stream)
                stream.cancel()
                return True
            except grpc.RpcError:
                return False
        wait_until(again, 10, "a watch is free again")
        self.client.run(box, "/usr/bin/python3", "-c", "import os\nos.mkdir('/home/user/many')\nfor i in range(8200): os.mkdir(f'/home/user/many/{i}')")
        self.refused(Code.RESOURCE_EXHAUSTED, self.files.Watch, sandbox_id=box, path=b"/home/user/many", recursive=True, deadline=20)

    def test_overflow_is_said_or_nothing_is_lost(self):
        stream = self.watch(self.dir)
        self.sh(f"cd {self.dir}; seq 1 20000 | xargs touch; touch last")
        created, overflow = set(), False
        for event in stream:
            overflow = overflow or event.type == 7
            if event.type == self.CREATED:
                created.add(event.path)
            if overflow or event.path == b"last":
                break
        stream.cancel()
        self.assertTrue(overflow or len(created) == 20001, len(created))
