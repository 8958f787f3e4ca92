"""filesystem.Filesystem: the SDKs' contract, with an access token."""
import base64
import threading
import time

from api import Case, Code, grpc, unique
from paddock import wait_until


class Files(Case):
    def setUp(self):
        super().setUp()
        self.token = self.client.Sandboxes.GetAccess(sandbox_id=self.box).access_token
        self.files = self.instance.client().Filesystem
        self.dir = "/home/user/" + unique("dir")
        self.sh(f"mkdir {self.dir}")

    def headers(self, user=None):
        headers = [("e2b-sandbox-id", self.box), ("x-access-token", self.token)]
        return headers + ([("authorization", "Basic " + base64.b64encode(f"{user}:".encode()).decode())] if user else [])

    def call(self, method, user=None, **fields):
        return getattr(self.files, method)(grpc_metadata=self.headers(user), deadline=30, **fields)

    def no(self, code, method, user=None, **fields):
        return self.refused(code, self.call, method, user=user, **fields)

    def test_stat(self):
        self.sh(f"cd {self.dir}; printf hello > file; chmod 640 file; ln -s file link; ln -s nowhere broken; chmod 1777 .")
        entry = self.call("Stat", path=self.dir + "/file").entry
        self.assertEqual((entry.name, entry.type, entry.path, entry.size, entry.mode, entry.permissions, entry.owner, entry.group),
                         ("file", 1, self.dir + "/file", 5, 0o640, "-rw-r-----", "user", "user"))
        self.assertLess(abs(entry.modified_time.seconds - time.time()), 600)
        self.assertFalse(entry.HasField("symlink_target"))
        entry = self.call("Stat", path=self.dir).entry
        self.assertEqual((entry.type, entry.permissions, entry.mode), (2, "dtrwxrwxrwx", 0o777))
        entry = self.call("Stat", path=self.dir + "/link").entry
        self.assertEqual((entry.type, entry.mode, entry.symlink_target, entry.permissions), (1, 0o640, "file", "Lrwxrwxrwx"))
        self.assertEqual(self.call("Stat", path=self.dir + "/broken").entry.type, 0)
        relative = self.dir[len("/home/user/"):]
        for path in (relative, "~/" + relative):
            self.assertEqual(self.call("Stat", path=path).entry.path, self.dir)
        self.assertEqual(self.call("Stat", path="~").entry.path, "/home/user")
        self.assertEqual(self.call("Stat", path="~", user="root").entry.path, "/root")
        self.no(Code.NOT_FOUND, "Stat", path=self.dir + "/none")
        self.no(Code.INVALID_ARGUMENT, "Stat", path="~root/x")
        self.no(Code.PERMISSION_DENIED, "Stat", path="/root/x")

    def test_make_dir(self):
        entry = self.call("MakeDir", path=self.dir + "/a/b/c").entry
        self.assertEqual((entry.name, entry.type, entry.owner, entry.permissions), ("c", 2, "user", "drwxr-xr-x"))
        self.no(Code.ALREADY_EXISTS, "MakeDir", path=self.dir + "/a/b")
        self.sh(f"touch {self.dir}/file")
        self.no(Code.INVALID_ARGUMENT, "MakeDir", path=self.dir + "/file")
        self.no(Code.PERMISSION_DENIED, "MakeDir", path="/etc/x")

    def test_move(self):
        self.sh(f"cd {self.dir}; echo one > one; echo two > two")
        self.assertEqual(self.call("Move", source=self.dir + "/one", destination=self.dir + "/new/folder/one").entry.path, self.dir + "/new/folder/one")
        self.call("Move", source=self.dir + "/new/folder/one", destination=self.dir + "/two")
        self.assertEqual(self.sh(f"cat {self.dir}/two"), b"one\n")
        self.no(Code.NOT_FOUND, "Move", source=self.dir + "/none", destination=self.dir + "/made/x")
        self.assertEqual(self.sh(f"ls {self.dir}"), b"new\ntwo\n")

    def test_list(self):
        self.sh(f"cd {self.dir}; mkdir -p a/sub z; touch a-b a/2 a/10 a/sub/deep b; ln -s a la; ln -s none lb; touch $(printf 'bad\\377')")
        names = lambda **fields: [e.path[len(self.dir) + 1:] for e in self.call("ListDir", **fields).entries]
        self.assertEqual(names(path=self.dir), ["a", "a-b", "b", "la", "lb", "z"])
        self.assertEqual(names(path=self.dir, depth=1), names(path=self.dir))
        self.assertEqual(names(path=self.dir, depth=3), ["a", "a/10", "a/2", "a/sub", "a/sub/deep", "a-b", "b", "la", "lb", "z"])
        types = {e.name: e.type for e in self.call("ListDir", path=self.dir).entries}
        self.assertEqual(types, {"a": 2, "a-b": 1, "b": 1, "la": 2, "lb": 0, "z": 2})
        self.assertEqual(names(path=self.dir + "/z"), [])
        self.no(Code.NOT_FOUND, "ListDir", path=self.dir + "/none")
        self.no(Code.INVALID_ARGUMENT, "ListDir", path=self.dir + "/b")
        self.sh(f"mkdir {self.dir}/many; cd {self.dir}/many; seq 2500 | xargs touch")
        self.assertEqual(len(names(path=self.dir + "/many")), 2500)

    def test_remove(self):
        self.sh(f"mkdir -p {self.dir}/x/y; touch {self.dir}/x/y/z")
        self.call("Remove", path=self.dir + "/x")
        self.assertEqual(self.sh(f"ls {self.dir}"), b"")
        self.call("Remove", path=self.dir + "/x")
        self.no(Code.PERMISSION_DENIED, "Remove", path="/etc/passwd")

    def test_watch(self):
        stream = self.call("WatchDir", path=self.dir, recursive=True)
        self.assertEqual(next(stream).WhichOneof("event"), "start")
        self.sh(f"cd {self.dir}; echo x > one; mv one two; chmod 600 two; rm two; mkdir sub; sleep 0.3; echo y > sub/file")
        timer = threading.Timer(20, stream.cancel)
        timer.start()
        seen = []
        while ("sub/file", 2) not in seen:
            event = next(stream)
            if event.WhichOneof("event") == "filesystem":
                seen.append((event.filesystem.name, event.filesystem.type))
        timer.cancel()
        stream.cancel()
        for event in (("one", 1), ("one", 2), ("one", 4), ("two", 1), ("two", 5), ("two", 3), ("sub", 1), ("sub/file", 1)):
            self.assertIn(event, seen)
        self.assertLess(seen.index(("one", 4)), seen.index(("two", 1)))
        self.no(Code.NOT_FOUND, "WatchDir", path=self.dir + "/none")
        self.sh(f"touch {self.dir}/file")
        self.no(Code.INVALID_ARGUMENT, "WatchDir", path=self.dir + "/file")

    def test_watch_with_entries(self):
        stream = self.call("WatchDir", path=self.dir, include_entry=True)
        self.assertEqual(next(stream).WhichOneof("event"), "start")
        self.sh(f"cd {self.dir}; printf abcd > file; chmod 640 file; ln -s file link; ln -s none broken; mv file moved; rm moved; touch last")
        timer = threading.Timer(20, stream.cancel)
        timer.start()
        seen = []
        while ("last", 1) not in [(e.name, e.type) for e in seen]:
            event = next(stream)
            if event.WhichOneof("event") == "filesystem":
                seen.append(event.filesystem)
        timer.cancel()
        stream.cancel()
        find = lambda name, kind: next(e for e in seen if (e.name, e.type) == (name, kind))
        last = find("last", 1).entry
        self.assertEqual((last.name, last.path, last.type, last.size, last.owner), ("last", self.dir + "/last", 1, 0, "user"))
        self.assertTrue(find("broken", 1).entry.symlink_target.endswith("none"))
        for name, kind in (("file", 4), ("moved", 3)):
            self.assertFalse(find(name, kind).HasField("entry"))
        # What is gone when it is looked at has none, and is told all the same.
        self.assertTrue(find("moved", 1))

    def test_watcher(self):
        watcher = self.call("CreateWatcher", path=self.dir).watcher_id
        poll = lambda: [(e.name, e.type) for e in self.call("GetWatcherEvents", watcher_id=watcher).events]
        self.assertEqual(poll(), [])
        self.sh(f"cd {self.dir}; echo x > one; mv one two; rm two")
        seen = []
        for _ in range(100):
            seen += poll()
            if ("two", 3) in seen:
                break
            time.sleep(0.1)
        for event in (("one", 1), ("one", 2), ("one", 4), ("two", 1), ("two", 3)):
            self.assertIn(event, seen)
        self.assertEqual(poll(), [])
        time.sleep(1)
        self.sh(f"cd {self.dir}; for i in $(seq 5000); do : > f$i; done; sleep 1")
        self.no(Code.RESOURCE_EXHAUSTED, "GetWatcherEvents", watcher_id=watcher)
        self.sh(f"touch {self.dir}/again; sleep 0.5")
        self.assertIn(("again", 1), poll())
        # Nobody else's: not by another sandbox's token, not by another tenant.
        stranger = self.instance.tenant(unique("stranger"))
        headers = [("e2b-sandbox-id", self.box), ("authorization", "Bearer " + stranger.key)]
        self.refused(Code.NOT_FOUND, stranger.Filesystem.GetWatcherEvents, watcher_id=watcher, grpc_metadata=headers)
        headers = [("e2b-sandbox-id", self.new_box()), ("authorization", "Bearer " + self.client.key)]
        self.refused(Code.NOT_FOUND, self.client.Filesystem.RemoveWatcher, watcher_id=watcher, grpc_metadata=headers)
        self.call("RemoveWatcher", watcher_id=watcher)
        for method in ("GetWatcherEvents", "RemoveWatcher"):
            self.no(Code.NOT_FOUND, method, watcher_id=watcher)
        self.no(Code.NOT_FOUND, "CreateWatcher", path=self.dir + "/none")
        self.no(Code.INVALID_ARGUMENT, "CreateWatcher", path=self.dir + "/again")

    def test_watcher_with_entries(self):
        watcher = self.call("CreateWatcher", path=self.dir, include_entry=True).watcher_id
        plain = self.call("CreateWatcher", path=self.dir).watcher_id
        self.assertEqual(len(self.call("GetWatcherEvents", watcher_id=watcher).events), 0)
        self.sh(f"cd {self.dir}; printf abcd > kept; chmod 640 kept; ln -s kept link; ln -s none broken; echo > gone; rm gone; touch last")
        seen = []

        def done():
            seen.extend(self.call("GetWatcherEvents", watcher_id=watcher).events)
            return any(e.name == "last" for e in seen)
        wait_until(done, 10, "all events")
        find = lambda name, kind: next(e for e in seen if (e.name, e.type) == (name, kind))
        for event in (find("kept", 1), find("kept", 5)):
            self.assertEqual((event.entry.name, event.entry.path, event.entry.size, event.entry.permissions), ("kept", self.dir + "/kept", 4, "-rw-r-----"))
        self.assertEqual(find("link", 1).entry.type, 1, "a link has the type of what it leads to")
        self.assertEqual(find("broken", 1).entry.type, 0)
        # What is gone when it is looked at, and what was removed, is told without.
        self.assertFalse(find("gone", 1).HasField("entry"))
        self.assertFalse(find("gone", 3).HasField("entry"))
        self.assertEqual(len(self.call("GetWatcherEvents", watcher_id=watcher).events), 0, "each is told once")
        without = self.call("GetWatcherEvents", watcher_id=plain).events
        self.assertTrue(without and not any(e.HasField("entry") for e in without))
        for one in (watcher, plain):
            self.call("RemoveWatcher", watcher_id=one)

    def test_watcher_with_many_entries(self):
        """As many changes as one poll may have, each looked at; a poll that its caller gives up says so to the next."""
        watcher = self.call("CreateWatcher", path=self.dir, include_entry=True).watcher_id
        self.sh(f"cd {self.dir}; for i in $(seq 1500); do : > file$i; done; sync; touch last")
        time.sleep(1)
        seen = self.call("GetWatcherEvents", watcher_id=watcher).events
        self.assertEqual(len({e.name for e in seen if e.HasField("entry") and e.entry.name == e.name}), 1501)
        self.sh(f"cd {self.dir}; for i in $(seq 1500); do echo > file$i; done")
        time.sleep(1)
        with self.assertRaises(grpc.RpcError):
            self.files.GetWatcherEvents(watcher_id=watcher, grpc_metadata=self.headers(None), deadline=0.01)
        self.no(Code.RESOURCE_EXHAUSTED, "GetWatcherEvents", watcher_id=watcher)
        self.assertEqual(len(self.call("GetWatcherEvents", watcher_id=watcher).events), 0)
        self.call("RemoveWatcher", watcher_id=watcher)

    def test_metadata(self):
        self.client.write(self.box, f"{self.dir}/noted", b"x", metadata={"a": "1", "x-y": "z z"})
        self.assertEqual(dict(self.call("Stat", path=self.dir + "/noted").entry.metadata), {"a": "1", "x-y": "z z"})
        listed = {e.name: dict(e.metadata) for e in self.call("ListDir", path=self.dir).entries}
        self.assertEqual(listed["noted"], {"a": "1", "x-y": "z z"})
        moved = self.call("Move", source=self.dir + "/noted", destination=self.dir + "/moved").entry
        self.assertEqual(dict(moved.metadata), {"a": "1", "x-y": "z z"}, "it goes with the file")
        self.assertEqual(self.sh(f"python3 -c \"import os; print(os.getxattr('{self.dir}/moved', 'user.e2b.a'))\""), b"b'1'\n")

    def test_watchers_are_bounded_and_end_with_the_sandbox(self):
        box = self.new_box()
        headers = [("e2b-sandbox-id", box), ("authorization", "Bearer " + self.client.key)]
        made = [self.client.Filesystem.CreateWatcher(path="/tmp", grpc_metadata=headers).watcher_id for _ in range(16)]
        self.refused(Code.RESOURCE_EXHAUSTED, self.client.Filesystem.CreateWatcher, path="/tmp", grpc_metadata=headers)
        self.client.Filesystem.RemoveWatcher(watcher_id=made[0], grpc_metadata=headers)
        self.assertTrue(self.client.Filesystem.CreateWatcher(path="/tmp", grpc_metadata=headers).watcher_id)
        self.client.Sandboxes.Kill(sandbox_id=box)
        self.refused(Code.NOT_FOUND, self.client.Filesystem.GetWatcherEvents, watcher_id=made[1], grpc_metadata=headers)

    def test_refusals(self):
        stranger = self.instance.tenant(unique("stranger"))
        headers = [("e2b-sandbox-id", self.box), ("authorization", "Bearer " + stranger.key)]
        for method, fields in (("Stat", dict(path="/tmp")), ("MakeDir", dict(path="/tmp/x")), ("Move", dict(source="/tmp", destination="/x")),
                               ("ListDir", dict(path="/tmp")), ("Remove", dict(path="/tmp/x")), ("WatchDir", dict(path="/tmp"))):
            with self.subTest(method):
                self.refused(Code.NOT_FOUND, getattr(stranger.Filesystem, method), grpc_metadata=headers, **fields)
                self.refused(Code.INVALID_ARGUMENT, getattr(self.client.Filesystem, method), **fields)
                self.refused(Code.INVALID_ARGUMENT, self.call, method, user="nobody", **fields)
        reader = self.instance.with_key(self.tenant, ("read",))
        headers = [("e2b-sandbox-id", self.box), ("authorization", "Bearer " + reader.key)]
        self.assertEqual(reader.Filesystem.Stat(path="/tmp", grpc_metadata=headers).entry.type, 2)
        self.refused(Code.PERMISSION_DENIED, reader.Filesystem.MakeDir, path="/tmp/made", grpc_metadata=headers)
