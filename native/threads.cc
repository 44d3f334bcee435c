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
// Ops of one layer follow each other within microseconds; ~20 us of spinning bridges them, and costs little when
// another process wants the core.
constexpr int kSpins = 2000;

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct Job {
  const std::function<void(long, int)>* fn = nullptr;
  long items = 0;
};

class Pool {
 public:
  explicit Pool(int n) : n_(n) {
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
    job_ = {&fn, items};
    next_.store(0, std::memory_order_relaxed);
    running_.store(n_ - 1, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    work(0);
    for (int spin = 0; running_.load(std::memory_order_acquire) != 0; ++spin) {
      if (spin < kSpins) cpu_relax();
      else std::this_thread::yield();
    }
  }

 private:
  void work(int worker) {
    const Job job = job_;
    for (;;) {
      long i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= job.items) return;
      (*job.fn)(i, worker);
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
      work(worker);
      running_.fetch_sub(1, std::memory_order_release);
    }
  }

  const int n_;
  Job job_;
  std::atomic<long> next_{0}, epoch_{0};
  std::atomic<int> running_{0}, sleepers_{0};
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
