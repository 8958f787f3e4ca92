"""The template code-interpreter-v1, made by its recipe once and kept in the cache until the recipe or its files change."""
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


def prepare():
    """Build the tar unless it is there. No daemon is needed."""
    wanted = recipe()
    try:
        with open(TAR + ".recipe") as file:
            if file.read().strip() == wanted and os.path.exists(TAR):
                return
    except OSError:
        pass
    print(f"building the code-interpreter template (once; kept in {CACHE})", file=sys.stderr)
    os.makedirs(CACHE, exist_ok=True)
    subprocess.run([CLI, "template", "build", "code-interpreter", "--to-tar", TAR], check=True, stdout=sys.stderr)
    with open(TAR + ".recipe", "w") as file:
        file.write(wanted + "\n")


def add(instance):
    prepare()
    with open(TAR, "rb") as tar:
        instance.admin.build_template("code-interpreter-v1", tar, public=True)


if __name__ == "__main__":
    prepare()
