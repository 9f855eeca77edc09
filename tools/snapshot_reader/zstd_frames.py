"""A decoder of zstd frames (RFC 8878), without dictionaries."""
from . import zstd_fse as fse
from .xxh3 import xxh64
from .zstd_fse import ZstdError

MAGIC = b"\x28\xb5\x2f\xfd"
MAX_BLOCK = 128 * 1024
MAX_HUFFMAN_BITS = 11
WINDOW_BITS = 1024


def _extra(first, pairs):
    """(baseline, bits) for each code: `first` codes of one value each, then runs of (how many, bits)."""
    table = [(value, 0) for value in first]
    value = first[-1] + 1
    for count, bits in pairs:
        for _ in range(count):
            table.append((value, bits))
            value += 1 << bits
    return table


LITERAL_LENGTHS = _extra(range(16), [(4, 1), (2, 2), (2, 3), (1, 4), *((1, bits) for bits in range(6, 17))])
MATCH_LENGTHS = _extra(range(3, 35), [(4, 1), (2, 2), (2, 3), (2, 4), (1, 5), *((1, bits) for bits in range(7, 17))])
OFFSETS = [(1 << code, code) for code in range(32)]

DEFAULT_LITERAL_LENGTHS = fse.table([4, 3] + [2] * 11 + [1] * 3 + [2] * 9 + [3, 2] + [1] * 5 + [-1] * 4, 6)
DEFAULT_MATCH_LENGTHS = fse.table([1, 4, 3] + [2] * 6 + [1] * 37 + [-1] * 7, 6)
DEFAULT_OFFSETS = fse.table([1] * 6 + [2] * 3 + [1] * 15 + [-1] * 5, 5)


class _Huffman:
    """Symbols by the next bits: one symbol at a time for the end of a stream, as many as fit before that."""

    def __init__(self, weights):
        total = sum(1 << (weight - 1) for weight in weights if weight)
        if not total:
            raise ZstdError("a Huffman tree of weights that are all zero")
        self.bits = total.bit_length()
        left = (1 << self.bits) - total
        if left & (left - 1):
            raise ZstdError("the weights of a Huffman tree do not add up to a power of two")
        if self.bits > MAX_HUFFMAN_BITS:
            raise ZstdError(f"a Huffman code of {self.bits} bits; at most {MAX_HUFFMAN_BITS} are allowed")
        weights = [*weights, left.bit_length()]
        single = []
        for weight in range(1, self.bits + 1):
            for symbol, its in enumerate(weights):
                if its == weight:
                    single += [(symbol, self.bits + 1 - weight)] * (1 << (weight - 1))
        self.single = single
        mask = (1 << self.bits) - 1
        self.runs = []
        for index in range(1 << self.bits):
            symbol, used = single[index]
            run = [symbol]
            while len(run) < 6:
                symbol, bits = single[index << used & mask]
                if used + bits > self.bits:
                    break
                run.append(symbol)
                used += bits
            self.runs.append((bytes(run), used))

    def decode(self, data, count):
        bits, runs, out = self.bits, self.runs, bytearray()
        mask = (1 << bits) - 1
        left = fse.bits_of(data)
        while left >= bits:
            base = max(0, (left - WINDOW_BITS) >> 3)
            window = int.from_bytes(data[base:(left + 7) >> 3], "little")
            base *= 8
            at = left - base - bits
            while at >= 0:
                run, used = runs[window >> at & mask]
                out += run
                at -= used
            left = at + base + bits
        tail = int.from_bytes(data[:2], "little")
        while left:
            symbol, used = self.single[(tail & ((1 << left) - 1)) << (bits - left)]
            if used > left:
                raise ZstdError("a Huffman stream ends within a symbol")
            out.append(symbol)
            left -= used
        if len(out) != count:
            raise ZstdError(f"a Huffman stream holds {len(out)} literals; {count} are expected")
        return out


def _huffman_tree(data):
    """The tree at the beginning of `data`, and how many bytes its description takes."""
    if not data:
        raise ZstdError("a Huffman tree is missing")
    head = data[0]
    if head >= 128:
        count = head - 127
        size = (count + 1) // 2
        nibbles = [half for byte in data[1:1 + size] for half in (byte >> 4, byte & 15)]
        weights = nibbles[:count]
        if len(weights) != count:
            raise ZstdError("the weights of a Huffman tree are cut off")
    else:
        size = head
        body = data[1:1 + size]
        if len(body) != size:
            raise ZstdError("the weights of a Huffman tree are cut off")
        norm, accuracy, used = fse.description(body, 6, MAX_HUFFMAN_BITS + 1)
        weights = fse.interleaved(fse.table(norm, accuracy), accuracy, body[used:])
    if len(weights) > 255 or max(weights) > MAX_HUFFMAN_BITS:
        raise ZstdError("a Huffman tree has more than 256 symbols, or a weight beyond its limit")
    return _Huffman(weights), 1 + size


class _Frame:
    """What blocks of one frame hand on to each other."""

    def __init__(self, limit):
        self.out = bytearray()
        self.limit = limit
        self.huffman = None
        self.tables = [None, None, None]
        self.repeats = [1, 4, 8]

    def literals(self, data):
        """The literals of a compressed block, and what follows them."""
        kind, form = data[0] & 3, data[0] >> 2 & 3
        if kind < 2:
            size = (1, 2, 1, 3)[form]
            count = int.from_bytes(data[:size], "little") >> (3 if size == 1 else 4)
            stored = count if kind == 0 else 1
            body = data[size:size + stored]
            if len(body) != stored or count > MAX_BLOCK:
                raise ZstdError("literals are cut off or too many")
            return bytes(body) if kind == 0 else bytes(body) * count, data[size + stored:]
        size, width = ((3, 10), (3, 10), (4, 14), (5, 18))[form]
        head = int.from_bytes(data[:size], "little") >> 4
        count, stored = head & ((1 << width) - 1), head >> width
        body = data[size:size + stored]
        if len(body) != stored or count > MAX_BLOCK:
            raise ZstdError("literals are cut off or too many")
        rest = data[size + stored:]
        if kind == 2:
            self.huffman, used = _huffman_tree(body)
            body = body[used:]
        elif not self.huffman:
            raise ZstdError("literals use the tree of an earlier block, and there is none")
        if form == 0:
            return bytes(self.huffman.decode(body, count)), rest
        if len(body) < 6:
            raise ZstdError("the sizes of four Huffman streams are cut off")
        sizes = [int.from_bytes(body[i:i + 2], "little") for i in (0, 2, 4)]
        each = (count + 3) // 4
        at, parts = 6, bytearray()
        for stream in range(4):
            end = at + sizes[stream] if stream < 3 else len(body)
            if end > len(body):
                raise ZstdError("Huffman streams are longer than the literals section")
            parts += self.huffman.decode(body[at:end], each if stream < 3 else count - 3 * each)
            at = end
        return bytes(parts), rest

    def sequence_tables(self, modes, data):
        """Sets the three tables; returns what follows their descriptions."""
        if modes & 3:
            raise ZstdError("reserved bits of the sequence modes are set")
        settings = ((6, DEFAULT_LITERAL_LENGTHS, 9, len(LITERAL_LENGTHS)), (4, DEFAULT_OFFSETS, 8, len(OFFSETS)),
                    (2, DEFAULT_MATCH_LENGTHS, 9, len(MATCH_LENGTHS)))
        for which, (shift, default, most, symbols) in enumerate(settings):
            mode = modes >> shift & 3
            if mode == 0:
                self.tables[which] = default
            elif mode == 1:
                if not data or data[0] >= symbols:
                    raise ZstdError("the one code of a sequence table is missing or unknown")
                self.tables[which] = [(data[0], 0, 0)]
                data = data[1:]
            elif mode == 2:
                norm, accuracy, used = fse.description(data, most, symbols)
                self.tables[which] = fse.table(norm, accuracy)
                data = data[used:]
            elif self.tables[which] is None:
                raise ZstdError("a sequence table of an earlier block is wanted, and there is none")
        return data

    def offset(self, value, literals):
        """The distance that an offset value means, and the repeats after it."""
        a, b, c = self.repeats
        if value > 3:
            distance, self.repeats = value - 3, [value - 3, a, b]
            return distance
        which = value - 1 + (literals == 0)
        if which == 0:
            return a
        if which == 1:
            self.repeats = [b, a, c]
        else:
            self.repeats = [c if which == 2 else a - 1, a, b]
        if not self.repeats[0]:
            raise ZstdError("an offset of 0")
        return self.repeats[0]

    def compressed(self, data):
        if len(data) < 2:
            raise ZstdError("a compressed block of less than two bytes")
        literals, data = self.literals(data)
        if not data:
            raise ZstdError("the sequences section is missing")
        count, head = data[0], 1
        if count >= 128:
            head = 2 if count < 255 else 3
            if len(data) < head:
                raise ZstdError("the number of sequences is cut off")
            count = (count - 128 << 8) + data[1] if count < 255 else data[1] + (data[2] << 8) + 0x7F00
        data = data[head:]
        if not count:
            if data:
                raise ZstdError("bytes follow a section without sequences")
            self.out += literals
            return
        if not data:
            raise ZstdError("the modes of the sequence tables are missing")
        data = self.sequence_tables(data[0], data[1:])
        self.sequences(literals, count, data)

    def sequences(self, literals, count, data):
        out, used = self.out, 0
        lengths, offsets, matches = self.tables
        left = fse.bits_of(data)
        base = window = 0
        fresh = False

        def read(bits):
            nonlocal left, base, window, fresh
            left -= bits
            if left < 0:
                raise ZstdError("a sequence is cut off")
            if left < base or not fresh:
                base = max(0, (left + bits - WINDOW_BITS) >> 3) * 8
                window = int.from_bytes(data[base >> 3:(left + bits + 7) >> 3], "little")
                fresh = True
            return window >> (left - base) & ((1 << bits) - 1)

        # Every table has 2^accuracy states.
        states = [read(len(table).bit_length() - 1) for table in (lengths, offsets, matches)]
        for index in range(count):
            length_code, length_bits, length_next = lengths[states[0]]
            offset_code, offset_bits, offset_next = offsets[states[1]]
            match_code, match_bits, match_next = matches[states[2]]
            literal, literal_extra = LITERAL_LENGTHS[length_code]
            match, match_extra = MATCH_LENGTHS[match_code]
            extra = read(offset_code + match_extra + literal_extra)
            literal += extra & ((1 << literal_extra) - 1)
            match += extra >> literal_extra & ((1 << match_extra) - 1)
            distance = self.offset((1 << offset_code) + (extra >> (literal_extra + match_extra)), literal)
            if index + 1 < count:
                bits = read(length_bits + match_bits + offset_bits)
                states = [length_next + (bits >> (match_bits + offset_bits)),
                          offset_next + (bits & ((1 << offset_bits) - 1)),
                          match_next + (bits >> offset_bits & ((1 << match_bits) - 1))]
            if used + literal > len(literals):
                raise ZstdError("the sequences take more literals than there are")
            out += literals[used:used + literal]
            used += literal
            size = len(out)
            if distance > size:
                raise ZstdError(f"a match {distance} bytes back, {size} bytes after the beginning")
            if size + match > self.limit:
                raise ZstdError(f"more than the {self.limit} bytes that are expected")
            start = size - distance
            if distance >= match:
                out += out[start:start + match]
            else:
                piece = bytes(out[start:])
                out += (piece * (match // distance + 1))[:match]
        if left:
            raise ZstdError(f"{left} bits follow the last sequence")
        out += literals[used:]

    def block(self, kind, size, data):
        before = len(self.out)
        if kind == 0:
            self.out += data
        elif kind == 1:
            self.out += bytes(data) * size
        else:
            self.compressed(data)
        if len(self.out) > self.limit:
            raise ZstdError(f"more than the {self.limit} bytes that are expected")
        if len(self.out) - before > MAX_BLOCK:
            raise ZstdError(f"a block of more than {MAX_BLOCK} bytes")


def _header(data):
    """Where the blocks begin, the size that the frame says (or None), and whether a checksum follows."""
    if data[:4] != MAGIC:
        raise ZstdError(f"begins with {bytes(data[:4]).hex()}, which is no zstd frame ({MAGIC.hex()})")
    if len(data) < 6:
        raise ZstdError("the header of the frame is cut off")
    flags = data[4]
    if flags & 8:
        raise ZstdError("the reserved bit of the frame header is set")
    single = flags >> 5 & 1
    at = 5 + (not single)
    dictionary = (0, 1, 2, 4)[flags & 3]
    if any(data[at:at + dictionary]):
        raise ZstdError("the frame needs a dictionary")
    at += dictionary
    width = (single, 2, 4, 8)[flags >> 6]
    if len(data) < at + width:
        raise ZstdError("the header of the frame is cut off")
    size = int.from_bytes(data[at:at + width], "little") + (256 if width == 2 else 0) if width else None
    return at + width, size, bool(flags & 4)


def decompress(data, limit):
    """What one frame holds, which must be the whole of `data` and hold at most `limit` bytes."""
    at, size, checksum = _header(data)
    if size is not None and size > limit:
        raise ZstdError(f"the frame says {size} bytes; {limit} are expected")
    frame = _Frame(limit)
    last = False
    while not last:
        head = int.from_bytes(data[at:at + 3], "little")
        last, kind, length = head & 1, head >> 1 & 3, head >> 3
        stored = 1 if kind == 1 else length
        if kind == 3 or length > MAX_BLOCK:
            raise ZstdError("a block of the reserved type, or longer than 128 KiB")
        if at + 3 + stored > len(data):
            raise ZstdError("a block is cut off")
        frame.block(kind, length, data[at + 3:at + 3 + stored])
        at += 3 + stored
    out = bytes(frame.out)
    if size is not None and len(out) != size:
        raise ZstdError(f"the frame says {size} bytes and holds {len(out)}")
    if checksum:
        if data[at:at + 4] != (xxh64(out) & 0xFFFFFFFF).to_bytes(4, "little"):
            raise ZstdError("the checksum of the frame does not agree")
        at += 4
    if at != len(data):
        raise ZstdError(f"{len(data) - at} bytes follow the frame")
    return out
