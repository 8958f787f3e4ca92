#!/usr/bin/python3
"""L01-L03, L05, A01: kill -9 of paddockd and of the warden at every fault point of create and kill, and at random.
After the next start every sandbox that was acknowledged is there exactly once and works, the others are gone with
all that they held, and the audit chain verifies. Needs a build with -DPADDOCK_FAULTS=ON (BUILD)."""
import contextlib
import os
import random
import re
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from check import check, done
import grpc
import host
from paddock import SOURCE, Instance, code_of, eventually

SEED = int(os.environ.get("SEED", str(random.randrange(1 << 30))))
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "20"))


def fault_points(*folders):
    """The names in FAULT("...") of the sources: a new point is tested without being listed here."""
    found = set()
    for folder in folders:
        for base, _, names in os.walk(os.path.join(SOURCE, folder)):
            for name in names:
                if name.endswith(".c"):
                    with open(os.path.join(base, name)) as stream:
                        found |= set(re.findall(r'\bFAULT\("([^"]+)"\)', stream.read()))
    return sorted(found)


def living(instance):
    listed = instance.admin.Sandboxes.List(all_tenants=True, page_size=1000, deadline=10).sandboxes
    return [s.id for s in listed if s.state == 2]


def restart(instance):
    """Start again whatever died."""
    if instance.warden.poll() is not None:
        instance.start_warden()
    if instance.paddockd.poll() is not None:
        instance.start_paddockd()
    eventually(lambda: code_of(lambda: instance.admin.Admin.GetStatus(deadline=2))[0] == "OK", 20)


def inspect(instance, acknowledged, killed):
    """What is wrong after a restart; empty when all is well."""
    wrong = []
    eventually(lambda: set(acknowledged) <= set(living(instance)), 20)
    ids = living(instance)
    if len(ids) != len(set(ids)):
        wrong.append("listed twice")
    wrong += [f"lost {id}" for id in acknowledged if id not in ids]
    wrong += [f"back from the dead {id}" for id in killed if id in ids]
    for id in acknowledged:
        name, text = code_of(lambda i=id: instance.admin.run(i, "true", deadline=20))
        if name != "OK":
            wrong.append(f"{id} does not work: {name} {text}")
    return wrong


def settle(instance):
    """Kill everything; the host must come back to only what the pool holds."""
    for id in living(instance):
        code_of(lambda i=id: instance.admin.Sandboxes.Kill(sandbox_id=i, deadline=20))
    pool = int(instance.settings.get("pool_size", 4))

    def left():
        groups = [group for group in host.cgroups() if re.search(r"/i[a-z0-9]{20}$", group)]
        return len({os.path.basename(group) for group in groups}) - pool

    eventually(lambda: left() <= 0, 20)
    return left()


def start_with_fault(instance, point, who):
    """Start a daemon again so that the second passing of `point` ends it; that may be while it starts."""
    process, start = ((instance.warden, instance.start_warden) if who == "warden"
                      else (instance.paddockd, instance.start_paddockd))
    process.kill()
    process.wait()
    with contextlib.suppress(RuntimeError):
        start({"PADDOCK_FAULT": f"{point}:2"})


def one_point(point, who):
    """The n-th passing of `point` kills its process, in the middle of creates and kills."""
    instance = Instance(template="base", pool="20G", tcp=False, pool_size=0)
    try:
        instance.start()
        start_with_fault(instance, point, who)
        restart(instance)
        acknowledged, killed = [], []
        for _ in range(4):
            try:
                acknowledged.append(instance.admin.Sandboxes.Create(template="base", deadline=10).id)
            except grpc.RpcError:
                pass
            restart(instance)
        for id in acknowledged[:2]:
            name, _ = code_of(lambda i=id: instance.admin.Sandboxes.Kill(sandbox_id=i, deadline=10))
            restart(instance)
            acknowledged.remove(id)
            if name == "OK":
                killed.append(id)
        died = "exited" if 137 in instance.deaths else ""
        maybe = [id for id in living(instance) if id not in acknowledged + killed]
        wrong = inspect(instance, acknowledged, killed)
        left = settle(instance)
        verdict = instance.admin.Audit.Verify(deadline=20)
        check(f"fault/{who} dies at {point}", not wrong and left <= 0 and verdict.ok and died,
              f"{wrong} left {left} audit '{verdict.text}' {died or 'the point was never passed'} {len(maybe)}")
    finally:
        instance.stop()


def load(instance, stop, acknowledged, killed, lock):
    """Creates and kills until told to stop; remembers only what was acknowledged."""
    client = instance.client(f"unix:{instance.run}/admin.sock")
    while not stop.is_set():
        try:
            id = client.Sandboxes.Create(template="base", deadline=5).id
            with lock:
                acknowledged.add(id)
            client.run(id, "true", deadline=5)
            if random.random() < 0.7:
                with lock:
                    acknowledged.discard(id)  # from here on either outcome is right
                client.Sandboxes.Kill(sandbox_id=id, deadline=5)
                with lock:
                    killed.add(id)
        except grpc.RpcError:
            time.sleep(0.05)


def random_kills():
    instance = Instance(template="base", pool="20G", tcp=False)
    acknowledged, killed, lock = set(), set(), threading.Lock()
    try:
        instance.start()
        for round in range(ROUNDS):
            stop = threading.Event()
            threads = [threading.Thread(target=load, args=(instance, stop, acknowledged, killed, lock))
                       for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0.05, 0.8))
            who = random.choice(["paddockd", "warden", "both"])
            if who != "warden":
                instance.paddockd.kill()
            if who != "paddockd":
                instance.warden.kill()
            stop.set()
            for thread in threads:
                thread.join()
            eventually(lambda: who == "warden" or instance.paddockd.poll() is not None, 5)
            eventually(lambda: who == "paddockd" or instance.warden.poll() is not None, 5)
            started = time.monotonic()
            restart(instance)
            took = time.monotonic() - started
            wrong = inspect(instance, sorted(acknowledged), killed)
            check(f"fault/random kill {round + 1} of {who}", not wrong, f"{wrong} (restart {took:.1f} s)")
            if wrong:
                break
        left = settle(instance)
        check("fault/nothing is left after the random kills", left <= 0, str(left))
        verdict = instance.admin.Audit.Verify(deadline=30)
        check("fault/the audit chain verifies after the random kills", verdict.ok, verdict.text)
    finally:
        instance.stop()


def main():
    print(f"# seed {SEED}")
    random.seed(SEED)
    for point in fault_points("sandbox/warden"):
        one_point(point, "warden")
    for point in fault_points("server"):
        one_point(point, "paddockd")
    random_kills()
    check("fault/no cgroup after the stop", not host.cgroups(), str(host.cgroups()[:3]))
    check("fault/no process after the stop", not host.processes(), str(host.processes()[:3]))
    return done()


if __name__ == "__main__":
    sys.exit(main())
