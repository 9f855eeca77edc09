"""extract_vmlinux.py BZIMAGE OUT: writes the ELF kernel that a bzImage carries.

The payload's place is in the setup header (payload_offset, payload_length: Linux
Documentation/arch/x86/boot.rst); its first bytes tell the compression.
"""
import struct
import subprocess
import sys

TOOLS = {
    b"\xfd7zXZ\x00": ["xz", "-dc", "--single-stream"],
    b"\x28\xb5\x2f\xfd": ["zstd", "-dc"],
    b"\x02\x21\x4c\x18": ["lz4", "-dc"],
    b"\x1f\x8b": ["gzip", "-dc"],
}


def main(image_path, out_path):
    with open(image_path, "rb") as file:
        image = file.read()
    if image[0x202:0x206] != b"HdrS":
        sys.exit(f"{image_path}: no bzImage: the magic at 0x202 is {image[0x202:0x206]!r}, wanted is b'HdrS'")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start:start + length]
    tool = next((words for magic, words in TOOLS.items() if payload.startswith(magic)), None)
    if tool is None:
        sys.exit(f"{image_path}: the payload's compression is unknown (first bytes {payload[:6].hex()})")
    # The last four bytes are the size of the unpacked kernel, appended by the kernel's build.
    unpacked = subprocess.run(tool, input=payload, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    if unpacked[:4] != b"\x7fELF":
        sys.exit(f"{image_path}: the payload is no ELF file")
    with open(out_path, "wb") as file:
        file.write(unpacked)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
