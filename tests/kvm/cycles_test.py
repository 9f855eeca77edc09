#!/usr/bin/env python3
"""Linux under KVM, saved and resumed many times while all CPUs compute: nothing is lost, doubled or changed, no time jumps.

STASIS_CHECKPOINTS and STASIS_SUSPENDS say how many of each. The guest is tests/kvm/guest (watch.c, keep.c); it is cycled
by cycles_job.py where KVM is, and judged here by its serial line.
"""
import json
import os
import pathlib
import re
import shutil
import statistics
import struct
import subprocess
import tempfile
import unittest

import nested

HERE = pathlib.Path(__file__).resolve().parent
STASIS = pathlib.Path(os.environ.get("STASIS", nested.images.ROOT / "build/release/stasis")).resolve()
GUEST = pathlib.Path(os.environ.get("STASIS_GUEST", nested.images.ROOT / "build/guest")).resolve()
CHECKPOINTS = int(os.environ.get("STASIS_CHECKPOINTS", "2"))
SUSPENDS = int(os.environ.get("STASIS_SUSPENDS", "2"))
TIMEOUT = 240 + 30 * (CHECKPOINTS + SUSPENDS)
PRIME = 2 ** 61 - 1
MOST_DRIFT_NS = 1_000_000  # in one cycle
NUMBER = r"(-?\d+)"


def block_digest():
    """What digest_block() of watch.c gives."""
    mask, word, digest, average = 2 ** 64 - 1, 42, 0, 0.0
    for i in range(2048):
        word = (word * 6364136223846793005 + 1442695040888963407) & mask
        digest = ((digest << 7 | digest >> 57) ^ word * 0x100000001B3) & mask
        average += (float(word >> 11) - average) / float(i + 1)
    return digest ^ struct.unpack("<Q", struct.pack("<d", average))[0]


def stretches(lines, cuts):
    """The lines between one save and the next."""
    edges = [0] + [cut["last"] for cut in cuts] + [len(lines)]
    ends = [cut["first"] for cut in cuts] + [len(lines)]
    return [lines[begin:max(begin, end)] for begin, end in zip(edges, ends)]


def tsc_step(lines, cut):
    """How far the TSC went from CLOCK_MONOTONIC at a save, in ns; its rate is that of the lines after it."""
    before, after, last = lines[cut["first"] - 1], lines[cut["last"] + 1], lines[-1]
    rate = (last[4] - after[4]) / (last[5] - after[5])
    return (after[4] - before[4]) / rate - (after[5] - before[5])


class Cycles(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not nested.has_kvm():
            nested.images.base_image()  # the modules that the guest has are made with it
        subprocess.run([str(HERE / "guest/build")], check=True)

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="cycles."))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def cycle(self, cpus):
        job, initrd, kernel = HERE / "cycles_job.py", nested.images.NESTED / "guest.gz", GUEST / "vmlinuz"
        result = nested.run(f"python3 {job} {STASIS} {kernel} {initrd} {cpus} {CHECKPOINTS} {SUSPENDS}", [job, STASIS, kernel, initrd],
                            cpus=1, out=self.folder / "out", timeout=TIMEOUT, environment={"XDG_RUNTIME_DIR": "/tmp"}, echo="STASIS_ECHO" in os.environ)
        kept = os.environ.get("STASIS_KEEP")
        if kept:
            shutil.copytree(self.folder / "out", f"{kept}-{cpus}", dirs_exist_ok=True)
        self.assertEqual(result.status, 0, result.log)
        text = (self.folder / "out/console").read_bytes().decode("ascii").replace("\r\n", "\n")
        cuts = json.loads((self.folder / "out/cuts.json").read_text())
        self.assertEqual([cut["kind"] for cut in cuts], ["checkpoint"] * CHECKPOINTS + ["suspend"] * SUSPENDS)
        lines = [tuple(map(int, found)) for found in re.findall(rf"^SEQ {NUMBER} {NUMBER} {NUMBER} {NUMBER} {NUMBER} {NUMBER}$", text, re.M)]
        self.check_lines(text, lines)
        self.check_computation(text, cpus)
        self.check_registers(text, cpus)
        self.check_kernel(text)
        self.check_clocks(text, lines, cuts, cpus)

    def check_lines(self, text, lines):
        """Nothing lost, doubled, reordered, or torn."""
        self.assertEqual(text.count("SEQ "), len(lines))
        self.assertEqual([line[0] for line in lines], list(range(len(lines))))
        self.assertEqual([int(n) for n in re.findall(r"^ECHO line (\d+)$", text, re.M)], list(range(CHECKPOINTS + SUSPENDS)))
        self.assertEqual(text.count("ECHO"), CHECKPOINTS + SUSPENDS)

    def check_computation(self, text, cpus):
        self.assertIn(f"WATCH cpus {cpus} hpet 1\n", text)
        found = re.findall(r"^CPU (\d+) steps (\d+) value ([0-9a-f]+) blocks (\d+) digest ([0-9a-f]+) wrong (\d+) ", text, re.M)
        self.assertEqual([int(cpu) for cpu, *_ in found], list(range(cpus)))
        for cpu, steps, value, blocks, digest, wrong in found:
            self.assertGreater(int(blocks), CHECKPOINTS + SUSPENDS)
            self.assertEqual(int(value, 16), pow(10007 + int(cpu), int(steps), PRIME), f"CPU {cpu}")
            self.assertEqual((int(digest, 16), int(wrong)), (block_digest(), 0), f"CPU {cpu}")

    def check_registers(self, text, cpus):
        vectors, size = map(int, re.search(rf"^KEEP cpus {cpus} vectors (\d+) of (\d+) bytes", text, re.M).groups())
        self.assertGreaterEqual((vectors, size), (16, 32), "AVX is what the CPU model promises")
        self.assertEqual(re.findall(r"^.*KEEP WRONG.*$", text, re.M), [])
        found = re.findall(r"^KEEP cpu (\d+) rounds (\d+) wrong (\d+) msrs (\d+) changed (\d+)$", text, re.M)
        self.assertEqual([int(cpu) for cpu, *_ in found], list(range(cpus)))
        for cpu, rounds, wrong, msrs, changed in found:
            self.assertGreater(int(rounds), CHECKPOINTS + SUSPENDS, f"CPU {cpu}")
            self.assertGreater(int(msrs), 25, f"CPU {cpu}")
            self.assertEqual((int(wrong), int(changed)), (0, 0), f"CPU {cpu}")
        looks, wrong = map(int, re.search(r"^KEEP debug registers looks (\d+) wrong (\d+)$", text, re.M).groups())
        self.assertGreater(looks, CHECKPOINTS + SUSPENDS)
        self.assertEqual(wrong, 0)

    def check_kernel(self, text):
        """Lockups, stalls and clocks that the kernel does not trust are warnings of it."""
        told = text[text.index("DMESG BEGIN\n"):text.index("DMESG END\n")]
        for word in ("lockup", "stall", "nstable", "clocksource watchdog", "BUG", "WARNING", "Oops", "NMI handler"):
            self.assertNotIn(word, told)

    def check_clocks(self, text, lines, cuts, cpus):
        self.assertRegex(text, r"(?m)^CLOCKS backwards 0 tsc_backwards 0 real_jumps 0$")
        times = [line[1] for line in lines]
        self.assertEqual(times, sorted(times))
        parts = [part for part in stretches(lines, cuts) if part]
        # CLOCK_REALTIME and the HPET, which is the monitor's, against CLOCK_MONOTONIC, by a number that noise moves least.
        apart = {"real": [min(line[2] for line in part) for part in parts], "hpet": [statistics.median(line[3] for line in part) for part in parts]}
        drift = {name: max((abs(b - a) for a, b in zip(of, of[1:])), default=0) for name, of in apart.items()}
        drift["tsc"] = max((abs(tsc_step(lines, cut)) for cut in cuts if 1 < cut["first"] and cut["last"] + 2 < len(lines)), default=0)
        self.assertLess(max(drift.values()), MOST_DRIFT_NS, drift)
        whole = abs(apart["hpet"][-1] - apart["hpet"][0]) / max(1, len(cuts))
        self.assertLess(whole, MOST_DRIFT_NS)
        # The guest does not see the time of which it has none: what it counted across a save is less than half of it.
        worst = 0
        for cut in cuts:
            gap = max((b - a for a, b in zip(times[max(0, cut["first"] - 1):], times[cut["first"]:cut["last"] + 1])), default=0)
            still = (cut.get("resumed", cut["answered"]) - cut["asked"]) * 1e9
            self.assertLess(gap, max(still / 2, 2e8), cut)
            worst = max(worst, gap)
        clock = re.search(r"^CLOCKSOURCE (.*)$", text, re.M)[1]
        print(f"\n{cpus} CPUs, {CHECKPOINTS} checkpoints, {SUSPENDS} suspends: {len(lines)} lines, {clock}; worst drift in a cycle: "
              f"HPET {drift['hpet'] / 1e3:.1f} us, TSC {drift['tsc'] / 1e3:.1f} us, REALTIME {drift['real'] / 1e3:.1f} us, HPET on the whole {whole / 1e3:.2f} us a cycle; "
              f"most counted across a save {worst / 1e6:.1f} ms", flush=True)

    def test_one_cpu(self):
        self.cycle(1)

    def test_four_cpus(self):
        self.cycle(4)


if __name__ == "__main__":
    unittest.main()
