#!/usr/bin/env python3
"""The command line with a guest of a few instructions (tiny_guest.S): statuses, consoles, names, saves, errors."""
import fcntl
import http.client
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
import unittest

STASIS, TINY = sys.argv.pop(1), sys.argv.pop(1)
POWERED_OFF, FAILED, USAGE, SUSPENDED, STOPPED, REBOOTED, CRASHED, OUR_ERROR = 0, 1, 2, 4, 6, 8, 10, 12


class CommandLine(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="stasis-cli."))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.run_dir = self.folder / "run"
        self.env = dict(os.environ, STASIS_RUNTIME_DIR=str(self.run_dir))

    def stasis(self, *words, status=0, stdin="", timeout=60):
        done = subprocess.run([STASIS, *map(str, words)], input=stdin.encode(), capture_output=True, env=self.env,
                              cwd=self.folder, timeout=timeout, check=False)
        done.out, done.err = done.stdout.decode("latin1"), done.stderr.decode("latin1")
        self.assertEqual(done.returncode, status, f"stasis {' '.join(map(str, words))}: {done.out[-500:]} {done.err[-500:]}")
        return done

    def refused(self, *words, status, says):
        error = self.stasis(*words, status=status).err
        self.assertTrue(error.startswith("stasis: "), error)
        self.assertEqual(error.count("\n"), 1, error)
        self.assertIn(says, error)
        return error

    def guest(self, *words, **pipes):
        """A machine in the foreground, its console on pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
        process = subprocess.Popen([STASIS, "run", "--name", "g", "--kernel", TINY, "--memory", "32M", *map(str, words)],
                                   env=self.env, cwd=self.folder, bufsize=0, **pipes)

        def end():
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        self.addCleanup(end)
        return process

    def detached(self, name="g", *words):
        done = self.stasis("run", "--name", name, "--kernel", TINY, "--memory", "32M", "--detach", *words)
        self.assertEqual(done.out, name + "\n")
        self.addCleanup(subprocess.run, [STASIS, "stop", name], env=self.env, capture_output=True, check=False)

    def info(self, name="g"):
        return json.loads(self.stasis("info", name, "--json").out)

    def until(self, what, seconds=20):
        deadline = time.monotonic() + seconds
        while not what():
            self.assertLess(time.monotonic(), deadline, "waited in vain")
            time.sleep(0.02)

    def read_until(self, fd, text, seconds=20):
        out, deadline = b"", time.monotonic() + seconds
        while text not in out:
            self.assertGreater(deadline, time.monotonic(), f"no {text!r} in {out[-300:]!r}")
            if select.select([fd], [], [], 0.2)[0]:
                chunk = os.read(fd, 65536)
                if not chunk:
                    self.fail(f"ended before {text!r}: {out[-300:]!r}")
                out += chunk
        return out


class Statuses(CommandLine):
    def ends(self, letter, status, *words):
        return self.stasis("run", "--kernel", TINY, "--memory", "32M", *words, stdin=letter, status=status)

    def test_each_ending_has_its_own(self):
        self.ends("Q", POWERED_OFF)
        self.ends("R", REBOOTED, "--no-reboot")
        self.assertIn("triple fault", self.ends("C", CRASHED).err)
        self.ends("D", (0x2a << 1) | 1, "--debug-exit")
        self.ends("", STOPPED, "--stop-at", "1000")
        self.ends("", SUSPENDED, "--stop-at", "1000", "--suspend-to", "a.stasis")

    def test_a_reboot_goes_on_without_no_reboot(self):
        self.assertEqual(self.ends("aRbQ", POWERED_OFF).out, "tiny\natiny\nb")

    def test_debug_exit_is_not_there_unasked(self):
        self.assertEqual(self.ends("DaQ", POWERED_OFF).out, "tiny\na")

    def test_json_tells_the_ending(self):
        ended = json.loads(self.ends("", STOPPED, "--stop-at", "1234", "--json", "--console", "none").out)
        self.assertEqual((ended["outcome"], ended["status"], ended["retired"]), ("stopped", STOPPED, 1234))

    def test_usage(self):
        for words, says in ((("run",), "--kernel"), (("run", "--kernel", TINY, "--memory", "lots"), "--memory"),
                            (("run", "--kernel", TINY, "--memory", "1K"), "--memory"), (("run", "--kernel", TINY, "--cpus", "0"), "--cpus"),
                            (("run", "--kernel", TINY, "--console", "tty"), "--console"), (("run", "--kernel", TINY, "--pace", "x"), "--pace"),
                            (("run", "--kernel", TINY, "--name", "a/b"), "name"), (("run", "--kernel", TINY, "--suspend-to", "x"), "--stop-at"),
                            (("run", "--kernel", TINY, "--rtc", "noon"), "--rtc"), (("run", "--kernel", TINY, "--engine", "x"), "--engine"),
                            (("run", "--kernel", TINY, "--detach", "--console", "stdio"), "--console"),
                            (("run", "--kernel", TINY, "--cmdline", "x" * 5000), "4095"),
                            (("frob",), "frob"), ((), "subcommand"), (("info",), "NAME"), (("run", "--frob"), "--frob"),
                            (("info", "a/b"), "a/b"), (("snapshot",), "subcommand"), (("checkpoint", "a"), "FILE")):
            self.refused(*words, status=USAGE, says=says)

    def test_our_errors(self):
        self.refused("run", "--kernel", "absent", status=OUR_ERROR, says="absent")
        self.refused("run", "--kernel", TINY, "--initrd", "absent", status=OUR_ERROR, says="absent")
        self.refused("run", "--kernel", TINY, "--engine", "kvm", status=OUR_ERROR, says="soft")
        self.refused("run", "--kernel", TINY, "--engine", "soft", "--cpus", "2", status=OUR_ERROR, says="cpus is 2")
        self.refused("resume", "absent.stasis", status=OUR_ERROR, says="absent.stasis")
        (self.folder / "text").write_text("no kernel at all\n" * 100)
        self.refused("run", "--kernel", "text", status=OUR_ERROR, says="text")
        self.refused("run", "--kernel", TINY, "--console", "file:no/folder", status=OUR_ERROR, says="no/folder")
        self.assertEqual(list(self.run_dir.glob("*")), [])
        error = json.loads(self.stasis("resume", "absent.stasis", "--json", status=OUR_ERROR).err)["error"]
        self.assertEqual(set(error), {"code", "object", "message", "hint"})
        self.assertEqual(error["code"], "not_found")

    def test_help_has_examples(self):
        for command in ("run", "resume", "list", "info", "pause", "unpause", "console", "powerdown", "reset", "stop", "checkpoint",
                        "suspend", "snapshot show", "snapshot digest", "snapshot diff", "snapshot export", "snapshot map", "snapshot memory", "version"):
            self.assertRegex(self.stasis(*command.split(), "--help").out, "Example", command)
        self.assertRegex(self.stasis("version").out, r"^stasis \d+\.\d+\.\d+ ")

    def test_config_file(self):
        (self.folder / "m.toml").write_text(f'kernel = "{TINY}"\nmemory = "48M"\nname = "from-file"\nstop-at = 2000\nconsole = "none"\n')
        self.stasis("run", "--config", "m.toml", status=STOPPED)
        self.refused("run", "--config", "m.toml", "--suspend-to", "no/folder/a", status=USAGE, says="no/folder")
        self.stasis("run", "--config", "m.toml", "--stop-at", "3000", "--suspend-to", "a.stasis", status=SUSPENDED)
        shown = json.loads(self.stasis("snapshot", "show", "a.stasis", "machine/memory_bytes", "--json").out)
        self.assertEqual(shown["value"], 48 << 20)
        self.assertEqual(json.loads(self.stasis("snapshot", "show", "a.stasis", "cpu/0/retired", "--json").out)["value"], 3000)
        self.refused("run", "--config", "absent.toml", status=OUR_ERROR, says="absent.toml")


class Consoles(CommandLine):
    def test_pipes_are_a_byte_stream_without_loss(self):
        every = bytes(b for b in range(256) if chr(b) not in "QRCDEHFW")
        done = subprocess.run([STASIS, "run", "--kernel", TINY, "--memory", "32M", "--pace", "fast"], input=every + b"FQ",
                              capture_output=True, env=self.env, timeout=120, check=False)
        self.assertEqual(done.returncode, POWERED_OFF, done.stderr)
        self.assertEqual(done.stdout, b"tiny\n" + every + b"x" * 262144 + b"\n")

    def test_a_slow_reader_gets_everything(self):
        guest = self.guest()
        guest.stdin.write(b"FFFFQ")  # more than a pipe holds
        time.sleep(2)
        out = guest.stdout.read()
        self.assertEqual(out.count(b"x"), 4 * 262144)
        self.assertEqual(guest.wait(20), POWERED_OFF)

    def test_a_reader_that_went_away_does_not_end_the_guest(self):
        guest = self.guest()
        self.read_until(guest.stdout.fileno(), b"tiny")
        guest.stdout.close()
        guest.stdin.write(b"FaE")
        time.sleep(0.5)
        self.assertEqual(self.info()["state"], "running")
        guest.stdin.write(b"Q")
        self.assertEqual(guest.wait(20), POWERED_OFF)

    def test_the_end_of_input_does_not_end_the_guest(self):
        guest = self.guest(stdin=subprocess.DEVNULL)
        self.read_until(guest.stdout.fileno(), b"tiny")
        before = self.info()["retired"]
        self.until(lambda: self.info()["retired"] > before)
        self.stasis("stop", "g")
        self.assertEqual(guest.wait(20), STOPPED)

    def test_file_is_begun_by_run_and_continued_by_resume(self):
        log = self.folder / "log"
        log.write_text("old")
        self.detached("g", "--console", "file:log")
        self.until(lambda: log.read_bytes() == b"tiny\n")
        self.stasis("suspend", "g", "a.stasis")
        self.stasis("resume", "a.stasis", "--name", "h", "--detach", "--console", "file:log")
        console = subprocess.Popen([STASIS, "console", "h"], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        console.stdin.write(b"moreQ")
        console.stdin.close()
        self.assertEqual(console.stdout.read(), b"more")
        self.assertEqual(console.wait(20), 0)
        console.stdout.close()
        self.until(lambda: log.read_bytes() == b"tiny\nmore")

    def test_unix_socket(self):
        self.detached("g", "--console", "unix:tty")
        path = self.folder / "tty"
        self.until(path.exists)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        for text in (b"one", b"two"):  # one client after the other
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(text)
                self.read_until(client.fileno(), text)
        self.refused("run", "--kernel", TINY, "--console", "unix:tty", status=OUR_ERROR, says="tty")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"Q")
            self.until(lambda: not path.exists())
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        self.stasis("run", "--kernel", TINY, "--console", "unix:tty", "--stop-at", "100", status=STOPPED)

    def test_debug_console(self):
        self.stasis("run", "--kernel", TINY, "--memory", "32M", "--debugcon", "file:e9", stdin="EEQ")
        self.assertEqual((self.folder / "e9").read_text(), "EE")

    def test_several_consoles_see_the_same(self):
        guest = self.guest()
        self.read_until(guest.stdout.fileno(), b"tiny")
        consoles = [subprocess.Popen([STASIS, "console", "g"], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
                    for _ in range(3)]
        for n, console in enumerate(consoles):  # typed at one, seen at each that is attached already
            console.stdin.write(b"x%d" % n)
            self.read_until(console.stdout.fileno(), b"x%d" % n)
        guest.stdin.write(b"allQ")
        for console in consoles:
            self.read_until(console.stdout.fileno(), b"all")
            self.assertEqual(console.wait(20), 0)
            console.stdin.close()
            console.stdout.close()
        self.assertEqual(guest.wait(20), POWERED_OFF)


class OnATerminal(CommandLine):
    def start(self, *words):
        """A stasis command with a terminal of its own as its controlling terminal."""
        master, self.slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, self.slave)
        self.before = termios.tcgetattr(self.slave)

        def own_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        process = subprocess.Popen([STASIS, *map(str, words)], env=self.env, cwd=self.folder, stdin=self.slave, stdout=self.slave,
                                   stderr=self.slave, preexec_fn=own_terminal)
        self.addCleanup(lambda: (process.kill(), process.wait()))
        return master, process

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def restored(self):
        self.assertEqual(termios.tcgetattr(self.slave)[:4], self.before[:4])

    def run_tiny(self, *words):
        terminal, process = self.start("run", "--name", "g", "--kernel", TINY, "--memory", "32M", *words)
        self.read_until(terminal, b"tiny")
        self.assertTrue(self.is_raw())
        return terminal, process

    def test_raw_while_it_runs_and_restored_after(self):
        terminal, process = self.run_tiny()
        os.write(terminal, b"\x03\x1a\x11ok\r")  # Ctrl-C, Ctrl-Z, Ctrl-Q are the guest's
        self.assertIn(b"\x03\x1a\x11ok\r", self.read_until(terminal, b"ok\r"))
        os.write(terminal, b"Q")
        self.assertEqual(process.wait(20), POWERED_OFF)
        self.restored()

    def test_the_leave_key_stops_the_machine(self):
        terminal, process = self.run_tiny()
        os.write(terminal, b"a\x1d")
        self.assertEqual(process.wait(20), STOPPED)
        self.restored()

    def test_restored_after_a_crash_of_the_guest_and_after_an_error(self):
        terminal, process = self.run_tiny()
        os.write(terminal, b"C")
        self.assertEqual(process.wait(20), CRASHED)
        self.restored()
        _, process = self.start("run", "--kernel", "absent")
        self.assertEqual(process.wait(20), OUR_ERROR)
        self.restored()

    def test_restored_after_each_deadly_signal(self):
        for number, status in ((signal.SIGTERM, STOPPED), (signal.SIGINT, STOPPED), (signal.SIGHUP, STOPPED), (signal.SIGQUIT, STOPPED),
                               (signal.SIGSEGV, -signal.SIGSEGV), (signal.SIGABRT, -signal.SIGABRT), (signal.SIGBUS, -signal.SIGBUS)):
            with self.subTest(number):
                _, process = self.run_tiny()
                process.send_signal(number)
                self.assertEqual(process.wait(20), status)
                self.restored()

    def test_a_stop_gives_the_terminal_back_meanwhile(self):
        terminal, process = self.run_tiny()
        process.send_signal(signal.SIGTSTP)
        self.until(lambda: not self.is_raw())
        self.until(lambda: "T" in pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0])
        self.restored()
        process.send_signal(signal.SIGCONT)
        self.until(self.is_raw)
        os.write(terminal, b"onQ")
        self.read_until(terminal, b"on")
        self.assertEqual(process.wait(20), POWERED_OFF)
        self.restored()

    def test_console_command_leaves_and_the_machine_goes_on(self):
        self.detached()
        for end in ("key", "signal"):
            terminal, process = self.start("console", "g")
            self.read_until(terminal, b"leaves]")
            self.until(self.is_raw)
            os.write(terminal, b"hi")
            self.read_until(terminal, b"hi")
            os.write(terminal, b"\x1d") if end == "key" else process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(20), 0)
            self.restored()
        self.assertEqual(self.info()["state"], "running")
        terminal, process = self.start("console", "g")
        self.read_until(terminal, b"leaves]")
        self.until(self.is_raw)
        self.stasis("stop", "g")
        self.read_until(terminal, b"ended")
        self.assertEqual(process.wait(20), 0)
        self.restored()


class Control(CommandLine):
    def test_detached_machines_and_their_verbs(self):
        self.detached("a")
        self.detached("b", "--paused")
        listed = {m["name"]: m for m in json.loads(self.stasis("list", "--json").out)}
        self.assertEqual({n: m["state"] for n, m in listed.items()}, {"a": "running", "b": "paused"})
        self.assertEqual(self.info("b")["retired"], 0)
        self.stasis("unpause", "b")
        self.until(lambda: self.info("b")["retired"] > 1000)
        self.stasis("pause", "a")
        before = self.info("a")
        time.sleep(0.2)
        self.assertEqual(self.info("a"), before)
        self.assertEqual(before["state"], "paused")
        self.stasis("reset", "a")
        self.stasis("powerdown", "a")
        self.stasis("stop", "a")
        self.stasis("stop", "b")
        self.until(lambda: json.loads(self.stasis("list", "--json").out) == [])
        self.refused("info", "a", status=FAILED, says="not running")
        self.until(lambda: list(self.run_dir.glob("*")) == [])  # the lock goes last, with the process

    def test_detach_lets_go_of_everything(self):
        self.detached()  # returned though the pipes of the command stayed open until end of file
        pid = self.info()["pid"]
        self.assertEqual(os.getsid(pid), pid)
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        for fd in range(3):
            self.assertEqual(os.readlink(f"/proc/{pid}/fd/{fd}"), "/dev/null")

    def test_detach_tells_of_errors(self):
        error = self.stasis("run", "--kernel", "absent", "--detach", status=OUR_ERROR)
        self.assertIn("absent", error.err)
        self.assertEqual(error.out, "")

    def test_a_name_in_use(self):
        self.detached()
        error = self.refused("run", "--name", "g", "--kernel", TINY, status=OUR_ERROR, says="already")
        self.assertIn(str(self.info()["pid"]), error)

    def test_stale_sockets_are_seen_and_replaced(self):
        self.detached()
        os.kill(self.info()["pid"], signal.SIGKILL)
        self.until(lambda: json.loads(self.stasis("list", "--json").out) == [{"name": "g", "state": "stale"}])
        self.refused("info", "g", status=FAILED, says="stale")
        self.detached()
        self.assertEqual(self.info()["state"], "running")

    def test_a_signal_stops_in_order(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            guest = self.guest()
            self.read_until(guest.stdout.fileno(), b"tiny")
            guest.send_signal(number)
            guest.send_signal(number)  # as timeout(1) does
            self.assertEqual(guest.wait(20), STOPPED)
            self.assertEqual(list(self.run_dir.glob("*")), [])

    def test_curl(self):
        if not shutil.which("curl"):
            self.skipTest("no curl")
        self.detached()

        def curl(*words):
            return subprocess.run(["curl", "-sS", "--unix-socket", str(self.run_dir / "g.sock"), *words], capture_output=True,
                                  text=True, check=True).stdout
        self.assertEqual(json.loads(curl("http://stasis/v1/machine"))["name"], "g")
        self.assertEqual(json.loads(curl("-X", "PUT", "http://stasis/v1/machine/pause"))["state"], "paused")
        saved = json.loads(curl("-X", "PUT", "http://stasis/v1/machine/checkpoint", "-d", json.dumps({"path": "c.stasis", "cwd": str(self.folder)})))
        self.assertEqual(saved["digest"] + "\n", self.stasis("snapshot", "digest", "c.stasis").out)
        self.assertEqual(json.loads(curl("http://stasis/v1/machine/digest"))["digest"], saved["digest"])
        refused = json.loads(curl("-X", "PUT", "http://stasis/v1/machine/checkpoint", "-d", '{"path": "c.stasis"}'))
        self.assertEqual(refused["error"]["code"], "usage")
        self.assertEqual(curl("-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "http://stasis/v1/nothing"), "404")


    def test_the_description_is_of_what_is_served(self):
        self.detached()
        described, path = [], None
        for line in (pathlib.Path(__file__).parents[2] / "docs/control.yaml").read_text().splitlines():
            if found := re.match(r"  (/machine\S*):$", line):
                path = found[1]
            elif (found := re.match(r"    (get|put|delete):$", line)) and path:
                described.append((found[1].upper(), path))
        self.assertEqual(len(described), 12)
        for method, path in sorted(described, key=lambda verb: verb[1].endswith("stop")):
            connection = http.client.HTTPConnection("stasis")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self.run_dir / "g.sock"))
            connection.request(method, "/v1" + path)
            self.assertIn(connection.getresponse().status, (200, 400, 409), path)
            connection.close()


class Saves(CommandLine):
    def test_checkpoint_suspend_resume(self):
        guest = self.guest()
        self.read_until(guest.stdout.fileno(), b"tiny")
        guest.stdin.write(b"W")
        self.read_until(guest.stdout.fileno(), b"W")
        self.assertIn("g: saved to", self.stasis("checkpoint", "g", "a.stasis").out)
        self.assertEqual(self.info()["state"], "running")
        report = json.loads(self.stasis("suspend", "g", "b.stasis", "--json").out)
        self.assertEqual(guest.wait(20), SUSPENDED)
        self.assertGreater(report["stored_bytes"], 8 << 20)
        self.assertEqual(report["digest"] + "\n", self.stasis("snapshot", "digest", "b.stasis").out)
        self.assertEqual(self.stasis("resume", "b.stasis", stdin="backQ").out, "back")
        self.assertEqual(self.stasis("resume", "a.stasis", stdin="alsoQ").out, "also")
        self.refused("suspend", "g", "c.stasis", status=FAILED, says="not running")

    def test_stop_at_is_exact_and_digests_agree(self):
        run = ("run", "--kernel", TINY, "--memory", "32M", "--console", "none", "--rtc", "1")
        self.stasis(*run, "--stop-at", "5000", "--suspend-to", "whole.stasis", status=SUSPENDED)
        self.stasis(*run, "--stop-at", "777", "--suspend-to", "part.stasis", status=SUSPENDED)
        self.stasis("resume", "part.stasis", "--console", "none", "--stop-at", "5000", "--suspend-to", "part.stasis", status=SUSPENDED)
        digests = [self.stasis("snapshot", "digest", name).out for name in ("whole.stasis", "part.stasis")]
        self.assertEqual(digests[0], digests[1])
        self.assertRegex(digests[0], "^[0-9a-f]{32}\n$")

    def test_snapshot_show(self):
        self.stasis("run", "--kernel", TINY, "--memory", "32M", "--console", "none", "--stop-at", "50", "--suspend-to", "a.stasis",
                    status=SUSPENDED)
        whole = self.stasis("snapshot", "show", "a.stasis").out
        for text in ("complete", "cpu/contract", "device/isa/uart0", "memory/ram", "32.0 MiB", "8192 pages"):
            self.assertIn(text, whole)
        self.assertLess(max(map(len, whole.splitlines())), 600)
        self.assertRegex(self.stasis("snapshot", "show", "a.stasis", "cpu/0/rip").out, r"cpu/0/rip\s+0x10")
        self.assertEqual(json.loads(self.stasis("snapshot", "show", "a.stasis", "cpu/0/retired", "--json").out)["value"], 50)
        record = json.loads(self.stasis("snapshot", "show", "a.stasis", "device/isa/uart0", "--json").out)
        self.assertEqual(record["path"], "device/isa/uart0")
        parsed = json.loads(self.stasis("snapshot", "show", "a.stasis", "--json").out)
        self.assertEqual(parsed["ram"]["bytes"], 32 << 20)
        for part in parsed["parts"]:
            self.stasis("snapshot", "show", "a.stasis", part["path"])
        self.refused("snapshot", "show", "a.stasis", "cpu/0/nothing", status=FAILED, says="cpu/0/nothing")
        self.refused("snapshot", "show", "a.stasis", "cpu/7", status=FAILED, says="device/isa/uart0")

    def test_a_damaged_file_is_still_named(self):
        self.stasis("run", "--kernel", TINY, "--memory", "32M", "--console", "none", "--stop-at", "50", "--suspend-to", "a.stasis",
                    status=SUSPENDED)
        content = (self.folder / "a.stasis").read_bytes()
        (self.folder / "cut.stasis").write_bytes(content[:-4096])
        done = self.stasis("snapshot", "show", "cut.stasis", status=FAILED)
        self.assertIn("incomplete", done.out)
        self.assertIn("cut.stasis", done.err)
        named = json.loads(self.stasis("snapshot", "show", "cut.stasis", "--json", status=FAILED).out)
        self.assertEqual((named["complete"], named["encrypted"], named["program"]), (False, False, "stasis"))

    def test_damage_found_in_the_background_is_told_of_a_detached_machine(self):
        guest = self.guest()
        self.read_until(guest.stdout.fileno(), b"tiny")
        guest.stdin.write(b"W")
        self.read_until(guest.stdout.fileno(), b"W")
        self.stasis("suspend", "g", "a.stasis")
        content = bytearray((self.folder / "a.stasis").read_bytes())
        content[json.loads(self.stasis("snapshot", "show", "a.stasis", "memory/ram", "--json").out)["offset"] + (18 << 20)] ^= 1
        (self.folder / "a.stasis").write_bytes(content)
        self.stasis("resume", "a.stasis", "--name", "g", "--detach", "--verify", "background")
        self.addCleanup(subprocess.run, [STASIS, "stop", "g"], env=self.env, capture_output=True, check=False)
        self.until(lambda: self.info()["problem"])
        self.until(lambda: self.info()["state"] == "paused")
        self.assertEqual(self.info()["problem"]["code"], "bad_file")
        self.assertIn("memory/ram", self.info()["problem"]["message"])
        self.assertIn("problem", self.stasis("info", "g").out)
        self.assertIn("stasis info g", self.stasis("list").out)

    def test_a_dry_run_claims_no_name(self):
        self.stasis("run", "--kernel", TINY, "--memory", "32M", "--console", "none", "--stop-at", "50", "--suspend-to", "a.stasis", status=SUSPENDED)
        shutil.rmtree(self.run_dir)
        self.stasis("resume", "a.stasis", "--name", "g", "--dry-run")
        self.assertFalse(self.run_dir.exists())
        self.detached()
        held = sorted(os.listdir(self.run_dir))
        done = self.stasis("resume", "a.stasis", "--name", "g", "--dry-run", status=OUR_ERROR)
        self.assertIn(f"is running already as process {self.info()['pid']}", done.err)
        self.stasis("resume", "a.stasis", "--name", "other", "--dry-run")
        self.assertEqual(sorted(os.listdir(self.run_dir)), held)

    def test_output_that_cannot_be_written_is_an_error(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([STASIS, "version"], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, FAILED)
        self.assertIn(b"standard output: could not be written to", done.stderr)

    def test_two_resumes_of_one_file_do_not_meet(self):
        self.stasis("run", "--kernel", TINY, "--memory", "32M", "--console", "none", "--stop-at", "50", "--suspend-to", "a.stasis",
                    status=SUSPENDED)
        before = (self.folder / "a.stasis").read_bytes()
        for name in ("x", "y"):
            self.stasis("resume", "a.stasis", "--name", name, "--detach")
            self.addCleanup(subprocess.run, [STASIS, "stop", name], env=self.env, capture_output=True, check=False)
        for name in ("x", "y"):
            self.assertEqual(self.info(name)["restored_from"], str(self.folder / "a.stasis"))
            self.stasis("stop", name)
        self.assertEqual((self.folder / "a.stasis").read_bytes(), before)

    def test_errors_of_saves_leave_the_guest_alone(self):
        guest = self.guest()
        self.read_until(guest.stdout.fileno(), b"tiny")
        self.refused("checkpoint", "g", "no/folder/a.stasis", status=USAGE, says="no/folder")
        self.refused("suspend", "g", ".", status=USAGE, says="director")
        guest.stdin.write(b"aliveQ")
        self.assertTrue(re.match(b"^alive", guest.stdout.read()))
        self.assertEqual(guest.wait(20), POWERED_OFF)


class Inspecting(CommandLine):
    def setUp(self):
        super().setUp()
        for name, count in (("a", 1000), ("b", 2000)):
            self.stasis("run", "--kernel", TINY, "--memory", "32M", "--stop-at", count, "--rtc", "1", "--console", "none", "--suspend-to",
                        f"{name}.stasis", status=SUSPENDED)

    def test_diff_has_its_own_statuses(self):
        self.assertEqual(self.stasis("snapshot", "diff", "a.stasis", "a.stasis").out, "")
        self.assertIn("cpu/0/retired", self.stasis("snapshot", "diff", "a.stasis", "b.stasis", status=1).out)
        self.refused("snapshot", "diff", "a.stasis", status=USAGE, says="B")
        self.refused("snapshot", "diff", "a.stasis", ".", status=USAGE, says="directory")
        self.refused("snapshot", "diff", "a.stasis", "absent", status=3, says="absent")
        (self.folder / "text").write_text("no symbols\n")
        found = json.loads(self.stasis("snapshot", "diff", "a.stasis", "b.stasis", "--json", "--no-ram", status=1).out)
        retired = next(field for field in found["fields"] if field["path"] == "cpu/0/retired")
        self.assertEqual((retired["a"], retired["b"]), (1000, 2000))

    def test_memory(self):
        dump = self.stasis("snapshot", "memory", "a.stasis", "0x40", "--physical", "0x100000").out
        self.assertEqual(dump.count("\n"), 4, dump)
        self.assertRegex(dump, r"^0000000000100000  ([0-9a-f]{2} ){8} ([0-9a-f]{2} ){8} \|.{16}\|\n")
        self.assertEqual(dump, self.stasis("snapshot", "memory", "a.stasis", "64", "--virtual", "0x100000").out)  # paging is off
        self.assertIn("\n*\n", self.stasis("snapshot", "memory", "a.stasis", "4096", "--physical", "0x1800000").out)
        tiny = self.stasis("snapshot", "memory", "a.stasis", "--virtual", "start", "--symbols", TINY, "16").out
        self.assertEqual(tiny.split()[0], "0000000000100000")
        for words, status, says in ((("--physical", "0x2000000"), FAILED, "RAM is at 0x0-0x1ffffff"), (("--physical", "x"), USAGE, "'x'"),
                                    (("--virtual", "start"), USAGE, "--symbols"), ((), USAGE, "--physical"), (("--physical", "0", "0"), USAGE, "LEN"),
                                    (("--physical", "0xffffffffffffffff", "2"), USAGE, "last address"),
                                    (("--virtual", "a", "--symbols", "absent"), FAILED, "absent"),
                                    (("--virtual", "a", "--symbols", "a.stasis"), FAILED, "a.stasis"),
                                    (("--virtual", "absent", "--symbols", TINY), FAILED, "absent")):
            self.refused("snapshot", "memory", "a.stasis", *words, status=status, says=says)

    def test_binary_does_not_go_to_a_terminal(self):
        ours, theirs = pty.openpty()
        done = subprocess.run([STASIS, "snapshot", "memory", "a.stasis", "--physical", "0", "16", "--binary"], stdout=theirs, stderr=subprocess.PIPE,
                              cwd=self.folder, check=False, timeout=60)
        os.close(ours)
        os.close(theirs)
        self.assertEqual(done.returncode, USAGE)
        self.assertIn(b"redirect", done.stderr)

    def test_exports_replace_as_a_whole_or_not_at_all(self):
        for form in ("elf-core", "raw", "json"):
            (self.folder / "out").write_text("previous")
            self.refused("snapshot", "export", "absent", "out", "--format", form, status=FAILED, says="absent")
            self.assertEqual((self.folder / "out").read_text(), "previous")
            told = json.loads(self.stasis("snapshot", "export", "a.stasis", "out", "--format", form, "--json").out)
            self.assertEqual((self.folder / "out").stat().st_size, told["bytes"])
        (self.folder / "out.json").unlink()
        (self.folder / "out.json").mkdir()
        (self.folder / "out").write_text("previous")
        self.refused("snapshot", "export", "a.stasis", "out", "--format", "raw", status=USAGE, says="out.json")
        self.assertEqual((self.folder / "out").read_text(), "previous")
        self.assertEqual([name for name in os.listdir(self.folder) if name.endswith(".tmp")], [])
        self.refused("snapshot", "export", "a.stasis", "out", status=USAGE, says="--format")
        before = (self.folder / "a.stasis").read_bytes()
        self.refused("snapshot", "export", "a.stasis", "a.stasis", "--format", "json", status=USAGE, says="is the snapshot that is exported")
        self.assertEqual((self.folder / "a.stasis").read_bytes(), before)
        self.refused("snapshot", "export", "a.stasis", "out", "--format", "vmdk", status=USAGE, says="vmdk")

    def test_a_core_without_paging_has_physical_addresses(self):
        self.stasis("snapshot", "export", "a.stasis", "core", "--format", "elf-core")
        done = subprocess.run(["gdb", "-nx", "-batch", "-core", self.folder / "core", "-ex", "x/4xb 0x100000"], capture_output=True, text=True,
                              check=False, timeout=60)
        want = json.loads(self.stasis("snapshot", "memory", "a.stasis", "4", "--physical", "0x100000", "--json").out)["bytes"]
        found = re.search(r"^0x100000:((\t0x[0-9a-f]{2}){4})$", done.stdout, re.M)
        self.assertTrue(found, done.stdout + done.stderr)
        self.assertEqual(found[1].replace("\t0x", ""), want)

    def test_map(self):
        self.assertRegex(self.stasis("snapshot", "map", "a.stasis", "a.png").out, r"zero: \d+ pages")
        told = json.loads(self.stasis("snapshot", "map", "a.stasis", "a.svg", "--with", "b.stasis", "--json").out)
        self.assertEqual(sum(told["pages"].values()), 32 * 256)
        self.refused("snapshot", "map", "a.stasis", "a.jpg", status=USAGE, says="a.jpg")
        self.refused("snapshot", "map", "a.stasis", "no/folder/a.png", status=USAGE, says="no/folder")


if __name__ == "__main__":
    unittest.main()
