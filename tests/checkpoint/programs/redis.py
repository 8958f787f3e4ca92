"""redis-server with an append-only file, and one client connection: commands one after another, and a pub/sub connection that hears
of them. At the end the data set is what a server reads back from the file."""
import hashlib
import os
import socket
import subprocess
import time

COMMANDS = 4000
os.makedirs("/home/user/redis", exist_ok=True)


def start():
    server = subprocess.Popen(["redis-server", "--port", "6400", "--dir", "/home/user/redis", "--appendonly", "yes", "--appendfsync", "always",
                               "--enable-debug-command", "yes", "--save", "", "--logfile", "redis.log"])
    while True:
        try:
            client = connect()
            while ask(client, b"PING") != b"PONG":  # it is still reading its file
                time.sleep(0.02)
            return server, client
        except OSError:
            time.sleep(0.02)


def connect():
    return socket.create_connection(("127.0.0.1", 6400)).makefile("rwb")


def ask(file, *words):
    file.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
    file.flush()
    return answer(file)


def answer(file):
    line = file.readline().rstrip(b"\r\n")
    if line[:1] == b"$":
        return file.read(int(line[1:]) + 2)[:-2]
    if line[:1] == b"*":
        return [answer(file) for _ in range(int(line[1:]))]
    return line[1:]


server, client = start()
listener = connect()
ask(listener, b"SUBSCRIBE", b"news")
heard = hashlib.sha256()
for i in range(COMMANDS):
    ask(client, b"SET", b"key:%d" % (i % 500), hashlib.sha256(b"%d" % i).hexdigest().encode() * 4)
    ask(client, b"INCR", b"count")
    if i % 100 == 0:
        ask(client, b"PUBLISH", b"news", b"%d" % i)
        heard.update(repr(answer(listener)).encode())
    if i % 500 == 499:
        print(f"@{i // 500}", flush=True)
print(ask(client, b"GET", b"count"), ask(client, b"DBSIZE"), heard.hexdigest())
before = ask(client, b"DEBUG", b"DIGEST")
server.terminate()
server.wait()
server, client = start()
print(before == ask(client, b"DEBUG", b"DIGEST"), before)
server.terminate()
server.wait()
