#!/usr/bin/python3
"""L01-L03, L05, A01: kill -9 of paddockd and of the warden at every fault point, at every k-th of the system calls that change
something, and at random under load. After the next start every sandbox that was acknowledged is there exactly once
and works, the others are gone with all that they held, quotas count right and the audit chain verifies.

Needs a build with -DPADDOCK_FAULTS=ON (BUILD). CRASH_STEPS: how many (call, k) steps are drawn for each daemon; "all" for every
one. CRASH_ROUNDS: of random kills. SEED repeats a draw. Arguments select by substring."""
import collections
import os
import random
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from check import check, done
import grpc
from crash import Crashing, Strace, fault_points
from paddock import code_of

SEED = int(os.environ.get("SEED", str(random.randrange(1 << 30))))
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "8"))
STEPS = os.environ.get("CRASH_STEPS", "12")

# The system calls by which each daemon changes the world or tells somebody; a death on entry is a death before it.
CALLS = {
    "warden": "mkdirat,openat,write,pwrite64,ioctl,clone3,renameat2,unlinkat,socket,bind,connect,sendmsg,epoll_ctl,close",
    "paddockd": "write,writev,pwrite64,fdatasync,sendmsg,sendto,epoll_ctl,close",
}


def selected(name):
    return len(sys.argv) < 2 or any(word in name for word in sys.argv[1:])


def at_point(crashing, who, point, passing):
    """The n-th passing of `point` ends its process, in the middle of creates and kills."""
    deaths = len(crashing.instance.deaths)
    crashing.again(who, {"PADDOCK_FAULT": f"{point}:{passing}"})
    victim = getattr(crashing.instance, who)
    halfway = {"dump": crashing.through_disk, "restore": crashing.through_disk, "snapshot": crashing.through_snapshot, "reset": crashing.through_reset,
               "lazy": crashing.through_lazy}
    created, killed, died = crashing.lives(victim, halfway.get(point.split("_")[0]))
    if died and victim.poll() != 137:
        died = f"exit {victim.poll()}"
    if not died and not created and not killed and victim.poll() is None:
        died = True  # a point of the cloned child: each create failed, and the warden lives
        crashing.again(who)
    if not died and crashing.interrupted and victim.poll() is None:
        died = True  # a point of the child that dumps or restores, or of the server of pages
        crashing.again(who)
    wrong = crashing.verdict(created, killed)
    if died is not True:
        wrong.append(f"the point was not passed {passing} times" if died is False else died)
    check(f"fault/{who} dies at {point}:{passing}", not wrong, "; ".join(wrong) + f" (deaths {crashing.instance.deaths[deaths:]})")


def named_points(crashing):
    for who, folder in (("warden", "sandbox"), ("paddockd", "server")):
        for point in fault_points(folder):
            for passing in (1,) if who == "warden" else (1, 2, 3):
                if selected(f"{who} dies at {point}"):
                    at_point(crashing, who, point, passing)


def in_the_middle(crashing, point):
    """The warden, or its child, ends at this point of a pause, a resume or a snapshot of a sandbox in which something runs: the old
    state is there or the new one, and nothing of what ran is missing."""
    wrong = crashing.counts_on(point)
    check(f"fault/nothing is lost at {point}", not wrong, wrong)


def points_in_the_middle(crashing):
    for point in fault_points("sandbox"):
        if point.split("_")[0] in ("dump", "restore", "snapshot") and selected(f"nothing is lost at {point}"):
            in_the_middle(crashing, point)


def count_calls(crashing, who):
    """How often each of the calls is made by one create, use and kill."""
    victim = getattr(crashing.instance, who)
    strace = subprocess.Popen(["strace", "-f", "-p", str(victim.pid), "-e", "trace=" + CALLS[who]], stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, errors="replace")
    time.sleep(1)
    id, _ = crashing.create()
    code_of(lambda: crashing.instance.admin.run(id, "true"))
    crashing.kill(id)
    time.sleep(0.2)
    strace.terminate()
    text = strace.communicate()[1]
    pattern = r"^(?:\[pid +(\d+)\] )?([a-z0-9_]+)\("
    calls = collections.Counter(call for pid, call in re.findall(pattern, text, re.MULTILINE)
                                if who != "warden" or not pid or int(pid) == victim.pid)
    return [(call, k) for call, n in sorted(calls.items()) for k in range(1, n + 1)]


def at_call(crashing, who, call, k):
    victim = getattr(crashing.instance, who)
    strace = Strace(victim.pid, f"{call}:signal=KILL:when={k}", threads=who != "warden")
    created, killed, died = crashing.lives(victim)
    strace.stop()
    if not died:
        crashing.again(who)  # a thread more or less, a race: the count is not exact
    wrong = crashing.verdict(created, killed)
    check(f"fault/{who} dies at {call} {k}", not wrong, "; ".join(wrong))
    return died


def system_calls(crashing):
    for who in CALLS:
        if not selected(f"{who} dies at call"):
            continue
        steps = count_calls(crashing, who)
        check(f"fault/{who} makes calls to die at", len(steps) > 20, str(steps))
        print(f"# {who}: {len(steps)} steps")
        if STEPS != "all":
            steps = random.sample(steps, min(int(STEPS), len(steps)))
        died = sum(at_call(crashing, who, call, k) for call, k in steps)
        check(f"fault/{who} died at most of the steps", 2 * died > len(steps), f"{died} of {len(steps)}")


def load(instance, stop, book):
    """Creates and kills until told to stop; remembers only what was acknowledged."""
    client = instance.client(f"unix:{instance.run}/admin.sock")
    while not stop.is_set():
        try:
            id = client.Sandboxes.Create(template="base", deadline=5).id
            with book["lock"]:
                book["acknowledged"].add(id)
                book["created"].add(id)
            client.run(id, "true", deadline=5)
            if random.random() < 0.7:
                with book["lock"]:
                    book["acknowledged"].discard(id)  # from here on either outcome is right
                client.Sandboxes.Kill(sandbox_id=id, deadline=5)
                with book["lock"]:
                    book["killed"].add(id)
        except grpc.RpcError:
            time.sleep(0.05)


def random_round(crashing, book):
    instance, stop = crashing.instance, threading.Event()
    threads = [threading.Thread(target=load, args=(instance, stop, book)) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(random.uniform(0.05, 0.8))
    who = random.choice([["paddockd"], ["warden"], ["paddockd", "warden"]])
    for name in who:
        getattr(instance, name).kill()
    stop.set()
    for thread in threads:
        thread.join()
    for name in who:
        getattr(instance, name).wait(20)
    started = time.monotonic()
    crashing.restart()
    return who, time.monotonic() - started


def audited(instance, action):
    """How many records of this action each sandbox has."""
    return collections.Counter(r.sandbox_id for r in instance.admin.Audit.Export()
                               if r.action == action and r.outcome == "OK")


def random_kills(crashing):
    book = {"acknowledged": set(), "created": set(), "killed": set(), "lock": threading.Lock()}
    for round in range(ROUNDS):
        who, took = random_round(crashing, book)
        wrong = crashing.inspect(sorted(book["acknowledged"]), book["killed"])
        check(f"fault/random kill {round + 1}", not wrong, f"{who} {wrong} (restart {took:.1f} s)")
    wrong = crashing.settle() + crashing.audit()
    check("fault/nothing is left after the random kills", not wrong, "; ".join(wrong))
    for action, ids in (("paddock.v1.Sandboxes/Create", book["created"]), ("paddock.v1.Sandboxes/Kill", book["killed"])):
        found = audited(crashing.instance, action)
        wrong = [f"{id}: {found[id]}" for id in ids if found[id] != 1]
        check(f"fault/one record of each acknowledged {action.rsplit('/', 1)[1]}", not wrong, f"{len(ids)} {wrong[:3]}")


def main():
    print(f"# seed {SEED}", flush=True)
    random.seed(SEED)
    with Crashing() as crashing:
        named_points(crashing)
        points_in_the_middle(crashing)
        system_calls(crashing)
        if selected("random"):
            random_kills(crashing)
    left = [path for group in crashing.groups if os.path.isdir(group) for path in crashing.cgroups_in(group)]
    check("fault/no cgroup after the stop", not left, str(left[:3]))
    check("fault/the daemons end without a complaint", not crashing.instance.complaints, str(crashing.instance.complaints)[:300])
    return done()


if __name__ == "__main__":
    sys.exit(main())
