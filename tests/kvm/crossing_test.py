#!/usr/bin/env python3
"""Linux under KVM: suspended and resumed in fresh processes on several vCPUs, and across engines, with nothing lost."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import nested

STASIS = pathlib.Path(os.environ.get("STASIS", nested.images.ROOT / "build/release/stasis")).resolve()
GUEST = pathlib.Path(os.environ.get("STASIS_GUEST", nested.images.ROOT / "build/guest")).resolve()
TEST_CPU = pathlib.Path(os.environ.get("TEST_CPU", nested.images.ROOT / "build/release/src/test_cpu")).resolve()
CYCLES = int(os.environ.get("STASIS_CYCLES", "2"))

# What the computation prints does not depend on the engine, the number of CPUs, or the saves in between.
# boot NAME ENGINE CPUS: begins the computation. lines NAME N: waits until N of its steps are on the console.
# suspend NAME: saves it and waits until its process, $machine, is gone: until then the name is taken.
WORDS = f"""
export XDG_RUNTIME_DIR=/tmp
trap 'kill $(jobs -p) 2> /dev/null' EXIT
boot() {{
  {STASIS} run --engine $2 --cpus $3 --name $1 --console file:$OUT/$1.console --kernel {GUEST}/vmlinuz \\
    --initrd {GUEST}/initramfs.gz --cmdline "console=ttyS0 quiet stasis=work:4:$STEPS" > $OUT/$1.end 2>&1 &
  machine=$!
}}
suspend() {{
  timeout 120 {STASIS} suspend $1 $OUT/$1.stasis > /dev/null 2> $OUT/$1.refused || {{ echo "suspend $cycle"; cat $OUT/$1.refused $OUT/$1.end; exit 1; }}
  wait $machine
  [ $? = 4 ] || {{ echo "suspend $cycle: not its end"; cat $OUT/$1.end; exit 1; }}
}}
lines() {{
  for try in $(seq 1200); do
    [ "$(grep -c ^step $OUT/$1.console 2>/dev/null)" -ge $2 ] 2>/dev/null && return 0
    sleep 0.1
  done
  echo "no step $2 of $1"; tail -3 $OUT/$1.console; cat $OUT/$1.end; exit 1
}}
up() {{
  for try in $(seq 600); do {STASIS} info $1 > /dev/null 2>&1 && return 0; sleep 0.05; done
  echo "$1 is not up"; cat $OUT/$1.end; exit 1
}}
"""


def steps(text):
    return re.findall(r"^(step .*?)\r?$", text, re.M)


def expected_steps(count):
    """The same computation on the soft engine, never stopped."""
    done = subprocess.run([STASIS, "run", "--engine", "soft", "--pace", "fast", "--kernel", GUEST / "vmlinuz", "--initrd", GUEST / "initramfs.gz",
                           "--cmdline", f"console=ttyS0 quiet stasis=work:4:{count}"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", timeout=120, check=True)
    return steps(done.stdout)


class Crossing(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="crossing."))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def run_script(self, script, count):
        result = nested.run(WORDS + script, [STASIS, GUEST, TEST_CPU], cpus=1, out=self.folder / "out", timeout=600, memory=3072,
                            environment={"STEPS": str(count)})
        self.assertEqual(result.status, 0, result.log)
        return result

    def check_console(self, result, count):
        seen, wanted = steps((result.folder / "cut.console").read_text(errors="replace")), expected_steps(count)
        self.assertEqual(len(wanted), count)
        self.assertEqual(seen, wanted)

    def test_what_only_a_real_kvm_can_show(self):
        """Every MSR and XSAVE component has a home; pages that a guest writes are marked."""
        result = self.run_script(f"{TEST_CPU} --gtest_filter=KvmHost.*", 0)
        self.assertIn("[  PASSED  ] 2 tests", re.sub(r"\x1b\[[0-9;]*m", "", result.log))

    def test_suspend_and_resume_on_four_cpus(self):
        count = 40 * CYCLES
        result = self.run_script(f"""
boot cut kvm 4
lines cut 1
cycle=0
while [ $cycle -lt {CYCLES} ]; do
  suspend cut
  {STASIS} resume --engine kvm --name cut --console file:$OUT/cut.console $OUT/cut.stasis > $OUT/cut.end 2>&1 &
  machine=$!
  up cut
  cycle=$((cycle + 1))
done
{STASIS} checkpoint cut $OUT/four.stasis --encoding packed > /dev/null || exit 1
lines cut {count}
rm $OUT/cut.stasis
""", count)
        self.check_console(result, count)
        self.check_core(self.folder / "out/four.stasis", 4)

    def check_core(self, snapshot, cpus):
        """gdb has a thread for each vCPU, with the registers that `show` tells."""
        core = self.folder / "four.core"
        subprocess.run([STASIS, "snapshot", "export", snapshot, "--format", "elf-core", core], check=True, stdout=subprocess.DEVNULL)
        names = ("rip", "rsp", "rax", "rbx", "r15", "eflags", "fs_base", "gs_base")
        words = [word for cpu in range(cpus) for word in ("-ex", f"thread {cpu + 1}", *(w for name in names for w in ("-ex", f"printf \"{name}=%lx\\n\", ${name}")))]
        told = subprocess.run(["gdb", "-nx", "-batch", "-core", core, *words], check=True, capture_output=True, text=True).stdout
        threads = re.split(r"Switching to thread \d+", told)[1:]
        self.assertEqual(len(threads), cpus, told)
        for cpu, thread in enumerate(threads):
            state = json.loads(subprocess.run([STASIS, "snapshot", "show", snapshot, f"cpu/{cpu}", "--json"], check=True, capture_output=True).stdout)["state"]
            want = {"rip": state["rip"], "rsp": state["gpr"][4], "rax": state["gpr"][0], "rbx": state["gpr"][3], "r15": state["gpr"][15], "eflags": state["rflags"],
                    "fs_base": state["fs"]["base"], "gs_base": state["gs"]["base"]}
            got = {name: int(value, 16) for name, value in re.findall(r"^(\w+)=([0-9a-f]+)$", thread, re.M)}
            got["eflags"] &= 0xffffffff
            self.assertEqual(got, want, f"CPU {cpu}")

    def test_kvm_to_soft_and_back(self):
        count = 120
        result = self.run_script(f"""
boot cut kvm 1
lines cut 1
engine=kvm
for cycle in 1 2 3 4 5; do
  suspend cut
  if [ $engine = kvm ]; then engine=soft; else engine=kvm; fi
  {STASIS} resume --engine $engine --paused --name cut --console file:$OUT/cut.console $OUT/cut.stasis > $OUT/cut.end 2>&1 &
  machine=$!
  up cut
  timeout 120 {STASIS} checkpoint cut $OUT/again.stasis > /dev/null 2>&1 || {{ echo "checkpoint $cycle"; exit 1; }}
  echo "digests $engine $({STASIS} snapshot digest $OUT/cut.stasis) $({STASIS} snapshot digest $OUT/again.stasis)"
  {STASIS} unpause cut
  lines cut $((cycle * 15))
done
lines cut {count}
rm $OUT/*.stasis
""", count)
        crossings = re.findall(r"^digests (\w+) (\w+) (\w+)$", result.log, re.M)
        self.assertEqual([engine for engine, _, _ in crossings], ["soft", "kvm", "soft", "kvm", "soft"])
        for engine, before, after in crossings:
            self.assertEqual(before, after, f"what was saved is not what {engine} holds")
        self.check_console(result, count)


if __name__ == "__main__":
    unittest.main()
