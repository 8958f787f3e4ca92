"""The template code-interpreter-v1, made by its recipe once and kept in the cache until the recipe or its files change."""
import fcntl
import hashlib
import os
import subprocess
import sys

from paddock import CACHE, CLI, SOURCE

TAR = os.path.join(CACHE, "code-interpreter.tar")
FILES = "sandbox/interpreter"


def recipe():
    """What the tar is made of, as a digest."""
    digest = hashlib.sha256()
    paths = ["sdk/cli/recipe.c"] + sorted(f"{FILES}/{name}" for name in os.listdir(os.path.join(SOURCE, FILES)) if not name.endswith(".md"))
    for path in paths:
        if os.path.isfile(os.path.join(SOURCE, path)):
            with open(os.path.join(SOURCE, path), "rb") as file:
                digest.update(path.encode() + b"\0" + file.read())
    return digest.hexdigest()


def stamp():
    """What the tar beside it is: its recipe and its size."""
    return f"{recipe()} {os.path.getsize(TAR) if os.path.exists(TAR) else 0}"


def is_there():
    try:
        with open(TAR + ".recipe") as file:
            return os.path.exists(TAR) and file.read().strip() == stamp()
    except OSError:
        return False


def prepare():
    """Build the tar unless it is there. No daemon is needed. Whoever comes while another builds it waits for that."""
    os.makedirs(CACHE, exist_ok=True)
    with open(TAR + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_there():
            return
        print(f"building the code-interpreter template (once; kept in {CACHE})", file=sys.stderr)
        subprocess.run([CLI, "template", "build", "code-interpreter", "--to-tar", TAR], check=True, stdout=sys.stderr)
        with open(TAR + ".recipe", "w") as file:
            file.write(stamp() + "\n")


def add(instance):
    prepare()
    with open(TAR, "rb") as tar:
        instance.admin.build_template("code-interpreter-v1", tar, public=True)


if __name__ == "__main__":
    prepare()
