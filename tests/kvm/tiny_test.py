#!/usr/bin/env python3
"""Tiny guests under KVM (test_kvm): saved in the middle of things, moved between engines, paused whatever they do."""
import os
import pathlib
import re
import unittest

import nested

TEST_KVM = pathlib.Path(os.environ.get("TEST_KVM", nested.images.ROOT / "build/release/tests/kvm/test_kvm")).resolve()
VARIABLES = {name: os.environ[name] for name in ("STASIS_CROSSINGS", "STASIS_SEED") if name in os.environ}
AROUND_STI = "KvmTiny.defect_02_between_sti*:KvmTiny.defect_02_interrupts_around_sti*"


@unittest.skipUnless(os.environ.get("STASIS_KVM_TINY") or nested.has_kvm(),
                     "in the emulated machine some runs do not come to their end, and a trap is lost there with tcg_svm.ko; the cause is "
                     "not known: STASIS_KVM_TINY=1 runs it")
class Tiny(unittest.TestCase):
    def run_tests(self, name):
        result = nested.run(f"{TEST_KVM} --gtest_filter={name}", [TEST_KVM], timeout=300, environment=VARIABLES)
        log = re.sub(r"\x1b\[[0-9;]*m", "", result.log)
        print(log)
        self.assertEqual(result.status, 0, log)
        self.assertNotIn("[  SKIPPED ]", log)
        self.assertRegex(log, r"\[  PASSED  \] [1-9]")

    def test_saved_in_the_middle_of_things(self):
        self.run_tests(f"KvmTiny.*:KvmHalt.*-{AROUND_STI}")

    @unittest.skipUnless(os.environ.get("STASIS_KVM_STI") or nested.has_kvm(),
                         "its one run in the emulated machine did not come to its end, the cause is not known: STASIS_KVM_STI=1 runs it")
    def test_around_sti(self):
        self.run_tests(AROUND_STI)

    def test_crossing_engines(self):
        self.run_tests("KvmCrossing.*")

    def test_pauses(self):
        self.run_tests("*/KvmPause.*")


if __name__ == "__main__":
    unittest.main()
