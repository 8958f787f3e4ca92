"""Load every test_*.py of this folder and run them against one shared instance (tests of configurations start their own)."""
import glob
import os
import sys
import unittest

import api
import tap

here = os.path.dirname(os.path.abspath(__file__))
modules = [os.path.basename(name)[:-3] for name in sorted(glob.glob(here + "/test_*.py"))]
suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
passed = tap.run(suite, sys.argv[1:])
complaints = api.stop()
if complaints is not None:
    why = "; ".join(" ".join(c.split())[:200] for c in complaints)
    print(f"FAIL instance.ends_cleanly: {why}" if complaints else "ok instance.ends_cleanly", flush=True)
sys.exit(0 if passed and not complaints else 1)
