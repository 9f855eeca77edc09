// The CBOR bodies of the sections, both ways.
#pragma once

#include "snapshot/format.hpp"
#include "snapshot/image.hpp"

namespace stasis::snapshot {

cbor::Value producer_body(const Producer& producer);
cbor::ByteString part_body(const state::Schema& schema, Bytes state);  // state: encoded
cbor::Value parts_body(const std::vector<const PartRecord*>& parts);
cbor::Value host_body(const std::vector<HostResource>& host);
cbor::Value index_body(u64 pages, std::vector<u8> chunks);

// Decoding caps the number of items before it allocates.
Result<cbor::Value> decode_body(Bytes body, const std::string& object);
Result<Producer> producer_from(const cbor::Value& body, const std::string& object);  // any format version's; no UUID
Result<PartRecord> part_from(cbor::Value body, const std::string& path, const std::string& object);
struct ListedPart {
  std::string path, kind;
  u64 version = 0;
};
Result<std::vector<ListedPart>> parts_from(const cbor::Value& body, const std::string& object);
Result<std::vector<HostResource>> host_from(const cbor::Value& body, const std::string& object);
struct Index {
  std::vector<u64> nonzero;
  std::vector<u8> chunk_digests;
};
Result<Index> index_from(const cbor::Value& body, u64 pages, const std::string& object);

}  // namespace stasis::snapshot
