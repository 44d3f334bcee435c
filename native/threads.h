// A small pool of threads that split a range of work items. Knows nothing of tensors.
// Each worker starts on its own contiguous share and takes items from its front, one at a time, so that it reads memory
// in order and may fetch ahead; who is done takes from the back of another's share, so a thread that the system takes
// off its core holds up one item and not its share. Idle threads spin briefly, then sleep.
#pragma once
#include <functional>

namespace motet {

int thread_count();
void set_thread_count(int n);  // 1 .. 256; takes effect at the next parallel_for

// Calls fn(item, worker) for every item in [0, items), worker in [0, thread_count()). Returns when all are done.
// Not reentrant: one caller at a time (the engine's thread owns the model).
void parallel_for(long items, const std::function<void(long item, int worker)>& fn);

// Scratch memory that belongs to a worker: at least `bytes`, 64-byte aligned, contents undefined.
void* worker_scratch(int worker, size_t bytes);

}  // namespace motet
