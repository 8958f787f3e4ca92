"""What code inside a sandbox can do to its init, and what init does for it."""
import json
import unittest

from api import Case, Instance
from paddock import wait_until

LOOK = ("cat /proc/{0}/environ", "cat /proc/{0}/maps", "readlink /proc/{0}/fd/0", "readlink /proc/{0}/exe", "readlink /proc/{0}/cwd", "cat /proc/{0}/auxv",
        "cat /proc/{0}/syscall")
ATTACH = ("import ctypes, os, sys\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.ptrace.restype = ctypes.c_long\n"
          "print(libc.ptrace(16, {0}, 0, 0), end=' ')\n"
          "class V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n"
          "buffer = ctypes.create_string_buffer(8)\nlocal, remote = V(ctypes.addressof(buffer), 8), V(0x400000, 8)\n"
          "print(libc.process_vm_readv({0}, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))")


class Guarded(Case):
    def test_a_uid_of_its_own(self):
        status = self.sh("grep -E '^(Uid|Gid|NoNewPrivs)' /proc/1/status").decode().split()
        self.assertEqual(status[status.index("Uid:") + 1:][:4], ["65533"] * 4)
        self.assertEqual(status[-1], "1")
        used = self.sh("cut -d: -f3 /etc/passwd").split()
        self.assertNotIn(b"65533", used)

    def test_K20_nobody_inside_looks_into_it(self):
        for user in ("user", "root"):
            for look in LOOK:
                with self.subTest(user=user, look=look):
                    denied = self.client.run(self.box, look.format(1) + " 2>/dev/null | wc -c", user=user)
                    self.assertEqual(denied.out.strip(), b"0")
                    control = self.client.run(self.box, look.format("self") + " 2>/dev/null | wc -c", user=user)
                    self.assertNotEqual(control.out.strip(), b"0")

    def test_K20_nobody_inside_traces_it(self):
        for user in ("user", "root"):
            with self.subTest(user=user):
                self.assertEqual(self.client.run(self.box, "/usr/bin/python3", "-c", ATTACH.format(1), user=user).out, b"-1 -1\n")

    def test_P10_nobody_inside_ends_it(self):
        for user in ("user", "root"):
            self.client.run(self.box, "for s in $(seq 1 64); do kill -$s 1; done 2>/dev/null; true", user=user)
            self.client.run(self.box, "kill -9 -1; true", user=user)
        self.kept_alive()

    def test_its_sockets_are_not_in_the_sandbox(self):
        """The listener's name is to be seen in /proc/net/unix, because it belongs to the sandbox's network (a checkpoint needs
        that); its file is the host's, so nobody inside can connect to it by that name or as an abstract one."""
        for user in ("user", "root"):
            tried = dict(line.split(b" ", 1) for line in self.sh("""exec python3 -c '
import os, socket
paths = {line.split()[7] for line in open("/proc/net/unix").readlines()[1:] if len(line.split()) > 7}
for path in paths | {"@" + path.lstrip("@") for path in paths}:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if "sudo" in path else socket.SOCK_STREAM)
    try:
        peer.connect("\\0" + path[1:] if path[0] == "@" else path)
        print(path, "connected")
    except OSError as error:
        print(path, "refused", error.errno)
'""", user=user).splitlines())
            self.assertEqual([path for path, result in tried.items() if result == b"connected"], [b"/run/paddock/sudo.sock"], tried)
            for word in (b"warden", b"paddock.sock", b"admin"):
                self.assertFalse([path for path in tried if word in path])


class Reaper(Case):
    def test_P06_ten_thousand_orphans(self):
        """P06"""
        self.client.write(self.box, "/home/user/orphans.c", b"""
            #include <stdio.h>
            #include <sys/wait.h>
            #include <unistd.h>
            int main(void) {
                for (int i = 0; i < 10000; i++) {
                    pid_t pid = fork();
                    if (pid == 0) {
                        if (fork() < 0) _exit(1);
                        _exit(0);
                    }
                    int status;
                    if (waitpid(pid, &status, 0) != pid || status) return 1;
                }
                puts("done");
                return 0;
            }""")
        self.sh("gcc -O1 -o orphans orphans.c")
        self.assertEqual(self.client.run(self.box, "/home/user/orphans").out, b"done\n")
        wait_until(lambda: self.sh("ps -eo stat= | grep -c '^Z' || true") == b"0\n", 10, "no zombies")
        self.assertLess(self.client.Sandboxes.GetUsage(sandbox_id=self.box).pids, 10)


class SudoFlood(Case):
    def test_every_call_is_counted(self):
        """A flood of sudo is not written call by call, but none is hidden: records and what they count add up."""
        box = self.client.create().id
        made = self.client.run(box, "for i in 1 2 3 4; do (for j in $(seq 150); do sudo /bin/true && echo; done) & done; wait", deadline=60).out.count(b"\n")
        self.assertEqual(made, 600)
        self.client.Sandboxes.Kill(sandbox_id=box)
        records = self.client.Audit.List(sandbox_id=box, action_prefix="process.sudo", page_size=1000).records
        counted = sum(json.loads(r.detail)["unrecorded"] for r in records if r.outcome == "RESOURCE_EXHAUSTED")
        plain = sum(r.outcome == "OK" for r in records)
        self.assertEqual(plain + counted, 600)
        self.assertGreaterEqual(plain, 200)
        self.assertGreater(counted, 0, "the control: some were not written")


class SudoOff(unittest.TestCase):
    def test_refused_when_the_server_says_so(self):
        for allowed in ("true", "false"):
            with Instance(sudo=allowed) as private:
                client = private.tenant("tenant")
                box = client.create().id
                result = client.run(box, "sudo id -u")
                self.assertEqual((result.out, result.code == 0), ((b"0\n", True) if allowed == "true" else (b"", False)), result.all)
                # The command's end is told before its records are durable.
                sudo = wait_until(lambda: client.Audit.List(sandbox_id=box, action_prefix="process.sudo").records, 10, "a record of sudo")
                self.assertEqual({r.outcome for r in sudo}, {"OK" if allowed == "true" else "PERMISSION_DENIED"})
                self.assertEqual(client.run(box, "/bin/id", "-u", user="root").out, b"0\n", "root by the API is another matter")
