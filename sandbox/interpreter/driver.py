"""JavaScript and bash contexts: a child of ours that takes one cell after the other. Its stdout and stderr are pipes that are
read only as fast as the client takes them; what it says of itself comes on a pipe of its own, so nothing that the code prints
can be taken for it."""
import asyncio
import codecs
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time

from context import Context, Failed

HERE = os.path.dirname(os.path.abspath(__file__))
CHUNK = 64 << 10  # also what a pipe holds
LINE_MAX = 32 << 20
INTERRUPT_TIMEOUT = 5
CONTROL = 3


async def readable(fds, timeout=1):
    """Waits until one of them can be read, or has ended."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake():
        if not ready.done():
            ready.set_result(None)

    for fd in fds:
        loop.add_reader(fd, wake)
    try:
        await asyncio.wait([ready], timeout=timeout)
    finally:
        for fd in fds:
            loop.remove_reader(fd)


def read_now(fd):
    """What is there: b"" at the end, None when there is nothing yet."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None


class Stream:
    """stdout or stderr of the child; a character that is cut in two waits for its rest."""

    def __init__(self, name, fd):
        self.name, self.fd = name, fd
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self):
        """An event, or None when there is nothing (any more)."""
        data = read_now(self.fd)
        if data is None:
            return None
        text = self.decoder.decode(data, final=not data)
        if not data:
            os.close(self.fd)
            self.fd = -1
        return {"type": self.name, "text": text, "timestamp": time.time_ns()} if text else None


class Driven(Context):
    process = None

    async def start(self):
        self.release()
        self.folder = tempfile.mkdtemp(prefix="interpreter-")
        control, theirs = os.pipe()
        try:
            self.process = subprocess.Popen(self.command(), cwd=self.cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                            stderr=subprocess.PIPE, start_new_session=True, pass_fds=[theirs],
                                            env={**os.environ, "PADDOCK_CONTROL": str(theirs)})
        except OSError as error:
            os.close(control)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise Failed(f"{self.language} did not start: {error}")
        finally:
            os.close(theirs)
        self.streams = [Stream("stdout", os.dup(self.process.stdout.fileno())), Stream("stderr", os.dup(self.process.stderr.fileno()))]
        self.process.stdout.close()
        self.process.stderr.close()
        self.control, self.lines = control, b""
        for fd in [control] + [stream.fd for stream in self.streams]:
            os.set_blocking(fd, False)
        await self.ready()

    async def ready(self):
        """Its first sign of life; what it has printed until then is nobody's."""
        async for _ in self.until_done():
            pass
        if not self.alive():
            raise Failed(f"{self.language} did not start")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def said(self):
        """What the child has said of itself since the last time, as events; None in it: done."""
        data = read_now(self.control)
        while data:
            self.lines += data
            if len(self.lines) > LINE_MAX:
                self.kill()
            data = read_now(self.control)
        *whole, self.lines = self.lines.split(b"\n")
        return [event for line in whole for event in self.events_of(line)]

    async def until_done(self):
        while True:
            open_streams = [stream for stream in self.streams if stream.fd >= 0]
            await readable([self.control] + [stream.fd for stream in open_streams])
            ended = not self.alive()
            said = self.said()
            # What was printed before is in the pipe already: it comes first. What others go on printing is for the next time.
            for stream in open_streams:
                event = stream.take()
                if event:
                    yield event
            for event in said:
                if event:
                    yield event
            if None in said or ended:
                return

    async def run(self, code, env):
        yield {"type": "number_of_executions", "execution_count": self.count}
        done = False
        try:
            self.send(code, env)
            async for event in self.until_done():
                yield event
            done = True
            if not self.alive():
                yield {"type": "error", "name": "Exited", "traceback": "",
                       "value": f"{self.language} has ended with status {self.process.poll()}, and with it the state of the context"}
        finally:
            if not done:
                await self.end_soon()
            if self.alive():
                self.after(env)

    async def end_soon(self):
        """Nobody wants the rest. A child that does not let itself be interrupted is ended; the next execution starts another."""
        self.interrupt()
        try:
            await asyncio.wait_for(self.drain(), INTERRUPT_TIMEOUT)
        except asyncio.TimeoutError:
            self.kill()

    async def drain(self):
        async for _ in self.until_done():
            pass

    def write(self, text):
        data = memoryview(text.encode())
        try:
            while data:
                data = data[os.write(self.process.stdin.fileno(), data):]
        except BrokenPipeError:
            pass  # its end is noticed elsewhere

    def interrupt(self):
        if self.alive():
            os.killpg(self.process.pid, signal.SIGINT)

    def kill(self):
        if self.process:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def release(self):
        if not self.process:
            return
        self.kill()
        self.process.stdin.close()
        for stream in self.streams:
            if stream.fd >= 0:
                os.close(stream.fd)
        os.close(self.control)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.process = None

    async def stop(self):
        self.kill()
        async with self.lock:  # what runs has noticed
            self.release()


class JavaScript(Driven):
    def command(self):
        return ["node", os.path.join(HERE, "javascript.js")]

    def send(self, code, env):
        path = os.path.join(self.folder, "cell.json")
        with open(path, "w") as file:
            json.dump({"code": code, "env": env}, file)
        self.write(json.dumps(path) + "\n")

    def after(self, env):
        pass

    def events_of(self, line):
        event = json.loads(line)
        return [None if event["type"] == "done" else event]


class Bash(Driven):
    """An interactive bash, so that SIGINT brings it back to its next line. A cell is a file that it reads in itself."""

    def command(self):
        return ["bash", "--norc", "--noprofile", "--noediting", "-i"]

    async def ready(self):
        self.write("PS1= PS2= PROMPT_COMMAND=; set +m +H; unset HISTFILE; exec 9>&$PADDOCK_CONTROL; eval \"exec $PADDOCK_CONTROL>&-\"; "
                   "unset PADDOCK_CONTROL; echo 0 >&9\n")
        await super().ready()

    def send(self, code, env):
        path = os.path.join(self.folder, "cell")
        with open(path, "w") as file:
            file.write(code + "\n")
        for name, value in env.items():
            self.write(f"_had_{name}=${{{name}+1}} _was_{name}=${{{name}-}}; export {name}={shlex.quote(value)}\n")
        self.write(f". {shlex.quote(path)} </dev/null 9>&-\necho $? >&9\n")

    def after(self, env):
        for name in env:
            self.write(f"if [ -n \"$_had_{name}\" ]; then export {name}=\"$_was_{name}\"; else unset {name}; fi; unset _had_{name} _was_{name}\n")

    def events_of(self, line):
        """`line` is the status of the cell's last command."""
        if line == b"0":
            return [None]
        return [{"type": "error", "name": "ExitStatus", "value": line.decode("ascii", "replace"), "traceback": ""}, None]
