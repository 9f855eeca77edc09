"""Takes a snapshot file apart, lets tests change any of it, and puts it together again with digests, offsets and seal that fit."""
import struct
import uuid

from snapshot_reader import cbor, xchacha, xxh3
from snapshot_reader.frame import BLOCK_MAGIC, BLOCKS, COMMIT_MAGIC, CRITICAL, INDEX, MAGIC, NO_CHUNK, RAM, REGION, SECTION_MAGIC, UNKNOWN_LENGTH
from snapshot_reader.keys import blake
from snapshot_reader.snapshot import Snapshot

CLEAR = ("producer", "encryption", "seal")


class Section:
    """One section; `body` is a CBOR value, bytes that go out as they are, or, of blocks, a list of (chunk, bytes stored, none encrypted)."""

    def __init__(self, name, body, flags=CRITICAL, version=1, alignment=8):
        self.name, self.body, self.flags, self.version, self.alignment = name, body, flags, version, alignment
        self.digest = None  # instead of the right one


class Editor:
    def __init__(self, path, keys=()):
        snapshot = Snapshot(str(path), keys)
        frame = snapshot.frame
        self.major, self.minor, self.flags, self.uuid = frame.major, frame.minor, frame.flags, frame.uuid
        self.has_length = bool(frame.length)
        self.key = keys[0] if frame.encrypted else None
        self.salt = snapshot.values["encryption"]["salt"] if frame.encrypted else None
        self.sections = [Section(s.name, self._body(snapshot, s), s.flags, s.version, s.alignment) for s in frame.sections]
        self.fix_blocks = True       # the index gets the places of the blocks
        self.fix_states = True       # `parts` gets the digests of the states
        self.fix_content = True      # the index gets the content digest
        self.commit = {}             # instead of the right values: length, index, count, root
        self.tail = b""

    @staticmethod
    def _body(snapshot, section):
        if section.flags & BLOCKS:
            return [(block.chunk, snapshot.cipher.block("", block.chunk, data) if snapshot.cipher else data)
                    for block in section.blocks for data in [snapshot.frame.block(block)]]
        if section.is_region:
            return snapshot.frame.read(section.body, section.length, "")
        data = snapshot.stored[section.name]
        if snapshot.cipher and section.name not in CLEAR:
            data = snapshot.cipher.body("", section.name, data)
        return data if section.name == "seal" else cbor.decode(data, section.name)

    def __getitem__(self, name):
        """The body of a section."""
        return self.section(name).body

    def section(self, name):
        return next(section for section in self.sections if section.name == name)

    def position(self, name):
        return self.sections.index(self.section(name))

    def remove(self, name):
        self.sections.remove(self.section(name))

    def insert(self, before, section):
        self.sections.insert(self.position(before) if before else len(self.sections), section)

    def move(self, name, before):
        section = self.section(name)
        self.sections.remove(section)
        self.insert(before, section)

    def part(self, path):
        """The entry of a part in section `parts`."""
        return next(part for part in self["parts"] if part["path"] == path)

    def field(self, path, name):
        """A field of the schema of a part."""
        return next(field for field in self[path]["schema"]["fields"] if field["name"] == name)

    @property
    def record_bytes(self):
        return 32 + 24 * any(s.name == "parent" for s in self.sections) + 16 * isinstance(self[RAM], list)

    def chunk(self, number):
        """The record of a chunk in the index, as a list of its numbers and digests."""
        size = self.record_bytes
        return list(struct.unpack_from(self._form(), self[INDEX]["chunks"], number * size))

    def set_chunk(self, number, values):
        size, chunks = self.record_bytes, self[INDEX]["chunks"]
        self[INDEX]["chunks"] = chunks[:number * size] + struct.pack(self._form(), *values) + chunks[(number + 1) * size:]

    def _form(self):
        size = self.record_bytes
        return "<QQ16s" + ("Q16s" if size in (56, 72) else "") + ("QII" if size in (48, 72) else "")

    @property
    def file_key(self):
        return blake(32, self.key, b"stasis file key 1" + self.salt)

    def _fix(self):
        names = {section.name: section for section in self.sections}
        parts = self["parts"] if "parts" in names and isinstance(self["parts"], list) else []
        if self.fix_states and self.major:
            for part in parts:
                body = names[part["path"]].body if part.get("path") in names else None
                if isinstance(body, dict) and "state" in body and "inherited" not in part:
                    part["state"] = xxh3.digest(cbor.encode(body["state"]))
        index = names[INDEX].body if INDEX in names else None
        if self.fix_content and self.major and isinstance(index, dict) and {"content", "chunks"} <= index.keys():
            index["content"] = self.content(index, parts)

    def content(self, index, parts):
        size, ram = self.record_bytes, b""
        for number in range(len(index["chunks"]) // size):
            low, high, digest = self.chunk(number)[:3]
            if low | high:
                ram += struct.pack("<QQ", number, low | high) + digest
        states = b"".join(struct.pack("<Q", len(p["path"])) + p["path"].encode() + p["state"] for p in parts if isinstance(p.get("state"), bytes))
        return xxh3.digest(b"stasis digest 2\0" + struct.pack("<Q", index["pages"] * 4096) + xxh3.digest(ram) + xxh3.digest(states))

    def _blocks(self, blocks, at):
        out = b""
        for number, data in blocks:
            if self.key and self.flags & 1:
                data = xchacha.seal(self.file_key, blake(24, b"", b"chunk/" + struct.pack("<Q", number)), data)
            if self.fix_blocks:
                values = self.chunk(number)
                values[-3:] = [at + len(out), len(data), 0]
                self.set_chunk(number, values)
            head = BLOCK_MAGIC + struct.pack("<IQ", len(data), number)
            out += head + xxh3.digest(head + data) + data + bytes(-len(data) % 8)
        head = BLOCK_MAGIC + struct.pack("<IQ", 0, NO_CHUNK)
        return out + head + xxh3.digest(head)

    def bytes(self):
        self._fix()
        headers, out = [], bytes(64)
        offsets = {}
        for section in self.sections:
            at = len(out)
            offsets.setdefault(section.name, at)
            name = section.name.encode()
            body_at = -(-(at + 64 + len(name) + -len(name) % 8) // section.alignment) * section.alignment
            body = section.body
            length = digest = None
            if isinstance(body, list) and section.flags & BLOCKS:
                body, length = self._blocks(body, body_at), UNKNOWN_LENGTH
            elif section.name == "seal" and self.key:
                body = blake(32, self.file_key, b"stasis seal" + self._header(0) + b"".join(headers))  # packed: has no length
            elif not isinstance(body, bytes):
                body = cbor.encode(body)
            if self.key and section.name not in CLEAR and not section.flags & REGION:
                body = xchacha.seal(self.file_key, blake(24, b"", b"section/" + name), body)
            length = len(body) if length is None else length
            digest = section.digest or (bytes(16) if section.flags & REGION else xxh3.digest(body))
            head = SECTION_MAGIC + struct.pack("<HHIIQQ", len(name), section.version, section.flags, section.alignment, length, 0) + digest
            head += xxh3.digest(head + name) + name + bytes(-len(name) % 8)
            headers.append(head)
            out += head + bytes(body_at - at - len(head)) + body + bytes(-(body_at + len(body)) % 8)
        header = self._header(len(out) + 64 if self.has_length else 0)
        commit = {"length": len(out) + 64, "index": offsets.get(INDEX, 0), "count": len(self.sections),
                  "root": xxh3.digest(header + b"".join(headers)), **self.commit}
        record = COMMIT_MAGIC + struct.pack("<QQII", commit["length"], commit["index"], commit["count"], 0) + commit["root"]
        return header + out[64:] + record + xxh3.digest(record) + self.tail

    def _header(self, length):
        head = MAGIC + struct.pack("<HH", self.major, self.minor) + uuid.UUID(str(self.uuid)).bytes + struct.pack("<QII", length, self.flags, 0)
        return head + xxh3.digest(head)

    def write(self, path):
        with open(path, "wb") as file:
            file.write(self.bytes())
        return path
