"""Archives in and out (F13-F16): a safe subset is unpacked, by and inside the sandbox; the rest is refused."""
import gzip
import io
import lzma
import bz2
import os
import subprocess
import tarfile

from api import Case, Code, grpc, pb, unique
import host
from paddock import wait_until


def tar(*entries, format=tarfile.PAX_FORMAT):
    """entries: (name, type, content or link, mode)"""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=format) as archive:
        for entry in entries:
            name, kind, payload, mode = entry + (b"", 0o644)[len(entry) - 2:]
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode
            if kind == tarfile.REGTYPE:
                info.size = len(payload)
                archive.addfile(info, io.BytesIO(payload))
            else:
                if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                    info.linkname = payload
                elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                    info.devmajor, info.devminor = payload or (1, 3)
                archive.addfile(info)
    return data.getvalue()


F, D, S, L, C, P = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE


class ArchiveCase(Case):
    def setUp(self):
        self.dir = "/home/user/" + unique("a")

    def unpack(self, data, **header):
        return self.client.unpack(self.box, self.dir.encode(), data, **header)

    def pack(self, path, **fields):
        return b"".join(c.data for c in self.client.Files.PackArchive(sandbox_id=self.box, path=path.encode(), **fields))


class Unpack(ArchiveCase):
    def test_plain(self):
        done = self.unpack(tar(("d", D, b"", 0o750), ("d/f", F, b"hello", 0o640), ("d/l", S, "f", 0o777), ("d/h", L, "d/f", 0o640), ("top", F, b"", 0o755)))
        self.assertEqual((done.entries, done.bytes), (5, 5))
        out = self.sh(f"cd {self.dir}; cat d/f; readlink d/l; stat -c '%a %U %h' d/f top; stat -c %a d")
        self.assertEqual(out, b"hellof\n640 user 2\n755 user 1\n750\n")

    def test_compressions(self):
        data = tar(("f", F, b"x" * 100000))
        zstd = subprocess.run(["zstd", "-c"], input=data, capture_output=True) if os.path.exists("/usr/bin/zstd") else None
        for packed in [gzip.compress(data), lzma.compress(data), bz2.compress(data)] + ([zstd.stdout] if zstd else []):
            self.assertEqual(self.unpack(packed).bytes, 100000)

    def test_formats(self):
        for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            name = "a" * (90 if format == tarfile.USTAR_FORMAT else 200)
            self.unpack(tar((name, F, b"x"), format=format))
            self.sh(f"test -s {self.dir}/{name}")

    def test_F15_entries_that_would_leave(self):
        """F15: nothing outside is touched; the error says so."""
        self.sh("mkdir -p /home/user/outside; echo keep > /home/user/outside/f")
        hostile = {
            "dotdot": tar(("../outside/f", F, b"EVIL")),
            "deep dotdot": tar(("a/../../outside/f", F, b"EVIL")),
            "absolute": tar(("/home/user/outside/f", F, b"EVIL")),
            "through a symlink": tar(("l", S, "/home/user/outside", 0o777), ("l/f", F, b"EVIL")),
            "through a relative symlink": tar(("l", S, "../outside", 0o777), ("l/f", F, b"EVIL")),
            "through two symlinks": tar(("a", S, "..", 0o777), ("b", S, "a/outside", 0o777), ("b/f", F, b"EVIL")),
            "directory replaced by a link": tar(("d", D), ("d", S, "../outside", 0o777), ("d/f", F, b"EVIL")),
            "hard link out": tar(("h", L, "../outside/f", 0o644), ("h", F, b"EVIL")),
            "hard link absolute": tar(("h", L, "/home/user/outside/f", 0o644), ("h", F, b"EVIL")),
            "pax path override": self.pax_override("../outside/f"),
        }
        for name, data in hostile.items():
            with self.subTest(name):
                try:
                    self.unpack(data)
                except grpc.RpcError as error:
                    self.assertEqual(error.code(), Code.INVALID_ARGUMENT, error.details())
                self.assertEqual(self.sh("cat /home/user/outside/f; ls /home/user/outside"), b"keep\nf\n")
        self.refused(Code.INVALID_ARGUMENT, self.unpack, hostile["dotdot"])
        self.refused(Code.INVALID_ARGUMENT, self.unpack, hostile["through a symlink"])

    def pax_override(self, path):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("harmless")
            info.size, info.pax_headers = 4, {"path": path}
            archive.addfile(info, io.BytesIO(b"EVIL"))
        return data.getvalue()

    def test_F14_devices_are_refused(self):
        """F14: as user and as root; a FIFO is either made or refused, never a hang."""
        for user in ("user", "root"):
            self.refused(Code.INVALID_ARGUMENT, self.unpack, tar(("null", C, (1, 3), 0o666)), user=user)
            self.refused(Code.INVALID_ARGUMENT, self.unpack, tar(("whiteout", C, (0, 0), 0o666)), user=user)
        try:
            self.unpack(tar(("fifo", P)))
        except grpc.RpcError as error:
            self.assertEqual(error.code(), Code.INVALID_ARGUMENT)

    def test_F13_set_id_bits_gain_nothing(self):
        """F13"""
        with open("/bin/busybox", "rb") as f:
            busybox = f.read()
        self.unpack(tar(("id", F, busybox, 0o6777)), user="root")
        self.assertEqual(self.client.run(self.box, "/bin/bash", "-c", f"exec -a id {self.dir}/id -u").out, b"1000\n")

    def test_owners_with_root(self):
        self.unpack(tar(("r", F, b"x")), user="root")
        self.assertEqual(self.sh(f"stat -c %u {self.dir}/r"), b"0\n")
        self.refused(Code.PERMISSION_DENIED, self.client.unpack, self.box, b"/etc/new", tar(("r", F, b"x")))

    def test_F15_same_name_twice(self):
        self.unpack(tar(("f", F, b"one"), ("f", F, b"two")))
        self.assertEqual(self.sh(f"cat {self.dir}/f"), b"two")

    def test_F15_damaged(self):
        good = tar(("f", F, b"x" * 5000), ("g", F, b"y" * 5000))
        negative = bytearray(good)
        negative[124:136] = b"\x80" + b"\xff" * 11  # a size below zero, in base 256
        mode = bytearray(tar(("f", F, b"x"), format=tarfile.USTAR_FORMAT))
        mode[100:108] = b"zzzzzzz\0"
        for name, data in {"not a tar": b"hello world" * 100, "random": os.urandom(20000), "truncated": good[:3000],
                           "truncated gzip": gzip.compress(good)[:100], "bad size": bytes(negative), "bad mode": bytes(mode),
                           "gzip of nothing": gzip.compress(b"nothing at all" * 50)}.items():
            with self.subTest(name):
                self.refused(Code.INVALID_ARGUMENT, self.unpack, data)
        self.kept_alive()

    def test_F15_longest_names(self):
        """F15: a GNU long name of 1 MB is refused without being followed."""
        self.refused(Code.INVALID_ARGUMENT, self.unpack, tar(("a" * 1000000, F, b"x"), format=tarfile.GNU_FORMAT))
        self.refused(Code.INVALID_ARGUMENT, self.unpack, tar(("b" * 256, F, b"x")))

    def test_F15_bombs(self):
        """F15: bytes and entries are bounded, whatever the ratio."""
        bomb = gzip.compress(tar(("zero", F, b"\0" * (64 << 20))), 9)
        self.assertLess(len(bomb), 200000)
        self.refused(Code.RESOURCE_EXHAUSTED, self.unpack, bomb, max_bytes=10 << 20)
        many = tar(*[(f"f{i}", F, b"") for i in range(2000)])
        self.refused(Code.RESOURCE_EXHAUSTED, self.unpack, many, max_entries=1000)
        self.assertEqual(self.unpack(many, max_entries=2000).entries, 2000)
        self.kept_alive()

    def test_F15_whole_but_odd(self):
        """Two archives behind one another, links to links, a thousand levels, a sparse file: taken or refused, and what is
        there is what was meant."""
        done = self.unpack(tar(("one", F, b"1")) + tar(("two", F, b"2")))
        self.assertEqual((done.entries, self.sh(f"cat {self.dir}/one")), (1, b"1"))
        self.unpack(tar(("f", F, b"end"), ("a", S, "f", 0o777), ("b", S, "a", 0o777), ("c", L, "b", 0o777)))
        self.assertEqual(self.sh(f"readlink {self.dir}/c; cat {self.dir}/b"), b"a\nend")
        deep = "/".join(["d"] * 500)
        self.unpack(tar((deep + "/f", F, b"deep"), format=tarfile.GNU_FORMAT))
        self.assertEqual(self.client.read(self.box, self.dir + "/" + deep + "/f"), b"deep")
        why = self.refused(Code.INVALID_ARGUMENT, self.unpack, tar((deep + "/" + deep, F, b"x"), format=tarfile.GNU_FORMAT))
        self.assertTrue(why.endswith("too many"), why)
        self.sh(f"cd {self.dir} && truncate -s 1G hole && tar -cSf sparse.tar hole && rm hole")
        sparse = self.client.read(self.box, self.dir + "/sparse.tar")
        self.assertLess(len(sparse), 100000)
        self.refused(Code.RESOURCE_EXHAUSTED, self.unpack, sparse, max_bytes=1 << 20)
        self.unpack(sparse)
        self.assertEqual(self.sh(f"stat -c %s {self.dir}/hole; du -k {self.dir}/hole | cut -f1"), b"1073741824\n0\n")

    def test_first_message(self):
        for bad in ([pb.UnpackArchiveRequest(data=b"x")], [], [pb.UnpackArchiveRequest()]):
            self.refused(Code.INVALID_ARGUMENT, self.client.Files.UnpackArchive, iter(bad))


class Pack(ArchiveCase):
    def test_F16_round_trip(self):
        self.sh(f"mkdir -p {self.dir}/sub; cd {self.dir}; echo hi > f; chmod 751 f; ln -s f l; ln f h; ln -s /etc/passwd abs; "
                "printf x > 'new\nline'; head -c 300000 /dev/urandom > sub/blob")
        with tarfile.open(fileobj=io.BytesIO(self.pack(self.dir))) as archive:
            found = {m.name: m for m in archive}
            base = os.path.basename(self.dir)
            self.assertEqual({n[len(base) + 1:] for n in found if n != base}, {"f", "l", "h", "abs", "new\nline", "sub", "sub/blob"})
            self.assertEqual(found[base + "/f"].mode, 0o751)
            self.assertTrue(found[base + "/abs"].issym())
            self.assertEqual(found[base + "/abs"].linkname, "/etc/passwd")
            blob = archive.extractfile(base + "/sub/blob").read()
        self.assertEqual(self.client.read(self.box, self.dir + "/sub/blob"), blob)

    def test_compression(self):
        self.sh(f"mkdir {self.dir}; yes | head -c 1000000 > {self.dir}/f")
        for compression, magic in (("gzip", b"\x1f\x8b"), ("zstd", b"\x28\xb5\x2f\xfd")):
            packed = self.pack(self.dir, compression=compression)
            self.assertTrue(packed.startswith(magic))
            self.assertLess(len(packed), 100000)
        self.invalid("compression", self.pack, self.dir, compression="lzma")

    def test_exclude(self):
        self.sh(f"mkdir -p {self.dir}/node_modules/x {self.dir}/src; cd {self.dir}; touch node_modules/x/y src/a.c src/a.o")
        base = os.path.basename(self.dir)
        with tarfile.open(fileobj=io.BytesIO(self.pack(self.dir, exclude=[b"*.o", b"*node_modules*"]))) as archive:
            self.assertEqual({n for n in archive.getnames() if n.startswith(base + "/")}, {base + "/src", base + "/src/a.c"})
        self.invalid("exclude", self.pack, self.dir, exclude=[b"x"] * 65)
        self.invalid("exclude", self.pack, self.dir, exclude=[b"x" * 256])

    def test_single_file_and_errors(self):
        with tarfile.open(fileobj=io.BytesIO(self.pack("/etc/hostname"))) as archive:
            self.assertEqual(archive.getnames(), ["hostname"])
        self.refused(Code.NOT_FOUND, self.pack, "/nosuch")

    def test_F16_special_files_do_not_hang(self):
        """F16: sockets, FIFOs, a file that changes."""
        self.sh(f"mkdir {self.dir}; cd {self.dir}; mkfifo p; echo x > after; "
                "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; (while :; do head -c 99999 /dev/zero > c; truncate -s 10 c; done) & echo $! > /tmp/changer")
        for _ in range(5):
            with tarfile.open(fileobj=io.BytesIO(self.pack(self.dir, deadline=20))) as archive:
                self.assertIn(os.path.basename(self.dir) + "/after", archive.getnames())
        self.sh("kill $(cat /tmp/changer)")

    def test_large_stays_flat(self):
        self.sh(f"mkdir {self.dir}; truncate -s 400M {self.dir}/hole; head -c 50M /dev/urandom > {self.dir}/data")
        pid = self.instance.paddockd.pid
        before = host.rss(pid)
        for _ in self.client.Files.PackArchive(sandbox_id=self.box, path=self.dir.encode()):
            pass
        self.assertLess(host.rss(pid) - before, host.memory(48 << 20))

    def test_client_that_leaves(self):
        stream = self.client.Files.PackArchive(sandbox_id=self.box, path=b"/usr")
        next(stream)
        stream.cancel()
        wait_until(lambda: b"paddock-archive" not in self.sh("ps -eo args"), 10, "the packer has ended")

    def test_archive_round_trip_through_both(self):
        self.sh(f"mkdir -p {self.dir}/in; cd {self.dir}/in; cp -r /usr/share/doc/bash . 2>/dev/null || cp /etc/passwd .; find . -type f | sort | xargs sha256sum > ../sums")
        packed = self.pack(self.dir + "/in", compression="gzip")
        self.client.unpack(self.box, self.dir.encode() + b"/out", packed)
        self.sh(f"cd {self.dir}/out/in && sha256sum --quiet -c {self.dir}/sums")
