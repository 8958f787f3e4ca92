"""What the host looks like from outside: for tests that say "nothing is left"."""
import os
import re
import subprocess


def mounts(pid="self"):
    with open(f"/proc/{pid}/mountinfo") as stream:
        return sorted(line.split(" ", 3)[3] for line in stream)


def cgroups():
    found = []
    for folder, folders, _ in os.walk("/sys/fs/cgroup"):
        if re.search(r"/paddock-[^/]*/", folder + "/"):
            found.append(folder)
    return sorted(found)


def loops():
    out = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=False).stdout
    return sorted(out.splitlines())


def processes():
    """Ids of all processes whose uid lies in the ranges that sandboxes get."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid >= 0x10000000:
                found.append(int(pid))
        except OSError:
            pass
    return sorted(found)


def cpu_quota_file(box):
    """The file that says how much processor time the sandbox may use, of whichever version."""
    for folder, _, files in os.walk("/sys/fs/cgroup"):
        for name in ("cpu.cfs_quota_us", "cpu.max"):
            if os.path.basename(folder) == box and name in files:
                return f"{folder}/{name}"
    return None


def cpu_quota(box, path=None):
    """In microseconds of every 100,000: "5000"; or "-1" or "max"."""
    with open(path or cpu_quota_file(box)) as stream:
        return stream.read().split()[0]


def in_cgroup(pid, folders):
    """True if the process is in one of these cgroup folders, or below it, in whichever hierarchy."""
    try:
        with open(f"/proc/{pid}/cgroup") as stream:
            text = stream.read().replace("\n", "/\n")
    except OSError:
        return False
    return any(f"/{os.path.basename(folder)}/" in text for folder in folders)


def fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(limit):
    """A bound for rss(): a build with sanitizers keeps what was freed for a while, so it shows only what has no bound at all."""
    return limit + (384 << 20 if "ASAN_OPTIONS" in os.environ or "TSAN_OPTIONS" in os.environ else 0)


def rss(pid):
    with open(f"/proc/{pid}/status") as stream:
        for line in stream:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def files(folder):
    found = []
    for base, folders, names in os.walk(folder):
        found += [os.path.join(base, name) for name in folders + names]
    return sorted(found)


def namespaces():
    """All namespaces that some process is in."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for name in os.listdir(f"/proc/{pid}/ns"):
                found.add(os.readlink(f"/proc/{pid}/ns/{name}"))
        except OSError:
            pass
    return sorted(found)
