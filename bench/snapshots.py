#!/usr/bin/env python3
"""What saving, packing, opening and checking snapshots costs, beside dd, zstd and QEMU's savevm and migrate, in one run.

  bench/snapshots.py [--memory MIB] [--random MIB] [--heap MIB] [--runs N] [--quick] [--json FILE]

A guest of --memory MiB holds --random MiB of incompressible data, --heap MiB of what a program's heap looks like, and a
Linux. Each save is timed from the command to its return: the file is on stable storage then, and so are those of dd, zstd
and QEMU. Everything that is compared is run in turn, N times; figures are medians. MiB/s count pages of the guest that are not zero.
CPU is user and system time: of the machine's process for saves (QEMU: and of what it runs), of the command for the others.

Floors, which the run compares and says: mapped at 80 % of dd with fsync; packed at level 1 as fast as zstd -1 over the
same bytes with as many threads; show and --dry-run under 20 ms. Exit status 1 when one is missed with --floors.

Needs build/release/stasis and build/guest (./dev bench makes both), qemu-system-x86_64 and zstd.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from machines import ROOT, STASIS, Process, Qmp, qemu, stasis

THREADS = min(8, os.cpu_count())  # what a save takes
TICK = os.sysconf("SC_CLK_TCK")


class Figures:
    """Times of one way to do something."""

    def __init__(self):
        self.seconds, self.cpu, self.size = [], [], 0

    def add(self, seconds, cpu):
        self.seconds.append(seconds)
        self.cpu.append(cpu)

    @property
    def time(self):
        return statistics.median(self.seconds)

    def as_json(self):
        return {"s": self.time, "runs_s": self.seconds, "cpu_s": statistics.median(self.cpu), "file_mib": self.size}


def timed(command, **more):
    """Seconds, CPU seconds and standard output of a command that must succeed."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, text


def cpu_of(pid):
    """User and system seconds of a process and of the children it waited for."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICK


def mib_on_disk(path):
    return os.stat(path).st_blocks * 512 / 2**20


class Run:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.words = f"stasis=fill:{options.random}:{options.heap}"
        self.ways, self.missed = {}, []

    def path(self, name):
        return str(self.folder / name)

    def way(self, name):
        return self.ways.setdefault(name, Figures())

    def command(self, name, command, out=None, before=None):
        if before:
            before()
        seconds, cpu, text = timed(command)
        self.way(name).add(seconds, cpu)
        if out:
            self.way(name).size = mib_on_disk(out)
        return text

    # Saves of a machine of ours.

    def save(self, name, machine, *options, file=None):
        file = file or self.path(name.replace(" ", "-") + ".stasis")
        before = cpu_of(machine.process.pid)
        seconds, _, text = timed([STASIS, "checkpoint", "bench", file, "--json", *options], env=self.env)
        self.way(name).add(seconds, cpu_of(machine.process.pid) - before)
        self.way(name).size = mib_on_disk(file)
        return json.loads(text)

    def stasis(self):
        self.env = dict(os.environ, STASIS_RUNTIME_DIR=self.path("run"))
        key = self.path("key")
        pathlib.Path(key).write_bytes(os.urandom(32))
        machine = Process(stasis(self.options.memory, self.words, "--name", "bench"), self.env)
        machine.wait_for("FILLED", 900)
        machine.answer_time("filled")
        base, touched = self.path("mapped.stasis"), 0
        for _ in range(self.options.runs):
            report = self.save("mapped", machine)
            self.nonzero = report["pages_present"] / 256
            self.dd()
            self.save("packed -1", machine, "--encoding", "packed", "--level", "1")
            self.export(base)
            self.zstd(1)
            self.save("packed -3", machine, "--encoding", "packed", "--level", "3")
            self.zstd(3)
            self.save("encrypted", machine, "--encoding", "packed", "--level", "1", "--encrypt-key", key)
            for name, more in (("1 % mapped", []), ("1 % packed", ["--encoding", "packed", "--level", "1"])):
                self.save("mapped again", machine, file=base)  # so that it knows what was written since
                self.ways.pop("mapped again")
                machine.send("touch\n")
                touched += 1
                self.touched(machine, touched)
                report = self.save(name, machine, "--incremental-from", base, *more)
                self.dirty = report["pages_present"] / 256
        machine.finish()

    @staticmethod
    def touched(machine, times):
        deadline = time.monotonic() + 60
        while sum("TOUCHED" in line for _, line in machine.lines) < times:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the guest touches nothing; last lines: {machine.lines[-6:]}")
            time.sleep(0.01)

    # What the host's own tools do with the same bytes.

    def export(self, base):
        raw = self.path("ram")
        if not os.path.exists(raw):
            timed([STASIS, "snapshot", "export", base, "--format", "raw", raw])

    def dd(self):
        source = self.path("random")
        if not os.path.exists(source):
            with open(source, "wb") as file:
                for _ in range(self.options.random):
                    file.write(os.urandom(1 << 20))
                os.fsync(file.fileno())
        self.command("dd", ["dd", f"if={source}", f"of={source}.copy", "bs=1M", "conv=fsync", "status=none"], f"{source}.copy",
                     lambda: pathlib.Path(f"{source}.copy").unlink(missing_ok=True))

    def zstd(self, level):
        out = self.path(f"ram.{level}.zst")
        self.command(f"zstd -{level}", ["sh", "-c", f"zstd -{level} -T{THREADS} -q -f {self.path('ram')} -o {out} && sync {out}"], out,
                     lambda: pathlib.Path(out).unlink(missing_ok=True))

    # Offline commands.

    def offline(self):
        mapped, packed = self.path("mapped.stasis"), self.path("packed--1.stasis")
        for _ in range(max(11, self.options.runs)):
            for kind, file in (("mapped", mapped), ("packed", packed)):
                self.command(f"show {kind}", [STASIS, "snapshot", "show", file])
                self.command(f"show {kind} rip", [STASIS, "snapshot", "show", file, "cpu/0/rip"])
                self.command(f"dry-run {kind}", [STASIS, "resume", file, "--dry-run"])
            self.command("version", [STASIS, "version"])
        for _ in range(self.options.runs):
            self.command("verify mapped", [STASIS, "snapshot", "verify", mapped])
            self.command("verify packed", [STASIS, "snapshot", "verify", packed])

    # QEMU, with the same guest.

    def qemu(self):
        monitor, disk = self.path("qmp"), self.path("savevm.qcow2")
        machine = Process(qemu(self.options.memory, self.words, "-qmp", f"unix:{monitor},server,nowait"))
        machine.wait_for("FILLED", 900)
        machine.answer_time("filled")
        qmp = Qmp(monitor)
        qmp.call("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        for _ in range(self.options.runs):
            qmp.call("stop")
            qmp.add_qcow2("vmstate", disk, 1 << 30)
            self.qemu_save("qemu savevm", machine, disk, lambda: qmp.human("savevm bench"))
            qmp.call("blockdev-del", **{"node-name": "vmstate"})
            qmp.call("cont")
            for name, pipe in (("qemu migrate", "cat"), ("qemu migrate zstd", f"zstd -1 -T{THREADS} -q")):
                image = self.path("migrated")
                qmp.call("stop")
                self.qemu_save(name, machine, image, lambda to=f"exec:{pipe} > {image} && sync {image}": qmp.migrate(to))
                qmp.call("cont")
        machine.finish()

    def qemu_save(self, name, machine, file, save):
        cpu, began = cpu_of(machine.process.pid), time.monotonic()
        save()
        seconds = time.monotonic() - began
        self.way(name).add(seconds, cpu_of(machine.process.pid) - cpu)
        self.way(name).size = mib_on_disk(file)
        os.unlink(file)

    # The report.

    def rate(self, name):
        mib = self.options.random if name == "dd" else self.nonzero
        return mib / self.ways[name].time

    def floor(self, what, found, wanted, at_most=False):
        good = found <= wanted if at_most else found >= wanted
        if not good:
            self.missed.append(what)
        return f"{what}: {found:.2f}, floor {wanted:g}{'' if good else '   MISSED'}"

    def report(self):
        ways, options = self.ways, self.options
        print(f"{options.memory} MiB guest, {self.nonzero:.0f} MiB not zero: {options.random} random, {options.heap} heap; "
              f"{THREADS} threads, {options.runs} runs, 1 % dirty is {self.dirty:.0f} MiB")
        print(f"  {'':20} {'s':>8} {'MiB/s':>7} {'CPU s':>7} {'file MiB':>9}")
        for name in ("mapped", "dd", "qemu savevm", "qemu migrate", "packed -1", "zstd -1", "qemu migrate zstd", "packed -3", "zstd -3",
                     "encrypted", "1 % mapped", "1 % packed"):
            if name not in ways:
                continue
            way = ways[name]
            rate = "" if name.startswith("1 %") else f"{self.rate(name):.0f}"
            print(f"  {name:20} {way.time:8.3f} {rate:>7} {statistics.median(way.cpu):7.2f} {way.size:9.0f}")
        for name in (name for name in ways if name.split()[0] in ("show", "dry-run", "version", "verify")):
            print(f"  {name:20} {ways[name].time * 1e3:8.1f} ms   CPU {statistics.median(ways[name].cpu) * 1e3:8.1f} ms")
        lines = [self.floor("mapped / dd, MiB/s", self.rate("mapped") / self.rate("dd"), 0.8),
                 self.floor("zstd -1 / packed -1, s", ways["zstd -1"].time / ways["packed -1"].time, 1)]
        lines += [self.floor(f"{name}, ms", ways[name].time * 1e3, 20, True) for name in ways if name.startswith(("show", "dry-run"))]
        lines += [f"file, packed -3 / zstd -3: {ways['packed -3'].size / ways['zstd -3'].size:.2f}"]
        for ours, theirs in (("mapped", "qemu savevm"), ("mapped", "qemu migrate"), ("packed -1", "qemu migrate zstd")):
            if theirs in ways:
                lines.append(f"{ours} / {theirs}, s: {ways[ours].time / ways[theirs].time:.2f}")
        print("\n".join("  " + line for line in lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, default=4096, help="MiB of the guest")
    parser.add_argument("--random", type=int, default=2048, help="of them incompressible")
    parser.add_argument("--heap", type=int, default=1024, help="of them like a program's heap")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a guest of 512 MiB")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--floors", action="store_true", help="status 1 when a floor is missed")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    if options.quick:
        options.memory, options.random, options.heap = 512, 192, 128
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        run = Run(options, pathlib.Path(folder))
        run.stasis()
        run.offline()
        if not options.no_qemu:
            run.qemu()
        run.report()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({name: way.as_json() for name, way in run.ways.items()}, indent=1) + "\n")
    sys.exit(1 if options.floors and run.missed else 0)


if __name__ == "__main__":
    main()
