"""Tars of templates other than `base`: each is made by its recipe once, and kept in PADDOCK_CACHE until the recipe changes."""
import fcntl
import os
import subprocess
import sys

from paddock import CACHE, CLI


def make(name, recipe, *arguments):
    """The path of the tar `name`, made by `paddock template build ARGUMENTS` unless the one there was made by the same `recipe`, a text.
    No daemon is needed. Whoever comes while another makes it waits for that."""
    path = os.path.join(CACHE, name + ".tar")
    os.makedirs(CACHE, exist_ok=True)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_made(path, recipe):
            print(f"building the template {name} (once; kept in {CACHE})", file=sys.stderr, flush=True)
            subprocess.run([CLI, "template", "build", *arguments, "--to-tar", path], check=True, stdout=sys.stderr)
            with open(path + ".recipe", "w") as file:
                file.write(stamp(path, recipe))
    return path


def stamp(path, recipe):
    return f"{recipe} {os.path.getsize(path)}\n"


def is_made(path, recipe):
    try:
        with open(path + ".recipe") as file:
            return file.read() == stamp(path, recipe)
    except OSError:
        return False
