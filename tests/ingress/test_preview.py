#!/usr/bin/python3
"""Previews from outside: what a visitor gets and what the application sees, with sockets that say anything (security tests V)."""
import base64
import hashlib
import json
import os
import re
import socket
import struct
import sys
import tempfile
import time
import types
import unittest

sys.path.insert(0, os.path.dirname(__file__))
import h2_cases
from ingress import Ingress
from paddock import BUILD, enum
from preview import PORT, Visitor, World, frame, frame_of, parse, read_until_end, receive, wait_until
import tap


# As if they were written here: unittest makes a world for each module.
for case in (h2_cases.H2Heads, h2_cases.H2Protocols, h2_cases.H2Floods, h2_cases.H2Previews, h2_cases.H2Gateway):
    case.__module__ = __name__
    globals()[case.__name__] = case


def setUpModule():
    global world, client
    world = World()
    world.__enter__()
    client = world.client
    h2_cases.use(world)


def tearDownModule():
    world.__exit__()


def page(answer):
    status, headers, body = answer
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer", headers
    assert "default-src 'none'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff", headers
    assert "server" not in headers
    return status, body.decode()


class Entering(unittest.TestCase):
    def test_the_token_becomes_a_cookie_and_leaves_the_address(self):
        for tls in (False, True):
            with self.subTest(tls=tls):
                visitor = world.visitor(tls=tls)
                status, headers, body = visitor.ask("GET", f"/a//b?x=%20&paddock_token={visitor.token}&y=2")
                self.assertEqual((status, body), (303, b""))
                self.assertEqual(headers["location"], visitor.origin + "/a//b?x=%20&y=2")
                self.assertEqual((headers["referrer-policy"], headers["cache-control"]), ("no-referrer", "no-store"))
                name = "__Host-paddock-preview" if tls else "paddock-preview"
                self.assertRegex(headers["set-cookie"], f"^{name}=[0-9a-f]{{96}}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if tls else ''}$")
                self.assertNotIn(visitor.token, str(headers))
                visitor.enter()
                self.assertEqual(visitor.told("GET", "/")[0], "GET / HTTP/1.1")

    def test_a_path_of_another_host_stays_ours(self):
        """V15: "//evil" in a Location would be another host."""
        visitor = world.visitor()
        for path in ("//evil.example/x", "///evil.example", "/\\evil.example", "/..;/x", "/%2e%2e/"):
            location = visitor.ask("GET", f"{path}?paddock_token={visitor.token}")[1]["location"]
            self.assertEqual(location, visitor.origin + path)

    def test_wrong_tokens_are_all_the_same(self):
        """V04, V25: every bit, lengths, case, another grant's; and a name that nobody has."""
        visitor, other = world.visitor(), world.visitor()
        good = bytes.fromhex(visitor.token)
        wrong = [(good[:i // 8] + bytes([good[i // 8] ^ 1 << i % 8]) + good[i // 8 + 1:]).hex() for i in range(256)]
        wrong += [visitor.token[:-1], visitor.token + "0", visitor.token.upper(), "", "0" * 64, other.token, visitor.token + "%00",
                  "%61" + visitor.token[1:], visitor.token + "&paddock_token=" + visitor.token, base64.b64encode(good).decode()]
        answers = {visitor.ask("GET", "/?paddock_token=" + token)[::2] for token in wrong}
        nobody = Visitor(world, visitor.preview)
        nobody.host = f"p{'a' * 26}.{world.domain}:{world.ingress.port}"
        answers.add(nobody.ask("GET", "/?paddock_token=" + visitor.token)[::2])
        answers.add(nobody.ask("GET", "/")[::2])
        answers.add(visitor.ask("GET", "/")[::2])
        self.assertEqual(len(answers), 1, answers)
        self.assertEqual(answers.pop()[0], 404)
        visitor.enter()  # the right one still works

    def test_wrong_cookies(self):
        visitor, other = world.visitor().enter(), world.visitor().enter()
        name, value = visitor.cookie.split("=")
        self.assertEqual(visitor.ask("GET", "/")[0], 200)
        for cookie in (f"{name}={value[:-1]}{'0' if value[-1] != '0' else '1'}", f"{name}={'0' if value[0] != '0' else '1'}{value[1:]}",
                       f"{name}={value[:-1]}", f"{name}={value}0", f"{name}={value.upper()}", f"{name}=", other.cookie, f"{name}={visitor.token}",
                       f"{visitor.cookie}; {visitor.cookie}", f"{visitor.cookie}; {name}=x", f"__Host-{name}={value}", f"x{name}={value}"):
            self.assertEqual(visitor.ask("GET", "/", cookie=cookie)[0], 404, cookie)
        self.assertEqual(visitor.ask("GET", "/", cookie=f"a=b; {visitor.cookie};c=d")[0], 200)

    def test_only_a_look_enters(self):
        visitor = world.visitor()
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            self.assertEqual(visitor.ask(method, "/?paddock_token=" + visitor.token)[0], 404)
        self.assertEqual(visitor.ask("HEAD", "/?paddock_token=" + visitor.token)[0], 303)

    def test_one_visitor(self):
        first, second = (Visitor(world, preview) for preview in [world.grant(one_visitor=True)] * 2)
        first.enter()
        status, text = page(second.ask("GET", "/?paddock_token=" + second.token))
        self.assertEqual(status, 403)
        self.assertIn("used already", text)
        self.assertEqual(first.ask("GET", "/")[0], 200)
        # Whoever came first may open the link again.
        again = first.ask("GET", "/?paddock_token=" + first.token)
        self.assertEqual(again[0], 303)
        self.assertNotIn("set-cookie", again[1])
        self.assertEqual(first.ask("GET", "/")[0], 200)

    def test_survives_a_restart_but_not_a_revocation(self):
        """V05: cookies and tokens hold over a restart, and are void from the moment of a revocation, also after one."""
        kept, gone = world.visitor().enter(), world.visitor().enter()
        box = client.create(timeout_ms=60_000).id
        client.write(box, "/tmp/app.py", client.read(world.box, "/tmp/app.py"))
        world.serve(PORT, box=box)
        busy = world.visitor(box=box, counts_as_activity=True).enter()
        self.assertEqual(gone.ask("GET", "/")[0], 200)
        client.Previews.Revoke(preview_id=gone.preview.id)
        world.instance.stop_paddockd()
        status, text = page(kept.ask("GET", "/"))
        self.assertEqual(status, 503, text)
        world.instance.start_paddockd()
        wait_until(lambda: kept.ask("GET", "/")[0] == 200, 20, "the preview is back")
        self.assertEqual(gone.ask("GET", "/")[0], 410)
        self.assertEqual(gone.ask("GET", "/?paddock_token=" + gone.token)[0], 410)
        # What counts as activity starts the sandbox's own timeout again, not the usual one.
        before = client.Sandboxes.Get(sandbox_id=box).expires_unix_ms
        self.assertEqual(busy.ask("GET", "/")[0], 200)
        wait_until(lambda: client.Sandboxes.Get(sandbox_id=box).expires_unix_ms > before, 10, "a visit counts")
        self.assertLessEqual(client.Sandboxes.Get(sandbox_id=box).expires_unix_ms, time.time() * 1000 + 60_000)
        client.Sandboxes.Kill(sandbox_id=box)


class Ends(unittest.TestCase):
    def cut(self, end, **fields):
        """A websocket, a stream of events and a slow upload are cut within a second; what comes after is told why."""
        visitor = world.visitor(**fields).enter()
        s, head = visitor.upgrade()
        self.assertIn(b" 101 ", head)
        events = visitor.connect()
        events.sendall(visitor.lines("GET", "/events"))
        self.assertIn(b"data: 0", events.recv(4096) + events.recv(4096))
        upload = visitor.connect()
        upload.sendall(visitor.lines("POST", "/sum", "Content-Length: 1000000") + b"x")
        time.sleep(0.2)
        end(visitor)
        begun = time.monotonic()
        data, closed = read_until_end(events, 5)
        self.assertTrue(closed)
        self.assertNotIn(b"\r\n0\r\n\r\n", data, "it must not look whole")
        for each in (s, upload):
            self.assertTrue(read_until_end(each, 5)[1])
        self.assertLess(time.monotonic() - begun, 1)
        return visitor

    def test_revoked(self):
        visitor = self.cut(lambda visitor: client.Previews.Revoke(preview_id=visitor.preview.id))
        status, text = page(visitor.ask("GET", "/", "Accept: text/html"))
        self.assertEqual(status, 410)
        self.assertIn("was closed", text)

    def test_expired(self):
        def expire(visitor):
            client.Previews.Extend(preview_id=visitor.preview.id, ttl_ms=1000)
            time.sleep(1.1)
        visitor = self.cut(expire)
        status, text = page(visitor.ask("GET", "/"))
        self.assertEqual(status, 410)
        self.assertIn("expired", text)
        self.assertEqual(visitor.ask("GET", "/?paddock_token=" + visitor.token)[0], 410)

    def test_clock(self):
        """V03: a wall clock that is set back gives nobody more time, one that is set forward lets nobody in."""
        with tempfile.NamedTemporaryFile(dir=world.instance.dir) as offset:
            def set_clock(ms):
                offset.seek(0)
                offset.write(struct.pack("q", ms))
                offset.flush()
            set_clock(0)
            world.instance.stop_paddockd()
            world.instance.start_paddockd(env={"LD_PRELOAD": os.path.join(BUILD, "tests/ingress/clock.so"), "CLOCK_OFFSET": offset.name})
            try:
                wait_until(lambda: world.visitor().enter().ask("GET", "/")[0] == 200, 20, "previews are back")
                short, long = world.visitor(ttl_ms=3000).enter(), world.visitor(ttl_ms=3600_000).enter()
                self.assertEqual(short.ask("GET", "/")[0], 200)
                set_clock(-1800_000)
                self.assertLess(world.grant().created_unix_ms, time.time() * 1000 - 1700_000, "the clock is set")
                time.sleep(3.2)
                self.assertEqual(page(short.ask("GET", "/"))[0], 410)
                self.assertEqual(short.ask("GET", "/?paddock_token=" + short.token)[0], 410)
                self.assertEqual(long.ask("GET", "/")[0], 200)
                set_clock(0)
                self.assertEqual(short.ask("GET", "/")[0], 410)
                self.assertEqual(long.ask("GET", "/")[0], 200)
                set_clock(7200_000)
                late = world.visitor(long.preview)
                self.assertEqual(late.ask("GET", "/?paddock_token=" + late.token)[0], 410)
                set_clock(0)
                self.assertEqual(late.enter().ask("GET", "/")[0], 200, "it was not spent by that")
            finally:
                set_clock(0)
                world.instance.stop_paddockd()
                world.instance.start_paddockd()
        wait_until(lambda: long.ask("GET", "/")[0] == 200, 20, "the preview is back")
        self.assertEqual(short.ask("GET", "/")[0], 410)

    def test_a_revoked_or_expired_key_ends_what_it_opened(self):
        """G05, over HTTP: a stream that is open is ended with the reason, at once."""
        def stream(key):
            s = world.ingress.connect()
            body = b"\0\0\0\0\2{}"
            s.sendall(f"POST /paddock.v1.Sandboxes/WatchEvents HTTP/1.1\r\nHost: {world.domain}\r\nAuthorization: Bearer {key}\r\n"
                      f"Content-Type: application/connect+json\r\nConnect-Protocol-Version: 1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            return s
        revoked, expired = world.instance.with_key("visited"), world.instance.with_key("visited", ttl_ms=1500)
        streams, kept = [stream(revoked.key), stream(expired.key)], stream(client.key)
        time.sleep(0.3)
        client.Sandboxes.Kill(sandbox_id=client.create().id)  # an event for each of them
        for s in (*streams, kept):
            self.assertTrue(receive(s, 15).startswith(b"HTTP/1.1 200"))
        began = time.monotonic()
        world.instance.admin.Admin.RevokeKey(key_id=revoked.key_id)
        for s in streams:
            text, _ = read_until_end(s, 3)
            self.assertIn(b'"unauthenticated"', text)
        self.assertLess(time.monotonic() - began, 4)
        client.Sandboxes.Kill(sandbox_id=client.create().id)
        text, ended = read_until_end(kept, 1)
        self.assertFalse(ended)
        self.assertNotIn(b"unauthenticated", text)
        kept.close()

    def test_killed(self):
        box = client.create().id
        client.write(box, "/tmp/app.py", client.read(world.box, "/tmp/app.py"))
        world.serve(PORT, box=box)
        visitor = self.cut(lambda visitor: client.Sandboxes.Kill(sandbox_id=box), box=box)
        status, text = page(visitor.ask("GET", "/"))
        self.assertEqual(status, 410)
        self.assertIn("ended", text)

    def test_paused(self):
        box = client.create().id
        client.write(box, "/tmp/app.py", client.read(world.box, "/tmp/app.py"))
        world.serve(PORT, box=box)
        visitor = self.cut(lambda visitor: client.Sandboxes.Pause(sandbox_id=box), box=box)
        status, headers, _ = visitor.ask("GET", "/")
        self.assertEqual((status, headers["refresh"]), (503, "5"))
        client.Sandboxes.Resume(sandbox_id=box)
        self.assertEqual(visitor.ask("GET", "/")[0], 200)
        resuming = world.visitor(box=box, resumes=True).enter()
        client.Sandboxes.Pause(sandbox_id=box)
        self.assertEqual(visitor.ask("GET", "/")[0], 503)
        self.assertEqual(client.Sandboxes.Get(sandbox_id=box).state, enum("SANDBOX_STATE_PAUSED"))
        self.assertEqual(resuming.ask("GET", "/")[0], 200, "a visit that the grant lets resume it")
        self.assertEqual(client.Sandboxes.Get(sandbox_id=box).state, enum("SANDBOX_STATE_RUNNING"))
        client.Sandboxes.Kill(sandbox_id=box)

    def test_nothing_listens(self):
        visitor = world.visitor(port=9999).enter()
        status, headers, body = visitor.ask("GET", "/", "Accept: text/html")
        self.assertEqual((status, headers["refresh"]), (502, "2"))
        self.assertIn(b"port 9999", body)
        self.assertNotIn("refresh", visitor.ask("POST", "/")[1])
        world.serve(9999)
        self.assertEqual(visitor.ask("GET", "/")[0], 200)

    def test_takes_a_request_and_is_silent(self):
        """V20: answered in time, and so is whoever comes next; one that begins to answer is not meant."""
        with Ingress(run=world.instance.run, user="paddock", domain=world.domain, answer_timeout=2) as ingress:
            visitor = world.visitor().enter()
            visitor.world = types.SimpleNamespace(ingress=ingress)
            began = time.monotonic()
            status, text = page(visitor.ask("GET", "/silent", "Accept: text/html"))
            self.assertEqual(status, 504)
            self.assertIn("does not answer", text)
            self.assertTrue(1.9 < time.monotonic() - began < 6, time.monotonic() - began)
            self.assertEqual(visitor.ask("GET", "/")[0], 200)
            s, head = visitor.upgrade()
            self.assertIn(b" 101 ", head)
            time.sleep(4)
            s.sendall(frame(b"still here"))
            self.assertEqual(frame_of(s), b"still here")
            s.close()

    def test_where_it_listens(self):
        """V20: on ::1 alone, and on every address."""
        for port, address in ((9101, "::1"), (9102, "0.0.0.0"), (9103, "::")):
            world.serve(port, address)
            self.assertEqual(world.visitor(port=port).enter().ask("GET", "/")[0], 200, address)

    def test_activity(self):
        box = client.create(timeout_ms=60_000).id
        client.write(box, "/tmp/app.py", client.read(world.box, "/tmp/app.py"))
        world.serve(PORT, box=box)
        quiet, alive = world.visitor(box=box).enter(), world.visitor(box=box, counts_as_activity=True).enter()
        before = client.Sandboxes.Get(sandbox_id=box).expires_unix_ms
        self.assertEqual(quiet.ask("GET", "/")[0], 200)
        client.Sandboxes.SetIdleTimeout(sandbox_id=box, idle_timeout_ms=1000)
        time.sleep(3)
        self.assertEqual(client.Sandboxes.Get(sandbox_id=box).expires_unix_ms, before)
        self.assertEqual(alive.ask("GET", "/")[0], 200)
        wait_until(lambda: client.Sandboxes.Get(sandbox_id=box).expires_unix_ms > before + 2000, 10, "the timeout starts again")
        for preview in client.Previews.List(sandbox_id=box).previews:
            client.Previews.Revoke(preview_id=preview.id)
        wait_until(lambda: client.Sandboxes.Get(sandbox_id=box).end_reason == enum("END_REASON_IDLE"), 20, "idle without visits")


class Passing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.visitor = world.visitor().enter()

    def test_what_the_application_sees(self):
        line, fields, body = self.visitor.told("PATCH", "/a%2Fb/../c?q=%00&r=+", "X-Own: 1", "Cookie2: x", "Accept-Encoding: gzip", "User-Agent: me", body=b"data")
        self.assertEqual(line, "PATCH /a%2Fb/../c?q=%00&r=+ HTTP/1.1")
        self.assertEqual(fields, {"host": self.visitor.host, "x-own": "1", "cookie2": "x", "accept-encoding": "gzip", "user-agent": "me",
                                  "content-length": "4", "x-forwarded-for": "127.0.0.1", "x-forwarded-host": self.visitor.host,
                                  "x-forwarded-proto": "http"})
        self.assertEqual(body, b"data")

    def test_spoofed_and_hop_by_hop(self):
        """V14: what the visitor says of itself is dropped, what we say cannot be dropped."""
        _, fields, _ = self.visitor.told(
            "GET", "/", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil", "X_Forwarded_Proto: gopher", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6",
            "Via: 1.1 x", "X-Original-URL: /admin", "X-Rewrite-Url: /admin", "Keep-Alive: 1", "Proxy-Authorization: x", "TE: trailers", "Trailer: x",
            "Upgrade: h2c", "HTTP2-Settings: x", "X-Secret: 1", "Connection: x-secret, x-forwarded-for, host, keep-alive", "E2b-Sandbox-Id: x",
            "E2b-Traffic-Access-Token: x", "X-API-Key: x", "X-Access-Token: x")
        self.assertEqual(fields, {"host": self.visitor.host, "x-forwarded-for": "127.0.0.1", "x-forwarded-host": self.visitor.host,
                                  "x-forwarded-proto": "http"})

    def test_our_cookie_stays_ours(self):
        """V07, V08: the application sees its own cookies and never ours; it cannot set one of our name or for another host."""
        mine = self.visitor.cookie
        for sent, seen in ((f"{mine}; a=1", "a=1"), (f"a=1; {mine}; b=2", "a=1; b=2"), (f"a=1;b=2 ;{mine}", "a=1; b=2"), (mine, None),
                           (f"{mine}; __Host-paddock-preview=x; PADDOCK-PREVIEW=y; c=3", "c=3")):
            fields = self.visitor.told("GET", "/", cookie=sent)[1]
            self.assertEqual(fields.get("cookie"), seen)
        answer = ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1; Domain=paddock.test; Path=/\r\nSet-Cookie: b=2; Secure;domain = .test;HttpOnly\r\n"
                  "Set-Cookie: c=3; Domains=x\r\nSet-Cookie: paddock-preview=evil\r\nSet-Cookie:  __HOST-paddock-preview = evil; Path=/\r\n"
                  "Set-Cookie: d; DOMAIN\r\n\r\n")
        raw, _ = self.visitor.raw(self.visitor.lines("GET", raw_target(answer), "Connection: close"))
        cookies = re.findall(r"(?i)set-cookie: (.*)\r\n", raw.decode())
        self.assertEqual(cookies, ["a=1; Path=/", "b=2; Secure;HttpOnly", "c=3; Domains=x", "d"])

    def test_fifty_large_cookies(self):
        """V08: as much as fits the bound of a head, and a clear refusal beyond it."""
        for size, status in ((1000, 200), (4000, 502)):
            port = 9300 + size // 1000
            script = ("import socket\ns=socket.create_server(('127.0.0.1',%d))\nwhile True:\n c,_=s.accept()\n c.recv(65536)\n"
                      " c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n'+b''.join(b'Set-Cookie: c%%d=%%b\\r\\n'%%(i,b'x'*%d) for i in range(50))+b'\\r\\n')\n"
                      " c.close()\n" % (port, size))
            client.run(world.box, "python3", "-c", script, detach=True)
            wait_until(lambda: port in {p.port for p in client.Previews.ListPorts(sandbox_id=world.box).ports}, 10, "it listens")
            visitor = world.visitor(port=port).enter()
            raw, _ = visitor.raw(visitor.lines("GET", "/", "Connection: close"))
            self.assertEqual(parse(raw)[0], status, size)
            self.assertEqual(raw.count(b"Set-Cookie: c"), 50 if status == 200 else 0)

    def test_host_header(self):
        masked = world.visitor(host_header="localhost:${PORT}").enter()
        fields = masked.told("GET", "/")[1]
        self.assertEqual((fields["host"], fields["x-forwarded-host"]), (f"localhost:{PORT}", masked.host))

    def test_read_only(self):
        visitor = world.visitor(read_only=True).enter()
        for method in ("GET", "HEAD", "OPTIONS"):
            self.assertEqual(visitor.ask(method, "/")[0], 200)
        for method in ("POST", "PUT", "DELETE", "PATCH", "MOVE", "BREW"):
            status, headers, _ = visitor.ask(method, "/")
            self.assertEqual((status, headers["allow"]), (405, "GET, HEAD, OPTIONS"))
        s, head = visitor.upgrade()
        self.assertIn(b" 405 ", head)
        self.assertEqual(self.visitor.ask("BREW", "/")[0], 200)
        for method in ("TRACE", "CONNECT"):
            self.assertEqual(self.visitor.ask(method, "/")[0], 405)

    def test_keep_alive(self):
        """Many requests on one connection, and one connection to the application for them."""
        with self.visitor.connect() as s:
            before = int(self.visitor.ask("GET", "/count")[2])
            for n in range(50):
                s.sendall(self.visitor.lines("GET", "/count"))
                data = b""
                while b"\r\n\r\n" not in data:
                    data += s.recv(4096)
                head, _, body = data.partition(b"\r\n\r\n")
                self.assertIn(b"200", head.split(b"\r\n")[0])
                while len(body) < int(re.search(rb"Content-Length: (\d+)", head)[1]):
                    body += s.recv(4096)
            self.assertLessEqual(int(body), before + 1)

    def test_an_idle_connection_that_the_application_closed(self):
        """A request that is repeatable is repeated on a new connection, and answered."""
        visitor = world.visitor().enter()
        for _ in range(20):
            # Says that it keeps the connection, and closes it.
            answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            self.assertEqual(visitor.ask("GET", raw_target(answer))[2], b"ok")
            self.assertEqual(visitor.ask("GET", "/")[0], 200)

    def test_head_and_empty_answers(self):
        status, headers, body = self.visitor.ask("HEAD", "/x")
        self.assertEqual((status, headers["x-app"], body), (200, "yes", b""))
        for answer, status in (("HTTP/1.1 204 No\r\n\r\n", 204), ("HTTP/1.1 304 No\r\nContent-Length: 77\r\n\r\n", 304),
                               ("HTTP/1.0 200\r\n\r\nuntil the end", 200)):
            got = self.visitor.ask("GET", raw_target(answer))
            self.assertEqual((got[0], got[2]), (status, b"until the end" if status == 200 else b""))

    def test_large_bodies_both_ways(self):
        data = os.urandom(1 << 20) * 20
        told = json.loads(self.visitor.ask("POST", "/sum", body=data)[2])
        self.assertEqual((told["length"], told["sha256"]), (len(data), hashlib.sha256(data).hexdigest()))
        chunked = b"".join(b"%x\r\n" % len(piece) + piece + b"\r\n" for piece in (data[i:i + 70000] for i in range(0, len(data), 70000))) + b"0\r\n\r\n"
        answer, _ = self.visitor.raw(self.visitor.lines("POST", "/sum", "Transfer-Encoding: chunked", "Connection: close") + chunked)
        self.assertEqual(json.loads(parse(answer)[2])["sha256"], told["sha256"])
        self.assertEqual(len(self.visitor.ask("GET", f"/big?n={50 << 20}")[2]), 50 << 20)

    def test_back_pressure(self):
        """Somebody who does not read a gigabyte costs a few megabytes, and nobody else's time."""
        before = world.ingress.rss()
        slow = [self.visitor.connect() for _ in range(8)]
        for s in slow:
            s.sendall(self.visitor.lines("GET", f"/big?n={1 << 30}"))
        time.sleep(1)
        self.assertLess(world.ingress.rss() - before, 32 << 20)
        begun = time.monotonic()
        self.assertEqual(self.visitor.ask("GET", "/")[0], 200)
        self.assertLess(time.monotonic() - begun, 1)
        for s in slow:
            self.assertEqual(len(receive(s, 1 << 20)), 1 << 20)
            s.close()

    def test_events_come_as_they_are_made(self):
        with self.visitor.connect() as s:
            s.sendall(self.visitor.lines("GET", "/events"))
            begun, data = time.monotonic(), b""
            while b"data: 5" not in data:
                data += s.recv(4096)
            self.assertLess(time.monotonic() - begun, 2)

    def test_an_answer_before_the_body(self):
        answer, closed = self.visitor.raw(self.visitor.lines("POST", "/early", "Content-Length: 100000000") + b"x" * 100000)
        self.assertEqual((parse(answer)[0], closed), (413, True))


def raw_target(answer, keep=False):
    return "/raw?bytes=" + base64.urlsafe_b64encode(answer.encode("latin-1")).decode() + ("&keep" if keep else "")


class Sockets(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.visitor = world.visitor().enter()

    def test_bytes_both_ways(self):
        s, head = self.visitor.upgrade()
        self.assertIn(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", head)
        self.assertIn(b"Set-Cookie: socket=1\r\n", head)
        for data in (b"", b"x", os.urandom(200), os.urandom(65000)):
            s.sendall(frame(data))
            self.assertEqual(frame_of(s), data)
        large = b"y" * (8 << 20)
        s.sendall(frame(b"z") + frame(b"last")[:3])
        self.assertEqual(frame_of(s), b"z")
        s.sendall(frame(b"last")[3:])
        self.assertEqual(frame_of(s), b"last")
        del large

    def test_another_pages_websocket(self):
        """V10: with the cookie, from any other origin, or from one that says nothing."""
        host, port = self.visitor.name, world.ingress.port
        other = world.visitor()
        for origin in ("http://evil.example", "null", f"http://{other.host}", f"http://{host}.evil.example:{port}", f"http://x{host}:{port}",
                       f"https://{host}:{port}", f"http://{host}", f"http://{host}:{port}/", f"http://{host}:{port}x", f"http://{world.domain}:{port}",
                       f"http://{host}:{port}@evil.example", ""):
            s, head = self.visitor.upgrade(f"Origin: {origin}", origin=False)
            self.assertIn(b" 403 ", head, origin)
        s, head = self.visitor.upgrade(origin=False)
        self.assertIn(b" 403 ", head)
        s, head = self.visitor.upgrade()
        self.assertIn(b" 101 ", head)

    def test_without_the_cookie(self):
        s, head = Visitor(world, self.visitor.preview).upgrade()
        self.assertIn(b" 404 ", head)

    def test_upgrades_to_something_else(self):
        """V12: nothing but a websocket is an upgrade; and an application cannot make one of what was none."""
        for target in ("h2c", "websocket, h2c", "TLS/1.0", "connect-ip"):
            answer, _ = self.visitor.raw(self.visitor.lines("GET", "/x", "Connection: Upgrade, close", f"Upgrade: {target}",
                                                            f"Origin: {self.visitor.origin}"))
            status, _, body = parse(answer)
            self.assertEqual(status, 200, target)
            self.assertNotIn("upgrade", json.loads(body)["head"].lower())
        switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
        self.assertEqual(self.visitor.ask("GET", raw_target(switch))[0], 502)
        other = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
        s, head = self.visitor.upgrade(target=raw_target(other))
        self.assertIn(b" 502 ", head)

    def test_frames_are_the_applications(self):
        """V18: behind a correct handshake the proxy passes bytes. It parses no frame and inflates nothing, so what is odd comes through as it is
        and costs nothing here; to refuse it is for the two who speak RFC 6455 with each other."""
        script = ("import socket,threading\ns=socket.create_server(('127.0.0.1',9312))\ndef f(c):\n d=b''\n while b'\\r\\n\\r\\n' not in d: d+=c.recv(65536)\n"
                  " c.sendall(b'HTTP/1.1 101 S\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n')\n while True:\n  b=c.recv(65536)\n"
                  "  if not b: return\n  c.sendall(b)\nwhile True: threading.Thread(target=f,args=(s.accept()[0],),daemon=True).start()\n")
        client.run(world.box, "python3", "-c", script, detach=True)
        wait_until(lambda: 9312 in {p.port for p in client.Previews.ListPorts(sandbox_id=world.box).ports}, 10, "it listens")
        s, head = world.visitor(port=9312).enter().upgrade()
        self.assertIn(b" 101 ", head)
        before = world.ingress.rss()
        for odd in (b"\x81\x05hello", b"\xf1" + frame(b"x")[1:], b"\x88\x81\1\2\3\4x", b"\xc1" + frame(b"\x78\x9c" * 20)[1:], frame(b"", 9) * 20000, b"\x01\xff" + b"\xff" * 12):
            s.sendall(odd[:60000])
            self.assertEqual(receive(s, len(odd[:60000])), odd[:60000])
        self.assertLess(world.ingress.rss() - before, 4 << 20)

    def test_a_thousand(self):
        """V19, as far as one test may go: tests/bench/preview.py opens as many as it is told."""
        visitor = world.visitor().enter()
        visitor.upgrade()[0].close()
        before = world.ingress.rss()
        sockets = [visitor.upgrade()[0] for _ in range(1000)]
        each = (world.ingress.rss() - before) / len(sockets)
        print(f"# {each / 1024:.1f} KiB for each of {len(sockets)} open websockets", file=sys.stderr)
        self.assertLess(each, 20 << 10)
        for s in (sockets[0], sockets[-1]):
            s.sendall(frame(b"still here"))
            self.assertEqual(frame_of(s), b"still here")
        self.assertEqual(visitor.ask("GET", "/page")[0], 200)
        self.assertEqual(world.ingress.ask("GET", "/healthz")[0], 200)
        for s in sockets:
            s.close()

    def test_refused_by_the_application(self):
        s, head = self.visitor.upgrade(target=raw_target("HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"))
        self.assertIn(b" 400 ", head)

    def test_a_visitor_who_does_not_read(self):
        """V18: a flood in one direction waits in the sandbox, not in the ingress."""
        s, _ = self.visitor.upgrade()
        before = world.ingress.rss()
        s.settimeout(2)
        piece = frame(os.urandom(65000)) * 16
        sent = 0
        try:
            while sent < 200 << 20:
                sent += s.send(piece)
        except TimeoutError:
            pass
        self.assertLess(sent, 200 << 20)
        self.assertLess(world.ingress.rss() - before, 16 << 20)
        self.assertEqual(self.visitor.ask("GET", "/")[0], 200)


class Origins(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.visitor = world.visitor().enter()

    def test_requests_of_other_pages(self):
        """V09: what a browser says of a request that another page made with the visitor's cookie."""
        other = f"http://{world.visitor().host}"
        for fields in (["Origin: http://evil.example"], [f"Origin: {other}"], ["Origin: null"]):
            for method in ("GET", "POST", "OPTIONS"):
                self.assertEqual(self.visitor.ask(method, "/", *fields)[0], 403, (method, fields))
        for site in ("cross-site", "same-site"):
            for method, mode, dest, status in (("GET", "navigate", "document", 200), ("GET", "navigate", "iframe", 403), ("GET", "no-cors", "image", 403),
                                               ("GET", "cors", "empty", 403), ("POST", "navigate", "document", 403), ("GET", "websocket", "websocket", 403)):
                got = self.visitor.ask(method, "/", f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {dest}")[0]
                self.assertEqual(got, status, (site, method, mode, dest))
        for site in ("same-origin", "none"):
            self.assertEqual(self.visitor.ask("POST", "/", f"Sec-Fetch-Site: {site}", f"Origin: {self.visitor.origin}")[0], 200)

    def test_no_cors_of_ours(self):
        status, headers, _ = self.visitor.ask("GET", "/")
        self.assertFalse([name for name in headers if name.startswith("access-control")], headers)


class Hosts(unittest.TestCase):
    """V11: the grant is found by the exact Host."""

    def status(self, visitor, *lines):
        answer, _ = visitor.raw("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        return parse(answer)[0]

    def test_hosts(self):
        visitor, other = world.visitor().enter(), world.visitor()
        get, cookie, port = "GET / HTTP/1.1", "Cookie: " + visitor.cookie, world.ingress.port
        end = "Connection: close"
        self.assertEqual(self.status(visitor, get, f"Host: {visitor.host}", cookie, end), 200)
        self.assertEqual(self.status(visitor, get, f"Host: {visitor.name.upper()}:{port}", cookie, end), 200)
        self.assertEqual(self.status(visitor, get, f"Host: {visitor.name}.:{port}", cookie, end), 200)
        for lines, status in (([], 400), ([f"Host: {visitor.host}", f"Host: {visitor.host}"], 400), ([f"Host: {other.host}"], 404),
                              ([f"Host: x.{visitor.host}"], 400), ([f"Host: {visitor.name}.evil.example"], 404), (["Host: 127.0.0.1"], 404),
                              (["Host: 127.0.0.1", f"X-Forwarded-Host: {visitor.host}"], 404), ([f"Host: {visitor.name}:0x50"], 400),
                              ([f"Host: {visitor.name} "], 200), ([f"Host: a@{visitor.host}"], 400), ([f"Host: {visitor.preview.id}"], 404)):
            got = self.status(visitor, get, *lines, cookie, end)
            self.assertEqual(got, status, lines)
        self.assertEqual(self.status(visitor, f"GET http://{visitor.host}/ HTTP/1.1", f"Host: {visitor.host}", cookie, end), 400)
        # What a link of a paddockd with another domain in its preview_url leads to: the visitor and the log are told why.
        answer, _ = visitor.raw("\r\n".join([get, f"Host: {visitor.preview.id}.other.test", cookie, end]).encode() + b"\r\n\r\n")
        status, text = page(parse(answer))
        self.assertEqual(status, 404)
        self.assertIn("preview_url", text)
        self.assertIn("preview.misplaced", open(world.ingress.log).read())

    def test_the_visit_is_not_an_api(self):
        visitor = world.visitor().enter()
        for path in ("/sandboxes", "/v2/sandboxes", "/healthz", "/paddock.v1.Sandboxes/List", "/files?path=x"):
            self.assertEqual(visitor.told("GET", path)[0], f"GET {path} HTTP/1.1")
        # And what the ingress asks for itself is nothing that a client can ask for.
        for method in ("Enter", "Open", "Dial", "Report"):
            status = world.ingress.ask("POST", "/paddock.internal.Visits/" + method, b"{}", {"Content-Type": "application/json"})[0]
            self.assertEqual(status, 404)


    def test_every_service_of_the_contract(self):
        """Over the Connect protocol, for what the key may do and nothing else."""
        def ask(method):
            fields = {"Content-Type": "application/json", "Authorization": "Bearer " + client.key}
            return world.ingress.ask("POST", "/paddock.v1." + method, b"{}", fields)[0]
        for method in ("Sandboxes/List", "Templates/List", "Snapshots/List", "Previews/List", "Admin/WhoAmI"):
            self.assertEqual(ask(method), 200, method)
        for method in ("Admin/ListTenants", "Audit/Verify"):
            self.assertEqual(ask(method), 403, method)


class Smuggling(unittest.TestCase):
    """V12, V13: nothing passes that two parsers could read in two ways."""

    @classmethod
    def setUpClass(cls):
        cls.visitor = world.visitor().enter()

    def refused(self, *pieces):
        answer, closed = self.visitor.raw(*pieces, wait=5)
        self.assertTrue(closed, pieces)
        self.assertEqual(parse(answer)[0], 400, pieces)
        self.assertEqual(answer.count(b"HTTP/1.1 "), 1, pieces)

    def test_framing(self):
        hidden = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        for fields in (["Content-Length: 5", "Transfer-Encoding: chunked"], ["Content-Length: 5", "Content-Length: 6"], ["Content-Length: +5"],
                       ["Content-Length: 5, 5"], ["Transfer-Encoding: gzip, chunked"], ["Transfer-Encoding: chunked, identity"],
                       ["Transfer-Encoding: xchunked"], ["Transfer-Encoding : chunked"], ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
                       ["X: y\nTransfer-Encoding: chunked"], ["X: y\r z"], ["X: \0"], [" X: y"], ["X : y"], [": y"], ["X y"]):
            self.refused(self.visitor.lines("POST", "/", *fields) + b"0\r\n\r\n" + hidden)
        for target in ("/a b", "/\x01", "/\x7f", "/#x", "http://x/", "x", ""):
            self.refused(self.visitor.lines("GET", target))

    def test_chunks(self):
        for body in (b"5;x=y\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"-1\r\n", b"ffffffffffffffff\r\n", b" 5\r\nhello\r\n0\r\n\r\n",
                     b"5\r\nhelloX\r\n0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"\r\n"):
            # The application may have begun already: then the connection is cut, and no more comes of it.
            answer, closed = self.visitor.raw(self.visitor.lines("POST", "/sum", "Transfer-Encoding: chunked") + body, wait=5)
            self.assertTrue(closed, body)
            self.assertNotIn(b" 200 ", answer, body)
        good = self.visitor.lines("POST", "/sum", "Transfer-Encoding: chunked", "Connection: close") + b"5\r\nhello\r\n0\r\n\r\n"
        self.assertEqual(parse(self.visitor.raw(good)[0])[0], 200)

    def test_answers(self):
        """V16: an application that lies about its answer gets no way into another one's."""
        long = "X: " + "y" * 3000 + "\r\n"
        for answer in ("", "HTTP/1.1 200\r\nX:\r\n", "HTTP/2 200 OK\r\n\r\n", "200 OK\r\n\r\n", "HTTP/1.1 99 X\r\n\r\n", "HTTP/1.1 20 X\r\n\r\n",
                       "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
                       "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                       "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n",
                       "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", "HTTP/1.1 100 C\r\n\r\n" * 20 + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"):
            status, text = page(self.visitor.ask("GET", raw_target(answer)))
            self.assertEqual(status, 502, answer[:40])
        del long
        self.assertEqual(self.visitor.ask("GET", raw_target("HTTP/1.1 100 C\r\n\r\n" * 3 + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))[2], b"ok")

    def test_bodies_of_the_wrong_length(self):
        for answer in ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"):
            raw, closed = self.visitor.raw(self.visitor.lines("GET", raw_target(answer)), wait=5)
            self.assertTrue(closed)
            self.assertNotIn(b"\r\n0\r\n\r\n", raw)
            body = raw.partition(b"\r\n\r\n")[2]
            self.assertLess(len(body), 20)
        # A longer one is cut at its length, and what is left over answers nobody.
        extra = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        self.assertEqual(self.visitor.ask("GET", raw_target(extra, keep=True))[2], b"ok")
        for _ in range(5):
            self.assertEqual(self.visitor.told("GET", "/")[0], "GET / HTTP/1.1")
        trailers = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n"
        self.assertEqual(self.visitor.ask("GET", raw_target(trailers))[2], b"ok")

    def test_endless_heads(self):
        for port, piece in ((9201, b"X: " + b"y" * 1000 + b"\r\n"), (9202, b"y" * 1000)):
            script = ("import socket\ns=socket.create_server(('127.0.0.1',%d))\nwhile True:\n c,_=s.accept()\n c.recv(65536)\n"
                      " try:\n  c.sendall(b'HTTP/1.1 200 OK\\r\\nX: ')\n  while True: c.sendall(%r)\n except OSError: pass\n" % (port, piece))
            client.run(world.box, "python3", "-c", script, detach=True)
            wait_until(lambda: port in {p.port for p in client.Previews.ListPorts(sandbox_id=world.box).ports}, 10, "it listens")
            before = world.ingress.rss()
            self.assertEqual(page(world.visitor(port=port).enter().ask("GET", "/"))[0], 502)
            self.assertLess(world.ingress.rss() - before, 8 << 20)


class Records(unittest.TestCase):
    def test_visits_are_on_record(self):
        visitor = world.visitor().enter()
        self.assertEqual(visitor.ask("GET", "/secret-path?secret=1")[0], 200)
        time.sleep(2.5)
        client.Previews.Revoke(preview_id=visitor.preview.id)
        visitor.ask("GET", "/")
        time.sleep(0.2)
        records = world.records(visitor.preview)
        by = {}
        for record in records:
            by.setdefault((record.action, record.outcome), json.loads(record.detail or "{}"))
        self.assertTrue(by["preview.enter", "OK"]["client"].startswith("127.0.0.1:"))
        self.assertEqual(by["preview.visit", "OK"]["port"], PORT)
        left = by["preview.left", "OK"]
        self.assertEqual(left["requests"], 1)
        self.assertGreater(left["bytes_out"], 100)
        self.assertIn(("preview.visit", "REVOKED"), by)
        everything = str(records) + open(world.ingress.log).read()
        for secret in (visitor.token, visitor.cookie.split("=")[1], "secret"):
            self.assertNotIn(secret, everything)
        self.assertEqual(client.Previews.List(sandbox_id=world.box).previews[-1].visitors, 1)


class Published(unittest.TestCase):
    """Ports under "<port>-<id>.<domain>": V01, V02. The SDK's own view of them is in tests/sdk-gateway/ports.mjs."""

    @classmethod
    def setUpClass(cls):
        cls.box = client.create(port_access=2, timeout_ms=600_000).id
        cls.nobody = world.grant()
        client.write(cls.box, "/tmp/app.py", client.read(world.box, "/tmp/app.py"))
        world.serve(PORT, box=cls.box)

    def visitor(self, label):
        visitor = Visitor(world, self.nobody)
        visitor.name = f"{label}.{world.domain}"
        visitor.host = f"{visitor.name}:{world.ingress.port}"
        return visitor

    def test_only_what_is_published(self):
        for label, status in ((f"{PORT}-{self.box}", 200), (f"{PORT}-{self.box}-x", 200), (f"{PORT}-{world.box}", 502), (f"{PORT}-i{'a' * 20}", 502),
                              (f"22-{self.box}", 502), (f"9-{self.box}", 502), (f"0{PORT}-{self.box}", 400), (f"{PORT + 65536}-{self.box}", 400),
                              (f"%2B{PORT}-{self.box}", 400)):
            self.assertEqual(self.visitor(label).ask("GET", "/")[0], status, label)
        # What is not published is told like what is not there.
        texts = {self.visitor(label).ask("GET", "/")[2].replace(label.split("-")[1].encode(), b"") for label in
                 (f"{PORT}-{world.box}", f"{PORT}-i{'a' * 20}", f"22-{self.box}")}
        self.assertEqual(len(texts), 1, texts)

    def test_resume_on_use(self):
        for resumes, answers in ((True, (200,)), (False, (502, 503))):
            box = client.create(port_access=2, auto_resume=resumes).id
            client.write(box, "/tmp/app.py", client.read(world.box, "/tmp/app.py"))
            world.serve(PORT, box=box)
            self.assertEqual(self.visitor(f"{PORT}-{box}").ask("GET", "/")[0], 200)
            client.Sandboxes.Pause(sandbox_id=box)
            self.assertIn(self.visitor(f"{PORT}-{box}").ask("GET", "/")[0], answers)
            self.assertEqual(client.Sandboxes.Get(sandbox_id=box).state, enum("SANDBOX_STATE_RUNNING" if resumes else "SANDBOX_STATE_PAUSED"))
            client.Sandboxes.Kill(sandbox_id=box)

    def test_somebody_who_tries_every_port(self):
        """It costs nobody else a visit: what is idle gives way."""
        visitor = world.visitor().enter()
        for port in range(10000, 10300):
            self.assertEqual(self.visitor(f"{port}-{self.box}").ask("GET", "/")[0], 502)
        self.assertEqual(visitor.ask("GET", "/")[0], 200)
        self.assertEqual(self.visitor(f"{PORT}-{self.box}").ask("GET", "/")[0], 200)

    def test_no_cookie_and_no_token_of_ours(self):
        visitor = self.visitor(f"{PORT}-{self.box}")
        line, fields, _ = visitor.told("POST", "/x?paddock_token=1", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Cookie: a=1",
                                       "X-Access-Token: secret", "X-API-Key: secret", "E2b-Traffic-Access-Token: secret")
        self.assertEqual((line, fields["cookie"]), ("POST /x?paddock_token=1 HTTP/1.1", "a=1"))
        self.assertNotIn("secret", str(fields))

    def test_a_websocket_of_any_page(self):
        s, head = self.visitor(f"{PORT}-{self.box}").upgrade("Origin: http://any.example", origin=False)
        self.assertIn(b" 101 ", head)
        s.sendall(frame(b"x"))
        self.assertEqual(frame_of(s), b"x")


class Slow(unittest.TestCase):
    """V17: slow and many (heads, bodies and readers), beside somebody who just looks."""

    def open(self, n):
        """From two addresses, since one may have 2,048."""
        return socket.create_connection(("127.0.0.1", world.ingress.port), 20, source_address=(f"127.0.0.{2 + n % 2}", 0))

    def test_four_thousand(self):
        visitor = world.visitor().enter()
        slow, before = [], world.ingress.rss()
        for n in range(4000):
            s = self.open(n)
            if n % 40 == 39:
                s.sendall(visitor.lines("GET", "/big?n=100000000"))
            elif n % 5 == 1:  # as many as the application has descriptors for
                s.sendall(visitor.lines("POST", "/sum", "Content-Length: 1000") + b"x")
            else:
                s.sendall(b"GET / HTTP/1.1\r\nHost: ")
            slow.append(s)
        times = []
        for _ in range(50):
            begun = time.monotonic()
            self.assertEqual(visitor.ask("GET", "/")[0], 200)
            times.append(time.monotonic() - begun)
        grown = (world.ingress.rss() - before) / (1 << 20)
        print(f"# {len(slow)} slow clients: {sorted(times)[48] * 1000:.0f} ms p99 for a quick one, {grown:.0f} MiB", file=sys.stderr)
        self.assertLess(sorted(times)[25], 0.5)
        self.assertLess(grown, 400)
        # A head has ten seconds.
        for s in (slow[0], slow[3998]):  # heads
            s.settimeout(20)
            self.assertIn(b" 408 ", s.recv(4096))
        for s in slow:
            s.close()


if __name__ == "__main__":
    tap.main()
