#include "call.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <vector>

#include "levels.h"
#include "memory.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace recurra {

namespace {

std::atomic<bool> poison{false};

// Kept between calls by each calling thread, up to a size that is dear to fault in again.
class Memory {
 public:
  char* reserve(index bytes) {
    if (bytes > size_) {
      data_.reset();
      size_ = 0;
      data_ = allocate(bytes);
      size_ = bytes;
    }
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(data_.get(), static_cast<size_t>(size_));
#endif
    if (poison) std::memset(data_.get(), 0xFF, static_cast<size_t>(size_));
    return data_.get();
  }
  void trim() {
    constexpr index kept = index{64} << 20;
    if (size_ <= kept) return;
    data_.reset();
    size_ = 0;
  }

 private:
  Bytes data_;
  index size_ = 0;
};

thread_local Memory memory;

index gates_of(CellKind cell) {
  switch (cell) {
    case CellKind::lstm:
    case CellKind::lem:
    case CellKind::slstm_sigmoid:
    case CellKind::slstm_exp: return 4;
    case CellKind::gru:
    case CellKind::gru_reset_before: return 3;
    default: return 1;
  }
}

// Rows that a thread should have before the batch is sliced further: with fewer, the weights are
// read too often for what is done with them.
constexpr index rows_of_a_slice = 4;
// Multiplications and additions that are worth one more thread, and one more wait at every step.
constexpr double work_of_a_thread = 4e5;
constexpr double work_of_a_wait = 1e5;

// Recurrent weights of more bytes than this are read by the threads of a team in parts, not by each
// thread in full: at every step they come from beyond its own caches.
constexpr double weights_of_a_slice = 2e6;

double recurrent_weights(const Layer& layer) {
  if (layer.cell == CellKind::ind_rnn_relu || layer.cell == CellKind::ind_rnn_tanh) return 0;
  return static_cast<double>(gates_of(layer.cell)) * static_cast<double>(layer.hidden) *
         static_cast<double>(layer.output) * (layer.is_double ? sizeof(double) : sizeof(float));
}

void choose(const Layer& layer, Choice choice, Plan& plan) {
  const double step = 2.0 * static_cast<double>(layer.batch) * static_cast<double>(gates_of(layer.cell)) *
                      static_cast<double>(layer.hidden) * static_cast<double>(layer.input + layer.output);
  const double work = step * static_cast<double>(layer.time) * layer.directions;
  int threads = std::clamp(choice.threads, 1, threads_usable());
  if (work < work_of_a_thread * threads) threads = std::max(1, static_cast<int>(work / work_of_a_thread));
  const int each = std::max(1, threads / layer.directions);
  const index rows =
      recurrent_weights(layer) > weights_of_a_slice ? 1 : std::max(index{1}, layer.batch / rows_of_a_slice);
  plan.slices = choice.slices ? choice.slices : static_cast<int>(std::min(index{each}, rows));
  plan.team = choice.team ? choice.team : std::max(1, each / plan.slices);
  if (!choice.team && step < work_of_a_wait * plan.slices) plan.team = 1;
  const int lanes = layer.directions * plan.slices;
  const int usable = std::max(threads, choice.team);
  plan.threads = std::max(1, std::min(lanes, usable / plan.team)) * plan.team;
}

// Rows dealt to slices: in order of the batch when all are equally long, else longest first in turn,
// so that every slice gets its share of long rows.
void deal(const Layer& layer, int slices, std::vector<index>& order, std::vector<index>& length,
          std::vector<index>& begin) {
  const index batch = layer.batch;
  std::vector<index> sorted(static_cast<size_t>(batch));
  std::iota(sorted.begin(), sorted.end(), index{0});
  begin.push_back(0);
  if (!layer.lengths) {
    order = sorted;
    length.assign(static_cast<size_t>(batch), layer.time);
    for (int s = 1; s <= slices; ++s) begin.push_back(batch * s / slices);
    return;
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](index a, index b) { return layer.lengths[a] > layer.lengths[b]; });
  for (int s = 0; s < slices; ++s) {
    for (index n = s; n < batch; n += slices) {
      const index row = sorted[static_cast<size_t>(n)];
      order.push_back(row);
      length.push_back(static_cast<index>(layer.lengths[row]));
    }
    begin.push_back(static_cast<index>(order.size()));
  }
}

struct Job {
  const Layer* layer;
  const Plan* plan;
  const char* work;
  void (*run)(const Layer&, const Plan&, const char*, int);
};

void run(const Layer& layer, Choice choice, bool backward) {
  const Level& level = choice.level ? *choice.level : widest_level();
  Plan plan;
  choose(layer, choice, plan);
  std::vector<index> order, length, begin;
  deal(layer, plan.slices, order, length, begin);
  plan.order = order.data();
  plan.length = length.data();
  plan.begin = begin.data();
  Barrier everybody;
  everybody.members = plan.threads;
  std::vector<Barrier> teams(static_cast<size_t>(plan.threads / plan.team));
  for (Barrier& team : teams) team.members = plan.team;
  plan.everybody = &everybody;
  plan.teams = teams.data();
  char* const work = memory.reserve(level.prepare(layer, plan, backward, nullptr));
  level.prepare(layer, plan, backward, work);
  const Job job{&layer, &plan, work, backward ? level.backward : level.forward};
  const auto start = [](void* context, int rank) {
    const Job& mine = *static_cast<const Job*>(context);
    mine.run(*mine.layer, *mine.plan, mine.work, rank);
  };
  const bool done = run_threads(plan.threads, start, const_cast<Job*>(&job));
  memory.trim();
  if (!done) run(layer, {&level, 1, 0, 1}, backward);
}

// Elements of a scan that are worth one more thread.
constexpr double scan_of_a_thread = 3e4;

template <class T>
bool side_by_side(const Rows<T>& rows, index width) {
  return !rows.data || rows.batch_stride == width;
}

// Rows that lie side by side at every step, with nothing that tells them apart, are one wide row.
Scan flattened(Scan scan) {
  const index width = scan.width;
  if (scan.lengths || scan.reset.data || !side_by_side(scan.a, width) || !side_by_side(scan.b, width) ||
      !side_by_side(scan.h, width) || !side_by_side(scan.d_h, width) || !side_by_side(scan.d_a, width) ||
      !side_by_side(scan.d_b, width))
    return scan;
  scan.width *= scan.batch;
  scan.batch = 1;
  return scan;
}

struct ScanJob {
  Scan scan;
  void (*run)(const Scan&, int share, int shares);
  int shares;
  int threads;
};

void run(const Scan& scan, Choice choice, bool backward) {
  if (scan.batch == 0 || scan.width == 0) return;
  const Level& level = choice.level ? *choice.level : widest_level();
  const double work = static_cast<double>(scan.batch) * static_cast<double>(scan.time) * static_cast<double>(scan.width);
  int threads = std::clamp(choice.threads, 1, threads_usable());
  if (work < scan_of_a_thread * threads) threads = std::max(1, static_cast<int>(work / scan_of_a_thread));
  ScanJob job{flattened(scan), backward ? level.scan_backward : level.scan_forward,
              choice.slices ? choice.slices : threads, threads};
  const auto start = [](void* context, int rank) {
    const ScanJob& mine = *static_cast<const ScanJob*>(context);
    for (int share = rank; share < mine.shares; share += mine.threads) mine.run(mine.scan, share, mine.shares);
  };
  if (run_threads(threads, start, &job)) return;
  job.threads = 1;
  start(&job, 0);
}

}  // namespace

const Level& widest_level() {
  static const Level& widest = **std::find_if(std::begin(levels), std::end(levels),
                                              [](const Level* level) { return level->supported(); });
  return widest;
}

const Level* find_level(const char* name) {
  for (const Level* level : levels)
    if (std::strcmp(level->name, name) == 0) return level->supported() ? level : nullptr;
  return nullptr;
}

void run_forward(const Layer& layer, Choice choice) { run(layer, choice, false); }
void run_backward(const Layer& layer, Choice choice) { run(layer, choice, true); }

void run_linear(const LinearCall& call, Choice choice) {
  const Level& level = choice.level ? *choice.level : widest_level();
  const double work = 2.0 * static_cast<double>(call.rows) * static_cast<double>(call.inputs) * static_cast<double>(call.outputs);
  int threads = std::clamp(choice.threads, 1, threads_usable());
  if (work < work_of_a_thread * threads) threads = std::max(1, static_cast<int>(work / work_of_a_thread));
  struct LinearJob {
    const LinearCall& call;
    const Level& level;
    char* scratch;
    int threads;
  } job{call, level, memory.reserve(level.linear_scratch(call) * threads), threads};
  const auto start = [](void* context, int rank) {
    const LinearJob& mine = *static_cast<const LinearJob*>(context);
    mine.level.linear(mine.call, mine.scratch, rank, mine.threads);
  };
  const bool done = run_threads(threads, start, &job);
  if (!done) level.linear(call, job.scratch, 0, 1);
  memory.trim();
}

void run_scan_forward(const Scan& scan, Choice choice) { run(scan, choice, false); }
void run_scan_backward(const Scan& scan, Choice choice) { run(scan, choice, true); }

Plan outline(const Layer& layer, Choice choice) {
  Plan plan;
  choose(layer, choice, plan);
  return plan;
}

void poison_workspaces(bool on) { poison = on; }

}  // namespace recurra
