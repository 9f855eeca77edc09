"""What the guest tests share: the binary, the guest images, running machines and asking them."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STASIS = os.environ.get("STASIS", str(ROOT / "build/release/stasis"))
GUEST = pathlib.Path(os.environ.get("STASIS_GUEST", ROOT / "build/guest"))
CONSOLE = "console=ttyS0 quiet panic=-1 "

# Exit statuses of run and resume (docs/cli.md).
POWERED_OFF, SUSPENDED, STOPPED, REBOOTED, CRASHED, OUR_ERROR, USAGE = 0, 4, 6, 8, 10, 12, 2


class Machine:
    """A stasis process in the foreground, its console on pipes."""

    def __init__(self, case, *words):
        self.process = subprocess.Popen([STASIS, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=case.env, bufsize=0)
        case.addCleanup(self.end)
        self.output, self.errors, self.changed = "", "", threading.Condition()
        self.threads = [threading.Thread(target=self._read, args=(stream, field), daemon=True)
                        for stream, field in ((self.process.stdout, "output"), (self.process.stderr, "errors"))]
        for thread in self.threads:
            thread.start()

    def _read(self, stream, field):
        while chunk := os.read(stream.fileno(), 65536):
            with self.changed:
                setattr(self, field, getattr(self, field) + chunk.decode("latin1").replace("\r", ""))
                self.changed.notify_all()

    def wait_for(self, text, timeout=180):
        deadline = time.monotonic() + timeout
        with self.changed:
            while text not in self.output:
                if not self.changed.wait(min(1, max(0, deadline - time.monotonic()))):
                    if self.process.poll() is not None and text not in self.output:
                        raise AssertionError(f"ended ({self.process.returncode}) before {text!r}: {self.output[-800:]} {self.errors[-800:]}")
                    if time.monotonic() >= deadline:
                        raise AssertionError(f"no {text!r} in {timeout} s: {self.output[-800:]} {self.errors[-800:]}")

    def send(self, text):
        self.process.stdin.write(text.encode())

    def ask(self, tag):
        self.send(tag + "\n")
        self.wait_for("PONG " + tag)

    def wait(self, timeout=180):
        status = self.process.wait(timeout)
        for thread in self.threads:
            thread.join(10)
        return status

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


class GuestTest(unittest.TestCase):
    """Each test has a folder and a runtime folder of its own."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="stasis-test.", dir=os.environ.get("STASIS_TEST_TMP")))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.env = dict(os.environ, STASIS_RUNTIME_DIR=str(self.folder / "run"))

    def run_guest(self, words, *options, memory="128M", name="guest", kernel="vmlinuz"):
        return Machine(self, "run", "--name", name, "--kernel", str(GUEST / kernel), "--initrd", str(GUEST / "initramfs.gz"),
                       "--memory", memory, "--rtc", "1750000000", "--cmdline", CONSOLE + words, *options)

    def stasis(self, *words, status=0, timeout=120):
        done = subprocess.run([STASIS, *map(str, words)], capture_output=True, text=True, env=self.env, cwd=self.folder,
                              timeout=timeout, check=False, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, status, f"stasis {' '.join(map(str, words))}: {done.stdout[-600:]} {done.stderr[-600:]}")
        return done

    def refused(self, *words, status=1, says=()):
        """The command fails with that status, in one clear line that holds each of `says`."""
        done = self.stasis(*words, status=status)
        for text in (says,) if isinstance(says, str) else says:
            self.assertIn(text, done.stderr)
        self.assertTrue(done.stderr.startswith("stasis: "), done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done.stderr

    def info(self, name="guest"):
        return json.loads(self.stasis("info", name, "--json").stdout)
