"""Kernel objects, made in one breath and looked at in the next. Between the two it waits for a line on its stdin."""
import ctypes
import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
results = []
checks = []


def later(check):
    """Its value is printed when the world has been away."""
    checks.append(check)
    return check


os.makedirs("/tmp/deep/er")
os.chdir("/tmp/deep/er")
os.environ["KEPT"] = "kept"
os.umask(0o027)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
signal.signal(signal.SIGUSR1, lambda *_: results.append("a signal came"))

deleted = open("gone", "w+")
deleted.write("still here " * 1000)
deleted.flush()
os.unlink("gone")
home_deleted = open("/home/user/gone", "w+")
home_deleted.write("on the layer")
home_deleted.flush()
os.unlink("/home/user/gone")
middle = open("middle", "w+b")
middle.write(b"0123456789")
middle.seek(4)
append = open("log", "ab", buffering=0)
append.write(b"first\n")
locked = open("locked", "w")
fcntl.flock(locked, fcntl.LOCK_EX)
record = open("record", "w+")
fcntl.lockf(record, fcntl.LOCK_EX, 10, 5)
copy = os.dup(middle.fileno())

pipe = os.pipe()
os.write(pipe[1], b"in the pipe")
big = os.pipe()
fcntl.fcntl(big[1], 1031, 1 << 18)  # F_SETPIPE_SZ
os.write(big[1], b"x" * 200000)
os.mkfifo("fifo")
fifo = os.open("fifo", os.O_RDWR)
os.write(fifo, b"in the fifo")

stream = socket.socketpair()
stream[0].sendall(b"in the stream")
packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
packets[0].send(b"one")
packets[0].send(b"two")
half = socket.socketpair()
half[0].sendall(b"last words")
half[0].shutdown(socket.SHUT_WR)
named = socket.socket(socket.AF_UNIX)
named.bind("named.sock")
named.listen(5)
named_client = socket.socket(socket.AF_UNIX)
named_client.connect("named.sock")
named_server = named.accept()[0]
named_client.sendall(b"by name")
datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
datagram.bind("\0abstract")
datagram_client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
datagram_client.connect("\0abstract")

listener = socket.create_server(("127.0.0.1", 7777))
tcp = socket.create_connection(("127.0.0.1", 7777))
tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
accepted = listener.accept()[0]
tcp.sendall(b"unread " * 5000)
six = socket.create_server(("::1", 7778), family=socket.AF_INET6)
six_client = socket.create_connection(("::1", 7778))
six_server = six.accept()[0]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 7779))

inotify = libc.inotify_init1(0o4000)
os.mkdir("watched")
watch = libc.inotify_add_watch(inotify, b"watched", 0x100)  # IN_CREATE
eventfd = libc.eventfd(7, 0o4000)
timer = libc.timerfd_create(1, 0o4000)
libc.timerfd_settime(timer, 0, struct.pack("qqqq", 0, 0, 0, 500_000_000), None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
mask = (1 << (signal.SIGUSR2 - 1)).to_bytes(128, "little")
signalfd = libc.signalfd(-1, mask, 0)
os.kill(os.getpid(), signal.SIGUSR2)
epoll = select.epoll()
epoll.register(stream[1].fileno(), select.EPOLLIN)
epoll.register(eventfd, select.EPOLLIN)
idle = os.pipe()
epoll.register(idle[0], select.EPOLLIN)

anonymous = mmap.mmap(-1, 1 << 20)
anonymous[:6] = b"anon 1"
with open("mapped", "w+b") as f:
    f.truncate(8192)
    shared_file = mmap.mmap(f.fileno(), 8192)
shared_file[:5] = b"file1"
memfd = os.memfd_create("memory", 0x8)  # MFD_NOEXEC_SEAL
os.write(memfd, b"in memory")
shm_fd = os.open("/dev/shm/posix", os.O_RDWR | os.O_CREAT)
os.ftruncate(shm_fd, 4096)
shm = mmap.mmap(shm_fd, 4096)
shm[:4] = b"shm1"
key = libc.shmget(0x1234, 4096, 0o1600)
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmat(key, None, 0)
ctypes.memmove(segment, b"system five", 11)
queue = libc.msgget(0x1235, 0o1600)
libc.msgsnd(queue, ctypes.create_string_buffer(struct.pack("q", 1) + b"message"), 7, 0)
semaphores = libc.semget(0x1236, 1, 0o1600)
libc.semctl(semaphores, 0, 16, 42)  # SETVAL

child_pipe = os.pipe()
back_pipe = os.pipe()
child = os.fork()
if child == 0:
    os.setsid()
    os.close(child_pipe[1])
    while os.read(child_pipe[0], 1):
        anonymous[7:12] = b"child"
        os.write(back_pipe[1], f"{os.getppid()} {os.getsid(0) == os.getpid()}".encode())
    os._exit(3)
zombie = os.fork()
if zombie == 0:
    os._exit(9)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
stopped = os.fork()
if stopped == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(4)
os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)
identity = (os.getpid(), os.getpgrp(), os.getsid(0), child, zombie, stopped)
began = time.monotonic()

print("ready", flush=True)
sys.stdin.readline()


def say(name, value):
    print(f"{name}: {value!r}", flush=True)


def locked_by_other(path, what):
    """Asked in a child of its own, as locks of a process do not exclude itself."""
    pid = os.fork()
    if pid == 0:
        try:
            what(open(path, "r+"))
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


say("identity", (os.getpid(), os.getpgrp(), os.getsid(0), child, zombie, stopped) == identity)
say("cwd", os.getcwd())
say("environment", (os.environ["KEPT"], os.environ.get("HOME"), os.umask(0o027), resource.getrlimit(resource.RLIMIT_NOFILE)))
deleted.seek(0)
home_deleted.seek(0)
say("deleted files", (len(deleted.read()), os.fstat(deleted.fileno()).st_nlink, home_deleted.read(), os.path.exists("/home/user/gone")))
say("file offset", (middle.tell(), os.read(copy, 3), os.lseek(middle.fileno(), 0, os.SEEK_CUR)))
append.write(b"second\n")
say("append", open("log").read())
say("locks", (locked_by_other("locked", lambda f: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)),
              locked_by_other("record", lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)),
              locked_by_other("record", lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0))))
say("pipe", os.read(pipe[0], 100))
say("big pipe", (fcntl.fcntl(big[0], 1032), sum(len(os.read(big[0], 50000)) for _ in range(4))))
say("fifo", os.read(fifo, 100))
say("epoll", sorted((fd == eventfd, event) for fd, event in epoll.poll(0)))
os.write(idle[1], b"x")
say("epoll hears of new things", any(fd == idle[0] for fd, _ in epoll.poll(1)))
say("unix stream", stream[1].recv(100))
stream[1].sendall(b"answer")
say("unix stream back", stream[0].recv(100))
say("unix packets", (packets[1].recv(100), packets[1].recv(100)))
say("half closed", (half[1].recv(100), half[1].recv(100)))
say("unix by name", (named_server.recv(100), named_server.getpeername(), os.path.exists("named.sock")))
again = socket.socket(socket.AF_UNIX)
again.connect("named.sock")
again.sendall(b"new one")
say("unix listener", named.accept()[0].recv(100))
datagram_client.send(b"packet")
say("unix datagram", datagram.recv(100))
received = b""
while len(received) < 35000:
    received += accepted.recv(100000)
accepted.sendall(b"tcp answer")
say("tcp", (len(received), tcp.recv(100), tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0))
new = socket.create_connection(("127.0.0.1", 7777))
new.sendall(b"new one")
say("tcp listener", listener.accept()[0].recv(100))
six_client.sendall(b"six")
say("tcp over ipv6", six_server.recv(100))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"udp", ("127.0.0.1", 7779))
say("udp", udp.recv(100))
open("watched/new", "w").close()
say("inotify", os.read(inotify, 4096)[16:19])
say("eventfd", struct.unpack("q", os.read(eventfd, 8))[0])
select.select([timer], [], [], 10)
say("timerfd", (struct.unpack("q", os.read(timer, 8))[0], time.monotonic() - began < 300))
say("signalfd", struct.unpack("i", os.read(signalfd, 128)[:4])[0])
os.kill(os.getpid(), signal.SIGUSR1)
say("signal handler", results)
shared_file[5:6] = b"!"
shared_file.flush()
say("mapped file", open("mapped", "rb").read(6))
say("memory file", (os.pread(memfd, 100, 0), os.readlink(f"/proc/self/fd/{memfd}").split(" ")[0]))
say("shared memory", (shm[:4], open("/dev/shm/posix", "rb").read(4)))
ctypes.memmove(segment + 11, b"!", 1)
say("system v memory", ctypes.string_at(libc.shmat(key, None, 0), 12))
room = ctypes.create_string_buffer(100)
say("system v queue", (libc.msgrcv(queue, room, 90, 0, 0), room.raw[8:15]))
say("system v semaphore", libc.semctl(semaphores, 0, 12))
os.write(child_pipe[1], b"x")
say("child", os.read(back_pipe[0], 100) == f"{os.getpid()} True".encode())
say("anonymous shared memory", anonymous[:12])
say("zombie", os.waitstatus_to_exitcode(os.waitpid(zombie, 0)[1]))
say("stopped", open(f"/proc/{stopped}/stat").read().rsplit(")", 1)[1].split()[0])
os.kill(stopped, signal.SIGCONT)
say("continued", os.waitstatus_to_exitcode(os.waitpid(stopped, 0)[1]))
os.close(child_pipe[1])
say("child's end", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print("done", flush=True)
