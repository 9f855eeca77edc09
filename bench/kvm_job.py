#!/usr/bin/env python3
"""Where KVM is: the figures of bench/kvm.py, which starts this. Leaves them in $OUT/figures.json.

  kvm_job.py RUNS [boot] [exits] [pause] [save] [full]
"""
import json
import os
import pathlib
import re
import sys
import tempfile
import time

from machines import STASIS, Control, Process, Qmp, qemu, stasis

MEMORY = 512  # MiB
EXITS = 3000
PAUSES = 15
PATIENCE = 240
FILL = 256    # MiB
SIDES = ("stasis", "qemu")


def start(side, words, folder):
    """A machine that boots under KVM, or with `words` None one that comes from what save() left."""
    if side == "stasis":
        command = ([STASIS, "resume", f"{folder}/image"] if words is None else stasis(MEMORY, words)) + ["--engine", "kvm", "--name", "bench"]
    else:
        command = qemu(MEMORY, words or "", "-cpu", "Nehalem", "-qmp", f"unix:{folder}/bench.sock,server,nowait", accel="kvm")
        if words is None:
            command = ["sh", "-c", 'exec "$@" -incoming fd:9 9< "$0"', f"{folder}/image", *command]
    pathlib.Path(folder, "bench.sock").unlink(missing_ok=True)
    return Process(command, {**os.environ, "STASIS_RUNTIME_DIR": folder})


def control(side, folder):
    return (Control if side == "stasis" else Qmp)(f"{folder}/bench.sock")


def seconds(action):
    began = time.monotonic()
    action()
    return time.monotonic() - began


def boot(side, folder):
    machine = start(side, "stasis=idle", folder)
    try:
        return {"boot_s": [machine.wait_for("BOOTED", PATIENCE)]}
    finally:
        machine.finish()


def exits(side, folder):
    machine = start(side, f"iomem=relaxed stasis=exits:{EXITS}", folder)
    try:
        machine.wait_for("EXITS mmio", PATIENCE)
    finally:
        machine.finish()
    found = re.findall(r"EXITS (\w+) (\d+) ([\d.]+)", "\n".join(line for _, line in machine.lines))
    return {f"{kind}_per_s": [int(count) / float(took)] for kind, count, took in found}


def pause(side, folder):
    """A machine that computes is asked, over a connection that stands, and answers when it is still."""
    machine = start(side, "stasis=bench:hash:100000", folder)
    times = {"pause_s": [], "unpause_s": []}
    try:
        machine.wait_for("BEGIN hash", PATIENCE)
        asked = control(side, folder)
        for _ in range(PAUSES):
            time.sleep(0.1)
            times["pause_s"].append(seconds((lambda: asked.put("pause")) if side == "stasis" else (lambda: asked.call("stop"))))
            times["unpause_s"].append(seconds((lambda: asked.put("unpause")) if side == "stasis" else (lambda: asked.call("cont"))))
    finally:
        machine.finish()
    return times


def suspend(side, folder):
    """Seconds until the file is complete, from when it was asked for."""
    asked = control(side, folder)
    if side == "stasis":
        return seconds(lambda: asked.put("suspend", path=f"{folder}/image"))
    asked.call("migrate-set-parameters", **{"max-bandwidth": 1 << 40})

    def stop_and_save():
        asked.call("stop")
        asked.migrate_to_file(f"{folder}/image")

    return seconds(stop_and_save)


def resume(side, folder):
    """Seconds from the start of the process to the first line of the guest."""
    machine = start(side, None, folder)
    try:
        if side == "qemu":
            asked = control(side, folder)
            while asked.call("query-status")["status"] == "inmigrate":
                time.sleep(0.002)
            asked.call("cont")  # it was saved while stopped
        return machine.wait_for("TICK", PATIENCE)
    finally:
        machine.finish()


def save(side, folder, fill=0):
    machine = start(side, f"stasis=tick:{fill}", folder)
    try:
        machine.wait_for("TICK 50", PATIENCE)
        times = {f"suspend_{fill}_s": [suspend(side, folder)]}
    finally:
        machine.finish()
    return {**times, f"resume_{fill}_s": [resume(side, folder) for _ in range(2)], f"file_{fill}_mib": [os.stat(f"{folder}/image").st_blocks / 2048]}


def save_full(side, folder):
    return save(side, folder, FILL)


def main():
    figures = {side: {} for side in SIDES}
    jobs = {"boot": boot, "exits": exits, "pause": pause, "save": save, "full": save_full}
    for run in range(int(sys.argv[1])):
        for name in sys.argv[2:]:
            for side in SIDES:
                with tempfile.TemporaryDirectory() as folder:
                    found = jobs[name](side, folder)
                for figure, values in found.items():
                    figures[side].setdefault(figure, []).extend(values)
                print(f"run {run}: {side} {found}", flush=True)
    pathlib.Path(os.environ["OUT"], "figures.json").write_text(json.dumps(figures))


main()
