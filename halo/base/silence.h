// Quiet threads: of several ranks one is enough to say how far a command is.
#pragma once

namespace halo {

// While one lives, this thread says nothing: neither its phases nor say() and warn() (progress.h).
class Silence {
 public:
  Silence();
  ~Silence();
  Silence(const Silence&) = delete;
};

}  // namespace halo
