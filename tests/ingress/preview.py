"""A Paddock with an ingress, a sandbox with an application in it, and visitors that say exactly what they are told to."""
import base64
import json
import os
import re
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from ingress import DOMAIN, Ingress, parse, read_until_end
from paddock import Instance, free_port, wait_until

APP = os.path.join(os.path.dirname(__file__), "app.py")
PORT = 8080


class World:
    def __init__(self, template="base", domain=DOMAIN, **ingress):
        self.ingress = Ingress(user="paddock", domain=domain, **ingress)
        self.domain = domain
        self.base = f"http://{domain}:{self.ingress.port}"
        self.instance = Instance(template=template, pool="8G", ingress_user="paddock", preview_url=self.base)

    def __enter__(self):
        self.instance.__enter__()
        run = [s for s in self.ingress.settings if s.startswith("runtime_dir=")][0]
        self.ingress.settings[self.ingress.settings.index(run)] = f"runtime_dir={self.instance.run}"
        self.ingress.run = self.instance.run
        self.ingress.__enter__()
        self.client = self.instance.tenant("visited")
        self.box = self.client.create(timeout_ms=3600_000).id
        with open(APP, "rb") as app:
            self.client.write(self.box, "/tmp/app.py", app.read())
        self.serve(PORT)
        return self

    def __exit__(self, *unused):
        self.ingress.__exit__()
        self.instance.__exit__()

    def serve(self, port, address="127.0.0.1", box=None):
        self.client.run(box or self.box, "/bin/sh", "-c", 'ulimit -Sn $(ulimit -Hn) && exec python3 /tmp/app.py "$0" "$1"', str(port), address, detach=True)
        wait_until(lambda: port in {p.port for p in self.client.Previews.ListPorts(sandbox_id=box or self.box).ports}, 10, "the app listens")

    def grant(self, port=PORT, box=None, **fields):
        return self.client.Previews.Grant(sandbox_id=box or self.box, port=port, **fields)

    def visitor(self, preview=None, tls=False, **fields):
        return Visitor(self, preview or self.grant(**fields), tls)

    def records(self, preview):
        return [r for r in self.client.Audit.List(sandbox_id=preview.sandbox_id, page_size=1000).records if r.object == preview.id]


class Visitor:
    """Somebody with a link. enter() makes it a cookie."""

    def __init__(self, world, preview, tls=False):
        self.world, self.preview, self.tls = world, preview, tls
        self.token = preview.url.split("=")[1]
        self.name = f"{preview.id}.{world.domain}"
        self.host = f"{self.name}:{world.ingress.tls_port if tls else world.ingress.port}"
        self.origin = ("https://" if tls else "http://") + self.host
        self.cookie = None
        self.source = ""  # the address that it comes from

    def enter(self):
        status, headers, _ = self.ask("GET", "/?paddock_token=" + self.token, cookie=False)
        assert status == 303, status
        self.cookie = headers["set-cookie"].split(";")[0]
        return self

    def lines(self, method, target, *fields, cookie=True):
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}", *fields]
        if cookie and self.cookie:
            lines.append("Cookie: " + (cookie if isinstance(cookie, str) else self.cookie))
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    def connect(self):
        return self.world.ingress.connect(self.tls, name=self.name, source=self.source)

    def raw(self, *pieces, wait=10.0, pause=0.0):
        return self.world.ingress.raw(*pieces, tls=self.tls, wait=wait, pause=pause)

    def ask(self, method, target, *fields, body=b"", cookie=True):
        if body:
            fields += (f"Content-Length: {len(body)}",)
        answer, _ = self.raw(self.lines(method, target, "Connection: close", *fields, cookie=cookie) + body)
        return parse(answer)

    def told(self, method, target, *fields, body=b"", cookie=True):
        """What reached the application -> (first line, {field in lower case: value}, body)."""
        status, _, text = self.ask(method, target, *fields, body=body, cookie=cookie)
        assert status == 200, (status, text)
        told = json.loads(text)
        lines = told["head"].split("\r\n")
        return lines[0], {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}, \
            base64.b64decode(told["body"])

    def upgrade(self, *fields, origin=True, target="/ws"):
        """-> (socket, head of the answer)"""
        s = self.connect()
        if origin:
            fields += (f"Origin: {self.origin}",)
        s.sendall(self.lines("GET", target, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *fields))
        head = b""
        while b"\r\n\r\n" not in head:
            piece = s.recv(1)
            if not piece:
                break
            head += piece
        return s, head


def frame(data, opcode=2):
    mask = b"\1\2\3\4"
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big") if len(data) < 65536 \
        else b"\xff" + len(data).to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))


def receive(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def frame_of(s):
    first, length = receive(s, 2)
    if length == 126:
        length = int.from_bytes(receive(s, 2), "big")
    elif length == 127:
        length = int.from_bytes(receive(s, 8), "big")
    return receive(s, length)


__all__ = ["APP", "PORT", "Visitor", "World", "frame", "frame_of", "free_port", "parse", "read_until_end", "receive", "re", "socket", "subprocess",
           "time", "wait_until"]
