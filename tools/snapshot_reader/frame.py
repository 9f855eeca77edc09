"""The frame of a snapshot file: header, section headers, blocks of a region, commit record, and their digests."""
import os
import re
import struct
import uuid

from . import xxh3
from .problem import Problem, strict

MAGIC = b"\x89STASIS\r\n\x1a\n\x00"
SECTION_MAGIC = b"SECT"
BLOCK_MAGIC = b"BLCK"
COMMIT_MAGIC = b"COMMIT\r\n"
UNKNOWN_LENGTH = (1 << 64) - 1
NO_CHUNK = (1 << 64) - 1
CRITICAL, REGION, BLOCKS = 1, 2, 4
ENCRYPTED = 1
MAX_SECTIONS = 4096
MAX_STORED = 262160
MAX_BODY = 16 << 20
MAX_PART = 512 << 20
MAX_BODIES = 1 << 30
NAME = re.compile(r"[a-zA-Z0-9._:-]+(/[a-zA-Z0-9._:-]+)*")
FIXED = ("producer", "encryption", "machine", "parts", "host", "parent", "memory/ram", "memory/ram/index", "notes", "seal")
RAM, INDEX = "memory/ram", "memory/ram/index"


class Block:
    """One block of a packed region."""

    def __init__(self, offset, stored, chunk, digest, head):
        self.offset, self.stored, self.chunk, self.digest, self.head = offset, stored, chunk, digest, head


class Section:
    """A section header, and where the body is."""

    def __init__(self, name, version, flags, alignment, digest, raw):
        self.name, self.version, self.flags, self.alignment = name, version, flags, alignment
        self.digest, self.raw = digest, raw
        self.offset = self.body = self.length = 0
        self.blocks = []

    @property
    def is_region(self):
        return bool(self.flags & REGION)

    @property
    def flag_names(self):
        return [name for bit, name in ((CRITICAL, "critical"), (REGION, "region"), (BLOCKS, "blocks")) if self.flags & bit]


def _up(offset, alignment):
    return -(-offset // alignment) * alignment


class Frame:
    """A file, opened; `report` gets each Problem that does not hinder from reading on."""

    def __init__(self, path, report=strict):
        self.path = path
        self.name = os.path.basename(path)
        self.report = report
        self.sections = []
        self.by_name = {}
        self.commit = None
        try:
            self.file = open(path, "rb", buffering=0)
        except OSError as error:
            raise Problem(path, f"cannot be opened: {error.strerror}") from error
        self.size = os.fstat(self.file.fileno()).st_size
        self._read_header()

    def __del__(self):
        if hasattr(self, "file"):
            self.file.close()

    def read(self, offset, size, what):
        piece = os.pread(self.file.fileno(), size, offset)
        while len(piece) < size:
            more = os.pread(self.file.fileno(), size - len(piece), offset + len(piece))
            if not more:
                raise Problem(self.path, f"is incomplete: {what} at {offset} needs {size} bytes; {len(piece)} are there")
            piece += more
        return piece

    def _zeros(self, begin, end, what):
        if begin < end and any(self.read(begin, end - begin, what)):
            self.report(Problem(self.path, f"{what}: bytes {begin} to {end - 1} must be zero"))

    def _read_header(self):
        head = self.read(0, min(64, self.size), "the file header")
        if head[1:7] == MAGIC[1:7] and head[0] in (0x89, 0x09) and head[:12] != MAGIC[:len(head[:12])]:
            raise Problem(self.path, "was changed by a transfer that was not binary: the magic has other line ends or lost a bit")
        if not head or head[:12] != MAGIC[:len(head[:12])]:
            raise Problem(self.path, f"is no snapshot: it begins with {head[:12].hex()}; {MAGIC.hex()} is expected")
        head = self.read(0, 64, "the file header")
        self.header = head
        if xxh3.digest(head[:48]) != head[48:]:
            raise Problem(self.path, f"file header: the digest is {head[48:].hex()}; the bytes have {xxh3.digest(head[:48]).hex()}")
        self.major, self.minor = struct.unpack_from("<HH", head, 12)
        self.uuid = uuid.UUID(bytes=head[16:32])
        self.length, self.flags, reserved = struct.unpack_from("<QII", head, 32)
        self.old = self.major == 0
        self.known_version = self.old or self.major == 1
        if not self.known_version:
            return
        unknown = self.flags & ~(0 if self.old else ENCRYPTED)
        if unknown:
            raise Problem(self.path, f"file header: flags 0x{unknown:x} are unknown; only bit 0 (encrypted) may be set"
                          + (", and not in format 0.1" if self.old else ""))
        if reserved:
            self.report(Problem(self.path, f"file header: bytes 44 to 47 are 0x{reserved:x}; they must be zero"))
        if self.length and self.size < self.length:
            self.report(Problem(self.path, f"is incomplete: {self.size} bytes of {self.length}"))
        if self.length and self.size > self.length:
            self.report(Problem(self.path, f"is {self.size} bytes long; its header says {self.length}"))

    @property
    def encrypted(self):
        return bool(self.flags & ENCRYPTED)

    def read_sections(self):
        """Goes from section header to section header up to the commit record."""
        offset = 64
        while True:
            if self.read(offset, 8, "a section header or the commit record") == COMMIT_MAGIC:
                break
            if len(self.sections) == MAX_SECTIONS:
                raise Problem(self.path, f"has more than {MAX_SECTIONS} sections")
            section = self._read_section(offset)
            if section.name in self.by_name:
                raise Problem(self.path, f"section {section.name}: occurs twice")
            self.sections.append(section)
            self.by_name[section.name] = section
            offset = self._pass_body(section)
        self._read_commit(offset)

    def _read_section(self, offset):
        where = f"section header at {offset}"
        head = self.read(offset, 64, where)
        if head[:4] != SECTION_MAGIC:
            raise Problem(self.path, f"{where}: begins with {head[:4].hex()}; {SECTION_MAGIC.hex()} or a commit record is expected")
        size, version, flags, alignment, length, reserved = struct.unpack_from("<HHIIQQ", head, 4)
        end = _up(64 + size, 8)
        raw = head + self.read(offset + 64, end - 64, where)
        encoded = raw[64:64 + size]
        got = xxh3.digest(head[:48] + encoded)
        if got != head[48:64]:
            raise Problem(self.path, f"{where}: the digest is {head[48:64].hex()}; the bytes have {got.hex()}")
        name = encoded.decode("ascii", "backslashreplace")
        where = f"section {name}"
        if not 1 <= size <= 255 or not NAME.fullmatch(name):
            raise Problem(self.path, f"{where}: no name; steps of a-z A-Z 0-9 . _ : - joined by / are allowed")
        if flags & ~7 or reserved:
            raise Problem(self.path, f"{where}: flags 0x{flags:x}, reserved 0x{reserved:x}; flags 0 to 7 and zero are allowed")
        if alignment & (alignment - 1) or not 8 <= alignment <= 2 << 20:
            raise Problem(self.path, f"{where}: alignment {alignment}; a power of two from 8 to 2097152 is allowed")
        if flags & BLOCKS and not flags & REGION:
            raise Problem(self.path, f"{where}: has blocks and is no region")
        if bool(flags & BLOCKS) != (length == UNKNOWN_LENGTH):
            raise Problem(self.path, f"{where}: length {length}; 2^64-1 is for a region of blocks and for that alone")
        if flags & REGION and any(head[32:48]):
            self.report(Problem(self.path, f"{where}: has a digest; that of a region is zero"))
        if any(raw[64 + size:]):
            self.report(Problem(self.path, f"{where}: the bytes after the name must be zero"))
        section = Section(name, version, flags, alignment, head[32:48], raw)
        section.offset, section.length = offset, length
        section.body = _up(offset + end, alignment)
        self._zeros(offset + end, section.body, where)
        return section

    def _pass_body(self, section):
        where = f"section {section.name}"
        if section.flags & BLOCKS:
            section.length = self._pass_blocks(section) - section.body
        end = section.body + section.length
        if _up(end, 8) + 64 > self.size:
            raise Problem(self.path, f"is incomplete: {where} ends at {end}, the file at {self.size}")
        self._zeros(end, _up(end, 8), where)
        return _up(end, 8)

    def _pass_blocks(self, section):
        offset = section.body
        while True:
            where = f"section {section.name}: block at {offset}"
            head = self.read(offset, 32, where)
            if head[:4] != BLOCK_MAGIC:
                raise Problem(self.path, f"{where}: begins with {head[:4].hex()}; {BLOCK_MAGIC.hex()} is expected")
            stored, chunk = struct.unpack_from("<IQ", head, 4)
            if stored > MAX_STORED or (stored == 0) != (chunk == NO_CHUNK):
                raise Problem(self.path, f"{where}: {stored} bytes of chunk {chunk}; 1 to {MAX_STORED} bytes are allowed, 0 with 2^64-1")
            if not stored:
                if xxh3.digest(head[:16]) != head[16:]:
                    self.report(Problem(self.path, f"{where}: the digest of the last block is wrong"))
                return offset + 32
            section.blocks.append(Block(offset, stored, chunk, head[16:], head[:16]))
            end = offset + 32 + stored
            self._zeros(end, _up(end, 8), where)
            offset = _up(end, 8)

    def _read_commit(self, offset):
        record = self.read(offset, 64, "the commit record")
        length, index, count, reserved = struct.unpack_from("<QQII", record, 8)
        where = "commit record"
        if xxh3.digest(record[:48]) != record[48:]:
            raise Problem(self.path, f"{where}: the digest is {record[48:].hex()}; the bytes have {xxh3.digest(record[:48]).hex()}")
        self.commit, self.root = record, record[32:48]
        root = xxh3.digest(self.header + b"".join(section.raw for section in self.sections))

        def differs(what, found, expected):
            if found != expected:
                self.report(Problem(self.path, f"{where}: {what} is {found}; {expected} is expected"))

        differs("the length of the file", length, offset + 64)
        differs("the number of sections", count, len(self.sections))
        differs("the reserved word", reserved, 0)
        differs("the root digest", self.root.hex(), root.hex())
        if INDEX in self.by_name:
            differs(f"the offset of {INDEX}", index, self.by_name[INDEX].offset)
        if self.size > offset + 64:
            self.report(Problem(self.path, f"{self.size - offset - 64} bytes follow the commit record; none are allowed"))

    def body(self, section):
        """The stored bytes of a body that is no region, after checking their digest."""
        if section.length > MAX_BODIES:
            raise Problem(self.path, f"section {section.name}: {section.length} bytes; at most {MAX_BODIES} are allowed")
        data = self.read(section.body, section.length, f"section {section.name}")
        got = xxh3.digest(data)
        if got != section.digest:
            raise Problem(self.path, f"section {section.name}: the digest is {section.digest.hex()}; the body has {got.hex()}")
        return data

    def block(self, block):
        """The stored bytes of a block, after checking their digest."""
        data = self.read(block.offset + 32, block.stored, f"block of chunk {block.chunk}")
        got = xxh3.digest(block.head + data)
        if got != block.digest:
            raise Problem(self.path, f"{RAM}: block of chunk {block.chunk} at {block.offset}: the digest is {block.digest.hex()}; "
                          f"the bytes have {got.hex()}")
        return data

    def check_order(self, parts):
        """What must hold of presence, flags, versions, sizes and order of the sections; `parts` are the paths of the parts."""
        position = {section.name: index for index, section in enumerate(self.sections)}

        def bad(name, what):
            self.report(Problem(self.path, f"section {name}: {what}"))

        def before(first, second):
            if first in position and second in position and position[first] > position[second]:
                bad(second, f"comes before {first}, and must come after it")

        needed = ["producer", "machine", "parts", "host", *parts, RAM, INDEX] + (["encryption", "seal"] if self.encrypted else [])
        for name in needed:
            if name not in position:
                bad(name, "is missing")
        for path in parts:
            before("parts", path)
            before(path, RAM)
        before("parent", INDEX)
        before(RAM, INDEX)
        if RAM in position and self.sections[position[RAM]].flags & BLOCKS and position[RAM] + 1 < len(self.sections) and self.sections[position[RAM] + 1].name != INDEX:
            bad(self.sections[position[RAM] + 1].name, "stands between a packed RAM and its index")
        if "seal" in position and position["seal"] != len(self.sections) - 1:
            bad("seal", "is not the last section")
        if not self.encrypted:
            for name in ("encryption", "seal"):
                if name in position:
                    bad(name, "is in a file that is not encrypted")
        elif not all(section.is_region for section in self.sections[1:position.get("encryption", 1)]):
            bad("encryption", "is not the second section, so that an encrypted one comes before it")
        if self.old:
            for name in ("parent", "notes", "encryption", "seal"):
                if name in position:
                    bad(name, "is in a file of format 0.1, which has none")
        self._check_headers(set(parts))

    def _check_headers(self, parts):
        total = 0
        for section in self.sections:
            known = section.name in FIXED or section.name in parts
            where = f"section {section.name}"

            def bad(what):
                self.report(Problem(self.path, f"{where}: {what}"))

            if not known and section.flags & CRITICAL:
                bad("is critical and unknown")
            if known and section.version != 1:
                bad(f"version {section.version} is unknown; only 1 is")
            if known and section.name != "notes" and not section.flags & CRITICAL:
                bad("is not critical, and must be")
            if known and section.is_region != (section.name == RAM):
                bad("is a region" if section.is_region else "is no region")
            if section.name == RAM and not section.flags & BLOCKS and section.body % 4096:
                bad(f"the body begins at {section.body}; that of a mapped region begins at a multiple of 4096")
            most = MAX_PART if section.name in parts else MAX_BODY
            if not section.is_region:
                total += section.length
                if section.length > most and not section.name.endswith("/index"):
                    bad(f"{section.length} bytes; at most {most} are allowed")
        if total > MAX_BODIES:
            self.report(Problem(self.path, f"{total} bytes of bodies; at most {MAX_BODIES} are allowed"))
