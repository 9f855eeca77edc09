"""CBOR as snapshot files use it: the core deterministic encoding, and no other spelling of a value."""
from .problem import Problem

MAX_DEPTH = 32
MAX_VALUES = 1048576


class _Reader:
    def __init__(self, data, where):
        self.data = data
        self.where = where
        self.at = 0
        self.values = 0

    def fail(self, at, what):
        raise Problem(self.where, f"CBOR at byte {at}: {what}")

    def take(self, count):
        piece = self.data[self.at:self.at + count]
        if len(piece) != count:
            self.fail(self.at, f"{count} bytes should follow, but the body ends after {len(piece)}")
        self.at += count
        return piece

    def argument(self, start, extra):
        if extra < 24:
            return extra
        if extra > 27:
            self.fail(start, "an indefinite length or a reserved form; only definite ones are allowed")
        size = 1 << (extra - 24)
        value = int.from_bytes(self.take(size), "big")
        least = 24 if size == 1 else 1 << (4 * size)
        if value < least:
            self.fail(start, f"{value} is encoded in {size + 1} bytes and fits in fewer; only the shortest form is allowed")
        return value

    def text(self, start, raw):
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            self.fail(start, "a text is not UTF-8")

    def item(self, depth):
        start = self.at
        if depth > MAX_DEPTH:
            self.fail(start, f"an item inside of more than {MAX_DEPTH} arrays and maps")
        self.values += 1
        if self.values > MAX_VALUES:
            self.fail(start, f"more than {MAX_VALUES} values")
        first = self.take(1)[0]
        major, extra = first >> 5, first & 31
        if major == 7:
            if extra not in (20, 21, 22):
                self.fail(start, f"simple value or floating point 0x{first:02x}; only false, true and null are allowed")
            return (False, True, None)[extra - 20]
        value = self.argument(start, extra)
        if major == 0:
            return value
        if major == 1:
            return -1 - value
        if major == 2:
            return bytes(self.take(value))
        if major == 3:
            return self.text(start, self.take(value))
        if major == 6:
            self.fail(start, f"tag {value}; tags are not allowed")
        if major == 4:
            return [self.item(depth + 1) for _ in range(value)]
        return self.map(value, depth)

    def map(self, count, depth):
        result = {}
        before = b""
        for _ in range(count):
            start = self.at
            key = self.item(depth + 1)
            if not isinstance(key, str):
                self.fail(start, f"a key of a map is {key!r}; only texts are allowed")
            encoded = bytes(self.data[start:self.at])
            if encoded <= before:
                why = "occurs twice" if encoded == before else "is out of order (shorter first, then bytewise)"
                self.fail(start, f"the key {key!r} {why}")
            before = encoded
            result[key] = self.item(depth + 1)
        return result


def decode(data, where):
    """The one item that `data` is; anything that is not its only encoding is a Problem of `where`."""
    reader = _Reader(data, where)
    value = reader.item(0)
    if reader.at != len(data):
        reader.fail(reader.at, f"{len(data) - reader.at} bytes follow the item; none are allowed")
    return value


def _head(major, value):
    if value < 24:
        return bytes([major << 5 | value])
    for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << 8 * size:
            return bytes([major << 5 | extra]) + value.to_bytes(size, "big")
    raise ValueError(f"{value} does not fit in 64 bits")


def encode(value):
    """The bytes of a value, in the same encoding."""
    if value is False or value is True or value is None:
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return _head(3, len(raw)) + raw
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(encode, value))
    pairs = sorted((encode(key), encode(inner)) for key, inner in value.items())
    return _head(5, len(pairs)) + b"".join(key + inner for key, inner in pairs)
