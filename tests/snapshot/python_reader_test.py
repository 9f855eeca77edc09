#!/usr/bin/env python3
"""tools/read_snapshot.py, which was written from docs/format.md alone: its parts, and that it and stasis agree on real files."""
import contextlib
import io
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from snapshot_reader import cbor, command, xchacha, xxh3, zstd_frames  # noqa: E402
from snapshot_reader.problem import Problem  # noqa: E402
from snapshot_reader.snapshot import Snapshot  # noqa: E402

STASIS, TINY = sys.argv.pop(1), sys.argv.pop(1)
SUSPENDED = 4
PATTERN = bytes((i * i >> 3) * 31 + i & 255 for i in range(100000))


class Pieces(unittest.TestCase):
    def test_digests_are_those_of_the_library(self):
        self.assertEqual(xxh3.digest(b"").hex(), "99aa06d3014798d86001c324468d497f")
        self.assertEqual(xxh3.digest(PATTERN[:4096]).hex(), "47e4eb9d3d93a6ba1d06ff24db6ee156")
        self.assertEqual(xxh3.digest(PATTERN).hex(), "0f0acdde1f8f635822c277597eca86a1")
        every_length = b"".join(xxh3.digest(PATTERN[:size]) for size in range(1101))
        self.assertEqual(xxh3.digest(every_length).hex(), "2f8c31ce2e79f06cf5fd5197dc15940f")
        self.assertEqual(xxh3.xxh64(PATTERN), 0x5370c6807b561a34)
        self.assertEqual(xxh3.xxh64(PATTERN[:13]), 0xfcf79a7f3ced29e4)

    def test_cbor_has_one_spelling(self):
        value = {"a": [0, 23, 24, 255, 256, 65536, 2**64 - 1, -1, -25, -2**64], "b": b"\0" * 300,
                 "long key": {"": None, "x": True, "y": False}, "\u00e9": "\u00fc"}
        self.assertEqual(cbor.decode(cbor.encode(value), "test"), value)
        for wrong, says in {"1817": "shortest", "1900ff": "shortest", "fb0000000000000000": "floating", "f7": "simple value",
                            "9f00ff": "indefinite", "c000": "tag", "a2616201616102": "out of order", "a2616101616102": "twice",
                            "a10102": "only texts", "62c328": "UTF-8", "0000": "follow the item", "18": "ends after",
                            "81" * 40 + "00": "inside of more than 32", "9bffffffffffffffff": "ends after"}.items():
            with self.subTest(wrong), self.assertRaisesRegex(Problem, says):
                cbor.decode(bytes.fromhex(wrong), "test")

    def test_xchacha_vectors_of_the_draft(self):
        sub = xchacha.hchacha20(bytes(range(32)), bytes.fromhex("000000090000004a0000000031415927"))
        self.assertEqual(sub.hex(), "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc")
        key, nonce, more = bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58)), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
        text = (b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
                b"sunscreen would be it.")
        sealed = xchacha.seal(key, nonce, text, more)
        self.assertEqual((sealed[:16].hex(), sealed[-16:].hex()),
                         ("bd6d179d3e83d43b9576579493c0e939", "c0875924c1c7987947deafd8780acf49"))
        self.assertEqual(xchacha.unseal(key, nonce, sealed, more), text)
        for at in range(len(sealed)):
            self.assertIsNone(xchacha.unseal(key, nonce, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1:], more))

    def test_poly1305_vector_of_rfc_8439(self):
        key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
        self.assertEqual(xchacha.poly1305(key, b"Cryptographic Forum Research Group").hex(), "a8061dc1305136c6c22b8baf0c0127a9")


@unittest.skipUnless(shutil.which("zstd"), "the command zstd is missing")
class Zstd(unittest.TestCase):
    @staticmethod
    def frame(data, *options):
        return subprocess.run(["zstd", "-q", "-c", *options], input=data, capture_output=True, check=True).stdout

    def test_what_the_command_packs(self):
        dice = random.Random(1)
        samples = [b"", b"a", bytes(300000), PATTERN, pathlib.Path(TINY).read_bytes(), pathlib.Path(__file__).read_bytes() * 9,
                   dice.randbytes(5000), bytes(dice.choice(b"abcdefgh") for _ in range(100000)),
                   bytes(int(dice.gauss(128, 20)) & 255 for _ in range(200000)),
                   b"".join(bytes([dice.randrange(256)]) * dice.randrange(1, 3000) for _ in range(100)),
                   pathlib.Path(STASIS).read_bytes()[100000:300000]]
        for index, data in enumerate(samples):
            for options in (["-1"], ["-3", "--no-check"], ["-19"], ["--fast=5"]):
                with self.subTest(sample=index, options=options):
                    self.assertEqual(zstd_frames.decompress(self.frame(data, *options), len(data)), data)

    def test_damage_is_refused_in_words(self):
        dice = random.Random(2)
        data = pathlib.Path(__file__).read_bytes()
        good = self.frame(data, "--no-check")
        for _ in range(1000):
            bad = bytearray(good)
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
            with contextlib.suppress(zstd_frames.ZstdError):
                zstd_frames.decompress(bytes(bad[:dice.randrange(len(bad)) if dice.random() < 0.3 else None]), len(data))
        checked = self.frame(data, "--check")
        with self.assertRaises(zstd_frames.ZstdError):
            zstd_frames.decompress(checked[:-1] + bytes([checked[-1] ^ 1]), len(data))
        with self.assertRaises(zstd_frames.ZstdError):
            zstd_frames.decompress(checked, len(data) - 1)


class Files(unittest.TestCase):
    """One guest is saved once; the other encodings are made of that file."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="stasis-reader."))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.env = dict(os.environ, STASIS_RUNTIME_DIR=str(cls.folder / "run"))
        cls.key = cls.folder / "key"
        cls.key.write_text("00112233445566778899aabbccddeeff" * 2 + "\n")
        cls.files = {}
        cls.make("mapped", 2000000, "")
        cls.make("written", 20000000, "W")
        cls.convert("packed", "--encoding", "packed", "--level", "3")
        cls.convert("stored", "--encoding", "packed", "--level", "0")
        cls.convert("encrypted", "--encoding", "packed", "--encrypt-key", cls.key)
        cls.files["incremental"] = cls.folder / "incremental.stasis"
        cls.stasis("snapshot", "rebase", cls.files["written"], "--onto", cls.files["mapped"], cls.files["incremental"])

    @classmethod
    def stasis(cls, *words, stdin="", status=0):
        done = subprocess.run([STASIS, *map(str, words)], input=stdin.encode(), capture_output=True, env=cls.env, timeout=300, check=False)
        if done.returncode != status:
            raise AssertionError(f"stasis {words}: status {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode()

    @classmethod
    def make(cls, name, count, keys):
        path = cls.folder / f"{name}.stasis"
        cls.stasis("run", "--kernel", TINY, "--memory", "32M", "--engine", "soft", "--rtc", "0", "--stop-at", count,
                   "--suspend-to", path, stdin=keys, status=SUSPENDED)
        cls.files[name] = path

    @classmethod
    def convert(cls, name, *options, of="mapped"):
        path = cls.folder / f"{name}.stasis"
        done = subprocess.run([STASIS, "snapshot", "convert", cls.files[of], path, *map(str, options)], capture_output=True,
                              env=cls.env, timeout=300, check=False)
        if done.returncode == 2:
            print(f"skipped: {name}: 'snapshot convert' does not know {options[0]}: {done.stderr.decode().splitlines()[:1]}", file=sys.stderr)
        elif done.returncode:
            raise AssertionError(f"snapshot convert {options}: {done.stderr.decode()}")
        else:
            cls.files[name] = path

    def reader(self, *words, status=0):
        """Runs the tool within this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            got = command.main([*map(str, words), "--key", str(self.key)])
        self.assertEqual(got, status, f"{words}: {out.getvalue()} {err.getvalue()}")
        self.said = err.getvalue()
        return out.getvalue()

    def digest(self, name):
        key = ["--decrypt-key", self.key] if name == "encrypted" else []
        return self.stasis("snapshot", "digest", self.files[name], *key).split()[0]

    def test_verify_agrees_with_digest(self):
        for name, path in self.files.items():
            with self.subTest(name):
                self.assertEqual(self.reader("verify", path).split()[-1], self.digest(name))

    def test_list_agrees_with_show(self):
        for name in ("mapped", "written"):
            theirs = json.loads(self.stasis("snapshot", "show", self.files[name], "--json"))
            ours = json.loads(self.reader("list", self.files[name], "--json"))
            for member in ("format", "uuid", "root"):
                self.assertEqual(ours[member], theirs[member])
            self.assertEqual(ours["bytes"], theirs["file_bytes"])
            self.assertEqual(ours["ram"]["present"], theirs["ram"]["present"])
            self.assertEqual([(p["path"], p["kind"], p["version"]) for p in ours["parts"]],
                             [(p["path"], p["kind"], p["version"]) for p in theirs["parts"]])
            self.assertEqual([(s["name"], s["body"], s["bytes"]) for s in ours["sections"]],
                             [(s["name"], s["offset"], s["bytes"]) for s in theirs["sections"]])
            self.assertIn(ours["digest"], self.reader("list", self.files[name]))

    def test_state_agrees_with_show(self):
        for record in json.loads(self.reader("state", self.files["mapped"], "--json")):
            if record["path"] == "machine":
                continue
            theirs = json.loads(self.stasis("snapshot", "show", self.files["mapped"], record["path"], "--json"))
            self.assertEqual(record["state"], theirs["state"], record["path"])
        one = json.loads(self.reader("state", self.files["mapped"], "cpu/0/rip", "--json"))
        self.assertEqual(one["value"], json.loads(self.stasis("snapshot", "show", self.files["mapped"], "cpu/0/rip", "--json"))["value"])
        self.assertIn("cpu/0", self.reader("state", self.files["mapped"]))
        self.reader("state", self.files["mapped"], "cpu/0/none", status=2)

    def test_ram_is_the_same_in_each_encoding(self):
        mapped = {}
        for name in ("mapped", "written"):
            section = Snapshot(str(self.files[name])).region
            with open(self.files[name], "rb") as file:
                file.seek(section.body)
                mapped[name] = file.read(section.length)
        out = self.folder / "ram"
        for name, path in self.files.items():
            with self.subTest(name):
                self.reader("ram", path, out)
                self.assertEqual(out.read_bytes(), mapped["written" if name in ("written", "incremental") else "mapped"])
                self.assertLess(out.stat().st_blocks * 512, len(mapped["mapped"]))
        self.reader("ram", self.files["mapped"], self.files["mapped"], status=2)

    def test_a_flipped_byte_is_found_wherever_it_is(self):
        for name in ("mapped", "packed", "encrypted"):
            if name in self.files:
                with self.subTest(name):
                    self.flips(name)

    def flips(self, name):
        path = self.folder / "flipped.stasis"
        subprocess.run(["cp", "--sparse=always", self.files[name], path], check=True)
        snapshot = Snapshot(str(path), [bytes.fromhex(self.key.read_text())])
        places = {"file header": [3, 20, 33, 50], "commit record": [snapshot.frame.size - 64 + at for at in (2, 9, 33, 60)]}
        for section in snapshot.frame.sections:
            places[section.name] = [section.offset + 4, section.offset + 64]
            if not section.is_region:
                places[section.name] += [section.body, section.body + section.length // 2, section.body + section.length - 1]
            padding = -(section.body + section.length) % 8
            if padding:
                places[section.name].append(section.body + section.length + padding - 1)
            places[section.name] += [place for block in section.blocks for place in (block.offset + 5, block.offset + 32)]
        if not snapshot.index.packed:
            present = next(chunk for chunk in snapshot.index.chunks() if chunk.present)
            page = (present.present & -present.present).bit_length() - 1
            places["memory/ram"] += [snapshot.region.body + (present.number * 64 + page) * 4096 + 7,
                                     snapshot.region.body + (snapshot.index.pages - 1) * 4096]
        with open(path, "r+b") as file:
            for section, offsets in places.items():
                for offset in offsets:
                    file.seek(offset)
                    byte = file.read(1)
                    file.seek(offset)
                    file.write(bytes([byte[0] ^ 0x10]))
                    file.flush()
                    with self.subTest(section=section, offset=offset):
                        self.reader("verify", path, status=1)
                        self.assertIn(str(path), self.said)
                    file.seek(offset)
                    file.write(byte)
                    file.flush()
        self.reader("verify", path)

    def test_cut_and_lengthened_files(self):
        data = self.files["mapped"].read_bytes()
        path = self.folder / "cut.stasis"
        for size in (11, 63, 64, 100, 5000, len(data) - 64, len(data) - 1):
            path.write_bytes(data[:size])
            self.reader("verify", path, status=1)
            self.assertIn("incomplete", self.said, size)
        path.write_bytes(data + b"x")
        self.reader("verify", path, status=1)
        path.write_bytes(b"\x09" + data[1:])
        self.reader("verify", path, status=1)
        self.assertIn("not binary", self.said)

    def test_usage(self):
        for words in ([], ["list"], ["what", "x"]):
            with self.assertRaises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()):
                command.main(words)
            self.assertEqual(ended.exception.code, 2)
        self.reader("list", self.folder / "none.stasis", status=1)

    def test_without_the_key(self):
        if "encrypted" not in self.files:
            self.skipTest("the command line makes no encrypted files yet")
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.assertEqual(command.main(["verify", str(self.files["encrypted"])]), 0)
            self.assertEqual(command.main(["state", str(self.files["encrypted"])]), 1)
        self.assertIn("not checked", out.getvalue())
        self.assertIn("--key", err.getvalue())


if __name__ == "__main__":
    unittest.main()
