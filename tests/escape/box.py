"""What the escape scenarios share: a sandbox with helpers, what the host sees of it, and the list of scenarios."""
import glob
import os
import re
import time

from paddock import BUILD, enum, pb, wait_until

PROBE = os.path.join(BUILD, "tests/escape/escape_probe")
MIB = 1 << 20
RUNNING, FAILED = enum("SANDBOX_STATE_RUNNING"), enum("SANDBOX_STATE_FAILED")
SCENARIOS, FAILURES = [], []


def report(name, problems, note=""):
    if problems:
        FAILURES.append(name)
        print(f"FAIL {name}: {'; '.join(problems)[:400]}", flush=True)
    else:
        print(f"ok {name}{' (' + note + ')' if note else ''}", flush=True)


def scenario(function):
    """A test of its own; an exception is its failure."""
    SCENARIOS.append(function)
    return function


class Box:
    """One sandbox with the probe in it."""

    def __init__(self, instance, client, **fields):
        self.instance, self.client = instance, client
        self.id = client.create(**fields).id

    def run(self, script, **fields):
        return self.client.run(self.id, "/bin/bash", "-c", script, **fields)

    def out(self, script, **fields):
        result = self.run(script, **fields)
        if (result.code, result.signal) != (0, 0):
            raise AssertionError(f"{script[:60]}: exit {result.code} signal {result.signal} {result.all[-200:]!r}")
        return result.out.decode()

    def upload(self):
        with open(PROBE, "rb") as f:
            self.client.write(self.id, "/usr/local/bin/probe", f.read(), mode=0o755, user="root")
        return self

    def alive(self):
        return self.client.run(self.id, "/bin/echo", "alive", deadline=10).out == b"alive\n"

    def kill(self):
        self.client.Sandboxes.Kill(sandbox_id=self.id)

    def uid_range(self):
        _, host, count = map(int, self.out("cat /proc/self/uid_map").split()[:3])
        return range(host, host + count)


def group_name(runtime_dir):
    """The folder of a warden's cgroups is named after its runtime directory."""
    value = 14695981039346656037
    for byte in runtime_dir.encode():
        value = (value ^ byte) * 1099511628211 % (1 << 64)
    return f"paddock-{value % (1 << 48):012x}"


def host_processes(box, uids):
    """Names of the processes with ids of this range, as the host sees them. Another instance beside ours may use the same
    range: what is in its cgroups is not meant, but what is in nobody's is."""
    found, group = [], group_name(box.instance.run)
    for path in glob.glob("/proc/[0-9]*/status"):
        try:
            with open(path) as f, open(path.replace("status", "cgroup")) as g:
                text, groups = f.read(), g.read()
        except OSError:
            continue
        if int(re.search(r"^Uid:\s+(\d+)", text, re.M).group(1)) in uids and ("/paddock-" not in groups or group in groups):
            found.append(re.search(r"^Name:\s+(.*)", text, re.M).group(1))
    return found


def available():
    with open("/proc/meminfo") as f:
        return int(re.search(r"MemAvailable:\s+(\d+)", f.read()).group(1)) << 10


def host_pid_of_init(box):
    """pid 1 of the sandbox as the host numbers it: above a process of ours, found by an argument nobody else has."""
    mark = f"86400.{os.getpid()}{time.time_ns() % 1000}"
    box.client.run(box.id, "sleep", mark, detach=True)

    def find():
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as f:
                    if f.read() == b"sleep\0" + mark.encode() + b"\0":
                        return int(path.split("/")[2])
            except OSError:
                pass
    pid = wait_until(find, 5)
    while True:
        with open(f"/proc/{pid}/status") as f:
            text = f.read()
        if re.search(r"^NSpid:.*\s1$", text, re.M):
            return pid
        pid = int(re.search(r"^PPid:\s+(\d+)", text, re.M).group(1))
