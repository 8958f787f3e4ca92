"""The map of README.md, from ids of the security catalogue to tests, cannot rot: every id has a row, everything that a row
names exists, and every test that carries an id is named in that id's row."""
import glob
import os
import re

from paddock import SOURCE

HERE = os.path.join(SOURCE, "tests")
IDS = [f"{letter}{n:02}" for letter, last in (("K", 26), ("F", 28), ("P", 18), ("R", 14)) for n in range(1, last + 1)]
ID = r"[KFPR]\d\d"


def read(path):
    with open(path) as f:
        return f.read()


def carriers():
    """{id: names of the tests that carry it}, a name as the rows have it: FILE: TEST below tests/."""
    found = {id: set() for id in IDS}
    for path in glob.glob(HERE + "/**/*.py", recursive=True) + glob.glob(HERE + "/**/*.c", recursive=True):
        name, text = os.path.relpath(path, HERE), read(path)
        for test in re.findall(rf"^\s*(?:def|static void) ((?:test_)?(?:{ID}_)+\w+)\(", text, re.M):
            for id in re.findall(rf"(?:^|_)({ID})(?=_)", test):
                found[id].add(f"{name}: {test}")
        if re.match(r"escape/\w+\.c$", name):
            for id in set(re.findall(rf'"({ID})"', text)) & set(IDS):
                found[id].add(f"{name}: probe")
    return found


def rows():
    """{id: names in its row}"""
    found = {}
    for line in read(HERE + "/escape/README.md").splitlines():
        match = re.match(rf"\| ({ID}) \|(.*)\|(.*)\|$", line)
        if match:
            assert match.group(1) not in found, f"{match.group(1)} has two rows"
            file, found[match.group(1)] = None, set()
            for name in re.findall(r"`([^`]+)`", match.group(3)):
                file, _, test = name.rpartition(": ") if ": " in name else (file, "", name)
                found[match.group(1)].add(f"{file}: {test}")
    return found


def problems():
    have, named = carriers(), rows()
    wrong = [f"{id} has no row" for id in IDS if id not in named]
    wrong += [f"{id}: no test is named" for id in named if not named[id]]
    for id in named:
        wrong += [f"{id}: there is no {name}" for name in sorted(named[id] - have.get(id, set()))]
        wrong += [f"{id}: {name} is not in its row" for name in sorted(have.get(id, set()) - named[id])]
    return wrong
