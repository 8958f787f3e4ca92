"""A paddockd that says what it likes: the warden's own protocol (sandbox/warden/protocol.h), without paddockd's checks."""
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

from paddock import BUILD, SOURCE, WARDEN, wait_until

HELLO, CREATE, KILL, ATTACH, LIMITS, USAGE, LIST, IMPORT, REMOVE, TEMPLATES, FREEZE, THAW, CHECKPOINT, \
    RELEASE, RESTORE, STOCK, STATUS, SNAPSHOT, COPY, SNAPSHOT_REMOVE, SNAPSHOT_LIST, LAYER, EXITED = range(1, 24)
VERSION = 6
MORE = 1
REQUEST = struct.Struct("=IIQ24s24s48s64sQQQII")
REPLY = struct.Struct("=IIiIQQQQQQQ24s48s80s256sQQQIIQQQQQQII")
LIMITS_OF = {"memory": 256 << 20, "disk": 256 << 20, "inodes": 100000, "cpu": 1000, "pids": 64}


class Reply:
    def __init__(self, data, fds):
        f = REPLY.unpack(data)
        self.op, self.serial, self.status, self.flags, self.value, self.size, self.files, self.stored, self.stopped, self.total, self.free = f[:11]
        self.id, self.template, self.digest, self.text = (t.split(b"\0")[0].decode() for t in f[11:15])
        self.limits = dict(zip(LIMITS_OF, f[15:20]))
        self.usage = dict(zip(("memory", "peak", "cpu_usec", "disk", "inodes", "oom_kills", "pids"), f[20:]))
        self.fd = fds[0] if fds else -1


class Warden:
    """A warden on folders of its own, whose only client is this program."""

    def __init__(self, *options, build=BUILD, source=SOURCE, environment=None):
        self.dir = tempfile.mkdtemp(prefix="paddock-test.", dir="/var/tmp")
        self.run, self.log = self.dir + "/run", self.dir + "/warden.log"
        for name in ("data", "run", "libexec"):
            os.mkdir(f"{self.dir}/{name}")
        for program in ("init/paddock-init", "archive/paddock-archive", "sudo/paddock-sudo"):
            shutil.copy(f"{build}/sandbox/{program}", self.dir + "/libexec")
        self.argv = [f"{build}/sandbox/warden/paddock-warden", "--data-dir", self.dir + "/data", "--runtime-dir", self.run, "--user", "root",
                     "--pool-size", "4G", "--libexec-dir", self.dir + "/libexec", "--policy-dir", source + "/policies", *options]
        self.environment = environment
        self.serial, self.process = 0, None
        self.start()

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.argv, stderr=log, env=self.environment)
        wait_until(lambda: self.process.poll() is not None or os.path.exists(self.run + "/warden.sock"), 60, "the warden's socket")
        self.connect()

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(30)
        wait_until(lambda: self.socket.connect_ex(self.run + "/warden.sock") == 0, 10, "a connection")

    def send(self, op, value=0, id=b"", snapshot=b"", template=b"", hostname=b"", fds=(), **limits):
        self.serial += 1
        l = {**LIMITS_OF, **limits}
        text = [t.encode() if isinstance(t, str) else t for t in (id, snapshot, template, hostname)]
        self.send_raw(REQUEST.pack(op, self.serial, value, *text, *l.values()), fds)
        return self.serial

    def send_raw(self, data, fds=()):
        socket.send_fds(self.socket, [data], list(fds)) if fds else self.socket.send(data)

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.socket, REPLY.size, 4)
        if not data:
            raise EOFError
        return Reply(data, fds)

    def ask(self, op, **fields):
        """The last reply to a request; events and partial replies on the way are passed over."""
        serial = self.send(op, **fields)
        while True:
            reply = self.receive()
            if reply.serial == serial and not reply.flags & MORE:
                return reply

    def import_template(self, tar):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            try:
                with os.fdopen(write, "wb") as f:
                    f.write(tar)
            finally: # a warden that refuses does not read on
                os._exit(0)
        os.close(write)
        reply = self.ask(IMPORT, value=4 << 30, fds=[read])
        os.close(read)
        os.waitpid(pid, 0)
        return reply

    def create(self, template, **fields):
        id = "i" + "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20))
        return self.ask(CREATE, id=id, template=template, hostname="box", **fields)

    def stop(self, sig=signal.SIGTERM):
        self.socket.close()
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(30)

    def remove(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
