#!/usr/bin/env python3
"""The harness itself: statuses, files in and out, time limit, a crashed machine; and that KVM there is as on hardware."""
import os
import pathlib
import re
import shutil
import tempfile
import unittest

import nested

PROBE = pathlib.Path(os.environ.get("KVM_PROBE", nested.images.ROOT / "build/release/tests/kvm/kvm_probe")).resolve()


class Harness(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="harness."))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def run_script(self, script, *files, **options):
        return nested.run(script, files, **{"out": self.folder / "out", "timeout": 120, **options})

    def test_files_status_and_results(self):
        given = self.folder / "given file"
        given.write_text("it's here")
        script = f'cp "{given}" "$OUT/back"; mkdir "$OUT/deep"; echo x > "$OUT/deep/y"; echo "$WORD"; echo bad >&2; exit 7'
        for direct in (False, True):
            result = self.run_script(script, given, environment={"WORD": "it's a \"word\""}, direct=direct)
            self.assertEqual(result.status, 7)
            self.assertEqual((result.folder / "back").read_text(), "it's here")
            self.assertEqual((result.folder / "deep/y").read_text(), "x\n")
            self.assertEqual(result.log, "it's a \"word\"\nbad\n")
            shutil.rmtree(result.folder)

    def test_time_limit(self):
        for direct in (False, True):
            with self.assertRaisesRegex(nested.NestedError, "did not end in"):
                self.run_script("echo begun; sleep 1000", timeout=6, direct=direct)

    @unittest.skipIf(nested.has_kvm(), "on a host with KVM there is no machine that could crash")
    def test_crashed_machine_is_told_from_a_failed_script(self):
        with self.assertRaisesRegex(nested.NestedError, "(?s)brought no results.*sysrq triggered crash"):
            self.run_script("echo c > /proc/sysrq-trigger; sleep 100")

    def test_a_missing_file_is_named(self):
        with self.assertRaisesRegex(FileNotFoundError, "absent.bin"):
            self.run_script("true", self.folder / "absent.bin", direct=False)

    def test_kvm_offers_what_the_engine_needs(self):
        result = self.run_script(f'python3 -c "import json, socket, ctypes"; exec "{PROBE}"', PROBE)
        self.assertEqual(result.status, 0, result.log)
        # Only with a TSC that the kernel trusts is KVM's clock one for all vCPUs.
        self.assertRegex(result.log, r"KVM_GET_CLOCK flags 0x\w+ TSC_STABLE")
        for name in ("SPLIT_IRQCHIP", "X2APIC_API", "EXCEPTION_PAYLOAD", "IMMEDIATE_EXIT", "SREGS2", "MANUAL_DIRTY_LOG_PROTECT2"):
            self.assertTrue(int(re.search(rf"^{name} +\d+ +(\d+)", result.log, re.M)[1]), name)


if __name__ == "__main__":
    unittest.main()
