"""A private paddock-ingress, and clients that say exactly what they are told to."""
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from paddock import BUILD, free_port, wait_until

PROGRAM = os.path.join(BUILD, "preview/paddock-ingress")
DOMAIN = "paddock.test"


def make_certificate(folder, name, *hosts):
    """A CA of our own and a certificate of it for the hosts -> the paths of (ca, certificate, key)."""
    ca, ca_key = f"{folder}/ca.pem", f"{folder}/ca.key"
    certificate, key, request = (f"{folder}/{name}{suffix}" for suffix in (".pem", ".key", ".csr"))

    def openssl(*arguments, **options):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, **options)
    if not os.path.exists(ca):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test CA", "-addext", "keyUsage=critical,keyCertSign",
                "-keyout", ca_key, "-out", ca)
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={hosts[0]}",
            "-keyout", key, "-out", request)
    with tempfile.NamedTemporaryFile("w") as extensions:
        extensions.write("subjectAltName=" + ",".join("DNS:" + host for host in hosts))
        extensions.flush()
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extensions.name,
                "-out", certificate)
    os.chmod(key, 0o600)
    return ca, certificate, key


class Ingress:
    """`run`: the runtime folder of a paddockd, or None for an ingress that has none behind it."""

    def __init__(self, run=None, user="nobody", files=None, **settings):
        self.dir = tempfile.mkdtemp(prefix="paddock-ingress.", dir="/var/tmp")
        os.chmod(self.dir, 0o755)
        self.run = run or self.dir
        self.port, self.tls_port = free_port(), free_port()
        self.ca, self.certificate, self.key = make_certificate(self.dir, "main", DOMAIN, "*." + DOMAIN)
        _, self.other_certificate, self.other_key = make_certificate(self.dir, "other", "other.test")
        for key in (self.key, self.other_key):
            os.chown(key, pwd.getpwnam(user).pw_uid, -1)
        self.settings = [f"listen=127.0.0.1:{self.port}", f"listen_tls=127.0.0.1:{self.tls_port}", f"runtime_dir={self.run}",
                         f"tls_certificate={self.certificate}", f"tls_key={self.key}",
                         f"tls_certificate={self.other_certificate}", f"tls_key={self.other_key}", f"domain={DOMAIN}",
                         f"advertise={DOMAIN}:{self.tls_port}", f"user={user}"]
        self.settings += [f"{name}={value}" for name, value in settings.items()]
        self.limit = ["prlimit", f"--nofile={files}:{files}"] if files else []  # how many descriptors it may have
        self.log = self.dir + "/log"
        self.process = None

    def __enter__(self):
        arguments = self.limit + [PROGRAM]
        for setting in self.settings:
            arguments += ["--set", setting]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=log)
        wait_until(self.answers, 20, "the ingress answers")
        return self

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError("the ingress did not start: " + open(self.log).read()[-500:])
        try:
            return self.ask("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def __exit__(self, *unused):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if "Sanitizer" in open(self.log, errors="replace").read():
            print(open(self.log, errors="replace").read(), file=sys.stderr)
        shutil.rmtree(self.dir, ignore_errors=True)

    def alive(self):
        return self.process.poll() is None

    def rss(self):
        with open(f"/proc/{self.process.pid}/statm") as f:
            return int(f.read().split()[1]) * 4096

    def connect(self, tls=False, alpn=None, name=DOMAIN, timeout=20, source=""):
        plain = socket.create_connection(("127.0.0.1", self.tls_port if tls else self.port), timeout, (source, 0))
        if not tls:
            return plain
        context = ssl.create_default_context(cafile=self.ca)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context.wrap_socket(plain, server_hostname=name)

    def raw(self, *pieces, tls=False, pause=0.0, wait=10.0):
        """Send bytes, one after the other, and read until the end -> (what came, True if the connection was closed)."""
        with self.connect(tls) as s:
            try:
                for piece in pieces:
                    s.sendall(piece)
                    if pause:
                        time.sleep(pause)
            except OSError:
                pass  # it was answered before it was whole: the answer can still be read
            return read_until_end(s, wait)

    def ask(self, method, path, body=None, headers=(), tls=False, host=DOMAIN):
        """One request on a connection of its own -> (status, {header: value}, body)."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in dict(headers).items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        answer, _ = self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""), tls=tls)
        return parse(answer)


def read_until_end(s, wait):
    s.settimeout(wait)
    data = bytearray()
    try:
        while True:
            piece = s.recv(1 << 20)
            if not piece:
                return bytes(data), True
            data += piece
    except TimeoutError:
        return bytes(data), False
    except OSError:
        return bytes(data), True


def parse(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/") else 0
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding") == "chunked":
        body = unchunk(body)
    return status, headers, body


def unchunk(body):
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        n = int(size or b"0", 16)
        if not n:
            break
        whole += rest[:n]
        body = rest[n + 2:]
    return whole
