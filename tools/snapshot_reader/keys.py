"""The keys of encrypted files: the file key, its check, nonces and the seal."""
import hashlib
import hmac

from . import xchacha
from .problem import MissingKey, Problem


def blake(size, key, message):
    return hashlib.blake2b(message, digest_size=size, key=key).digest()


def read_key(path):
    """The 32 bytes of a key file, which holds them as they are or as 64 hexadecimal digits."""
    try:
        with open(path, "rb") as file:
            data = file.read(129)
    except OSError as error:
        raise Problem(path, f"the key cannot be read: {error.strerror}") from error
    if len(data) == 32:
        return data
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise Problem(path, f"is no key: {len(data)} bytes; 32 bytes or 64 hexadecimal digits are expected")
    return key


class Cipher:
    """What opens the bodies of one file."""

    def __init__(self, where, keys, salt, check):
        for key in keys:
            self.key = blake(32, key, b"stasis file key 1" + salt)
            if hmac.compare_digest(blake(16, self.key, b"stasis key check"), check):
                return
        raise MissingKey(where, "is encrypted, and " + ("none of the keys given is its key" if keys else "no key is given (--key)"))

    def _open(self, where, nonce, stored):
        plain = xchacha.unseal(self.key, blake(24, b"", nonce), stored)
        if plain is None:
            raise Problem(where, "the tag of the ciphertext does not agree: changed by somebody who has not the key")
        return plain

    def body(self, where, name, stored):
        return self._open(where, b"section/" + name.encode(), stored)

    def block(self, where, chunk, stored):
        return self._open(where, b"chunk/" + chunk.to_bytes(8, "little"), stored)

    def seal(self, header, sections):
        return blake(32, self.key, b"stasis seal" + header + b"".join(section.raw for section in sections))
