#include "stream.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>

namespace recurra {

Bytes Stream::make(index bytes) {
  Bytes memory = allocate(std::max(index{1}, bytes));
  std::memset(memory.get(), 0, static_cast<size_t>(bytes));
  return memory;
}

Stream::Stream(std::vector<Layer> layers, index batch, Stored stored, const Level& level, int threads)
    : level_(level),
      stored_(stored),
      batch_(batch),
      element_(layers.front().is_double ? sizeof(double) : sizeof(float)),
      threads_(std::clamp(threads, 1, threads_usable())),
      order_(static_cast<size_t>(batch)),
      length_(static_cast<size_t>(batch), 1),
      begin_{0, batch},
      everybody_(std::make_unique<Barrier>()) {
  std::iota(order_.begin(), order_.end(), index{0});
  plan_.order = order_.data();
  plan_.length = length_.data();
  plan_.begin = begin_.data();
  plan_.everybody = plan_.teams = everybody_.get();
  plan_threads(threads_);
  for (Layer layer : layers) {
    layer.batch = batch;
    layer.time = index{1} << 30;  // as long as anybody likes; only pieces of it are ever worked on
    layer.directions = 1;
    Direction& d = layer.direction[0];
    d.h_n = const_cast<void*>(d.h_0);
    d.c_n = const_cast<void*>(d.c_0);
    Held held{layer, nullptr};
    const StreamMemory size = level.prepare_stream(held.layer, plan_, stored, nullptr, nullptr);
    held.work = make(size.work);
    const Bytes full = make(size.full);
    level.prepare_stream(held.layer, plan_, stored, held.work.get(), full.get());
    layers_.push_back(std::move(held));
  }
}

void Stream::push(Rows<const void> x, Rows<void> y, index time) {
  const std::lock_guard<std::mutex> alone(pushing_);
  // A stream may be carried into a forked process, or its process be given fewer CPUs.
  plan_threads(threads_ == 1 ? 1 : std::min(threads_, threads_usable()));
  std::fill(length_.begin(), length_.end(), time);
  index widest = 0;
  for (const Held& held : layers_) widest = std::max(widest, held.layer.output);
  for (std::vector<char>& room : between_)
    room.resize(std::max(room.size(), static_cast<size_t>(time * batch_ * widest * element_)));
  for (size_t n = 0; n < layers_.size(); ++n) {
    Layer& layer = layers_[n].layer;
    layer.time = time;
    layer.x = x;
    layer.direction[0].y = y;
    if (n + 1 == layers_.size()) continue;
    std::vector<char>& room = between_[n % 2];
    layer.direction[0].y = {room.data(), layer.output, batch_ * layer.output};
    x = {room.data(), layer.output, batch_ * layer.output};
  }
  const auto work = [](void* self, int rank) { static_cast<Stream*>(self)->run(rank); };
  if (run_threads(plan_.threads, work, this)) return;
  plan_threads(1);
  run(0);
}

void Stream::plan_threads(int threads) {
  plan_.team = plan_.threads = everybody_->members = threads;
}

void Stream::run(int rank) {
  for (Held& held : layers_) {
    level_.stream(held.layer, plan_, stored_, held.work.get(), rank);
    if (plan_.threads > 1) everybody_->wait();
  }
}

}  // namespace recurra
