#!/usr/bin/python3
"""L04, L13, P07: after 1,000 create/run/kill cycles the host looks as before."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from check import check, done
import host
from paddock import Instance, eventually

CYCLES = int(os.environ.get("LEAK_CYCLES", "1000"))


def layers(instance):
    """Subvolumes of sandboxes, alive or waiting for their removal. The pool is mounted in the warden's namespace only."""
    pool = f"/proc/{instance.warden.pid}/root{instance.run}/pool"
    return sum(len(os.listdir(f"{pool}/{folder}")) for folder in ("sandboxes", "trash"))


def look(instance):
    """Everything that a leak could show up in."""
    return {
        "layers in the pool": layers(instance),
        "mounts of the host": len(host.mounts()),
        "mounts of the warden": len(host.mounts(instance.warden.pid)),
        "cgroups": len(host.cgroups()),
        "loop devices": len(host.loops()),
        "processes": len(host.processes()),
        "namespaces": len(host.namespaces()),
        "fds of paddockd": host.fds(instance.paddockd.pid),
        "fds of the warden": host.fds(instance.warden.pid),
        "runtime files": len(host.files(instance.run)),
    }


def cycle(client):
    sandbox = client.Sandboxes.Create(template="base")
    ran = client.run(sandbox.id, "echo", "alive")
    assert ran.code == 0 and ran.out == b"alive\n", (ran.code, ran.out)
    client.Sandboxes.Kill(sandbox_id=sandbox.id)


def settled(instance, before):
    """Pools and background removal need a moment: the counts must come back to what they were."""
    now = look(instance)
    return all(abs(now[name] - before[name]) <= tolerance(name) for name in before)


def tolerance(name):
    # paddockd keeps connections and a few descriptors of calls that just ended
    return 4 if name.startswith("fds of paddockd") else 0


def main():
    instance = Instance(template="base", pool="20G", tcp=False, retention_ms="1s")
    try:
        instance.start()
        for _ in range(20):
            cycle(instance.admin)
        eventually(lambda: instance.admin.Admin.GetStatus().pooled >= 4, 20)
        time.sleep(3)
        before, rss = look(instance), host.rss(instance.paddockd.pid)
        for _ in range(CYCLES):
            cycle(instance.admin)
        eventually(lambda: settled(instance, before), 60)
        after, rss_after = look(instance), host.rss(instance.paddockd.pid)
        for name in before:
            check(f"leak/{name} after {CYCLES} cycles",
                      abs(after[name] - before[name]) <= tolerance(name), f"{before[name]} -> {after[name]}")
        check("leak/memory of paddockd", rss_after < rss * 1.5 + (16 << 20), f"{rss} -> {rss_after}")
        ids = instance.admin.Sandboxes.List(all_tenants=True).sandboxes
        check("leak/no sandbox is listed", not ids, str(len(ids)))
        verdict = instance.admin.Audit.Verify()
        check("leak/the audit chain verifies", verdict.ok, verdict.text)
    finally:
        instance.stop()
    check("leak/the pool was there to be ended", instance.groups, "no cgroup was seen before the stop")
    left = [path for path in host.cgroups() if any(path.startswith(own) for own in instance.groups)]
    check("leak/no cgroup after the stop", not left, str(left[:3]))
    left = [pid for pid in host.processes() if host.in_cgroup(pid, instance.groups)]
    check("leak/no process after the stop", not left, str(left[:3]))
    check("leak/no loop device after the stop", instance.data not in "".join(host.loops()), "")
    return done()


if __name__ == "__main__":
    sys.exit(main())
