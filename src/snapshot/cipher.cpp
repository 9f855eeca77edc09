// Sealing and opening with libsodium; reading key files.
#include "snapshot/cipher.hpp"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>

#include "base/file_descriptor.hpp"

namespace stasis::snapshot {
namespace {

using Nonce = std::array<u8, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES>;
static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == Cipher::kOverhead && crypto_aead_xchacha20poly1305_ietf_KEYBYTES == 32);

void ready() { STASIS_ASSERT(::sodium_init() >= 0); }

// BLAKE2b of `parts` one after the other.
template <std::size_t N>
std::array<u8, N> blake2b(Bytes key, std::initializer_list<Bytes> parts) {
  crypto_generichash_state state;
  crypto_generichash_init(&state, key.data(), key.size(), N);
  for (const Bytes part : parts) crypto_generichash_update(&state, part.data(), part.size());
  std::array<u8, N> out;
  crypto_generichash_final(&state, out.data(), N);
  return out;
}

Bytes bytes_of(std::string_view text) { return {reinterpret_cast<const u8*>(text.data()), text.size()}; }

Nonce section_nonce(const std::string& name) { return blake2b<sizeof(Nonce)>({}, {bytes_of("section/"), bytes_of(name)}); }

Nonce chunk_nonce(u64 chunk) {
  std::array<u8, 8> number;
  for (unsigned i = 0; i < 8; ++i) number[i] = static_cast<u8>(chunk >> (8 * i));
  return blake2b<sizeof(Nonce)>({}, {bytes_of("chunk/"), number});
}

void seal(const std::array<u8, 32>& key, const Nonce& nonce, Bytes clear, MutableBytes out) {
  STASIS_ASSERT(out.size() == clear.size() + Cipher::kOverhead);
  crypto_aead_xchacha20poly1305_ietf_encrypt(out.data(), nullptr, clear.data(), clear.size(), nullptr, 0, nullptr, nonce.data(), key.data());
}

std::optional<MutableBytes> open(const std::array<u8, 32>& key, const Nonce& nonce, MutableBytes body) {
  if (body.size() < Cipher::kOverhead) return {};
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(body.data(), nullptr, nullptr, body.data(), body.size(), nullptr, 0, nonce.data(), key.data()) != 0)
    return {};
  return body.first(body.size() - Cipher::kOverhead);
}

std::optional<u8> hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<u8>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<u8>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<u8>(c - 'A' + 10);
  return {};
}

}  // namespace

Result<Key> Key::from_file(const std::string& path) {
  ready();
  constexpr const char* kHint = "make one with: head -c 32 /dev/urandom > FILE; chmod 600 FILE";
  STASIS_TRY_SET(std::string text, read_whole_file(path, 4096));
  std::array<u8, kBytes> bytes{};
  if (text.size() != kBytes) {
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    bool digits = text.size() == 2 * kBytes;
    for (std::size_t i = 0; digits && i < kBytes; ++i) {
      const auto high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
      digits = high && low;
      if (digits) bytes[i] = static_cast<u8>(*high << 4 | *low);
    }
    if (!digits)
      return fail(ErrorCode::usage, "key file " + path,
                  fmt::format("has {} bytes, wanted are 32 bytes or 64 hexadecimal digits", text.size()), kHint);
  } else {
    std::ranges::copy(text, bytes.begin());
  }
  ::sodium_memzero(text.data(), text.size());
  Key out(bytes);
  ::sodium_memzero(bytes.data(), bytes.size());
  return out;
}

Key::~Key() { ::sodium_memzero(bytes_.data(), bytes_.size()); }

Salt random_salt() {
  ready();
  Salt out;
  ::randombytes_buf(out.data(), out.size());
  return out;
}

Cipher::Cipher(const Key& key, const Salt& salt) : salt_(salt) {
  ready();
  file_key_ = blake2b<32>(key.bytes(), {bytes_of("stasis file key 1"), salt});
}

Cipher::~Cipher() { ::sodium_memzero(file_key_.data(), file_key_.size()); }

Digest Cipher::check() const { return blake2b<16>(file_key_, {bytes_of("stasis key check")}); }

std::vector<u8> Cipher::seal_section(const std::string& name, Bytes clear) const {
  std::vector<u8> out(clear.size() + kOverhead);
  seal(file_key_, section_nonce(name), clear, out);
  return out;
}

void Cipher::seal_chunk(u64 chunk, Bytes clear, MutableBytes out) const { seal(file_key_, chunk_nonce(chunk), clear, out); }

std::optional<MutableBytes> Cipher::open_section(const std::string& name, MutableBytes body) const {
  return open(file_key_, section_nonce(name), body);
}

std::optional<MutableBytes> Cipher::open_chunk(u64 chunk, MutableBytes body) const { return open(file_key_, chunk_nonce(chunk), body); }

std::array<u8, 32> Cipher::seal_of_headers(Bytes headers) const { return blake2b<32>(file_key_, {bytes_of("stasis seal"), headers}); }

}  // namespace stasis::snapshot
