#!/usr/bin/python3
# slow
"""A web application in a sandbox (Vite's server, with its websocket) previewed in Chromium, edited through the Files service; and what people
see when there is nothing to show. Screenshots are kept in build/screenshots/."""
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "ingress"))
import node
from check import check, done
from paddock import BUILD
from preview import World

NODE, CHROMIUM = node.find(), shutil.which("chromium")
SHOTS = os.path.join(BUILD, "screenshots")
PORT = 5173


class Browser:
    def __enter__(self):
        self.process = subprocess.Popen([NODE, f"{HERE}/browse.mjs"], cwd=HERE, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env={"PATH": os.environ["PATH"], "HOME": "/tmp", "CHROMIUM": CHROMIUM})
        return self

    def __exit__(self, *unused):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def __call__(self, what, **step):
        print(json.dumps({"do": what, **step}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        return json.loads(answer) if answer else {"error": "the browser is gone"}

    def shot(self, name):
        self("shot", path=os.path.join(SHOTS, name + ".png"))


def project():
    """The application and its packages, as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(f"{HERE}/app", "project")
        tar.add(f"{HERE}/node_modules", "project/node_modules", filter=lambda entry: None if "playwright-core" in entry.name else entry)
    return out.getvalue()


def the_application(world, browser, preview):
    client, box = world.client, world.box
    seen = browser("open", url=preview.url)
    check("browser/nothing listens yet", seen.get("status") == 502 and f"port {PORT}" in seen["text"], str(seen))
    browser.shot("nothing-listens")
    client.unpack(box, b"/home/user", project())
    client.run(box, "node", "node_modules/vite/bin/vite.js", "--host", "127.0.0.1", "--port", str(PORT), "--strictPort", cwd="/home/user/project",
               detach=True)
    # The page looks again by itself until the application is there.
    shown = browser("wait", text="Hello from the sandbox")
    check("browser/the page appears by itself", "error" not in shown, str(shown))
    seen = browser("now")
    check("browser/the token has left the address", seen.get("url", "").rstrip("/") == f"http://{preview.host}:{world.ingress.port}", str(seen))
    check("browser/events", "error" not in browser("wait", text="event 3"), "")
    cookies = browser("cookies")["cookies"]
    check("browser/one cookie, of this host, not for scripts", [(c["name"], c["domain"], c["httpOnly"], c["sameSite"]) for c in cookies] ==
          [("paddock-preview", preview.host, True, "Lax")], str(cookies))
    check("browser/scripts do not see it", browser("run", script="document.cookie").get("value") == "", "")
    browser("fill", selector="#kept", text="still here")
    client.write(box, "/home/user/project/greeting.js", b'export const greeting = "Edited while you watch";\n')
    check("browser/a change of a file appears at once", "error" not in browser("wait", text="Edited while you watch"), "")
    kept = browser("value", selector="#kept")
    check("browser/without the page being loaded again", kept.get("value") == "still here", str(kept))
    browser.shot("application")


PROTOCOLS = """performance.getEntries().filter((e) => ["navigation", "resource"].includes(e.entryType) && e.name.startsWith(location.origin))
  .map((e) => e.nextHopProtocol)"""


def over_tls(world, browser, preview):
    """The same application by HTTP/2, its websocket beside that by HTTP/1.1; and two previews are two connections."""
    there = f"https://{preview.host}:{world.ingress.tls_port}/"
    browser("open", url=there + "?" + preview.url.split("?")[1])
    check("browser/TLS shows it", "error" not in browser("wait", text="Edited while you watch"), "")
    protocols = browser("run", script=PROTOCOLS).get("value")
    check("browser/TLS is HTTP/2", protocols and len(protocols) > 2 and set(protocols) == {"h2"}, str(protocols))
    check("browser/TLS events", "error" not in browser("wait", text="event 3"), "")
    world.client.write(world.box, "/home/user/project/greeting.js", b'export const greeting = "Edited over TLS";\n')
    check("browser/TLS a change appears at once", "error" not in browser("wait", text="Edited over TLS"), "")


PROBE = """async () => {
  const socket = await new Promise((done) => {
    const s = new WebSocket(%r);
    s.onopen = () => done("open");
    s.onerror = () => done("refused");
  });
  const read = await fetch(%r, { credentials: "include" }).then(() => "read", () => "refused");
  const blind = await fetch(%r, { method: "POST", mode: "no-cors", credentials: "include" }).then((r) => r.type, () => "refused");
  return { socket, read, blind };
}"""


def other_pages(world, browser, preview):
    """A page of one preview, in a browser that has the cookies of both."""
    world.serve(8081)
    other = world.grant(port=8081)
    browser("open", url=other.url)
    there = f"{preview.host}:{world.ingress.port}"
    before = sum(r.action == "preview.visit" for r in world.records(preview))
    value = browser("run", script="(" + PROBE % (f"ws://{there}/", f"http://{there}/", f"http://{there}/") + ")()").get("value")
    check("browser/another preview's page reaches nothing", value and value["socket"] == "refused" and value["read"] == "refused", str(value))
    check("browser/and begins no visit", sum(r.action == "preview.visit" for r in world.records(preview)) == before, "")
    own = f"{other.host}:{world.ingress.port}"
    value = browser("run", script="(" + PROBE % (f"ws://{own}/ws", f"http://{own}/", f"http://{own}/") + ")()").get("value")
    check("browser/its own is open to it", value and value["socket"] == "open" and value["read"] == "read", str(value))


def the_ends(world, browser, preview):
    client = world.client
    browser("open", url=f"http://{preview.host}:{world.ingress.port}/")
    client.Sandboxes.Pause(sandbox_id=world.box)
    seen = browser("open", url=f"http://{preview.host}:{world.ingress.port}/")
    check("browser/paused", seen.get("status") == 503 and "paused" in seen["title"], str(seen))
    browser.shot("paused")
    client.Sandboxes.Resume(sandbox_id=world.box)
    back = browser("wait", text="Edited over TLS")
    check("browser/and it comes back by itself", "error" not in back, str(back) + str(browser("now")))
    client.Previews.Extend(preview_id=preview.id, ttl_ms=1000)
    time.sleep(1.2)
    seen = browser("open", url=f"http://{preview.host}:{world.ingress.port}/")
    check("browser/expired", seen.get("status") == 410 and "expired" in seen["title"], str(seen))
    browser.shot("expired")
    revoked = world.grant()
    browser("open", url=revoked.url)
    client.Previews.Revoke(preview_id=revoked.id)
    seen = browser("open", url=f"http://{revoked.host}:{world.ingress.port}/")
    check("browser/revoked", seen.get("status") == 410 and "closed" in seen["title"], str(seen))
    browser.shot("revoked")
    seen = browser("open", url=f"http://p{'a' * 26}.localhost:{world.ingress.port}/")
    check("browser/unknown", seen.get("status") == 404, str(seen))
    browser.shot("unknown")


def main():
    if not NODE or not CHROMIUM:
        print(f"skip browser: needs Node.js {node.NEEDED} and chromium")
        return 0
    error = node.npm_ci(HERE)
    if not check("browser/npm ci", error is None, error):
        return done()
    os.makedirs(SHOTS, exist_ok=True)
    with World(domain="localhost") as world, Browser() as browser:
        preview = world.grant(port=PORT)
        the_application(world, browser, preview)
        over_tls(world, browser, preview)
        other_pages(world, browser, preview)
        the_ends(world, browser, preview)
    return done()


if __name__ == "__main__":
    sys.exit(main())
