"""What tests of pauses to disk need."""
import fcntl
import os
import unittest

from paddock import CACHE

HAS_CRIU = os.path.exists(f"{CACHE}/criu/usr/sbin/criu") or os.path.exists("/usr/sbin/criu")
needs_criu = unittest.skipUnless(HAS_CRIU, "no CRIU: tests/lib/install.sh puts it into PADDOCK_CACHE")
# A program whose output shows every gap and every repetition.
COUNTER = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"


def lazy_pending(instance, id):
    """The server of pages holds the lock as long as memory of a sandbox is missing."""
    try:
        with open(f"{instance.run}/sandboxes/{id}/lazy") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def counted(client, box, process, more_than):
    """Read the counter's output from its first byte until there are more numbers than this -> how many; none is missing, none twice."""
    events, text = client.Processes.Attach(sandbox_id=box, process_id=process, deadline=30), b""
    for event in events:
        text += event.output.data
        if text.count(b"\n") > more_than:
            break
    events.cancel()
    numbers = [int(n) for n in text.rsplit(b"\n", 1)[0].split()]
    assert len(numbers) > more_than and numbers == list(range(len(numbers))), f"{more_than}: {numbers[-20:]}"
    return len(numbers)
