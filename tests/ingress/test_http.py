#!/usr/bin/python3
"""HTTP from outside, byte by byte: what is refused, what is bounded, TLS. No paddockd is behind it: a request that gets through to
the control plane is answered with 401."""
import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import ssl
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from ingress import DOMAIN, Ingress, make_certificate, parse, read_until_end
import tap
from paddock import wait_until


def setUpModule():
    global ingress
    ingress = Ingress(max_per_address=900)
    ingress.__enter__()


def tearDownModule():
    ingress.__exit__()


def status(answer):
    return parse(answer)[0] if answer else 0


GOOD = f"GET /healthz HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode()


def request(*lines, body=b""):
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Framing(unittest.TestCase):
    """V12, V13: every odd framing is 400 and a close, and what was smuggled behind it is never answered."""

    BAD = {
        "length and coding": ["POST /x HTTP/1.1", "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked"],
        "coding and length": ["POST /x HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content-Length: 5"],
        "two lengths": ["POST /x HTTP/1.1", "Host: a", "Content-Length: 5", "Content-Length: 6"],
        "two equal lengths": ["POST /x HTTP/1.1", "Host: a", "Content-Length: 5", "Content-Length: 5"],
        "a list of lengths": ["POST /x HTTP/1.1", "Host: a", "Content-Length: 5, 5"],
        "a signed length": ["POST /x HTTP/1.1", "Host: a", "Content-Length: +5"],
        "a negative length": ["POST /x HTTP/1.1", "Host: a", "Content-Length: -5"],
        "a hexadecimal length": ["POST /x HTTP/1.1", "Host: a", "Content-Length: 0x5"],
        "a length beyond 64 bits": ["POST /x HTTP/1.1", "Host: a", "Content-Length: 99999999999999999999"],
        "an empty length": ["POST /x HTTP/1.1", "Host: a", "Content-Length:"],
        "chunked twice": ["POST /x HTTP/1.1", "Host: a", "Transfer-Encoding: chunked, chunked"],
        "identity": ["POST /x HTTP/1.1", "Host: a", "Transfer-Encoding: identity"],
        "gzip, chunked": ["POST /x HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"],
        "xchunked": ["POST /x HTTP/1.1", "Host: a", "Transfer-Encoding: xchunked"],
        "two codings": ["POST /x HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        "a coding with a vertical tab": ["POST /x HTTP/1.1", "Host: a", "Transfer-Encoding: \x0bchunked"],
        "coded HTTP/1.0": ["POST /x HTTP/1.0", "Host: a", "Transfer-Encoding: chunked"],
        "a space before the colon": ["POST /x HTTP/1.1", "Host: a", "Content-Length : 5"],
        "a folded line": ["GET /x HTTP/1.1", "Host: a", "X: a", " b"],
        "a folded first line": ["GET /x HTTP/1.1", " X: a", "Host: a"],
        "no host": ["GET /x HTTP/1.1"],
        "two hosts": ["GET /x HTTP/1.1", "Host: a", "Host: b"],
        "a NUL in a value": ["GET /x HTTP/1.1", "Host: a", "X: a\0b"],
        "a NUL in the path": ["GET /x\0 HTTP/1.1", "Host: a"],
        "a bare CR in a value": ["GET /x HTTP/1.1", "Host: a", "X: a\rb"],
        "a bare LF between lines": ["GET /x HTTP/1.1\nHost: a", "X: y"],
        "an absolute target": ["GET http://b/x HTTP/1.1", "Host: a"],
        "an authority as target": ["CONNECT b:1 HTTP/1.1", "Host: a"],
        "two spaces": ["GET  /x HTTP/1.1", "Host: a"],
        "a tab for a space": ["GET\t/x HTTP/1.1", "Host: a"],
        "a lower-case method": ["get /x HTTP/1.1", "Host: a"],
        "a lower-case version": ["GET /x http/1.1", "Host: a"],
        "no version": ["GET /x", "Host: a"],
        "a fragment": ["GET /x#y HTTP/1.1", "Host: a"],
        "8 bit in the path": ["GET /\xff HTTP/1.1", "Host: a"],
        "a line without a colon": ["GET /x HTTP/1.1", "Host: a", "X"],
        "a name with a space": ["GET /x HTTP/1.1", "Host: a", "X Y: z"],
        "an empty name": ["GET /x HTTP/1.1", "Host: a", ": z"],
    }

    def test_bad_heads(self):
        for name, lines in self.BAD.items():
            with self.subTest(name):
                answer, closed = ingress.raw(request(*lines, body=b"0\r\n\r\n" + GOOD))
                self.assertEqual((status(answer), closed), (400, True), answer[:100])
                self.assertEqual(answer.count(b"HTTP/1.1"), 1, "something behind it was answered")

    def test_good_twins(self):
        for name, lines, wanted in [
                ("no body", ["GET /healthz HTTP/1.1", f"Host: {DOMAIN}"], 200),
                ("any case", ["GET /healthz HTTP/1.1", f"hOsT: {DOMAIN}", "X:a\tb"], 200),
                ("HTTP/1.0", ["GET /healthz HTTP/1.0"], 200),
                ("control plane", ["GET /sandboxes HTTP/1.1", "Host: a"], 401)]:
            with self.subTest(name):
                self.assertEqual(parse(ingress.raw(request(*lines), wait=1.0)[0])[0], wanted)

    def chunked(self, body, pieces=None):
        head = request("POST /paddock.v1.Sandboxes/Get HTTP/1.1", "Host: a", "Content-Type: application/json", "Transfer-Encoding: chunked")
        return ingress.raw(head + body + GOOD, wait=3.0) if pieces is None else ingress.raw(head, *pieces, GOOD, pause=0.02, wait=3.0)

    def test_bad_chunks(self):
        for name, body in {
                "no size": b"\r\n{}\r\n0\r\n\r\n", "an extension": b"2;a=b\r\n{}\r\n0\r\n\r\n", "a trailer": b"2\r\n{}\r\n0\r\nX: y\r\n\r\n",
                "a bare LF": b"2\n{}\n0\n\n", "a bare LF behind the data": b"2\r\n{}\n0\r\n\r\n", "a signed size": b"+2\r\n{}\r\n0\r\n\r\n",
                "0x": b"0x2\r\n{}\r\n0\r\n\r\n", "a space": b"2 \r\n{}\r\n0\r\n\r\n", "a huge size": b"ffffffffffffffff\r\n{}\r\n0\r\n\r\n",
                "a size that is too small": b"1\r\n{}\r\n0\r\n\r\n", "a size that is not hexadecimal": b"g\r\n{}\r\n0\r\n\r\n"}.items():
            with self.subTest(name):
                answer, closed = self.chunked(body)
                self.assertEqual((status(answer), closed), (400, True), answer[:200])
                self.assertEqual(answer.count(b"HTTP/1.1"), 1)

    def test_good_chunks(self):
        """Twice: in one piece, and byte by byte. 503: the call went through to where paddockd would be."""
        body = b"1\r\n{\r\n01\r\n}\r\n0\r\n\r\n"
        for pieces in (None, [bytes([b]) for b in body]):
            answer, _ = self.chunked(body, pieces)
            self.assertEqual(answer.count(b"HTTP/1.1"), 2, answer)
            self.assertEqual(status(answer), 503)

    def test_pipelined(self):
        answer, _ = ingress.raw(GOOD * 50, wait=1.0)
        self.assertEqual(answer.count(b"HTTP/1.1 200"), 50)

    def test_in_single_bytes(self):
        answer, _ = ingress.raw(*[bytes([b]) for b in GOOD], pause=0.001, wait=1.0)
        self.assertEqual(status(answer), 200)

    def test_expect(self):
        head = request("POST /sandboxes HTTP/1.1", "Host: a", "X-API-KEY: k", "Content-Length: 2", "Expect: 100-continue")
        with ingress.connect() as s:
            s.sendall(head)
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 100 "))
            s.sendall(b"{}")
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 400 "))
        answer, _ = ingress.raw(request("POST /x HTTP/1.1", "Host: a", "Content-Length: 2", "Expect: the-worst"))
        self.assertEqual(status(answer), 417)


class Hosts(unittest.TestCase):
    """V02, V11: a port label is a plain decimal number; what is malformed below our domain is refused."""

    ID = "i" + "a" * 20

    def ask(self, host):
        return ingress.ask("GET", "/health", host=host)[0]

    def test_malformed_ports(self):
        for label in ("02280", "+2280", "0", "65536", "67816", "99999999999999999999", "0x8e8", "-1", "2280_"):
            with self.subTest(label):
                self.assertIn(self.ask(f"{label}-{self.ID}.{DOMAIN}"), (400, 404))

    def test_malformed_hosts(self):
        for host in (f"a.b.{DOMAIN}", f"80-{self.ID[:-1]}.{DOMAIN}", f"80-{self.ID}x.{DOMAIN}", "a/b", "a b", f"{DOMAIN}:0", f"{DOMAIN}:99999"):
            with self.subTest(host):
                self.assertEqual(self.ask(host), 400)

    def test_one_name_many_spellings(self):
        """A sandbox port is routed as such however the name is written: not to the control plane, whose /health is 200."""
        for host in (f"3000-{self.ID}.{DOMAIN}", f"3000-{self.ID}.{DOMAIN.upper()}", f"3000-{self.ID}.{DOMAIN}.", f"3000-{self.ID}-x.{DOMAIN}:8443"):
            with self.subTest(host):
                self.assertEqual(self.ask(host), 503)
        for host in (DOMAIN, f"api.{DOMAIN}", "127.0.0.1", "[::1]:80", "localhost:7413", f"{DOMAIN}.evil.test", f"evil{DOMAIN}"):
            with self.subTest(host):
                self.assertEqual(self.ask(host), 200)

    def test_headers_route(self):
        def ask(**headers):
            return ingress.ask("GET", "/health", headers={k.replace("_", "-"): v for k, v in headers.items()})[0]
        self.assertEqual(ask(E2b_Sandbox_Id=self.ID, E2b_Sandbox_Port="3000"), 503)
        self.assertEqual(ask(Novita_Sandbox_Id=self.ID, Novita_Sandbox_Port="3000"), 503)
        self.assertEqual(ask(E2b_Sandbox_Id="nonsense", E2b_Sandbox_Port="3000"), 502)
        self.assertEqual(ask(E2b_Sandbox_Id=self.ID), 400)
        self.assertEqual(ask(E2b_Sandbox_Port="3000"), 400)
        self.assertEqual(ask(E2b_Sandbox_Id=self.ID, E2b_Sandbox_Port="03000"), 400)
        self.assertEqual(ask(), 200)


class Bounds(unittest.TestCase):
    """V16, V17: sizes and times."""

    def test_head_size(self):
        fill = "X: " + "a" * 1000
        self.assertEqual(status(ingress.raw(request("GET /healthz HTTP/1.1", "Host: a", *[fill] * 30), wait=1.0)[0]), 200)
        self.assertEqual(status(ingress.raw(request("GET /healthz HTTP/1.1", "Host: a", *[fill] * 40))[0]), 431)
        self.assertEqual(status(ingress.raw(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 200000)[0]), 431)
        self.assertEqual(status(ingress.raw(request("GET /healthz HTTP/1.1", "Host: a", *["X: y"] * 200))[0]), 431)
        self.assertEqual(status(ingress.raw(request("GET /" + "a" * 9000 + " HTTP/1.1", "Host: a"))[0]), 414)

    def test_body_size(self):
        """Refused while it comes: the client need not send all of it."""
        for head in (["Content-Length: 3000000"], ["Transfer-Encoding: chunked"]):
            body = b"a" * 3000000 if "Length" in head[0] else b"2dc6c0\r\n" + b"a" * 3000000
            answer, closed = ingress.raw(request("POST /sandboxes HTTP/1.1", "Host: a", "X-API-KEY: k", *head) + body)
            self.assertEqual((status(answer), closed), (413, True))

    def test_more_than_there_are_descriptors_for(self):
        """The bound is what half of the descriptors allow; beyond it a connection is closed, not left waiting."""
        with Ingress(files=264, max_connections=1000) as small, contextlib.ExitStack() as stack:
            self.assertIn('"allowed":"100"', open(small.log).read())
            silent = [stack.enter_context(small.connect()) for _ in range(100)]
            for _ in range(20):
                with small.connect(timeout=5) as s:
                    with contextlib.suppress(ConnectionResetError):
                        self.assertEqual(s.recv(1), b"")
            for s in silent:
                s.sendall(request("GET /healthz HTTP/1.1", "Host: a"))
                self.assertEqual(status(s.recv(4096)), 200)
            silent.pop().close()
            wait_until(lambda: small.ask("GET", "/healthz")[0] == 200, 5, "there is room again")
        with Ingress(files=264, max_connections=100) as small:
            self.assertNotIn("allowed", open(small.log).read())

    def test_slow_head_is_cut(self):
        began = time.monotonic()
        with ingress.connect() as s:
            s.sendall(b"GET /healthz HTTP/1.1\r\n")
            for _ in range(40):
                try:
                    s.sendall(b"X: y\r\n")
                except OSError:
                    break
                time.sleep(0.5)
                if time.monotonic() - began > 14:
                    break
            answer, closed = read_until_end(s, 1.0)
        self.assertTrue(closed)
        self.assertLess(time.monotonic() - began, 14)

    def test_silent_connections(self):
        """G11, O05: hundreds of connections that say nothing hold nobody up, and the cap for one address holds."""
        silent = []
        try:
            for _ in range(1100):
                silent.append(ingress.connect())
            time.sleep(0.5)
            cut = 0
            for s in silent:
                s.setblocking(False)
                try:
                    cut += s.recv(1) == b""
                except BlockingIOError:
                    pass
                except OSError:
                    cut += 1
            self.assertGreaterEqual(cut, 150)
            self.assertLessEqual(cut, 250)
        finally:
            for s in silent:
                s.close()
        wait_until(lambda: ingress.answers(), 5)

    def test_half_handshakes_are_cut(self):
        with socket.create_connection(("127.0.0.1", ingress.tls_port)) as s:
            s.sendall(b"\x16\x03\x01\x02\x00\x01")
            began = time.monotonic()
            _, closed = read_until_end(s, 13)
            self.assertTrue(closed)
            self.assertLess(time.monotonic() - began, 12)

    def test_many_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda _: ingress.ask("GET", "/healthz")[0], range(1000)))
        self.assertEqual(answers, [200] * 1000)

    def test_idle_memory(self):
        before = ingress.rss()
        held = [ingress.connect() for _ in range(500)]
        for s in held:
            s.sendall(GOOD)
        for s in held:
            s.recv(1000)
        grown = (ingress.rss() - before) / len(held)
        print(f"# {grown / 1024:.1f} KiB for each idle connection", file=sys.stderr)
        for s in held:
            s.close()
        self.assertLess(grown, 20 << 10)


class Tls(unittest.TestCase):
    """V26, G18"""

    def test_answers(self):
        self.assertEqual(ingress.ask("GET", "/healthz", tls=True)[0], 200)

    def versions(self, low, high):
        context = ssl.create_default_context(cafile=ingress.ca)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = low, high
        with socket.create_connection(("127.0.0.1", ingress.tls_port), 10) as plain, \
                context.wrap_socket(plain, server_hostname=DOMAIN) as s:
            return s.version()

    def test_versions(self):
        self.assertEqual(self.versions(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), "TLSv1.2")
        self.assertEqual(self.versions(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3), "TLSv1.3")
        with self.assertRaises(OSError):
            self.versions(ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1)

    def test_alpn(self):
        for offered, chosen in ((["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "h2"), (["h2"], "h2"), (None, None)):
            with ingress.connect(True, offered) as s:
                self.assertEqual(s.selected_alpn_protocol(), chosen)
        with self.assertRaises(ssl.SSLError):
            ingress.connect(True, ["spdy/3"])

    def subject(self, name, check=True):
        context = ssl.create_default_context(cafile=ingress.ca)
        context.check_hostname = check
        with socket.create_connection(("127.0.0.1", ingress.tls_port), 10) as plain, context.wrap_socket(plain, server_hostname=name) as s:
            return [value for kind, value in s.getpeercert()["subjectAltName"]]

    def test_names(self):
        self.assertIn("*." + DOMAIN, self.subject("anything." + DOMAIN))
        self.assertEqual(self.subject("other.test"), ["other.test"])
        self.assertIn(DOMAIN, self.subject("unknown.test", check=False))

    def test_plain_on_the_tls_port(self):
        with socket.create_connection(("127.0.0.1", ingress.tls_port), 10) as s:
            s.sendall(GOOD)
            answer, closed = read_until_end(s, 5)
            self.assertTrue(closed)
            self.assertNotIn(b"HTTP/1.1 200", answer)

    def test_reload(self):
        """A new certificate counts for new connections; an open one goes on; a bad file changes nothing."""
        with ingress.connect(True) as old:
            saved = {path: open(path, "rb").read() for path in (ingress.certificate, ingress.key)}
            make_certificate(ingress.dir, "main", DOMAIN, "*." + DOMAIN, "fresh.test")
            os.chown(ingress.key, 65534, -1)
            ingress.process.send_signal(signal.SIGHUP)
            self.assertTrue(wait_until(lambda: "fresh.test" in self.subject(DOMAIN), 5))
            with open(ingress.certificate, "w") as f:
                f.write("nonsense")
            ingress.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "tls.failed" in open(ingress.log).read(), 5)
            self.assertIn("fresh.test", self.subject(DOMAIN))
            old.sendall(GOOD)
            self.assertTrue(old.recv(100).startswith(b"HTTP/1.1 200"))
        for path, content in saved.items():
            with open(path, "wb") as f:
                f.write(content)


class Surface(unittest.TestCase):
    def test_errors_have_an_integer_code(self):
        for path, wanted in (("/sandboxes", 401), ("/nothing", 404)):
            code, headers, body = ingress.ask("GET", path)
            self.assertEqual(code, wanted)
            self.assertIn(b'"code":%d' % wanted, body)
            self.assertEqual(headers["content-type"], "application/json")
            self.assertNotIn("server", headers)
        self.assertEqual(ingress.ask("PATCH", "/sandboxes", headers={"X-API-KEY": "k"})[0], 405)

    def test_cors(self):
        code, headers, _ = ingress.ask("OPTIONS", "/sandboxes", headers={"Origin": "https://x", "Access-Control-Request-Method": "POST"})
        self.assertEqual(code, 204)
        self.assertEqual(headers["access-control-allow-origin"], "*")
        self.assertNotIn("access-control-allow-credentials", headers)

    def test_no_server_behind(self):
        code, _, body = ingress.ask("GET", "/sandboxes", headers={"X-API-KEY": "k"})
        self.assertEqual(code, 503)

    def test_head_has_no_body(self):
        answer, _ = ingress.raw(b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n" + GOOD, wait=1.0)
        self.assertEqual(answer.count(b"HTTP/1.1 200"), 2)
        self.assertEqual(answer.count(b"ok\n"), 1)


class Map(unittest.TestCase):
    """README.md's map, from ids of the security catalogue to tests, cannot rot."""

    def test_map(self):
        tests = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
        with open(os.path.join(tests, "ingress/README.md")) as f:
            rows = dict(re.findall(r"^\| ([VG]\d\d) \|(.*)\|$", f.read(), re.M))
        self.assertEqual(sorted(rows), [f"G{n:02}" for n in range(1, 23)] + [f"V{n:02}" for n in range(1, 28)])
        for id, row in rows.items():
            names = re.findall(r"`([^`]+)`", row)
            self.assertTrue(names or "not tested" in row or "there are none" in row, id)
            for name in names:
                file, _, test = name.rpartition(": ") if ": " in name else (file, "", name)
                with open(os.path.join(tests, file)) as f:
                    self.assertRegex(f.read(), rf"(?m)^\s*(?:def|int|static void) {test}\(", f"{id}: {name}")


if __name__ == "__main__":
    tap.main()
