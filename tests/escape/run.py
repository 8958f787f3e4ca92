"""Upload the probe into sandboxes, gather its checks by id of the security catalogue, and look from the host at what a sandbox
does to the box and to its neighbours. Each refusal stands next to a control: the probe's own "control:" checks, and the
same calls made outside (--outside), where they must not give the errors that the filter gives."""
import collections
import errno
import fcntl
import io
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time

import catalogue
import files  # noqa: F401 (its scenarios register themselves)
import grpc
import processes  # noqa: F401
import resources  # noqa: F401
import warden
from box import FAILURES, PROBE, RUNNING, SCENARIOS, Box, group_name, host_pid_of_init, report, scenario
from paddock import SOURCE, WARDEN, Instance, mini_template, pb


# -- the probe ------------------------------------------------------------------------------------------------------

def outside():
    """What the same calls give outside: {(id, what): errno name}."""
    done = subprocess.run(["unshare", "--net", "--mount", PROBE, "--outside"], capture_output=True, text=True, timeout=120)
    seen = {}
    for line in done.stdout.splitlines():
        match = re.match(r"saw (\S+) (.*): (\S+)$", line)
        if match:
            seen[match.group(1), match.group(2)] = match.group(3)
    return seen


def gather(text):
    ids = collections.OrderedDict()
    for line in text.splitlines():
        match = re.match(r"(ok|FAIL) ([A-Z][0-9]{2}) (.*): (.*)$", line)
        if match:
            ids.setdefault(match.group(2), []).append(match.groups())
    return ids


def report_probe(where, result, least):
    ids = gather(result.all.decode(errors="replace").replace("\r", ""))
    for id, checks in sorted(ids.items()):
        bad = [f"{what}: {why}" for verdict, _, what, why in checks if verdict == "FAIL"]
        report(f"{where}/{id}", bad, f"{len(checks)} checks")
    problems = [f"missing {id}" for id in least if id not in ids]
    if (result.code, result.signal) != (0, 0):
        problems.append(f"exit {result.code} signal {result.signal}: {result.all[-300:]!r}")
    report(f"{where}/probe-ran-to-its-end", problems, f"{sum(map(len, ids.values()))} checks")


def report_outside():
    seen = outside()
    by_id = collections.Counter(id for (id, _), _ in seen.items())
    differ = collections.Counter(id for (id, _), error in seen.items() if error not in ("EPERM", "EACCES"))
    for id, count in sorted(by_id.items()):
        report(f"control-outside/{id}", [] if differ[id] else ["every call is refused outside too: the check shows nothing"],
               f"{differ[id]} of {count} arrive in the kernel outside")


FULL = ["F01", "F02", "F09", "F14", "F20", "F21", "F25", "F26", "F27", "K01", "K02", "K03", "K04", "K05", "K06", "K07", "K08", "K09", "K10", "K11", "K12",
        "K13", "K14", "K15", "K16", "K17", "K18", "K19", "K20", "K21", "K22", "K23", "K24", "N01", "N12", "N30", "P09", "P10", "R06", "R11"]
TASK = ["K01", "K02", "K03", "K04"]


def host_environment():
    """Canaries on the host: an abstract socket and a TCP port that answer to the host."""
    abstract, tcp = socket.socket(socket.AF_UNIX), socket.socket()
    name = f"paddock-canary-{os.getpid()}"
    abstract.bind("\0" + name)
    abstract.listen()
    tcp.bind(("127.0.0.1", 0))
    tcp.listen()
    socket.socket(socket.AF_UNIX).connect("\0" + name)
    socket.create_connection(tcp.getsockname()).close()
    environment = {f"HOST_NS_{n}": os.readlink(f"/proc/self/ns/{n}") for n in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")}
    environment.update(HOST_ABSTRACT=name, HOST_PORT=str(tcp.getsockname()[1]))
    return environment, (abstract, tcp)


def probes(instance, client):
    environment, keep = host_environment()
    box = Box(instance, client).upload()
    for user in ("user", "root"):
        result = client.run(box.id, "/usr/local/bin/probe", user=user, env=environment, cwd="/tmp", deadline=180)
        report_probe(user, result, FULL)
        report(f"{user}/P10-pid-one-lives", [] if box.alive() else ["the sandbox does not answer"])
    result = client.run(box.id, "/usr/local/bin/probe", env=environment, terminal=pb.TerminalSize(columns=200, rows=50), deadline=180)
    report_probe("terminal", result, FULL)
    result = client.run(box.id, "/usr/bin/sudo", "-E", "env", *[f"{k}={v}" for k, v in environment.items()], "/usr/local/bin/probe", "--task")
    if result.code != 0:
        result = client.run(box.id, "/usr/bin/sudo", "env", *[f"{k}={v}" for k, v in environment.items()], "/usr/local/bin/probe", "--task")
    report_probe("sudo", result, TASK)
    instance.stop_paddockd()
    instance.start_paddockd()
    result = client.run(box.id, "/usr/local/bin/probe", "--task", env=environment)
    report_probe("after-restart", result, TASK)
    for canary in keep:
        canary.close()
    box.kill()


# -- what the host sees ---------------------------------------------------------------------------------------------

def namespace_owner(path):
    """The user namespace that owns the namespace at a path of /proc (NS_GET_USERNS), and the namespace itself, as links say."""
    fd = os.open(path, os.O_RDONLY)
    owner = fcntl.ioctl(fd, 0xb701)
    try:
        return os.readlink(f"/proc/self/fd/{owner}"), os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(owner)
        os.close(fd)


@scenario
def K01_namespaces_belong_to_the_sandbox(instance, client):
    """A checkpoint needs it; what the sandbox's root could do with it, it has no capability for: K03, K05, N30."""
    one, two = Box(instance, client), Box(instance, client)
    pids = [host_pid_of_init(box) for box in (one, two)]
    users = [os.readlink(f"/proc/{pid}/ns/user") for pid in pids]
    assert users[0] != users[1] and os.readlink("/proc/self/ns/user") not in users
    for name in ("pid", "mnt", "net", "ipc", "uts", "cgroup"):
        owned = [namespace_owner(f"/proc/{pid}/ns/{name}") for pid in pids]
        assert [owner for owner, _ in owned] == users, (name, owned, users)
        assert owned[0][1] != owned[1][1], f"two sandboxes share a {name} namespace"
    for box in (one, two):
        box.kill()


@scenario
def K02_uid_ranges_do_not_overlap(instance, client):
    boxes = [Box(instance, client) for _ in range(5)]
    ranges = sorted((b.uid_range() for b in boxes), key=lambda r: r.start)
    assert all(a.stop <= b.start for a, b in zip(ranges, ranges[1:])), ranges
    assert ranges[0].start >= 65536
    for box in boxes:
        box.kill()


@scenario
def K11_real_programs_run(instance, client):
    box = Box(instance, client)
    box.out("python3 -c 'import threading; t = threading.Thread(target=print, args=(1,)); t.start(); t.join()'")
    box.out("node -e 'const w = require(\"worker_threads\"); console.log(process.version)'")
    box.out("cd /tmp && printf '#include <stdio.h>\\nint main(void){puts(\"hi\");}' > a.c && gcc -o a a.c && ./a | grep -q hi")
    box.out("cd /tmp && git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git log --oneline | grep -q x")
    box.kill()


@scenario
def K25_random_calls(instance, client):
    """Random system calls as the user and as root: the kernel's log, the server and the neighbour show nothing of it."""
    seconds, seed = int(os.environ.get("ESCAPE_FUZZ_SECONDS", "6")), int(os.environ.get("SEED", str(time.time_ns() % (1 << 31))))
    print(f"# seed {seed}", flush=True)
    other = Box(instance, client)
    for user in ("user", "root"):
        box = Box(instance, client, timeout_ms=(seconds + 600) * 1000).upload()
        calls, end, last = 0, time.monotonic() + seconds / 2, time.monotonic() + seconds + 60
        # A seed may end its own process or its count, by a limit or a fault that it set: the next one goes on.
        while time.monotonic() < end or (calls <= 1000 and time.monotonic() < last):
            result = client.run(box.id, "/usr/local/bin/probe", "--fuzz", str(min(60, max(1, int(end - time.monotonic())))), str(seed), user=user, cwd="/tmp",
                                deadline=seconds + 60)
            # What it wrote itself comes before; what it did to its own counters shows.
            made, worked = map(int, (re.findall(rb"\ncalls (\d+) worked (\d+)\n", result.out) or [(0, 0)])[-1])
            sane = worked <= made < 10 ** 8
            calls, seed = calls + (made if sane else 0), seed + 1000003
            assert not sane or worked >= made / 50, f"the control: some work: {made} {worked}"
        assert calls > 1000, f"only {calls} calls"
        assert other.alive()
        assert client.Sandboxes.Get(sandbox_id=box.id).state == RUNNING and box.alive()
        box.kill()
    other.kill()
    assert not new_alarms(), new_alarms()[:3]


def new_alarms():
    """A program's own fault ("traps:") is none."""
    done = subprocess.run(["dmesg"], capture_output=True, text=True)
    return [line for line in done.stdout.splitlines()[len(KERNEL_LOG):] if "traps:" not in line and re.search(r"Oops|BUG:|WARNING:|general protection|hung task", line)]


@scenario
def K13_kernel_log_has_no_new_alarm(instance, client):
    assert not new_alarms(), new_alarms()[:3]


@scenario
def N13_no_socket_of_the_host_inside(instance, client):
    box = Box(instance, client)
    found = set(box.out("find / -xdev -type s 2>/dev/null; find /run /tmp /dev /var -type s 2>/dev/null; true", user="root").split())
    assert found <= {"/run/paddock/sudo.sock"}, found
    assert box.out("cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '").split() == ["lo"]
    box.kill()


# -- the warden and a paddockd that is not ours ------------------------------------------------------------------------

def group_folders(runtime_dir):
    return subprocess.run(["find", "/sys/fs/cgroup", "-maxdepth", "4", "-name", group_name(runtime_dir)], capture_output=True, text=True).stdout.split()


def image_with_link(name, target):
    """The mini template with `name` as a symbolic link instead."""
    source, data = tarfile.open(fileobj=io.BytesIO(mini_template())), io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for member in source:
            if member.name != name and not member.name.startswith(name + "/"):
                tar.addfile(member, source.extractfile(member) if member.isreg() else None)
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)
    return data.getvalue()


def with_warden(test):
    def run(instance, client):
        w = warden.Warden()
        try:
            template = w.import_template(mini_template())
            assert template.status == 0, template.text
            test(w, template.template)
        finally:
            w.remove()
    run.__name__ = test.__name__
    return scenario(run)


@with_warden
def H02_hostile_requests(w, template):
    box = w.create(template)
    assert box.status == 0, box.text
    os.close(box.fd)
    unknown = "i" + "z" * 20
    good = {"id": unknown, "template": template, "hostname": "box"}
    cases = [("no such operation", {"op": 99}), ("an event as a request", {"op": warden.EXITED}), ("operation 0", {"op": 0})]
    for id in ("", "..", "../../etc", "i/../../../etc/pas", "I" + "z" * 20, "i" + "z" * 19, "import", "t" * 21):
        for op in (warden.CREATE, warden.ATTACH, warden.LIMITS, warden.USAGE, warden.FREEZE, warden.CHECKPOINT, warden.RELEASE, warden.RESTORE, warden.KILL):
            cases.append((f"id {id!r} operation {op}", {**good, "op": op, "id": id}))
    for name in ("", "..", "../sandboxes", "t" + "/" * 40, "t" + "0" * 39, "t" + "0" * 40):
        cases += [(f"template {name!r}", {**good, "op": warden.CREATE, "template": name}), (f"remove {name!r}", {"op": warden.REMOVE, "template": name})]
    for name in ("", "..", "../sandboxes", "s/../../../etc/pas", "s" + "z" * 19, unknown):
        named = {"snapshot": name, "value": 1}
        cases += [(f"snapshot {name!r}", {**named, "op": warden.SNAPSHOT, "id": box.id}), (f"copy of {name!r}", {**good, **named, "op": warden.COPY}),
                  (f"removal of snapshot {name!r}", {**named, "op": warden.SNAPSHOT_REMOVE})]
    for name in ("", "-x", ".x", "a b", "a/b", "a\nb", "a" * 62 + "\xff"):
        cases.append((f"host name {name!r}", {**good, "op": warden.CREATE, "hostname": name.encode("latin-1")}))
    for field in ("memory", "disk", "inodes", "cpu", "pids"):
        for value in (0, 1, (1 << 32) - 1 if field in ("cpu", "pids") else (1 << 64) - 1):
            cases.append((f"{field} {value}", {**good, "op": warden.CREATE, field: value}))
            cases.append((f"{field} {value} of a living one", {"op": warden.LIMITS, "id": box.id, field: value}))
    for value in (257, 1 << 32, (1 << 64) - 1):
        cases.append((f"stock {value}", {"op": warden.STOCK, "value": value}))
    with open("/dev/null", "rb") as null, open(w.log, "rb") as log:
        cases += [("import from a device", {"op": warden.IMPORT, "value": 1 << 30, "fds": [null.fileno()]}),
                  ("import from a file", {"op": warden.IMPORT, "value": 1 << 30, "fds": [log.fileno()]}),
                  ("import from nothing", {"op": warden.IMPORT, "value": 1 << 30})]
        accepted = [what for what, fields in cases if w.ask(fields.pop("op"), **fields).status >= 0]
    assert not accepted, accepted
    assert w.ask(warden.REMOVE, template=template).status == -errno.EBUSY
    assert w.ask(warden.CREATE, id=box.id, template=template, hostname="box").status == -errno.EEXIST
    assert w.ask(warden.USAGE, id=box.id).usage["pids"] >= 1, "the control: the living one answers"
    assert w.ask(warden.KILL, id=box.id).status == 0


@with_warden
def H02_broken_messages(w, template):
    whole = warden.REQUEST.pack(warden.HELLO, 1, warden.VERSION, b"", b"", b"", b"", 0, 0, 0, 0, 0)
    for data in (b"x", whole[:-1], whole + b"x", b"\xff" * len(whole), bytes(len(whole)), whole[:16] + b"a" * 24 + whole[40:], whole[:16] + b"\0a" + whole[18:]):
        w.send_raw(data)
        try:
            assert not w.socket.recv(4096), data[:30]
        except ConnectionError:
            pass
        w.socket.close()
        w.connect()
        assert w.ask(warden.HELLO, value=warden.VERSION).value == warden.VERSION, "the control: the next client is served"
    files = lambda: len(os.listdir(f"/proc/{w.process.pid}/fd"))
    before = files()
    with open("/dev/null") as null:
        for _ in range(50):
            w.ask(warden.HELLO, value=warden.VERSION, fds=[null.fileno()] * 3)
    assert files() < before + 10, "descriptors that nobody asked for stay open"


@with_warden
def H02_descriptors_whose_close_waits(w, template):
    """Sockets that linger for an hour, more than are taken: the warden, which is the last to have them, goes on at once."""
    server = socket.create_server(("127.0.0.1", 0))

    def lingering():
        s, kept = socket.create_connection(server.getsockname()), server.accept()[0]
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        s.setblocking(False)
        try:
            while True:
                s.send(b"x" * 65536)
        except BlockingIOError:
            return s, kept
    for op, count in ((warden.HELLO, 1), (warden.HELLO, 7), (warden.IMPORT, 1), (99, 3)):
        pairs = [lingering() for _ in range(count)]
        os.kill(w.process.pid, signal.SIGSTOP)
        w.send(op, value=1 << 30, fds=[s.fileno() for s, _ in pairs])
        for s, _ in pairs:
            s.close()
        os.kill(w.process.pid, signal.SIGCONT)
        began = time.monotonic()
        try:
            w.receive()
        except (EOFError, ConnectionError):  # more descriptors than a message may have
            w.socket.close()
            w.connect()
        assert w.ask(warden.HELLO, value=warden.VERSION).value == warden.VERSION
        assert time.monotonic() - began < 2, (op, count)
        for _, kept in pairs:
            kept.close()
    s, kept = lingering()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
    began = time.monotonic()
    s.close()
    assert time.monotonic() - began > 0.9, "the control: such a close waits"


@with_warden
def F03_images_with_links_for_mount_points(w, template):
    """/dev and the like as symbolic links: refused at import or at create, or ours lies over it; the canary outside stays as it is."""
    canary = w.dir + "/canary"
    os.mkdir(canary)
    os.chmod(canary, 0o777)
    for name in ("dev", "proc", "tmp", "run", "sys", "etc", "dev/null", "dev/pts", "proc/sys"):
        for target in ("/", canary, "../../../../../../.." + canary):
            reply = w.import_template(image_with_link(name, target))
            assert reply.status == 0 or name in ("dev", "proc", "tmp", "run", "sys"), (name, target, reply.text)
            if reply.status == 0:
                box = w.create(reply.template)
                if box.status == 0:
                    os.close(box.fd)
                    assert w.ask(warden.KILL, id=box.id).status == 0
                assert w.ask(warden.REMOVE, template=reply.template).status == 0
            assert os.listdir(canary) == [] and os.stat(canary).st_uid == 0, (name, target)
    box = w.create(template)
    assert box.status == 0, "the control: the same image without the link"
    os.close(box.fd)
    assert w.ask(warden.KILL, id=box.id).value == 1


@with_warden
def H07_nothing_is_left_when_the_warden_stops(w, template):
    box = w.create(template)
    os.close(box.fd)
    assert group_folders(w.run), "the control: they are found"
    w.stop()
    assert group_folders(w.run), "a living sandbox keeps its cgroup"
    w.start()
    assert w.ask(warden.KILL, id=box.id).value == 1
    w.stop()
    assert group_folders(w.run) == []


@scenario
def D03_a_kernel_without_memfd_noexec_is_refused(instance, client):
    def check(*words):
        hide = 'mount -t tmpfs none /proc/sys/vm && exec "$0" --check "$@"'
        done = subprocess.run(["unshare", "--mount", "sh", "-c", hide, WARDEN, "--libexec-dir", instance.libexec, "--policy-dir", SOURCE + "/policies", *words],
                              capture_output=True, text=True, timeout=60)
        return done.returncode, [line for line in done.stdout.splitlines() if line.startswith("vm.memfd_noexec")]
    code, (line,) = check()
    assert code == 1 and "MISSING" in line and "6.3" in line and "--allow-memfd-exec" in line, line
    code, (line,) = check("--allow-memfd-exec")
    assert code == 0 and " ok" in line, line


KERNEL_LOG = subprocess.run(["dmesg"], capture_output=True, text=True).stdout.splitlines()


def main():
    words = sys.argv[1:]
    report("catalogue", catalogue.problems())
    with Instance(template="base", pool="20G") as instance:
        client = instance.tenant("escape")
        if not words or "probe" in words:
            report_outside()
            probes(instance, client)
        for test in SCENARIOS:
            if words and not any(word in test.__name__ for word in words):
                continue
            try:
                test(instance, client)
            except (AssertionError, TimeoutError, grpc.RpcError, ValueError, OSError) as error:
                text = error.details() if isinstance(error, grpc.RpcError) else str(error)
                report(test.__name__, [f"{type(error).__name__} {text}"])
            else:
                report(test.__name__, [])
    report("instance-ends-cleanly", instance.complaints)


main()
sys.exit(1 if FAILURES else 0)
