#!/usr/bin/env python3
"""Incremental snapshots of a Linux guest that computes all the while: every link of the chain is the machine of its instant.
  STASIS_LINKS: how many (6)."""
import itertools
import json
import os
import signal
import subprocess
import time
import unittest

from machines import POWERED_OFF, STASIS, SUSPENDED, GuestTest, Machine

LINKS = int(os.environ.get("STASIS_LINKS", "6"))
# How each link is held; they take turns.
KINDS = ((), ("--encoding", "packed"), ("--encoding", "packed", "--level", "0"), ())


class Chain(GuestTest):
    def busy(self, steps=100_000):
        guest = self.run_guest(f"stasis=work:8:{steps}", memory="96M")
        guest.wait_for("step")
        return guest

    def save(self, name, path, *options):
        return json.loads(self.stasis("checkpoint", name, path, "--json", *options).stdout)

    def resumed_digest(self, path, number):
        """What a fresh process has that was resumed from it and has not run an instruction."""
        name = f"again{number}"
        machine = Machine(self, "resume", str(self.folder / path), "--name", name, "--paused", "--console", "none")
        deadline = time.monotonic() + 60
        while subprocess.run([STASIS, "info", name], env=self.env, capture_output=True, check=False).returncode:
            self.assertIsNone(machine.process.poll(), machine.errors)
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        digest = self.save(name, "again.stasis")["digest"]
        self.stasis("stop", name)
        machine.wait()
        return digest

    def test_every_link_is_the_machine_of_its_instant(self):
        guest = self.busy()
        self.save("guest", "link0.stasis")
        digests = []
        for n, kind in zip(range(1, LINKS + 1), itertools.cycle(KINDS)):
            guest.wait_for(f"step {n} ")
            self.stasis("pause", "guest")
            link = self.save("guest", f"link{n}.stasis", "--incremental-from", f"link{n - 1}.stasis", *kind)
            whole = self.save("guest", "whole.stasis")
            self.stasis("unpause", "guest")
            self.assertEqual(link["digest"], whole["digest"])
            self.assertLess(link["stored_bytes"], whole["stored_bytes"] / 2)
            digests.append(whole["digest"])
        self.stasis("stop", "guest")
        guest.wait()
        self.assertEqual(len(set(digests)), LINKS)
        for n, digest in enumerate(digests, 1):
            self.assertEqual(self.stasis("snapshot", "digest", f"link{n}.stasis").stdout.strip(), digest)
            self.assertEqual(self.resumed_digest(f"link{n}.stasis", n), digest)
        self.assertEqual(len(json.loads(self.stasis("snapshot", "show", f"link{LINKS}.stasis", "--json").stdout)["lineage"]), LINKS)
        self.stasis("snapshot", "squash", f"link{LINKS}.stasis", "squashed.stasis")
        self.assertEqual(self.stasis("snapshot", "digest", "squashed.stasis").stdout.strip(), digests[-1])

    def test_after_saves_that_failed_the_next_one_is_right(self):
        guest = self.busy()
        self.save("guest", "parent.stasis")
        for n in range(1, 4):
            guest.wait_for(f"step {2 * n} ")
            self.stasis("checkpoint", "guest", self.folder, "--incremental-from", "parent.stasis", status=2)  # a folder is no target
            client = subprocess.Popen([STASIS, "checkpoint", "guest", "cut.stasis", "--encoding", "packed", "--level", "19", "--incremental-from", "parent.stasis"],
                                      env=self.env, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.1 * n)
            client.send_signal(signal.SIGINT)
            client.wait(60)
            self.stasis("pause", "guest")
            child = self.save("guest", f"child{n}.stasis", "--incremental-from", "parent.stasis")
            whole = self.save("guest", "whole.stasis")  # which is not a parent: the next one is compared with the old one
            self.stasis("unpause", "guest")
            self.assertEqual(child["digest"], whole["digest"])
            self.assertEqual(self.stasis("snapshot", "digest", f"child{n}.stasis").stdout.strip(), whole["digest"])
        self.stasis("stop", "guest")
        guest.wait()

    def test_encrypted_links(self):
        (self.folder / "key").write_bytes(os.urandom(32))
        guest = self.busy()
        key = ("--encrypt-key", "key")
        self.save("guest", "parent.stasis", *key)
        self.refused("checkpoint", "guest", "child.stasis", "--incremental-from", "parent.stasis", *key, status=2, says=("is encrypted",))
        guest.wait_for("step 2 ")
        self.stasis("pause", "guest")
        child = self.save("guest", "child.stasis", "--incremental-from", "parent.stasis", "--decrypt-key", "key", *key)
        whole = self.save("guest", "plain.stasis")
        self.refused("checkpoint", "guest", "child.stasis", "--incremental-from", "plain.stasis", *key, status=2, says=("is not encrypted",))
        self.assertEqual(child["digest"], whole["digest"])
        self.stasis("stop", "guest")
        guest.wait()
        again = Machine(self, "resume", str(self.folder / "child.stasis"), "--name", "again", "--decrypt-key", str(self.folder / "key"))
        again.wait_for("step")
        self.stasis("stop", "again")

    def test_out_of_one_process_into_another(self):
        guest = self.run_guest("stasis=work:8:12", memory="96M")
        guest.wait_for("step 3 ")
        saver = subprocess.Popen([STASIS, "suspend", "guest", "-"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        again = subprocess.run([STASIS, "resume", "-", "--name", "again"], env=self.env, stdin=saver.stdout, capture_output=True, check=False, timeout=300)
        self.assertEqual(saver.wait(60), 0, saver.stderr.read())
        saver.stdout.close(), saver.stderr.close()
        self.assertEqual(guest.wait(), SUSPENDED)
        self.assertEqual(again.returncode, POWERED_OFF, again.stderr)
        undisturbed = self.run_guest("stasis=work:8:12", memory="96M", name="undisturbed")
        self.assertEqual(undisturbed.wait(), POWERED_OFF)
        both = guest.output + again.stdout.decode("latin1").replace("\r", "")
        self.assertEqual(both[both.index("step"):], undisturbed.output[undisturbed.output.index("step"):])


if __name__ == "__main__":
    unittest.main()
