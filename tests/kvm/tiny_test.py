#!/usr/bin/env python3
"""Tiny guests under KVM (test_kvm): saved in the middle of things, moved between engines, paused whatever they do."""
import os
import pathlib
import re
import unittest

import nested

TEST_KVM = pathlib.Path(os.environ.get("TEST_KVM", nested.images.ROOT / "build/release/tests/kvm/test_kvm")).resolve()
VARIABLES = {name: os.environ[name] for name in ("STASIS_CROSSINGS", "STASIS_SEED") if name in os.environ}


class Tiny(unittest.TestCase):
    def run_tests(self, name):
        result = nested.run(f"{TEST_KVM} --gtest_filter={name}", [TEST_KVM], timeout=600, environment=VARIABLES)
        log = re.sub(r"\x1b\[[0-9;]*m", "", result.log)
        print(log)
        self.assertEqual(result.status, 0, log)
        self.assertNotIn("[  SKIPPED ]", log)
        self.assertRegex(log, r"\[  PASSED  \] [1-9]")

    def test_saved_in_the_middle_of_things(self):
        self.run_tests("KvmTiny.*:KvmHalt.*")

    def test_crossing_engines(self):
        self.run_tests("KvmCrossing.*")

    def test_pauses(self):
        self.run_tests("*/KvmPause.*")


if __name__ == "__main__":
    unittest.main()
