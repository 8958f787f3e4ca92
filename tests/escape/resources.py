"""R: a sandbox that takes all it can get. Its own limit ends that; the neighbours and the box hardly notice."""
import errno
import glob
import os
import subprocess
import time

import host
from box import MIB, Box, available, host_pid_of_init, scenario
from paddock import Result, pb, wait_until


@scenario
def R01_memory_bombs(instance, client):
    box, other = Box(instance, client, resources=pb.Resources(memory_bytes=128 * MIB)), Box(instance, client)
    before = available()
    for bomb in ("dd if=/dev/zero of=/tmp/bomb bs=1M count=600", "dd if=/dev/zero of=/dev/shm/bomb bs=1M count=600",
                 "python3 -c 'x = bytearray(600 << 20)'",
                 "python3 -c 'import os, fcntl\np=[]\nwhile 1:\n r, w = os.pipe(); fcntl.fcntl(w, 1031, 1 << 20); os.set_blocking(w, False); os.write(w, b\"x\" * (1 << 20)); p.append((r, w))'"):
        result = box.run(bomb + "; rc=$?; rm -f /tmp/bomb /dev/shm/bomb; exit $rc", timeout_ms=60000)
        assert (result.code, result.signal) != (0, 0), bomb
        assert before - available() < 400 * MIB, bomb
        assert other.alive() and box.alive(), bomb
    assert client.Sandboxes.GetUsage(sandbox_id=box.id).memory_bytes <= 130 * MIB
    box.kill()
    other.kill()


@scenario
def R03_cpu_quota(instance, client):
    box, other = Box(instance, client, resources=pb.Resources(cpu_millis=500)), Box(instance, client)
    box.run("for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait", detach=True)
    time.sleep(1)
    began, used = time.monotonic(), client.Sandboxes.GetUsage(sandbox_id=box.id).cpu_usec
    time.sleep(4)
    used = client.Sandboxes.GetUsage(sandbox_id=box.id).cpu_usec - used
    share = used / 1e6 / (time.monotonic() - began)
    assert 0.05 < share <= 0.5 * 1.10, f"used {share:.2f} of a core, the quota is 0.5"
    assert other.alive()
    box.kill()
    other.kill()


@scenario
def R04_inode_bomb(instance, client):
    """The limit is counted, not built in: what a sandbox makes between two looks passes (sandbox/warden/README.md)."""
    box, other = Box(instance, client, resources=pb.Resources(max_inodes=2000)), Box(instance, client)
    bomb = ("mkdir -p /home/user/d; cd /home/user/d; python3 -c '\nimport os\nn = 0\ntry:\n  while n < 20000: os.close(os.open(f\"f{n}\", os.O_CREAT)); n += 1\n"
            "except OSError as e: print(n, e.errno)'")
    for _ in range(2):
        count, error = map(int, box.out(bomb).split())
        assert 1000 < count <= 5000 and error == errno.EDQUOT, (count, error)
        assert box.run("echo x > /home/user/one-more").code != 0
        other.out("echo x > /home/user/neighbour")
        box.out("rm -rf /home/user/d; for i in $(seq 40); do (echo x > /home/user/again) 2>/dev/null && exit 0; sleep 0.05; done; exit 1")
    assert int(box.out("cd /tmp; i=0; while [ $i -lt 6000 ] && : > f$i; do i=$((i+1)); done 2>/dev/null; ls | wc -l")) <= 2000, "tmpfs"
    box.kill()
    other.kill()


@scenario
def R05_disk_bombs(instance, client):
    box = Box(instance, client, resources=pb.Resources(disk_bytes=64 * MIB))
    for bomb in ("fallocate -l 500M /home/user/bomb", "dd if=/dev/urandom of=/home/user/bomb bs=1M count=500 oflag=direct",
                 "python3 -c 'import os\nos.chdir(\"/home/user\"); os.mkdir(\"bomb\")\nfor i in range(100000): open(f\"bomb/{i}\", \"wb\").write(os.urandom(5000))'",
                 "python3 -c 'import os\nf = open(\"/home/user/bomb\", \"wb\"); os.unlink(\"/home/user/bomb\")\nfor i in range(500): f.write(os.urandom(1 << 20)); f.flush()'"):
        result = box.run(f"{bomb}; rc=$?; rm -rf /home/user/bomb; sync; sleep 1; exit $rc", timeout_ms=90000)
        assert (result.code, result.signal) != (0, 0), bomb
        assert not result.exited.timed_out, bomb
    box.out("dd if=/dev/urandom of=/home/user/again bs=1M count=30 2>/dev/null")
    assert client.Sandboxes.GetUsage(sandbox_id=box.id).disk_bytes <= 70 * MIB
    box.kill()


@scenario
def R11_limits_are_per_sandbox(instance, client):
    one, two = Box(instance, client), Box(instance, client)
    one.run("exec python3 -c 'import ctypes, time\nl = ctypes.CDLL(None)\nwhile l.inotify_init1(0) >= 0: pass\ntime.sleep(60)'", detach=True)
    time.sleep(1)
    two.out("python3 -c 'import ctypes; assert ctypes.CDLL(None).inotify_init1(0) >= 0'")
    stream = client.Files.Watch(sandbox_id=two.id, path=b"/tmp", deadline=5)
    next(stream)
    stream.cancel()
    one.kill()
    two.kill()


@scenario
def R01_kernel_memory(instance, client):
    """What the kernel keeps for a sandbox counts as the sandbox's: names, mappings, watches, sockets with unread data."""
    other = Box(instance, client)
    for bomb in (
            "import mmap, itertools\nk = []\nfor i in itertools.count(): k.append(mmap.mmap(-1, 4096, prot=1 + i % 2))",
            "import os\nos.chdir('/dev/shm')\nfor i in range(10 ** 8): os.path.exists(f'{i:0200}')",
            "import os\nos.chdir('/tmp')\nwhile True: os.mkdir('d'); os.chdir('d')",
            "import select, socket\nk = []\nwhile True:\n  e = select.epoll(); k.append(e)\n  for i in range(100): s = socket.socket(); k.append(s); e.register(s)",
            "import socket\nk = []\nwhile True:\n  a, b = socket.socketpair(); k += [a, b]; a.setblocking(False)\n  try:\n    while True: a.send(b'x' * 65536)\n"
            "  except BlockingIOError: pass"):
        box, before = Box(instance, client, resources=pb.Resources(memory_bytes=96 * MIB)), available()
        client.run(box.id, "python3", "-c", bomb, timeout_ms=2500, grace_ms=100)
        assert before - available() < 300 * MIB, bomb
        assert client.Sandboxes.GetUsage(sandbox_id=box.id).memory_bytes <= 98 * MIB, bomb
        began = time.monotonic()
        assert other.alive() and time.monotonic() - began < 2, bomb
        assert box.alive(), f"the control: it works afterwards: {bomb}"
        box.kill()
    other.kill()


def cgroup_values(box, *names):
    """What the cgroups of a sandbox say, in whatever hierarchy has the file."""
    pid = host_pid_of_init(box)
    with open(f"/proc/{pid}/cgroup") as f:
        leaves = {line.rstrip().split(":", 2)[2] for line in f} - {"/"}
    for leaf in leaves:
        for name in names:
            for path in glob.glob(f"/sys/fs/cgroup{leaf}/{name}") + glob.glob(f"/sys/fs/cgroup/*{leaf}/{name}"):
                with open(path) as f:
                    yield name, f.read().strip()


@scenario
def R02_no_way_out_into_swap(instance, client):
    box = Box(instance, client, resources=pb.Resources(memory_bytes=64 * MIB))
    values = dict(cgroup_values(box, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max", "memory.swappiness"))
    assert str(64 * MIB) in (values.get("memory.limit_in_bytes"), values.get("memory.max")), f"the control: the limit is found: {values}"
    with open("/proc/swaps") as f:
        has_swap = len(f.readlines()) > 1
    bounded = values.get("memory.memsw.limit_in_bytes") == str(64 * MIB) or values.get("memory.swap.max") == "0" or values.get("memory.swappiness") == "0"
    assert bounded or not has_swap, values
    result = box.run("exec python3 -c 'x = bytearray(200 << 20)'", timeout_ms=30000)
    assert result.signal == 9 or result.code, "memory beyond the limit was had"
    assert client.Sandboxes.GetUsage(sandbox_id=box.id).memory_peak_bytes <= 66 * MIB
    box.kill()


@scenario
def R06_open_files_come_back(instance, client):
    count = lambda: int(open("/proc/sys/fs/file-nr").read().split()[0])
    box, other, before = Box(instance, client), Box(instance, client), count()
    box.run("ulimit -n 20000; for i in 1 2 3 4; do python3 -c 'import os, time\ntry:\n  while True: os.open(\"/dev/null\", 0)\nexcept OSError: print(1, flush=True); time.sleep(60)' & done; wait", detach=True)
    wait_until(lambda: count() - before > 40000, 20, "the control: 4 x 20,000 are open")
    assert other.alive() and box.alive()
    box.kill()
    wait_until(lambda: count() - before < 10000, 10, "they are back")
    other.kill()


@scenario
def R07_endless_output(instance, client):
    """A gigabyte in one line, unfollowed, and a million lines of a byte: what is kept is bounded and says what is missing; the
    server's memory stays flat, and others wait little."""
    box, other, pid = Box(instance, client), Box(instance, client), instance.paddockd.pid
    before, waits = host.rss(pid), []
    for argv, total in ((["head", "-c", "1G", "/dev/zero"], 1 << 30), (["sh", "-c", "yes '' | head -n 4000000"], 4000000)):
        bomb = client.run(box.id, *argv, detach=True)
        running = True
        while running:
            began = time.monotonic()
            assert other.alive()
            waits.append(time.monotonic() - began)
            running = any(p.process_id == bomb.id for p in client.Processes.List(sandbox_id=box.id).processes)
            assert host.rss(pid) - before < host.memory(32 * MIB), argv
        exited = client.Processes.Wait(sandbox_id=box.id, process_id=bomb.id)
        assert (exited.exit_code, exited.output_bytes) == (0, total), exited
        kept = Result(client.Processes.Attach(sandbox_id=box.id, process_id=bomb.id))
        assert len(kept.all) + sum(gap.dropped_bytes for gap in kept.gaps) == total and len(kept.all) <= 2 * MIB and len(kept.gaps) == 1
    assert sorted(waits)[len(waits) // 2] < 0.2, sorted(waits)
    box.kill()
    other.kill()


@scenario
def R09_disk_storm(instance, client):
    """Writers that sync all the time: a neighbour's sync, and a record of the audit log, come through."""
    box, other = Box(instance, client), Box(instance, client)
    box.run("for i in 1 2 3 4 5 6 7 8; do (while :; do dd if=/dev/zero of=/home/user/$i bs=64k count=16 conv=fsync 2>/dev/null; done) & done; wait", detach=True)
    time.sleep(1)
    syncs, records = [], []
    for i in range(10):
        began = time.monotonic()
        other.out("dd if=/dev/zero of=/home/user/x bs=4k count=1 conv=fsync 2>/dev/null")
        syncs.append(time.monotonic() - began)
        began = time.monotonic()
        client.Sandboxes.SetTimeout(sandbox_id=other.id, timeout_ms=600000 + i)  # acknowledged when it is recorded
        records.append(time.monotonic() - began)
    assert sorted(syncs)[8] < 3 and sorted(records)[8] < 1, (sorted(syncs), sorted(records))
    box.kill()
    other.kill()


@scenario
def R10_network_storm(instance, client):
    """Loopback at full speed, thousands of half-open connections, a flood of datagrams: the host's table of connections does not
    grow, and a neighbour's loopback works."""
    def tracked():
        try:
            return int(open("/proc/sys/net/netfilter/nf_conntrack_count").read())
        except OSError:
            return 0  # it has none
    box, other, before = Box(instance, client), Box(instance, client), tracked()
    box.run("""exec python3 - <<'X'
import os, socket, time
server = socket.socket(); server.bind(("127.0.0.1", 5000)); server.listen(4096)
if os.fork() == 0:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        for port in range(1000, 60000): s.sendto(b"x" * 100, ("127.0.0.1", port))
if os.fork() == 0:
    a = socket.create_connection(("127.0.0.1", 5000))
    while True: a.sendall(b"x" * 65536)
keep = []
try:
    for i in range(9000):
        s = socket.socket(); s.setblocking(False); s.connect_ex(("127.0.0.1", 5000)); keep.append(s)
except OSError: pass
print(len(keep), flush=True)
conn, _ = server.accept()
while True: conn.recv(1 << 20)
X""", detach=True)
    time.sleep(2)
    began = time.monotonic()
    other.out("python3 -c 'import socket\ns = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen(); socket.create_connection(s.getsockname()).sendall(b\"x\")\n"
              "assert s.accept()[0].recv(1) == b\"x\"'")
    assert time.monotonic() - began < 3
    assert box.out("wc -l < /proc/net/tcp").strip() > "100", "the control: there are thousands"
    assert tracked() - before < 1000, (before, tracked())
    box.kill()
    other.kill()


@scenario
def R11_ipc_is_per_sandbox(instance, client):
    """SysV and POSIX objects: counted for, seen by and ended with the sandbox that made them."""
    one, two = Box(instance, client), Box(instance, client)
    ours = lambda: subprocess.run(["ipcs", "-a"], capture_output=True, text=True).stdout
    before = ours()
    made = one.out("""python3 - <<'X'
import ctypes
libc, n = ctypes.CDLL(None), 0
while n < 100000 and libc.msgget(0, 0o666) >= 0: n += 1
m = 0
while m < 100000 and libc.shmget(0, 4096, 0o666) >= 0: m += 1
print(n, m)
X""").split()
    assert all(100 < int(n) < 100000 for n in made), made
    assert two.out("ipcs -q | grep -c 666; ipcs -m | grep -c 666; true") == "0\n0\n"
    two.out("python3 -c 'import ctypes\nassert ctypes.CDLL(None).msgget(0, 0o666) >= 0 and ctypes.CDLL(None).shmget(0, 4096, 0o666) >= 0'")
    assert ours() == before
    one.kill()
    two.kill()


@scenario
def R14_kept_output_is_bounded(instance, client):
    """What the server keeps of a sandbox's output lies on the host's disk: it is bounded for all its processes together, ended and
    running ones, and the log of what was done is whole."""
    box = Box(instance, client, resources=pb.Resources(max_pids=512))
    folder = f"{instance.data}/output/{box.id}"
    size = lambda: sum(os.stat(f"{folder}/{name}").st_blocks * 512 for name in os.listdir(folder))
    first = client.run(box.id, "head", "-c", "2M", "/dev/urandom", detach=True)
    client.Processes.Wait(sandbox_id=box.id, process_id=first.id)
    assert size() > MIB, "the control: it is kept"
    for _ in range(80):
        client.Processes.Wait(sandbox_id=box.id, process_id=client.run(box.id, "head", "-c", "2M", "/dev/urandom", detach=True).id)
    assert size() < 80 * MIB, size()
    listed = client.Processes.List(sandbox_id=box.id, include_ended=True).processes
    assert 20 < len(listed) < 80 and first.id not in [p.process_id for p in listed], len(listed)
    assert len(Result(client.Processes.Attach(sandbox_id=box.id, process_id=listed[-1].process_id)).all) > MIB, "the control: the newest is"
    running = [client.run(box.id, "/bin/sh", "-c", "head -c 2M /dev/urandom; exec sleep 600", detach=True).id for _ in range(100)]
    wait_until(lambda: all(p.output_bytes == 2 * MIB for p in client.Processes.List(sandbox_id=box.id).processes), 30)
    assert size() < 80 * MIB, size()
    assert sorted(p.process_id for p in client.Processes.List(sandbox_id=box.id).processes) == running
    assert client.run(box.id, "echo", "followed").out == b"followed\n", "what a client follows comes in any case"
    assert instance.admin.Audit.Verify().ok
    box.kill()
