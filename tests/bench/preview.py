#!/usr/bin/python3
"""Previews against nginx: the same application behind both, wrk in front of them, in turns. And what a thousand open websockets cost.

	tests/bench/preview.py [--seconds N] [--turns N] [--websockets N]

nginx has one worker, as the ingress has one thread; both keep connections to the application open. Needs nginx and wrk."""
import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "ingress"))
from paddock import BUILD, free_port, wait_until
from preview import World, frame, frame_of

VISIT, ADDRESS = 4000, 2000  # below what the ingress allows one of them
APP = os.path.join(BUILD, "tests/bench/paddock-bench-app")
NGINX = """
worker_processes 1; daemon off; pid %(dir)s/pid; error_log %(dir)s/error.log;
events { worker_connections 4096; }
http {
  access_log off; client_body_temp_path %(dir)s/b; proxy_temp_path %(dir)s/p; fastcgi_temp_path %(dir)s/f; uwsgi_temp_path %(dir)s/u;
  scgi_temp_path %(dir)s/s; keepalive_requests 100000000; proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k;
  proxy_max_temp_file_size 0;
  upstream app { server 127.0.0.1:%(app)d; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:%(port)d;
    location / {
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Proto $scheme;
    }
  }
}
"""


def wrk(url, seconds, connections, *headers):
    """-> (requests a second, MiB a second)"""
    arguments = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url]
    for header in headers:
        arguments += ["-H", header]
    text = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        print("wrk:", " ".join(text.split()), file=sys.stderr)
    units = {"B": 1 / (1 << 20), "KB": 1 / 1024, "MB": 1, "GB": 1024}
    transfer = re.search(r"Transfer/sec:\s+([\d.]+)(\w+)", text)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), float(transfer[1]) * units[transfer[2]]


def median(values):
    return sorted(values)[len(values) // 2]


def row(what, ours, theirs, unit, aim):
    print(f"| {what} | {ours:,.0f} {unit} | {theirs:,.0f} {unit} | {ours / theirs:.2f} | {aim} |", flush=True)


def compare(world, options, nginx_url):
    visitor = world.visitor(port=8000).enter()
    headers = (f"Host: {visitor.host}", f"Cookie: {visitor.cookie}")
    ours_url = f"http://127.0.0.1:{world.ingress.port}"
    print("| preview against nginx | Paddock | nginx | ratio | aim |\n|---|--:|--:|--:|---|")
    for what, path, connections, index, unit in (("small responses, 32 connections", "/", 32, 0, "/s"), ("1 MiB bodies, 8 connections", "/big", 8, 1, "MiB/s")):
        wrk(ours_url + path, 1, connections, *headers)
        wrk(nginx_url + path, 1, connections)
        ours, theirs = [], []
        for _ in range(options.turns):
            theirs.append(wrk(nginx_url + path, options.seconds, connections)[index])
            ours.append(wrk(ours_url + path, options.seconds, connections, *headers)[index])
        row(what, median(ours), median(theirs), unit, ">= 0.9")


def echoes(s, data):
    s.sendall(frame(data))
    return frame_of(s) == data


def open_websockets(world, n):
    """By as many visits, from as many addresses, as the bounds of one ask for."""
    sockets = []
    for turn in range(0, n, VISIT):
        visitor = world.visitor().enter()
        for i in range(turn, min(turn + VISIT, n)):
            visitor.source = f"127.0.0.{2 + i // ADDRESS}"
            s, head = visitor.upgrade()
            if b" 101 " not in head:
                raise RuntimeError(f"websocket {i}: {head.decode('latin-1')}")
            sockets.append(s)
    return sockets


def websockets(world, n):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    first = open_websockets(world, 1)
    before = world.ingress.rss()
    sockets = open_websockets(world, n)
    time.sleep(1)
    kib = (world.ingress.rss() - before) / n / 1024
    alive = sum(echoes(s, b"%d" % i) for i, s in enumerate(sockets))
    if alive < n or world.ingress.ask("GET", "/healthz")[0] != 200:
        raise RuntimeError(f"{alive} of {n} websockets echo")
    for s in sockets + first:
        s.close()
    return f"| memory of the ingress for each of {n:,} open websockets | {kib:.1f} KiB |  |  | <= 20 KiB |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--websockets", type=int, default=1000)
    options = parser.parse_args()
    for program in ("nginx", "wrk"):
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
            print(f"preview.py: {program} is missing (apt-get install nginx-light wrk)", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory() as folder, World(max_connections=options.websockets + 1000) as world:
        port, app = free_port(), free_port()
        with open(folder + "/nginx.conf", "w") as f:
            f.write(NGINX % {"dir": folder, "port": port, "app": app})
        beside = [subprocess.Popen([APP, str(app)]), subprocess.Popen(["nginx", "-c", folder + "/nginx.conf"], env={"PATH": "/usr/sbin:/usr/bin"})]
        try:
            with open(APP, "rb") as f:
                world.client.write(world.box, "/tmp/bench-app", f.read(), mode=0o755)
            world.client.run(world.box, "/tmp/bench-app", "8000", detach=True)
            wait_until(lambda: 8000 in {p.port for p in world.client.Previews.ListPorts(sandbox_id=world.box).ports}, 10, "the app listens")
            # First: what was used and given back before would not show up again.
            memory = websockets(world, options.websockets)
            compare(world, options, f"http://127.0.0.1:{port}")
            print(memory)
        finally:
            for process in beside:
                process.terminate()
                process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
