"""The template `zoo`: `base` and the programs that go to disk and back in tests/checkpoint."""
import template_tar

PROGRAMS = "vim-tiny,redis-server,postgresql"


def prepare():
    return template_tar.make("zoo", PROGRAMS, "base", "--include", PROGRAMS)


def add(instance):
    with open(prepare(), "rb") as tar:
        instance.admin.build_template("zoo", tar, public=True)


if __name__ == "__main__":
    prepare()
