"""What every context has, whatever runs in it: an id, one execution at a time, and events that a client is slow to take."""
import asyncio
import json
import secrets
import time

WAITING_MAX = 32 << 20  # characters of output that wait for a client


class Failed(Exception):
    """A context could not be started."""


class Events:
    """From a kernel that does not wait to a client that may be slow: output beyond a limit is dropped, and counted."""

    def __init__(self):
        self.queue = asyncio.Queue()
        self.waiting = self.dropped = 0

    def put(self, event):
        size = sum(len(value) if isinstance(value, str) else len(json.dumps(value)) for value in event.values() if isinstance(value, (str, dict, list)))
        if self.waiting + size > WAITING_MAX and event["type"] in ("stdout", "stderr", "result"):
            self.dropped += size
            return
        self.waiting += size
        self.queue.put_nowait((event, size))

    def end(self):
        if self.dropped:
            self.queue.put_nowait(({"type": "stderr", "timestamp": time.time_ns(),
                                    "text": f"[{self.dropped} characters of output were dropped: nobody took them]\n"}, 0))
        self.queue.put_nowait((None, 0))

    async def get(self):
        event, size = await self.queue.get()
        self.waiting -= size
        return event


class Context:
    def __init__(self, language, cwd):
        self.id = secrets.token_hex(16)
        self.language = language
        self.cwd = cwd
        self.count = 0
        self.removed = False
        self.lock = asyncio.Lock()  # held by what runs

    def describe(self):
        return {"id": self.id, "language": self.language, "cwd": self.cwd}

    async def execute(self, code, env):
        """The events of one execution. Whoever stops taking them interrupts it."""
        async with self.lock:
            if self.removed:
                yield {"type": "error", "name": "ContextRemoved", "value": "the context was removed meanwhile", "traceback": ""}
                return
            if not self.alive():
                try:
                    await self.start()
                except Failed as error:
                    yield {"type": "error", "name": "NotStarted", "value": str(error), "traceback": ""}
                    return
            self.count += 1
            async for event in self.run(code, env):
                yield event

    async def restart(self):
        await self.stop()  # what runs is told, and lets go of the lock
        async with self.lock:
            self.count = 0
            await self.start()
