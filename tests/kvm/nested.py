#!/usr/bin/env python3
"""Runs a script where KVM is: here, when the host has hardware virtualisation, or in a machine that emulates it.

  tests/kvm/nested.py [--cpus N] [--memory MIB] [--timeout S] [--exact] [--with PATH]… [--out FOLDER] -- COMMAND…

The nested machine is QEMU's emulation of AMD SVM; a Debian kernel with kvm-amd runs in it. Every word of COMMAND that
is a file or folder of the host is there under the same path, and what --with names. Exit status: COMMAND's, or 125
when the machine itself failed. What the script leaves in $OUT comes back. docs/kvm_testing.md tells more.
"""
import argparse
import dataclasses
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

import images

MACHINE_FAILED = 125
# TCG has no invariant TSC to offer, so L1 is told that its TSC is good: only then is KVM in master-clock mode, as on
# hardware. The rest is speed.
KERNEL_WORDS = ("root=/dev/nvme0n1 ro rootwait rootfstype=ext4 init=/init console=ttyS0 loglevel=5 panic=-1 "
                "tsc=reliable clocksource=tsc mitigations=off nokaslr no_timer_check random.trust_cpu=on rcupdate.rcu_expedited=1")


class NestedError(Exception):
    """The nested machine did not do its work: it did not boot, ended early, or took too long."""


@dataclasses.dataclass
class Result:
    status: int            # the script's exit status
    log: str               # what the script wrote, standard output and error
    console: str           # the nested kernel's messages; empty where none was needed
    folder: pathlib.Path   # what the script left in $OUT
    seconds: float         # from call to end


def has_kvm():
    """Whether this machine's own KVM runs on hardware. Any other module behind /dev/kvm may be an emulation."""
    return any(os.path.isdir(f"/sys/module/{name}") for name in ("kvm_intel", "kvm_amd")) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def run(script, files=(), *, cpus=1, memory=2048, timeout=300, cpu="max,+svm", environment=None, out=None, echo=False,
        kernel_words="", exact=False, direct=None):
    """Runs `script` (shell text, or a pathlib.Path of it) where KVM is and returns its Result.

    files        what of the host the script uses: programs come with their libraries, folders whole; same paths there
    cpus, memory the nested machine's, MiB; without effect on a host with KVM. More than one CPU is for what needs them: two
                 emulated CPUs wait for each other in loops, and on a busy host, where one of them is often not
                 running, that leaves so little that timer interrupts take all of it and nothing gets on
    exact        the nested machine's clocks count its instructions, two nanoseconds each, instead of following the host's: it
                 is as if nothing else ran on the host. One CPU. Without effect on a host with KVM
    timeout      seconds for everything; then NestedError
    environment  variables of the script
    out          folder for what the script leaves in $OUT (made when missing; default: a new one, the caller's to remove)
    echo         show the script's output while it runs
    direct       force (True) or forbid (False) running on the host itself; None: on the host when has_kvm()
    """
    text = script.read_text() if isinstance(script, pathlib.Path) else script
    folder = pathlib.Path(out) if out else pathlib.Path(tempfile.mkdtemp(prefix="nested-out."))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        if has_kvm() if direct is None else direct:
            status, log, console = run_here(text, folder, environment or {}, timeout, echo)
        else:
            status, log, console = run_nested(text, files, folder, environment or {}, timeout, echo, (cpus, memory, cpu, kernel_words, exact))
    except BaseException:
        if not out:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return Result(status, log, console, folder, time.monotonic() - began)


def run_here(text, folder, environment, timeout, echo):
    with tempfile.TemporaryDirectory(prefix="nested.") as work:
        process = subprocess.Popen(["sh", "-c", text], cwd=work, env={**os.environ, **environment, "OUT": str(folder.resolve())},
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        chunks = []

        def collect():
            while chunk := os.read(process.stdout.fileno(), 65536):
                chunks.append(chunk)
                if echo:
                    os.write(1, chunk)

        reader = threading.Thread(target=collect, daemon=True)
        reader.start()
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NestedError(f"the script did not end in {timeout} s:\n{b''.join(chunks)[-3000:].decode(errors='replace')}") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what it may have left behind
            except ProcessLookupError:
                pass
            process.wait()
            reader.join(10)
            process.stdout.close()
        return status, b"".join(chunks).decode(errors="replace"), ""


def run_nested(text, files, folder, environment, timeout, echo, machine):
    base = images.base_image()
    work = pathlib.Path(tempfile.mkdtemp(prefix="run.", dir=images.NESTED))
    try:
        images.job_image(work / "job.img", files, text, environment)
        with open(work / "out.tar", "wb") as file:
            file.truncate(16 << 30)
        log, console = work / "log", work / "console"
        log.touch()
        status = emulate(command_line(base, work, *machine), work, timeout, echo)
        log_text = log.read_text(errors="replace")
        console_text = console.read_text(errors="replace").replace("\r", "")
        told = f"script's last output:\n{log_text[-3000:]}\nkernel's last messages:\n{console_text[-3000:]}"
        if status is None:
            raise NestedError(f"the nested machine did not end in {timeout} s; {told}")
        if status != 0:
            raise NestedError(f"QEMU ended with status {status}: {(work / 'errors').read_text()[-1000:]}; {told}")
        try:
            return unpack(work / "out.tar", folder), log_text, console_text
        except (tarfile.TarError, KeyError, ValueError) as error:
            raise NestedError(f"the nested machine brought no results out ({error}); {told}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def command_line(base, work, cpus, memory, cpu, kernel_words, exact):
    accelerator = ["tcg,thread=single", "-icount", "shift=1,sleep=off"] if exact else ["tcg,thread=multi"]
    words = ["qemu-system-x86_64", "-accel", *accelerator, "-cpu", cpu, "-smp", str(cpus), "-m", str(memory),
             "-nodefaults", "-display", "none", "-no-reboot", "-kernel", str(images.NESTED / "vmlinux"),
             "-append", f"{KERNEL_WORDS} {kernel_words}",
             "-serial", f"file:{work}/console", "-serial", f"file:{work}/log"]
    for name, path, more in (("base", base, ",readonly=on"), ("job", work / "job.img", ",readonly=on"),
                             ("out", work / "out.tar", ",cache=unsafe")):
        words += ["-drive", f"if=none,id={name},format=raw,file={path}{more}", "-device", f"nvme,serial={name},drive={name}"]
    return words


def emulate(command, work, timeout, echo):
    """Runs the machine to its end; returns QEMU's status, or None when the time was up."""
    with open(work / "errors", "wb") as errors, open(work / "log", "rb") as log:
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        deadline = time.monotonic() + timeout
        try:
            while machine.poll() is None and time.monotonic() < deadline:
                try:
                    machine.wait(min(0.2 if echo else 3600, max(0, deadline - time.monotonic())))
                except subprocess.TimeoutExpired:
                    pass
                if echo and (chunk := log.read()):
                    os.write(1, chunk)
            return machine.poll()
        finally:
            machine.kill()
            machine.wait()


def unpack(archive, folder):
    """Puts `results/` of the archive into `folder` and returns the status that stands beside it."""
    with tarfile.open(archive, "r:") as tar:
        status = int(tar.extractfile("status").read())
        for member in tar:
            inner = pathlib.PurePosixPath(member.name)
            if inner.parts[:1] != ("results",) or len(inner.parts) < 2 or ".." in inner.parts or not (member.isfile() or member.isdir()):
                continue
            member.name = str(pathlib.PurePosixPath(*inner.parts[1:]))
            tar.extract(member, folder, set_attrs=False)
    return status


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=2048, help="MiB (default 2048)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds (default 600)")
    parser.add_argument("--cpu", default="max,+svm", help="QEMU's -cpu (default max,+svm)")
    parser.add_argument("--exact", action="store_true", help="clocks that count instructions, not the host's time")
    parser.add_argument("--with", dest="files", action="append", default=[], metavar="PATH", help="a file or folder to bring in")
    parser.add_argument("--out", help="folder for what the command leaves in $OUT")
    parser.add_argument("--console", action="store_true", help="print the nested kernel's messages at the end")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    arguments = parser.parse_args()
    words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not words:
        parser.error("no COMMAND: say what to run, after --")
    command = [os.path.abspath(word) if os.path.exists(word) else word for word in words]
    files = arguments.files + [word for word in command if os.path.exists(word) and not word.startswith(("/usr/", "/bin/", "/dev/"))]
    script = command[0] if len(command) == 1 and not os.path.exists(command[0]) else shlex.join(command)
    try:
        result = run(script, files, cpus=arguments.cpus, memory=arguments.memory, timeout=arguments.timeout, cpu=arguments.cpu,
                     exact=arguments.exact, out=arguments.out, echo=True)
    except NestedError as error:
        print(f"nested: {error}", file=sys.stderr)
        return MACHINE_FAILED
    if arguments.console:
        print(result.console)
    if not any(result.folder.iterdir()):
        result.folder.rmdir()
    elif not arguments.out:
        print(f"results: {result.folder}", file=sys.stderr)
    return result.status


if __name__ == "__main__":
    sys.exit(main())
