"""The audit log: complete, chained, and a changed byte in the store is found."""
import glob
import hashlib
import json
import os
import subprocess

from api import Case, Code, Instance, unique
from paddock import all_methods, wait_until


class Records(Case):
    def list(self, client=None, **fields):
        call, after, records = (client or self.client).Audit.List, 0, []
        while True:
            page = call(after_sequence=after, page_size=1000, **fields)
            records += page.records
            after = page.next_after_sequence
            if not after:
                return records

    def test_every_call_leaves_one_record(self):
        """One record per call, with who, what, on what, and how it ended."""
        box = self.new_box()
        before = len(self.list(sandbox_id=box))
        result = self.client.run(box, "/bin/echo", "x")
        self.client.write(box, "/tmp/f", b"x")
        self.client.read(box, "/tmp/f")
        self.client.Files.Stat(sandbox_id=box, path=b"/tmp/f")
        self.refused(Code.NOT_FOUND, self.client.Files.Stat, sandbox_id=box, path=b"/nosuch")
        self.client.Processes.Wait(sandbox_id=box, process_id=result.id)
        self.client.Sandboxes.GetUsage(sandbox_id=box)
        wanted = [("Processes/Start", "OK"), ("Files/Write", "OK"), ("Files/Read", "OK"), ("Files/Stat", "OK"), ("Files/Stat", "NOT_FOUND"),
                  ("Processes/Wait", "OK"), ("Sandboxes/GetUsage", "OK")]

        def seen():
            return [(r.action.rsplit(".", 1)[1], r.outcome) for r in self.list(sandbox_id=box)[before:] if "/" in r.action]
        wait_until(lambda: sorted(seen()) == sorted(wanted), 5, "records of the calls")
        for record in self.list(sandbox_id=box):
            self.assertEqual((record.tenant, record.sandbox_id), (self.tenant, box))
            self.assertIn(record.actor, (self.client.key_id, "system"))
            self.assertGreater(record.time_unix_ms, 0)
            if record.detail:
                json.loads(record.detail)

    def test_start_names_the_command(self):
        self.client.run(self.box, "/bin/echo", "line\nbreak", "\x1b[31m", env={"TOKEN": "s3cr3t-value"})
        record = [r for r in self.list(sandbox_id=self.box) if r.action.endswith("Processes/Start")][-1]
        self.assertEqual(json.loads(record.detail)["argv"], ["/bin/echo", "line\nbreak", "\x1b[31m"])
        self.assertNotIn("\n", record.detail)
        self.assertNotIn("\x1b", record.detail)
        self.assertNotIn("s3cr3t-value", record.detail)

    def test_refused_calls_are_recorded(self):
        name = unique("nosuch")
        self.refused(Code.PERMISSION_DENIED, self.client.Admin.CreateTenant, name=name)
        self.refused(Code.NOT_FOUND, self.client.Sandboxes.Get, sandbox_id="i" + "z" * 20)
        wait_until(lambda: {("paddock.v1.Admin/CreateTenant", "PERMISSION_DENIED"), ("paddock.v1.Sandboxes/Get", "NOT_FOUND")}
                   <= {(r.action, r.outcome) for r in self.list()}, 5)

    def test_expiry_and_sudo_are_events(self):
        box = self.client.create(timeout_ms=1000).id
        self.client.run(box, "sudo", "true")
        wait_until(lambda: any("expired" in r.action for r in self.list(sandbox_id=box)), 10, "sandbox.expired")
        self.assertTrue(any("sudo" in r.action for r in self.list(sandbox_id=box)))

    def test_pages_and_filters(self):
        everything = self.list()
        sequences = [r.sequence for r in everything]
        self.assertEqual(sequences, sorted(set(sequences)))
        page = self.client.Audit.List(page_size=2)
        self.assertEqual([r.sequence for r in page.records], sequences[:2])
        newest = self.client.Audit.List(page_size=2, newest_first=True).records
        self.assertGreater(newest[0].sequence, newest[1].sequence)
        creates = self.client.Audit.List(action_prefix="paddock.v1.Sandboxes/Cr").records
        self.assertEqual({r.action for r in creates}, {"paddock.v1.Sandboxes/Create"})
        self.invalid("page_size", self.client.Audit.List, page_size=1001)

    def test_the_chain_can_be_checked_elsewhere(self):
        previous, sequence = None, 0
        for record in self.admin.Audit.Export():
            self.assertEqual(record.sequence, sequence + 1)
            if previous is not None:
                self.assertEqual(record.previous_hash, previous)
            self.assertEqual(record.hash, hashlib.sha256(record.previous_hash + record.stored).digest())
            copy = type(record)()
            copy.ParseFromString(record.stored)
            self.assertEqual((copy.sequence, copy.action, copy.actor, copy.detail), (record.sequence, record.action, record.actor, record.detail))
            previous, sequence = record.hash, record.sequence
        self.assertGreater(sequence, 20)
        verified = self.admin.Audit.Verify()
        self.assertTrue(verified.ok, verified.text)
        self.assertGreaterEqual(verified.records, sequence)
        tail = list(self.admin.Audit.Export(after_sequence=sequence - 3))
        self.assertGreaterEqual(len(tail), 3)
        self.assertEqual(tail[0].sequence, sequence - 2)

    def test_actions_are_methods_or_events(self):
        calls = {r.action for r in self.admin.Audit.Export() if "/" in r.action}
        self.assertLessEqual(calls, {path[1:] for path in all_methods()})
        self.assertGreater(len(calls), 3)


class Checkpoints(Case):
    """Signed checkpoints (A04): what the chain alone cannot show. Checked with openssl and the command line."""
    SANDBOX = False

    @classmethod
    def setUpClass(cls):
        cls.instance = Instance(template=None)
        cls.instance.__enter__()
        cls.admin = cls.instance.admin

    @classmethod
    def tearDownClass(cls):
        cls.instance.stop()

    def restart(self, change=None):
        self.instance.stop_paddockd()
        if change:
            change()
        self.instance.start_paddockd()
        return self.instance.admin.Audit.Verify()

    def path(self, name):
        return f"{self.instance.data}/{name}"

    def copy(self, name):
        subprocess.run(["rm", "-rf", self.path(name)], check=True)
        os.mkdir(self.path(name))
        for source in ["store"] + [os.path.basename(p) for p in glob.glob(self.path("audit.*"))]:
            subprocess.run(["cp", "-a", self.path(source), self.path(name)], check=True)

    def put_back(self, name, *sources):
        for source in sources:
            subprocess.run(["rm", "-rf", self.path(source)], check=True)
            subprocess.run(["cp", "-a", f"{self.path(name)}/{source}", self.path(source)], check=True)

    def test_files(self):
        self.assertEqual(os.stat(self.path("audit.key")).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(self.path("audit.checkpoints")).st_mode & 0o777, 0o600)
        self.assertEqual(self.admin.Audit.GetKey().public_key, self.read("audit.pub"))
        self.assertNotIn("PRIVATE", self.read("audit.pub"))

    def read(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def signed_by(self, line, key):
        signed, signature = line.rsplit(" ", 1)
        with open(self.path("message"), "w") as f:
            f.write(signed)
        with open(self.path("signature"), "wb") as f:
            f.write(bytes.fromhex(signature))
        return subprocess.run(["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", key, "-in", self.path("message"),
                               "-sigfile", self.path("signature")], capture_output=True).returncode == 0

    def test_openssl_agrees(self):
        verified = self.restart()
        self.assertTrue(verified.ok, verified.text)
        with open(self.instance.log) as f:
            logged = [entry["checkpoint"] for entry in map(json.loads, f) if entry.get("event") == "audit.checkpoint"]
        lines = self.read("audit.checkpoints").splitlines() + self.read("audit.head").splitlines()
        self.assertGreaterEqual(len(lines), 3)
        for line in lines:
            self.assertTrue(self.signed_by(line, self.path("audit.pub")), line)
        self.assertFalse(self.signed_by(line.replace(" 1 ", " 2 ", 1), self.path("audit.pub")))
        self.assertIn(logged[-1], lines)

    def calls(self):
        """Leave records; those of calls that only look are not waited for."""
        before = self.instance.admin.Admin.GetStatus().audit_records
        for _ in range(5):
            self.instance.admin.Admin.WhoAmI()
        wait_until(lambda: self.instance.admin.Admin.GetStatus().audit_records > before + 5, 20)

    def test_export_carries_them(self):
        self.calls()
        self.restart()
        self.calls()
        records = list(self.instance.admin.Audit.Export())
        marked = [r for r in records if r.checkpoint]
        self.assertGreaterEqual(len(marked), 2)
        self.assertEqual(marked[-1].sequence, records[-1].sequence)
        for record in marked:
            word, version, count, digest = record.checkpoint.split()[:4]
            self.assertEqual((word, version, int(count), digest), ("paddock-audit-checkpoint", "1", record.sequence, record.hash.hex()))
            self.assertTrue(self.signed_by(record.checkpoint, self.path("audit.pub")))

    def test_roll_back_is_found(self):
        self.restart()
        self.instance.stop_paddockd()
        self.copy("older")
        self.instance.start_paddockd()
        self.calls()
        newer = self.restart(lambda: self.copy("newer"))
        self.assertTrue(newer.ok, newer.text)
        rolled = self.restart(lambda: self.put_back("older", "store"))
        self.assertFalse(rolled.ok)
        self.assertRegex(rolled.text, "rolled back|rewritten")  # rewritten, once new records stand where the lost ones stood
        self.assertFalse(self.restart(lambda: self.put_back("older", "store", "audit.head")).ok, "the history still knows")
        with_files = self.restart(lambda: self.put_back("newer", "store", "audit.head", "audit.checkpoints"))
        self.assertTrue(with_files.ok, with_files.text)

    def test_another_key_is_found_and_acceptance_is_recorded(self):
        self.instance.stop_paddockd()
        self.copy("before")
        other = self.path("other.key")
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", other], check=True)
        subprocess.run(["chown", "paddock:", other], check=True)
        os.chmod(other, 0o600)
        os.rename(other, self.path("audit.key"))
        self.instance.start_paddockd()
        self.calls()
        found = self.instance.admin.Audit.Verify()
        self.assertFalse(found.ok)
        self.assertIn("not signed", found.text)
        self.assertFalse(list(self.instance.admin.Audit.Export())[-1].checkpoint, "nothing is signed while it is broken")
        with open(self.path("audit.accept"), "w"):
            pass
        self.assertFalse(self.restart().ok, "a file that cannot be removed would count for ever")
        subprocess.run(["chown", "paddock:", self.path("audit.accept")], check=True)
        accepted = self.restart()
        self.assertTrue(accepted.ok, accepted.text)
        # Nobody waits for that record, so it is stored a moment later.
        wait_until(lambda: "audit.anchor_accepted" in {r.action for r in self.instance.admin.Audit.Export()}, 20, "the acceptance is recorded")
        self.assertTrue(self.restart(lambda: self.put_back("before", "store", "audit.head", "audit.checkpoints", "audit.key")).ok)


class Tampering(Case):
    SANDBOX = False

    @classmethod
    def setUpClass(cls):
        cls.instance = None

    @classmethod
    def tearDownClass(cls):
        pass

    def store_files(self, instance):
        return [p for p in glob.glob(instance.data + "/**/data.mdb", recursive=True)]

    def test_a_changed_record_is_found(self):
        mark = unique("tamper") + "-mark"
        with Instance(template=None) as instance:
            admin = instance.admin
            admin.Admin.CreateTenant(name=mark)
            for _ in range(20):
                admin.Admin.WhoAmI()
            self.assertTrue(admin.Audit.Verify().ok)
            instance.stop_paddockd()
            files = self.store_files(instance)
            self.assertTrue(files)
            changed = 0
            for path in files:
                with open(path, "rb") as f:
                    data = f.read()
                # Only copies inside audit records: those that stand beside the action's name.
                at = data.find(mark.encode())
                while at >= 0:
                    if b"CreateTenant" in data[max(0, at - 300):at + 300]:
                        data = data[:at] + b"T" + data[at + 1:]
                        changed += 1
                    at = data.find(mark.encode(), at + 1)
                with open(path, "r+b") as f:
                    f.write(data)
            self.assertGreater(changed, 0)
            instance.start_paddockd()
            result = instance.admin.Audit.Verify()
            self.assertFalse(result.ok)
            self.assertGreater(result.first_bad_sequence, 0)
            self.assertTrue(result.text)

    def test_records_survive_restarts(self):
        with Instance(template=None) as instance:
            first = [(r.sequence, r.hash) for r in instance.admin.Audit.Export()]
            instance.stop_paddockd()
            instance.start_paddockd()
            second = [(r.sequence, r.hash) for r in instance.admin.Audit.Export()]
            self.assertEqual(second[:len(first)], first)
            self.assertGreater(len(second), len(first))
            self.assertTrue(instance.admin.Audit.Verify().ok)

    def test_state_is_private(self):
        """H04"""
        with Instance(template=None) as instance:
            for path in self.store_files(instance):
                self.assertEqual(os.stat(path).st_mode & 0o077, 0, path)
                self.assertEqual(os.stat(os.path.dirname(path)).st_mode & 0o077, 0, path)
