#!/usr/bin/env python3
"""Saving from outside, and everything that can go wrong with it: nothing is lost, the guest runs on."""
import os
import random
import signal
import subprocess
import threading
import time
import unittest

from machines import GUEST, OUR_ERROR, POWERED_OFF, STASIS, SUSPENDED, GuestTest, Machine


class Save(GuestTest):
    def shell(self, **options):
        guest = self.run_guest("stasis=shell", **options)
        guest.wait_for("READY")
        return guest

    def test_suspend_and_resume(self):
        guest = self.shell()
        guest.ask("one")
        self.stasis("suspend", "guest", "kept.stasis")  # a relative path means the client's folder
        self.assertEqual(guest.wait(), SUSPENDED)
        self.assertEqual(os.stat(self.folder / "kept.stasis").st_mode & 0o777, 0o600)
        again = Machine(self, "resume", str(self.folder / "kept.stasis"), "--name", "again")
        again.ask("two")
        again.send("poweroff\n")
        self.assertEqual(again.wait(), POWERED_OFF)

    def test_checkpoint_keeps_running_and_many_wake_from_one_file(self):
        guest = self.shell()
        self.stasis("checkpoint", "guest", "warm.stasis")
        guest.ask("still-here")
        before = self.stasis("snapshot", "digest", "warm.stasis").stdout
        clones = [Machine(self, "resume", str(self.folder / "warm.stasis"), "--name", f"clone{n}") for n in range(4)]
        for n, clone in enumerate(clones):
            clone.ask(f"clone-{n}")
        guest.ask("undisturbed")
        self.assertEqual(self.stasis("snapshot", "digest", "warm.stasis").stdout, before)

    def test_resumed_guest_can_reboot_without_its_files(self):
        guest = self.shell()
        self.stasis("suspend", "guest", "kept.stasis")
        guest.wait()
        again = Machine(self, "resume", str(self.folder / "kept.stasis"), "--name", "again")
        again.send("reboot\n")
        again.wait_for("READY")
        again.ask("back")

    # Defect 14: a save truncates the previous good file.
    def test_killed_saves_keep_the_previous_file(self):
        guest = self.shell(memory="256M")
        self.stasis("checkpoint", "guest", "kept.stasis")
        good = self.stasis("snapshot", "digest", "kept.stasis").stdout
        self.stasis("suspend", "guest", "start.stasis")
        guest.wait()
        chance = random.Random(4)
        for attempt in range(25):
            saver = subprocess.Popen([STASIS, "resume", str(self.folder / "start.stasis"), "--name", f"k{attempt}", "--console", "none"],
                                     env=self.env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 20
            while subprocess.run([STASIS, "info", f"k{attempt}"], env=self.env, capture_output=True, check=False).returncode != 0:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            client = subprocess.Popen([STASIS, "checkpoint", f"k{attempt}", str(self.folder / "kept.stasis")], env=self.env,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.random() * 0.12)
            saver.send_signal(signal.SIGKILL)
            saver.wait()
            client.wait(20)
            # Either the old file or a whole new one: in both cases a good file of that name.
            self.stasis("snapshot", "digest", "kept.stasis")
        self.assertTrue(good)
        again = subprocess.Popen([STASIS, "resume", str(self.folder / "start.stasis"), "--name", "last", "--console", "none"],
                                 env=self.env, stdin=subprocess.DEVNULL)
        self.addCleanup(lambda: (again.kill(), again.wait()))
        deadline = time.monotonic() + 20
        while subprocess.run([STASIS, "info", "last"], env=self.env, capture_output=True, check=False).returncode != 0:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        self.stasis("checkpoint", "last", "kept.stasis")
        strays = [name for name in os.listdir(self.folder) if name not in ("kept.stasis", "start.stasis", "run")]
        self.assertEqual(strays, [], "a killed save's temporary survived the next save")

    def test_full_disk(self):
        small = self.folder / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(small)], check=True)
        self.addCleanup(subprocess.run, ["umount", str(small)], check=True)
        guest = self.shell()
        (small / "kept.stasis").write_bytes(b"the previous file")
        error = self.refused("checkpoint", "guest", small / "kept.stasis", says="kept.stasis")
        self.assertRegex(error, "(?i)space|full")
        self.assertEqual((small / "kept.stasis").read_bytes(), b"the previous file")
        self.assertEqual(os.listdir(small), ["kept.stasis"])
        guest.ask("alive")
        self.refused("suspend", "guest", small / "other.stasis", says="other.stasis")
        guest.ask("still-alive")
        self.assertEqual(self.info()["state"], "running")

    def test_wrong_paths(self):
        guest = self.shell()
        self.refused("checkpoint", "guest", "no/such/folder/x.stasis", status=2, says="no/such/folder")
        self.refused("checkpoint", "guest", self.folder, status=2, says="directory")
        self.refused("suspend", "guest", "/proc/x.stasis")
        guest.ask("alive")

    def test_two_saves_at_once(self):
        guest = self.shell(memory="512M")
        results = []

        def save(path):
            results.append(subprocess.run([STASIS, "checkpoint", "guest", str(self.folder / path)], env=self.env,
                                          capture_output=True, text=True, check=False))

        threads = [threading.Thread(target=save, args=(f"s{n}.stasis",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ok = [r for r in results if r.returncode == 0]
        self.assertGreaterEqual(len(ok), 1)
        for result in results:
            if result.returncode != 0:
                self.assertIn("already being saved", result.stderr)
        guest.ask("alive")

    def test_name_in_use(self):
        guest = self.shell()
        done = subprocess.run([STASIS, "run", "--name", "guest", "--kernel", str(GUEST / "vmlinuz"), "--console", "none"],
                              env=self.env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("guest", done.stderr)
        self.assertIn(str(guest.process.pid), done.stderr)
        guest.ask("alive")


class BadFiles(GuestTest):
    """Defect 15: hostile metadata reaches assert(), trailing bytes are ignored, a short RAM file loops for ever."""

    @classmethod
    def make(cls, case):
        image = case.folder / "good.stasis"
        case.stasis("run", "--kernel", GUEST / "vmlinuz", "--memory", "72M", "--console", "none", "--stop-at", "2000",
                    "--suspend-to", image, "--rtc", "1", status=SUSPENDED)
        return image

    def refused_whole(self, path, says=()):
        for words in (("snapshot", "show", path), ("snapshot", "digest", path)):
            self.refused(*words, says=says)
        error = self.stasis("resume", path, "--console", "none", "--stop-at", "3000", status=OUR_ERROR).stderr
        self.assertTrue(error.startswith("stasis: "), error)

    def test_truncated(self):
        good = self.make(self).read_bytes()
        bad = self.folder / "bad.stasis"
        for length in (0, 1, 7, 64, 1000, len(good) // 2, len(good) - 4096, len(good) - 1):
            bad.write_bytes(good[:length])
            self.refused_whole(bad, says="bad.stasis")

    def test_trailing_bytes(self):
        bad = self.folder / "bad.stasis"
        bad.write_bytes(self.make(self).read_bytes() + b"x")
        self.refused_whole(bad)

    def test_foreign_files(self):
        bad = self.folder / "bad.stasis"
        for content in (b"\x7fELF" + bytes(5000), b"QEVM" + bytes(100), os.urandom(100000), b"hello\n"):
            bad.write_bytes(content)
            self.refused_whole(bad)
        self.refused("snapshot", "show", self.folder / "absent.stasis", says="no such file")
        self.refused("snapshot", "show", self.folder, status=2, says="is a directory")

    def test_bit_flips(self):
        good = self.make(self)
        want = self.stasis("snapshot", "digest", good).stdout
        content = bytearray(good.read_bytes())
        bad, chance = self.folder / "bad.stasis", random.Random(9)
        for _ in range(60):
            at = chance.randrange(len(content))
            content[at] ^= 1 << chance.randrange(8)
            bad.write_bytes(content)
            content[:] = good.read_bytes()
            done = subprocess.run([STASIS, "snapshot", "digest", str(bad)], capture_output=True, text=True, env=self.env, check=False)
            self.assertIn(done.returncode, (0, 1), done.stderr)
            if done.returncode == 0:
                self.assertEqual(done.stdout, want, f"byte {at} flipped unnoticed")


if __name__ == "__main__":
    unittest.main()
