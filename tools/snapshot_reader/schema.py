"""Part records: the schema that travels with each, the check of its state against it, and what people are shown."""
import re

from . import shape
from .problem import Problem

TYPE = re.compile(r"(bool|u8|u16|u32|u64|i8|i16|i32|i64|text|record)((?:\[\d+\]|<\d*>)*)")
SUFFIX = re.compile(r"\[(\d+)\]|<(\d*)>")
MAX_UNSIGNED = (1 << 64) - 1


def _any_integer(where, value):
    shape.number(-(1 << 63), MAX_UNSIGNED)(where, value)


class Field:
    """One field of a schema."""

    def __init__(self, where, raw, version):
        shape.members(where, raw, {"name": shape.text, "type": shape.text}, {
            "unit": shape.text, "help": shape.text, "since": shape.number(1, 65535), "hex": shape.boolean,
            "least": _any_integer, "most": _any_integer, "mask": shape.number(0, MAX_UNSIGNED),
            "default": lambda _where, _value: None, "skippable": shape.boolean, "renamed_from": shape.array, "names": shape.array,
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
        self.hex = raw.get("hex", False)
        self.unit, self.help = raw.get("unit", ""), raw.get("help", "")
        if raw.get("since", 1) > version:
            raise Problem(where, f"since is {raw['since']}, after the version {version} of the record")
        for former in raw.get("renamed_from", []):
            shape.members(f"{where}: renamed_from", former, {"name": shape.text, "until": shape.number(1, 65535)})
        for name in raw.get("names", []):
            shape.text(f"{where}: names", name)
        if ("members" in raw) != (self.base == "record"):
            raise Problem(where, f"type is {raw['type']}; a record has members, and nothing else has")
        self.members = fields_of(where, raw.get("members", []), version)
        self.skippable = raw.get("skippable", False)
        if self.base[0] in "ui":
            bits = int(self.base[1:])
            self.low, self.high = (0, (1 << bits) - 1) if self.base[0] == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)
            self.low, self.high = max(self.low, raw.get("least", self.low)), min(self.high, raw.get("most", self.high))
        if "default" in raw:
            self.check(f"{where}: default", raw["default"])

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
        if len(value) < least or most is not None and len(value) > most:
            raise Problem(where, f"has {len(value)} elements; {least} to {'any number' if most is None else most} are allowed")
        for index, inner in enumerate(value):
            self.check(f"{where}[{index}]", inner, depth - 1)

    def check_one(self, where, value):
        if self.base == "bool":
            shape.boolean(where, value)
        elif self.base == "text":
            if not isinstance(value, str):
                raise Problem(where, f"is {shape.shown(value)}; a text is expected")
        elif self.base == "record":
            check_state(where, self.members, value)
        else:
            shape.number(self.low, self.high)(where, value)
            if "mask" in self.raw and value & ~self.raw["mask"]:
                raise Problem(where, f"is 0x{value:x}; only bits of 0x{self.raw['mask']:x} may be set")

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
    shape.members(where, state, {field.name: field.check for field in fields})


class Record:
    """A part, or the section `machine`: a schema and the state that it describes."""

    def __init__(self, where, path, value):
        shape.members(where, value, {"schema": shape.any_map, "state": shape.any_map})
        schema = value["schema"]
        shape.members(f"{where}: schema", schema, {"kind": shape.text, "version": shape.number(1, 65535), "fields": shape.array},
                      {"reshaped": shape.number(1, 65535), "skippable": shape.boolean})
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
