#include "halo/engine/block_allocator.h"

#include "halo/base/check.h"

namespace halo {

void BlockAllocator::grow(int64_t capacity) {
  HALO_CHECK(capacity >= this->capacity(), "block pool: cannot shrink from {} to {}",
             this->capacity(), capacity);
  for (int64_t block = capacity - 1; block >= this->capacity(); --block) free_.push_back(block);
  users_.resize(capacity, 0);
}

int64_t BlockAllocator::take() {
  HALO_CHECK(!free_.empty(), "block pool: none of {} blocks is free", capacity());
  const int64_t block = free_.back();
  free_.pop_back();
  users_[block] = 1;
  return block;
}

void BlockAllocator::share(int64_t block) {
  HALO_CHECK(0 <= block && block < capacity() && users_[block] > 0,
             "block pool: block {} is not in use", block);
  ++users_[block];
}

void BlockAllocator::drop(int64_t block) {
  HALO_CHECK(0 <= block && block < capacity() && users_[block] > 0,
             "block pool: block {} is not in use", block);
  if (--users_[block] == 0) free_.push_back(block);
}

}  // namespace halo
