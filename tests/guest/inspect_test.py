#!/usr/bin/env python3
"""Looking into the snapshot of a Linux guest without waking it: gdb on its core, memory by address, differences, pictures."""
import json
import re
import struct
import subprocess
import unittest
import zlib

from machines import CONSOLE, GUEST, STASIS, SUSPENDED, GuestTest, Machine

REGISTERS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
WANTED = "linux_banner|jiffies_64|init_task|_text|init_uts_ns"
PHYSICAL = 1 << 60  # where a core has the guest's physical memory
TEXT = 0xffffffff81000000


class Inspect(GuestTest):
    def saved(self, kaslr="nokaslr"):
        """Two snapshots of one guest, and the symbols as it tells them."""
        guest = Machine(self, "run", "--name", "guest", "--kernel", str(GUEST / "vmlinuz"), "--initrd", str(GUEST / "initramfs.gz"), "--memory",
                        "128M", "--rtc", "1750000000", "--cmdline", CONSOLE + kaslr + " rdinit=/bin/sh")
        guest.send("/bin/busybox mkdir -p /proc; /bin/busybox mount -t proc proc /proc; /bin/busybox stty -echo; echo RE''ADY\n")
        guest.wait_for("READY")
        guest.send(f"echo; /bin/busybox grep -E ' ({WANTED})$' /proc/kallsyms; echo DO''NE\n")
        guest.wait_for("DONE")
        lines = re.findall(r"^[0-9a-f]{16} \w \w+$", guest.output, re.M)
        (self.folder / "symbols").write_text("\n".join(lines) + "\n")
        symbols = {name: int(address, 16) for address, _, name in (line.split() for line in lines)}
        self.assertEqual(set(symbols), set(WANTED.split("|")), guest.output[-500:])
        self.stasis("checkpoint", "guest", "before.stasis")
        guest.send("/bin/busybox usleep 100000; echo SL''EPT\n")
        guest.wait_for("SLEPT")
        self.stasis("suspend", "guest", "after.stasis")
        self.assertEqual(guest.wait(), SUSPENDED)
        return symbols

    def gdb(self, core, *commands):
        words = [word for command in commands for word in ("-ex", command)]
        done = subprocess.run(["gdb", "-nx", "-batch", "-ex", "set width 0", "-core", str(self.folder / core), *words], capture_output=True,
                              text=True, check=False, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def show(self, path):
        return json.loads(self.stasis("snapshot", "show", "after.stasis", path, "--json").stdout)

    def test_all(self):
        symbols = self.saved()
        with self.subTest("core"):
            self.core(symbols)
        with self.subTest("memory"):
            self.memory(symbols)
        with self.subTest("diff"):
            self.diff()
        with self.subTest("raw and JSON"):
            self.raw_and_json()
        with self.subTest("map"):
            self.pictures()

    def core(self, symbols):
        done = json.loads(self.stasis("snapshot", "export", "after.stasis", "--format", "elf-core", "g.core", "--json").stdout)
        path = self.folder / "g.core"
        self.assertEqual(done["threads"], 1)
        self.assertEqual(path.stat().st_size, done["bytes"])
        self.assertLess(path.stat().st_blocks * 512, 100 << 20)  # zero pages are holes, RAM is there once
        banner = self.gdb("g.core", f"x/s {symbols['linux_banner']:#x}")
        self.assertIn('"Linux version 6.', banner)
        threads = self.gdb("g.core", "info threads")
        self.assertEqual(len(re.findall(r"^[* ] +\d+ ", threads, re.M)), 1, threads)
        self.registers()
        # The physical window holds the same bytes as the kernel's text mapping.
        output = self.gdb("g.core", f"x/2gx {TEXT:#x}", f"x/2gx {PHYSICAL + (TEXT & 0x7fffffff):#x}")
        first, second = (line.split(":")[1].split() for line in output.splitlines() if line.startswith("0x") and ":\t" in line)
        self.assertEqual(first, second)

    def registers(self):
        state = self.show("cpu/0")["state"]
        want = dict(zip(REGISTERS, state["gpr"]), rip=state["rip"], eflags=state["rflags"], fs_base=state["fs"]["base"], gs_base=state["gs"]["base"])
        want.update({name: state[name]["selector"] for name in ("cs", "ss", "ds", "es", "fs", "gs")})
        output = self.gdb("g.core", "thread 1", "info registers", *(f"printf \"{name}=%lx\\n\", ${name}" for name in want))
        self.assertRegex(output, r"(?m)^rip +0x")
        got = {name: int(value, 16) for name, value in re.findall(r"(?m)^(\w+)=([0-9a-f]+)$", output)}
        mask = {"eflags": 0xffffffff}
        self.assertEqual({name: got[name] & mask.get(name, ~0) for name in want}, want)
        xmm = re.search(r"xmm1=([0-9a-f]+) ([0-9a-f]+)", self.gdb("g.core", "printf \"xmm1=%lx %lx\\n\", $xmm1.v2_int64[0], $xmm1.v2_int64[1]"))
        self.assertEqual(struct.pack("<QQ", int(xmm[1], 16), int(xmm[2], 16)).hex(), state["fpu"]["xmm"][1])

    def memory(self, symbols):
        banner = symbols["linux_banner"]
        dump = self.stasis("snapshot", "memory", "after.stasis", "--virtual", "linux_banner", "32", "--symbols", "symbols").stdout
        self.assertTrue(dump.startswith(f"{banner:016x}  4c 69 6e 75 78"), dump)
        self.assertIn("|Linux version 6.|", dump)
        found = json.loads(self.stasis("snapshot", "memory", "after.stasis", "--virtual", hex(banner), "14", "--json").stdout)
        self.assertEqual(bytes.fromhex(found["bytes"]), b"Linux version ")
        raw = subprocess.run([STASIS, "snapshot", "memory", "after.stasis", "--physical", hex(TEXT & 0x7fffffff), "4096", "--binary"], cwd=self.folder,
                             capture_output=True, check=True).stdout
        virtual = json.loads(self.stasis("snapshot", "memory", "after.stasis", "--virtual", hex(TEXT), "4096", "--json").stdout)
        self.assertEqual(raw.hex(), virtual["bytes"])
        self.refused("snapshot", "memory", "after.stasis", "--virtual", "0xffffffffffffe000", "8", says=("0xffffffffffffe000", "not present"))
        self.refused("snapshot", "memory", "after.stasis", "--virtual", "0x8000000000000000", "8", says="canonical")
        self.refused("snapshot", "memory", "after.stasis", "--physical", "0x7fffffe", "8", says="RAM is at 0x0-0x7ffffff")
        self.refused("snapshot", "memory", "after.stasis", "--virtual", "nonsense", "8", "--symbols", "symbols", says="nonsense")
        self.refused("snapshot", "memory", "after.stasis", "--vcpu", "7", "--virtual", "0x1000", "8", says="vCPU 7")

    def diff(self):
        self.assertEqual(self.stasis("snapshot", "diff", "after.stasis", "after.stasis").stdout, "")
        text = self.stasis("snapshot", "diff", "before.stasis", "after.stasis", "--symbols", "symbols", status=1).stdout
        self.assertRegex(text, r"(?m)^clock/now_ns +\d+ ns -> \d+ ns +# \+\d+ ns")
        self.assertRegex(text, r"(?m)^ +0x[0-9a-f]+ - 0x[0-9a-f]+ .*jiffies_64")
        found = json.loads(self.stasis("snapshot", "diff", "before.stasis", "after.stasis", "--symbols", "symbols", "--json", status=1).stdout)
        self.assertFalse(found["equal"])
        names = {change["name"] for change in found["symbols"]}
        self.assertIn("jiffies_64", names)
        self.assertFalse(names & {"linux_banner", "_text"}, names)
        self.assertEqual(found["ram"]["pages"], sum(r["pages"] for r in found["ram"]["ranges"]))
        self.assertIn("clock/now_ns", {field["path"] for field in found["fields"]})
        self.refused("snapshot", "diff", "before.stasis", "absent.stasis", status=3, says="absent.stasis")

    def raw_and_json(self):
        self.stasis("snapshot", "export", "after.stasis", "--format", "raw", "g.ram")
        state = json.loads((self.folder / "g.ram.json").read_text())
        ram = (self.folder / "g.ram").read_bytes()
        self.assertEqual(len(ram), state["ram_bytes"])
        self.assertIn(b"Linux version 6.", ram)
        self.stasis("snapshot", "export", "after.stasis", "--format", "json", "g.json")
        parts = {part["path"]: part for part in json.loads((self.folder / "g.json").read_text())["parts"]}
        self.assertEqual(parts["cpu/0"]["state"], self.show("cpu/0")["state"])
        (self.folder / "folder").mkdir()
        self.refused("snapshot", "export", "after.stasis", "--format", "json", "folder", status=2, says="folder")
        self.refused("snapshot", "export", "after.stasis", "--format", "json", "no/such/x", status=2, says="no/such")

    def pictures(self):
        kinds = json.loads(self.stasis("snapshot", "map", "after.stasis", "a.png", "--json").stdout)["pages"]
        self.assertEqual(sum(kinds.values()), 128 * 256)
        self.assertGreater(kinds["kernel code"], 1000)
        png = (self.folder / "a.png").read_bytes()
        self.assertEqual(png[:8], b"\x89PNG\r\n\x1a\n")
        length, kind = struct.unpack(">I4s", png[8:16])
        self.assertEqual((length, kind, struct.unpack(">I", png[29:33])[0]), (13, b"IHDR", zlib.crc32(png[12:29])))
        self.stasis("snapshot", "map", "before.stasis", "b.svg", "--with", "after.stasis")
        svg = (self.folder / "b.svg").read_text()
        self.assertIn("changed: ", svg)
        self.assertIn("before.stasis -&gt; after.stasis", svg)
        self.refused("snapshot", "map", "after.stasis", "a.gif", status=2, says="a.gif")

    def test_moved_kernel(self):
        symbols = self.saved(kaslr="")
        # The symbols as the kernel was linked: a System.map knows nothing of KASLR.
        slide = symbols["_text"] - TEXT
        linked = "".join(f"{address - slide:016x} D {name}\n" for name, address in symbols.items())
        (self.folder / "linked").write_text(linked)
        for file in ("linked", "symbols"):
            dump = self.stasis("snapshot", "memory", "after.stasis", "--virtual", "linux_banner", "16", "--symbols", file).stdout
            self.assertTrue(dump.startswith(f"{symbols['linux_banner']:016x}  4c 69 6e"), dump)


if __name__ == "__main__":
    unittest.main()
