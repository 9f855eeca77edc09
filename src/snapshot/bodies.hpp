// The CBOR bodies of the sections, both ways.
#pragma once

#include <algorithm>

#include "snapshot/format.hpp"
#include "snapshot/image.hpp"

namespace stasis::snapshot {

cbor::Value producer_body(const Producer& producer);
cbor::ByteString part_body(const state::Schema& schema, Bytes state);  // state: encoded
// One entry of section `parts`.
struct ListedPart {
  std::string path, kind;
  u64 version = 0;
  Digest state{};          // digest of its state in CBOR; zero in format 0.1
  bool inherited = false;  // its section is the parent's
};
cbor::Value parts_body(const std::vector<ListedPart>& parts);
cbor::Value host_body(const std::vector<HostResource>& host);
cbor::Value parent_body(const ParentLink& parent);
cbor::Value encryption_body(const EncryptionInfo& info);
cbor::Value notes_body(const std::vector<Note>& notes);

// Decoding caps the number of items before it allocates.
Result<cbor::Value> decode_body(Bytes body, const std::string& object);
Result<Producer> producer_from(const cbor::Value& body, const std::string& object);  // any format version's; no UUID
// The digest of the state in the body of a part; `value` is that body decoded.
Digest state_digest(Bytes body, const cbor::Value& value);
Result<PartRecord> part_from(cbor::Value body, const std::string& path, const std::string& object);
Result<std::vector<ListedPart>> parts_from(const cbor::Value& body, bool with_states, const std::string& object);  // format 0.1: without
Result<std::vector<HostResource>> host_from(const cbor::Value& body, const std::string& object);
Result<ParentLink> parent_from(const cbor::Value& body, const std::string& object);
Result<EncryptionInfo> encryption_from(const cbor::Value& body, const std::string& object);
Result<std::vector<Note>> notes_from(const cbor::Value& body, const std::string& object);

inline constexpr char kDamagedOrForeign[] = "the file is damaged or not ours";

// A body that should be a map, read member by member; each refusal names the object and the field.
class BodyMap {
 public:
  BodyMap(const cbor::Value& body, const std::string& object) : body_(body), map_(body.as<cbor::Map>()), object_(object) {}
  Result<> is_map() const;
  template <class T>
  const T* find(std::string_view name) const {  // null: absent, or of another type
    const cbor::Value* value = map_ ? map_->find(name) : nullptr;
    return value ? value->as<T>() : nullptr;
  }
  bool has(std::string_view name) const { return map_ && map_->find(name); }
  Result<std::string> text(std::string_view name) const;
  Result<u64> number(std::string_view name) const;
  Result<> number_is(std::string_view name, u64 wanted) const;
  Result<const cbor::ByteString*> bytes(std::string_view name) const;
  template <std::size_t N>
  Result<std::array<u8, N>> fixed_bytes(std::string_view name) const {
    STASIS_TRY_SET(const cbor::ByteString* found, bytes(name));
    if (found->size() != N) return wrong_size(name, found->size(), N);
    std::array<u8, N> out;
    std::copy(found->begin(), found->end(), out.begin());
    return out;
  }

 private:
  template <class T>
  Result<const T*> member(std::string_view name, std::string_view type) const;
  std::unexpected<Error> wrong_size(std::string_view name, u64 found, u64 wanted) const;
  const cbor::Value& body_;
  const cbor::Map* map_;
  const std::string& object_;
};

}  // namespace stasis::snapshot
