"""The daemon itself: configuration, health, reflection, metrics, deadlines, restarts, TLS."""
import contextlib
import glob
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from google.protobuf import descriptor_pb2

from api import Case, Code, Instance, grpc
import host
from paddock import PADDOCKD, SOURCE, enum, free_port, message_class, wait_until


class Health(Case):
    SANDBOX = False

    def check(self, service=""):
        return self.instance.client().Health.Check(service=service).status

    def test_check(self):
        self.assertEqual(self.check(), 1)
        for service in ("paddock.v1.Sandboxes", "paddock.v1.Files", "grpc.health.v1.Health"):
            self.assertEqual(self.check(service), 1)
        self.refused(Code.NOT_FOUND, self.check, "paddock.v1.Nosuch")

    def test_watch(self):
        stream = self.instance.client().Health.Watch(service="", deadline=10)
        self.assertEqual(next(stream).status, 1)
        stream.cancel()
        stream = self.instance.client().Health.Watch(service="nosuch", deadline=10)
        self.assertEqual(next(stream).status, 3)
        stream.cancel()


class Reflection(Case):
    SANDBOX = False

    def ask(self, package, **question):
        request = message_class(f"grpc.reflection.{package}.ServerReflectionRequest")(**question)
        replies = list(self.client.call(f"/grpc.reflection.{package}.ServerReflection/ServerReflectionInfo", iter([request]), deadline=10))
        self.assertEqual(len(replies), 1)
        return replies[0]

    def test_list_and_describe(self):
        for package in ("v1", "v1alpha"):
            names = {s.name for s in self.ask(package, list_services="").list_services_response.service}
            self.assertLessEqual({"paddock.v1.Sandboxes", "paddock.v1.Processes", "paddock.v1.Files", "paddock.v1.Templates", "paddock.v1.Admin",
                                  "paddock.v1.Audit", "grpc.health.v1.Health"}, names)
            found = self.ask(package, file_containing_symbol="paddock.v1.Processes").file_descriptor_response.file_descriptor_proto
            file = descriptor_pb2.FileDescriptorProto.FromString(found[0])
            start = next(m for s in file.service for m in s.method if m.name == "Start")
            self.assertTrue(start.server_streaming, "the stream keyword is kept")
            self.assertTrue(self.ask(package, file_by_filename="paddock/v1/files.proto").file_descriptor_response.file_descriptor_proto)
            self.assertEqual(self.ask(package, file_containing_symbol="no.Such").error_response.error_code, 5)

    def test_off_by_default(self):
        with Instance(template=None, reflection="false") as quiet:
            client = quiet.client()
            with self.assertRaises(grpc.RpcError) as raised:
                request = message_class("grpc.reflection.v1.ServerReflectionRequest")(list_services="")
                list(client.call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", iter([request]), deadline=5))
            self.assertIn(raised.exception.code(), (Code.UNIMPLEMENTED, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED))


class Metrics(Case):
    def scrape(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.instance.metrics_port}/metrics", timeout=5) as reply:
            self.assertTrue(reply.headers["Content-Type"].startswith("text/plain"))
            return reply.read().decode()

    def value(self, name):
        match = re.search(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", self.scrape(), re.M)
        self.assertTrue(match, f"no metric {name}")
        return float(match.group(1))

    def test_exposition_format(self):
        text = self.scrape()
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) [a-z_]+ .*|paddock_[a-z_]+(\{([a-z]+="[^"\n]*",?)*\})? [-+0-9.eInfNa]+)$')
        self.assertIn("# TYPE", text)

    def test_they_move(self):
        names = set(re.findall(r"^(paddock_[a-z_]+)", self.scrape(), re.M))
        started = next(n for n in sorted(names) if "processes_started" in n)
        before = self.value(started)
        self.client.run(self.box, "/bin/true")
        self.assertGreaterEqual(self.value(started), before + 1)
        self.assertTrue(any("audit" in n for n in names) and any("sandboxes" in n for n in names))

    def test_nothing_of_a_client_is_a_label(self):
        self.client.create(metadata={"label": "evil-metadata-value"}, hostname="evil-hostname")
        self.assertNotIn("evil", self.scrape())

    def test_other_paths(self):
        for path in ("/", "/../etc/passwd", "/metrics/../../x"):
            with self.assertRaises(urllib.error.HTTPError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.instance.metrics_port}{path}", timeout=5)


class Deadlines(Case):
    def test_unary(self):
        started = self.client.run(self.box, "sleep", "60", detach=True)
        began = time.monotonic()
        self.refused(Code.DEADLINE_EXCEEDED, self.client.Processes.Wait, sandbox_id=self.box, process_id=started.id, deadline=0.3)
        self.assertLess(time.monotonic() - began, 1.5)

    def test_stream(self):
        self.refused(Code.DEADLINE_EXCEEDED, self.client.Processes.Start, sandbox_id=self.box, argv=["sleep", "60"], deadline=0.5)

    def test_already_over(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.client.create(deadline=0.000001)
        self.assertEqual(raised.exception.code(), Code.DEADLINE_EXCEEDED)

    def test_cancel_storm_leaves_no_calls(self):
        for _ in range(200):
            self.client.Processes.Start(sandbox_id=self.box, argv=["true"]).cancel()
            self.client.Files.Read(sandbox_id=self.box, path=b"/etc/passwd").cancel()
            self.client.Sandboxes.WatchEvents().cancel()
        self.kept_alive()

    def test_client_that_vanishes(self):
        """A connection that is cut without a goodbye frees its calls."""
        pid = self.instance.paddockd.pid
        before = len(os.listdir(f"/proc/{pid}/fd"))
        script = ("import sys; sys.path[:0] = sys.argv[3:]; from paddock import Client\n"
                  "c = Client(sys.argv[1], sys.argv[2])\n"
                  f"calls = [c.Processes.Start(sandbox_id='{self.box}', argv=['sleep', '30']) for _ in range(20)]\n"
                  "[next(x) for x in calls]; import os; os.kill(os.getpid(), 9)")
        subprocess.run(["/usr/bin/python3", "-c", script, f"127.0.0.1:{self.instance.port}", self.client.key, SOURCE + "/tests/lib"])
        wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 20 * 3 + 8, 15)
        self.kept_alive()


class Robustness(Case):
    def test_garbage_on_the_socket(self):
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, os.urandom(5000), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(500), b""):
            with socket.create_connection(("127.0.0.1", self.instance.port), 5) as s, contextlib.suppress(OSError):
                s.sendall(data)
                s.settimeout(0.3)
                s.recv(100)
        self.kept_alive()

    def test_many_connections(self):
        clients = [self.instance.client(key=self.client.key) for _ in range(60)]
        for client in clients:
            self.assertEqual(client.Admin.WhoAmI().tenant, self.tenant)
        for client in clients:
            client.close()
        self.kept_alive()

    def test_log_is_json_lines(self):
        """No client input reaches a log line unescaped."""
        with contextlib.suppress(grpc.RpcError):
            self.client.create(template="a\nb\x1b[31m\"quote")
        with open(self.instance.log, "rb") as f:
            lines = f.read().splitlines()
        self.assertTrue(lines)
        for line in lines:
            json.loads(line)
            self.assertNotIn(b"\x1b", line)

    def test_memory_returns(self):
        pid = self.instance.paddockd.pid
        for _ in range(100):
            self.client.run(self.box, "/bin/true")
        before = host.rss(pid)
        for _ in range(400):
            self.client.run(self.box, "/bin/true")
        self.assertLess(host.rss(pid) - before, host.memory(8 << 20))


class Configuration(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="paddock-conf.")
        self.addCleanup(lambda: subprocess.run(["rm", "-rf", self.folder]))
        self.path = self.folder + "/paddock.conf"

    def run_it(self, text, *options, mode=0o644):
        with open(self.path, "w") as f:
            f.write(text)
        os.chmod(self.path, mode)
        return subprocess.run([PADDOCKD, "--config", self.path, "-n", *options], capture_output=True, text=True, timeout=20)

    def test_effective_configuration(self):
        done = self.run_it("listen = 127.0.0.1:9999\n\n# comment\ndefault_memory_bytes = 1G\ndefault_timeout_ms = 10m\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        shown = dict(line.split(" = ", 1) for line in done.stdout.splitlines() if " = " in line and not line.startswith("#"))
        self.assertEqual(shown["listen"], "127.0.0.1:9999")
        self.assertEqual(shown["default_template"], "base")
        with open(self.folder + "/again", "w") as f:
            f.write(done.stdout)
        again = subprocess.run([PADDOCKD, "--config", self.folder + "/again", "-n"], capture_output=True, text=True, timeout=20)
        self.assertEqual((again.returncode, again.stdout), (0, done.stdout), again.stderr)

    def test_set_wins(self):
        done = self.run_it("pool_size = 3\n", "--set", "pool_size=9")
        self.assertIn("pool_size = 9\n", done.stdout)

    def test_errors_name_file_and_line(self):
        for text, line in (("nonsense = 1\n", 1), ("\n\nlisten\n", 3), ("pool_size = many\n", 1), ("pool_size = -1\n", 1), ("# x\npool_size = 1\npool_size = 2\n", 3),
                           ("default_memory_bytes = 99999999999999999999\n", 1), ("log_level = loud\n", 1), ("reflection = maybe\n", 1),
                           ("data_dir = " + "x" * 5000 + "\n", 1)):
            with self.subTest(text=text[:30]):
                done = self.run_it(text)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(f"{self.path}:{line}", done.stderr)
                self.assertLess(len(done.stderr), 1000)

    def test_refusals(self):
        for text in ("listen = 0.0.0.0:7411\n", "metrics_listen = 0.0.0.0:7412\n", "tls_certificate = /x.pem\n", "listen = nonsense\n",
                     "listen = 127.0.0.1:99999\n", "data_dir = relative\n", "a\0b = 1\n"):
            with self.subTest(text=text.strip()):
                done = self.run_it(text)
                self.assertNotEqual(done.returncode, 0, text)
                self.assertTrue(done.stderr.strip())

    def test_file_that_others_can_write(self):
        self.assertNotEqual(self.run_it("pool_size = 1\n", mode=0o666).returncode, 0)
        self.assertEqual(self.run_it("pool_size = 1\n", mode=0o644).returncode, 0)

    def test_missing_file_and_bad_options(self):
        for options in (["--config", self.folder + "/nosuch", "-n"], ["--nosuch"], ["--set", "nonsense=1", "-n"], ["--set", "nonsense"]):
            with self.subTest(options=options[0]):
                done = subprocess.run([PADDOCKD, *options], capture_output=True, text=True, timeout=20)
                self.assertNotEqual(done.returncode, 0)
                self.assertTrue(done.stderr.strip())

    def test_version_and_help(self):
        for option in ("--version", "--help"):
            self.assertEqual(subprocess.run([PADDOCKD, option], capture_output=True, timeout=20).returncode, 0)


class Restart(unittest.TestCase):
    """paddockd ends and starts again: sandboxes, processes and their output are still there."""

    def check_survival(self, how):
        with Instance() as private:
            client = private.tenant("tenant")
            box = client.create(metadata={"k": "v"}).id
            done = client.run(box, "echo before; exit 3")
            running = client.run(box, "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done", detach=True)
            cat = client.run(box, "cat", open_stdin=True, detach=True)
            client.write(box, "/home/user/f", b"kept")
            time.sleep(0.3)
            private.stop_paddockd(how)
            time.sleep(0.5)
            private.start_paddockd()
            wait_until(lambda: self.alive(client), 20)
            again = client.Sandboxes.Get(sandbox_id=box)
            self.assertEqual((again.state, dict(again.metadata)), (enum("SANDBOX_STATE_RUNNING"), {"k": "v"}))
            self.assertEqual(client.read(box, "/home/user/f"), b"kept")
            self.assertEqual(client.Processes.Wait(sandbox_id=box, process_id=done.id).exit_code, 3)
            follow = client.Processes.Attach(sandbox_id=box, process_id=running.id, deadline=20)
            text = b""
            for event in follow:
                text += event.output.data
                if text.count(b"\n") > 30:
                    break
            follow.cancel()
            numbers = [int(n) for n in text.rsplit(b"\n", 1)[0].split()]
            self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))), "nothing lost, nothing twice")
            client.Processes.SendInput(sandbox_id=box, process_id=cat.id, data=b"late input\n")
            client.Processes.CloseStdin(sandbox_id=box, process_id=cat.id)
            self.assertEqual(client.Processes.Wait(sandbox_id=box, process_id=cat.id, deadline=10).exit_code, 0)
            self.assertEqual(client.run(box, "/bin/echo", "new").out, b"new\n")
            self.assertTrue(private.admin.Audit.Verify().ok)
            client.Sandboxes.Kill(sandbox_id=box)
        self.assertEqual(private.complaints, [])

    def alive(self, client):
        with contextlib.suppress(grpc.RpcError):
            return client.Admin.WhoAmI(deadline=2)

    def test_graceful(self):
        self.check_survival(signal.SIGTERM)

    def test_killed(self):
        self.check_survival(signal.SIGKILL)

    def test_shutdown_ends_streams_in_time(self):
        with Instance(shutdown_grace_ms="1000") as private:
            client = private.tenant("tenant")
            box = client.create().id
            follow = client.Processes.Start(sandbox_id=box, argv=["sleep", "600"])
            next(follow)
            began = time.monotonic()
            private.stop_paddockd()
            self.assertLess(time.monotonic() - began, 6)
            with self.assertRaises(grpc.RpcError) as raised:
                list(follow)
            self.assertIn(raised.exception.code(), (Code.UNAVAILABLE, Code.CANCELLED))
            private.start_paddockd()

    def test_second_daemon_is_refused(self):
        """One process at a time on a store."""
        with Instance(template=None) as private:
            settings = ["--set", "listen=", "--set", "metrics_listen="]
            second = subprocess.run([PADDOCKD, "--config", private.conf, *settings], capture_output=True, text=True, timeout=30)
            self.assertNotEqual(second.returncode, 0)
            self.assertTrue(private.admin.Admin.WhoAmI().operator)

    def test_without_the_warden(self):
        with Instance(template=None) as private:
            private.warden.send_signal(signal.SIGKILL)
            private.warden.wait()
            with self.assertRaises(grpc.RpcError) as raised:
                private.admin.Sandboxes.Create(deadline=20)
            self.assertIn(raised.exception.code(), (Code.UNAVAILABLE, Code.NOT_FOUND))
            self.assertTrue(private.admin.Admin.WhoAmI().operator)


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


class Tls(unittest.TestCase):
    def make(self, name, ca=None, days="2"):
        """A key and a certificate for localhost, signed by `ca` or by itself."""
        path = f"{self.folder}/{name}"
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path + ".key", "-out", path + ".csr",
                "-subj", f"/CN={name}")
        with open(path + ".ext", "w") as f:
            f.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n" if ca else "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,digitalSignature\n")
        signer = ["-CA", f"{self.folder}/{ca}.pem", "-CAkey", f"{self.folder}/{ca}.key", "-CAcreateserial"] if ca else ["-signkey", path + ".key"]
        openssl("x509", "-req", "-in", path + ".csr", "-days", days, "-extfile", path + ".ext", "-out", path + ".pem", *signer)
        return path

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="paddock-tls.")
        os.chmod(self.folder, 0o755)
        self.addCleanup(lambda: subprocess.run(["rm", "-rf", self.folder]))
        self.make("ca")
        self.make("first", "ca")

    def install(self, name):
        """The way of certbot and others: written aside, then renamed."""
        for kind in ("pem", "key"):
            with open(f"{self.folder}/{name}.{kind}", "rb") as f, open(f"{self.folder}/new", "wb") as new:
                new.write(f.read())
            subprocess.run(["chown", "paddock", self.folder + "/new"], check=True)
            os.chmod(self.folder + "/new", 0o600)
            os.rename(self.folder + "/new", f"{self.folder}/server.{kind}")

    def credentials(self, client=None):
        def read(path):
            with open(path, "rb") as f:
                return f.read()
        ca = read(self.folder + "/ca.pem")
        if client:
            return grpc.ssl_channel_credentials(ca, read(client + ".key"), read(client + ".pem"))
        return grpc.ssl_channel_credentials(ca)

    def serial(self, port):
        context = ssl.create_default_context(cafile=self.folder + "/ca.pem")
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", port), 5) as raw, context.wrap_socket(raw, server_hostname="localhost") as s:
            return s.getpeercert()["serialNumber"], s.version()

    def settings(self, **more):
        return dict(tls_certificate=self.folder + "/server.pem", tls_key=self.folder + "/server.key", template=None, **more)

    def test_tls_and_rotation(self):
        Instance(template=None).stop()
        self.install("first")
        with Instance(**self.settings()) as private:
            private.admin.Admin.CreateTenant(name="tenant")
            key = private.admin.Admin.CreateKey(tenant="tenant").secret
            client = private.client(f"127.0.0.1:{private.port}", key, credentials=self.credentials())
            self.assertEqual(client.Admin.WhoAmI().tenant, "tenant")
            events = client.Sandboxes.WatchEvents()
            plain = private.client(key=key)
            with self.assertRaises(grpc.RpcError) as raised:
                plain.Admin.WhoAmI(deadline=5)
            self.assertIn(raised.exception.code(), (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED))
            before, version = self.serial(private.port)
            self.assertIn(version, ("TLSv1.2", "TLSv1.3"))
            self.make("second", "ca")
            self.install("second")
            wait_until(lambda: self.serial(private.port)[0] != before, 30, "the new certificate is served")
            self.assertEqual(client.Admin.WhoAmI().tenant, "tenant")
            self.assertTrue(events.is_active(), "an open stream is not cut by a rotation")
            self.assertEqual(private.client(f"127.0.0.1:{private.port}", key, credentials=self.credentials()).Admin.WhoAmI().tenant, "tenant")
            # A damaged file on disk does not stop the service: the last good one goes on.
            with open(self.folder + "/server.pem", "w") as f:
                f.write("garbage")
            time.sleep(2)
            self.assertEqual(private.client(f"127.0.0.1:{private.port}", key, credentials=self.credentials()).Admin.WhoAmI().tenant, "tenant")
            events.cancel()

    def test_old_protocols_are_refused(self):
        self.install("first")
        with Instance(**self.settings()) as private:
            self.serial(private.port)
            done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{private.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
                                  stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
            self.assertNotEqual(done.returncode, 0)

    def test_mutual(self):
        self.install("first")
        good = self.make("client", "ca")
        self.make("other-ca")
        stranger = self.make("stranger", "other-ca")
        with Instance(**self.settings(tls_client_ca=self.folder + "/ca.pem")) as private:
            private.admin.Admin.CreateTenant(name="tenant")
            key = private.admin.Admin.CreateKey(tenant="tenant").secret
            target = f"127.0.0.1:{private.port}"
            self.assertEqual(private.client(target, key, credentials=self.credentials(good)).Admin.WhoAmI().tenant, "tenant")
            with self.assertRaises(grpc.RpcError) as raised:
                private.client(target, credentials=self.credentials(good)).Admin.WhoAmI(deadline=5)
            self.assertEqual(raised.exception.code(), Code.UNAUTHENTICATED, "a certificate does not replace the key")
            for credentials in (self.credentials(), self.credentials(stranger)):
                with self.assertRaises(grpc.RpcError) as raised:
                    private.client(target, key, credentials=credentials).Admin.WhoAmI(deadline=5)
                self.assertIn(raised.exception.code(), (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED))

    def test_bad_files_stop_the_start(self):
        self.make("second", "ca")
        self.install("first")
        os.replace(self.folder + "/second.key", self.folder + "/server.key")
        for certificate in ("server.pem", "nosuch.pem"):
            done = subprocess.run([PADDOCKD, "--config", "/dev/null", "--set", f"data_dir={self.folder}/d", "--set", f"runtime_dir={self.folder}/r",
                                   "--set", f"listen=127.0.0.1:{free_port()}", "--set", "metrics_listen=",
                                   "--set", f"tls_certificate={self.folder}/{certificate}", "--set", f"tls_key={self.folder}/server.key"],
                                  capture_output=True, text=True, timeout=30)
            self.assertNotEqual(done.returncode, 0)


class SideBySide(unittest.TestCase):
    def test_two_instances(self):
        """H07"""
        with Instance() as one, Instance() as two:
            a, b = one.tenant("same"), two.tenant("same")
            box = a.create().id
            with self.assertRaises(grpc.RpcError):
                b.Sandboxes.Get(sandbox_id=box)
            with self.assertRaises(grpc.RpcError):
                two.client(key=a.key).Admin.WhoAmI()
            two.kill_sandboxes()
            self.assertEqual(a.run(box, "/bin/echo", "mine").out, b"mine\n")


class LeavesNothing(unittest.TestCase):
    def test_after_stop(self):
        """After the daemons have ended nothing of the instance is mounted, running or listening."""
        private = Instance()
        with private:
            client = private.tenant("tenant")
            for _ in range(3):
                client.run(client.create().id, "sleep", "300", detach=True)
        with open("/proc/self/mountinfo") as f:
            self.assertNotIn(private.dir, f.read())
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                with open(path, "rb") as f:
                    self.assertNotIn(private.dir.encode(), f.read())
        self.assertFalse(os.path.exists(private.dir))
        losetup = subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
        self.assertNotIn(private.dir, losetup)
