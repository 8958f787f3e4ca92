"""A private Paddock instance and a gRPC client for tests, with Debian's python3-grpcio and nothing generated:
messages and stubs are made at run time from the descriptor set that the build produced."""
import contextlib
import io
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid

# A child of ours makes no calls; with it, a fork waits for ever for the threads of newer versions (Debian 13).
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SOURCE = os.environ.get("SOURCE") or os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("BUILD") or os.path.join(SOURCE, "build")
CACHE = os.environ.get("PADDOCK_CACHE") or "/var/cache/paddock"
PADDOCKD = os.path.join(BUILD, "server/paddockd")
WARDEN = os.path.join(BUILD, "sandbox/warden/paddock-warden")
CLI = os.path.join(BUILD, "sdk/paddock")
CHUNK = 256 << 10

Code = grpc.StatusCode


# -- messages ---------------------------------------------------------------------------------------------------

def _load_protoset():
    files = descriptor_pb2.FileDescriptorSet()
    with open(os.path.join(BUILD, "proto/paddock.protoset"), "rb") as f:
        files.ParseFromString(f.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool, files


POOL, PROTOSET = _load_protoset()
_factory = message_factory.MessageFactory(POOL)


def message_class(name):
    """The class of a message, by its full name or by its name in paddock.v1."""
    full = name if "." in name and name.split(".")[0] in ("grpc", "paddock", "process", "filesystem") else "paddock.v1." + name
    return _factory.GetPrototype(POOL.FindMessageTypeByName(full))


class _Messages:
    def __getattr__(self, name):
        cls = message_class(name)
        setattr(self, name, cls)
        return cls


pb = _Messages()


def enum(name):
    """Number of an enum value of paddock.v1, e.g. enum("SANDBOX_STATE_RUNNING")."""
    for file in PROTOSET.file:
        for declared in file.enum_type:
            for value in declared.value:
                if value.name == name:
                    return value.number
    raise KeyError(name)


def all_methods():
    """{"/paddock.v1.Sandboxes/Create": MethodDescriptorProto} of the whole public contract."""
    return {
        f"/{file.package}.{service.name}/{method.name}": method
        for file in PROTOSET.file for service in file.service for method in service.method
    }


# -- client -----------------------------------------------------------------------------------------------------

class _Service:
    def __init__(self, client, name):
        self.client, self.name = client, name

    def __getattr__(self, method):
        return lambda request=None, /, **fields: self.client.call(f"/{self.name}/{method}", request, **fields)


class Client:
    """client.Sandboxes.Create(template="base") -> message; streams give grpc's call object, an iterator.
    Client streams take an iterator of messages. Every call has a deadline, so a hang is a failure."""

    def __init__(self, target, key=None, credentials=None, options=(), timeout=60):
        options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20),
                   ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
                   ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 5000), ("grpc.max_reconnect_backoff_ms", 500)] + list(options)
        if credentials:
            self.channel = grpc.secure_channel(target, credentials, options)
        else:
            self.channel = grpc.insecure_channel(target, options)
        self.key, self.timeout = key, timeout
        for name in ("Sandboxes", "Snapshots", "Processes", "Files", "Templates", "Admin", "Audit", "Previews"):
            setattr(self, name, _Service(self, "paddock.v1." + name))
        self.Health = _Service(self, "grpc.health.v1.Health")
        self.Process = _Service(self, "process.Process")
        self.Filesystem = _Service(self, "filesystem.Filesystem")
        self.Reflection = _Service(self, "grpc.reflection.v1.ServerReflection")

    def call(self, path, request=None, /, *, deadline=None, grpc_metadata=None, later=False, **fields):
        """`later`: a unary call gives a future."""
        service, method = path[1:].split("/")
        descriptor = POOL.FindServiceByName(service).FindMethodByName(method)
        proto = all_methods()[path]
        response = _factory.GetPrototype(descriptor.output_type)
        kind = ("stream" if proto.client_streaming else "unary") + "_" + \
               ("stream" if proto.server_streaming else "unary")
        stub = getattr(self.channel, kind)(path, request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                                           response_deserializer=response.FromString)
        if request is None and not proto.client_streaming:
            request = _factory.GetPrototype(descriptor.input_type)(**fields)
        if grpc_metadata is None:
            grpc_metadata = [("authorization", "Bearer " + self.key)] if self.key else []
        send = stub.future if later else stub
        return send(request, timeout=self.timeout if deadline is None else deadline, metadata=grpc_metadata)

    def close(self):
        self.channel.close()

    def wait_ready(self, seconds):
        """Until the channel is connected: after a restart of paddockd. Calls that are tried meanwhile do not help: they fail at
        once, and the core looks at a connection that is being made only while some call waits, or every five seconds."""
        grpc.channel_ready_future(self.channel).result(timeout=seconds)

    # What most tests do.

    def create(self, **fields):
        fields.setdefault("timeout_ms", 600000)
        return self.Sandboxes.Create(**fields)

    def run(self, sandbox, *argv, **fields):
        """Run to the end -> Result."""
        if len(argv) == 1 and " " in argv[0]:
            argv = ("/bin/sh", "-c", argv[0])
        return Result(self.Processes.Start(sandbox_id=sandbox, argv=argv, **fields))

    def write(self, sandbox, path, data, **header):
        path = path if isinstance(path, bytes) else path.encode()

        def messages():
            yield pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=sandbox, path=path, **header))
            for at in range(0, len(data), CHUNK):
                yield pb.WriteFileRequest(data=data[at:at + CHUNK])
        return self.Files.Write(messages())

    def read(self, sandbox, path, **fields):
        path = path if isinstance(path, bytes) else path.encode()
        return b"".join(chunk.data for chunk in self.Files.Read(sandbox_id=sandbox, path=path, **fields))

    def unpack(self, sandbox, path, data, **header):
        def messages():
            yield pb.UnpackArchiveRequest(header=pb.UnpackArchiveHeader(sandbox_id=sandbox, path=path, **header))
            for at in range(0, len(data), CHUNK):
                yield pb.UnpackArchiveRequest(data=data[at:at + CHUNK])
        return self.Files.UnpackArchive(messages())

    def build_template(self, name, source, **header):
        """`source`: bytes or a file object with a tar. -> the Template."""
        stream = io.BytesIO(source) if isinstance(source, bytes) else source

        def messages():
            yield pb.BuildTemplateRequest(header=pb.BuildTemplateHeader(name=name, **header))
            while True:
                data = stream.read(CHUNK)
                if not data:
                    return
                yield pb.BuildTemplateRequest(data=data)
        last = None
        for last in self.Templates.Build(messages(), deadline=300):
            pass
        return last.template


def code_of(call):
    """Make a call to its end: the name of its gRPC status and the text."""
    try:
        result = call()
        if hasattr(result, "__next__"):
            for _ in result:
                pass
        return "OK", ""
    except grpc.RpcError as error:
        return error.code().name, error.details()


class Result:
    """Everything that a followed process said."""

    def __init__(self, events):
        self.started = self.exited = None
        self.out = self.err = self.pty = self.all = b""
        self.gaps, self.chunks = [], []
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "started":
                self.started = event.started
            elif kind == "output":
                self._take(event.output)
            elif kind == "gap":
                self.gaps.append(event.gap)
            elif kind == "exited":
                self.exited = event.exited
        self.code = self.exited.exit_code if self.exited else None
        self.signal = self.exited.signal if self.exited else None
        self.id = self.started.process_id if self.started else None

    def _take(self, output):
        self.chunks.append(output)
        self.all += output.data
        if output.stream == enum("STREAM_STDOUT"):
            self.out += output.data
        elif output.stream == enum("STREAM_STDERR"):
            self.err += output.data
        else:
            self.pty += output.data


# -- instance ---------------------------------------------------------------------------------------------------

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(check, seconds=30, what="condition"):
    """Poll until `check()` is true; its value."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def eventually(check, seconds):
    """As wait_until(), but running out of time is only False: the check that follows says what is wrong."""
    with contextlib.suppress(TimeoutError):
        return bool(wait_until(check, seconds))
    return False


def mini_template():
    """A tar of a root file system that is one static busybox: made and imported in a moment."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        def entry(name, kind=tarfile.DIRTYPE, mode=0o755, content=b"", link=""):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.size = kind, mode, link, len(content)
            tar.addfile(info, io.BytesIO(content))
        for name in ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "var"):
            entry(name)
        user = tarfile.TarInfo("home/user")
        user.type, user.mode, user.uid, user.gid = tarfile.DIRTYPE, 0o755, 1000, 1000
        tar.addfile(user)
        with open("/bin/busybox", "rb") as f:
            entry("bin/busybox", tarfile.REGTYPE, content=f.read())
        applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                entry("bin/" + applet, tarfile.SYMTYPE, link="busybox")
        entry("etc/passwd", tarfile.REGTYPE, 0o644,
              b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
        entry("etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\nuser:x:1000:\n")
    return data.getvalue()


def leaves(group):
    """The cgroups directly below one."""
    return [entry.path for entry in os.scandir(group) if entry.is_dir()]


class Instance:
    """The warden and paddockd on folders of their own. Use as a context manager."""

    def __init__(self, template="mini", warden_options=(), pool="4G", tcp=True, **settings):
        self.dir = tempfile.mkdtemp(prefix="paddock-test.", dir="/var/tmp")
        os.chmod(self.dir, 0o755)
        self.data, self.run = self.dir + "/data", self.dir + "/run"
        self.conf, self.log, self.warden_log = self.dir + "/paddock.conf", self.dir + "/paddockd.log", self.dir + "/warden.log"
        self.template, self.pool, self.warden_options = template, pool, list(warden_options)
        self.port, self.metrics_port = free_port(), free_port()
        self.settings = {"data_dir": self.data, "runtime_dir": self.run,
                         "listen": f"127.0.0.1:{self.port}" if tcp else "",
                         "metrics_listen": f"127.0.0.1:{self.metrics_port}", "reflection": "true"}
        self.settings.update({k: str(v) for k, v in settings.items()})
        self.warden = self.paddockd = None
        self.complaints = []
        self.deaths = []  # exit codes of daemons that were started again
        self.groups = set()  # after stop(): the folders of cgroups that were this instance's
        self._clients = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *unused):
        self.stop()

    def _libexec(self):
        folder = self.dir + "/libexec"
        os.mkdir(folder)
        for program in ("init/paddock-init", "archive/paddock-archive", "sudo/paddock-sudo"):
            shutil.copy(f"{BUILD}/sandbox/{program}", folder)
        shutil.copy(f"{BUILD}/sandbox/warden/paddock-criu.so", folder)
        if os.path.exists(f"{CACHE}/criu/usr/sbin/criu"):
            os.symlink(f"{CACHE}/criu", f"{folder}/criu")
        return folder

    def write_config(self):
        with open(self.conf, "w") as f:
            f.writelines(f"{name} = {value}\n" for name, value in self.settings.items())
        os.chmod(self.conf, 0o644)

    def start(self):
        try:
            pwd.getpwnam("paddock")
        except KeyError:
            subprocess.run(["useradd", "--system", "--user-group", "--home-dir", "/nonexistent", "--no-create-home",
                            "--shell", "/usr/sbin/nologin", "paddock"], check=True)
        os.mkdir(self.data)
        os.mkdir(self.run)
        self.libexec = self._libexec()
        self.write_config()
        self.start_warden()
        self.start_paddockd()
        if self.template == "mini":
            self.admin.build_template("base", mini_template(), public=True)
        elif self.template == "base":
            self.import_base()

    def import_base(self):
        import template_tar  # which needs this module
        with open(template_tar.base(), "rb") as f:
            self.admin.build_template("base", f, public=True)

    def start_warden(self, env=None):
        if self.warden:
            self.deaths.append(self.warden.poll())
        stale = self._warden_socket()
        with open(self.warden_log, "ab") as log:
            self.warden = subprocess.Popen(
                [WARDEN, "--data-dir", self.data, "--runtime-dir", self.run, "--user", "paddock", "--pool-size", self.pool,
                 "--libexec-dir", self.libexec, "--policy-dir", SOURCE + "/policies"] + self.warden_options,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        self._wait(self.warden, lambda: self._warden_socket() not in (None, stale), self.warden_log)

    def _warden_socket(self):
        """When it was made; a warden that was killed leaves its own behind."""
        with contextlib.suppress(FileNotFoundError):
            return os.stat(self.run + "/warden.sock").st_ctime_ns

    def start_paddockd(self, env=None, files=None, boot_id=None):
        """`files`: how many descriptors it may have. `boot_id`: a file that it sees as the kernel's boot id."""
        if self.paddockd:
            self.deaths.append(self.paddockd.poll())
        with open(self.log, "ab") as log:
            limit = ["prlimit", f"--nofile={files}:{files}"] if files else []
            if boot_id:
                limit += ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"', boot_id]
            self.paddockd = subprocess.Popen(limit + [PADDOCKD, "--config", self.conf], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             env={**os.environ, **(env or {})})
        self._wait(self.paddockd, self._listens, self.log)
        self.admin = self.client("unix:" + self.run + "/admin.sock")
        self._wait(self.paddockd, self._answers, self.log)

    def _listens(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
            s.connect(self.run + "/admin.sock")
            return True

    def _answers(self):
        with contextlib.suppress(grpc.RpcError):
            self.admin.Admin.WhoAmI(deadline=2)
            return True

    def _wait(self, process, ready, log):
        def check():
            if process.poll() is not None:
                with open(log, errors="replace") as f:
                    raise RuntimeError(f"{process.args[0]} ended with {process.returncode}: {f.read()[-2000:]}")
            return ready()
        wait_until(check, 60, process.args[0] + " is ready")

    def client(self, target=None, key=None, **options):
        client = Client(target or f"127.0.0.1:{self.port}", key, **options)
        self._clients.append(client)
        return client

    def tenant(self, name, scopes=("read", "sandbox"), **quota):
        """A new tenant with one key -> its client over TCP."""
        self.admin.Admin.CreateTenant(name=name, quota=pb.Quota(**quota))
        return self.with_key(name, scopes)

    def with_key(self, tenant, scopes=("read", "sandbox"), **options):
        made = self.admin.Admin.CreateKey(tenant=tenant, name="test", scopes=scopes, **options)
        client = self.client(key=made.secret)
        client.key_id = made.key.id
        return client

    def stop_paddockd(self, sig=signal.SIGTERM):
        self._end(self.paddockd, sig, "paddockd", self.log)
        self.paddockd = None

    def _end(self, process, sig, name, log):
        if not process:
            return
        if process.poll() is None:
            process.send_signal(sig)
        try:
            code = process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.complaints.append(f"{name} did not end within 40 s")
            return
        if sig == signal.SIGTERM and code != 0:
            self.complaints.append(f"{name} ended with {code}")
        with open(log, errors="replace") as f:
            text = f.read()
        for word in ("AddressSanitizer", "LeakSanitizer", "runtime error:", "ThreadSanitizer"):
            if word in text:
                self.complaints.append(f"{name}: {text[text.index(word):][:1500]}")

    def reboot(self):
        """What a start of the machine leaves: the data directory, and nothing that ran, was mounted or was on tmpfs. The kernel
        stays the same, so its page cache is not lost; paddockd sees another boot id."""
        for process in (self.paddockd, self.warden):
            process.kill()
            process.wait()
        for parent in self._end_stock():
            wait_until(lambda: not any(open(leaf + "/cgroup.procs").read() for leaf in leaves(parent)), 20, "no process is left")
            for leaf in leaves(parent):
                os.rmdir(leaf)
            os.rmdir(parent)
        helpers = [p for p in os.listdir("/proc") if p.isdigit() and self._is_helper(p)]
        for pid in helpers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        used = lambda: subprocess.run(["losetup", "-j", self.data + "/pool.btrfs"], capture_output=True, text=True).stdout
        wait_until(lambda: not used(), 20, "the pool is unmounted")
        shutil.rmtree(self.run)
        os.mkdir(self.run)
        with open(self.dir + "/boot_id", "w") as f:
            f.write(str(uuid.uuid4()) + "\n")
        self.warden = self.paddockd = None
        self.start_warden()
        self.start_paddockd(boot_id=self.dir + "/boot_id")

    def _is_helper(self, pid):
        """A process that a warden of this instance started for itself."""
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().startswith(WARDEN.encode() + b"\0") and self.data.encode() in open(f"/proc/{pid}/cmdline", "rb").read()
        return False

    def kill_sandboxes(self):
        with contextlib.suppress(Exception):
            for sandbox in self.admin.Sandboxes.List(all_tenants=True, page_size=1000).sandboxes:
                self.admin.Sandboxes.Kill(sandbox_id=sandbox.id)

    def _end_stock(self):
        """Sandboxes outlive the daemons by design, also the pre-made ones that nobody can name: end them through their
        cgroups while the warden is there to clean up. -> the folders of cgroups that held them"""
        folder, parents = self.run + "/sandboxes", set()
        for id in os.listdir(folder) if os.path.isdir(folder) else []:
            found = subprocess.run(["find", "/sys/fs/cgroup", "-type", "d", "-name", id], capture_output=True, text=True).stdout.split()
            for path in found:
                parents.add(os.path.dirname(path))
                with contextlib.suppress(OSError), open(path + "/cgroup.kill", "w") as f:
                    f.write("1")
        if self.warden and self.warden.poll() is None:
            with contextlib.suppress(TimeoutError, FileNotFoundError):
                wait_until(lambda: not os.listdir(folder), 10)
        return parents

    def stop(self):
        if self.paddockd:
            self.kill_sandboxes()
        for client in self._clients:
            client.close()
        self._end(self.paddockd, signal.SIGTERM, "paddockd", self.log)
        self.groups = self._end_stock()
        self._end(self.warden, signal.SIGTERM, "warden", self.warden_log)
        for group in self.groups:
            with contextlib.suppress(OSError):
                os.rmdir(group)
        if os.environ.get("KEEP"):
            print("kept:", self.dir, file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        for complaint in self.complaints:
            print("#", complaint, file=sys.stderr)
