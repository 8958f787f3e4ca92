"""Test cases with an instance of their own."""
import unittest

from paddock import Instance, code_of


class Refusals(unittest.TestCase):
    def refused(self, code, call, text):
        """The call ends with this status, by its name, and says this -> all that it says."""
        name, said = code_of(call)
        self.assertEqual(name, code, said)
        self.assertIn(text, said)
        self.assertNotIn(self.instance.dir, said, "a client sees a host path")
        return said


class OwnInstance(Refusals):
    """`self.instance`: one of this class alone, without complaints at its end; `self.client`: a key of its tenant "tenant"."""
    SETTINGS = {}

    @classmethod
    def setUpClass(cls):
        cls.instance = Instance(pool_size=0, **cls.SETTINGS)
        cls.instance.start()
        cls.client = cls.instance.tenant("tenant")

    @classmethod
    def tearDownClass(cls):
        cls.instance.stop()
        if cls.instance.complaints:
            raise AssertionError(cls.instance.complaints)
