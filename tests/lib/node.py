"""Node.js for tests that drive npm packages: the system's if it is new enough, else what install.sh keeps in the cache."""
import os
import subprocess

NEEDED = 20
CACHED = os.path.join(os.environ.get("PADDOCK_CACHE", "/var/cache/paddock"), "node/bin/node")


def version(node):
    """The major version of a program `node`, 0 if it does not run."""
    try:
        text = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
        return int(text.strip().lstrip("v").split(".")[0] or 0)
    except (OSError, ValueError):
        return 0


def find():
    """The path of a Node.js that is new enough, or None."""
    return next((node for node in ("node", CACHED) if version(node) >= NEEDED), None)


def npm_ci(folder):
    """Installs the packages of the folder's lock file unless they are there. Returns None, or what npm said when it failed."""
    if os.path.exists(f"{folder}/node_modules/.package-lock.json"):
        return None
    npm = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
    return None if npm.returncode == 0 else npm.stderr[-300:] or "npm failed"
