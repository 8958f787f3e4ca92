"""F of the security catalogue: what a sandbox can do with files, and to the files of others."""
import io
import os
import re
import tarfile
import threading
import time

import grpc
from box import MIB, Box, host_pid_of_init, scenario
from paddock import code_of, enum, pb, wait_until

TO_DISK = enum("PAUSE_MODE_CHECKPOINT")
EXCHANGE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def exchange(a, b): return libc.renameat2(-100, a, -100, b, 2) == 0
"""


@scenario
def F19_neighbours_and_templates_are_untouched(instance, client):
    digest = "find /etc /usr/bin /usr/lib/git-core -xdev -type f -exec sha256sum {} + | sort | sha256sum"
    one, two = Box(instance, client), Box(instance, client)
    before = two.out(digest, user="root")
    one.out("find /etc /usr/bin -xdev -type f -size -300k | head -600 | while read -r f; do echo EVIL >> \"$f\"; done 2>/dev/null; true", user="root")
    one.out("""python3 - <<'X'
import mmap
with open('/usr/lib/git-core/git-sh-setup', 'r+b') as f:
    m = mmap.mmap(f.fileno(), 0)
    m[:4] = b'EVIL'
    m.flush()
X""", user="root")
    assert one.run("head -c4 /usr/lib/git-core/git-sh-setup", user="root").out == b"EVIL", "the control: our own view did change"
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("1")
    three = Box(instance, client)
    assert two.out(digest, user="root") == before
    assert three.out(digest, user="root") == before
    for box in (one, two, three):
        box.kill()


@scenario
def F20_template_is_unchanged(instance, client):
    template = client.Templates.Get(template="base")
    fresh = Box(instance, client)
    assert fresh.out("grep -rl EVIL /etc /usr/bin 2>/dev/null | head -1; true", user="root") == ""
    assert client.Templates.Get(template="base").digest == template.digest
    fresh.kill()


@scenario
def F25_init_cannot_be_replaced(instance, client):
    box = Box(instance, client)
    box.run("cp /bin/true /proc/1/exe; echo x > /proc/1/exe; ln -sf /proc/1/exe /tmp/init; /tmp/init", user="root")
    box.run("echo '#!/proc/self/exe' > /tmp/s; chmod +x /tmp/s; /tmp/s", user="root")
    assert box.alive()
    fresh = Box(instance, client)
    assert fresh.alive()
    pid = host_pid_of_init(box)
    assert os.readlink(f"/proc/{pid}/exe") == "/run/init/paddock-init", os.readlink(f"/proc/{pid}/exe")
    with open(f"/proc/{pid}/exe", "rb") as now, open(f"{instance.libexec}/paddock-init", "rb") as installed:
        assert now.read() == installed.read()
    for attempt in ("rm -f /run/init/paddock-init", "mv /run/init /run/x", "cp /bin/true /run/init/paddock-init",
                    "mount -o remount,rw /run/init", "umount /run/init"):
        assert box.run(attempt, user="root").code != 0, attempt
    box.out("touch /run/control && rm /run/control", user="root")  # control: the folder beside it can be written
    box.kill()
    fresh.kill()


@scenario
def F28_full_disk_stays_inside(instance, client):
    box, other = Box(instance, client, resources=pb.Resources(disk_bytes=48 * MIB)), Box(instance, client)
    result = box.run("dd if=/dev/urandom of=/home/user/full bs=1M count=200; sync; stat -c %s /home/user/full", timeout_ms=60000)
    written = int(result.out.split()[-1])
    assert written <= 48 * MIB, written
    assert re.search(rb"No space|quota", result.err), result.err
    other.out("dd if=/dev/urandom of=/home/user/ok bs=1M count=20 2>/dev/null && sync")
    assert box.alive()
    box.out("rm /home/user/full; sync; sleep 1; echo again > /home/user/f && test -s /home/user/f")
    instance.admin.Admin.CreateTenant(name=f"after-full-{os.getpid()}")
    box.kill()
    other.kill()


@scenario
def F04_device_swapped_during_creates(instance, client):
    """A root that would swap /dev/null and a link as fast as it can cannot, and every sandbox made meanwhile has the device."""
    swapper = Box(instance, client)
    client.write(swapper.id, "/opt/swap.py", EXCHANGE.encode() + b"""
def attempt(call, *names):
    try:
        return call(*names) is not False
    except OSError:
        return False
open("/dev/shm/a", "w").close()
os.symlink("/etc/passwd", "/dev/shm/link")
swapped = done = 0
while True:
    swapped += exchange(b"/dev/shm/a", b"/dev/shm/link")
    done += exchange(b"/dev/null", b"/dev/zero") + attempt(os.unlink, "/dev/null") + attempt(os.symlink, "/", "/dev/x")
    done += attempt(os.rename, "/dev/null", "/dev/x") + attempt(os.rename, "/dev", "/x") + attempt(os.symlink, "/", "/dev/null")
    if swapped == 1000:
        print(swapped, done, flush=True)
""", user="root")
    swapping = swapper.run("exec python3 /opt/swap.py", user="root", detach=True)
    seen = set()
    for _ in range(60):
        fresh = Box(instance, client)
        seen.add(fresh.out("stat -c '%F %t:%T %a' /dev/null; sha256sum < /etc/passwd"))
        fresh.kill()
    assert len(seen) == 1 and "character special file 1:3 666" in next(iter(seen)), seen
    said = b""
    for event in client.Processes.Attach(sandbox_id=swapper.id, process_id=swapping.id, deadline=10):
        said += event.output.data
        if said.endswith(b"\n"):
            break
    assert said == b"1000 0\n", f"the control, in /dev/shm, and what worked in /dev: {said}"
    swapper.kill()


@scenario
def F05_directories_that_are_none(instance, client):
    """A directory that was removed, one of another process, 5,000 bytes, bytes that are no text: never outside, never a hang."""
    box, results = Box(instance, client), []
    holder = box.run("mkdir /tmp/gone; cd /tmp/gone; rmdir /tmp/gone; echo $$; exec sleep 600", detach=True)
    pid = int(next(e for e in client.Processes.Attach(sandbox_id=box.id, process_id=holder.id) if e.output.data).output.data)
    for cwd in (f"/proc/{pid}/cwd", f"/proc/{pid}/cwd/..", f"/proc/{pid}/root", f"/proc/{pid}/fd/0", "/tmp/gone", "/proc/1/cwd", "/proc/1/root/tmp",
                "/proc/self/fd/3/..", "/proc/self/fd/5"):
        for user in ("user", "root"):
            code, text = code_of(lambda c=cwd, u=user: results.append(client.run(box.id, "/bin/sh", "-c", "/bin/pwd -P; stat -c %d:%i / /..", cwd=c, user=u)))
            assert code in ("OK", "NOT_FOUND", "FAILED_PRECONDITION", "PERMISSION_DENIED"), (cwd, user, code, text)
    for result in results:
        where, *roots = result.out.decode().splitlines() if result.out.startswith(b"/") else [""] + result.out.decode().splitlines()
        assert "unreachable" not in where and len(set(roots)) == 1, result.all
    assert results, "the control: some of them can be entered"
    assert client.run(box.id, "/bin/pwd", cwd="/tmp").out == b"/tmp\n"
    code, text = code_of(lambda: client.run(box.id, "/bin/pwd", cwd="/" + "a/" * 2500))
    assert code == "INVALID_ARGUMENT" and text.startswith("cwd"), (code, text)
    request = pb.StartProcessRequest(sandbox_id=box.id, argv=["/bin/pwd"])
    number = request.DESCRIPTOR.fields_by_name["cwd"].number
    raw = request.SerializeToString() + bytes([number << 3 | 2, 5]) + b"/\xff\xfe/\xc3"
    code, text = code_of(lambda: list(client.call("/paddock.v1.Processes/Start", raw, deadline=10)))
    assert code in ("INVALID_ARGUMENT", "NOT_FOUND"), (code, text)
    box.kill()


@scenario
def F08_make_dir_as_root_changes_no_other_mode(instance, client):
    """MakeDir as root in a folder of the user's, who puts a link in the new directory's place at once: what the link names
    keeps its mode."""
    box = Box(instance, client)
    box.out("mkdir /root/secret && chmod 700 /root/secret && chmod 711 /root", user="root")
    client.write(box.id, "/home/user/race.c", b"""
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
static int exchange(void) { return renameat2(-100, "new", -100, "link", 2); }
int main(void) {
    if (mkdir("race", 0755) || chdir("race") || symlink("/root/secret", "link"))
        return 1;
    for (int caught = 0;;) {
        if (exchange())
            continue;
        usleep(100);
        exchange();
        rmdir("new");
        if (++caught % 100 == 0)
            write(1, "!", 1);
    }
}""")
    box.out("gcc -O1 -w -o racer race.c")
    race = box.run("exec ./racer", detach=True)
    wait_until(lambda: box.run("test -L race/link").code == 0, 10)
    caught, end = 0, time.monotonic() + 30
    while caught < 10 and time.monotonic() < end:
        for _ in range(50):
            code_of(lambda: client.Files.MakeDir(sandbox_id=box.id, path=b"/home/user/race/new", mode=0o777, user="root"))
        caught = client.Processes.List(sandbox_id=box.id).processes[0].output_bytes
    assert caught, "the control: hundreds of new directories were replaced by the link"
    assert box.out("stat -c %a /root/secret", user="root") == "700\n"
    client.Processes.Signal(sandbox_id=box.id, process_id=race.id, signal=9)
    box.kill()


@scenario
def F12_hard_links_to_files_of_others(instance, client):
    box, other = Box(instance, client), Box(instance, client)
    before = other.out("sha256sum < /etc/passwd")
    box.out("ln /etc/passwd /home/user/linked", user="root")
    for fields in (dict(in_place=True), dict()):
        code = code_of(lambda f=fields: client.write(box.id, "/home/user/linked", b"EVIL", **f))[0]
        assert code == "PERMISSION_DENIED", (fields, code)
        assert box.out("sha256sum < /etc/passwd") == before
    client.write(box.id, "/home/user/linked", b"new", user="root")
    assert box.out("sha256sum < /etc/passwd") == before, "a write aside leaves the other name alone"
    box.out("ln -f /etc/group /home/user/linked", user="root")
    client.write(box.id, "/home/user/linked", b"own layer", user="root", in_place=True)
    assert box.out("cat /etc/group").startswith("own layer"), "the control: root inside, in its own layer"
    assert other.out("sha256sum < /etc/passwd") == before and other.out("grep -c root /etc/group") != "0\n"
    box.kill()
    other.kill()


@scenario
def F14_overlay_marks_from_inside_are_inert(instance, client):
    """Attributes of overlayfs that the sandbox may set (user.*) mean nothing, also when the layer is mounted anew."""
    box = Box(instance, client)
    box.out("""python3 - <<'X'
import os
os.mkdir('/opt/marked')
for path in ('/etc', '/opt/marked'):
    os.setxattr(path, 'user.overlay.opaque', b'y')
    os.setxattr(path, 'user.overlay.redirect', b'/root')
open('/opt/file', 'w').write('own')
os.setxattr('/opt/file', 'user.overlay.metacopy', b'')
os.setxattr('/opt/file', 'user.overlay.redirect', b'/etc/shadow')
for name in ('trusted.overlay.opaque', 'trusted.overlay.redirect'):
    try:
        os.setxattr('/opt/marked', name, b'y')
        raise SystemExit(name + ' was set')
    except OSError:
        pass
X""", user="root")
    look = "ls /etc | wc -l; ls -A /opt/marked; cat /opt/file; getent passwd user"
    before = box.out(look)
    client.Sandboxes.Pause(sandbox_id=box.id, mode=TO_DISK, deadline=60)
    client.Sandboxes.Resume(sandbox_id=box.id, deadline=60)
    assert box.out(look) == before and "own" in before, before
    box.kill()


@scenario
def F15_disk_full_while_unpacking(instance, client):
    """The limit of the sandbox ends it; what else is there works on."""
    box = Box(instance, client, resources=pb.Resources(disk_bytes=32 * MIB))
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for i in range(64):
            info = tarfile.TarInfo(f"f{i}")
            info.size = MIB
            archive.addfile(info, io.BytesIO(os.urandom(MIB)))
    code, text = code_of(lambda: client.unpack(box.id, b"/home/user/full", data.getvalue()))
    assert code == "RESOURCE_EXHAUSTED", (code, text)
    assert box.alive()
    client.Files.Remove(sandbox_id=box.id, path=b"/home/user/full", recursive=True)
    small = tar_of("ok", b"x" * 1000)
    wait_until(lambda: code_of(lambda: client.unpack(box.id, b"/home/user/after", small))[0] == "OK", 10, "there is room again")
    box.kill()


def tar_of(name, content):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


@scenario
def F17_watch_of_odd_trees(instance, client):
    """As deep as names go, /proc, and a root that is renamed or removed: an answer, and nothing of the operation is left."""
    box = Box(instance, client)
    box.out("python3 -c 'import os\nos.makedirs(\"/home/user/deep\"); os.chdir(\"/home/user/deep\")\nfor i in range(2500): os.mkdir(\"a\"); os.chdir(\"a\")'")
    for path in (b"/home/user/deep", b"/proc"):
        def first(p=path):
            stream = client.Files.Watch(sandbox_id=box.id, path=p, recursive=True, deadline=20)
            event = next(stream)
            stream.cancel()
            return event
        code, text = code_of(first)
        assert code in ("OK", "RESOURCE_EXHAUSTED"), (path, code, text)
    stream = client.Files.Watch(sandbox_id=box.id, path=b"/home/user/deep", recursive=True, deadline=20)
    next(stream)
    box.out("touch /home/user/deep/" + "a/" * 1000 + "new")
    assert next(stream).path == b"a/" * 1000 + b"new", "the control: a thousand levels below"
    stream.cancel()
    box.out("mkdir /home/user/w")
    stream = client.Files.Watch(sandbox_id=box.id, path=b"/home/user/w", deadline=20)
    next(stream)
    box.out("mv /home/user/w /home/user/v; touch /home/user/v/f")
    assert next(stream).path == b"f", "it follows the directory, not the name"
    box.out("rm -r /home/user/v")
    code, text = code_of(lambda: list(stream))
    assert code == "NOT_FOUND", (code, text)
    removed = client.Files.Remove(sandbox_id=box.id, path=b"/home/user/deep", recursive=True, deadline=60).removed
    assert removed == 2502, removed
    wait_until(lambda: box.out("pgrep -c paddock-init; true") == "1\n", 10, "no worker is left")
    box.kill()


@scenario
def F24_server_killed_during_uploads(instance, client):
    """The old content or the new, whole; nothing else is left in the directory."""
    box = Box(instance, client)
    old, new = b"o" * (3 * MIB), b"n" * (3 * MIB)
    for round in range(3):
        client.write(box.id, "/home/user/up/file", old, make_parents=True)
        started = threading.Event()

        def messages():
            yield pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=box.id, path=b"/home/user/up/file"))
            for at in range(0, len(new), 65536):
                yield pb.WriteFileRequest(data=new[at:at + 65536])
                started.set()
                time.sleep(0.002 * round)
        upload = threading.Thread(target=lambda: code_of(lambda: client.Files.Write(messages(), deadline=20)))
        upload.start()
        started.wait(10)
        time.sleep(0.03)
        instance.paddockd.kill()
        instance.paddockd.wait()
        instance.start_paddockd()
        upload.join()
        wait_until(lambda: code_of(box.alive)[0] == "OK", 20, "the sandbox answers again")
        wait_until(lambda: box.out("ls -A /home/user/up") == "file\n", 10, "nothing else is there")
        assert client.read(box.id, "/home/user/up/file") in (old, new)
    box.kill()


@scenario
def F26_descriptors_after_a_resume(instance, client):
    """A process that was on disk has what it had: three, and none leads out; K04: and is confined as before."""
    box = Box(instance, client)
    script = "while read line; do ls -l /proc/$$/fd; grep -E '^(NoNewPrivs|Seccomp|CapBnd|CapEff|CapInh|CapPrm|CapAmb|Uid):' /proc/$$/status; echo end; done"
    started = client.run(box.id, "/bin/sh", "-c", script, open_stdin=True, detach=True)
    where = dict(sandbox_id=box.id, process_id=started.id)

    def ask(at):
        client.Processes.SendInput(data=b"go\n", **where)
        text, stream = b"", client.Processes.Attach(from_sequence=at, deadline=20, **where)
        for event in stream:
            text += event.output.data
            if text.endswith(b"end\n"):
                break
        stream.cancel()
        return text
    before = ask(0)
    client.Sandboxes.Pause(sandbox_id=box.id, mode=TO_DISK, deadline=60)
    client.Sandboxes.Resume(sandbox_id=box.id, deadline=60)
    after = ask(len(before))
    for text in (before, after):
        found = dict(re.findall(rb" (\d+) -> (\S+)", text))
        assert set(found) <= {b"0", b"1", b"2"} and all(target.startswith(b"pipe:") for target in found.values()), found
    status = [re.findall(rb"^(\w+:\s.*)$", text, re.M) for text in (before, after)]
    assert status[0] == status[1] and b"NoNewPrivs:\t1" in status[1] and b"Seccomp:\t2" in status[1], status
    box.kill()
