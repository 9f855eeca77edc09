#!/usr/bin/env python3
"""Saves of a live machine that are killed, run out of disk, or lose their folder: the file before stays as it was, byte for
byte, the guest runs on, and its next save is right.
  STASIS_KILLS, STASIS_FULL_DISKS: how many; STASIS_INTERRUPT_SEED: of the random moments and sizes."""
import os
import random
import shutil
import signal
import subprocess
import time
import unittest

from command_line_test import FAILED, STASIS, STOPPED, SUSPENDED, USAGE, CommandLine

KILLS, FULL_DISKS = int(os.environ.get("STASIS_KILLS", "6")), int(os.environ.get("STASIS_FULL_DISKS", "4"))


class Interrupted(CommandLine):
    def setUp(self):
        super().setUp()
        self.chance = random.Random(int(os.environ.get("STASIS_INTERRUPT_SEED", "1")))
        self.target = self.folder / "target"
        self.target.mkdir()
        self.kept = self.target / "kept.stasis"

    def filled_guest(self):
        """8 MiB of its RAM are not zero."""
        guest = self.guest()
        self.read_until(guest.stdout.fileno(), b"tiny")
        guest.stdin.write(b"W")
        self.read_until(guest.stdout.fileno(), b"W")
        return guest

    def answers(self, guest, text):
        guest.stdin.write(text)
        self.read_until(guest.stdout.fileno(), text)

    def mount(self, kilobytes, options=""):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k{options}", "tmpfs", self.target], capture_output=True, check=False)
        if done.returncode != 0 and os.geteuid() != 0:
            self.skipTest("mounting takes root")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(subprocess.run, ["umount", "--lazy", self.target], stderr=subprocess.DEVNULL, check=False)

    def remount(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", self.target], check=True)

    def next_save_is_right(self, guest):
        self.answers(guest, b"alive")
        report = self.stasis("checkpoint", "g", self.kept, "--json").out
        self.assertIn(self.stasis("snapshot", "digest", self.kept).out.strip(), report)
        self.assertEqual(os.listdir(self.target), ["kept.stasis"])


class Killed(Interrupted):
    def test_the_file_before_or_a_whole_new_one(self):
        guest = self.filled_guest()
        begin = time.monotonic()
        self.stasis("checkpoint", "g", self.kept)
        takes = time.monotonic() - begin
        old = self.kept.read_bytes()
        self.stasis("suspend", "g", "start.stasis")
        guest.wait(20)
        kept = replaced = strays = 0
        for attempt in range(KILLS):
            self.stasis("resume", "start.stasis", "--name", "k", "--detach", "--console", "none")
            pid = self.info("k")["pid"]
            client = subprocess.Popen([STASIS, "checkpoint", "k", self.kept], env=self.env, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(1.3 * takes * self.chance.random())
            os.kill(pid, signal.SIGKILL)
            client.wait(20)
            found = os.listdir(self.target)
            self.assertIn("kept.stasis", found)
            self.assertLessEqual(len(found), 2, "what the save before left is still there")
            strays += len(found) == 2
            if self.kept.read_bytes() == old:
                kept += 1
            else:
                replaced += 1
                self.stasis("snapshot", "digest", self.kept)
                self.kept.write_bytes(old)
            self.until(lambda: not os.path.exists(f"/proc/{pid}"))
        print(f"{KILLS} kills: {kept} kept the file before, {replaced} a whole new one, {strays} left a temporary", flush=True)
        guest = self.resumed()
        self.next_save_is_right(guest)

    def resumed(self):
        guest = subprocess.Popen([STASIS, "resume", "start.stasis", "--name", "g"], env=self.env, cwd=self.folder, bufsize=0,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def end():
            guest.kill()
            guest.wait()
            for stream in (guest.stdin, guest.stdout, guest.stderr):
                stream.close()
        self.addCleanup(end)
        return guest


class Stalled(Interrupted):
    def test_a_save_into_a_pipe_that_nobody_empties_can_be_cancelled(self):
        guest = self.filled_guest()
        for verb in ("checkpoint", "suspend"):
            saver = subprocess.Popen([STASIS, verb, "g", "-", "--level", "0"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            deadline = time.monotonic() + 20
            while self.info("g")["state"] != "saving":
                self.assertLess(time.monotonic(), deadline)
            time.sleep(0.3)  # both pipes are full by now, and it is saving still
            self.assertEqual(self.info("g")["state"], "saving")
            saver.send_signal(signal.SIGINT)
            self.assertNotEqual(saver.wait(20), 0)
            self.assertIn(b"cancelled", saver.stderr.read())
            saver.stdout.close(), saver.stderr.close()
            self.answers(guest, verb.encode())
        self.next_save_is_right(guest)


    def suspending(self):
        """A suspend of which all is written, and next to nothing read: the snapshot fits into a FIFO, not into a pipe of one page."""
        saver = subprocess.Popen([STASIS, "suspend", "g", "-"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pipesize=4096)
        self.addCleanup(lambda: (saver.kill(), saver.wait(), saver.stdout.close(), saver.stderr.close()))
        self.until(lambda: (self.info("g")["save"] or {}).get("written"))
        return saver

    def test_a_suspend_into_a_pipe_ends_the_guest_only_when_all_is_out(self):
        guest = self.filled_guest()
        with subprocess.Popen([STASIS, "suspend", "g", "-", "--level", "0"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as saver:
            saver.stdout.read(1000)
            saver.stdout.close()  # as `| head -c 1000`
            self.assertEqual(saver.wait(20), FAILED)
            self.assertIn(b"standard output", saver.stderr.read())
        self.answers(guest, b"still-there")
        self.assertEqual(self.info("g")["state"], "running")
        with open(self.kept, "wb") as kept:
            subprocess.run([STASIS, "suspend", "g", "-"], env=self.env, stdout=kept, check=True, stderr=subprocess.DEVNULL)
        self.assertEqual(guest.wait(20), SUSPENDED)
        with open(self.kept, "rb") as kept:
            whole = subprocess.run([STASIS, "snapshot", "convert", "-", self.folder / "whole.stasis"], env=self.env, stdin=kept, capture_output=True, check=False)
        self.assertEqual(whole.returncode, 0, whole.stderr)
        self.assertEqual(self.stasis("resume", "whole.stasis", stdin="backQ").out, "back")

    def test_a_guest_whose_snapshot_nobody_takes_goes_on(self):
        self.env["TMPDIR"] = str(self.target)
        guest = self.guest()
        self.read_until(guest.stdout.fileno(), b"tiny")
        for ending in (signal.SIGINT, signal.SIGKILL):
            saver = self.suspending()
            saver.send_signal(ending)
            self.assertNotEqual(saver.wait(20), 0)
            self.until(lambda: self.info("g")["state"] == "running")
            self.answers(guest, b"goes-on")
            self.assertEqual(os.listdir(self.target), [], "a FIFO was left")
        self.assertEqual(self.info("g")["state"], "running")
        # What others ask meanwhile comes after it.
        saver = self.suspending()
        late = subprocess.Popen([STASIS, "unpause", "g"], env=self.env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.addCleanup(lambda: (late.wait(), late.stderr.close()))
        time.sleep(0.2)
        self.assertEqual(self.info("g")["state"], "saving")
        snapshot = saver.stdout.read()
        self.assertEqual(saver.wait(20), 0, saver.stderr.read())
        self.assertEqual(guest.wait(20), SUSPENDED)
        self.assertNotEqual(late.wait(20), 0)
        whole = subprocess.run([STASIS, "snapshot", "convert", "-", self.folder / "whole.stasis"], env=self.env, input=snapshot, capture_output=True, check=False)
        self.assertEqual(whole.returncode, 0, whole.stderr)
        self.assertEqual(self.stasis("resume", "whole.stasis", stdin="backQ").out, "back")

    def test_a_machine_can_be_stopped_while_its_save_stalls(self):
        guest = self.filled_guest()
        saver = subprocess.Popen([STASIS, "checkpoint", "g", "-", "--level", "0"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.until(lambda: self.info("g")["state"] == "saving")
        time.sleep(0.3)
        self.stasis("stop", "g", timeout=20)
        self.assertEqual(guest.wait(20), STOPPED)
        self.assertNotEqual(saver.wait(20), 0)
        saver.stdout.close(), saver.stderr.close()


class NoRoom(Interrupted):
    def test_full_disks(self):
        guest = self.filled_guest()
        for _ in range(FULL_DISKS):
            self.mount(64 + self.chance.randrange(8 << 10))
            self.kept.write_bytes(b"the previous file")
            self.refused("checkpoint", "g", self.kept, status=FAILED, says="the disk is full: the snapshot needs up to")
            self.assertEqual(self.kept.read_bytes(), b"the previous file")
            self.assertEqual(os.listdir(self.target), ["kept.stasis"])
            self.remount("size=64m")
            self.next_save_is_right(guest)
            subprocess.run(["umount", "--lazy", self.target], check=True)  # the file before may still be being let go of
        self.mount(64)
        self.refused("suspend", "g", self.kept, status=FAILED, says="the disk is full")
        self.answers(guest, b"still-alive")

    def test_a_read_only_file_system(self):
        guest = self.filled_guest()
        self.mount(64 << 10)
        self.stasis("checkpoint", "g", self.kept)
        old = self.kept.read_bytes()
        self.remount("ro")
        self.refused("checkpoint", "g", self.kept, status=FAILED, says="Read-only file system")
        self.refused("suspend", "g", self.kept, status=FAILED, says="Read-only file system")
        self.assertEqual(self.kept.read_bytes(), old)
        self.remount("rw")
        self.next_save_is_right(guest)

    def test_a_folder_that_vanished(self):
        guest = self.filled_guest()
        self.stasis("checkpoint", "g", self.kept)
        shutil.rmtree(self.target)
        self.refused("checkpoint", "g", self.kept, status=USAGE, says="does not exist")
        self.refused("suspend", "g", self.kept, status=USAGE, says="does not exist")
        self.answers(guest, b"alive")
        self.target.mkdir()
        self.next_save_is_right(guest)


if __name__ == "__main__":
    unittest.main()
