#!/usr/bin/env python3
"""Linux boots, answers and ends: memory sizes, KASLR, both kernel formats, endings and their statuses."""
import subprocess
import time
import unittest

from machines import CRASHED, POWERED_OFF, REBOOTED, STOPPED, GuestTest


class Boot(GuestTest):
    def boots(self, words="", **options):
        guest = self.run_guest("stasis=shell " + words, **options)
        guest.wait_for("READY")
        guest.ask("hello")
        guest.send("free\n")
        guest.wait_for("Mem:")
        total_kib = int(guest.output.split("Mem:")[1].split()[0])
        guest.send("poweroff\n")
        self.assertEqual(guest.wait(), POWERED_OFF, guest.errors)
        return total_kib

    def test_64_mib(self):
        # In 64 MiB this kernel fills its memory with trace event files, under QEMU too; lockdown keeps tracefs off.
        self.assertLess(self.boots("lockdown=confidentiality", memory="64M"), 64 * 1024)

    def test_512_mib_kaslr(self):
        self.assertGreater(self.boots(memory="512M"), 400 * 1024)

    def test_512_mib_nokaslr(self):
        self.assertGreater(self.boots("nokaslr", memory="512M"), 400 * 1024)

    def test_6_gib_has_ram_above_4_gib(self):
        self.assertGreater(self.boots(memory="6G"), 5 * 1024 * 1024)

    def test_elf_vmlinux_by_pvh(self):
        self.assertGreater(self.boots(memory="256M", kernel="vmlinux"), 150 * 1024)

    def test_reboots_and_comes_back(self):
        guest = self.run_guest("stasis=shell")
        guest.wait_for("READY")
        guest.send("reboot\n")
        deadline = time.monotonic() + 120
        while guest.output.count("READY") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertEqual(guest.output.count("READY"), 2, guest.output[-500:])

    def test_no_reboot_has_its_own_status(self):
        guest = self.run_guest("stasis=reboot", "--no-reboot")
        self.assertEqual(guest.wait(), REBOOTED, guest.errors)

    def test_power_button_and_stop(self):
        guest = self.run_guest("stasis=idle")
        guest.wait_for("READY")
        self.stasis("powerdown", "guest")  # nobody listens to the button in this initramfs; the request is accepted
        self.assertEqual(self.info()["state"], "running")
        self.stasis("stop", "guest")
        self.assertEqual(guest.wait(), STOPPED, guest.errors)

    def test_triple_fault_is_a_crash(self):
        guest = self.run_guest("stasis=off reboot=t", "--no-reboot")
        status = guest.wait()
        self.assertIn(status, (POWERED_OFF, CRASHED, REBOOTED))
        guest = self.run_guest("stasis=reboot reboot=t", "--no-reboot", name="triple")
        self.assertEqual(guest.wait(), CRASHED, guest.errors)

    def test_idle_guest_costs_no_cpu(self):
        guest = self.run_guest("stasis=idle")
        guest.wait_for("READY")
        time.sleep(2)

        def cpu_ticks():
            with open(f"/proc/{guest.process.pid}/stat", encoding="ascii") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        before = cpu_ticks()
        time.sleep(3)
        self.assertLess(cpu_ticks() - before, 60, "an idle guest used more than a fifth of a CPU")

    def test_end_of_input_does_not_end_the_guest(self):
        done = subprocess.run(["sh", "-c", "true"], check=True)
        self.assertEqual(done.returncode, 0)
        guest = self.run_guest("stasis=work:1:2")
        guest.process.stdin.close()
        guest.process.stdin = open("/dev/null", "wb", buffering=0)
        guest.wait_for("RESULT")
        self.assertEqual(guest.wait(), POWERED_OFF)


class Pace(GuestTest):
    def test_both_paces_run_the_same_instructions(self):
        digests = []
        for pace in ("host", "fast"):
            image = self.folder / f"{pace}.stasis"
            guest = self.run_guest("stasis=work:1:4", "--pace", pace, "--stop-at", "900000000", "--suspend-to", str(image),
                                   "--console", "none", name=pace)
            guest.wait()
            digests.append(self.stasis("snapshot", "digest", image).stdout)
        self.assertEqual(digests[0], digests[1])


if __name__ == "__main__":
    unittest.main()
