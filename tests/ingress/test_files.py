#!/usr/bin/python3
"""/files of a sandbox, and Connect, as any HTTP client sees them: forms, gzip, ranges, odd bodies, back-pressure."""
import gzip
import json
import os
import subprocess
import struct
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from ingress import Ingress
import tap
from paddock import CLI, Instance


def setUpModule():
    global instance, ingress, key, sandbox, token
    instance = Instance(template="mini", ingress_user="paddock")
    instance.__enter__()
    ingress = Ingress(run=instance.run, user="paddock")
    ingress.__enter__()
    key = subprocess.run([CLI, "key", "create", "files"], env=dict(os.environ, PADDOCK_ADDR=f"unix:{instance.run}/admin.sock"),
                         capture_output=True, text=True, check=True).stdout.strip()
    status, _, body = ingress.ask("POST", "/v2/sandboxes", b'{"templateID":"base"}', {"X-API-KEY": key})
    assert status == 201, body
    answer = json.loads(body)
    sandbox, token = answer["sandboxID"], answer["envdAccessToken"]


def tearDownModule():
    ingress.__exit__()
    instance.__exit__()


def ask(method, path, body=None, **headers):
    named = {"E2b-Sandbox-Id": sandbox, "E2b-Sandbox-Port": "49983", "X-Access-Token": token}
    named.update({name.replace("_", "-"): value for name, value in headers.items()})
    return ingress.ask(method, path, body, named)


def put(path, data, **headers):
    return ask("POST", "/files?path=" + path, data, Content_Type="application/octet-stream", **headers)


def form(*parts):
    """(name, filename or None, data)... -> a multipart body."""
    body = b""
    for name, filename, data in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
        body += f"--b\r\nContent-Disposition: {disposition}\r\nContent-Type: x\r\n\r\n".encode() + data + b"\r\n"
    return body + b"--b--\r\n"


def post_form(query, body):
    return ask("POST", "/files" + query, body, Content_Type="multipart/form-data; boundary=b")


class Files(unittest.TestCase):
    def test_octet_stream(self):
        data = os.urandom(3 << 20)
        status, _, body = put("d/e", data)
        self.assertEqual((status, json.loads(body)), (200, [{"path": "/home/user/d/e", "name": "e", "type": "file"}]))
        status, headers, back = ask("GET", "/files?path=d/e")
        self.assertEqual((status, headers["content-length"]), (200, str(len(data))))
        self.assertEqual(back, data)

    def test_gzip(self):
        data = b"abc" * 1000000
        self.assertEqual(put("z", gzip.compress(data), Content_Encoding="gzip")[0], 200)
        self.assertEqual(ask("GET", "/files?path=z")[2], data)
        for name, bad in (("cut", gzip.compress(data)[:-4]), ("damaged", b"nonsense"), ("with more behind", gzip.compress(data) + b"x")):
            with self.subTest(name):
                self.assertEqual(put("bad", bad, Content_Encoding="gzip")[0], 400)
                self.assertEqual(ask("GET", "/files?path=bad")[0], 404)
        self.assertEqual(put("bad", data, Content_Encoding="br")[0], 400)

    def test_forms(self):
        status, _, body = post_form("", form(("file", "f/1", b"one"), ("other", None, b"ignored"), ("file", "f/2", b""), ("file", "/tmp/3", b"\r\n--cx\r\n-")))
        self.assertEqual(status, 200, body)
        self.assertEqual([entry["path"] for entry in json.loads(body)], ["/home/user/f/1", "/home/user/f/2", "/tmp/3"])
        for path, wanted in (("f/1", b"one"), ("f/2", b""), ("/tmp/3", b"\r\n--cx\r\n-")):
            self.assertEqual(ask("GET", "/files?path=" + path)[2], wanted)
        self.assertEqual(post_form("?path=g", form(("file", None, b"text")))[0], 200)
        self.assertEqual(ask("GET", "/files?path=g")[2], b"text")

    def test_bad_forms(self):
        for name, query, body in (
                ("the same path twice", "", form(("file", "s", b"1"), ("file", "s", b"2"))), ("no file", "", form(("x", "s", b"1"))),
                ("no path", "", form(("file", None, b"1"))), ("no end", "", form(("file", "h", b"1"))[:-6]),
                ("not a form", "", b"hello"), ("endless fields", "", b"--b\r\n" + b"X: y\r\n" * 5000)):
            with self.subTest(name):
                self.assertEqual(post_form(query, body)[0], 400)
        self.assertEqual(ask("GET", "/files?path=h")[0], 404)
        self.assertEqual(ask("POST", "/files?path=x", b"", Content_Type="text/plain")[0], 400)
        self.assertEqual(ask("POST", "/files?path=x", b"", Content_Type="multipart/form-data")[0], 400)
        self.assertEqual(put("x", b"", X_Metadata_a="b")[0], 200)
        self.assertEqual(put("x", b"", X_Metadata_a="b" * 4096)[0], 400)

    def test_ranges(self):
        put("r", bytes(range(100)))
        for text, status, wanted, shown in (
                ("bytes=10-19", 206, bytes(range(10, 20)), "bytes 10-19/100"), ("bytes=90-", 206, bytes(range(90, 100)), "bytes 90-99/100"),
                ("bytes=90-500", 206, bytes(range(90, 100)), "bytes 90-99/100"), ("bytes=5-4", 200, bytes(range(100)), None),
                ("bytes=0-1,5-6", 200, bytes(range(100)), None), ("lines=1-2", 200, bytes(range(100)), None), ("bytes=100-", 416, b"", "bytes */100")):
            with self.subTest(text):
                got, headers, body = ask("GET", "/files?path=r", Range=text)
                self.assertEqual((got, headers.get("content-range"), body), (status, shown, wanted))

    def test_errors(self):
        self.assertEqual(ask("GET", "/files?path=none")[0], 404)
        self.assertEqual(ask("GET", "/files?path=/etc")[0], 400)
        self.assertEqual(put("/etc", b"x")[0], 400)
        self.assertEqual(ask("GET", "/files?path=%zz")[0], 400)
        self.assertEqual(ask("DELETE", "/files?path=r")[0], 405)
        self.assertEqual(ask("GET", "/files?path=/etc/passwd", X_Access_Token="0" * 64)[0], 502)
        self.assertEqual(ask("GET", "/files?path=/etc/passwd", E2b_Sandbox_Id="i" + "a" * 20)[0], 502)
        self.assertEqual(ask("GET", "/files?path=/etc/passwd")[0], 200)

    def test_a_broken_upload_leaves_nothing(self):
        head = (f"POST /files?path=half HTTP/1.1\r\nHost: a\r\nE2b-Sandbox-Id: {sandbox}\r\nE2b-Sandbox-Port: 49983\r\nX-Access-Token: {token}\r\n"
                "Content-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\n").encode()
        with ingress.connect() as s:
            s.sendall(head + b"x" * 500)
            time.sleep(0.3)
        time.sleep(0.3)
        self.assertEqual(ask("GET", "/files?path=half")[0], 404)

    def test_a_slow_reader_costs_little(self):
        """64 MB for a client that does not read: the ingress holds a bounded part of it."""
        client = instance.admin
        client.run(sandbox, "/bin/sh", "-c", "head -c 67108864 /dev/zero > big")
        before = ingress.rss()
        held = []
        for _ in range(4):
            s = ingress.connect()
            s.sendall(f"GET /files?path=big HTTP/1.1\r\nHost: a\r\nE2b-Sandbox-Id: {sandbox}\r\nE2b-Sandbox-Port: 49983\r\nX-Access-Token: {token}\r\n\r\n".encode())
            held.append(s)
        time.sleep(2)
        grown = (ingress.rss() - before) / len(held)
        for s in held:
            s.close()
        print(f"# {grown / 1048576:.1f} MiB for each reader that does not read", file=sys.stderr)
        self.assertLess(grown, 16 << 20)
        self.assertEqual(len(ask("GET", "/files?path=big")[2]), 67108864)


class Connect(unittest.TestCase):
    def call(self, path, body, kind="application/json", **headers):
        return ask("POST", path, body, Content_Type=kind, **headers)

    def stream(self, path, message, *more, kind="application/connect+json", flags=0, **headers):
        body = b"".join(struct.pack(">BI", flags, len(m)) + m for m in (message, *more))
        status, head, data = self.call(path, body, kind, **headers)
        frames = []
        while status == 200 and data:
            kind, length = struct.unpack(">BI", data[:5])
            frames.append((kind, data[5:5 + length]))
            data = data[5 + length:]
        return status, frames

    START = b'{"process":{"cmd":"/bin/sh","args":["-c","echo hi"]},"stdin":false}'

    def test_unary(self):
        status, headers, body = self.call("/filesystem.Filesystem/Stat", b'{"path":"/etc/passwd"}')
        self.assertEqual((status, headers["content-type"]), (200, "application/json"))
        entry = json.loads(body)["entry"]
        self.assertEqual((entry["name"], entry["type"], type(entry["size"])), ("passwd", "FILE_TYPE_FILE", str))
        status, headers, body = self.call("/filesystem.Filesystem/Stat", b'{"path":"/none"}')
        self.assertEqual((status, json.loads(body)["code"]), (404, "not_found"))

    def test_binary(self):
        status, headers, body = self.call("/filesystem.Filesystem/Stat", b"\x0a\x0b/etc/passwd", "application/proto")
        self.assertEqual((status, headers["content-type"]), (200, "application/proto"))
        self.assertIn(b"passwd", body)
        status, frames = self.stream("/process.Process/Start", b"\x0a\x09\x0a\x07/bin/ls", kind="application/connect+proto")
        self.assertEqual((status, frames[-1]), (200, (2, b"{}")))

    def test_stream(self):
        status, frames = self.stream("/process.Process/Start", self.START)
        self.assertEqual(status, 200)
        self.assertEqual(frames[-1], (2, b"{}"))
        events = [json.loads(data)["event"] for kind, data in frames[:-1]]
        self.assertIn("start", events[0])
        self.assertEqual(events[1]["data"]["stdout"], "aGkK")
        self.assertEqual(events[-1]["end"]["exited"], True)

    def test_compressed(self):
        packed = gzip.compress(self.START)
        status, frames = self.stream("/process.Process/Start", packed, flags=1, Connect_Content_Encoding="gzip")
        self.assertEqual((status, frames[-1]), (200, (2, b"{}")))
        self.assertEqual(self.call("/filesystem.Filesystem/Stat", gzip.compress(b'{"path":"/etc"}'), Content_Encoding="gzip")[0], 200)
        status, frames = self.stream("/process.Process/Start", packed, flags=1)
        self.assertIn(b"invalid_argument", frames[-1][1])
        status, frames = self.stream("/process.Process/Start", packed, flags=1, Connect_Content_Encoding="br")
        self.assertIn(b"unimplemented", frames[-1][1])
        bomb = gzip.compress(b" " * (20 << 20))
        status, frames = self.stream("/process.Process/Start", bomb, flags=1, Connect_Content_Encoding="gzip")
        self.assertIn(b"resource_exhausted", frames[-1][1])

    def test_refused(self):
        self.assertEqual(self.call("/filesystem.Filesystem/Stat", b"{}", "text/plain")[0], 415)
        self.assertEqual(self.call("/filesystem.Filesystem/Stat", b"{}", "application/connect+json")[0], 415)
        self.assertEqual(self.call("/process.Process/Start", b"{}", "application/json")[0], 415)
        self.assertEqual(self.call("/filesystem.Filesystem/None", b"{}")[0], 404)
        self.assertEqual(ask("GET", "/filesystem.Filesystem/Stat")[0], 405)
        for body in (b"", b"[]", b"{", b'{"path":5}', b"\xff"):
            status, _, answer = self.call("/filesystem.Filesystem/Stat", body)
            self.assertEqual((status, json.loads(answer)["code"]), (400, "invalid_argument"), body)
        self.assertEqual(self.call("/filesystem.Filesystem/Stat", b"{}", Connect_Protocol_Version="2")[0], 400)
        self.assertEqual(self.call("/filesystem.Filesystem/Stat", b"{}", Connect_Timeout_Ms="soon")[0], 400)

    def test_odd_envelopes(self):
        for name, body in (("nothing", b""), ("half a head", b"\0\0"), ("half a message", b"\0\0\0\0\x09{"), ("two messages", b"\0\0\0\0\2{}" * 2),
                           ("unknown flags", b"\x80\0\0\0\2{}"), ("4 GB", b"\0\xff\xff\xff\xff")):
            with self.subTest(name):
                status, _, answer = self.call("/process.Process/Start", body, "application/connect+json")
                self.assertEqual(status, 200)
                self.assertIn(b'"error"', answer)

    def test_deadline(self):
        began = time.monotonic()
        _, frames = self.stream("/process.Process/Start", b'{"process":{"cmd":"sleep","args":["20"]}}', Connect_Timeout_Ms="700")
        self.assertLess(time.monotonic() - began, 8)
        self.assertIn(b"deadline_exceeded", frames[-1][1])

    def test_keepalive(self):
        _, frames = self.stream("/process.Process/Start", b'{"process":{"cmd":"sleep","args":["2.5"]}}', Keepalive_Ping_Interval="1")
        alive = [data for kind, data in frames if b"keepalive" in data]
        self.assertEqual(len(alive), 2, frames)

    def test_no_token(self):
        status, _, body = ingress.ask("POST", "/filesystem.Filesystem/Stat", b'{"path":"/etc"}',
                                      {"E2b-Sandbox-Id": sandbox, "E2b-Sandbox-Port": "49983", "Content-Type": "application/json"})
        self.assertEqual((status, json.loads(body)["code"]), (401, "unauthenticated"))


if __name__ == "__main__":
    tap.main()
