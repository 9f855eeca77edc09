"""The command line of tools/read_snapshot.py."""
import argparse
import json
import os
import sys
import tempfile
import uuid

from . import schema
from .keys import read_key
from .problem import MissingParent, Problem, strict
from .ram import missing_parent, open_chain
from .snapshot import Snapshot

EXAMPLES = """examples:
  read_snapshot.py list web.stasis
  read_snapshot.py state web.stasis                       # every record
  read_snapshot.py state web.stasis cpu/0                 # one, or all below a path
  read_snapshot.py state web.stasis cpu/0/rip --json      # one field
  read_snapshot.py ram web.stasis ram.bin
  read_snapshot.py ram tuesday.stasis ram.bin --parent monday.stasis --parent sunday.stasis
  read_snapshot.py ram secret.stasis ram.bin --key key.hex
  read_snapshot.py verify web.stasis                      # the last line is the content digest

exit status: 0 done and nothing wrong, 1 a file is damaged or cannot be read, 2 the command line is wrong"""


def _parser():
    parser = argparse.ArgumentParser(prog="read_snapshot.py", description="Reads Stasis snapshot files (docs/format.md).",
                                     epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, text, parents=False):
        made = commands.add_parser(name, help=text, description=text, epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
        made.add_argument("file", metavar="FILE", help="a snapshot")
        made.add_argument("--key", action="append", default=[], metavar="FILE",
                          help="a key: 32 bytes, or 64 hexadecimal digits; may be repeated")
        if parents:
            made.add_argument("--parent", action="append", default=[], metavar="FILE",
                              help="an ancestor of an incremental file, in any order, or a folder that has it under its name; may be repeated")
        return made

    listing = command("list", "header, producer, sections with their digests checked, notes, parent")
    listing.add_argument("--json", action="store_true", help="the same as one JSON object")
    state = command("state", "state records with names, units and meanings", parents=True)
    state.add_argument("path", nargs="?", default="", metavar="PATH", help="a record, a field below it, or the beginning of paths")
    state.add_argument("--json", action="store_true", help="the same as JSON")
    ram = command("ram", "writes the RAM to a file", parents=True)
    ram.add_argument("out", metavar="OUT", help="replaced when all of RAM is written")
    command("verify", "checks every digest, and prints the content digest", parents=True)
    return parser


def _say(problem):
    print(f"read_snapshot: {problem}", file=sys.stderr)


def _list(options, keys):
    problems = []
    snapshot = Snapshot(options.file, keys, problems.append)
    frame = snapshot.frame
    producer, parent = snapshot.values.get("producer", {}), snapshot.parent
    content = snapshot.content_digest() if not snapshot.locked else None
    result = {
        "file": options.file, "format": f"{frame.major}.{frame.minor}", "uuid": str(frame.uuid), "bytes": frame.size,
        "encrypted": frame.encrypted, "root": frame.root.hex(), "digest": content.hex() if content else None, "producer": producer,
        "sections": [{"name": s.name, "version": s.version, "flags": s.flag_names, "offset": s.offset, "body": s.body, "bytes": s.length,
                      "digest": None if s.is_region else s.digest.hex(),
                      "checked": s.name in snapshot.stored} for s in frame.sections],
        "parts": snapshot.parts, "host": snapshot.values.get("host", []), "notes": snapshot.values.get("notes", []),
        "parent": parent and {"content": parent["content"].hex(), "uuid": str(uuid.UUID(bytes=parent["uuid"])), "file": parent["file"]},
    }
    if snapshot.index:
        chunks = list(snapshot.index.chunks())
        result["ram"] = {"encoding": snapshot.index.value["encoding"], "bytes": snapshot.index.pages * 4096, "pages": snapshot.index.pages,
                         "present": sum(c.present.bit_count() for c in chunks),
                         "same_as": sum((c.high & ~c.low).bit_count() for c in chunks),
                         "in_parent": sum((c.high & c.low).bit_count() for c in chunks)}
    result["problems"] = [str(problem) for problem in problems]
    if options.json:
        print(json.dumps(result, indent=2, ensure_ascii=False, default=bytes.hex))
    else:
        _print_list(result, snapshot)
    for problem in problems:
        _say(problem)
    return bool(problems)


def _print_list(result, snapshot):
    print(f"{result['file']}: format {result['format']}, uuid {result['uuid']}, {result['bytes']} bytes"
          + (", encrypted" if result["encrypted"] else ""))
    producer = result["producer"]
    if producer:
        print(f"producer: {producer['program']} {producer['version']}, format {producer['format']}, at {producer['created_at']}")
    print(f"root: {result['root']}")
    if result["digest"]:
        print(f"content: {result['digest']}")
    if snapshot.locked:
        print(f"locked: {snapshot.locked}")
    if result["parent"]:
        print("parent: {file} (content {content}, uuid {uuid})".format(**result["parent"]))
    if "ram" in result:
        print("RAM: {bytes} bytes, {encoding}; of {pages} pages {present} present, {same_as} same as another, {in_parent} in the parent"
              .format(**result["ram"]))
    print("sections:")
    width = max(len(section["name"]) for section in result["sections"])
    for section in result["sections"]:
        digest = ("see its index" if section["digest"] is None
                  else section["digest"] + (" ok" if section["checked"] else " WRONG"))
        print(f"  {section['name']:<{width}}  {section['bytes']:>12} bytes at {section['body']:<12} {digest}  {', '.join(section['flags'])}")
    for need in result["host"]:
        print("needs of the host: {name} ({kind}) {hint}".format(**need))
    for note in result["notes"]:
        print("note: {at} {by}: {text}".format(**note))


def _require_whole(ram):
    without = missing_parent(ram)
    if without:
        raise MissingParent(without.path, f"its parent with content {without.parent['content'].hex()} (named "
                            f"'{without.parent['file']}' then) is not among the files given and not beside it; name it with --parent")


def _state(options, keys):
    snapshot = Snapshot(options.file, keys, strict)
    snapshot.require_unlocked()
    if snapshot.lacking:
        ram = open_chain(snapshot, options.parent, keys)
        if snapshot.lacking:
            _require_whole(ram)
    path = options.path.strip("/")
    records = [snapshot.records[name] for name in sorted(snapshot.records) if not path or name == path or name.startswith(path + "/")]
    if records:
        if options.json:
            print(json.dumps([{"path": r.path, "kind": r.kind, "version": r.version,
                               "state": schema.plain(r.state), "fields": [row.json() for row in schema.rows(r)]}
                              for r in records], indent=2, ensure_ascii=False, default=bytes.hex))
        else:
            for record in records:
                print(f"{record.path}  (kind {record.kind}, version {record.version})")
                for row in schema.rows(record):
                    print("\n".join(row.lines(1)))
        return 0
    rows = [schema.find(record, path) for name, record in snapshot.records.items() if path.startswith(name + "/")]
    rows = [row for row in rows if row]
    if not rows:
        _say(f"{options.file}: has no record or field '{path}'; 'read_snapshot.py list' shows the records")
        return 2
    if options.json:
        print(json.dumps(rows[0].json(), indent=2, ensure_ascii=False, default=bytes.hex))
    else:
        print("\n".join(rows[0].lines(0)))
    return 0


def _ram(options, keys):
    for path in [options.file, *options.parent]:
        if os.path.exists(options.out) and os.path.exists(path) and os.path.samefile(path, options.out):
            _say(f"{options.out}: is the snapshot {path} itself; OUT must be another file")
            return 2
    snapshot = Snapshot(options.file, keys, strict)
    snapshot.require_unlocked()
    ram = open_chain(snapshot, options.parent, keys)
    _require_whole(ram)
    folder = os.path.dirname(os.path.abspath(options.out))
    try:
        out = tempfile.NamedTemporaryFile(dir=folder, prefix=".ram-", delete=False)
    except OSError as error:
        _say(f"{options.out}: cannot be written: {error.strerror}")
        return 1
    try:
        with out:
            written = ram.extract(out)
        os.replace(out.name, options.out)
    except BaseException:
        os.unlink(out.name)
        raise
    print(f"{options.out}: {ram.index.pages * 4096} bytes, {written} pages not all zeros")
    return 0


def _verify(options, keys):
    problems = []
    snapshot = Snapshot(options.file, keys, problems.append)
    content = None
    if snapshot.locked:
        # Without the key all that is stored can still be checked for damage.
        for section in snapshot.frame.sections:
            for block in section.blocks:
                try:
                    snapshot.frame.block(block)
                except Problem as problem:
                    problems.append(problem)
        print(f"not checked: what the ciphertext holds; {options.file} {snapshot.locked}")
    elif snapshot.index and snapshot.region:
        content = snapshot.content_digest()
        try:
            ram = open_chain(snapshot, options.parent, keys)
            missing = ram.verify()
        except Problem as problem:
            problems.append(problem)
            ram, missing = None, 0
        without = ram and missing_parent(ram)
        if missing:
            print(f"not checked: {missing} pages of chunks with pages in {without.parent['file'] or 'a parent'} "
                  f"(content {without.parent['content'].hex()}), which is not given (--parent)")
    for problem in problems:
        _say(problem)
    if problems:
        print(f"{options.file}: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
        return 1
    print(f"{options.file}: no problem found; root {snapshot.frame.root.hex()}")
    if content:
        print(content.hex())
    return 0


def main(arguments):
    options = _parser().parse_args(arguments)
    action = {"list": _list, "state": _state, "ram": _ram, "verify": _verify}[options.command]
    try:
        return int(action(options, [read_key(path) for path in options.key]))
    except Problem as problem:
        _say(problem)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
