"""Checks of what a decoded body consists of, and the bodies that are the same in every file."""
import re

from .problem import Problem

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
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


def named(where, value):
    text(where, value)
    if not value:
        raise Problem(where, "is empty")


def texts_within(where, value):
    """All texts of a body that people are shown, keys and unknown members too."""
    if isinstance(value, str):
        text(where, value)
    elif isinstance(value, list):
        for inner in value:
            texts_within(where, inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            text(where, name)
            texts_within(f"{where}: {name}", inner)


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


def members(where, value, required, optional=None, further=True):
    """A map with these members, each of which its check accepts; others are ignored, or refused where there can be no `further`."""
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
    members(where, value, {"program": text, "version": text, "format": text, "created_at": text})


def parts(where, value, old=False):
    array(where, value)
    state = {} if old else {"state": octets(16)}
    before = b""
    for index, part in enumerate(value):
        members(f"{where}: {index}", part, {"path": text, "kind": text, "version": number(1, 65535), **state},
                {} if old else {"inherited": exactly(True)})
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
    if "/" in value["file"] or value["file"] == "..":
        raise Problem(where, f"file is {shown(value['file'])}; a name without folders is expected")


def notes(where, value):
    array(where, value)
    for index, note in enumerate(value):
        members(f"{where}: {index}", note, {"at": text, "by": text, "text": text})


def encryption(where, value):
    members(where, value, {"cipher": exactly("xchacha20-poly1305"), "salt": octets(16), "check": octets(16)})


def index(old):
    def check(where, value):
        content = {} if old else {"content": octets(16)}
        members(where, value, {"encoding": exactly("mapped", "packed"), "page_size": exactly(4096), "pages": number(1, 1 << 28),
                               "chunk_pages": exactly(64), "chunks": octets(), **content}, {"same_as": octets()})
    return check


PLAIN = ("producer", "parts", "host", "parent", "notes")
BODIES = {"producer": producer, "parts": parts, "host": host, "parent": parent, "notes": notes, "encryption": encryption}
