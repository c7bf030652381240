// Numbers of equal pieces of memory (K/V blocks, state slots) and who uses them. Host side only:
// the memory itself is the engine's.
#pragma once

#include <cstdint>
#include <vector>

namespace halo {

class BlockAllocator {
 public:
  int64_t capacity() const { return static_cast<int64_t>(users_.size()); }
  int64_t num_free() const { return num_free_; }
  int64_t num_used() const { return capacity() - num_free(); }

  // The new numbers, capacity() .. capacity-1, become free. Never shrinks.
  void grow(int64_t capacity);
  // A free block, now with one user; the caller checks num_free() first.
  int64_t take();
  // So many behind the last of `blocks`, each the one after the one before it as far as these are
  // free: kernels read what lies together where it lies.
  void take(int64_t count, std::vector<int64_t>& blocks);
  void share(int64_t block);  // one user more
  void drop(int64_t block);   // one user less; free again after the last

 private:
  int64_t first_of_run(int64_t count) const;

  std::vector<int64_t> users_;  // of each block; 0: free
  int64_t num_free_ = 0;
};

}  // namespace halo
