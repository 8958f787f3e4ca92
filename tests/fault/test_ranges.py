#!/usr/bin/python3
"""Wardens of one host do not share host ids, also not with the sandboxes of a warden that was killed."""
import os
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
import tap
from paddock import Instance, eventually

IDS = 65536


def ranges(instance):
    """The uid ranges, by number, in which processes of this instance's sandboxes live."""
    found = set()
    for id in os.listdir(instance.run + "/sandboxes"):
        for folder in subprocess.run(["find", "/sys/fs/cgroup/unified", "/sys/fs/cgroup", "-maxdepth", "8", "-type", "d", "-name", id],
                                     capture_output=True, text=True).stdout.split():
            with open(folder + "/cgroup.procs") as procs:
                for pid in procs.read().split():
                    with open(f"/proc/{pid}/status") as status:
                        found.add(int(next(line for line in status if line.startswith("Uid:")).split()[1]) // IDS)
    return found


class Ranges(unittest.TestCase):
    def test_wardens_of_one_host(self):
        with Instance(tcp=False) as one:
            box = one.admin.create().id
            mine = ranges(one)
            self.assertTrue(mine)
            with Instance(tcp=False) as two:
                two.admin.create()
                self.assertTrue(ranges(two))
                self.assertEqual(mine & ranges(two), set())
            one.warden.send_signal(signal.SIGKILL)
            one.warden.wait()
            mine = ranges(one)
            self.assertTrue(mine)
            with Instance(tcp=False) as three:  # the lock is free, and the sandboxes are alive
                three.admin.create()
                self.assertTrue(ranges(three))
                self.assertEqual(mine & ranges(three), set())
                one.start_warden()
                self.assertEqual(one.admin.run(box, "echo alive").out, b"alive\n")
                self.assertTrue(eventually(lambda: one.admin.create().id, 10))
                self.assertTrue(mine & ranges(one), "they were not adopted")
                self.assertEqual(ranges(one) & ranges(three), set())


if __name__ == "__main__":
    tap.main()
