"""Part records: the schema that travels with each, the check of its state against it, and what people are shown."""
import re

from . import shape
from .problem import Problem

TYPE = re.compile(r"(bool|u8|u16|u32|u64|i8|i16|i32|i64|text|record)((?:\[[0-9]+\]|<[0-9]*>)*)")
SUFFIX = re.compile(r"\[([0-9]+)\]|<([0-9]*)>")
MAX_UNSIGNED = (1 << 64) - 1
MAX_ITEMS = 65536
_BOUND = shape.number(0, MAX_UNSIGNED)
_BOUNDS = {"least": _BOUND, "most": _BOUND, "mask": _BOUND}


class Field:
    """One field of a schema."""

    def __init__(self, where, raw, version):
        shape.members(where, raw, {"name": shape.named, "type": shape.named}, {
            "unit": shape.text, "help": shape.text, "since": shape.number(1, 65535), "hex": shape.boolean, **_BOUNDS,
            "skippable": shape.boolean, "renamed_from": shape.array, "widened": shape.array, "names": shape.array,
            "members": shape.array})
        self.raw = raw
        self.name = raw["name"]
        self.where = where = f"{where} {self.name}"
        match = TYPE.fullmatch(raw["type"])
        if not match:
            raise Problem(where, f"type is {raw['type']!r}; bool, u8 to u64, i8 to i64, text or record are allowed, with [n], <n> or <>")
        self.base = match[1]
        # The innermost array comes first: u8[10][8] is 8 times 10 bytes. (least, most) elements of each.
        self.arrays = []
        for exact, most in SUFFIX.findall(match[2]):
            self.arrays.append((int(exact), int(exact)) if exact else (0, int(most) if most else None))
        # u8[n] and u8<> are byte strings; u8<n> is an array of integers.
        self.is_bytes = self.base == "u8" and bool(self.arrays) and re.match(r"u8(\[|<>)", raw["type"]) is not None
        self.depth = len(self.arrays)
        self.counted = self.is_bytes or self.base == "record"  # `most` is of the number of items
        self.hex = raw.get("hex", False)
        self.unit, self.help = raw.get("unit", ""), raw.get("help", "")
        if raw.get("since", 1) > version:
            raise Problem(where, f"since is {raw['since']}, after the version {version} of the record")
        self._check_former("renamed_from", version, {"name": shape.named}, {})
        self._check_former("widened", version, {}, _BOUNDS)
        for name in raw.get("names", []):
            shape.text(f"{where}: names", name)
        if "members" in raw and self.base != "record":
            raise Problem(where, f"type is {raw['type']}; a record has members, and nothing else has")
        self.members = fields_of(where, raw.get("members", []), version)
        self.skippable = raw.get("skippable", False)
        if self.base[0] in "ui":
            bits = int(self.base[1:])
            self.low, self.high, self.mask = -(1 << bits - 1), (1 << bits - 1) - 1, -1
            if self.base[0] == "u":
                self.low, self.high = raw.get("least", 0), min((1 << bits) - 1, raw.get("most", MAX_UNSIGNED))
                self.mask = raw.get("mask", MAX_UNSIGNED)
        if "default" in raw:
            self.check(f"{where}: default", raw["default"])

    def _check_former(self, member, version, required, optional):
        before = 0
        for former in self.raw.get(member, []):
            where = f"{self.where}: {member}"
            shape.members(where, former, {"until": shape.number(1, version), **required}, optional)
            if former["until"] <= before:
                raise Problem(where, f"until {former['until']} comes after until {before}; they are ascending")
            before = former["until"]

    def check(self, where, value, depth=None):
        """Checks a value with so many arrays around it, by default all of them."""
        depth = self.depth if depth is None else depth
        if not depth:
            return self.check_one(where, value)
        if depth == 1 and self.is_bytes:
            shape.octets()(where, value)
        else:
            shape.array(where, value)
        least, most = self.arrays[depth - 1]
        if most is None:
            most = self.raw.get("most", None if isinstance(value, bytes) else MAX_ITEMS) if self.counted else MAX_ITEMS
        if len(value) < least or most is not None and len(value) > most:
            raise Problem(where, f"has {len(value)} elements; {least} to {'any number' if most is None else most} are allowed")
        for index, inner in enumerate([] if isinstance(value, bytes) else value):
            self.check(f"{where}[{index}]", inner, depth - 1)

    def check_one(self, where, value):
        if self.base == "bool":
            shape.boolean(where, value)
        elif self.base == "text":
            if not isinstance(value, str):
                raise Problem(where, f"is {shape.shown(value)}; a text is expected")
            if len(value.encode()) > self.raw.get("most", MAX_UNSIGNED):
                raise Problem(where, f"is {len(value.encode())} bytes long; at most {self.raw['most']} are allowed")
        elif self.base == "record":
            check_state(where, self.members, value)
        else:
            shape.number(self.low, self.high)(where, value)
            if value & ~self.mask:
                raise Problem(where, f"is 0x{value:x}; only bits of 0x{self.mask:x} may be set")

    def name_of(self, value):
        """What the value is called, or nothing."""
        names = self.raw.get("names", [])
        if isinstance(value, int) and 0 <= value < len(names):
            return names[int(value)]
        return ""


def fields_of(where, raw, version):
    fields, seen = [], set()
    for index, one in enumerate(raw):
        shape.any_map(f"{where}: field {index}", one)
        field = Field(f"{where}: field", one, version)
        if field.name in seen:
            raise Problem(where, f"the field {field.name} occurs twice")
        seen.add(field.name)
        fields.append(field)
    return fields


def check_state(where, fields, state):
    shape.members(where, state, {field.name: field.check for field in fields}, further=False)


class Record:
    """A part, or the section `machine`: a schema and the state that it describes."""

    def __init__(self, where, path, value):
        shape.members(where, value, {"schema": shape.any_map, "state": shape.any_map}, further=False)
        schema = value["schema"]
        shape.texts_within(f"{where}: schema", schema)
        shape.members(f"{where}: schema", schema, {"kind": shape.named, "version": shape.number(1, 65535), "fields": shape.array},
                      {"reshaped": shape.number(1, schema.get("version", 1)), "skippable": shape.boolean})
        self.path, self.kind, self.version = path, schema["kind"], schema["version"]
        self.fields = fields_of(f"{where}: schema", schema["fields"], self.version)
        self.state = value["state"]
        check_state(f"{where}: state", self.fields, self.state)


def plain(value):
    """A value as JSON can have it: byte strings in hexadecimal."""
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return value.hex() if isinstance(value, bytes) else value


class Row:
    """A field and its value, or one element of it; `depth` arrays are around what it says."""

    def __init__(self, path, field, value, depth):
        self.path, self.field, self.value, self.depth = path, field, value, depth

    def elements(self):
        if not self.depth or isinstance(self.value, bytes):
            return []
        return [Row(f"{self.path}/{index}", self.field, inner, self.depth - 1) for index, inner in enumerate(self.value)]

    def children(self):
        """What is inside and worth lines of its own: members of a record, or elements that are records or arrays."""
        if self.depth:
            return self.elements() if self.field.base == "record" or self.depth > 1 else []
        if self.field.base != "record":
            return []
        return [Row(f"{self.path}/{field.name}", field, self.value[field.name], field.depth) for field in self.field.members]

    def one(self, value):
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return repr(value)
        return hex(value) if self.field.hex else str(value)

    def shown(self):
        if isinstance(self.value, bytes):
            text = self.value.hex() if len(self.value) <= 64 else f"{self.value[:64].hex()}… ({len(self.value)} bytes)"
        elif self.depth:
            text = "[" + ", ".join(map(self.one, self.value)) + "]"
        else:
            text = self.one(self.value)
            name = self.field.name_of(self.value)
            text += f" ({name})" if name else ""
        return f"{text} {self.field.unit}" if self.field.unit else text

    def lines(self, depth):
        indent = "  " * depth
        label = self.path.rsplit("/", 1)[1]
        tail = f"   # {self.field.help}" if self.field.help and self.depth == self.field.depth else ""
        children = self.children()
        if not children and self.field.base != "record":
            yield f"{indent}{label} = {self.shown()}{tail}"
            return
        yield f"{indent}{label}:{'' if children else ' none'}{tail}"
        for child in children:
            yield from child.lines(depth + 1)

    def json(self):
        raw = self.field.raw
        result = {"path": self.path, "type": raw["type"]}
        result.update({name: raw[name] for name in ("unit", "help", "hex") if name in raw})
        if not self.depth and self.field.name_of(self.value):
            result["value_name"] = self.field.name_of(self.value)
        result["value"] = plain(self.value) if self.field.base != "record" else {
            child.path.rsplit("/", 1)[1]: child.json() for child in self.children()}
        return result


def rows(record):
    return [Row(f"{record.path}/{field.name}", field, record.state[field.name], field.depth) for field in record.fields]


def find(record, path):
    """The row at `path`, which goes on below the record with names and numbers joined by '/'; or None."""
    level = rows(record)
    while level:
        row = next((row for row in level if path == row.path or path.startswith(row.path + "/")), None)
        if row is None or row.path == path:
            return row
        level = row.elements() or row.children()
    return None
