"""Tars of the templates: each is made by its recipe once, and kept in PADDOCK_CACHE under a name that says which recipe made it."""
import fcntl
import hashlib
import os
import subprocess
import sys

from paddock import CACHE, CLI, SOURCE

RECIPES = "sdk/cli/recipe.c"


def digest_of(recipe):
    with open(os.path.join(SOURCE, RECIPES), "rb") as file:
        return hashlib.sha256(file.read() + recipe.encode()).hexdigest()[:12]


def make(name, recipe, *arguments):
    """The path of the tar `name`, made by `paddock template build ARGUMENTS` unless it is there: of the same recipes, and of the
    same `recipe`, a text, which says what else it is made of. No daemon is needed. Whoever comes while another makes it waits."""
    path = os.path.join(CACHE, f"{name}-{digest_of(recipe)}.tar")
    os.makedirs(CACHE, exist_ok=True)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):  # it is renamed to its place when it is whole
            print(f"building the template {name} (once; kept in {CACHE})", file=sys.stderr, flush=True)
            subprocess.run([CLI, "template", "build", *arguments, "--to-tar", path], check=True, stdout=sys.stderr)
    return path


def base():
    """The path of the tar of `base`."""
    return make("base", "", "base")


if __name__ == "__main__":
    print(base())
