"""The code interpreter: contexts that keep their state, run over HTTP on port 49999 of the loopback device.

	POST   /execute                {code, context_id?, language?, env_vars?} -> a line of JSON for each event
	GET    /contexts               -> [{id, language, cwd}]
	POST   /contexts               {language?, cwd?} -> {id, language, cwd}
	POST   /contexts/ID/restart    a new process, without the state
	POST   /contexts/ID/interrupt  ends what runs in it, as Ctrl-C does
	DELETE /contexts/ID
	GET    /health                 -> OK

Whoever closes the connection of an /execute interrupts it. It runs as the sandbox's user and trusts the code that it runs
no more than that user; who may reach the port is decided outside of the sandbox.
"""
import asyncio
import json
import os
import signal
import sys

import tornado.iostream
import tornado.web

import driver
import jupyter
from context import Failed

PORT = 49999
BODY_MAX = 16 << 20
CONTEXTS_MAX = 32
KEEPALIVE = 5
LANGUAGES = {"python": jupyter.Python, "javascript": driver.JavaScript, "bash": driver.Bash}
ALIASES = {"": "python", "py": "python", "python3": "python", "js": "javascript", "sh": "bash"}


class Contexts:
    """What there is. The default one of a language is made when it is first asked for."""

    def __init__(self):
        self.by_id = {}
        self.defaults = {}
        self.locks = {language: asyncio.Lock() for language in LANGUAGES}

    async def create(self, language, cwd):
        if len(self.by_id) >= CONTEXTS_MAX:
            raise tornado.web.HTTPError(429, f"there are {CONTEXTS_MAX} contexts already: remove one")
        context = LANGUAGES[language](language, cwd)
        self.by_id[context.id] = context  # it counts from now on
        try:
            await context.start()
        except BaseException:
            await self.remove(context)
            raise
        return context

    async def default(self, language):
        async with self.locks[language]:
            if language not in self.defaults:
                self.defaults[language] = await self.create(language, home())
            return self.defaults[language]

    def find(self, identifier):
        if identifier not in self.by_id:
            raise tornado.web.HTTPError(404, f"Context {identifier} not found")
        return self.by_id[identifier]

    async def remove(self, context):
        self.by_id.pop(context.id, None)
        if self.defaults.get(context.language) is context:
            del self.defaults[context.language]
        context.removed = True
        await context.stop()


def home():
    return os.environ.get("HOME", "/")


def read_language(value):
    language = ALIASES.get(value or "", value)
    if language not in LANGUAGES:
        raise tornado.web.HTTPError(400, f"language: one of {', '.join(LANGUAGES)}")
    return language


def read_cwd(value):
    path = os.path.join(home(), os.path.expanduser(value or home()))
    if not os.path.isdir(path):
        raise tornado.web.HTTPError(400, f"cwd: '{value}' is not a directory")
    return path


def read_text(body, name):
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise tornado.web.HTTPError(400, f"{name}: not a string")
    if value is not None and "\0" in value:
        raise tornado.web.HTTPError(400, f"{name}: has a NUL")
    return value


def read_env(value):
    value = value or {}
    if not isinstance(value, dict) or any(not isinstance(text, str) for text in value.values()):
        raise tornado.web.HTTPError(400, "env_vars: not an object of strings")
    for name, text in value.items():
        if not name.isidentifier() or not name.isascii() or "\0" in text:
            raise tornado.web.HTTPError(400, f"env_vars: '{name}' cannot be set")
    return value


class Handler(tornado.web.RequestHandler):
    def initialize(self, contexts):
        self.contexts = contexts

    def body(self):
        try:
            body = json.loads(self.request.body or b"{}")
        except ValueError:
            raise tornado.web.HTTPError(400, "the body is not JSON")
        if not isinstance(body, dict):
            raise tornado.web.HTTPError(400, "the body is not a JSON object")
        return body

    def write_error(self, status_code, exc_info=None, **_):
        error = exc_info[1] if exc_info else None
        if isinstance(error, Failed):
            self.set_status(500)
        text = error.log_message if isinstance(error, tornado.web.HTTPError) else str(error) if isinstance(error, Failed) else None
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(text or self._reason)


class Health(Handler):
    def get(self):
        self.finish("OK")


class List(Handler):
    def get(self):
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps([context.describe() for context in self.contexts.by_id.values()]))

    async def post(self):
        body = self.body()
        context = await self.contexts.create(read_language(read_text(body, "language")), read_cwd(read_text(body, "cwd")))
        self.finish(context.describe())


class One(Handler):
    async def delete(self, identifier):
        await self.contexts.remove(self.contexts.find(identifier))
        self.set_status(204)


class Restart(Handler):
    async def post(self, identifier):
        context = self.contexts.find(identifier)
        await context.restart()
        self.finish(context.describe())


class Interrupt(Handler):
    async def post(self, identifier):
        self.contexts.find(identifier).interrupt()
        self.set_status(204)


class Execute(Handler):
    """The answer is a stream: its end is the end of the execution."""

    task = None

    async def post(self):
        body = self.body()
        code, identifier, language = (read_text(body, name) for name in ("code", "context_id", "language"))
        env = read_env(body.get("env_vars"))
        if code is None:
            raise tornado.web.HTTPError(400, "code: is missing")
        if identifier and language:
            raise tornado.web.HTTPError(400, "context_id: not together with language")
        context = self.contexts.find(identifier) if identifier else await self.contexts.default(read_language(language))
        self.set_header("Content-Type", "application/x-ndjson")
        await self.flush()
        self.task = asyncio.current_task()
        try:
            await self.stream(context.execute(code, env))
        except (asyncio.CancelledError, tornado.iostream.StreamClosedError):
            pass  # the client has gone away; execute() has interrupted it
        finally:
            self.task = None

    async def stream(self, events):
        """Each event as a line, and a sign of life when there is none for a while."""
        upcoming = None
        try:
            while True:
                upcoming = upcoming or asyncio.ensure_future(events.__anext__())
                done, _ = await asyncio.wait([upcoming], timeout=KEEPALIVE)
                if not done:
                    await self.line({"type": "keepalive"})
                    continue
                try:
                    event = upcoming.result()
                except StopAsyncIteration:
                    break
                upcoming = None
                await self.line(event)
            await self.line({"type": "end_of_execution"})
        finally:
            if upcoming and not upcoming.done():
                upcoming.cancel()
                await asyncio.wait([upcoming])
            await events.aclose()

    async def line(self, event):
        self.write(json.dumps(event) + "\n")
        await self.flush()

    def on_connection_close(self):
        if self.task:
            self.task.cancel()


async def main():
    contexts = Contexts()
    arguments = {"contexts": contexts}
    application = tornado.web.Application([
        ("/health", Health, arguments), ("/contexts", List, arguments), ("/contexts/([^/]+)", One, arguments),
        ("/contexts/([^/]+)/restart", Restart, arguments), ("/contexts/([^/]+)/interrupt", Interrupt, arguments),
        ("/execute", Execute, arguments)], log_function=lambda handler: None)
    application.listen(PORT, "127.0.0.1", max_buffer_size=BODY_MAX, max_body_size=BODY_MAX)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Python is what most ask for: it starts while they are on their way.
    first = asyncio.ensure_future(contexts.default("python"))
    await stop.wait()
    first.cancel()
    for context in list(contexts.by_id.values()):
        await contexts.remove(context)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(asyncio.run(main()))
