"""Tenants, quotas, keys: the Admin service."""
import os
import subprocess
import time

from api import Case, Code, grpc, pb, unique
from paddock import wait_until


class Tenants(Case):
    SANDBOX = False

    def test_create_and_list(self):
        name = unique("made")
        made = self.admin.Admin.CreateTenant(name=name, quota=pb.Quota(max_sandboxes=7))
        self.assertEqual((made.name, made.quota.max_sandboxes, made.sandboxes), (name, 7, 0))
        self.assertGreater(made.quota.max_memory_bytes, 0, "the defaults in force are shown")
        self.refused(Code.ALREADY_EXISTS, self.admin.Admin.CreateTenant, name=name)
        names = {t.name for t in self.admin.Admin.ListTenants().tenants}
        self.assertLessEqual({"default", name}, names)

    def test_names(self):
        for name in ("", "A", "-a", "a" * 64, "a_b", "a.b", "../x", "a b", "ä", "a\n"):
            with self.subTest(name=name):
                self.invalid("name", self.admin.Admin.CreateTenant, name=name)
        self.admin.Admin.CreateTenant(name="0" + unique("x")[:10] + "-9")

    def test_set_quota(self):
        name = unique("quota")
        self.admin.Admin.CreateTenant(name=name, quota=pb.Quota(max_sandboxes=5, max_templates=3))
        after = self.admin.Admin.SetQuota(tenant=name, quota=pb.Quota(max_sandboxes=9)).quota
        self.assertEqual((after.max_sandboxes, after.max_templates), (9, 3))
        self.refused(Code.NOT_FOUND, self.admin.Admin.SetQuota, tenant="nosuch", quota=pb.Quota(max_sandboxes=1))

    def test_remove(self):
        name = unique("gone")
        client = self.instance.tenant(name)
        box = client.create().id
        self.refused(Code.FAILED_PRECONDITION, self.admin.Admin.RemoveTenant, tenant=name)
        self.assertEqual(client.run(box, "/bin/echo", "x").out, b"x\n")
        self.admin.Admin.RemoveTenant(tenant=name, force=True)
        self.refused(Code.UNAUTHENTICATED, client.Admin.WhoAmI)
        self.assertNotIn(name, {t.name for t in self.admin.Admin.ListTenants().tenants})
        self.assertNotIn(box, {s.id for s in self.admin.Sandboxes.List(all_tenants=True, page_size=1000).sandboxes})
        self.refused(Code.NOT_FOUND, self.admin.Admin.RemoveTenant, tenant=name)
        self.refused(Code.NOT_FOUND, self.admin.Admin.RemoveTenant, tenant="nosuch")

    def test_default_stays(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.admin.Admin.RemoveTenant(tenant="default", force=True)
        self.assertIn(raised.exception.code(), (Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT))


class Keys(Case):
    SANDBOX = False

    def test_shown_once(self):
        made = self.admin.Admin.CreateKey(tenant=self.tenant, name="for people", scopes=["read"])
        self.assertRegex(made.secret, r"\Apdk_%s_[A-Za-z0-9_-]{43}\Z" % made.key.id)
        self.assertEqual((len(made.key.id), made.key.tenant, made.key.name, list(made.key.scopes)), (16, self.tenant, "for people", ["read"]))
        listed = self.admin.Admin.ListKeys(tenant=self.tenant)
        self.assertIn(made.key.id, {k.id for k in listed.keys})
        tail = made.secret.rsplit("_", 1)[1][-20:] if made.secret.count("_") == 2 else made.secret[-20:]
        self.assertNotIn(tail, str(listed))
        for path in (self.instance.data + "/store", self.instance.data + "/audit.head", self.instance.log):
            self.assertNotEqual(subprocess.run(["grep", "-rqaF", "--", tail, path]).returncode, 0, "the secret is on disk")

    def test_who_am_i(self):
        me = self.client.Admin.WhoAmI()
        self.assertEqual((me.tenant, me.key_id, sorted(me.scopes), me.operator), (self.tenant, self.client.key_id, ["read", "sandbox"], False))
        self.assertTrue(me.server_version)
        operator = self.admin.Admin.WhoAmI()
        self.assertEqual((operator.key_id, operator.operator), ("", True))

    def test_scopes(self):
        reader = self.instance.with_key(self.tenant, ("read",))
        box = self.new_box()
        self.assertEqual(reader.Sandboxes.Get(sandbox_id=box).id, box)
        for call, fields in ((reader.Sandboxes.Create, {}), (reader.Sandboxes.Kill, {"sandbox_id": box}),
                             (reader.Processes.Start, {"sandbox_id": box, "argv": ["id"]}),
                             (reader.Files.Remove, {"sandbox_id": box, "path": b"x"}),
                             (reader.Admin.ListTenants, {}), (reader.Admin.CreateKey, {})):
            self.refused(Code.PERMISSION_DENIED, call, **fields)
        admin = self.instance.with_key("default", ("admin",))
        self.assertTrue(admin.Admin.ListTenants().tenants)
        self.assertTrue(admin.Admin.WhoAmI().operator)

    def test_limits(self):
        call = self.admin.Admin.CreateKey
        self.refused(Code.NOT_FOUND, call, tenant="nosuch")
        self.invalid("name", call, tenant=self.tenant, name="x" * 129)
        self.invalid("scopes", call, tenant=self.tenant, scopes=["everything"])
        self.invalid("name", call, tenant=self.tenant, name="a\x1b[2J")
        self.assertEqual(sorted(call(tenant=self.tenant).key.scopes), ["read", "sandbox"])
        self.assertEqual(call().key.tenant, "default")

    def test_expiry(self):
        client = self.instance.with_key(self.tenant, ttl_ms=700)
        box = self.new_box()
        stream = client.Processes.Start(sandbox_id=box, argv=["sleep", "60"])
        next(stream)
        watch = client.Files.Watch(sandbox_id=box, path=b"/tmp")
        next(watch)
        control = self.client.Processes.Start(sandbox_id=box, argv=["sh", "-c", "sleep 1.5; echo control"])
        began = time.monotonic()
        for open_call in (stream, watch):
            self.refused(Code.UNAUTHENTICATED, lambda: list(open_call))
        self.assertLess(time.monotonic() - began, 1.2)
        self.refused(Code.UNAUTHENTICATED, client.Admin.WhoAmI)
        self.assertIn(b"control\n", [e.output.data for e in control])

    def test_revocation_cuts_live_streams(self):
        box = self.new_box()
        client = self.instance.with_key(self.tenant)
        other = self.instance.with_key(self.tenant)
        process = client.Processes.Start(sandbox_id=box, argv=["sleep", "60"])
        next(process)
        events = client.Sandboxes.WatchEvents()
        watch = client.Files.Watch(sandbox_id=box, path=b"/tmp")
        next(watch)
        control = other.Processes.Start(sandbox_id=box, argv=["sh", "-c", "sleep 1.5; echo control"])
        next(control)
        began = time.monotonic()
        self.assertGreater(self.admin.Admin.RevokeKey(key_id=client.key_id).revoked_unix_ms, 0)
        for stream in (process, events, watch):
            self.refused(Code.UNAUTHENTICATED, lambda: list(stream))
        self.assertLess(time.monotonic() - began, 1)
        self.refused(Code.UNAUTHENTICATED, client.Admin.WhoAmI)
        self.assertIn(b"control\n", [e.output.data for e in control])
        self.refused(Code.NOT_FOUND, self.admin.Admin.RevokeKey, key_id="0" * 16)
        self.refused(Code.NOT_FOUND, self.admin.Admin.RevokeKey, key_id="")

    def test_last_used(self):
        self.client.Admin.WhoAmI()

        def used():
            return next(k.last_used_unix_ms for k in self.admin.Admin.ListKeys(tenant=self.tenant).keys if k.id == self.client.key_id)
        wait_until(used, 5)


class Status(Case):
    def test_numbers(self):
        status = self.admin.Admin.GetStatus()
        self.assertGreaterEqual(status.sandboxes, 1)
        self.assertGreaterEqual(status.reserved_memory_bytes, 16 << 20)
        self.assertGreater(status.reservable_memory_bytes, status.reserved_memory_bytes)
        self.assertGreater(status.reservable_disk_bytes, 0)
        self.assertGreater(status.audit_records, 0)

        self.assertIn(os.uname().release, status.kernel)
