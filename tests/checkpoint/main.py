"""Every test_*.py of this folder against one shared instance with the template `zoo`."""
import glob
import os
import sys
import unittest

import lab
import tap

here = os.path.dirname(os.path.abspath(__file__))
modules = [os.path.basename(name)[:-3] for name in sorted(glob.glob(here + "/test_*.py"))]
passed = tap.run(unittest.defaultTestLoader.loadTestsFromNames(modules), sys.argv[1:])
for name, why in lab.stop():
    print(f"FAIL {name}: {' '.join(why.split())[:300]}" if why else f"ok {name}", flush=True)
    passed = passed and not why
sys.exit(0 if passed else 1)
