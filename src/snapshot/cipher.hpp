// Encryption of a snapshot: one key per file, each body and each chunk sealed by itself (docs/format.md, "Encryption").
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "snapshot/hash.hpp"

namespace stasis::snapshot {

// What a user keeps in a file: 32 bytes, as they are or as 64 hexadecimal digits.
class Key {
 public:
  static constexpr std::size_t kBytes = 32;
  static Result<Key> from_file(const std::string& path);
  static Key from_bytes(const std::array<u8, kBytes>& bytes) { return Key(bytes); }
  Key(const Key&) = default;
  Key& operator=(const Key&) = default;
  ~Key();
  const std::array<u8, kBytes>& bytes() const { return bytes_; }

 private:
  explicit Key(const std::array<u8, kBytes>& bytes) : bytes_(bytes) {}
  std::array<u8, kBytes> bytes_;
};

using Salt = std::array<u8, 16>;
Salt random_salt();

// XChaCha20-Poly1305 under a key of this file alone, so that no name or chunk number is ever used twice with it.
class Cipher {
 public:
  static constexpr std::size_t kOverhead = 16;  // the authentication tag behind each ciphertext
  Cipher(const Key& key, const Salt& salt);
  Cipher(const Cipher&) = default;
  ~Cipher();

  const Salt& salt() const { return salt_; }
  Digest check() const;  // tells a wrong key from a damaged file

  std::vector<u8> seal_section(const std::string& name, Bytes clear) const;
  void seal_chunk(u64 chunk, Bytes clear, MutableBytes out) const;  // out: clear.size() + kOverhead
  // In place: `body` is ciphertext and tag, the result its clear beginning; none: not sealed under this key and name.
  std::optional<MutableBytes> open_section(const std::string& name, MutableBytes body) const;
  std::optional<MutableBytes> open_chunk(u64 chunk, MutableBytes body) const;
  // Over the headers of the file: nothing may be added, taken away or exchanged.
  std::array<u8, 32> seal_of_headers(Bytes headers) const;

 private:
  Salt salt_;
  std::array<u8, 32> file_key_;
};

}  // namespace stasis::snapshot
