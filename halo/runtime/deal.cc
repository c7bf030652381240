#include "halo/runtime/deal.h"

#include <algorithm>
#include <cstring>

#include "halo/base/check.h"

namespace halo {
namespace {

// What each rank has, in order of rank, whatever its size.
std::vector<std::string> gather(Communicator& ranks, const std::string& mine) {
  std::vector<size_t> sizes;
  for (const std::string& theirs : ranks.exchange(Packer().add(std::ssize(mine)).bytes())) {
    sizes.push_back(Unpacker(theirs).integer());
  }
  std::vector<std::string> all(sizes.size());
  const size_t most = std::ranges::max(sizes);
  for (size_t begin = 0; begin < most; begin += Communicator::kMaxMessage) {
    const std::string part = mine.substr(std::min(begin, mine.size()), Communicator::kMaxMessage);
    const std::vector<std::string> parts = ranks.exchange(part);
    for (size_t rank = 0; rank < all.size(); ++rank) all[rank] += parts[rank];
  }
  return all;
}

}  // namespace

std::vector<std::string> deal(Communicator& ranks, int64_t pieces,
                              const std::function<std::string(int64_t)>& work) {
  std::vector<std::string> out(pieces);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    if (does_piece(ranks, piece)) out[piece] = work(piece);
  }
  if (ranks.size() == 1) return out;
  Packer mine;
  for (int64_t piece = ranks.rank(); piece < pieces; piece += ranks.size()) mine.add(out[piece]);
  ranks.wait();
  const std::vector<std::string> all = gather(ranks, mine.bytes());
  for (int64_t rank = 0; rank < ranks.size(); ++rank) {
    Unpacker theirs(all[rank]);
    for (int64_t piece = rank; piece < pieces; piece += ranks.size()) out[piece] = theirs.text();
  }
  return out;
}

Packer& Packer::add(double value) {
  bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  return *this;
}

Packer& Packer::add(int64_t value) {
  bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  return *this;
}

Packer& Packer::add(const std::string& text) {
  add(std::ssize(text));
  bytes_ += text;
  return *this;
}

Packer& Packer::add(const std::vector<double>& values) {
  add(std::ssize(values));
  for (const double value : values) add(value);
  return *this;
}

void Unpacker::read(void* to, size_t count) {
  HALO_CHECK(count <= bytes_.size(), "ranks: {} bytes of an answer, {} are left", count,
             bytes_.size());
  std::memcpy(to, bytes_.data(), count);
  bytes_.remove_prefix(count);
}

double Unpacker::number() {
  double value = 0;
  read(&value, sizeof(value));
  return value;
}

int64_t Unpacker::integer() {
  int64_t value = 0;
  read(&value, sizeof(value));
  return value;
}

std::string Unpacker::text() {
  const int64_t size = integer();
  HALO_CHECK(0 <= size && size <= std::ssize(bytes_), "ranks: a text of {} bytes, {} are left",
             size, bytes_.size());
  std::string text(bytes_.substr(0, size));
  bytes_.remove_prefix(size);
  return text;
}

std::vector<double> Unpacker::numbers() {
  std::vector<double> values(integer());
  for (double& value : values) value = number();
  return values;
}

}  // namespace halo
