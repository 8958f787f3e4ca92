"""Templates that are made of snapshots, and tags: what runs in them goes on, what they are made of stays as long as a name
needs it and no longer, and names are a tenant's own."""
import signal
import unittest

from api import pb
from criu import needs_criu
from own import OwnInstance
from paddock import enum


@needs_criu
class Made(OwnInstance):
    SETTINGS = {"pool": "4G"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = cls.instance.with_key("tenant", ("read", "sandbox", "template"))
        cls.other = cls.instance.tenant("stranger", ("read", "sandbox", "template"))

    def tearDown(self):
        for sandbox in self.client.Sandboxes.List(page_size=1000).sandboxes:
            self.client.Sandboxes.Kill(sandbox_id=sandbox.id)
        for template in self.client.Templates.List().templates:
            if template.tenant:
                self.client.Templates.Remove(template=template.name)
        for snapshot in self.client.Snapshots.List(page_size=1000).snapshots:
            self.client.Snapshots.Remove(snapshot=snapshot.id)

    def snapshot(self, script="echo made > /home/user/file", **fields):
        box = self.client.create(**fields).id
        self.assertEqual(self.client.run(box, "/bin/sh", "-c", script).code, 0)
        self.client.run(box, "/bin/sh", "-c", "while :; do sleep 1; done", detach=True)
        shot = self.client.Snapshots.Create(sandbox_id=box)
        self.client.Sandboxes.Kill(sandbox_id=box)
        return shot.id

    def make(self, name, shot=None, **fields):
        return self.client.Templates.CreateFromSnapshot(snapshot=shot or self.snapshot(), name=name, **fields)

    def sh(self, box, script, **fields):
        return self.client.run(box, "/bin/sh", "-c", script, **fields).out.decode()

    def names(self, client=None):
        return sorted(t.name for t in (client or self.client).Templates.List().templates if t.tenant)

    def test_files_and_processes_are_there(self):
        made = self.make("web", self.snapshot(env={"COLOUR": "red"}))
        self.assertEqual((made.name, made.tenant, made.digest, made.has_memory), ("web", "tenant", "", True))
        box = self.client.create(template="web")
        self.assertEqual((box.template_name, box.hostname), ("web", "paddock"))
        self.assertEqual(self.sh(box.id, "cat /home/user/file; echo $COLOUR"), "made\nred\n")
        self.assertEqual(len(self.client.Processes.List(sandbox_id=box.id).processes), 1)
        self.assertIn("while", self.client.Processes.List(sandbox_id=box.id).processes[0].argv[2])

    def test_files_only(self):
        shot = self.snapshot()
        self.make("web", shot)
        for fields in ({"template": "web"}, {"snapshot": shot}):
            box = self.client.create(files_only=True, **fields).id
            self.assertEqual(self.sh(box, "cat /home/user/file"), "made\n")
            self.assertEqual([p for p in self.client.Processes.List(sandbox_id=box).processes
                              if "while" in p.argv[-1]], [])
        # A sandbox like any other: it can be paused to disk, and be the source of a snapshot.
        self.client.run(box, "/bin/sh", "-c", "echo more > /home/user/more")
        self.client.Sandboxes.Pause(sandbox_id=box, mode=enum("PAUSE_MODE_CHECKPOINT"))
        self.client.Sandboxes.Resume(sandbox_id=box)
        copy = self.client.create(snapshot=self.client.Snapshots.Create(sandbox_id=box).id).id
        self.assertEqual(self.sh(copy, "cat /home/user/file /home/user/more"), "made\nmore\n")

    def test_it_outlives_its_snapshot_and_a_restart(self):
        shot = self.snapshot()
        self.make("web", shot)
        self.client.Snapshots.Remove(snapshot=shot)
        self.refused("NOT_FOUND", lambda: self.client.Snapshots.Get(snapshot=shot), "not found")
        self.assertEqual(list(self.client.Snapshots.List().snapshots), [])
        self.instance.stop_paddockd(signal.SIGKILL)
        self.instance.start_paddockd()
        self.client = self.instance.with_key("tenant", ("read", "sandbox", "template"))
        type(self).client = self.client
        self.other = type(self).other = self.instance.with_key("stranger", ("read", "sandbox", "template"))
        box = self.client.create(template="web").id
        self.assertEqual(self.sh(box, "cat /home/user/file"), "made\n")
        # Its last name takes it away: the pool holds nothing of it any more.
        self.client.Templates.Remove(template="web")
        self.client.Sandboxes.Kill(sandbox_id=box)
        self.refused("NOT_FOUND", lambda: self.client.create(snapshot=shot), "not found")

    def test_a_snapshot_stays_without_its_template(self):
        shot = self.snapshot()
        self.make("web", shot)
        self.client.Templates.Remove(template="web")
        self.refused("NOT_FOUND", lambda: self.client.create(template="web"), "template not found")
        self.assertEqual(self.sh(self.client.create(snapshot=shot).id, "cat /home/user/file"), "made\n")

    def test_tags(self):
        first, second = self.snapshot("echo 1 > /home/user/file"), self.snapshot("echo 2 > /home/user/file")
        self.make("web:v1", first)
        self.make("web", second)
        self.assertEqual(self.names(), ["web", "web:v1"])
        self.client.Templates.SetTags(target="web:v1", tags=["stable", "default"])
        self.assertEqual(self.names(), ["web", "web:stable", "web:v1"])
        for name in ("web", "web:default", "web:stable"):
            self.assertEqual(self.sh(self.client.create(template=name).id, "cat /home/user/file"), "1\n")
        self.refused("NOT_FOUND", lambda: self.client.Templates.RemoveTags(name="web", tags=["stable", "none"]), "not found")
        self.assertEqual(self.names(), ["web", "web:stable", "web:v1"])
        self.client.Templates.RemoveTags(name="web", tags=["stable", "default"])
        self.assertEqual(self.names(), ["web:v1"])
        self.assertEqual(self.client.Templates.Get(template="web:v1").name, "web:v1")

    def test_refusals(self):
        shot = self.snapshot()
        create = self.client.Templates.CreateFromSnapshot
        for name in ("", "Web", "web:", ":v", "web:v:w", "web:V", "x" * 64):
            self.refused("INVALID_ARGUMENT", lambda n=name: create(snapshot=shot, name=n), "name: ")
        self.refused("INVALID_ARGUMENT", lambda: create(snapshot=shot, name=shot), "look like an id")
        self.refused("NOT_FOUND", lambda: create(snapshot="none", name="web"), "snapshot not found")
        self.refused("NOT_FOUND", lambda: self.other.Templates.CreateFromSnapshot(snapshot=shot, name="web"),
                     "snapshot not found")
        self.make("web", shot)
        self.refused("ALREADY_EXISTS", lambda: create(snapshot=shot, name="web:default"), "name: exists")
        create(snapshot=shot, name="web", replace=True)
        tags = self.client.Templates.SetTags
        self.refused("INVALID_ARGUMENT", lambda: tags(target="web"), "tags: at least one")
        self.refused("INVALID_ARGUMENT", lambda: tags(target="web", tags=["a b"]), "tags: ")
        self.refused("INVALID_ARGUMENT", lambda: tags(target="web", tags=["t"] * 17), "tags: ")
        self.refused("NOT_FOUND", lambda: tags(target="nothing", tags=["t"]), "template not found")
        self.refused("PERMISSION_DENIED", lambda: tags(target="base", tags=["t"]), "public")
        self.refused("NOT_FOUND", lambda: self.other.Templates.SetTags(target="web", tags=["t"]), "template not found")
        self.refused("NOT_FOUND", lambda: self.other.Templates.RemoveTags(name="web", tags=["default"]), "not found")
        self.refused("NOT_FOUND", lambda: self.other.create(template="web"), "template not found")
        self.assertEqual(self.names(self.other), [])

    def test_quota_of_templates(self):
        self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(max_templates=2))
        self.addCleanup(lambda: self.instance.admin.Admin.SetQuota(tenant="tenant", quota=pb.Quota(max_templates=64)))
        shot = self.snapshot()
        self.make("web", shot)
        self.refused("RESOURCE_EXHAUSTED", lambda: self.client.Templates.SetTags(target="web", tags=["a", "b"]),
                     "max_templates")
        self.client.Templates.SetTags(target="web", tags=["a"])
        self.refused("RESOURCE_EXHAUSTED", lambda: self.make("more", shot), "max_templates")


if __name__ == "__main__":
    unittest.main()
