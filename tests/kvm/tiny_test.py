#!/usr/bin/env python3
"""Tiny guests under KVM (test_kvm): saved in the middle of things, moved between engines, paused whatever they do."""
import os
import pathlib
import re
import unittest

import nested

TEST_KVM = pathlib.Path(os.environ.get("TEST_KVM", nested.images.ROOT / "build/release/tests/kvm/test_kvm")).resolve()
VARIABLES = {name: os.environ[name] for name in ("STASIS_CROSSINGS", "STASIS_SEED") if name in os.environ}
CROSSINGS = int(os.environ.get("STASIS_CROSSINGS", "200"), 0)


class Tiny(unittest.TestCase):
    def test_all_of_them(self):
        result = nested.run(str(TEST_KVM), [TEST_KVM], cpus=1, timeout=200 + CROSSINGS // 2, environment=VARIABLES)
        log = re.sub(r"\x1b\[[0-9;]*m", "", result.log)
        print(log)
        self.assertEqual(result.status, 0, log)
        self.assertNotIn("[  SKIPPED ]", log)
        self.assertRegex(log, r"\[  PASSED  \] [1-9]")
        for suite in ("KvmTiny", "KvmHalt", "KvmRegisters", "KvmCrossing", "All/KvmPause"):
            self.assertRegex(log, rf"tests? from {suite} \(")
        if nested.has_kvm():
            self.assertNotIn("left out: ", log)


if __name__ == "__main__":
    unittest.main()
