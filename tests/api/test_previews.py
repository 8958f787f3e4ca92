"""Grants of previews and the ports of a sandbox. What a browser makes of them: tests/ingress/test_preview.py."""
import time

from api import Case, Code, unique
from paddock import enum

ACTIVE, EXPIRED, REVOKED = (enum("PREVIEW_STATE_" + name) for name in ("ACTIVE", "EXPIRED", "REVOKED"))
HOUR = 3600_000


def now_ms():
    return int(time.time() * 1000)


class Grants(Case):
    def grant(self, **fields):
        fields.setdefault("sandbox_id", self.box)
        fields.setdefault("port", 8080)
        preview = self.client.Previews.Grant(**fields)
        self.addCleanup(lambda: self.client.Previews.Revoke(preview_id=preview.id))
        return preview

    def state(self, preview):
        return {p.id: p for p in self.client.Previews.List().previews}[preview.id].state

    def test_what_a_grant_says(self):
        preview = self.grant()
        self.assertRegex(preview.id, "^p[a-z2-7]{26}$")
        self.assertEqual((preview.sandbox_id, preview.port, preview.state), (self.box, 8080, ACTIVE))
        self.assertEqual(preview.host, preview.id + ".localhost")
        self.assertRegex(preview.url, f"^http://{preview.id}.localhost:7413/\\?paddock_token=[0-9a-f]{{64}}$")
        self.assertFalse(preview.read_only or preview.one_visitor or preview.counts_as_activity or preview.resumes or preview.host_header)
        self.assertAlmostEqual(preview.created_unix_ms, now_ms(), delta=5000)
        self.assertEqual(preview.expires_unix_ms - preview.created_unix_ms, HOUR)
        full = self.grant(port=65535, ttl_ms=1000 * 7 * 86400, read_only=True, one_visitor=True, counts_as_activity=True, resumes=True, host_header="localhost:${PORT}")
        self.assertTrue(full.read_only and full.one_visitor and full.counts_as_activity and full.resumes)
        self.assertEqual(full.host_header, "localhost:${PORT}")
        self.assertNotEqual(full.url.split("=")[1], preview.url.split("=")[1])

    def test_limits(self):
        grant = self.client.Previews.Grant
        for port in (0, 65536, 67816, 2**32 - 1, 22, 49983):
            with self.subTest(port=port):
                self.invalid("port", grant, sandbox_id=self.box, port=port)
        for ttl in (1, 999, 604800001, 2**64 - 1):
            self.invalid("ttl_ms", grant, sandbox_id=self.box, port=80, ttl_ms=ttl)
        for host in ("a b", "a\r\nX: y", "${PORT}${PORT}", "${HOME}", "a/b", "x" * 256, "\u00e9"):
            self.invalid("host_header", grant, sandbox_id=self.box, port=80, host_header=host)
        self.grant(port=1, ttl_ms=1000)
        self.grant(host_header="x" * 255)

    def test_a_hundred_of_a_sandbox(self):
        box = self.new_box()
        first = self.client.Previews.Grant(sandbox_id=box, port=1000)
        for port in range(1001, 1100):
            self.client.Previews.Grant(sandbox_id=box, port=port)
        self.refused(Code.RESOURCE_EXHAUSTED, self.client.Previews.Grant, sandbox_id=box, port=1100, text="previews")
        self.client.Previews.Revoke(preview_id=first.id)
        self.client.Previews.Grant(sandbox_id=box, port=1100)

    def test_list_gives_nobody_access(self):
        mine = self.grant()
        other = self.grant(sandbox_id=self.new_box(), port=9090)
        listed = {p.id: p for p in self.client.Previews.List().previews}
        self.assertIn(mine.id, listed)
        self.assertIn(other.id, listed)
        self.assertEqual({p.url for p in listed.values()}, {""})
        self.assertEqual([p.id for p in self.client.Previews.List(sandbox_id=other.sandbox_id).previews], [other.id])
        reader = self.instance.with_key(self.tenant, ("read",))
        self.assertIn(mine.id, {p.id for p in reader.Previews.List().previews})

    def test_revoke(self):
        preview = self.grant()
        reply = self.client.Previews.Revoke(preview_id=preview.id)
        self.assertEqual((reply.state, reply.url), (REVOKED, ""))
        self.assertTrue(reply.ended_unix_ms)
        self.assertEqual(self.client.Previews.Revoke(preview_id=preview.id).ended_unix_ms, reply.ended_unix_ms)
        self.assertEqual(self.state(preview), REVOKED)
        self.assertNotIn(preview.id, {p.id for p in self.client.Previews.List(active_only=True).previews})
        self.refused(Code.FAILED_PRECONDITION, self.client.Previews.Extend, preview_id=preview.id, ttl_ms=HOUR)

    def test_expiry_and_extension(self):
        preview, spared = self.grant(ttl_ms=1000), self.grant(ttl_ms=1000)
        longer = self.client.Previews.Extend(preview_id=spared.id, ttl_ms=HOUR)
        self.assertEqual(longer.url, spared.url)
        self.assertGreater(longer.expires_unix_ms, spared.expires_unix_ms + HOUR // 2)
        for ttl in (0, 999, 604800001):
            self.invalid("ttl_ms", self.client.Previews.Extend, preview_id=spared.id, ttl_ms=ttl)
        time.sleep(1.5)
        self.assertEqual(self.state(preview), EXPIRED)
        self.assertEqual(self.state(spared), ACTIVE)
        self.refused(Code.FAILED_PRECONDITION, self.client.Previews.Extend, preview_id=preview.id, ttl_ms=HOUR)
        self.client.Previews.Extend(preview_id=spared.id, ttl_ms=1000)
        time.sleep(1.5)
        self.assertEqual(self.state(spared), EXPIRED)

    def test_ends_with_the_sandbox(self):
        box = self.new_box()
        preview = self.client.Previews.Grant(sandbox_id=box, port=80)
        self.client.Sandboxes.Kill(sandbox_id=box)
        self.assertEqual(self.state(preview), REVOKED)
        self.refused(Code.FAILED_PRECONDITION, self.client.Previews.Grant, sandbox_id=box, port=80)

    def test_another_tenants_does_not_exist(self):
        stranger = self.instance.tenant(unique("stranger"))
        preview = self.grant()
        texts = set()
        for id in (preview.id, "p" + "a" * 26, "", "!!", "p" * 5000):
            texts.add(self.refused(Code.NOT_FOUND, stranger.Previews.Revoke, preview_id=id))
            texts.add(self.refused(Code.NOT_FOUND, stranger.Previews.Extend, preview_id=id, ttl_ms=HOUR))
        self.assertEqual(len(texts), 1, texts)
        self.assertFalse(stranger.Previews.List().previews)
        self.assertEqual(self.state(preview), ACTIVE)
        self.assertEqual(self.admin.Previews.Revoke(preview_id=preview.id).state, REVOKED)

    def test_is_on_record(self):
        preview = self.grant(port=4321)
        self.client.Previews.Revoke(preview_id=preview.id)
        records = {r.action: r for r in self.client.Audit.List(sandbox_id=self.box, page_size=1000).records if r.object == preview.id}
        self.assertIn("paddock.v1.Previews/Revoke", records)
        self.assertIn('"port":4321', records["paddock.v1.Previews/Grant"].detail)
        token = preview.url.split("=")[1]
        self.assertNotIn(token, repr(list(self.client.Audit.List(sandbox_id=self.box, page_size=1000).records)))

    def test_survives_a_restart(self):
        kept, gone = self.grant(one_visitor=True), self.grant()
        self.client.Previews.Revoke(preview_id=gone.id)
        self.instance.stop_paddockd()
        self.instance.start_paddockd()
        listed = {p.id: p for p in self.client.Previews.List().previews}
        self.assertEqual(listed[kept.id].state, ACTIVE)
        self.assertTrue(listed[kept.id].one_visitor)
        self.assertEqual(listed[gone.id].state, REVOKED)
        self.assertEqual(self.client.Previews.Extend(preview_id=kept.id, ttl_ms=HOUR).url, kept.url)

    def test_visits_are_not_for_grpc(self):
        """What the ingress asks: over gRPC there is no such method, with whatever key."""
        for method in ("Enter", "Open", "Dial", "Report"):
            for client in (self.client, self.admin, self.instance.client()):
                stub = client.channel.unary_unary("/paddock.internal.Visits/" + method)
                metadata = [("authorization", "Bearer " + client.key)] if client.key else []
                self.refused(Code.UNIMPLEMENTED, stub, b"", timeout=5, metadata=metadata)


LISTEN = """
import socket, sys, time
kept = []
for family, address, port in ((socket.AF_INET, "127.0.0.1", 4001), (socket.AF_INET, "0.0.0.0", 4002), (socket.AF_INET6, "::1", 4003),
                              (socket.AF_INET6, "::", 4004)):
    s = socket.socket(family)
    s.bind((address, port))
    s.listen()
    kept.append(s)
client = socket.create_connection(("127.0.0.1", 4001))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 4005))
open("/tmp/listening", "w").close()
time.sleep(600)
"""


class Access(Case):
    def test_who_may_reach_its_ports(self):
        none, public = enum("PORT_ACCESS_UNSPECIFIED"), enum("PORT_ACCESS_PUBLIC")
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=self.box).port_access, none)
        self.assertEqual(self.client.Sandboxes.GetAccess(sandbox_id=self.box).traffic_token, "")
        box = self.new_box(port_access=enum("PORT_ACCESS_TOKEN"), port_host_header="localhost:${PORT}")
        seen, access = self.client.Sandboxes.Get(sandbox_id=box), self.client.Sandboxes.GetAccess(sandbox_id=box)
        self.assertEqual((seen.port_access, seen.port_host_header), (enum("PORT_ACCESS_TOKEN"), "localhost:${PORT}"))
        self.assertRegex(access.traffic_token, "^[0-9a-f]{64}$")
        self.assertNotEqual(access.traffic_token, access.access_token)
        self.assertRegex(self.client.Sandboxes.GetAccess(sandbox_id=self.new_box(port_access=public)).traffic_token, "^[0-9a-f]{64}$")
        self.invalid("port_access", self.client.create, port_access=3)
        self.invalid("port_host_header", self.client.create, port_host_header="a b")
        self.instance.stop_paddockd()
        self.instance.start_paddockd()
        self.assertEqual(self.client.Sandboxes.Get(sandbox_id=box).port_access, enum("PORT_ACCESS_TOKEN"))
        self.assertEqual(self.client.Sandboxes.GetAccess(sandbox_id=box).traffic_token, access.traffic_token)


class Ports(Case):
    def ports(self, box=None):
        return {p.port: p for p in self.client.Previews.ListPorts(sandbox_id=box or self.box).ports}

    def test_what_listens(self):
        box = self.new_box()
        self.assertEqual(self.ports(box), {})
        self.client.run(box, "python3", "-c", LISTEN, detach=True)
        self.sh("while [ ! -e /tmp/listening ]; do sleep 0.05; done", box=box)
        ports = self.ports(box)
        # Neither the connection to 4001 nor the UDP socket is a port that listens.
        self.assertEqual(list(ports), [4001, 4002, 4003, 4004])
        self.assertEqual([(p.ipv4, p.ipv6, p.loopback) for p in ports.values()],
                         [(True, False, True), (True, False, False), (False, True, True), (True, True, False)])
        self.assertEqual({p.uid for p in ports.values()}, {1000})

    def test_not_running(self):
        box = self.new_box()
        self.client.Sandboxes.Pause(sandbox_id=box)
        self.refused(Code.FAILED_PRECONDITION, self.client.Previews.ListPorts, sandbox_id=box)
        self.client.Sandboxes.Resume(sandbox_id=box)
        self.assertEqual(self.ports(box), {})
