#include "halo/engine/block_allocator.h"

#include "halo/base/check.h"

namespace halo {

void BlockAllocator::grow(int64_t capacity) {
  HALO_CHECK(capacity >= this->capacity(), "block pool: cannot shrink from {} to {}",
             this->capacity(), capacity);
  num_free_ += capacity - this->capacity();
  users_.resize(capacity, 0);
}

int64_t BlockAllocator::take() {
  std::vector<int64_t> one;
  take(1, one);
  return one[0];
}

void BlockAllocator::take(int64_t count, std::vector<int64_t>& blocks) {
  HALO_CHECK(count <= num_free_, "block pool: {} of {} blocks are free, {} are asked for",
             num_free_, capacity(), count);
  const auto is_free = [&](int64_t block) { return block < capacity() && users_[block] == 0; };
  while (count > 0) {
    int64_t next = blocks.empty() ? capacity() : blocks.back() + 1;
    if (!is_free(next)) next = first_of_run(count);
    for (; count > 0 && is_free(next); --count, --num_free_) {
      users_[next] = 1;
      blocks.push_back(next++);
    }
  }
}

// Where so many free blocks lie together, the first such place: memory that was never used stays so
// as long as it can. Else the longest.
int64_t BlockAllocator::first_of_run(int64_t count) const {
  int64_t longest = 0, first = 0, begin = 0;
  for (int64_t block = 0; block < capacity() && longest < count; ++block) {
    if (users_[block] > 0) {
      begin = block + 1;
    } else if (block + 1 - begin > longest) {
      longest = block + 1 - begin;
      first = begin;
    }
  }
  return first;
}

void BlockAllocator::share(int64_t block) {
  HALO_CHECK(0 <= block && block < capacity() && users_[block] > 0,
             "block pool: block {} is not in use", block);
  ++users_[block];
}

void BlockAllocator::drop(int64_t block) {
  HALO_CHECK(0 <= block && block < capacity() && users_[block] > 0,
             "block pool: block {} is not in use", block);
  if (--users_[block] == 0) ++num_free_;
}

}  // namespace halo
