"""A reader of snapshot files in Python alone, written from docs/format.md; tools/read_snapshot.py is its command."""
