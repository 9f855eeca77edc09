#!/usr/bin/env python3
"""The rules of docs/format.md, one by one: golden files with one thing changed and every digest right again, read by tools/read_snapshot.py.

What the reader in Python refuses, `stasis snapshot verify` must refuse too, and what it accepts, `stasis snapshot digest` must read.
"""
import contextlib
import io
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from snapshot_editor import Editor, Section  # noqa: E402
from snapshot_reader import command, zstd_frames  # noqa: E402
from snapshot_reader.frame import INDEX, RAM  # noqa: E402

STASIS = sys.argv.pop(1)
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "files"
MAPPED, PACKED, ENCRYPTED, OLD = "1.0_mapped", "1.0_packed", "1.0_encrypted", "0.1_mapped"
MAPPED_CHILD, PACKED_CHILD = "1.0_mapped_child", "1.0_packed_child"
SKIPPABLE_FRAME = struct.pack("<II4s", 0x184D2A50, 4, b"skip")
TEXT, OTHER = "x", b"x" * 16
RULES = []


class Rule:
    """`section`: named when the file is refused; None: accepted."""

    def __init__(self, name, base, section, change):
        self.name, self.base, self.section, self.change = name, base, section, change


def refused(name, base, section, change):
    RULES.append(Rule(name, base, section, change))


def accepted(name, base, change):
    RULES.append(Rule(name, base, None, change))


def member(section, name, value):
    return lambda e: e[section].__setitem__(name, value)


def without(section, name):
    return lambda e: e[section].pop(name)


def header(name, **values):
    return lambda e: vars(e.section(name)).update(values)


def added(name, body, flags=0, before=None, **more):
    return lambda e: e.insert(before, Section(name, body, flags, **more))


def moved(name, before=None):
    return lambda e: e.move(name, before)


def removed(name):
    return lambda e: e.remove(name)


def listed(**values):
    """Changes the entry of the part `clock`, and leaves its digest as it is then."""
    def change(e):
        e.fix_states = False
        for name, value in values.items():
            if value is None:
                del e.part("clock")[name]
            else:
                e.part("clock")[name] = value
    return change


def now_ns(**values):
    return lambda e: e.field("clock", "now_ns").update(values)


def field(kind, value, **more):
    """One more field of the part `clock`."""
    def change(e):
        e["clock"]["schema"]["fields"].append({"name": "more", "type": kind, **more})
        e["clock"]["state"]["more"] = value
    return change


def record(wanted, change):
    """Changes the first record of the index whose (first plane, second plane) is `wanted`."""
    def both(e):
        count = len(e[INDEX]["chunks"]) // e.record_bytes
        number = next(i for i in range(count) if wanted(*e.chunk(i)[:2]))
        values = e.chunk(number)
        change(values)
        e.set_chunk(number, values)
        e.fix_blocks = False
    return both


def put(at, value):
    return lambda values: values.__setitem__(at, value)


def block(change):
    """Replaces what is stored of the first chunk that is a zstd frame; `change` gets its pages and the frame."""
    def both(e):
        at = next(i for i, (_, data) in enumerate(e[RAM]) if data[:4] == zstd_frames.MAGIC)
        number, data = e[RAM][at]
        e[RAM][at] = (number, change(zstd_frames.decompress(data, 262144), data))
    return both


def raw_frame(data):
    """A zstd frame whose blocks are not compressed."""
    pieces = [data[at:at + 65536] for at in range(0, len(data), 65536)] or [b""]
    return zstd_frames.MAGIC + b"\xa0" + struct.pack("<I", len(data)) + b"".join(
        (len(piece) << 3 | (index + 1 == len(pieces))).to_bytes(3, "little") + piece for index, piece in enumerate(pieces))


def nested(levels, inner):
    for _ in range(levels):
        inner = [inner]
    return inner


def some(low, high):
    return bool(low & ~high)


def none(low, high):
    return not low | high


def mapped_ram(e):
    other = Editor(Files.files[MAPPED])
    e.sections[e.position(RAM)] = other.section(RAM)
    e.section(INDEX).body = other[INDEX]


def in_parent_here(values):
    values[1] |= values[0] & -values[0]


def same_as_here(values):
    values[1] = values[0] & -values[0]
    values[0] &= ~values[1]


# Order and presence.
for needed in ("machine", "host", "clock", INDEX):
    refused(f"{needed} is missing", MAPPED, needed, removed(needed))
refused("cpu/contract is no part", MAPPED, "parts", lambda e: (e.remove("cpu/contract"), e["parts"].remove(e.part("cpu/contract"))))
refused("a section before producer", MAPPED, "producer", lambda e: e.sections.insert(0, Section("x", {}, 0)))
refused("a part before parts", MAPPED, "clock", moved("clock", "parts"))
refused("a part after the RAM", MAPPED, RAM, moved("clock", INDEX))
refused("parent after the index", MAPPED_CHILD, INDEX, moved("parent"))
refused("a seal in the clear", MAPPED, "seal", added("seal", bytes(32), 1))
refused("encryption in the clear", MAPPED, "encryption", added("encryption", {"cipher": "xchacha20-poly1305", "salt": OTHER, "check": OTHER}, 1, "machine"))
refused("no seal", ENCRYPTED, "seal", removed("seal"))
refused("a section after the seal", ENCRYPTED, "seal", added("x", {}))
refused("encryption after an encrypted body", ENCRYPTED, "encryption", moved("encryption", "parts"))
refused("an encrypted file with mapped RAM", ENCRYPTED, INDEX, mapped_ram)
refused("critical and unknown, at the end", MAPPED, TEXT, added(TEXT, {}, 1))
accepted("machine after the RAM", MAPPED, moved("machine"))
accepted("host after the index", MAPPED, moved("host"))
accepted("parts in another order", MAPPED, moved("clock", RAM))
accepted("parent after the RAM", MAPPED_CHILD, moved("parent", INDEX))
accepted("skippable, no CBOR, version 0", MAPPED, added(TEXT, b"\xff", 0, version=0))
accepted("skippable, in an encrypted file", ENCRYPTED, added(TEXT, {}, 0, "seal"))
accepted("skippable, before the index", MAPPED, added(TEXT, {}, 0, INDEX))
refused("skippable, before the index of packed RAM", PACKED, TEXT, added(TEXT, {}, 0, INDEX))
accepted("a region that is stepped over", MAPPED, added("disk/a", bytes(4096), 2, RAM))
accepted("blocks that are stepped over", PACKED, added("disk/a", [(0, b"abc")], 6))
accepted("a region before encryption", ENCRYPTED, added("disk/a", bytes(4096), 2, "encryption"))

# Headers.
refused("host is not critical", MAPPED, "host", header("host", flags=0))
refused("host is a region", MAPPED, "host", header("host", flags=3))
refused("version 2 of host", MAPPED, "host", header("host", version=2))
refused("an unknown flag", MAPPED, TEXT, added(TEXT, {}, 8))
refused("mapped RAM at no multiple of 4096", MAPPED, RAM, header(RAM, alignment=8))
refused("an alignment of 4", MAPPED, "host", header("host", alignment=4))
refused("a region with a digest", MAPPED, RAM, header(RAM, digest=OTHER))
accepted("mapped RAM at 2 MiB", MAPPED, header(RAM, alignment=2 << 20))
accepted("packed RAM at 4096", PACKED, header(RAM, alignment=4096))
accepted("host at 4096", MAPPED, header("host", alignment=4096))
accepted("a later minor version", MAPPED, lambda e: setattr(e, "minor", 7))
accepted("packed, with its length", PACKED, lambda e: setattr(e, "has_length", True))
accepted("mapped, without its length", MAPPED, lambda e: setattr(e, "has_length", False))
for name in ("length", "index", "count"):
    refused(f"commit record: another {name}", MAPPED, "commit record", lambda e, name=name: e.commit.update({name: 4096}))
refused("commit record: another root", MAPPED, "commit record", lambda e: e.commit.update(root=OTHER))

# CBOR.
accepted("an item inside of 32", MAPPED, lambda e: e["producer"].update(more=nested(31, 0)))
accepted("nothing inside of 33", MAPPED, lambda e: e["producer"].update(more=nested(31, [])))
refused("an item inside of 33", MAPPED, "producer", lambda e: e["producer"].update(more=nested(32, 0)))

# Bodies.
for place, name in (("producer", "format"), ("producer", "created_at"), ("parent", "content"), ("parent", "uuid"), ("parent", "file"), (INDEX, "chunks")):
    refused(f"{place} without {name}", MAPPED_CHILD, place, without(place, name))
for place in ("producer", "parent", INDEX):
    accepted(f"{place} with a further member", MAPPED_CHILD, member(place, "more", 1))
accepted("encryption with a further member", ENCRYPTED, member("encryption", "more", 1))
accepted("parts with a further member", MAPPED, listed(more=1))
accepted("host with a further member", MAPPED, lambda e: e["host"].append({"name": "a", "kind": "b", "hint": "", "more": 1}))
accepted("a time of another form", MAPPED, member("producer", "created_at", "yesterday"))
accepted("another format for people", MAPPED, member("producer", "format", "7.0"))
accepted("a note", MAPPED, added("notes", [{"at": "", "by": "", "text": "", "more": 1}]))
refused("control characters in a note", MAPPED, "notes", added("notes", [{"at": "", "by": "", "text": "\x1b[31m"}]))
refused("control characters in a further member", MAPPED, "producer", member("producer", "more", ["\u009b"]))
refused("control characters in a key", MAPPED, "producer", member("producer", "mo\nre", 1))
refused("machine of another kind", MAPPED, "machine", lambda e: e["machine"]["schema"].update(kind=TEXT))
refused("machine with other RAM", MAPPED, "machine", lambda e: e["machine"]["state"].update(memory_bytes=4 << 20))
refused("parts: no digest of the state", MAPPED, "parts", listed(state=None))
refused("parts: a text for the digest", MAPPED, "parts", listed(state=TEXT))
refused("parts: a short digest", MAPPED, "parts", listed(state=OTHER[1:]))
refused("parts: another digest of the state", MAPPED, "clock", lambda e: (listed(state=OTHER)(e), setattr(e, "fix_content", False)))
refused("parts: inherited is false", MAPPED, "parts", listed(inherited=False))
refused("parts: inherited without parent", MAPPED, "parts", lambda e: (listed(inherited=True)(e), e.remove("clock")))
refused("parts: inherited, and here", MAPPED_CHILD, "parts", listed(inherited=True))
refused("parts: not what the parent has", MAPPED_CHILD, "parts", lambda e: (listed(inherited=True, state=OTHER)(e), e.remove("clock")))
refused("parts: another kind", MAPPED, "clock", listed(kind=TEXT))
refused("parts: another version", MAPPED, "clock", listed(version=2))
refused("parts: version 0", MAPPED, "parts", listed(version=0))
refused("parts: out of order", MAPPED, "parts", lambda e: e["parts"].reverse())
accepted("parent: no file", MAPPED_CHILD, member("parent", "file", ""))
accepted("parent: another UUID", MAPPED_CHILD, member("parent", "uuid", OTHER))
for name in ("..", "a/b", "/a"):
    refused(f"parent: file is {name}", MAPPED_CHILD, "parent", member("parent", "file", name))

# Schemas and states.
refused("a part with a further member", MAPPED, "clock", member("clock", "more", 1))
accepted("a schema with a further member", MAPPED, lambda e: e["clock"]["schema"].update(more=1))
refused("a schema without kind", MAPPED, "clock", lambda e: e["clock"]["schema"].pop("kind"))
refused("a schema without version", MAPPED, "clock", lambda e: e["clock"]["schema"].pop("version"))
refused("a schema reshaped later", MAPPED, "clock", lambda e: e["clock"]["schema"].update(reshaped=2))
refused("a field twice", MAPPED, "clock", lambda e: e["clock"]["schema"]["fields"].append(e.field("clock", "now_ns")))
refused("a field that is not in the state", MAPPED, "clock", lambda e: e["clock"]["state"].pop("now_ns"))
refused("a skippable field that is not in the state", MAPPED, "clock", lambda e: (now_ns(skippable=True)(e), e["clock"]["state"].pop("now_ns")))
refused("a state without field", MAPPED, "clock", lambda e: e["clock"]["state"].update(more=1))
refused("a state that is no map", MAPPED, "clock", member("clock", "state", 5))
accepted("a field with a further member", MAPPED, now_ns(more=1))
accepted("a field that was wider", MAPPED, now_ns(widened=[{"most": 5, "until": 1}]))
accepted("names that are fewer than values", MAPPED, now_ns(names=["nothing"]))
refused("widened without until", MAPPED, "clock", now_ns(widened=[{"most": 5}]))
refused("widened by a negative number", MAPPED, "clock", now_ns(widened=[{"least": -5, "until": 1}]))
refused("renamed twice until one version", MAPPED, "clock", now_ns(renamed_from=[{"name": "a", "until": 1}, {"name": "b", "until": 1}]))
refused("renamed from nothing", MAPPED, "clock", now_ns(renamed_from=[{"until": 1}]))
refused("renamed after the version", MAPPED, "clock", now_ns(renamed_from=[{"name": "a", "until": 2}]))
refused("since after the version", MAPPED, "clock", now_ns(since=2))
refused("no type", MAPPED, "clock", now_ns(type="u7"))
refused("a default of another type", MAPPED, "clock", now_ns(default=TEXT))
refused("a negative least", MAPPED, "clock", now_ns(least=-1))
refused("a value above most", MAPPED, "clock", now_ns(most=1))
refused("a value outside of mask", MAPPED, "clock", now_ns(mask=0))
refused("control characters in a default", MAPPED, "clock", field("text", "", default="\n"))
for kind, value, more in (("i8", -128, {}), ("i8", 127, {"most": 5, "mask": 1}), ("i64", -2**63, {}), ("u64", 2**64 - 1, {}), ("u8<4>", [1, 2], {}),
                          ("u8[2]", b"\xff\xff", {"most": 5, "mask": 1}), ("u8[2][3]", [b"ab"] * 3, {}), ("u8<2>[1]", [[1, 2]], {}), ("u8[2]<>", [], {}),
                          ("bool[2]", [True, False], {}), ("text<2>", ["a", ""], {"most": 1}), ("u8<>", b"ab", {"most": 2}), ("record", {}, {}),
                          ("record[2]", [{"a": 1}] * 2, {"members": [{"name": "a", "type": "u8"}]}), ("u16<>", [0] * 65536, {}), ("text", "a\nb", {})):
    accepted(f"{kind} {more} {str(value)[:20]}", MAPPED, field(kind, value, **more))
for kind, value, more in (("i8", -129, {}), ("i8", 128, {}), ("i64", -2**63 - 1, {}), ("u8", 256, {}), ("u8", -1, {}), ("u8[2]", [1, 2], {}), ("u8[2][3]", b"abcdef", {}),
                          ("u8[2][3]", [b"abc"] * 2, {}), ("u8<>", [1], {}), ("u8<>", b"abc", {"most": 2}), ("u8<2>", [1, 2, 3], {}), ("u8<2>", [9], {"most": 8}),
                          ("u8<2>", b"ab", {}), ("text", "abc", {"most": 2}), ("text<>", ["abc"], {"most": 2}), ("u16<>", [0] * 65537, {}), ("bool", 1, {}), ("u8", True, {}),
                          ("u8[]", b"", {}), ("u08", 1, {}), ("record<>", [{}, {}], {"most": 1}), ("record", {}, {"members": [{"name": "a", "type": "u8"}]})):
    refused(f"{kind} {more} not {str(value)[:20]}", MAPPED, "clock", field(kind, value, **more))

# The index.
refused("index: no content digest", MAPPED, INDEX, without(INDEX, "content"))
refused("index: another content digest", MAPPED, INDEX, lambda e: (member(INDEX, "content", OTHER)(e), setattr(e, "fix_content", False)))
refused("index: same_as for nothing", MAPPED, INDEX, member(INDEX, "same_as", b""))
refused("index: no same_as", PACKED, INDEX, without(INDEX, "same_as"))
refused("index: same_as too long", PACKED, INDEX, lambda e: e[INDEX].update(same_as=e[INDEX]["same_as"] + bytes(8)))
refused("index: same_as of itself", PACKED, INDEX, lambda e: e[INDEX].update(same_as=b"\xff\x01" + e[INDEX]["same_as"][2:]))
refused("index: chunks too long", MAPPED, INDEX, lambda e: e[INDEX].update(chunks=e[INDEX]["chunks"] + b"\0"))
refused("index: other pages", MAPPED, INDEX, member(INDEX, "pages", 511))
refused("index: the other encoding", MAPPED, INDEX, member(INDEX, "encoding", "packed"))
refused("index: in-parent without parent", MAPPED, INDEX, record(some, in_parent_here))
refused("index: same-as in a mapped file", MAPPED, INDEX, record(some, same_as_here))
refused("index: a mask that the planes have not", MAPPED_CHILD, INDEX, record(some, lambda v: put(3, v[3] ^ 1)(v)))
refused("index: a digest of zeros", MAPPED, INDEX, record(none, put(2, OTHER)))
refused("index: no digest", MAPPED, INDEX, record(some, put(2, bytes(16))))
refused("index: no digest of present pages", MAPPED_CHILD, INDEX, record(some, put(4, bytes(16))))
refused("index: a digest of no present pages", MAPPED_CHILD, INDEX, record(lambda low, high: low == high, put(4, OTHER)))
refused("index: another digest of present pages", MAPPED_CHILD, RAM, record(lambda low, high: low & ~high and low & high, put(4, OTHER)))
refused("index: another digest of present pages, all", MAPPED_CHILD, RAM, record(lambda low, high: low and not high, put(4, OTHER)))
refused("index: another digest of a chunk", MAPPED, RAM, record(some, put(2, OTHER)))
refused("index: pages without block", PACKED, INDEX, record(some, put(3, 0)))
refused("index: a block without bytes", PACKED, INDEX, record(some, put(4, 0)))
refused("index: a block without pages", PACKED, INDEX, record(none, lambda v: (put(3, 4096)(v), put(4, 9)(v))))
refused("index: reserved bytes", PACKED, INDEX, record(none, put(5, 1)))
refused("index: another place", PACKED, RAM, record(some, lambda v: put(3, v[3] + 8)(v)))
refused("index: other bytes", PACKED, RAM, record(some, lambda v: put(4, v[4] - 1)(v)))

# Blocks.
accepted("pages as they are", PACKED, block(lambda pages, frame: pages))
accepted("pages as they are, encrypted", ENCRYPTED, block(lambda pages, frame: pages))
for base in (PACKED, ENCRYPTED):
    refused(f"a skippable frame first, {base}", base, RAM, block(lambda pages, frame: SKIPPABLE_FRAME + frame))
refused("a skippable frame last", PACKED, RAM, block(lambda pages, frame: frame + SKIPPABLE_FRAME))
refused("two frames", PACKED, RAM, block(lambda pages, frame: frame + raw_frame(b"")))
refused("a frame that is longer than its pages", PACKED, RAM, block(lambda pages, frame: raw_frame(pages)))
refused("a byte behind the frame", PACKED, RAM, block(lambda pages, frame: frame + b"\0"))
refused("a frame of less", PACKED, RAM, block(lambda pages, frame: raw_frame(pages[:4096])))
refused("blocks out of order", PACKED, RAM, lambda e: e[RAM].reverse())
refused("a block that no page is in", PACKED, RAM, lambda e: (e[RAM].append((7, b"abc")), setattr(e, "fix_blocks", False)))

# Format 0.1.
refused("0.1 with notes", OLD, "notes", added("notes", []))
accepted("0.1 with a further member", OLD, member(INDEX, "content", OTHER))


class Files(unittest.TestCase):
    files = {}

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="stasis-rules."))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.env = dict(os.environ, STASIS_RUNTIME_DIR=str(cls.folder / "run"))
        cls.key = GOLDEN / "key"
        for path in GOLDEN.glob("format_*"):
            name = re.fullmatch(r"format_(.*)\.stasis(\.zst)?", path.name)[1]
            data = path.read_bytes()
            cls.files[name] = cls.folder / f"format_{name}.stasis"
            cls.files[name].write_bytes(zstd_frames.decompress(data, 16 << 20) if path.suffix == ".zst" else data)

    def reader(self, *words):
        """Status, standard output and standard error of the tool, run within this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command.main([*map(str, words), "--key", str(self.key)])
        return status, out.getvalue(), err.getvalue()

    def stasis(self, *words):
        done = subprocess.run([STASIS, "snapshot", *map(str, words), "--decrypt-key", self.key], capture_output=True, env=self.env, timeout=60, check=False)
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    def edited(self, base):
        return Editor(self.files[base], [bytes.fromhex(self.key.read_text())])


class Rules(Files):
    def test_each_rule(self):
        names = [rule.name for rule in RULES]
        self.assertEqual(len(set(names)), len(names))
        path = self.folder / "edited.stasis"
        for rule in RULES:
            with self.subTest(rule.name):
                editor = self.edited(rule.base)
                rule.change(editor)
                editor.write(path)
                parents = ["--parent", self.files[rule.base.replace("child", "parent")]] if "child" in rule.base else []
                status, _, said = self.reader("verify", path, *parents)
                if rule.section is None:
                    self.assertEqual((status, said), (0, ""))
                    command_of_stasis = "digest"
                else:
                    self.assertEqual(status, 1)
                    self.assertIn(rule.section, said)
                    command_of_stasis = "verify"
                status, said = self.stasis(command_of_stasis, path, *parents)
                self.assertEqual(status, 0 if rule.section is None else 1, said)

    def test_an_edited_file_is_the_same_without_an_edit(self):
        for name, path in self.files.items():
            with self.subTest(name):
                self.assertEqual(self.edited(name).bytes(), path.read_bytes())

    def test_golden_files_are_read(self):
        for name, path in self.files.items():
            with self.subTest(name):
                status, said, _ = self.reader("verify", path)
                self.assertEqual((status, said.split()[-1]), (0, self.stasis("digest", path)[1].split()[0]))


class Parents(Files):
    """Incremental files, and where their parents and inherited parts are found."""

    def setUp(self):
        self.place = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        self.parent, self.child = self.files["1.0_mapped_parent"], self.place / "child.stasis"

    def write_child(self, change=lambda e: None, path=None, base=MAPPED_CHILD):
        editor = self.edited(base)
        change(editor)
        return editor.write(path or self.child)

    def inheriting(self, e):
        """`machine/boot` is left to the parent, as a kernel is."""
        e.part("machine/boot")["inherited"] = True
        if any(section.name == "machine/boot" for section in e.sections):
            e.remove("machine/boot")

    def test_a_part_of_the_parent(self):
        self.write_child(self.inheriting)
        status, here, _ = self.reader("state", self.child, "machine/boot", "--parent", self.parent)
        self.assertEqual((status, here), (0, self.reader("state", self.files[MAPPED_CHILD], "machine/boot")[1]))
        self.assertEqual(self.reader("verify", self.child, "--parent", self.parent)[1].split()[-1],
                         self.stasis("digest", self.child, "--parent", self.parent)[1].split()[0])
        status, _, said = self.reader("state", self.child, "machine/boot")
        self.assertEqual(status, 1)
        self.assertIn("--parent", said)
        status, out, _ = self.reader("verify", self.child)
        self.assertEqual(status, 0)
        self.assertIn("not checked", out)

    def test_a_folder_of_parents(self):
        self.write_child(self.inheriting)
        self.assertEqual(self.reader("state", self.child, "--parent", self.folder)[0], 0)
        shutil.copy(self.parent, self.place / self.edited(MAPPED_CHILD)["parent"]["file"])
        self.assertEqual(self.reader("state", self.child)[0], 0)

    def test_a_parent_that_has_not_its_parts(self):
        """Of a chain whose end is missing, the parts are read as far as they are there."""
        middle = self.write_child(path=self.place / "middle.stasis")
        content = self.edited(MAPPED_CHILD)[INDEX]["content"]
        self.write_child(lambda e: (self.inheriting(e), e["parent"].update(content=content)))
        self.assertEqual(self.reader("state", self.child, "--parent", middle)[0], 0)
        self.write_child(self.inheriting, middle)
        status, _, said = self.reader("state", self.child, "--parent", middle)
        self.assertEqual(status, 1)
        self.assertIn("--parent", said)
        self.assertEqual(self.reader("state", self.child, "--parent", middle, "--parent", self.parent)[0], 0)

    def test_a_file_that_names_itself(self):
        content = self.edited(MAPPED_CHILD)[INDEX]["content"]
        self.write_child(lambda e: e["parent"].update(content=content, file=self.child.name))
        status, out, _ = self.reader("verify", self.child)
        self.assertEqual(status, 0)
        self.assertIn("not checked", out)
        self.assertEqual(self.reader("ram", self.child, self.place / "ram")[0], 1)

    def test_a_parent_of_format_0_1(self):
        """Its content digest and the digests of its states are computed."""
        old = self.files[OLD]
        content = bytes.fromhex(self.reader("verify", old)[1].split()[-1])
        self.write_child(lambda e: e["parent"].update(content=content))
        ours = self.reader("verify", self.child, "--parent", old)
        theirs = self.stasis("verify", self.child, "--parent", old)
        self.assertEqual(ours[0], theirs[0])
        self.assertNotIn("not checked", ours[1])


if __name__ == "__main__":
    unittest.main()
