"""The section memory/ram/index: the state of each page, the digest of each chunk, and where a packed chunk is."""
import struct

from .problem import Problem

PAGE = 4096
CHUNK = 64
ZERO_DIGEST = bytes(16)
ZERO, PRESENT, SAME_AS, IN_PARENT = range(4)


class Chunk:
    """One record of the index."""

    def __init__(self, number, pages, low, high, digest):
        self.number, self.pages, self.low, self.high, self.digest = number, pages, low, high, digest
        self.mask = low | high
        self.present = low & ~high
        self.present_digest = None
        self.offset = self.stored = 0

    def state(self, page):
        return (self.high >> page & 1) << 1 | (self.low >> page & 1)


class Index:
    """All records; they are taken apart as they are asked for, since a large RAM has millions."""

    def __init__(self, snapshot, value):
        self.snapshot, self.value = snapshot, value
        self.where = f"{snapshot.path}: section memory/ram/index"
        self.pages = value["pages"]
        self.packed = value["encoding"] == "packed"
        self.content = None if snapshot.frame.old else value.get("content")
        self.has_parent = "parent" in snapshot.frame.by_name
        self.count = -(-self.pages // CHUNK)
        self.size = 32 + 24 * self.has_parent + 16 * self.packed
        if len(value["chunks"]) != self.count * self.size:
            raise Problem(self.where, f"chunks has {len(value['chunks'])} bytes; {self.count} records of {self.size} are expected")
        if len(value.get("same_as", b"")) % 8:
            raise Problem(self.where, f"same_as has {len(value['same_as'])} bytes; a multiple of 8 is expected")
        region = snapshot.region
        if region and bool(region.blocks or region.flags & 4) != self.packed:
            raise Problem(self.where, f"encoding is {value['encoding']}, and memory/ram is the other one")
        if snapshot.frame.encrypted and not self.packed:
            raise Problem(self.where, "encoding is mapped; an encrypted file is packed")
        if snapshot.frame.old and self.packed:
            raise Problem(self.where, "encoding is packed; format 0.1 has mapped alone")
        if region and not self.packed and region.length != self.pages * PAGE:
            raise Problem(self.where, f"pages is {self.pages}; memory/ram has {region.length} bytes")
        self._check()

    def pages_of(self, number):
        return min(CHUNK, self.pages - number * CHUNK)

    def chunk(self, number):
        at = number * self.size
        low, high, digest = struct.unpack_from("<QQ16s", self.value["chunks"], at)
        chunk = Chunk(number, self.pages_of(number), low, high, digest)
        at += 32
        if self.has_parent:
            chunk.given_mask, chunk.present_digest = struct.unpack_from("<Q16s", self.value["chunks"], at)
            at += 24
        if self.packed:
            chunk.offset, chunk.stored, chunk.reserved = struct.unpack_from("<QII", self.value["chunks"], at)
        return chunk

    def chunks(self):
        return map(self.chunk, range(self.count))

    def _check(self):
        self.targets = {}
        same_as = struct.unpack(f"<{len(self.value.get('same_as', b'')) // 8}Q", self.value.get("same_as", b""))
        if "same_as" in self.value and not same_as:
            raise Problem(self.where, "same_as is empty; it is left out when there are no such pages")
        following = iter(same_as)
        before = 0
        for chunk in self.chunks():
            self._check_chunk(chunk, before)
            before = max(before, chunk.offset)
            copies = chunk.high & ~chunk.low
            for page in range(chunk.pages) if copies else ():
                if copies >> page & 1:
                    self._add_target(chunk.number * CHUNK + page, next(following, None))
        left = sum(1 for _ in following)
        if left:
            raise Problem(self.where, f"same_as has {left} targets more than there are such pages")

    def _check_chunk(self, chunk, before):
        where = f"{self.where}: chunk {chunk.number}"
        if (chunk.low | chunk.high) >> chunk.pages:
            raise Problem(where, "bits after the last page are set")
        if chunk.low & chunk.high and not self.has_parent:
            raise Problem(where, "has pages in a parent, and the file has none")
        if chunk.high & ~chunk.low and not self.packed:
            raise Problem(where, "has same-as pages; a mapped file has none")
        if (chunk.digest == ZERO_DIGEST) != (not chunk.mask):
            raise Problem(where, "the digest is zero when all pages are zeros, and only then")
        if self.has_parent:
            if chunk.given_mask != chunk.mask:
                raise Problem(where, f"the mask of pages that are not zeros is 0x{chunk.given_mask:x}; the states say 0x{chunk.mask:x}")
            if (chunk.present_digest == ZERO_DIGEST) != (not chunk.present):
                raise Problem(where, "the digest of the present pages is zero when there are none, and only then")
        if self.packed:
            if chunk.reserved:
                raise Problem(where, f"the last four bytes are 0x{chunk.reserved:x}; they must be zero")
            if bool(chunk.present) != bool(chunk.offset) or bool(chunk.present) != bool(chunk.stored):
                raise Problem(where, f"block of {chunk.stored} bytes at {chunk.offset}; one is there for a chunk with present pages, and only then")
            if chunk.offset and chunk.offset <= before:
                raise Problem(where, f"block at {chunk.offset}, before that of an earlier chunk")

    def _add_target(self, page, target):
        if target is None:
            raise Problem(self.where, f"same_as ends before the target of page {page}")
        if target >= page or self.chunk(target // CHUNK).state(target % CHUNK) != PRESENT:
            raise Problem(self.where, f"page {page} is same as page {target}; a present page of a lower number is expected")
        self.targets[page] = target
