"""HTTP/2 towards browsers and SDKs: the same requests, as strict and as bounded as those of HTTP/1.1. A part of test_preview.py, which has
the world that they need."""
import base64
import fcntl
import hashlib
import json
import os
import struct
import subprocess
import sys
import termios
import time
import unittest

from h2client import (BEGIN, CALM, CONTINUATION, DATA, END_HEADERS, END_STREAM, H2, HEADERS, NO_ERROR, PING, PRIORITY, PROTOCOL, RST, SETTINGS, WINDOW, answered,
                      frame, frames, goaway, literal, read, resets)
from ingress import DOMAIN
from preview import Visitor
from paddock import CLI, wait_until


def use(a_world):
    global world, client, key
    world, client = a_world, a_world.client
    key = subprocess.run([CLI, "key", "create", "h2"], env=dict(os.environ, PADDOCK_ADDR=f"unix:{world.instance.run}/admin.sock"),
                         capture_output=True, text=True, check=True).stdout.strip()


def block(*extra, method=b"GET", scheme=b"https", path=b"/healthz", authority=DOMAIN.encode()):
    pseudo = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]
    return b"".join(literal(n, v) for n, v in [*pseudo, *extra] if v is not None)


def request(stream, *extra, body=None, **changed):
    head = frame(HEADERS, END_HEADERS | (END_STREAM if body is None else 0), stream, block(*extra, **changed))
    return head if body is None else head + frame(DATA, END_STREAM, stream, body)


def talk(*pieces, wait=5.0, until=None, tls=True):
    """Say it, and read -> (what came, True if the connection was closed). `until` ends the reading early."""
    with world.ingress.connect(tls, ["h2", "http/1.1"] if tls else None) as s:
        try:
            for piece in pieces:
                s.sendall(piece)
        except OSError:
            pass
        return read(s, wait, until)


def status_of(data, stream=1):
    """By HPACK, of a fresh connection."""
    import hpack
    decoder = hpack.Decoder()
    for kind, _, at, payload in frames(data):
        if kind == HEADERS:
            fields = dict(decoder.decode(payload))
            if at == stream:
                return int(fields[":status"])
    return 0


class H2Visitor(Visitor):
    """A visitor by HTTP/2; `ask` and `told` are as ever, each on a connection of its own."""

    def __init__(self, visitor):
        self.__dict__.update(visitor.__dict__)

    def open(self, **options):
        return H2(world.ingress, self.name, **options)

    def fields(self, *fields):
        pairs = [tuple(part.strip() for part in field.split(":", 1)) for field in fields]
        return [("cookie", self.cookie)] * bool(self.cookie) + [(name.lower(), value) for name, value in pairs]

    def ask(self, method, target, *fields, body=b"", cookie=True):
        with self.open() as c:
            answer = c.ask(method, target, *(self.fields(*fields) if cookie else []), host=self.host, body=body or None)
            return answer.status, dict(answer.headers), bytes(answer.body)


def visitor(**fields):
    return H2Visitor(Visitor(world, world.grant(**fields), tls=True)).enter()


class H2Heads(unittest.TestCase):
    """V12, V13: what HTTP/1.1 would refuse is refused, and no application sees it."""

    def test_good_twins(self):
        for name, piece, status in [
                ("plain", request(1), 200), ("HEAD", request(1, method=b"HEAD"), 200), ("a body", request(1, body=b"x"), 200),
                ("a length that fits", request(1, (b"content-length", b"1"), body=b"x"), 200), ("te: trailers", request(1, (b"te", b"trailers")), 200),
                ("the same host twice", request(1, (b"host", DOMAIN.upper().encode())), 200), ("host alone", request(1, (b"host", DOMAIN.encode()), authority=None), 200),
                ("trailers", frame(HEADERS, END_HEADERS, 1, block()) + frame(DATA, 0, 1, b"x") + frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"y")), 200),
                ("control plane", request(1, path=b"/sandboxes"), 401)]:
            with self.subTest(name):
                data, closed = talk(BEGIN, piece, until=answered(1))
                self.assertEqual((status_of(data), closed), (status, False), list(frames(data)))

    def test_bad_requests(self):
        """400 or a reset of the stream; the connection goes on."""
        for name, piece, status in [
                ("no path", request(1, path=None), 0), ("an empty path", request(1, path=b""), 0), ("no method", request(1, method=None), 0),
                ("no scheme", request(1, scheme=None), 0), ("another scheme", request(1, scheme=b"http"), 400), ("no host", request(1, authority=None), 0),
                ("two hosts", request(1, (b"host", b"other.test")), 400), ("a space in the path", request(1, path=b"/healthz HTTP/1.1"), 0),
                ("a relative path", request(1, path=b"healthz"), 0), ("an absolute path", request(1, path=b"https://x/"), 0),
                ("a fragment", request(1, path=b"/healthz#x"), 400), ("8 bit in the path", request(1, path=b"/\xff"), 400), ("a star", request(1, path=b"*"), 0),
                ("a lower-case method", request(1, method=b"get"), 400), ("a method with a space", request(1, method=b"GET /x"), 0),
                ("CONNECT", request(1, method=b"CONNECT", path=None, scheme=None), 0), ("a space in the host", request(1, authority=b"a b"), 0),
                ("upper case in a name", request(1, (b"X-Y", b"z")), 0), ("a colon in a name", request(1, (b"x:y", b"z")), 0), ("a space in a name", request(1, (b"x y", b"z")), 0),
                ("a control byte in a value", request(1, (b"x", b"a\x01b")), 0), 
                ("keep-alive", request(1, (b"keep-alive", b"1")), 0), ("proxy-connection", request(1, (b"proxy-connection", b"x")), 0),
                ("two lengths", request(1, (b"content-length", b"1"), (b"content-length", b"1"), body=b"x"), 0),
                ("a signed length", request(1, (b"content-length", b"+1"), body=b"x"), 0), ("a list of lengths", request(1, (b"content-length", b"1, 1"), body=b"x"), 0),
                ("a length without a body", request(1, (b"content-length", b"5")), 0), ("another expectation", request(1, (b"expect", b"the-worst")), 417),
                ("a long path", request(1, path=b"/" + b"a" * 9000), 414)]:
            with self.subTest(name):
                data, closed = talk(BEGIN, piece, request(3), until=answered(3))
                self.assertFalse(closed)
                self.assertIsNone(goaway(data))
                self.assertTrue(answered(3)(data))
                self.assertEqual(status_of(data, 3), 200)
                if status:
                    self.assertEqual(status_of(data), status)
                else:
                    self.assertTrue(status_of(data) == 400 or resets(data).get(1) == PROTOCOL, list(frames(data)))

    def test_bad_connections(self):
        """What the guard takes for an attack ends all."""
        for name, piece in {
                "connection": request(1, (b"connection", b"close")), "transfer-encoding": request(1, (b"transfer-encoding", b"chunked"), body=b"0\r\n\r\n"),
                "upgrade": request(1, (b"upgrade", b"h2c")), "an empty name": request(1, (b"", b"z")), "te: x": request(1, (b"te", b"x")), "a line end in a value": request(1, (b"x", b"a\r\nHost: b")),
                "a NUL in a value": request(1, (b"x", b"a\0b")), "a line end in a name": request(1, (b"a\r\nb", b"x")), "a line end in the path": request(1, path=b"/ HTTP/1.1\r\nX: y"),
                "a pseudo-header twice": request(1, (b":path", b"/x")), "one behind the others": request(1, (b"x", b"y"), (b":path", b"/x"), path=None),
                "one of its own": request(1, (b":protocol", b"websocket"), method=b"CONNECT"), "data behind the end": request(1) + frame(DATA, 0, 1, b"x"),
                "an interrupted block": frame(HEADERS, 0, 1, block()) + frame(PING, 0, 0, b"12345678"), "cut HPACK": frame(HEADERS, END_HEADERS, 1, block()[:-3]),
                "an even stream": frame(HEADERS, END_HEADERS, 2, block())}.items():
            with self.subTest(name):
                data, closed = talk(BEGIN, piece, request(3))
                self.assertTrue(closed)
                self.assertIn(goaway(data), (PROTOCOL, 9))

    def test_lengths_of_bodies(self):
        """The downgrade: an application gets as many bytes as were announced to it, or a connection that is cut."""
        v = visitor()
        fields = [(b"cookie", v.cookie.encode()), (b"content-length", b"5")]
        host = {"authority": v.host.encode(), "path": b"/sum", "method": b"POST"}

        def with_body(body):
            with world.ingress.connect(True, ["h2"], name=v.name) as s:
                s.sendall(BEGIN + request(1, *fields, body=body, **host))
                data = b""
                while not answered(1)(data):
                    data += s.recv(1 << 16)
                return data
        self.assertEqual(status_of(with_body(b"hello")), 200)
        for body in (b"hell", b"hello, GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"):
            data = with_body(body)
            self.assertEqual((status_of(data), resets(data)), (0, {1: PROTOCOL}))
        self.assertEqual(v.told("GET", "/after")[0], "GET /after HTTP/1.1")

    def test_too_large(self):
        for name, extra in {"one field": [(b"x", b"a" * 16000)] * 2 + [(b"y", b"a" * 2000)], "many": [(b"x", b"y")] * 150}.items():
            with self.subTest(name):
                whole = block(*extra)
                pieces = [whole[i:i + 16000] for i in range(0, len(whole), 16000)]
                data, _ = talk(BEGIN, frame(HEADERS, END_STREAM | (END_HEADERS if len(pieces) == 1 else 0), 1, pieces[0]) + b"".join(
                    frame(CONTINUATION, END_HEADERS if n == len(pieces) - 2 else 0, 1, p) for n, p in enumerate(pieces[1:])), request(3), until=answered(3))
                self.assertEqual(status_of(data), 431)
                self.assertTrue(answered(3)(data))
        fits = block((b"x", b"a" * 15000))
        self.assertEqual(status_of(talk(BEGIN, frame(HEADERS, END_STREAM | END_HEADERS, 1, fits), until=answered(1))[0]), 200)

    def test_hosts(self):
        """A connection is for the host that it was made for; browsers try again."""
        with H2(world.ingress, DOMAIN) as c:
            self.assertEqual(c.ask("GET", "/healthz", host=f"{DOMAIN}:{world.ingress.tls_port}").status, 200)
            self.assertEqual(c.ask("GET", "/healthz", host=f"api.{DOMAIN}").status, 421)
            self.assertEqual(c.ask("GET", "/healthz", host=f"{DOMAIN}.evil.test").status, 421)
        with H2(world.ingress, f"api.{DOMAIN}") as c:
            self.assertEqual(c.ask("GET", "/healthz").status, 200)


class H2Protocols(unittest.TestCase):
    """Who gets a connection is said by its first request."""

    def test_before_the_first_request(self):
        """SETTINGS are acknowledged and pings answered, though nobody serves the connection yet; once only, also when somebody does."""
        for path, scheme, extra in ((b"/healthz", b"https", []), (b"/paddock.v1.Sandboxes/List", b"https", [(b"content-type", b"application/grpc"), (b"te", b"trailers"),
                                                                                                    (b"authorization", b"Bearer " + key.encode())])):
            with world.ingress.connect(True, ["h2"]) as s:
                s.sendall(BEGIN + frame(PING, 0, 0, b"in front"))
                data = b""
                while not any(kind == PING for kind, *_ in frames(data)):
                    data += s.recv(65536)
                self.assertEqual([(kind, flags) for kind, flags, *_ in frames(data)], [(SETTINGS, 0), (SETTINGS, 1), (PING, 1)])
                s.sendall(frame(SETTINGS, 1) + request(1, *extra, method=b"POST", path=path, scheme=scheme, body=b"\0\0\0\0\0") + frame(PING, 0, 0, b"behind  "))
                while not answered(1)(data) or sum(kind == PING and flags for kind, flags, *_ in frames(data)) < 2:
                    piece = s.recv(65536)
                    self.assertTrue(piece, list(frames(data)))
                    data += piece
                self.assertEqual(status_of(data), 200)
                seen = list(frames(data))
                self.assertEqual([payload for kind, flags, _, payload in seen if kind == PING and flags], [b"in front", b"behind  "])
                self.assertEqual(sum(kind == SETTINGS and flags == 1 for kind, flags, *_ in seen), 1)
                # What is announced: no CONNECT for websockets, so that browsers open them by HTTP/1.1.
                ids = [payload[i:i + 2] for kind, _, _, payload in seen if kind == SETTINGS for i in range(0, len(payload), 6)]
                self.assertIn(b"\0\3", ids)
                self.assertNotIn(b"\0\x08", ids)

    def test_what_is_grpc(self):
        def server(content_type, authority=DOMAIN, name=DOMAIN):
            """gRPC's own answer has a content-type of its own, and status 200."""
            with world.ingress.connect(True, ["h2", "http/1.1"], name=name) as s:
                s.sendall(BEGIN + request(1, (b"content-type", content_type), (b"te", b"trailers"), method=b"POST", path=b"/paddock.v1.Sandboxes/List",
                                          authority=authority.encode(), body=b"\0\0\0\0\0"))
                data = b""
                while not answered(1)(data):
                    data += s.recv(65536)
                return status_of(data)
        for content_type in (b"application/grpc", b"application/grpc+proto", b"application/grpc;x=y"):
            self.assertEqual(server(content_type), 200, content_type)
        for content_type in (b"application/grpc-web", b"application/grpcx", b"text/plain"):
            self.assertEqual(server(content_type), 415, content_type)
        preview = world.grant()
        self.assertEqual(server(b"application/grpc", preview.host, preview.host), 404)

    def test_without_tls(self):
        data, _ = talk(BEGIN, request(1, scheme=b"http"), until=answered(1), tls=False)
        self.assertEqual(status_of(data), 200)

    def test_curl(self):
        port = world.ingress.tls_port
        out = subprocess.run(["curl", "-s", "--http2", "--cacert", world.ingress.ca, "--resolve", f"{DOMAIN}:{port}:127.0.0.1", "-w", " %{http_version} %{http_code}",
                              "-d", "x=y", f"https://{DOMAIN}:{port}/nothing"], capture_output=True, text=True).stdout
        self.assertTrue(out.endswith(" 2 404"), out)


class H2Floods(unittest.TestCase):
    """G09, G10 for this path: the guard's rules are the same."""

    def assert_cut(self, *pieces, error=CALM):
        before = world.ingress.rss()
        data, closed = talk(BEGIN, *pieces)
        self.assertTrue(closed)
        if goaway(data) is not None:
            self.assertEqual(goaway(data), error)
        self.assertLess(world.ingress.rss() - before, 32 << 20)
        self.assertEqual(world.ingress.ask("GET", "/healthz", tls=True)[0], 200)

    def test_rapid_reset(self):
        self.assert_cut(b"".join(request(i) + frame(RST, 0, i, struct.pack(">I", 8)) for i in range(1, 40001, 2)))

    def test_reset_of_unfinished(self):
        self.assert_cut(b"".join(frame(HEADERS, END_HEADERS, i, block(method=b"POST")) + frame(RST, 0, i, b"\0\0\0\x08") for i in range(1, 40001, 2)))

    def test_resets_that_we_are_made_to_send(self):
        self.assert_cut(b"".join(frame(HEADERS, END_HEADERS, i, block(method=b"POST", path=b"/sandboxes")) + frame(WINDOW, 0, i, b"\0\0\0\0") for i in range(1, 40001, 2)))

    def test_too_many_streams(self):
        self.assert_cut(b"".join(frame(HEADERS, END_HEADERS, i, block((b"x-api-key", b"k"), method=b"POST", path=b"/sandboxes")) for i in range(1, 2001, 2)))

    def test_small_frames(self):
        for name, piece in {"ping": frame(PING, 0, 0, b"12345678"), "settings": frame(SETTINGS), "priority": frame(PRIORITY, 0, 1, b"\0\0\0\0\1"), "unknown": frame(77, 0, 0, b"x"),
                            "window": frame(WINDOW, 0, 0, b"\0\0\0\1"), "empty data": frame(DATA, 0, 1)}.items():
            with self.subTest(name):
                self.assert_cut(frame(HEADERS, END_HEADERS, 1, block((b"x-api-key", b"k"), method=b"POST", path=b"/sandboxes")), piece * 60000)
        with self.subTest("pings before any request"):
            self.assert_cut(frame(PING, 0, 0, b"12345678") * 60000)

    def test_header_bombs(self):
        self.assert_cut(frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, 0, 1, literal(b"x", b"a" * 10000)) * 1000)
        self.assert_cut(frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, 0, 1) * 100000)
        self.assert_cut(frame(HEADERS, END_HEADERS, 1, block() + b"\x40" + literal(b"x", b"a" * 3900)[1:] + b"\xbe" * 9000))

    def test_answers_that_nobody_reads(self):
        """100 streams at a window of zero: what waits for them is bounded."""
        v = visitor()
        with v.open(initial_window_size=0) as c:
            before = world.ingress.rss()
            for _ in range(100):
                c.begin("GET", "/big?n=10000000", *v.fields(), host=v.host)
            self.assertTrue(c.until(lambda: all(a.status for a in c.answers.values())))
            time.sleep(0.5)
            self.assertLess(world.ingress.rss() - before, 24 << 20)


class H2Previews(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.visitor = visitor()

    def test_what_the_application_sees(self):
        line, fields, body = self.visitor.told("POST", "/a/b?c=d", "X-Own: 1", "Cookie: a=1", "Cookie: b=2", "X-Forwarded-For: 6.6.6.6", "TE: trailers", body=b"hello")
        self.assertEqual((line, body), ("POST /a/b?c=d HTTP/1.1", b"hello"))
        self.assertEqual(fields["host"], self.visitor.host)
        self.assertEqual((fields["cookie"], fields["x-own"], fields["x-forwarded-proto"], fields["x-forwarded-for"]), ("a=1; b=2", "1", "https", "127.0.0.1"))
        self.assertEqual(fields.get("transfer-encoding"), "chunked")
        self.assertFalse([name for name in fields if name.startswith(":") or name in ("te", "connection")])
        line, fields, _ = self.visitor.told("POST", "/empty")
        self.assertEqual((fields["content-length"], fields.get("transfer-encoding")), ("0", None))
        _, fields, body = self.visitor.told("PUT", "/x", "Content-Length: 3", body=b"abc")
        self.assertEqual((fields["content-length"], body), ("3", b"abc"))

    def test_without_the_cookie(self):
        self.assertEqual(self.visitor.ask("GET", "/", cookie=False)[0], 404)
        self.assertEqual(self.visitor.ask("GET", "/", "Origin: https://evil.example")[0], 403)

    def test_answers(self):
        for raw, status, body in (("HTTP/1.1 204 No Content\r\n\r\n", 204, b""), ("HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", 304, b""),
                                  ("HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nX-Y: z\r\n\r\nto the end", 200, b"to the end"),
                                  ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"), ("HTTP/2 200 OK\r\n\r\n", 502, None)):
            got, headers, text = self.visitor.ask("GET", "/raw?bytes=" + base64.urlsafe_b64encode(raw.encode()).decode())
            self.assertEqual(got, status, raw)
            self.assertFalse({"connection", "keep-alive", "transfer-encoding", "x-hop"} & set(headers), headers)
            if body is not None:
                self.assertEqual(text, body)
        status, headers, body = self.visitor.ask("HEAD", "/page")
        self.assertEqual((status, body), (200, b""))

    def test_a_body_that_is_cut(self):
        for raw in ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"):
            with self.visitor.open() as c:
                target = "/raw?bytes=" + base64.urlsafe_b64encode(raw.encode()).decode()
                answer = c.ask("GET", target, *self.visitor.fields(), host=self.visitor.host)
                self.assertEqual((answer.status, answer.ended, answer.reset), (200, False, 2))
                self.assertEqual(c.ask("GET", "/page", *self.visitor.fields(), host=self.visitor.host).status, 200)

    def test_many_at_once(self):
        with self.visitor.open() as c:
            streams = [c.begin("GET", f"/{n}", *self.visitor.fields(), host=self.visitor.host) for n in range(100)]
            for n, stream in enumerate(streams):
                answer = c.finish(stream)
                self.assertTrue(json.loads(answer.body)["head"].startswith(f"GET /{n} HTTP/1.1"))

    def test_large_bodies_both_ways(self):
        with self.visitor.open(initial_window_size=1 << 20) as c:
            for size, fields in ((10 << 20, [f"Content-Length: {10 << 20}"]), (1 << 20, [])):
                data = os.urandom(size)
                answer = c.ask("POST", "/sum", *self.visitor.fields(*fields), host=self.visitor.host, body=data, wait=30)
                self.assertEqual(json.loads(answer.body), {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()})
            answer = c.ask("GET", f"/big?n={20 << 20}", *self.visitor.fields(), host=self.visitor.host, wait=30)
            self.assertEqual((len(answer.body), answer.ended), (20 << 20, True))

    def test_an_answer_before_the_body(self):
        with self.visitor.open() as c:
            stream = c.begin("POST", "/early", *self.visitor.fields("Content-Length: 10000000"), host=self.visitor.host, end=False)
            c.until(lambda: c.answers[stream].over)
            self.assertEqual((c.answers[stream].status, bytes(c.answers[stream].body)), (413, b"no"))
            # Who goes on all the same is told after a while that it is not wanted.
            c.until(lambda: c.answers[stream].reset is not None, 6)
            self.assertEqual(c.answers[stream].reset, NO_ERROR)
            self.assertEqual(c.ask("GET", "/page", *self.visitor.fields(), host=self.visitor.host).status, 200)

    def test_back_pressure_of_a_download(self):
        """One stream is not read: it costs little, and its neighbours on the connection nothing."""
        with self.visitor.open(reads=False, initial_window_size=1 << 16) as c:
            c.h2.increment_flow_control_window(1 << 24)
            before = world.ingress.rss()
            stalled = c.begin("GET", f"/big?n={200 << 20}", *self.visitor.fields(), host=self.visitor.host)
            c.until(lambda: len(c.answers[stalled].body) >= 60000)
            time.sleep(0.3)
            self.assertLess(world.ingress.rss() - before, 8 << 20)
            for _ in range(5):
                answer = c.ask("GET", "/page", *self.visitor.fields(), host=self.visitor.host)
                self.assertTrue(answer.ended)
            self.assertLess(len(c.answers[stalled].body), 1 << 20)
            # And it goes on when it is read.
            for _ in range(20):
                c.take(stalled)
                c.pump(1)
            self.assertGreater(len(c.answers[stalled].body), 150000)

    def test_back_pressure_of_an_upload(self):
        script = ("import socket,time\ns=socket.create_server(('127.0.0.1',9311))\nc=[]\nwhile True:\n c.append(s.accept()[0])\n")
        client.run(world.box, "python3", "-c", script, detach=True)
        wait_until(lambda: 9311 in {p.port for p in client.Previews.ListPorts(sandbox_id=world.box).ports}, 10, "it listens")
        v = visitor(port=9311)
        with v.open() as c:
            before = world.ingress.rss()
            stream = c.begin("POST", "/", *v.fields(), host=v.host, end=False)
            sent = c.send(stream, bytes(100 << 20), wait=3)
            self.assertLess(sent, 32 << 20)
            self.assertLess(world.ingress.rss() - before, 8 << 20)
            self.assertEqual(c.ask("GET", "/", host=v.host).status, 404)

    def test_events_and_their_end(self):
        v = visitor()
        with v.open() as c:
            stream = c.begin("GET", "/events", *v.fields(), host=v.host)
            other = c.begin("GET", "/events", *v.fields(), host=v.host)
            began = time.monotonic()
            self.assertTrue(c.until(lambda: b"data: 4\n" in c.answers[stream].body and b"data: 4\n" in c.answers[other].body))
            self.assertLess(time.monotonic() - began, 5)
            client.Previews.Revoke(preview_id=v.preview.id)
            c.until(lambda: c.answers[stream].over and c.answers[other].over, 3)
            self.assertEqual((c.answers[stream].reset, c.answers[stream].ended), (2, False))
            self.assertEqual(c.ask("GET", "/", *v.fields(), host=v.host).status, 410)

    def test_a_cut_while_nothing_is_read(self):
        """A frame waits for room when its stream is given up: what it was made of must be there until it is sent."""
        def waiting():
            return int.from_bytes(fcntl.ioctl(c.socket, termios.FIONREAD, bytes(4)), sys.byteorder)

        v = visitor()
        with v.open(initial_window_size=1 << 30) as c:
            c.h2.increment_flow_control_window(1 << 30)
            stream = c.begin("GET", f"/big?n={200 << 20}", *v.fields(), host=v.host)
            wait_until(lambda: waiting() > 65536, 10)
            seen = [0, 1]
            while seen[-1] != seen[-2]:  # all on the way is full
                time.sleep(0.5)
                seen.append(waiting())
            client.Previews.Revoke(preview_id=v.preview.id)
            wait_until(lambda: v.ask("GET", "/page")[0] == 410, 10)
            answer = c.finish(stream, 60)
            self.assertEqual((answer.status, answer.reset, answer.ended), (200, 2, False))
            self.assertLess(len(answer.body), 100 << 20)
            self.assertEqual(c.ask("GET", "/page", *v.fields(), host=v.host).status, 410)

    def test_a_client_that_goes_away(self):
        """A reset of one stream closes its connection into the sandbox; the end of a connection closes all."""
        with self.visitor.open() as c:
            stream = c.begin("GET", "/events", *self.visitor.fields(), host=self.visitor.host)
            c.until(lambda: b"data: 1\n" in c.answers[stream].body)
            c.h2.reset_stream(stream, 8)
            c.flush()
            self.assertEqual(c.ask("GET", "/page", *self.visitor.fields(), host=self.visitor.host).status, 200)
            for _ in range(10):
                c.begin("GET", "/silent", *self.visitor.fields(), host=self.visitor.host)
        self.assertEqual(self.visitor.ask("GET", "/page")[0], 200)


class H2Gateway(unittest.TestCase):
    """What SDKs do. The SDKs themselves use HTTP/2 in tests/sdk-gateway over TLS."""

    def test_connect_rest_and_files(self):
        with H2(world.ingress, DOMAIN) as c:
            auth, as_json = ("authorization", "Bearer " + key), ("content-type", "application/json")
            answer = c.ask("POST", "/sandboxes", ("x-api-key", key), as_json, body=b'{"templateID":"base","timeout":60}')
            self.assertEqual(answer.status, 201, answer.body)
            box = json.loads(answer.body)["sandboxID"]
            got = c.ask("POST", "/paddock.v1.Sandboxes/Get", auth, as_json, body=json.dumps({"sandboxId": box}).encode())
            self.assertEqual((got.status, json.loads(got.body)["id"]), (200, box))
            route = [("e2b-sandbox-id", box), ("e2b-sandbox-port", "49983"), ("x-access-token", json.loads(answer.body)["envdAccessToken"])]
            data = os.urandom(3 << 20)
            upload = c.ask("POST", "/files?path=/tmp/x", *route, ("content-type", "application/octet-stream"), body=data)
            self.assertEqual(upload.status, 200, upload.body)
            self.assertEqual(bytes(c.ask("GET", "/files?path=/tmp/x", *route).body), data)
            # A file that ends is waited for, while the window fills with the next one.
            parts = b"".join(b'--sep\r\nContent-Disposition: form-data; name="file"; filename="/tmp/part%d"\r\n\r\n' % i + data[:1 << 20] + b"\r\n" for i in range(4))
            upload = c.ask("POST", "/files", *route, ("content-type", "multipart/form-data; boundary=sep"), body=parts + b"--sep--\r\n")
            self.assertEqual(upload.status, 200, upload.body)
            self.assertEqual(bytes(c.ask("GET", "/files?path=/tmp/part3", *route).body), data[:1 << 20])
            message = json.dumps({"process": {"cmd": "/bin/sh", "args": ["-c", "echo out; sleep 0.1; echo more"]}}).encode()
            stream = c.ask("POST", "/process.Process/Start", *route, ("content-type", "application/connect+json"), ("connect-protocol-version", "1"),
                           body=b"\0" + len(message).to_bytes(4, "big") + message)
            self.assertEqual((stream.status, stream.ended), (200, True), stream.body)
            self.assertIn(base64.b64encode(b"more\n"), bytes(stream.body))
            self.assertEqual(c.ask("DELETE", f"/sandboxes/{box}", ("x-api-key", key)).status, 204)

    def test_expect(self):
        with H2(world.ingress, DOMAIN) as c:
            stream = c.begin("POST", "/sandboxes", ("x-api-key", "k"), ("expect", "100-continue"), end=False)
            self.assertTrue(c.until(lambda: stream in c.continued))
            c.send(stream, b"{}", end=True)
            self.assertEqual(c.finish(stream).status, 400)
