"""Python contexts: each is an ipykernel, spoken to with jupyter_client over unix sockets that only this user can open."""
import asyncio
import os
import shutil
import tempfile
import time

import zmq
import zmq.asyncio
from jupyter_client.manager import AsyncKernelManager

from context import Context, Events, Failed

START_TIMEOUT = 60
INTERRUPT_TIMEOUT = 5

# How the SDK calls them; what is not here keeps the name of its MIME type.
FORMATS = {"text/plain": "text", "text/html": "html", "text/markdown": "markdown", "image/svg+xml": "svg", "image/png": "png",
           "image/jpeg": "jpeg", "application/pdf": "pdf", "text/latex": "latex", "application/json": "json",
           "application/javascript": "javascript", "e2b/chart": "chart", "e2b/data": "data"}

# Run by the kernel before its first cell, in a namespace of its own.
FIGURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "figures.py")
PREPARE = f"exec(compile(open({FIGURES!r}).read(), {FIGURES!r}, 'exec'), {{'__name__': 'figures'}})"

# The variables of one execution, without a trace in the namespace of the code.
ENV_SET = """exec('''import os, sys
sys._paddock_env = {name: os.environ.get(name) for name in env}
os.environ.update(env)''', {'env': %r})"""
ENV_RESET = """exec('''import os, sys
for name, value in sys._paddock_env.items():
    os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)''', {})"""


def result(content, is_main):
    event = {"type": "result", "is_main_result": is_main}
    for mime, data in content["data"].items():
        event[FORMATS.get(mime, mime)] = "".join(data) if isinstance(data, list) else data
    text = event.get("text")
    # The text of a string is the string: what its repr() adds is taken off.
    if is_main and isinstance(text, str) and len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]:
        event["text"] = text[1:-1]
    return event


def event_of(kind, content):
    if kind == "stream":
        return {"type": content["name"], "text": content["text"], "timestamp": time.time_ns()}
    if kind in ("display_data", "execute_result"):
        return result(content, kind == "execute_result")
    if kind == "error":
        return {"type": "error", "name": content["ename"], "value": content["evalue"], "traceback": "\n".join(content["traceback"])}
    if kind == "execute_input":
        return {"type": "number_of_executions", "execution_count": content["execution_count"]}
    return None


class Python(Context):
    manager = client = reader = current = folder = None

    async def start(self):
        await self.stop()  # what is left of one that has died
        self.folder = tempfile.mkdtemp(prefix="interpreter-")
        context = zmq.asyncio.Context()
        context.setsockopt(zmq.RCVHWM, 0)  # else the kernel's messages are lost when they come faster than they are read
        self.manager = AsyncKernelManager(kernel_name="python3", context=context, transport="ipc", ip=os.path.join(self.folder, "socket"),
                                          connection_file=os.path.join(self.folder, "kernel.json"))
        try:
            await self.manager.start_kernel(cwd=self.cwd, env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
                                            extra_arguments=[f"--IPKernelApp.exec_lines={PREPARE}"])
            self.client = self.manager.client()
            self.client.start_channels()
            await self.client.wait_for_ready(timeout=START_TIMEOUT)
        except (OSError, RuntimeError) as error:
            await self.stop()
            raise Failed(f"the Python kernel did not start: {error}")
        self.reader = asyncio.ensure_future(self.read())

    def alive(self):
        return self.manager is not None and self.manager.provisioner is not None and self.manager.provisioner.process is not None \
            and self.manager.provisioner.process.poll() is None

    async def read(self):
        """Takes what the kernel publishes, as fast as it comes. `current`: (id of the request, its events)."""
        while True:
            message = await self.client.get_iopub_msg()
            if not self.current or message["parent_header"].get("msg_id") != self.current[0]:
                continue
            kind, content = message["msg_type"], message["content"]
            event = event_of(kind, content)
            if event:
                self.current[1].put(event)
            elif kind == "status" and content["execution_state"] == "idle":
                self.current[1].end()

    async def run(self, code, env):
        if env:
            await self.quietly(ENV_SET % env)
        try:
            async for event in self.request(code):
                yield event
        finally:
            if env and self.alive():
                await self.quietly(ENV_RESET)

    async def quietly(self, code):
        async for _ in self.request(code, silent=True, store_history=False):
            pass

    async def request(self, code, **options):
        events = Events()
        self.current = (self.client.execute(code, allow_stdin=False, stop_on_error=False, **options), events)
        ended = False
        try:
            while not ended:
                event = await self.next(events)
                ended = event is None
                if event:
                    yield event
        finally:
            if not ended:
                await self.end_soon(events)
            self.current = None

    async def next(self, events):
        """The next event; None: the end. A kernel that has died says nothing more."""
        while True:
            try:
                return await asyncio.wait_for(events.get(), 1)
            except asyncio.TimeoutError:
                if not self.alive() and events.queue.empty():
                    events.put({"type": "error", "name": "KernelDied", "traceback": "",
                                "value": "the kernel has ended, and with it the state of the context"})
                    events.end()

    async def end_soon(self, events):
        """Nobody wants the rest. A kernel that does not let itself be interrupted is ended; the next execution starts another."""
        self.interrupt()
        try:
            await asyncio.wait_for(self.drain(events), INTERRUPT_TIMEOUT)
        except asyncio.TimeoutError:
            await self.stop()

    async def drain(self, events):
        while await self.next(events) is not None:
            pass

    def interrupt(self):
        if self.alive():
            asyncio.ensure_future(self.manager.interrupt_kernel())

    async def stop(self):
        manager, client, reader, folder = self.manager, self.client, self.reader, self.folder
        self.manager = self.client = self.reader = self.folder = None
        if reader:
            reader.cancel()
        if client:
            client.stop_channels()
        if manager and manager.has_kernel:
            await manager.shutdown_kernel(now=True)
        if manager:
            manager.context.destroy(linger=0)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
