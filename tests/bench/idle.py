#!/usr/bin/python3
"""What the daemons and the sandboxes themselves use of the processor while nobody asks for anything.

	tests/bench/idle.py [--live N] [--seconds N]

From `schedstat` of every thread, so what else runs on the machine does not count."""
import argparse
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "ingress"))
from ingress import Ingress
from paddock import Instance

SETTINGS = {"memory_overcommit": 1000, "disk_overcommit": 1000, "default_memory_bytes": "256M", "quota_creates_per_minute": 10000000,
            "quota_total_memory_bytes": "100T", "quota_total_disk_bytes": "1000T"}


def used(pids):
    """-> (ns on a processor, how often one of them began to run)"""
    ns = runs = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as f:
                on, _, times = f.read().split()
            ns, runs = ns + int(on), runs + int(times)
    return ns, runs


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return int(f.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--live", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    limit = options.live + 50
    with Instance(pool="10G", ingress_user="paddock", max_sandboxes=limit, quota_max_sandboxes=limit, **SETTINGS) as instance, \
            Ingress(run=instance.run, user="paddock") as ingress:
        for _ in range(options.live):
            instance.admin.create(template="base")
        time.sleep(5)
        parties = {"paddockd": [instance.paddockd.pid], "warden": [instance.warden.pid], "ingress": [ingress.process.pid],
                   "in the sandboxes": [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and parent_of(pid) == instance.warden.pid]}
        before = {name: used(pids) for name, pids in parties.items()}
        time.sleep(options.seconds)
        print(f"| {options.live} idle sandboxes | CPU, of each second | wakes a second |\n|---|--:|--:|")
        for name, pids in parties.items():
            ns, runs = used(pids)
            print(f"| {name} | {(ns - before[name][0]) / options.seconds / 1e6:.2f} ms | {(runs - before[name][1]) / options.seconds:.1f} |")


if __name__ == "__main__":
    main()
