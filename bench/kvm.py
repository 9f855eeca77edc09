#!/usr/bin/env python3
"""The figures of Stasis under KVM beside QEMU's under the same KVM, in turn in one machine: medians and ratios.

  bench/kvm.py [boot] [exits] [pause] [save] [full] [--runs N] [--json FILE]

boot   start of the process to the guest's first user-space line
exits  accesses per second that the monitor answers in user space: a port (the UART's modem status, by
       TIOCMGET in the guest) and MMIO (the HPET's first register)
pause  of a guest that computes, from the request over an open connection to the answer; and unpause
save   suspend, from the request to the complete file (QEMU: stop, migrate to a file); resume, from the start of the process to
       the guest's next line
full   the same with 256 MiB of incompressible data

All with one vCPU and 512 MiB. Without KVM on hardware, in the machine that tests/kvm/nested.py emulates: there only the ratios mean
anything. Needs build/release/stasis, build/guest (./dev bench-kvm makes both) and qemu-system-x86_64.
"""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile

from machines import GUEST, ROOT, STASIS

sys.path.insert(0, str(ROOT / "tests/kvm"))
import nested  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
WHAT = ("boot", "exits", "pause", "save", "full")


def table(figures):
    print(f"{'median':18} {'stasis':>12} {'qemu':>12} {'ratio':>7}   (times and sizes: below 1 is better; per second: above 1)")
    for name, ours in figures["stasis"].items():
        s, q = statistics.median(ours), statistics.median(figures["qemu"][name])
        what, unit = name.rsplit("_", 1) if not name.endswith("_per_s") else (name[:-6], "/s")
        scale, unit = (1e3, "ms") if unit == "s" else (1, unit)
        print(f"{what:18} {s * scale:9.1f} {unit:2} {q * scale:9.1f} {unit:2} {s / q:7.2f}   of {len(ours)} and {len(figures['qemu'][name])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*WHAT, []], default=[])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", help="also write all values to this file")
    arguments = parser.parse_args()
    what = arguments.what or list(WHAT)
    with tempfile.TemporaryDirectory() as folder:
        result = nested.run(f"python3 {HERE}/kvm_job.py {arguments.runs} {' '.join(what)}",
                            [STASIS, GUEST / "vmlinuz", GUEST / "initramfs.gz", HERE / "kvm_job.py", HERE / "machines.py"], cpus=1, memory=4096,
                            timeout=240 * arguments.runs * len(what), out=folder, echo=True)
        if result.status:
            sys.exit("the job failed")
        text = (result.folder / "figures.json").read_text()
    if arguments.json:
        pathlib.Path(arguments.json).write_text(text + "\n")
    table(json.loads(text))


if __name__ == "__main__":
    main()
