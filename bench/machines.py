"""The machines of the benchmarks: Stasis and QEMU (TCG) with the same guest, their consoles and QEMU's monitor."""
import json
import os
import pathlib
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GUEST = ROOT / "build/guest"
STASIS = str(ROOT / "build/release/stasis")
CONSOLE = "console=ttyS0 quiet panic=-1 "


class Process:
    """A machine whose console is the process's standard output; every line gets a time stamp."""

    def __init__(self, command, env=None):
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, bufsize=0, env=env)
        self.lines, self.changed = [], threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        rest = b""
        while chunk := os.read(self.process.stdout.fileno(), 65536):
            at = time.monotonic() - self.began
            *whole, rest = (rest + chunk).split(b"\n")
            with self.changed:
                self.lines += [(at, line.decode("latin1").strip()) for line in whole]
                self.changed.notify_all()
        with self.changed:
            self.lines.append((time.monotonic() - self.began, "<end>"))
            self.changed.notify_all()

    def wait_for(self, text, timeout=300):
        """Seconds from the process's start to the first line that holds `text`."""
        seen, deadline = 0, time.monotonic() + timeout
        with self.changed:
            while True:
                for at, line in self.lines[seen:]:
                    if text in line:
                        return at
                    if line == "<end>":
                        raise RuntimeError(f"ended before {text!r}; last lines: {self.lines[-6:]}")
                seen = len(self.lines)
                if not self.changed.wait(deadline - time.monotonic()):
                    raise RuntimeError(f"no {text!r} in {timeout} s; last lines: {self.lines[-6:]}")

    def send(self, text):
        self.process.stdin.write(text.encode())

    def answer_time(self, tag, timeout=120):
        """Seconds from the process's start until the guest's shell answered `tag`."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.send(tag + "\n")
            try:
                return self.wait_for("PONG " + tag, timeout=0.5)
            except RuntimeError as error:
                if "ended" in str(error):
                    raise
        raise RuntimeError(f"no answer to {tag}; last lines: {self.lines[-6:]}")

    def finish(self):
        self.process.kill()
        self.process.wait()


class Qmp:
    """QEMU's monitor."""

    def __init__(self, path):
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.005)
        self.file = self.socket.makefile("r")
        self.file.readline()
        self.call("qmp_capabilities")

    def call(self, name, **arguments):
        self.socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            reply = json.loads(self.file.readline())
            if "error" in reply:
                raise RuntimeError(f"{name}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]

    def human(self, line):
        """A command of the monitor for people; says nothing when all is well."""
        if answer := self.call("human-monitor-command", **{"command-line": line}):
            raise RuntimeError(f"{line}: {answer}")

    def add_qcow2(self, name, path, size):
        """An empty image as a block node of this name."""
        pathlib.Path(path).touch()
        file = {"driver": "file", "filename": path}
        self.call("blockdev-create", **{"job-id": name, "options": {"driver": "qcow2", "file": file, "size": size}})
        while (job := [job for job in self.call("query-jobs") if job["id"] == name][0])["status"] != "concluded":
            time.sleep(0.005)
        self.call("job-dismiss", id=name)
        if "error" in job:
            raise RuntimeError(job["error"])
        self.call("blockdev-add", **{"driver": "qcow2", "node-name": name, "file": file})

    def migrate(self, uri):
        began = time.monotonic()
        self.call("migrate", uri=uri)
        while (state := self.call("query-migrate"))["status"] != "completed":
            if state["status"] == "failed":
                raise RuntimeError(str(state))
            time.sleep(0.002)
        return time.monotonic() - began


def kernel(words):
    return ["--kernel", str(GUEST / "vmlinuz"), "--initrd", str(GUEST / "initramfs.gz"), "--cmdline", CONSOLE + words]


def qemu(memory, words, *more):
    return ["qemu-system-x86_64", "-accel", "tcg", "-m", str(memory), "-nographic", "-nodefaults", "-serial", "stdio",
            "-no-reboot", "-kernel", str(GUEST / "vmlinuz"), "-initrd", str(GUEST / "initramfs.gz"),
            "-append", CONSOLE + words, *more]


def stasis(memory, words, *more):
    return [STASIS, "run", "--memory", f"{memory}M", *kernel(words), *more]
