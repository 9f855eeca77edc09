#!/usr/bin/env python3
"""The figures of Stasis beside QEMU's (TCG), in the same run: medians and ratios.

  bench/run.py [boot] [work] [save] [disk] [--runs N] [--json FILE]

boot   start of the process to the guest's first user-space line (512 MiB)
work   millions of guest instructions per second and time beside QEMU's, by kind of work
save   suspend, size, resume to the first instruction and to the first answer; 512 MiB and 4 GiB, idle and
       half full of incompressible data
disk   what the disk gives: dd with fsync

Needs build/release/stasis and build/guest (./dev bench makes both) and qemu-system-x86_64.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

from machines import ROOT, STASIS, Process, Qmp, qemu, stasis


def median(values):
    return statistics.median(values)


def bench_boot(runs, out):
    times = {"stasis": [], "qemu": []}
    for _ in range(runs):
        for who, command in (("stasis", stasis(512, "stasis=idle")), ("qemu", qemu(512, "stasis=idle"))):
            machine = Process(command)
            times[who].append(machine.wait_for("BOOTED"))
            machine.finish()
    machine = subprocess.run(stasis(512, "stasis=off", "--pace", "fast", "--console", "none", "--json"),
                             capture_output=True, text=True, check=False)
    s, q = median(times["stasis"]), median(times["qemu"])
    print(f"boot to the first user-space line, 512 MiB: stasis {s:.2f} s, qemu tcg {q:.2f} s, ratio {s / q:.2f} (runs {runs})")
    out["boot"] = {"stasis_s": s, "qemu_s": q, "ratio": s / q}
    try:
        ended = json.loads(machine.stdout.strip().splitlines()[-1])
        out["boot"]["instructions_to_power_off"] = ended["retired"]
        print(f"  instructions from power-on to power-off: {ended['retired'] / 1e6:.0f} M")
    except (ValueError, KeyError, IndexError):
        pass


def work_times(command):
    """kind -> (host seconds, guest seconds, check)"""
    machine, out = Process(command), {}
    machine.wait_for("BENCH DONE", 900)
    machine.finish()
    began = {}
    for at, line in machine.lines:
        if found := re.match(r"BEGIN (\w+)", line):
            began[found[1]] = at
        if found := re.match(r"END (\w+) ([\d.]+) (\w+)", line):
            out[found[1]] = (at - began[found[1]], float(found[2]), found[3])
    return out


def bench_work(runs, out):
    scale = 2
    rows = {}
    for _ in range(runs):
        for who, command in (("stasis", stasis(512, f"stasis=bench:all:{scale}", "--pace", "fast")),
                             ("qemu", qemu(512, f"stasis=bench:all:{scale}"))):
            for kind, figures in work_times(command).items():
                rows.setdefault(kind, {}).setdefault(who, []).append(figures)
    print(f"work by kind (scale {scale}, runs {runs}); one instruction is one guest nanosecond under stasis")
    out["work"] = {}
    for kind, who in rows.items():
        host = median([r[0] for r in who["stasis"]])
        mips = median([r[1] / r[0] * 1e3 for r in who["stasis"]])
        other = median([r[0] for r in who["qemu"]])
        same = {r[2] for side in who.values() for r in side}
        print(f"  {kind:12s} stasis {host:7.3f} s {mips:7.0f} M/s   qemu tcg {other:7.3f} s   ratio {host / other:6.1f}"
              f"{'' if len(same) == 1 else '   CHECKS DIFFER ' + str(same)}")
        out["work"][kind] = {"stasis_s": host, "stasis_mips": mips, "qemu_s": other, "ratio": host / other}


def save_stasis(memory, fill, folder, runs):
    env = dict(os.environ, STASIS_RUNTIME_DIR=str(folder / "run"))
    words = f"stasis=fill:{fill}" if fill else "stasis=shell"
    image = str(folder / "stasis.stasis")
    machine = Process(stasis(memory, words, "--name", "bench"), env)
    if fill:
        machine.wait_for("FILLED", 900)
    machine.answer_time("a")
    saves, first, answers, stops = [], [], [], []
    for _ in range(runs):  # checkpoints of the same guest, each over the last
        began = time.monotonic()
        subprocess.run([STASIS, "checkpoint", "bench", image], check=True, env=env, stdout=subprocess.DEVNULL)
        saves.append(time.monotonic() - began)
    began = time.monotonic()
    subprocess.run([STASIS, "suspend", "bench", image], check=True, env=env, stdout=subprocess.DEVNULL)
    stops.append(time.monotonic() - began)
    machine.process.wait()
    retired = int(json.loads(subprocess.run([STASIS, "snapshot", "show", image, "cpu/0/retired", "--json"], check=True,
                                            capture_output=True, text=True).stdout)["value"])
    for _ in range(runs):
        began = time.monotonic()
        subprocess.run([STASIS, "resume", image, "--stop-at", str(retired + 1), "--console", "none", "--name", "first"],
                       check=False, env=env, stdout=subprocess.DEVNULL)
        first.append(time.monotonic() - began)
        machine = Process([STASIS, "resume", image, "--name", "answer"], env)
        answers.append(machine.answer_time("b"))
        machine.finish()
    size = os.stat(image).st_blocks * 512
    return {"checkpoint_s": median(saves), "suspend_s": median(stops), "first_s": median(first),
            "answer_s": median(answers), "disk_mib": size / 2**20}


def save_qemu(memory, fill, folder, runs):
    words = f"stasis=fill:{fill}" if fill else "stasis=shell"
    image, monitor = str(folder / "qemu.image"), str(folder / "qmp")
    machine = Process(qemu(memory, words, "-qmp", f"unix:{monitor},server,nowait"))
    if fill:
        machine.wait_for("FILLED", 900)
    machine.answer_time("a")
    qmp = Qmp(monitor)
    saves, answers = [], []
    qmp.call("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    for _ in range(runs):
        qmp.call("stop")
        began = time.monotonic()
        qmp.migrate(f"exec:cat > {image} && sync {image}")
        saves.append(time.monotonic() - began)
        qmp.call("cont")
    machine.finish()
    for _ in range(runs):
        again = str(folder / "qmp-again")
        machine = Process(qemu(memory, words, "-incoming", f"exec:cat {image}", "-qmp", f"unix:{again},server,nowait"))
        incoming = Qmp(again)
        while incoming.call("query-status")["status"] == "inmigrate":
            time.sleep(0.002)
        incoming.call("cont")  # it was saved while stopped
        answers.append(machine.answer_time("b"))
        machine.finish()
    return {"suspend_s": median(saves), "answer_s": median(answers), "disk_mib": os.stat(image).st_blocks * 512 / 2**20}


def bench_save(runs, out):
    out["save"] = {}
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        folder = pathlib.Path(folder)
        for memory, fill in ((512, 0), (512, 256), (4096, 0), (4096, 2048)):
            ours = save_stasis(memory, fill, folder, runs)
            theirs = save_qemu(memory, fill, folder, runs)
            out["save"][f"{memory}/{fill}"] = {"stasis": ours, "qemu": theirs}
            print(f"{memory} MiB, {fill} MiB random: stasis checkpoint {ours['checkpoint_s']:.3f} s, suspend {ours['suspend_s']:.3f} s, "
                  f"{ours['disk_mib']:.0f} MiB ({ours['disk_mib'] / ours['checkpoint_s']:.0f} MiB/s), first instruction {ours['first_s'] * 1e3:.1f} ms, "
                  f"answer {ours['answer_s']:.3f} s | qemu migrate+sync {theirs['suspend_s']:.3f} s, {theirs['disk_mib']:.0f} MiB, "
                  f"answer {theirs['answer_s']:.3f} s", flush=True)


def bench_disk(runs, out):
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        source = pathlib.Path(folder) / "random"
        with open(source, "wb") as file:
            for _ in range(1024):
                file.write(os.urandom(1 << 20))
        speeds = []
        for _ in range(runs):
            began = time.monotonic()
            subprocess.run(["dd", f"if={source}", f"of={folder}/copy", "bs=1M", "conv=fsync", "status=none"], check=True)
            speeds.append(1024 / (time.monotonic() - began))
        out["disk"] = {"dd_mib_s": median(speeds)}
        print(f"dd with fsync, 1 GiB random: {median(speeds):.0f} MiB/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["boot", "work", "save", "disk", []], default=[])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    out = {}
    for name in arguments.what or ["disk", "boot", "work", "save"]:
        globals()["bench_" + name](arguments.runs, out)
        sys.stdout.flush()
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
