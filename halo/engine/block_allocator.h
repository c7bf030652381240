// Numbers of equal pieces of memory (K/V blocks, state slots) and who uses them. Host side only:
// the memory itself is the engine's.
#pragma once

#include <cstdint>
#include <vector>

namespace halo {

class BlockAllocator {
 public:
  int64_t capacity() const { return static_cast<int64_t>(users_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_used() const { return capacity() - num_free(); }

  // The new numbers, capacity() .. capacity-1, become free. Never shrinks.
  void grow(int64_t capacity);
  int64_t take();             // a free block, now with one user; the caller checks num_free() first
  void share(int64_t block);  // one user more
  void drop(int64_t block);   // one user less; free again after the last

 private:
  std::vector<int64_t> users_;  // of each block; 0: free
  std::vector<int64_t> free_;   // a stack: the block freed last is taken first
};

}  // namespace halo
