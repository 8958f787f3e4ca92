"""The template code-interpreter-v1, with matplotlib and pandas, whose charts and tables are results of their own."""
import hashlib
import os

import template_tar
from paddock import SOURCE

FILES = "sandbox/interpreter"


def recipe():
    """What the tar is made of beside its packages, as a digest."""
    digest = hashlib.sha256()
    paths = sorted(f"{FILES}/{name}" for name in os.listdir(os.path.join(SOURCE, FILES)) if not name.endswith(".md"))
    for path in paths:
        if os.path.isfile(os.path.join(SOURCE, path)):
            with open(os.path.join(SOURCE, path), "rb") as file:
                digest.update(path.encode() + b"\0" + file.read())
    return digest.hexdigest()


def prepare():
    return template_tar.make("code-interpreter+charts", recipe() + " charts", "code-interpreter", "--include", "python3-matplotlib,python3-pandas")


def add(instance):
    with open(prepare(), "rb") as tar:
        instance.admin.build_template("code-interpreter-v1", tar, public=True)


if __name__ == "__main__":
    prepare()
