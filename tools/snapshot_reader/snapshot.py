"""One snapshot file as a whole: its sections decoded and checked, its records, its content digest."""
import struct

from . import cbor, shape, xxh3
from .frame import INDEX, RAM, Frame
from .index import Index
from .keys import Cipher
from .problem import MissingKey, Problem, strict
from .schema import Record


class Snapshot:
    """A file whose sections, but not whose RAM, have been read. `report` gets what does not hinder from reading on."""

    def __init__(self, path, keys=(), report=strict):
        self.path, self.report = path, report
        self.frame = Frame(path, report)
        self.values = {}
        self.stored = {}
        self.records = {}
        self.cipher = self.index = None
        self.locked = ""
        if not self.frame.known_version:
            self._refuse_version()
        self.frame.read_sections()
        self._read_producer()
        for section in self.frame.sections:
            if not section.is_region and section.name not in self.stored:
                self._guard(lambda s=section: self.stored.__setitem__(s.name, self.frame.body(s)))
        self._unlock(keys)
        if "parts" in self.stored:
            self._guard(lambda: self._decode("parts"))
        self.parts = self.values.get("parts", [])
        for section in self.frame.sections:
            if section.name in self.stored and section.name not in self.values and section.name != "seal":
                self._guard(lambda n=section.name: self._decode(n))
        if not (self.locked or "parts" not in self.values):
            self.frame.check_order([part["path"] for part in self.parts if "inherited" not in part])
            self._guard(self._check_parts)
            self._guard(self._check_machine)
            self._guard(self._check_content)

    def _guard(self, action):
        try:
            action()
        except MissingKey:
            raise
        except Problem as problem:
            self.report(problem)

    def _refuse_version(self):
        version = f"{self.frame.major}.{self.frame.minor}"
        written = ""
        try:
            section = self.frame._read_section(64)
            if section.name == "producer":
                value = cbor.decode(self.frame.body(section), "section producer")
                shape.producer("section producer", value)
                written = f", written by {value['program']} {value['version']} at {value['created_at']}"
        except Problem as problem:
            written = f" (and its producer cannot be read: {problem})"
        raise Problem(self.path, f"has format {version}{written}; this reader knows 1.x and 0.1")

    def _read_producer(self):
        if not self.frame.sections or self.frame.sections[0].name != "producer":
            self.report(Problem(self.path, "the first section is not producer"))
            return
        section = self.frame.sections[0]
        self._guard(lambda: self.stored.__setitem__("producer", self.frame.body(section)))
        if "producer" in self.stored:
            self._guard(lambda: self._decode("producer"))

    def _unlock(self, keys):
        if not self.frame.encrypted:
            return
        if "encryption" in self.stored:
            self._guard(lambda: self._decode("encryption"))
        value = self.values.get("encryption")
        if not value:
            self.locked = "is encrypted, and its section encryption cannot be used"
            return
        try:
            self.cipher = Cipher(self.path, keys, value["salt"], value["check"])
        except MissingKey as missing:
            self.locked = missing.what
            return
        if "seal" in self.stored:
            sections = self.frame.sections[:self.frame.sections.index(self.frame.by_name["seal"])]
            if self.stored["seal"] != self.cipher.seal(self.frame.header, sections):
                self.report(Problem(self.path, "section seal: does not belong to these section headers and this key"))

    def require_unlocked(self):
        if self.locked:
            raise MissingKey(self.path, self.locked)

    def _decode(self, name):
        where = f"{self.path}: section {name}"
        data = self.stored[name]
        if self.frame.encrypted and name not in ("producer", "encryption"):
            if self.locked:
                return
            data = self.cipher.body(where, name, data)
        paths = {part["path"] for part in self.values.get("parts", [])}
        if name == "machine" or name in paths:
            self.records[name] = Record(where, name, cbor.decode(data, where))
        elif name == INDEX:
            value = cbor.decode(data, where)
            shape.index(self.frame.old)(where, value)
            self.index = Index(self, value)
            self.values[name] = value
        elif name in shape.BODIES:
            value = cbor.decode(data, where)
            if name in shape.PLAIN:
                shape.texts_within(where, value)
            shape.BODIES[name](where, value, *([self.frame.old] if name == "parts" else []))
            self.values[name] = value

    def _check_parts(self):
        for part in self.parts:
            record = self.records.get(part["path"])
            if "inherited" in part and (part["path"] in self.frame.by_name or "parent" not in self.frame.by_name):
                self.report(Problem(self.path, f"section parts: {part['path']} is inherited, and has a section here or the file has no parent"))
            if record and "state" in part and part["state"] != xxh3.digest(cbor.encode(record.state)):
                self.report(Problem(self.path, f"section {part['path']}: the state has not the digest {part['state'].hex()} that parts says"))
            if record and (record.kind, record.version) != (part["kind"], part["version"]):
                self.report(Problem(self.path, f"section {part['path']}: kind {record.kind} version {record.version}; "
                                    f"parts says {part['kind']} version {part['version']}"))
            first = part["path"].split("/")[0]
            if first in ("producer", "machine", "parts", "host", "encryption", "parent", "notes", "seal", "memory", "disk"):
                if "/" not in part["path"] or first in ("memory", "disk"):
                    self.report(Problem(self.path, f"parts: the path {part['path']} is reserved"))
        if "cpu/contract" not in {part["path"] for part in self.parts}:
            self.report(Problem(self.path, "section parts: cpu/contract is missing"))

    def _check_machine(self):
        machine = self.records.get("machine")
        if not machine:
            return
        if machine.kind != "stasis.machine":
            self.report(Problem(self.path, f"section machine: the kind is {machine.kind}; stasis.machine is expected"))
        memory = machine.state.get("memory_bytes")
        if self.index and memory != self.index.pages * 4096:
            self.report(Problem(self.path, f"section machine: memory_bytes is {memory}; memory/ram has {self.index.pages * 4096} bytes"))

    def _check_content(self):
        content = self.content_digest()
        if content and self.index.content is not None and content != self.index.content:
            self.report(Problem(self.path, f"section memory/ram/index: content is {self.index.content.hex()}; index and parts have {content.hex()}"))

    @property
    def parent(self):
        return self.values.get("parent")

    @property
    def region(self):
        return self.frame.by_name.get(RAM)

    def _state_digest(self, part):
        if "inherited" in part:
            return part["state"]
        record = self.records.get(part["path"])
        return record and xxh3.digest(cbor.encode(record.state))

    @property
    def lacking(self):
        """The paths of parts that are left to a parent, and were not found there yet."""
        return [part["path"] for part in self.parts if "inherited" in part and part["path"] not in self.records]

    def inherit(self, parent):
        """Takes over the records that this file leaves to its parent, as far as that one has them or got them from its own."""
        for part in self.parts:
            if "inherited" not in part or part["path"] in parent.lacking:
                continue
            record = parent.records.get(part["path"])
            if not record or (record.kind, record.version) != (part["kind"], part["version"]) \
                    or xxh3.digest(cbor.encode(record.state)) != part["state"]:
                raise Problem(self.path, f"section parts: {part['path']} is inherited, and {parent.path} has no such part with this state")
            self.records[part["path"]] = record

    def content_digest(self):
        """The content digest as it follows from the index and the parts, or None while one of them is unreadable."""
        digests = [(part["path"].encode(), self._state_digest(part)) for part in self.parts]
        if not self.index or not digests or not all(digest for _, digest in digests):
            return None
        ram = b"".join(struct.pack("<QQ", chunk.number, chunk.mask) + chunk.digest
                       for chunk in self.index.chunks() if chunk.mask)
        parts = b"".join(struct.pack("<Q", len(path)) + path + digest for path, digest in digests)
        return xxh3.digest(b"stasis digest 2\0" + struct.pack("<Q", self.index.pages * 4096)
                           + xxh3.digest(ram) + xxh3.digest(parts))
