"""The machines of the benchmarks: Stasis and QEMU with the same guest, their consoles and their control sockets."""
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


def connect(path):
    while True:
        try:
            made = socket.socket(socket.AF_UNIX)
            made.connect(path)
            return made
        except OSError:
            made.close()
            time.sleep(0.005)


class Qmp:
    """QEMU's monitor."""

    def __init__(self, path):
        self.socket = connect(path)
        self.file = self.socket.makefile("r")
        self.file.readline()
        self.events = []
        self.call("qmp_capabilities")

    def call(self, name, *descriptors, **arguments):
        socket.send_fds(self.socket, [json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n"], descriptors)
        while True:
            reply = json.loads(self.file.readline())
            if "error" in reply:
                raise RuntimeError(f"{name}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
            self.events.append(reply)

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

    def migrate_to_file(self, path):
        with open(path, "wb") as file:
            self.call("getfd", file.fileno(), fdname="file")
            return self.migrate("fd:file")

    def migrate(self, uri):
        """Seconds until it is complete. It is told by an event: asking again and again takes what QEMU needs."""
        self.call("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self.events = []
        began = time.monotonic()
        self.call("migrate", uri=uri)
        while True:
            for event in self.events:
                if event["event"] == "MIGRATION" and event["data"]["status"] in ("completed", "failed"):
                    if event["data"]["status"] == "failed":
                        raise RuntimeError(str(self.call("query-migrate")))
                    seconds = time.monotonic() - began
                    while self.call("query-status")["status"] == "finish-migrate":  # until then there is no "cont"
                        time.sleep(0.002)
                    return seconds
            self.events = [json.loads(self.file.readline())]


class Control:
    """The control socket of a machine of Stasis (docs/control.yaml); one connection for all requests."""

    def __init__(self, path):
        self.socket = connect(path)
        self.file = self.socket.makefile("rb")

    def put(self, what, **members):
        body = json.dumps(members) if members else ""
        self.socket.sendall(f"PUT /v1/machine/{what} HTTP/1.1\r\nHost: stasis\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        status, length = int(self.file.readline().split()[1]), 0
        while (line := self.file.readline().strip()):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = json.loads(self.file.read(length))
        if status != 200:
            raise RuntimeError(f"{what}: {answer}")
        return answer


def kernel(words):
    return ["--kernel", str(GUEST / "vmlinuz"), "--initrd", str(GUEST / "initramfs.gz"), "--cmdline", CONSOLE + words]


def qemu(memory, words, *more, accel="tcg"):
    return ["qemu-system-x86_64", "-accel", accel, "-m", str(memory), "-nographic", "-nodefaults", "-serial", "stdio",
            "-no-reboot", "-kernel", str(GUEST / "vmlinuz"), "-initrd", str(GUEST / "initramfs.gz"),
            "-append", CONSOLE + words, *more]


def stasis(memory, words, *more):
    return [STASIS, "run", "--memory", f"{memory}M", *kernel(words), *more]
