"""The RAM of a snapshot: pages held in the file, mapped or packed, copies of other pages, and pages of its parents."""
import os
from collections import OrderedDict

from . import xxh3, zstd_frames
from .index import CHUNK, IN_PARENT, PAGE, PRESENT, SAME_AS, ZERO
from .problem import MissingParent, Problem, strict
from .snapshot import Snapshot

MAX_ANCESTORS = 1000
KEPT_CHUNKS = 64
ZERO_PAGE = bytes(PAGE)


class Ram:
    """The pages of one file; `parent` is the Ram of its parent, or None when it has none or it is not known."""

    def __init__(self, snapshot, parent=None):
        self.snapshot, self.parent = snapshot, parent
        snapshot.require_unlocked()
        self.index, self.frame = snapshot.index, snapshot.frame
        if not self.index or not snapshot.region:
            raise Problem(snapshot.path, "its RAM cannot be read, because memory/ram or its index is missing or wrong")
        if "parent" in snapshot.frame.by_name and not snapshot.parent:
            raise Problem(snapshot.path, "its RAM cannot be read, because its section parent is wrong")
        if parent and parent.index.pages != self.index.pages:
            raise Problem(snapshot.path, f"has {self.index.pages} pages of RAM; its parent {parent.snapshot.path} has {parent.index.pages}")
        self.kept = OrderedDict()
        self.blocks = {block.chunk: block for block in snapshot.region.blocks}

    def present(self, number):
        """The pages of a chunk that this file holds: number within the chunk to bytes."""
        if number in self.kept:
            self.kept.move_to_end(number)
            return self.kept[number]
        chunk = self.index.chunk(number)
        pages = self._packed(chunk) if self.index.packed else self._mapped(chunk)
        self.kept[number] = pages
        if len(self.kept) > KEPT_CHUNKS:
            self.kept.popitem(last=False)
        return pages

    def _numbers(self, chunk):
        return [page for page in range(chunk.pages) if chunk.present >> page & 1]

    def _mapped(self, chunk):
        if not chunk.present:
            return {}
        data = self.frame.read(self.snapshot.region.body + chunk.number * CHUNK * PAGE, chunk.pages * PAGE, f"chunk {chunk.number}")
        return {page: data[page * PAGE:(page + 1) * PAGE] for page in self._numbers(chunk)}

    def _packed(self, chunk):
        if not chunk.present:
            return {}
        block = self.blocks.get(chunk.number)
        where = f"{self.snapshot.path}: memory/ram: chunk {chunk.number}"
        if not block or (block.offset, block.stored) != (chunk.offset, chunk.stored):
            raise Problem(where, f"the index says a block of {chunk.stored} bytes at {chunk.offset}; there is no such one of this chunk")
        data = self.frame.block(block)
        if self.snapshot.cipher:
            data = self.snapshot.cipher.block(where, chunk.number, data)
        numbers = self._numbers(chunk)
        size = len(numbers) * PAGE
        if len(data) > size:
            raise Problem(where, f"{len(data)} bytes are stored of {size}; no more than these are allowed")
        if len(data) < size:
            try:
                data = zstd_frames.decompress(data, size)
            except zstd_frames.ZstdError as error:
                raise Problem(where, f"zstd: {error}") from error
            if len(data) != size:
                raise Problem(where, f"zstd: holds {len(data)} bytes; {size} are expected")
        return {page: data[at * PAGE:(at + 1) * PAGE] for at, page in enumerate(numbers)}

    def page(self, number):
        """The bytes of a page, which has content, wherever it is held."""
        chunk = self.index.chunk(number // CHUNK)
        state = chunk.state(number % CHUNK)
        if state == PRESENT:
            return self.present(chunk.number)[number % CHUNK]
        if state == SAME_AS:
            return self.page(self.index.targets[number])
        if state == IN_PARENT:
            if not self.parent:
                raise MissingParent(self.snapshot.path, f"page {number} is in its parent, which is not given (--parent)")
            return self.parent.page(number)
        raise Problem(self.snapshot.path, f"page {number} is all zeros, and a child of this file has content there from it")

    def content(self, number, check=True):
        """The pages of a chunk that are not all zeros: number within the chunk to bytes. Checks the digest of the chunk."""
        chunk = self.index.chunk(number)
        pages = {page: self.page(number * CHUNK + page) for page in range(chunk.pages) if chunk.state(page) != ZERO}
        if check and pages:
            self._check_digest(chunk, "digest", chunk.digest, pages)
        return pages

    def _check_digest(self, chunk, what, expected, pages):
        got = xxh3.digest(b"".join(xxh3.digest(pages[page]) for page in sorted(pages)))
        if got != expected:
            raise Problem(f"{self.snapshot.path}: memory/ram: chunk {chunk.number}", f"the {what} is {expected.hex()}; the pages have {got.hex()}")

    def verify(self):
        """Checks all that this file holds; returns how many pages could not be checked for want of the parent."""
        report = self.snapshot.report
        missing = 0
        if self.index.packed:
            self._verify_blocks(report)
        else:
            self._verify_holes(report)
        for chunk in self.index.chunks():
            try:
                missing += self._verify_chunk(chunk)
            except Problem as problem:
                report(problem)
        return missing

    def _verify_chunk(self, chunk):
        where = f"{self.snapshot.path}: memory/ram: chunk {chunk.number}"
        held = self.present(chunk.number)
        for page, data in held.items():
            if data == ZERO_PAGE:
                raise Problem(where, f"page {page} is present and all zeros; its state must be zero")
        if held and chunk.present_digest is not None:
            self._check_digest(chunk, "digest of the present pages", chunk.present_digest, held)
        in_parent = chunk.low & chunk.high
        if in_parent and not self.parent:
            return in_parent.bit_count()
        self.content(chunk.number)
        return 0

    def _verify_blocks(self, report):
        before = -1
        for block in self.snapshot.region.blocks:
            where = f"{self.snapshot.path}: memory/ram: block at {block.offset}"
            if block.chunk <= before:
                report(Problem(where, f"is of chunk {block.chunk}, after one of chunk {before}; they are ascending"))
            before = block.chunk
            if block.chunk >= self.index.count or not self.index.chunk(block.chunk).present:
                report(Problem(where, f"is of chunk {block.chunk}, which has no present page"))

    def _verify_holes(self, report):
        """Bytes of pages that are not present must read as zero; holes of the file are skipped."""
        begin = self.snapshot.region.body
        end = begin + self.index.pages * PAGE
        at = begin
        while at < end:
            try:
                at = os.lseek(self.frame.file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            number = (at - begin) // (CHUNK * PAGE)
            if at >= end:
                return
            chunk = self.index.chunk(number)
            start = begin + number * CHUNK * PAGE
            data = self.frame.read(start, chunk.pages * PAGE, f"chunk {number}")
            for page in range(chunk.pages):
                if not chunk.present >> page & 1 and data[page * PAGE:(page + 1) * PAGE] != ZERO_PAGE:
                    report(Problem(f"{self.snapshot.path}: memory/ram: chunk {number}", f"page {page} is not present and not all zeros in the file"))
            at = start + chunk.pages * PAGE

    def extract(self, out):
        """Writes the whole of RAM to a file object that is empty, leaving holes where pages are zeros."""
        out.truncate(self.index.pages * PAGE)
        written = 0
        for number in range(self.index.count):
            pages = self.content(number)
            for page in sorted(pages):
                out.seek((number * CHUNK + page) * PAGE)
                out.write(pages[page])
            written += len(pages)
        return written


def _candidates(snapshot, paths):
    """Where the parent may be: where the caller says (files, or folders that have it under its name), then beside the child."""
    name = snapshot.parent["file"]
    folders = [path for path in paths if os.path.isdir(path)] + [os.path.dirname(snapshot.path)]
    return [path for path in paths if path not in folders] + [
        path for path in (os.path.join(folder, name) for folder in folders) if name and os.path.isfile(path)]


def _find_parent(snapshot, paths, keys, chain):
    content = snapshot.parent["content"]
    for path in _candidates(snapshot, paths):
        if os.path.exists(path) and any(os.path.samefile(path, child) for child in chain):
            continue
        try:
            candidate = Snapshot(path, keys, strict)
            candidate.require_unlocked()
        except Problem:
            # Only a file that was named is worth an error; one beside the child may be something else.
            if path in paths:
                raise
            continue
        if candidate.content_digest() == content:
            return candidate
    return None


def open_chain(snapshot, parents=(), keys=()):
    """The Ram of a file with that of its ancestors, as far as they are found; it takes over their records too."""
    chain = [snapshot]
    while chain[-1].parent:
        found = _find_parent(chain[-1], parents, keys, [known.path for known in chain])
        if not found:
            break
        if len(chain) > MAX_ANCESTORS:
            raise Problem(snapshot.path, f"has more than {MAX_ANCESTORS} ancestors")
        chain.append(found)
    ram = Ram(chain.pop())
    while chain:
        child = chain.pop()
        child.inherit(ram.snapshot)
        ram = Ram(child, ram)
    return ram


def missing_parent(ram):
    """The file in a chain whose parent is not known, or None."""
    while ram.parent:
        ram = ram.parent
    return ram.snapshot if ram.snapshot.parent else None
