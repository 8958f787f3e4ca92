#!/usr/bin/python3
"""The JavaScript SDK (e2b) through the ingress: commands against a server that answers at once, files against nginx. In turns, in one run.

	tests/bench/sdk.py [--rounds N] [--size MIB] [--file-rounds N]

Needs Node.js, npm and nginx. `canned.mjs` is the server that answers at once, and, as another floor, the one that starts the same
command on this machine: the SDK runs it in a login shell."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
GATEWAY = os.path.join(HERE, "..", "sdk-gateway")
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "ingress"))
import node
from ingress import Ingress
from paddock import CLI, Instance, free_port, wait_until
import socket

# How long a program takes from its start to its end, p50 in ms, started by one that does nothing else.
SPAWN = """
import os, sys, time
def once():
    began = time.perf_counter()
    os.waitpid(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
    return time.perf_counter() - began
print(sorted(once() for _ in range(150))[75] * 1000)
"""
NGINX = """
worker_processes 1; daemon off; pid %(dir)s/pid; error_log %(dir)s/error.log;
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path %(dir)s/b; proxy_temp_path %(dir)s/p; fastcgi_temp_path %(dir)s/f; uwsgi_temp_path %(dir)s/u;
  scgi_temp_path %(dir)s/s; sendfile on;
  server { listen 127.0.0.1:%(port)d; root %(dir)s/files; }
}
"""


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def median(values):
    return sorted(values)[len(values) // 2]


def alone(instance):
    """What of a command is the program itself: -> (what, ms in a sandbox, ms on this machine)"""
    box = instance.admin.create(template="base").id
    for program in (["/bin/bash", "-l", "-c", "true"], ["/bin/bash", "-c", "true"], ["/bin/true"]):
        inside = instance.admin.run(box, "python3", "-c", SPAWN, *program).out
        beside = subprocess.run(["/usr/bin/python3", "-c", SPAWN, *program], env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, stdout=subprocess.PIPE, check=True).stdout
        yield f"`{' '.join(program)}` alone, in the sandbox vs on the host", float(inside), float(beside)
    instance.admin.Sandboxes.Kill(sandbox_id=box)


def rows(seen, size):
    ours, canned, spawned = (median(seen["run " + name]) * 1000 for name in ("paddock", "canned", "spawn"))
    yield "commands.run('true'), p50, vs a server that answers at once", f"{ours:.2f} ms", f"{canned:.2f} ms", ours / canned, "<= 1.3"
    yield "the same vs a server that starts it on the host, in no sandbox", f"{ours:.2f} ms", f"{spawned:.2f} ms", ours / spawned, ""
    mib = size / (1 << 20)
    nginx = mib / median(seen["nginx"])
    for what in ("upload", "download"):
        rate = mib / median(seen[what])
        yield f"files, {what} of {mib:.0f} MiB, vs nginx serving the same file", f"{rate:,.0f} MiB/s", f"{nginx:,.0f} MiB/s", rate / nginx, ">= 0.4"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--size", type=int, default=32, help="MiB")
    parser.add_argument("--file-rounds", type=int, default=15)
    options = parser.parse_args()
    program = node.find()
    if not program or not shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"):
        print("sdk.py: Node.js 20 or nginx is missing (apt-get install nginx-light)", file=sys.stderr)
        return 2
    error = node.npm_ci(GATEWAY)
    if error:
        print("sdk.py: npm: " + error, file=sys.stderr)
        return 2
    size = options.size << 20
    with tempfile.TemporaryDirectory() as folder, Instance(template="base", pool="10G", ingress_user="paddock") as instance, \
            Ingress(run=instance.run, user="paddock") as ingress:
        os.chmod(folder, 0o755)
        os.mkdir(folder + "/files")
        with open(folder + "/files/file", "wb") as f:
            f.write(b"x" * size)
        port, canned, spawned = free_port(), free_port(), free_port()
        with open(folder + "/nginx.conf", "w") as f:
            f.write(NGINX % {"dir": folder, "port": port})
        beside = [subprocess.Popen(["nginx", "-c", folder + "/nginx.conf"], env={"PATH": "/usr/sbin:/usr/bin"}),
                  subprocess.Popen([program, f"{HERE}/canned.mjs", str(canned)]), subprocess.Popen([program, f"{HERE}/canned.mjs", str(spawned), "spawn"])]
        try:
            for one in (port, canned, spawned):
                wait_until(lambda: listens(one), 20, "the servers listen")
            key = subprocess.run([CLI, "key", "create", "bench"], env=dict(os.environ, PADDOCK_ADDR=f"unix:{instance.run}/admin.sock"),
                                 capture_output=True, text=True, check=True).stdout.strip()
            what = {"apiKey": key, "rounds": options.rounds, "size": size, "fileRounds": options.file_rounds, "nginx": f"http://127.0.0.1:{port}/file",
                    "servers": {"paddock": f"http://127.0.0.1:{ingress.port}", "canned": f"http://127.0.0.1:{canned}", "spawn": f"http://127.0.0.1:{spawned}"}}
            programs = list(alone(instance))
            seen = json.loads(subprocess.run([program, f"{HERE}/sdk.mjs", json.dumps(what)], env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "MODULES": os.path.abspath(GATEWAY)},
                                             stdout=subprocess.PIPE, text=True, check=True).stdout)
        finally:
            for process in beside:
                process.terminate()
                process.wait()
    print("| the JavaScript SDK | Paddock | the other | ratio | aim |\n|---|--:|--:|--:|---|")
    for name, ours, theirs, ratio, aim in rows(seen, size):
        print(f"| {name} | {ours} | {theirs} | {ratio:.2f} | {aim} |")
    for name, inside, beside in programs:
        print(f"| {name} | {inside:.2f} ms | {beside:.2f} ms | {inside / beside:.2f} |  |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
