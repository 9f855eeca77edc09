#!/usr/bin/env python3
"""Tiny guests under KVM (test_kvm): saved in the middle of things, moved between engines, paused whatever they do.

STASIS_CROSSINGS and STASIS_SEED say how often a guest crosses engines, and at which points.
"""
import os
import pathlib
import re
import unittest

import nested

TEST_KVM = pathlib.Path(os.environ.get("TEST_KVM", nested.images.ROOT / "build/release/tests/kvm/test_kvm")).resolve()
VARIABLES = {name: os.environ[name] for name in ("STASIS_CROSSINGS", "STASIS_SEED") if name in os.environ}
TIMEOUT = 300 + int(VARIABLES.get("STASIS_CROSSINGS", "0"))


class Tiny(unittest.TestCase):
    def run_tests(self, name, exact):
        result = nested.run(f"{TEST_KVM} --gtest_color=no --gtest_filter={name}", [TEST_KVM], timeout=TIMEOUT, environment=VARIABLES, exact=exact)
        print(result.log)
        self.assertEqual(result.status, 0)
        self.assertNotIn("[  SKIPPED ]", result.log)
        self.assertEqual(re.search(r"^\[  PASSED  \] (\d+) test", result.log, re.M)[1], re.search(r"Running (\d+) test", result.log)[1])

    def test_all(self):
        """In exact time: what it takes to pause is what Stasis needs, and a busy host changes no test."""
        self.run_tests("*", exact=True)

    @unittest.skipIf(nested.has_kvm(), "the other test is in the host's time already")
    def test_timers_in_the_hosts_time(self):
        """Only there does a timer's interrupt come later than its clock says that it is due."""
        self.run_tests("KvmHalt.interrupts*:KvmHalt.defect_04_no*", exact=False)


if __name__ == "__main__":
    unittest.main()
