"""XXH3 of 128 bits, seed 0, default secret, in canonical byte order; and XXH64, which zstd frames carry."""
import struct
from operator import mul

M64 = (1 << 64) - 1
M32 = (1 << 32) - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
MX1, MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
SECRET_SIZE = 192
STRIPE = 64
STRIPES_PER_BLOCK = (SECRET_SIZE - STRIPE) // 8
BLOCK = STRIPE * STRIPES_PER_BLOCK

# What a block is XORed with: the stripe k meets the secret from byte 8·k on. One long integer does a whole block.
BLOCK_KEY = int.from_bytes(b"".join(SECRET[8 * k:8 * k + STRIPE] for k in range(STRIPES_PER_BLOCK)), "little")
SCRAMBLE_KEY = struct.unpack("<8Q", SECRET[SECRET_SIZE - STRIPE:])
LAST_KEY = struct.unpack("<8Q", SECRET[SECRET_SIZE - STRIPE - 7:SECRET_SIZE - 7])
START = (P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1)


def _r32(data, at):
    return int.from_bytes(data[at:at + 4], "little")


def _r64(data, at):
    return int.from_bytes(data[at:at + 8], "little")


def _swap32(value):
    return int.from_bytes(value.to_bytes(4, "little"), "big")


def _swap64(value):
    return int.from_bytes(value.to_bytes(8, "little"), "big")


def _fold(a, b):
    product = a * b
    return (product ^ (product >> 64)) & M64


def _avalanche(h):
    h ^= h >> 37
    h = h * MX1 & M64
    return h ^ (h >> 32)


def _avalanche64(h):
    h ^= h >> 33
    h = h * P64_2 & M64
    h ^= h >> 29
    h = h * P64_3 & M64
    return h ^ (h >> 32)


def _upto16(data, size):
    if size > 8:
        flip_low = _r64(SECRET, 32) ^ _r64(SECRET, 40)
        flip_high = _r64(SECRET, 48) ^ _r64(SECRET, 56)
        low, high = _r64(data, 0), _r64(data, size - 8)
        product = (low ^ high ^ flip_low) * P64_1
        m_low = ((product & M64) + ((size - 1) << 54)) & M64
        high ^= flip_high
        m_high = ((product >> 64) + high + (high & M32) * (P32_2 - 1)) & M64
        m_low ^= _swap64(m_high)
        product = m_low * P64_2
        return _avalanche(product & M64), _avalanche(((product >> 64) + m_high * P64_2) & M64)
    if size >= 4:
        value = _r32(data, 0) | _r32(data, size - 4) << 32
        product = (value ^ _r64(SECRET, 16) ^ _r64(SECRET, 24)) * (P64_1 + (size << 2))
        low, high = product & M64, product >> 64
        high = (high + (low << 1)) & M64
        low ^= high >> 3
        low ^= low >> 35
        low = low * MX2 & M64
        low ^= low >> 28
        return low, _avalanche(high)
    if size:
        low = data[0] << 16 | data[size >> 1] << 24 | data[size - 1] | size << 8
        high = _swap32(low)
        high = (high << 13 | high >> 19) & M32
        return (_avalanche64(low ^ _r32(SECRET, 0) ^ _r32(SECRET, 4)),
                _avalanche64(high ^ _r32(SECRET, 8) ^ _r32(SECRET, 12)))
    return (_avalanche64(_r64(SECRET, 64) ^ _r64(SECRET, 72)), _avalanche64(_r64(SECRET, 80) ^ _r64(SECRET, 88)))


def _upto240(data, size):
    low, high = size * P64_1 & M64, 0

    def mix(first, second, secret):
        nonlocal low, high
        a, b = struct.unpack_from("<QQ", data, first)
        c, d = struct.unpack_from("<QQ", data, second)
        k, l, m, n = struct.unpack_from("<4Q", SECRET, secret)
        low = (low + _fold(a ^ k, b ^ l) & M64) ^ (c + d & M64)
        high = (high + _fold(c ^ m, d ^ n) & M64) ^ (a + b & M64)

    if size <= 128:
        for i in range((size - 1) // 32, -1, -1):
            mix(16 * i, size - 16 * (i + 1), 32 * i)
    else:
        for i in range(4):
            mix(32 * i, 32 * i + 16, 32 * i)
        low, high = _avalanche(low), _avalanche(high)
        for i in range(4, size // 32):
            mix(32 * i, 32 * i + 16, 3 + 32 * (i - 4))
        mix(size - 16, size - 32, 103)
    return (_avalanche(low + high & M64),
            -_avalanche((low * P64_1 + high * P64_4 + size * P64_2) & M64) & M64)


def _add_stripes(sums, data, at, stripes):
    """Within a block the lanes are only summed up, so the order of the stripes does not matter: lane by lane."""
    size = stripes * STRIPE
    piece = data[at:at + size]
    key = BLOCK_KEY if stripes == STRIPES_PER_BLOCK else BLOCK_KEY & ((1 << 8 * size) - 1)
    keyed = struct.unpack(f"<{size // 4}I", (int.from_bytes(piece, "little") ^ key).to_bytes(size, "little"))
    products = list(map(mul, keyed[::2], keyed[1::2]))
    plain = struct.unpack(f"<{size // 8}Q", piece)
    return [(sums[i] + sum(products[i::8]) + sum(plain[i ^ 1::8])) & M64 for i in range(8)]


def _long(data, size):
    sums = START
    blocks = (size - 1) // BLOCK
    for block in range(blocks):
        sums = _add_stripes(sums, data, block * BLOCK, STRIPES_PER_BLOCK)
        sums = [((s ^ (s >> 47) ^ k) * P32_1) & M64 for s, k in zip(sums, SCRAMBLE_KEY)]
    stripes = (size - 1 - blocks * BLOCK) // STRIPE
    if stripes:
        sums = _add_stripes(sums, data, blocks * BLOCK, stripes)
    last = struct.unpack("<8Q", data[size - STRIPE:size])
    keyed = [d ^ k for d, k in zip(last, LAST_KEY)]
    sums = [(sums[i] + (keyed[i] & M32) * (keyed[i] >> 32) + last[i ^ 1]) & M64 for i in range(8)]

    def merge(secret, start):
        key = struct.unpack_from("<8Q", SECRET, secret)
        for i in range(0, 8, 2):
            start += _fold(sums[i] ^ key[i], sums[i + 1] ^ key[i + 1])
        return _avalanche(start & M64)

    return merge(11, size * P64_1 & M64), merge(SECRET_SIZE - STRIPE - 11, ~(size * P64_2) & M64)


def digest(data):
    """The 16 bytes of the digest of `data` (bytes, bytearray or a memoryview of bytes)."""
    size = len(data)
    if size > 240:
        low, high = _long(data, size)
    elif size > 16:
        low, high = _upto240(data, size)
    else:
        low, high = _upto16(data, size)
    return struct.pack(">QQ", high, low)


def _round64(acc, lane):
    acc = (acc + lane * P64_2) & M64
    return ((acc << 31 | acc >> 33) * P64_1) & M64


def xxh64(data):
    """XXH64 with seed 0, as an integer: the checksum of a zstd frame is its low 32 bits."""
    size, at = len(data), 0
    if size >= 32:
        a, b, c, d = (P64_1 + P64_2) & M64, P64_2, 0, -P64_1 & M64
        for v, w, x, y in struct.iter_unpack("<4Q", data[:size & ~31]):
            a, b, c, d = _round64(a, v), _round64(b, w), _round64(c, x), _round64(d, y)
        at = size & ~31
        h = sum((v << r | v >> (64 - r)) & M64 for v, r in ((a, 1), (b, 7), (c, 12), (d, 18))) & M64
        for v in (a, b, c, d):
            h = ((h ^ _round64(0, v)) * P64_1 + P64_4) & M64
    else:
        h = P64_5
    h = (h + size) & M64
    while at + 8 <= size:
        h ^= _round64(0, _r64(data, at))
        h = (((h << 27 | h >> 37) & M64) * P64_1 + P64_4) & M64
        at += 8
    if at + 4 <= size:
        h ^= _r32(data, at) * P64_1 & M64
        h = (((h << 23 | h >> 41) & M64) * P64_2 + P64_3) & M64
        at += 4
    while at < size:
        h ^= data[at] * P64_5 & M64
        h = ((h << 11 | h >> 53) & M64) * P64_1 & M64
        at += 1
    return _avalanche64(h)
