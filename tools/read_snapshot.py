#!/usr/bin/env python3
"""Reads snapshot files: their sections, every state record, RAM, and whether all of it is sound.

Written from docs/format.md alone, with the standard library of Python 3.11 alone.
"""
import sys

from snapshot_reader.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
