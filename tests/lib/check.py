"""For tests that are one story rather than many cases: a line per check, as tests/run.sh counts them."""
_failed = []


def check(name, passed, why=""):
    why = " ".join(str(why).split())[:300]
    print(f"ok {name}" if passed else f"FAIL {name}: {why}", flush=True)
    if not passed:
        _failed.append(name)
    return passed


def done():
    return 1 if _failed else 0
