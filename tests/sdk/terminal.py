"""`paddock shell` on a real pseudo-terminal: size, resize, Ctrl-C, exit status, and the terminal as it was afterwards."""
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

paddock, sandbox = sys.argv[1:]
master, slave = pty.openpty()
seen = b""


def resize(rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def start():
    global seen
    seen = b""
    while select.select([master], [], [], 0.3)[0]:  # what the shell before left
        os.read(master, 65536)
    return subprocess.Popen([paddock, "shell", sandbox], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))


def expect(text, seconds=20):
    global seen
    end = time.monotonic() + seconds
    while text not in seen:
        ready, _, _ = select.select([master], [], [], max(0, end - time.monotonic()))
        if not ready:
            sys.exit(f"{text} did not come, but {seen}")
        seen += os.read(master, 65536)
    seen = seen[seen.index(text) + len(text):]


def type_line(text):
    os.write(master, text + b"\n")


before = termios.tcgetattr(slave)
resize(40, 100)
shell = start()
expect(b"$")
assert termios.tcgetattr(slave) != before, "the terminal is not raw"
type_line(b"stty size")
expect(b"40 100")
resize(50, 120)
time.sleep(0.5)
type_line(b"stty size")
expect(b"50 120")
type_line(b"sleep 100")
time.sleep(0.3)
os.write(master, b"\x03")
type_line(b"echo mark''ed")
expect(b"marked")
type_line(b"exit 5")
assert shell.wait(20) == 5, "the exit status is lost"
assert termios.tcgetattr(slave) == before, "the terminal is not restored"
for number, wanted in ((signal.SIGHUP, 129), (signal.SIGSEGV, -signal.SIGSEGV)):
    shell = start()
    expect(b"$")
    shell.send_signal(number)
    status = shell.wait(20)
    assert status == wanted, f"{number.name}: status {status}"
    assert termios.tcgetattr(slave) == before, f"the terminal is not restored after {number.name}"
