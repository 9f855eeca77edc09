#!/usr/bin/env python3
"""Checks that each room of src/ includes only the rooms that docs/architecture.md allows it."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ALLOWED = {
    "base": set(),
    "state": {"base"},
    "memory": {"base", "state"},
    "snapshot": {"base", "state"},
    "inspect": {"base", "state", "snapshot"},
    "bus": {"base", "state", "memory"},
    "host": {"base"},
    "devices": {"base", "state", "memory", "bus", "host"},
    "cpu": {"base", "state", "memory", "bus"},
    "machine": {"base", "state", "snapshot", "memory", "bus", "host", "devices", "cpu"},
    "control": {"base", "state", "snapshot", "machine", "host"},
    "cli": {"base", "state", "snapshot", "inspect", "machine", "control", "host"},
}
SIBLINGS = {"devices", "cpu"}  # folders in these never include each other
HOST_CLOCK = re.compile(r"steady_clock|system_clock|clock_gettime|gettimeofday")


def problems_of(path):
    room, *rest = path.relative_to(ROOT / "src").parts
    if room == "main.cpp":
        room = "cli"
    if room not in ALLOWED:
        yield f"{path.relative_to(ROOT)}: room '{room}' is not one of {', '.join(ALLOWED)}"
        return
    text = path.read_text()
    for included in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M):
        target, *inner = included.split("/")
        if target != room and target in ALLOWED and target not in ALLOWED[room]:
            yield f"{path.relative_to(ROOT)}: includes \"{included}\", but {room}/ may include only {sorted(ALLOWED[room])}"
        if target == room and room in SIBLINGS and len(inner) > 1 and len(rest) > 1 and inner[0] != rest[0]:
            yield f"{path.relative_to(ROOT)}: includes its sibling \"{included}\""
    if room not in ("host", "cli") and HOST_CLOCK.search(text):
        yield f"{path.relative_to(ROOT)}: reads a host clock; only host/ does"


def main():
    files = sorted(p for p in (ROOT / "src").rglob("*") if p.suffix in (".cpp", ".hpp"))
    problems = [problem for path in files for problem in problems_of(path)]
    print("\n".join(problems) if problems else f"layers: {len(files)} files, each includes only what its room may")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
