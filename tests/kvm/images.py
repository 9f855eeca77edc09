"""The disks of the nested machine: the base image (busybox, python3, QEMU, their libraries) and a job's files.

Every file has the path that it has on the host, so a test names the same paths here and there.
"""
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NESTED = ROOT / "build/nested"
PYTHON = pathlib.Path("/usr/bin/python3")
QEMU = pathlib.Path("/usr/bin/qemu-system-x86_64")
FIRMWARE = ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "multiboot_dma.bin", "pvh.bin")
NOT_NEEDED = {"test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo", "pydoc_data", "distutils",
              "config-3.11-x86_64-linux-gnu"}


def libraries(files):
    """The shared libraries that these programs name, by the dynamic loader's own answer."""
    found = set()
    for start in range(0, len(files), 100):
        done = subprocess.run(["ldd", *map(str, files[start:start + 100])], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            words = line.split()
            if "=>" in words and words[-1].startswith("("):
                found.add(pathlib.Path(words[words.index("=>") + 1]))
            elif words and words[0].startswith("/lib64/"):
                found.add(pathlib.Path(words[0]))
            elif "not found" in line:
                raise FileNotFoundError(f"{files}: {line.strip()}")
    return found


def is_elf(path):
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def copy(source, top):
    """Copies a file or a folder to its own path under `top`, links as what they point to."""
    # The merged folders are links on Debian: /lib/x is /usr/lib/x.
    place = pathlib.Path(os.path.realpath(source.parent)) / source.name
    target = top / place.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif not target.exists():
        try:
            os.link(source.resolve(), target)
        except OSError:
            shutil.copy2(source, target)


def make_image(folder, path, room_mib):
    """An ext4 image of `folder`; the file appears under its name only when it is whole."""
    size = 0
    for place, folders, files in os.walk(folder):
        size += 4096 * (len(folders) + 1) + sum(4096 + os.lstat(os.path.join(place, name)).st_size for name in files)
    part = f"{path}.part"
    with open(part, "wb") as file:
        file.truncate((int(size * 1.05) >> 20) + room_mib << 20)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal,^resize_inode", "-E", "root_owner=0:0",
                    "-d", str(folder), part], check=True)
    os.replace(part, path)


def python_library():
    words = [str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]
    return pathlib.Path(subprocess.run(words, check=True, capture_output=True, text=True, env={}).stdout.strip())


def base_sources():
    """host path -> path in the image, of all that is not a library."""
    library = python_library()
    sources = {pathlib.Path("/bin/busybox"): "usr/bin/busybox", PYTHON.resolve(): str(PYTHON.resolve())[1:]}
    for place, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in NOT_NEEDED]
        for name in files:
            sources[pathlib.Path(place) / name] = os.path.join(place, name)[1:]
    if QEMU.exists():
        sources[QEMU] = str(QEMU)[1:]
        for name in FIRMWARE:
            for folder in ("/usr/share/qemu", "/usr/share/seabios"):
                if (pathlib.Path(folder) / name).is_file():
                    sources[pathlib.Path(folder) / name] = f"usr/share/qemu/{name}"
    return sources


def base_image():
    """Makes build/nested/base.img when it is missing or its sources changed; returns its path."""
    subprocess.run([str(HERE / "kernel")], check=True)
    with open(NESTED / ".base-lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = base_sources()
        own = [HERE / name for name in ("images.py", "init")]
        stats = [(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns)
                 for path in [*sources, *own, NESTED / "vmlinux"]]
        key = hashlib.sha256(json.dumps(stats).encode()).hexdigest()
        image, kept = NESTED / "base.img", NESTED / "base.key"
        if image.exists() and kept.exists() and kept.read_text() == key:
            return image
        kept.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=NESTED) as top:
            fill_base(pathlib.Path(top), sources)
            make_image(top, image, 16)
        kept.write_text(key)
    return image


def fill_base(top, sources):
    for folder in ("dev", "proc", "sys", "root", "job", "top", "tmp", "run", "etc", "modules", "usr/bin", "usr/sbin", "usr/lib",
                   "usr/lib64", "var"):
        (top / folder).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (top / name).symlink_to(f"usr/{name}")
    for source, place in sources.items():
        target = top / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    (top / "usr/bin/python3").symlink_to(PYTHON.resolve().name)
    elf = [path for path in sources if path.suffix not in (".py", ".pyc", ".txt") and is_elf(path)]
    for library in libraries(elf):
        copy(library, top)
    applets = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if not (top / "usr/bin" / applet).exists():
            (top / "usr/bin" / applet).symlink_to("busybox")
    for module in (NESTED / "modules").iterdir():
        shutil.copy2(module, top / "modules")
    shutil.copy2(HERE / "init", top / "init")
    (top / "init").chmod(0o755)
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (top / "etc/hosts").write_text("127.0.0.1 localhost\n")


def job_image(path, files, script, environment):
    """A job's disk: its files and their libraries at their host paths, the script and its environment."""
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        top = pathlib.Path(name)
        nested = top / "nested"
        nested.mkdir()
        programs = []
        for file in files:
            file = pathlib.Path(file).absolute()
            if not file.exists():
                raise FileNotFoundError(f"{file}: a file that the job names is not there")
            copy(file, top)
            inside = [file] if file.is_file() else [p for p in file.rglob("*") if os.access(p, os.X_OK)]
            programs += [p for p in inside if is_elf(p)]
        for library in libraries(programs) if programs else ():
            copy(library, top)
        shutil.copy2(HERE / "start", nested / "start")
        (nested / "script").write_text(script)
        quoted = {key: str(value).replace("'", "'\\''") for key, value in environment.items()}
        (nested / "environment").write_text("".join(f"export {key}='{value}'\n" for key, value in quoted.items()))
        make_image(top, path, 8)


if __name__ == "__main__":
    print(base_image(), file=sys.stderr)
