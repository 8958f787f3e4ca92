#!/usr/bin/python3
"""The gRPC guard (G09-G12): a real client works through it, and every flood is cut before paddockd feels it."""
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
import grpc
from h2client import (BEGIN, CALM, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY, PROTOCOL, PUSH, RST, SETTINGS, WINDOW, answered,
                      frame, frames, goaway, literal, read)
from ingress import DOMAIN, Ingress, make_certificate
import host
import tap
from paddock import CLI, Client, Instance, code_of

def setUpModule():
    global instance, ingress, key
    instance = Instance(template="mini")
    instance.__enter__()
    key = make_key()
    ingress = Ingress(run=instance.run)
    ingress.__enter__()


def make_key():
    return subprocess.run([CLI, "key", "create", "guard"], env=dict(os.environ, PADDOCK_ADDR=f"unix:{instance.run}/admin.sock"),
                          capture_output=True, text=True, check=True).stdout.strip()


def tearDownModule():
    ingress.__exit__()
    instance.__exit__()


def block(*extra, method=b"POST", scheme=b"http", path=b"/paddock.v1.Sandboxes/List"):
    return b"".join(literal(n, v) for n, v in [
        (b":method", method), (b":scheme", scheme), (b":path", path), (b":authority", b"a"), (b"te", b"trailers"),
        (b"content-type", b"application/grpc"), (b"authorization", b"Bearer " + key.encode()), *extra])


def call(stream, *extra, **changed):
    """A whole List call."""
    return frame(HEADERS, END_HEADERS, stream, block(*extra, **changed)) + frame(DATA, END_STREAM, stream, b"\0\0\0\0\0")


class Guard(unittest.TestCase):
    def talk(self, *pieces, tls=False, wait=5.0, until=None):
        """What is sent over TLS has to be short: one thread at a time may use such a socket, so it is read afterwards."""
        with ingress.connect(tls, ["h2"] if tls else None) as s:
            reader = []
            thread = threading.Thread(target=lambda: reader.append(read(s, wait, until)))
            if not tls:
                thread.start()
            try:
                for piece in pieces:
                    s.sendall(piece)
            except OSError:
                pass
            if tls:
                thread.start()
            thread.join()
            return reader[0]

    def assert_cut(self, *pieces, error=None):
        data, closed = self.talk(*pieces)
        self.assertTrue(closed)
        said = goaway(data)
        if error is not None and said is not None:
            self.assertEqual(said, error)
        self.assertTrue(ingress.alive())
        return data

    def client(self):
        with open(ingress.ca, "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        return Client(f"127.0.0.1:{ingress.tls_port}", key, credentials, [("grpc.ssl_target_name_override", DOMAIN)])

    # The positive twins

    def test_grpc_over_tls(self):
        client = self.client()
        sandbox = client.create(template="base").id
        self.assertEqual(client.run(sandbox, "echo hello").out, b"hello\n")
        data = os.urandom(5 << 20)
        client.write(sandbox, "file", data)
        self.assertEqual(client.read(sandbox, "file"), data)
        self.assertEqual(client.run(sandbox, "/bin/sh", "-c", "exit 3").code, 3)
        client.Sandboxes.Kill(sandbox_id=sandbox)
        self.assertEqual(code_of(lambda: client.Sandboxes.Get(sandbox_id="i" + "a" * 20))[0], "NOT_FOUND")
        client.close()

    def test_client_certificates(self):
        """G18: with tls_client_ca nobody gets as far as a request without a certificate of that CA; with one, both protocols work."""
        with tempfile.TemporaryDirectory() as folder:
            _, strange, strange_key = make_certificate(folder, "strange", "client.test")
            _, good, good_key = make_certificate(ingress.dir, "client", "client.test")
            expired = good.replace("client.pem", "expired.pem")
            subprocess.run(["openssl", "x509", "-req", "-in", f"{ingress.dir}/client.csr", "-CA", ingress.ca, "-CAkey", f"{ingress.dir}/ca.key", "-CAcreateserial",
                            "-days", "-1", "-out", expired], check=True, capture_output=True)
            strangers = [(None, None), (strange, strange_key), (expired, good_key)]
            with Ingress(run=instance.run, tls_client_ca=ingress.ca) as mutual:
                for certificate, secret in [*strangers, (good, good_key)]:
                    ours = certificate == good
                    chain = [open(path, "rb").read() if path else None for path in (mutual.ca, secret, certificate)]
                    caller = Client(f"127.0.0.1:{mutual.tls_port}", key, grpc.ssl_channel_credentials(*chain), [("grpc.ssl_target_name_override", DOMAIN)])
                    self.assertEqual(code_of(lambda: caller.Sandboxes.List())[0] if not ours else caller.Sandboxes.List() and "OK", "OK" if ours else "UNAVAILABLE")
                    caller.close()
                    context = ssl.create_default_context(cafile=mutual.ca)
                    if certificate:
                        context.load_cert_chain(certificate, secret)
                    said = b""
                    try:
                        with context.wrap_socket(socket.create_connection(("127.0.0.1", mutual.tls_port), 10), server_hostname=DOMAIN) as s:
                            s.sendall(f"GET /healthz HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode())
                            said = s.recv(1000)
                    except OSError:
                        pass
                    self.assertEqual(said.startswith(b"HTTP/1.1 200 "), ours, certificate)

    def test_many_calls_on_one_connection(self):
        """More at once than the limit: the client is told of it, and queues."""
        client = self.client()
        waiting = [client.Sandboxes.List(later=True) for _ in range(1000)]
        for future in waiting:
            future.result()
        client.close()

    def test_cancels(self):
        """An honest client that gives up hundreds of calls is left alone."""
        client = self.client()
        client.Sandboxes.List()
        for _ in range(300):
            client.Sandboxes.List(later=True).cancel()
        client.Sandboxes.List()
        client.close()

    def test_without_a_key(self):
        client = self.client()
        client.key = None
        self.assertEqual(code_of(lambda: client.Sandboxes.List())[0], "UNAUTHENTICATED")
        client.close()

    def test_raw_call(self):
        """What the attacks below are made of is a valid call by itself, over TLS and plain; the settings that come are ours."""
        for tls in (False, True):
            data, closed = self.talk(BEGIN, call(1), tls=tls, until=answered(1))
            seen = list(frames(data))
            self.assertTrue(any(kind == DATA and stream == 1 for kind, _, stream, _ in seen), seen)
            self.assertFalse(closed)
            settings = next(payload for kind, flags, _, payload in seen if kind == SETTINGS and not flags)
            values = {int.from_bytes(settings[i:i + 2], "big"): int.from_bytes(settings[i + 2:i + 6], "big") for i in range(0, len(settings), 6)}
            self.assertEqual(values.get(3), 100)
            self.assertEqual(values.get(6), 16384)

    # G10

    def rss(self):
        return host.rss(instance.paddockd.pid)

    def test_rapid_reset(self):
        before = self.rss()
        piece = b"".join(call(i) + frame(RST, 0, i, struct.pack(">I", 8)) for i in range(1, 20001, 2))
        began = time.monotonic()
        self.assert_cut(BEGIN, piece, error=CALM)
        self.assertLess(time.monotonic() - began, 5)
        self.assertLess(self.rss() - before, 32 << 20)

    def test_headers_then_reset_only(self):
        before = self.rss()
        piece = b"".join(frame(HEADERS, END_HEADERS, i, block()) + frame(RST, 0, i, b"\0\0\0\x08") for i in range(1, 200001, 2))
        self.assert_cut(BEGIN, piece, error=CALM)
        self.assertLess(self.rss() - before, 32 << 20)

    def test_too_many_streams(self):
        self.assert_cut(BEGIN, b"".join(frame(HEADERS, END_HEADERS, i, block()) for i in range(1, 2001, 2)), error=CALM)

    def test_floods(self):
        for name, piece in {
                "ping": frame(PING, 0, 0, b"12345678"), "settings": frame(SETTINGS), "priority": frame(PRIORITY, 0, 1, b"\0\0\0\0\1"),
                "unknown": frame(77, 0, 0, b"x"), "window": frame(WINDOW, 0, 0, b"\0\0\0\1"),
                "empty data": frame(DATA, 0, 1)}.items():
            with self.subTest(name):
                self.assert_cut(BEGIN, frame(HEADERS, END_HEADERS, 1, block()), piece * 100000, error=CALM)

    def test_few_are_no_flood(self):
        # The server itself has a low opinion of pings without calls.
        pieces = [frame(PING, 0, 0, b"12345678") * 2, frame(SETTINGS, 0) * 5, frame(PRIORITY, 0, 1, b"\0\0\0\0\1") * 20]
        data, closed = self.talk(BEGIN, *pieces, call(1), until=answered(1))
        self.assertFalse(closed)
        self.assertIsNone(goaway(data))
        self.assertTrue(any(kind == DATA and stream == 1 for kind, _, stream, _ in frames(data)))

    # G09

    def test_header_bombs(self):
        for name, piece in {
                "one of 18 KB": frame(HEADERS, 0, 1, block((b"x", b"a" * 10000))) + frame(CONTINUATION, END_HEADERS, 1, literal(b"y", b"a" * 8000)),
                "10 MB in continuations": frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, 0, 1, literal(b"x", b"a" * 10000)) * 1000,
                "endless empty continuations": frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, 0, 1) * 100000,
                "10,000 headers": frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, END_HEADERS, 1, literal(b"x", b"y") * 1000),
                # The table is filled with one entry of 4,000 bytes, and a byte names it again and again.
                "a bomb of one byte each": frame(HEADERS, END_HEADERS, 1, block() + b"\x40" + literal(b"x", b"a" * 3900)[1:] + b"\xbe" * 9000)}.items():
            with self.subTest(name):
                before = self.rss()
                self.assert_cut(BEGIN, piece, error=CALM)
                self.assertLess(self.rss() - before, 1 << 20)

    def test_headers_that_fit(self):
        data, closed = self.talk(BEGIN, call(1, (b"x-long", b"a" * 3000)), until=answered(1))
        self.assertFalse(closed)
        self.assertTrue(any(stream == 1 for _, _, stream, _ in frames(data)))

    def test_malformed(self):
        head = frame(HEADERS, END_HEADERS, 1, block())
        for name, piece in {
                "te: x": call(1, (b"te", b"x")), "a scheme of its own": call(1, scheme=b"ftp"), "a method of its own": call(1, method=b"GRAB"),
                "a pseudo-header twice": call(1, (b":path", b"/x")), "an unknown pseudo-header": call(1, (b":x", b"y")),
                "connection": call(1, (b"connection", b"close")), "a line end in a value": call(1, (b"x", b"a\r\nb")),
                "damaged HPACK": frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), "cut HPACK": frame(HEADERS, END_HEADERS, 1, block()[:-3]),
                "an interrupted block": frame(HEADERS, 0, 1, block()) + frame(PING, 0, 0, b"12345678"),
                "a continuation of nothing": frame(CONTINUATION, END_HEADERS, 1, block()),
                "an even stream": frame(HEADERS, END_HEADERS, 2, block()), "stream 0": frame(HEADERS, END_HEADERS, 0, block()),
                "data for no stream": frame(DATA, 0, 5, b"x"), "a reset of no stream": frame(RST, 0, 4, b"\0\0\0\0"),
                "a reset of the wrong size": head + frame(RST, 0, 1, b"\0"), "a ping of the wrong size": frame(PING, 0, 0, b"1"),
                "settings of the wrong size": frame(SETTINGS, 0, 0, b"1"), "a window of the wrong size": frame(WINDOW, 0, 0, b"1"),
                "a frame that is too large": frame(DATA, 0, 1, b"x" * 16385), "a push": frame(PUSH, END_HEADERS, 1, block()),
                "padding beyond the frame": frame(HEADERS, END_HEADERS | 8, 1, b"\xff" + block()[:100]),
                "data behind the end": call(1) + frame(DATA, 0, 1, b"x")}.items():
            with self.subTest(name):
                self.assert_cut(BEGIN, piece)

    def test_no_settings(self):
        self.assert_cut(PREFACE + frame(PING, 0, 0, b"12345678"), error=PROTOCOL)

    # G11

    def test_preface_only_is_cut(self):
        began = time.monotonic()
        _, closed = self.talk(PREFACE, wait=13.0)
        self.assertTrue(closed)
        self.assertLess(time.monotonic() - began, 12.5)

    def test_half_a_block_is_cut(self):
        began = time.monotonic()
        _, closed = self.talk(BEGIN, frame(HEADERS, END_HEADERS, 1, block())[:-1], wait=13.0)
        self.assertTrue(closed)
        self.assertLess(time.monotonic() - began, 12.5)

    def test_neighbour_is_not_slowed(self):
        """While a thousand connections are silent and one floods, another client's calls stay within a bound."""
        client = self.client()
        client.Sandboxes.List()

        def median():
            times = []
            for _ in range(50):
                began = time.monotonic()
                client.Sandboxes.List()
                times.append(time.monotonic() - began)
            return sorted(times)[25]
        quiet = median()
        silent = [ingress.connect() for _ in range(1000)]
        loud = threading.Thread(target=self.assert_cut, args=(BEGIN, call(1), frame(PING, 0, 0, b"12345678") * 100000))
        loud.start()
        during = median()
        loud.join()
        for s in silent:
            s.close()
        client.close()
        print(f"# median of List: {quiet * 1000:.2f} ms alone, {during * 1000:.2f} ms among the silent and the loud", file=sys.stderr)
        self.assertLess(during, max(4 * quiet, 0.02))


if __name__ == "__main__":
    tap.main()
