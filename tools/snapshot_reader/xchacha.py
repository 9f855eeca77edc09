"""AEAD_XChaCha20_Poly1305 (RFC 8439, draft-irtf-cfrg-xchacha-03).

All blocks of a message are computed at once: one long integer holds the same state word of every block, in 64 bits
each, of which the upper half catches what shifts and additions push out. That is some fifty times as fast as block
after block, for what Python spends is on steps and not on bits.
"""
import hmac
import struct

SIGMA = struct.unpack("<4I", b"expand 32-byte k")
MAX_LANES = 4096
PRIME = (1 << 130) - 5
CLAMP = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
QUARTERS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
            (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def _rounds(x, mask):
    for _ in range(10):
        for a, b, c, d in QUARTERS:
            xa, xb, xc, xd = x[a], x[b], x[c], x[d]
            xa = (xa + xb) & mask
            xd ^= xa
            xd = (xd << 16 | xd >> 16) & mask
            xc = (xc + xd) & mask
            xb ^= xc
            xb = (xb << 12 | xb >> 20) & mask
            xa = (xa + xb) & mask
            xd ^= xa
            xd = (xd << 8 | xd >> 24) & mask
            xc = (xc + xd) & mask
            xb ^= xc
            xb = (xb << 7 | xb >> 25) & mask
            x[a], x[b], x[c], x[d] = xa, xb, xc, xd


def _lanes(count):
    """An integer with a 1 in each of `count` lanes."""
    return ((1 << 64 * count) - 1) // ((1 << 64) - 1)


def _stream_piece(key_words, counter, nonce_words, blocks):
    ones = _lanes(blocks)
    mask = ones * 0xFFFFFFFF
    start = [word * ones for word in (*SIGMA, *key_words)]
    counters = (index & 0xFFFFFFFF for index in range(counter, counter + blocks))
    start.append(int.from_bytes(struct.pack(f"<{blocks}Q", *counters), "little"))
    start += [word * ones for word in nonce_words]
    x = list(start)
    _rounds(x, mask)
    out = [0] * (8 * blocks)
    for pair in range(8):
        low = (x[2 * pair] + start[2 * pair]) & mask
        high = (x[2 * pair + 1] + start[2 * pair + 1]) & mask
        out[pair::8] = struct.unpack(f"<{blocks}Q", (low | high << 32).to_bytes(8 * blocks, "little"))
    return struct.pack(f"<{8 * blocks}Q", *out)


def chacha20_stream(key, counter, nonce, size):
    """`size` bytes of the key stream of ChaCha20 (RFC 8439, 2.4)."""
    key_words, nonce_words = struct.unpack("<8I", key), struct.unpack("<3I", nonce)
    blocks = (size + 63) // 64
    pieces = []
    for first in range(0, blocks, MAX_LANES):
        pieces.append(_stream_piece(key_words, counter + first, nonce_words, min(MAX_LANES, blocks - first)))
    return b"".join(pieces)[:size]


def hchacha20(key, nonce):
    """The subkey for a nonce of 16 bytes (draft, 2.2)."""
    x = [*SIGMA, *struct.unpack("<8I", key), *struct.unpack("<4I", nonce)]
    _rounds(x, 0xFFFFFFFF)
    return struct.pack("<8I", *x[:4], *x[12:])


def poly1305(key, message):
    """The tag of 16 bytes (RFC 8439, 2.5)."""
    r = int.from_bytes(key[:16], "little") & CLAMP
    total = 0
    whole = len(message) & ~15
    for low, high in struct.iter_unpack("<QQ", message[:whole]):
        total = (total + (low | high << 64 | 1 << 128)) * r % PRIME
    if whole != len(message):
        total = (total + int.from_bytes(message[whole:] + b"\x01", "little")) * r % PRIME
    return ((total + int.from_bytes(key[16:], "little")) & ((1 << 128) - 1)).to_bytes(16, "little")


def _tag(subkey, nonce, ciphertext, additional):
    def padded(data):
        return data + bytes(-len(data) % 16)
    lengths = struct.pack("<QQ", len(additional), len(ciphertext))
    return poly1305(chacha20_stream(subkey, 0, nonce, 32), padded(additional) + padded(ciphertext) + lengths)


def _xor(data, stream):
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(len(data), "little")


def seal(key, nonce, plain, additional=b""):
    """Ciphertext and tag; the reader needs it for its tests alone."""
    subkey, inner = hchacha20(key, nonce[:16]), bytes(4) + nonce[16:]
    ciphertext = _xor(plain, chacha20_stream(subkey, 1, inner, len(plain)))
    return ciphertext + _tag(subkey, inner, ciphertext, additional)


def unseal(key, nonce, sealed, additional=b""):
    """What was sealed, or None when key, nonce, data and tag do not belong together."""
    if len(sealed) < 16:
        return None
    ciphertext, tag = bytes(sealed[:-16]), bytes(sealed[-16:])
    subkey, inner = hchacha20(key, nonce[:16]), bytes(4) + nonce[16:]
    if not hmac.compare_digest(_tag(subkey, inner, ciphertext, additional), tag):
        return None
    return _xor(ciphertext, chacha20_stream(subkey, 1, inner, len(ciphertext)))
