#!/usr/bin/env python3
"""Where KVM is: boots the guest of watch.c and keep.c, saves and resumes it again and again, and types to it meanwhile.

  cycles_job.py STASIS KERNEL INITRD CPUS CHECKPOINTS SUSPENDS

Leaves in $OUT: console, the guest's serial line over all of its processes; cuts.json, one object for each save.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import time

STASIS, KERNEL, INITRD = sys.argv[1:4]
CPUS, CHECKPOINTS, SUSPENDS = map(int, sys.argv[4:7])
OUT = pathlib.Path(os.environ["OUT"])
CONSOLE, SNAPSHOT = OUT / "console", OUT / "cut.stasis"
NAME = "cut"
PATIENCE = 120  # seconds: the machine may be an emulated one on a busy host
LINES = 10      # that the guest prints at least between two saves


class Failed(Exception):
    pass


def lines():
    """How many whole numbered lines are on the console."""
    return len(re.findall(rb"^SEQ .*\n", CONSOLE.read_bytes(), re.M)) if CONSOLE.exists() else 0


def wait(what, condition, process=None):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not in {PATIENCE} s; the console ends with {CONSOLE.read_bytes()[-300:]!r}")
        if process and process.poll() is not None:
            raise Failed(f"{what}: the machine's process ended with {process.returncode}: {(OUT / 'machine.log').read_text()[-500:]}")
        time.sleep(0.05)


def stasis(*words):
    done = subprocess.run([STASIS, *words], capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"stasis {' '.join(words)}: status {done.returncode}: {done.stderr}")
    return done.stdout


def start(*words):
    with open(OUT / "machine.log", "ab") as log:
        return subprocess.Popen([STASIS, *words, "--engine", "kvm", "--name", NAME, "--console", f"file:{CONSOLE}"],
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def type_line(text, answer, process):
    """Over a connection of its own, as a user would; the answer comes on the serial line."""
    with subprocess.Popen([STASIS, "console", NAME], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as console:
        console.stdin.write(text + b"\n")
        console.stdin.flush()
        try:
            wait(f"{text!r} is answered", lambda: answer in CONSOLE.read_bytes(), None if text == b"stop" else process)
        finally:
            console.kill()


def more_lines(process):
    there = lines()
    wait("the guest prints", lambda: lines() >= there + LINES, process)


def checkpoint(process):
    cut = {"kind": "checkpoint", "first": lines(), "asked": time.monotonic()}
    stasis("checkpoint", NAME, str(SNAPSHOT))
    return {**cut, "answered": time.monotonic(), "last": lines()}, process


def suspend(process):
    cut = {"kind": "suspend", "asked": time.monotonic()}
    stasis("suspend", NAME, str(SNAPSHOT))
    cut["answered"] = time.monotonic()
    process.wait(PATIENCE)
    cut["first"] = cut["last"] = lines()
    cut["resumed"] = time.monotonic()
    return cut, start("resume", str(SNAPSHOT))


def up():
    return subprocess.run([STASIS, "info", NAME], capture_output=True, check=False).returncode == 0


def run():
    process = start("run", "--cpu", "x86-64-v3", "--cpus", str(CPUS), "--memory", "160M", "--kernel", KERNEL, "--initrd", INITRD, "--cmdline",
                    "console=ttyS0 quiet iomem=relaxed kvm=watch:20")
    cuts = []
    try:
        wait("the guest is in user space", lambda: lines() >= LINES, process)
        for number in range(CHECKPOINTS + SUSPENDS):
            cut, process = (checkpoint if number < CHECKPOINTS else suspend)(process)
            cuts.append(cut)
            wait("the machine is up", up, process)
            type_line(b"line %d" % number, b"ECHO line %d\r\n" % number, process)
            more_lines(process)
            print(f"{time.monotonic():.1f} {CPUS} CPUs {cut['kind']} {number}: {cut['answered'] - cut['asked']:.2f} s, lines {lines()}", flush=True)
        type_line(b"stop", b"DMESG END", process)
        if process.wait(PATIENCE):
            raise Failed(f"the machine's last process ended with {process.returncode}: {(OUT / 'machine.log').read_text()[-500:]}")
    finally:
        process.kill()
        SNAPSHOT.unlink(missing_ok=True)
        (OUT / "cuts.json").write_text(json.dumps(cuts))


try:
    run()
except (Failed, subprocess.TimeoutExpired) as error:
    sys.exit(f"failed: {error}")
