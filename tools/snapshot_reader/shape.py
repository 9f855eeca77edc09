"""Checks of what a decoded body consists of, and the bodies that are the same in every file."""
import re

from .problem import Problem

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
MAX_TEXT = 4096
MAX_UNSIGNED = (1 << 64) - 1


def shown(value):
    """A value in a message, cut to a size that a line holds."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def text(where, value):
    """A text that people are shown."""
    if not isinstance(value, str):
        raise Problem(where, f"is {shown(value)}; a text is expected")
    if CONTROL.search(value):
        raise Problem(where, f"is {shown(value)}; control characters are not allowed")
    if len(value.encode()) > MAX_TEXT:
        raise Problem(where, f"is {len(value.encode())} bytes long; at most {MAX_TEXT} are allowed")


def moment(where, value):
    text(where, value)
    if not MOMENT.fullmatch(value):
        raise Problem(where, f"is {shown(value)}; a time like 2025-01-31T12:00:00Z is expected")


def number(least, most):
    def check(where, value):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Problem(where, f"is {shown(value)}; a number from {least} to {most} is expected")
    return check


def exactly(*allowed):
    def check(where, value):
        if type(value) is not type(allowed[0]) or value not in allowed:
            raise Problem(where, f"is {shown(value)}; allowed: {', '.join(map(repr, allowed))}")
    return check


def octets(size=None):
    def check(where, value):
        if not isinstance(value, bytes):
            raise Problem(where, f"is {shown(value)}; a byte string is expected")
        if size is not None and len(value) != size:
            raise Problem(where, f"has {len(value)} bytes; {size} are expected")
    return check


def boolean(where, value):
    if not isinstance(value, bool):
        raise Problem(where, f"is {shown(value)}; false or true is expected")


def array(where, value):
    if not isinstance(value, list):
        raise Problem(where, f"is {shown(value)}; an array is expected")


def any_map(where, value):
    if not isinstance(value, dict):
        raise Problem(where, f"is {shown(value)}; a map is expected")


def members(where, value, required, optional=None, further=False):
    """A map with these members, each of which its check accepts, and with no other unless `further`."""
    any_map(where, value)
    optional = optional or {}
    for name, check in required.items():
        if name not in value:
            raise Problem(where, f"has no member '{name}'")
        check(f"{where}: {name}", value[name])
    for name, inner in value.items():
        if name in optional:
            optional[name](f"{where}: {name}", inner)
        elif name not in required and not further:
            raise Problem(where, f"has an unknown member {shown(name)}; allowed: {', '.join([*required, *optional])}")


def producer(where, value):
    members(where, value, {"program": text, "version": text, "format": text, "created_at": moment}, further=True)


def parts(where, value):
    array(where, value)
    before = b""
    for index, part in enumerate(value):
        members(f"{where}: {index}", part, {"path": text, "kind": text, "version": number(1, 65535)},
                {"state": octets(16), "inherited": exactly(True)})
        if "inherited" in part and "state" not in part:
            raise Problem(f"{where}: {index}", "is inherited and has no digest of its state")
        path = part["path"].encode()
        if path <= before:
            raise Problem(where, f"the path {part['path']!r} is out of order or occurs twice; they are ascending")
        before = path


def host(where, value):
    array(where, value)
    for index, inner in enumerate(value):
        members(f"{where}: {index}", inner, {"name": text, "kind": text, "hint": text})


def parent(where, value):
    members(where, value, {"content": octets(16), "uuid": octets(16), "file": text})
    if "/" in value["file"]:
        raise Problem(where, f"file is {shown(value['file'])}; a name without folders is expected")


def notes(where, value):
    array(where, value)
    for index, note in enumerate(value):
        members(f"{where}: {index}", note, {"at": moment, "by": text, "text": text})


def encryption(where, value):
    members(where, value, {"cipher": exactly("xchacha20-poly1305"), "salt": octets(16), "check": octets(16)})


def index(old):
    def check(where, value):
        content = {} if old else {"content": octets(16)}
        members(where, value, {"encoding": exactly("mapped", "packed"), "page_size": exactly(4096), "pages": number(1, 1 << 28),
                               "chunk_pages": exactly(64), "chunks": octets(), **content}, {"same_as": octets()})
    return check


BODIES = {"producer": producer, "parts": parts, "host": host, "parent": parent, "notes": notes, "encryption": encryption}
