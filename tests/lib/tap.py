"""Run the unittest classes of a script and print what tests/run.sh counts: one line per test,
`ok name`, `FAIL name: why` or `skip name: why`; tracebacks go to stderr. Arguments select tests by substring."""
import sys
import time
import traceback
import unittest


class TapResult(unittest.TestResult):
    def __init__(self):
        super().__init__(sys.stderr, False, 2)
        self.failed_subtests = []

    def name(self, test):
        return test.id().replace("__main__.", "")

    def startTest(self, test):
        super().startTest(test)
        self.failed_subtests = []
        self.began = time.monotonic()

    def say(self, verdict, test, why=""):
        why = ": " + " ".join(str(why).split())[:300] if why else ""
        print(f"{verdict} {self.name(test)}{why}", flush=True)
        print(f"# {verdict} {self.name(test)} {time.monotonic() - self.began:.2f}s", file=sys.stderr, flush=True)

    def trace(self, test, err):
        print(f"# {self.name(test)}", file=sys.stderr)
        traceback.print_exception(*err, file=sys.stderr)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.say("ok", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.began = getattr(self, "began", time.monotonic())
        self.say("skip", test, reason)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.trace(test, err)
        self.say("FAIL", test, err[1])

    def addError(self, test, err):
        super().addError(test, err)
        self.began = getattr(self, "began", time.monotonic())
        self.trace(test, err)
        self.say("FAIL", test, f"{type(err[1]).__name__} {err[1]}")

    def addSubTest(self, test, subtest, err):
        # One line for the test that the failing cases belong to.
        if err is None:
            return
        self.trace(subtest, err)
        self.failed_subtests.append(f"{subtest._subDescription()} {err[1]}")
        self.failures.append((test, str(err[1])))

    def stopTest(self, test):
        if self.failed_subtests:
            self.say("FAIL", test, f"{len(self.failed_subtests)} cases; first {self.failed_subtests[0]}")
        super().stopTest(test)


def select(suite, words):
    chosen = unittest.TestSuite()
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            chosen.addTest(select(item, words))
        elif not words or any(word in item.id() for word in words):
            chosen.addTest(item)
    return chosen


def run(suite, words=()):
    """-> True if nothing failed."""
    result = TapResult()
    select(suite, words).run(result)
    sys.stdout.flush()
    return not (result.failures or result.errors)


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    sys.exit(0 if run(suite, sys.argv[1:]) else 1)
