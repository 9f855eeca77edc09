#!/usr/bin/env python3
"""The commands that check snapshot files and make others from them: verify, convert, squash, rebase, set, note."""
import json
import os
import pathlib
import pty
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from command_line_test import FAILED, STASIS, SUSPENDED, TINY, USAGE, CommandLine

NOT_VERIFIED = NOT_COMPARED = 3


class SnapshotFiles(CommandLine):
    """a.stasis: the tiny guest after its greeting; b.stasis: the same one with 8 MiB of RAM filled."""

    @classmethod
    def setUpClass(cls):
        cls.made = pathlib.Path(tempfile.mkdtemp(prefix="stasis-files."))
        cls.addClassCleanup(shutil.rmtree, cls.made, ignore_errors=True)
        env = dict(os.environ, STASIS_RUNTIME_DIR=str(cls.made / "run"))
        guest = subprocess.Popen([STASIS, "run", "--name", "g", "--kernel", TINY, "--memory", "32M"], env=env, cwd=cls.made,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        with guest:
            while guest.stdout.read(1) != b"\n":
                pass
            subprocess.run([STASIS, "checkpoint", "g", "a.stasis"], env=env, cwd=cls.made, check=True, capture_output=True)
            guest.stdin.write(b"W")
            assert guest.stdout.read(1) == b"W"
            subprocess.run([STASIS, "suspend", "g", "b.stasis"], env=env, cwd=cls.made, check=True, capture_output=True)
        (cls.made / "key").write_bytes(bytes(range(32)))
        (cls.made / "other").write_text("ab" * 32 + "\n")

    def setUp(self):
        super().setUp()
        for name in ("a.stasis", "b.stasis", "key", "other"):
            os.link(self.made / name, self.folder / name)

    def path(self, name):
        return self.folder / name

    def snapshot(self, *words, **more):
        return self.stasis("snapshot", *words, **more)

    def no(self, *words, status=FAILED, says):
        return self.refused("snapshot", *words, status=status, says=says)

    def digest(self, name, *words):
        if words:  # what needs a key or a parent
            return json.loads(self.snapshot("verify", name, "--json", *words).out)["digest"]
        return self.snapshot("digest", name).out.strip()

    def shown(self, name, *path):
        return json.loads(self.snapshot("show", name, *path, "--json").out)

    def states(self, name):
        return {part["path"]: self.shown(name, part["path"]) for part in self.shown(name)["parts"]}

    def only(self, *names):
        """No file is there but these."""
        self.assertEqual(sorted(entry.name for entry in self.folder.iterdir() if entry.name != "run"), sorted(["a.stasis", "b.stasis", "key", "other", *names]))


class Forms(SnapshotFiles):
    def test_there_and_back_is_the_same_file(self):
        content = self.digest("b.stasis")
        self.snapshot("convert", "b.stasis", "packed.stasis", "--encoding", "packed", "--level", "3")
        self.snapshot("convert", "packed.stasis", "sealed.stasis", "--encrypt-key", "key")
        self.snapshot("rebase", "sealed.stasis", "--onto", "a.stasis", "child.stasis", "--decrypt-key", "key")
        self.snapshot("squash", "child.stasis", "whole.stasis")
        self.snapshot("convert", "whole.stasis", "mapped.stasis", "--encoding", "mapped")
        for name, words in (("packed", ()), ("sealed", ("--decrypt-key", "key")), ("child", ()), ("whole", ()), ("mapped", ())):
            self.assertEqual(self.digest(name + ".stasis", *words), content, name)
        self.assertEqual(self.path("mapped.stasis").read_bytes(), self.path("b.stasis").read_bytes())
        self.assertNotEqual(self.path("packed.stasis").read_bytes(), self.path("b.stasis").read_bytes())
        self.assertEqual(self.stasis("resume", "mapped.stasis", stdin="yQ").out, "y")

    def test_streams(self):
        def run(*words, **pipes):
            return subprocess.run([STASIS, "snapshot", *words], cwd=self.folder, capture_output=True, check=True, **pipes).stdout
        packed = run("convert", "b.stasis", "-", "--encoding", "packed")
        self.assertLess(len(packed), self.path("b.stasis").stat().st_size)
        run("convert", "-", "back.stasis", "--encoding", "mapped", input=packed + b"what follows is not the snapshot's")
        self.assertEqual(self.path("back.stasis").read_bytes(), self.path("b.stasis").read_bytes())
        cut = subprocess.run([STASIS, "snapshot", "convert", "-", "cut.stasis"], cwd=self.folder, input=packed[:-100], capture_output=True, check=False)
        self.assertEqual(cut.returncode, FAILED)
        self.only("back.stasis")

    def test_the_report_is_that_of_the_file(self):
        report = json.loads(self.snapshot("convert", "b.stasis", "p.stasis", "--encoding", "packed", "--json").out)
        self.assertEqual(report["digest"], self.digest("b.stasis"))
        self.assertEqual(report["file_bytes"], self.path("p.stasis").stat().st_size)
        self.assertEqual(self.shown("p.stasis")["uuid"], self.shown("b.stasis")["uuid"])
        self.assertEqual(self.path("p.stasis").stat().st_mode & 0o777, 0o600)

    def test_in_place(self):
        shutil.copy(self.path("b.stasis"), self.path("c.stasis"))
        self.snapshot("convert", "c.stasis", "c.stasis", "--encoding", "packed")
        self.snapshot("convert", "c.stasis", "c.stasis", "--encoding", "mapped")
        self.assertEqual(self.path("c.stasis").read_bytes(), self.path("b.stasis").read_bytes())

    def test_chains(self):
        contents = {name: self.digest(name + ".stasis") for name in "ab"}
        self.snapshot("rebase", "b.stasis", "--onto", "a.stasis", "one.stasis", "--encoding", "packed")
        self.snapshot("rebase", "a.stasis", "--onto", "one.stasis", "two.stasis")
        self.assertEqual((self.digest("one.stasis"), self.digest("two.stasis")), (contents["b"], contents["a"]))
        self.assertLess(self.path("one.stasis").stat().st_size, 9 << 20)
        # A child stays a child, unless it is told not to.
        self.snapshot("convert", "two.stasis", "two.packed.stasis", "--encoding", "packed")
        self.snapshot("convert", "two.stasis", "two.whole.stasis", "--whole")
        self.assertEqual(self.path("two.whole.stasis").read_bytes(), self.path("a.stasis").read_bytes())
        parents = json.loads(self.snapshot("verify", "two.packed.stasis", "--json").out)["parents"]
        self.assertEqual([pathlib.Path(parent).name for parent in parents], ["one.stasis", "a.stasis"])
        # The parent elsewhere.
        (self.folder / "kept").mkdir()
        os.rename(self.path("one.stasis"), self.folder / "kept" / "one.stasis")
        self.no("squash", "two.stasis", "x.stasis", says="--parent")
        self.snapshot("squash", "two.stasis", "x.stasis", "--parent", "kept", "--parent", "a.stasis")
        self.assertEqual(self.path("x.stasis").read_bytes(), self.path("a.stasis").read_bytes())

    def test_a_parent_is_not_overwritten_by_its_child(self):
        shutil.copy(self.path("a.stasis"), self.path("p.stasis"))
        self.snapshot("rebase", "b.stasis", "--onto", "p.stasis", "c.stasis")
        for words in (("rebase", "b.stasis", "--onto", "p.stasis", "p.stasis"), ("convert", "c.stasis", "p.stasis", "--encoding", "packed")):
            self.no(*words, status=USAGE, says="ancestor")
        self.assertEqual(self.path("p.stasis").read_bytes(), self.path("a.stasis").read_bytes())
        self.snapshot("squash", "c.stasis", "p.stasis")
        self.assertEqual(self.path("p.stasis").read_bytes(), self.path("b.stasis").read_bytes())

    def test_refusals(self):
        self.snapshot("convert", "b.stasis", "sealed.stasis", "--encrypt-key", "key")
        self.stasis("run", "--kernel", TINY, "--memory", "16M", "--console", "none", "--stop-at", "50", "--suspend-to", "small.stasis", status=SUSPENDED)
        for words, status, says in (
                (("convert", "b.stasis", "x", "--encoding", "zip"), USAGE, "mapped or packed"),
                (("convert", "b.stasis", "x", "--encoding", "packed", "--level", "20"), USAGE, "0 (not compressed) to 19"),
                (("convert", "b.stasis", "x", "--level", "3"), USAGE, "--level"),
                (("convert", "b.stasis", "x", "--encoding", "mapped", "--encrypt-key", "key"), USAGE, "cannot be encrypted"),
                (("convert", "b.stasis", "x", "--compat", "0.9"), USAGE, "known are: 1.0"),
                (("convert", "b.stasis", "no/folder/x"), USAGE, "no/folder"), (("convert", "b.stasis", "."), USAGE, "director"),
                (("convert", "absent", "x"), FAILED, "absent"), (("convert", "b.stasis"), USAGE, "OUT"),
                (("convert", "b.stasis", "x", "--encrypt-key", "absent"), FAILED, "absent"),
                (("convert", "b.stasis", "x", "--encrypt-key", "b.stasis"), USAGE, "b.stasis"),
                (("convert", "sealed.stasis", "x"), USAGE, "--decrypt-key"), (("convert", "sealed.stasis", "x", "--decrypt-key", "other"), USAGE, "another key"),
                (("rebase", "b.stasis", "x"), USAGE, "--onto"), (("rebase", "b.stasis", "--onto", "small.stasis", "x"), USAGE, "16 MiB"),
                (("squash", "key", "x"), FAILED, "key")):
            self.no(*words, status=status, says=says)
        self.snapshot("convert", "b.stasis", "ok.stasis", "--compat", "1.0")
        self.only("sealed.stasis", "small.stasis", "ok.stasis")

    def test_what_is_encrypted_is_not_legible(self):
        self.snapshot("convert", "b.stasis", "sealed.stasis", "--encrypt-key", "key")
        self.assertNotIn(b"ns16550", self.path("sealed.stasis").read_bytes())
        self.snapshot("convert", "sealed.stasis", "clear.stasis", "--decrypt-key", "key", "--encoding", "mapped")
        self.assertEqual(self.path("clear.stasis").read_bytes(), self.path("b.stasis").read_bytes())

    def test_help_has_examples(self):
        for command in ("verify", "convert", "squash", "rebase", "set", "note"):
            self.assertRegex(self.snapshot(command, "--help").out, "Example", command)


    def test_a_damaged_parent_hides_nothing_of_its_child(self):
        shutil.copy(self.path("a.stasis"), self.path("p.stasis"))
        self.snapshot("rebase", "b.stasis", "--onto", "p.stasis", "c.stasis")
        self.path("p.stasis").write_bytes(self.path("p.stasis").read_bytes()[:-1])
        self.assertEqual(self.shown("c.stasis")["content"], self.digest("b.stasis"))
        self.no("squash", "c.stasis", "x.stasis", says="cannot be used")
        done = self.stasis("resume", "c.stasis", "--dry-run", "--json", status=12)
        self.assertIn("p.stasis", done.out)
        self.assertIn("p.stasis", self.snapshot("verify", "c.stasis", status=FAILED).out)

    def test_a_stream_has_no_place(self):
        with open(self.path("b.stasis"), "rb") as source:
            script = f"mkdir gone && cd gone && rmdir ../gone && exec {STASIS} snapshot convert - {self.path('d.stasis')}"
            done = subprocess.run(["sh", "-c", script], stdin=source, capture_output=True, cwd=self.folder, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            source.seek(0)
            self.path("standard input").write_bytes(b"not what is converted")
            done = subprocess.run([STASIS, "snapshot", "convert", "-", "standard input"], stdin=source, capture_output=True, cwd=self.folder, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.only("d.stasis", "standard input")
        self.assertEqual(self.path("standard input").read_bytes(), self.path("b.stasis").read_bytes())

    def test_a_parent_that_needs_a_key_says_so(self):
        self.snapshot("convert", "a.stasis", "p.stasis", "--encrypt-key", "key")
        self.snapshot("rebase", "b.stasis", "--onto", "p.stasis", "c.stasis", "--encrypt-key", "key", "--decrypt-key", "key")
        self.snapshot("convert", "c.stasis", "x.stasis", "--decrypt-key", "key")
        self.no("squash", "c.stasis", "y.stasis", "--decrypt-key", "other", status=USAGE, says="key")

    def test_damaged_ram_is_no_difference(self):
        content = bytearray(self.path("b.stasis").read_bytes())
        content[self.shown("b.stasis", "memory/ram")["offset"] + (18 << 20)] ^= 1
        self.path("bad.stasis").write_bytes(content)
        for words in (("diff", "b.stasis", "bad.stasis"), ("export", "bad.stasis", "x", "--format", "elf-core"), ("map", "bad.stasis", "x.png")):
            done = self.snapshot(*words, status=NOT_COMPARED if words[0] == "diff" else FAILED)
            self.assertIn("memory/ram", done.err, words)
        self.only("bad.stasis")
        self.snapshot("memory", "bad.stasis", "--physical", "0x1200000", "16")


class Failures(SnapshotFiles):
    def test_a_full_disk_leaves_the_target_as_it_was(self):
        disk = self.folder / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True, check=False)
        if mounted.returncode:
            self.skipTest("may not mount")
        self.addCleanup(subprocess.run, ["umount", disk], check=False)
        (disk / "x.stasis").write_bytes(b"before")
        for words in (("convert", "b.stasis", "disk/x.stasis"), ("set", "b.stasis", "device/isa/uart0/lcr=3", "disk/x.stasis"),
                      ("rebase", "b.stasis", "--onto", "a.stasis", "disk/x.stasis")):
            self.assertIn("free", self.no(*words, says="the disk is full"))
            self.assertEqual((disk / "x.stasis").read_bytes(), b"before")
            self.assertEqual(os.listdir(disk), ["x.stasis"])

    def test_ctrl_c_leaves_the_target_as_it_was(self):
        self.path("x.stasis").write_bytes(b"before")
        for _ in range(10):
            process = subprocess.Popen([STASIS, "snapshot", "convert", "b.stasis", "x.stasis", "--encoding", "packed", "--level", "19"],
                                       cwd=self.folder, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL)
            with process:
                while process.poll() is None and not list(self.folder.glob(".x.stasis.*.tmp")):
                    time.sleep(0.001)
                process.send_signal(signal.SIGINT)
                error = process.stderr.read()
            self.assertEqual(list(self.folder.glob(".*")), [])
            if process.returncode == FAILED:
                self.assertIn("cancelled", error)
                self.assertEqual(self.path("x.stasis").read_bytes(), b"before")
                return
            self.assertEqual(process.returncode, 0)  # it was faster
            self.path("x.stasis").write_bytes(b"before")
        self.fail("never cancelled in time")

    def test_ctrl_c_while_waiting_for_input_ends_at_once(self):
        process = subprocess.Popen([STASIS, "snapshot", "convert", "-", "x.stasis"], cwd=self.folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        with process:
            process.stdin.write(self.path("b.stasis").read_bytes()[:5000])
            process.stdin.flush()
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(10), 128 + signal.SIGINT)
        self.only()

    def test_progress_is_for_people(self):
        self.assertEqual(self.snapshot("convert", "b.stasis", "x.stasis", "--encoding", "packed").err, "")
        main, side = pty.openpty()
        with subprocess.Popen([STASIS, "snapshot", "convert", "b.stasis", "-"], cwd=self.folder, stdout=side, stderr=side) as process:
            os.close(side)
            said = b""
            try:
                while piece := os.read(main, 4096):
                    said += piece
            except OSError:
                pass
            os.close(main)
        self.assertEqual(process.returncode, USAGE)
        self.assertIn(b"is a terminal", said)


class Changes(SnapshotFiles):
    def test_set_changes_what_it_is_told_and_nothing_else(self):
        self.snapshot("set", "b.stasis", "device/isa/uart0/lcr=0x1b", "clock/now_ns=123456789012", "x.stasis")
        before, after = self.states("b.stasis"), self.states("x.stasis")
        self.assertEqual([path for path in before if before[path] != after[path]], ["clock", "device/isa/uart0"])
        self.assertEqual(self.shown("x.stasis", "device/isa/uart0/lcr")["value"], 0x1b)
        before["device/isa/uart0"]["state"]["lcr"] = 0x1b
        self.assertEqual(before["device/isa/uart0"]["state"], after["device/isa/uart0"]["state"])
        self.assertNotEqual(self.shown("x.stasis")["uuid"], self.shown("b.stasis")["uuid"])
        self.snapshot("verify", "x.stasis")
        notes = json.loads(self.snapshot("note", "x.stasis", "--list", "--json").out)["notes"]
        self.assertEqual(len(notes), 2)
        self.assertRegex(notes[0]["text"], r"^set device/isa/uart0/lcr from \S+ to 0x1b$")
        # And back: the same guest as before.
        old = self.shown("b.stasis", "device/isa/uart0/lcr")["value"]
        self.snapshot("set", "x.stasis", f"device/isa/uart0/lcr={old}", f"clock/now_ns={self.shown('b.stasis', 'clock/now_ns')['value']}", "y.stasis")
        self.assertEqual(self.digest("y.stasis"), self.digest("b.stasis"))
        self.assertNotEqual(self.digest("x.stasis"), self.digest("b.stasis"))

    def test_set_keeps_a_child_a_child(self):
        self.snapshot("rebase", "b.stasis", "--onto", "a.stasis", "child.stasis")
        self.snapshot("set", "child.stasis", "device/isa/uart0/scr=9", "x.stasis", "--encoding", "packed")
        self.assertEqual(len(json.loads(self.snapshot("verify", "x.stasis", "--json").out)["parents"]), 1)
        self.snapshot("squash", "x.stasis", "whole.stasis")
        self.assertEqual(self.shown("whole.stasis", "device/isa/uart0/scr")["value"], 9)

    def test_set_refuses(self):
        for change, status, says in (
                ("device/isa/uart0/lcr=256", USAGE, "allowed is 0 to 255"), ("device/isa/uart0/lcr=x", USAGE, "'x'"), ("device/isa/uart0/nothing=1", FAILED, "nothing"),
                ("device/isa=1", FAILED, "device/isa"), ("device/isa/uart0=1", FAILED, "device/isa/uart0"), ("nonsense", USAGE, "PATH=VALUE"), ("=1", USAGE, "PATH=VALUE"),
                ("cpu/0/cr0=0x80000000", USAGE, "cr0"), ("machine/memory_bytes=67108864", USAGE, "memory_bytes"), ("machine/cpus=0", USAGE, "1 to 16"),
                ("machine/cpus=2", USAGE, "cpu/1"), ("cpu/0/efer=0xffffffffffffffff", USAGE, "efer")):
            self.no("set", "b.stasis", change, "x.stasis", status=status, says=says)
        self.no("set", "b.stasis", "device/isa/uart0/lcr=1", status=USAGE, says="OUT")
        self.no("set", "b.stasis", "x.stasis", status=USAGE, says="OUT")
        self.no("set", status=USAGE, says="FILE")
        self.only()

    def test_a_note_changes_nothing_else(self):
        shutil.copy(self.path("a.stasis"), self.path("p.stasis"))
        self.snapshot("rebase", "b.stasis", "--onto", "p.stasis", "child.stasis")
        self.assertEqual(self.snapshot("note", "p.stasis", "before the upgrade", "--by", "ada").out, "")
        self.snapshot("note", "p.stasis", "schön")
        listed = self.snapshot("note", "p.stasis", "--list").stdout.decode()
        self.assertRegex(listed, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  ada: before the upgrade\n\S+  stasis \S+: schön\n$")
        self.assertEqual(self.digest("p.stasis"), self.digest("a.stasis"))
        self.assertEqual(self.shown("p.stasis")["uuid"], self.shown("a.stasis")["uuid"])
        self.snapshot("verify", "child.stasis")
        self.snapshot("verify", "p.stasis")
        self.snapshot("note", "child.stasis", "a child, whose parent is not looked for", "--parent", "absent")
        self.snapshot("squash", "child.stasis", "whole.stasis")
        self.assertIn("whose parent", self.snapshot("note", "whole.stasis", "--list").out)
        kept = self.path("p.stasis").stat()
        self.assertLessEqual(kept.st_blocks, self.path("a.stasis").stat().st_blocks + 16)  # holes stay holes

    def test_notes_are_refused_whole(self):
        before = self.path("a.stasis").read_bytes()
        for words, status, says in ((("a.stasis", "two\nlines"), USAGE, "control"), (("a.stasis", "x", "--by", "\x1b[2J"), USAGE, "control"), (("a.stasis",), USAGE, "no text"), (("a.stasis", "x", "--list"), USAGE, "--list"),
                                    (("a.stasis", "x" * 5000), USAGE, "4096"), (("absent", "x"), FAILED, "absent"), (("key", "x"), FAILED, "key")):
            self.no("note", *words, status=status, says=says)
        self.assertEqual(self.path("a.stasis").read_bytes(), before)

    def test_a_note_on_an_encrypted_snapshot(self):
        self.snapshot("convert", "b.stasis", "s.stasis", "--encrypt-key", "key")
        self.no("note", "s.stasis", "x", status=USAGE, says="--decrypt-key")
        self.snapshot("note", "s.stasis", "secret words", "--decrypt-key", "key")
        self.assertNotIn(b"secret words", self.path("s.stasis").read_bytes())
        self.assertIn("secret words", self.snapshot("note", "s.stasis", "--list", "--decrypt-key", "key").out)
        self.assertEqual(self.digest("s.stasis", "--decrypt-key", "key"), self.digest("b.stasis"))


class Verifies(SnapshotFiles):
    def verified(self, name, *words, status=0):
        return json.loads(self.snapshot("verify", name, "--json", *words, status=status).out)

    def damaged(self, source, *offsets, name="bad.stasis"):
        content = bytearray(self.path(source).read_bytes())
        for offset in offsets:
            content[offset] ^= 4
        self.path(name).write_bytes(content)
        return name

    def sections(self, name):
        return {section["name"]: section for section in self.shown(name)["sections"]}

    def test_whole(self):
        self.snapshot("convert", "b.stasis", "packed.stasis", "--encoding", "packed")
        for name in ("b.stasis", "packed.stasis"):
            found = self.verified(name)
            self.assertEqual((found["whole"], found["problems"], found["unchecked"]), (True, [], []))
            self.assertEqual(found["digest"], self.digest("b.stasis"))
            engines = {engine["engine"]: engine for engine in found["resume"]["engines"]}
            self.assertTrue(engines["soft"]["can"])
            self.assertIn("kvm", engines)
            self.assertIn(f"{name}: whole\n", self.snapshot("verify", name).out)

    def test_damage_in_every_section(self):
        self.snapshot("convert", "b.stasis", "packed.stasis", "--encoding", "packed")
        for source in ("b.stasis", "packed.stasis"):
            for name, section in self.sections(source).items():
                bad = self.damaged(source, section["offset"] + (16 << 20 if source == "b.stasis" and name == "memory/ram" else 0))
                problems = self.verified(bad, status=FAILED)["problems"]
                self.assertTrue(any(name in problem["object"] + problem["message"] for problem in problems), (name, problems))

    def test_all_of_it_is_told(self):
        sections = self.sections("b.stasis")
        places = ("machine", "host", "cpu/0", "device/isa/rtc")
        ram = sections["memory/ram"]["offset"]
        bad = self.damaged("b.stasis", *(sections[name]["offset"] for name in places), ram + (16 << 20), ram + (20 << 20))
        told = "\n".join(problem["message"] for problem in self.verified(bad, status=FAILED)["problems"])
        for name in places:
            self.assertIn(f"section '{name}' does not match its digest", told)
        self.assertIn("0x1000000 to 0x103ffff, 0x1400000 to 0x143ffff", told)
        said = self.snapshot("verify", bad, status=FAILED)
        self.assertRegex(said.out, r"^bad.stasis: \d+ problems\n")
        self.assertRegex(said.err, r"^stasis: bad.stasis: has \d+ problems; ")

    def test_cut_and_grown_files(self):
        content = self.path("b.stasis").read_bytes()
        for size in (0, 5, 64, 100, 3000, len(content) // 2, len(content) - 1):
            self.path("cut.stasis").write_bytes(content[:size])
            self.assertTrue(self.verified("cut.stasis", status=FAILED)["problems"], size)
        head = self.sections("b.stasis")["memory/ram"]["offset"]
        self.path("cut.stasis").write_bytes(content[:head])
        told = [problem["message"] for problem in self.verified("cut.stasis", status=FAILED)["problems"]]
        self.assertIn("sections 'memory/ram', 'memory/ram/index' are missing", told)
        self.path("cut.stasis").write_bytes(content + b"more")
        self.assertIn("follow the end", self.verified("cut.stasis", status=FAILED)["problems"][0]["message"])

    def harmless(self, *commands):
        """Each refuses, or was not concerned: bytes that belong to no page are not carried along."""
        for words in commands:
            done = subprocess.run([STASIS, "snapshot", *words], cwd=self.folder, capture_output=True, timeout=60, check=False)
            self.assertIn(done.returncode, (0, FAILED), done.stderr)
            if done.returncode == 0:
                self.assertTrue(self.verified("x.stasis")["whole"])
                self.assertEqual(self.digest("x.stasis") == self.digest("b.stasis"), words[0] == "convert")
                self.path("x.stasis").unlink()
            self.assertFalse(self.path("x.stasis").exists())

    def test_hostile_files(self):
        content, chance = self.path("b.stasis").read_bytes(), random.Random(1)
        head = self.sections("b.stasis")["memory/ram"]["offset"]
        for _ in range(30):
            bad = bytearray(content)
            for _ in range(chance.choice((1, 3, 40))):
                at = chance.choice((chance.randrange(head), chance.randrange(len(bad)), len(bad) - 1 - chance.randrange(3000)))
                bad[at:at + chance.choice((1, 8))] = chance.randbytes(1) * chance.choice((1, 8))
            self.path("bad.stasis").write_bytes(bad[:chance.choice((len(bad), len(bad), chance.randrange(len(bad))))])
            done = subprocess.run([STASIS, "snapshot", "verify", "bad.stasis"], cwd=self.folder, capture_output=True, timeout=60, check=False)
            self.assertIn(done.returncode, (0, FAILED), done.stderr)
            if done.returncode == FAILED:
                self.harmless(("convert", "bad.stasis", "x.stasis"), ("set", "bad.stasis", "device/isa/uart0/lcr=3", "x.stasis"))
                subprocess.run([STASIS, "snapshot", "note", "bad.stasis", "x"], cwd=self.folder, capture_output=True, timeout=60, check=False)
                self.snapshot("verify", "bad.stasis", status=FAILED)  # a note makes nothing whole
        self.path("bad.stasis").write_bytes(chance.randbytes(100000))
        self.assertIn("problem", self.snapshot("verify", "bad.stasis", status=FAILED).out)

    def test_encrypted(self):
        self.snapshot("convert", "b.stasis", "s.stasis", "--encrypt-key", "key")
        found = self.verified("s.stasis")
        self.assertEqual((found["whole"], found["digest"], len(found["unchecked"]), found["resume"]), (True, None, 1, None))
        self.assertEqual(self.verified("s.stasis", "--decrypt-key", "key")["digest"], self.digest("b.stasis"))
        self.no("verify", "s.stasis", "--decrypt-key", "other", status=USAGE, says="another key")
        size = self.path("s.stasis").stat().st_size
        for at in (size // 2, 1000, size - 500):
            self.assertTrue(self.verified(self.damaged("s.stasis", at), status=FAILED)["problems"], at)

    def test_a_chain(self):
        self.snapshot("rebase", "b.stasis", "--onto", "a.stasis", "child.stasis")
        self.assertEqual(self.verified("child.stasis")["digest"], self.digest("b.stasis"))
        os.unlink(self.path("a.stasis"))
        found = self.verified("child.stasis", status=FAILED)
        self.assertIn("a.stasis", found["problems"][0]["message"])
        self.assertEqual((found["digest"], len(found["unchecked"])), (None, 1))
        self.assertTrue(self.verified("child.stasis", "--parent", str(self.made))["whole"])

    def test_nothing_to_look_at(self):
        self.no("verify", "absent", status=NOT_VERIFIED, says="absent")
        self.no("verify", status=USAGE, says="FILE")
        self.no("verify", ".", status=USAGE, says="director")
        error = json.loads(self.snapshot("verify", "absent", "--json", status=NOT_VERIFIED).err)["error"]
        self.assertEqual(error["code"], "not_found")


if __name__ == "__main__":
    unittest.main()
