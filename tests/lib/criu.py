"""What tests of pauses to disk need."""
import os
import unittest

from paddock import CACHE

HAS_CRIU = os.path.exists(f"{CACHE}/criu/usr/sbin/criu") or os.path.exists("/usr/sbin/criu")
needs_criu = unittest.skipUnless(HAS_CRIU, "no CRIU: tests/lib/install.sh puts it into PADDOCK_CACHE")
# A program whose output shows every gap and every repetition.
COUNTER = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"
