"""A private Paddock instance for tests that stop, kill and restart its parts. The shell twin is daemon.sh."""
import os
import shutil
import signal
import subprocess
import tempfile
import time

import host
import paddock_rpc

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.abspath(paddock_rpc.BUILD)
CACHE = os.environ.get("PADDOCK_CACHE", "/var/cache/paddock")


def wait_for(condition, seconds=30, step=0.02):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(step)
    return False


class Instance:
    def __init__(self, build=BUILD, pool_size="20G", env=None, **settings):
        self.build, self.pool_size = build, pool_size
        self.env = dict(os.environ, **(env or {}))
        self.folder = tempfile.mkdtemp(prefix="paddock-test.", dir="/var/tmp")
        os.chmod(self.folder, 0o755)
        self.run, self.data = self.folder + "/run", self.folder + "/data"
        self.libexec = self.folder + "/libexec"
        for folder in (self.run, self.data, self.libexec):
            os.mkdir(folder)
        for path in ("init/paddock-init", "archive/paddock-archive", "sudo/paddock-sudo"):
            shutil.copy(f"{build}/sandbox/{path}", self.libexec)
        self.addr = f"unix:{self.run}/admin.sock"
        self.settings = {"data_dir": self.data, "runtime_dir": self.run, "listen": "", "metrics_listen": ""}
        self.settings.update(settings)
        self.warden = self.server = None
        self.parents = set()  # after stop(): the folders of cgroups that were this instance's
        self.deaths = []  # exit codes of daemons that ended by themselves
        self._client = None

    def write_config(self):
        with open(self.folder + "/paddock.conf", "w") as stream:
            for name, value in self.settings.items():
                stream.write(f"{name} = {value}\n")

    def start_warden(self, env=None):
        if self.warden:
            self.deaths.append(self.warden.poll())
        log = open(self.folder + "/warden.log", "a")
        self.warden = subprocess.Popen(
            [f"{self.build}/sandbox/warden/paddock-warden", "--data-dir", self.data, "--runtime-dir", self.run,
             "--user", "paddock", "--pool-size", self.pool_size, "--libexec-dir", self.libexec,
             "--policy-dir", ROOT + "/policies"], stderr=log, stdout=log, env=dict(self.env, **(env or {})))
        assert wait_for(lambda: os.path.exists(self.run + "/warden.sock") or self.warden.poll() is not None, 60)
        assert self.warden.poll() is None, self.tail("warden.log")

    def start_server(self, env=None, wait=True):
        if self.server:
            self.deaths.append(self.server.poll())
        self.write_config()
        log = open(self.folder + "/paddockd.log", "a")
        self.server = subprocess.Popen([f"{self.build}/server/paddockd", "--config", self.folder + "/paddock.conf"],
                                       stderr=log, stdout=log, env=dict(self.env, **(env or {})))
        if wait:
            assert wait_for(self.answers, 60), self.tail("paddockd.log")

    def tail(self, name):
        with open(f"{self.folder}/{name}") as stream:
            return stream.read()[-2000:]

    def answers(self):
        assert self.server.poll() is None, self.tail("paddockd.log")
        self.reconnect()
        return paddock_rpc.code_of(lambda: self.client.Admin.WhoAmI(timeout=1))[0] == "OK"

    @property
    def client(self):
        if not self._client:
            self._client = paddock_rpc.Client(self.addr, key="")
        return self._client

    def fresh_client(self):
        return paddock_rpc.Client(self.addr, key="")

    def reconnect(self):
        if self._client:
            self._client.close()
        self._client = None

    def start(self):
        subprocess.run("getent passwd paddock >/dev/null || useradd --system --user-group --home-dir /nonexistent "
                       "--no-create-home --shell /usr/sbin/nologin paddock", shell=True, check=True)
        self.start_warden()
        self.start_server()
        return self

    def template(self):
        """The template "base", from the tar that daemon_template() keeps."""
        env = dict(self.env, PADDOCK_ADDR=self.addr)
        subprocess.run([f"{self.build}/sdk/paddock", "template", "import", "base", f"{CACHE}/base.tar", "--public"],
                       check=True, env=env, stdout=subprocess.DEVNULL)
        return self

    def died(self):
        """True if a daemon left at a fault point (exit code 137) since the start."""
        return 137 in self.deaths

    def kill_server(self, signum=signal.SIGKILL):
        if self.server and self.server.poll() is None:
            self.server.send_signal(signum)
        if self.server:
            self.server.wait(30)

    def kill_warden(self, signum=signal.SIGKILL):
        if self.warden and self.warden.poll() is None:
            self.warden.send_signal(signum)
        if self.warden:
            self.warden.wait(30)

    def end_stock(self):
        """Sandboxes outlive the daemons by design, also the pre-made ones that nobody can name: end them through
        their cgroups while the warden is there to clean up. The folders of cgroups that held them."""
        folder, parents = self.run + "/sandboxes", set()
        for id in os.listdir(folder) if os.path.isdir(folder) else []:
            for path in host.cgroups():
                if os.path.basename(path) != id:
                    continue
                parents.add(os.path.dirname(path))
                if os.path.exists(path + "/cgroup.kill"):
                    with open(path + "/cgroup.kill", "w") as stream:
                        stream.write("1")
        wait_for(lambda: not os.path.isdir(folder) or not os.listdir(folder), 10)
        return parents

    def stop(self):
        try:
            for sandbox in self.client.Sandboxes.List(all_tenants=True, page_size=1000, timeout=10).sandboxes:
                self.client.Sandboxes.Kill(sandbox_id=sandbox.id)
        except Exception:  # the instance may be down: reconciliation is a test of its own
            pass
        self.reconnect()
        self.kill_server(signal.SIGTERM)
        self.parents = parents = self.end_stock()
        self.kill_warden(signal.SIGTERM)
        for folder in parents:
            try:
                os.rmdir(folder)
            except OSError:
                pass  # another instance's, or not empty: the checks of "nothing is left" will say so
        shutil.rmtree(self.folder, ignore_errors=True)
