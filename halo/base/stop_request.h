// How processes that work together stop together: stop.h says what a signal does to one of them.
#pragma once

#include <signal.h>

namespace halo {

// As if this process had got its first SIGTERM, because another one that it cannot go on without
// has. A signal that comes after that is still the first: whoever tells all of them kills none.
void request_stop();

// SIGTERM, SIGINT, SIGUSR1. A process that is started with them blocked does not die of one before
// install_stop_handler(), which lets them through.
sigset_t stop_signals();

}  // namespace halo
