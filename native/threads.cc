#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <unistd.h>
#include <pthread.h>

namespace motet {
namespace {

constexpr int kMaxThreads = 256;
// Ops of one layer follow each other within a quarter of a millisecond, and waking a sleeper costs a third of that: spin
// for about 0.3 ms (docs/log.md), which costs little when another process wants the core.
constexpr int kSpins = 8000;
constexpr int kClosed = 1 << 30;

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The items a worker has left: [front, back) in one word, so that the owner at the front and thieves at the back agree.
struct alignas(64) Share {
  std::atomic<uint64_t> range{0};

  static uint64_t pack(uint64_t front, uint64_t back) { return front << 32 | back; }
  void set(long front, long back) { range.store(pack(front, back), std::memory_order_relaxed); }
  long left() const {
    const uint64_t r = range.load(std::memory_order_relaxed);
    return static_cast<long>(r & 0xffffffffu) - static_cast<long>(r >> 32);
  }
  // An item from the front or the back, -1 when there is none.
  long take(bool front) {
    uint64_t r = range.load(std::memory_order_relaxed);
    for (;;) {
      const uint64_t from = r >> 32, to = r & 0xffffffffu;
      if (from >= to) return -1;
      if (range.compare_exchange_weak(r, front ? pack(from + 1, to) : pack(from, to - 1), std::memory_order_relaxed))
        return static_cast<long>(front ? from : to - 1);
    }
  }
};

class Pool {
 public:
  explicit Pool(int n) : n_(n), shares_(n) {
    for (int w = 1; w < n; ++w) threads_.emplace_back([this, w] { loop(w); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      epoch_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto& t : threads_) t.join();
  }
  int size() const { return n_; }

  void run(long items, const std::function<void(long, int)>& fn) {
    if (n_ == 1 || items <= 1) {
      for (long i = 0; i < items; ++i) fn(i, 0);
      return;
    }
    job_ = &fn;
    for (int w = 0; w < n_; ++w) shares_[w].set(items * w / n_, items * (w + 1) / n_);
    inside_.store(0, std::memory_order_release);
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    work(0);
    // Every item is taken. Wait for those who took some, not for a worker that has not even woken up.
    inside_.fetch_or(kClosed, std::memory_order_acq_rel);
    for (int spin = 0; inside_.load(std::memory_order_acquire) != kClosed; ++spin) {
      if (spin < kSpins) cpu_relax();
      else std::this_thread::yield();
    }
  }

 private:
  void work(int worker) {
    const auto& fn = *job_;
    for (long i; (i = shares_[worker].take(true)) >= 0;) fn(i, worker);
    for (;;) {
      int fullest = worker;
      for (int w = 0; w < n_; ++w)
        if (shares_[w].left() > shares_[fullest].left()) fullest = w;
      if (fullest == worker) return;
      const long i = shares_[fullest].take(false);
      if (i >= 0) fn(i, worker);
    }
  }

  void loop(int worker) {
    long seen = 0;
    for (;;) {
      int spin = 0;
      while (epoch_.load(std::memory_order_acquire) == seen && spin < kSpins) {
        cpu_relax();
        ++spin;
      }
      if (epoch_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return epoch_.load(std::memory_order_seq_cst) != seen; });
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      }
      seen = epoch_.load(std::memory_order_acquire);
      if (stop_) return;
      if (!enter()) continue;
      work(worker);
      inside_.fetch_sub(1, std::memory_order_release);
    }
  }

  bool enter() {
    int n = inside_.load(std::memory_order_relaxed);
    while (!(n & kClosed))
      if (inside_.compare_exchange_weak(n, n + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    return false;
  }

  const int n_;
  std::vector<Share> shares_;
  const std::function<void(long, int)>* job_ = nullptr;
  std::atomic<long> epoch_{0};
  std::atomic<int> inside_{kClosed}, sleepers_{0};  // workers in the current job, and whether it still takes any
  bool stop_ = false;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
};

int default_threads() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
  return n < 1 ? 1 : (n > kMaxThreads ? kMaxThreads : n);
}

int wanted = 0;
std::unique_ptr<Pool> pool;

struct Scratch {
  void* data = nullptr;
  size_t bytes = 0;
};
Scratch scratch[kMaxThreads];

// After fork() the workers do not exist in the child; forget the pool (its memory is left alone) and start anew.
void forget_pool() { pool.release(); }

}  // namespace

int thread_count() {
  if (wanted == 0) wanted = default_threads();
  return wanted;
}

void set_thread_count(int n) { wanted = n < 1 ? 1 : (n > kMaxThreads ? kMaxThreads : n); }

void parallel_for(long items, const std::function<void(long, int)>& fn) {
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  (void)registered;
  if (!pool || pool->size() != thread_count()) pool = std::make_unique<Pool>(thread_count());
  pool->run(items, fn);
}

void* worker_scratch(int worker, size_t bytes) {
  Scratch& s = scratch[worker];
  if (s.bytes < bytes) {
    std::free(s.data);
    s.bytes = (bytes + 4095) / 4096 * 4096;
    s.data = std::aligned_alloc(4096, s.bytes);
  }
  return s.data;
}

}  // namespace motet
