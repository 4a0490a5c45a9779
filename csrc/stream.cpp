#include "stream.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>

namespace recurra {

void Stream::Free::operator()(char* data) const { ::operator delete(data, std::align_val_t{64}); }

Stream::Bytes Stream::make(index bytes) {
  const auto size = static_cast<size_t>(std::max(index{1}, bytes));
  Bytes memory(static_cast<char*>(::operator new(size, std::align_val_t{64})));
  std::memset(memory.get(), 0, size);
  return memory;
}

Stream::Stream(std::vector<Layer> layers, index batch, Stored stored, const Level& level, int threads)
    : level_(level),
      stored_(stored),
      batch_(batch),
      element_(layers.front().is_double ? sizeof(double) : sizeof(float)),
      order_(static_cast<size_t>(batch)),
      length_(static_cast<size_t>(batch), 1),
      begin_{0, batch},
      everybody_(std::make_unique<Barrier>()) {
  std::iota(order_.begin(), order_.end(), index{0});
  plan_.team = plan_.threads = std::clamp(threads, 1, threads_usable());
  plan_.order = order_.data();
  plan_.length = length_.data();
  plan_.begin = begin_.data();
  plan_.everybody = plan_.teams = everybody_.get();
  everybody_->members = plan_.threads;
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
  std::fill(length_.begin(), length_.end(), time);
  for (size_t n = 0; n < layers_.size(); ++n) {
    Layer& layer = layers_[n].layer;
    layer.time = time;
    layer.x = x;
    layer.direction[0].y = y;
    if (n + 1 == layers_.size()) continue;
    std::vector<char>& room = between_[n % 2];
    room.resize(std::max(room.size(), static_cast<size_t>(time * batch_ * layer.output * element_)));
    layer.direction[0].y = {room.data(), layer.output, batch_ * layer.output};
    x = {room.data(), layer.output, batch_ * layer.output};
  }
  const auto work = [](void* self, int rank) { static_cast<Stream*>(self)->run(rank); };
  if (run_threads(plan_.threads, work, this)) return;
  plan_.team = plan_.threads = everybody_->members = 1;
  run(0);
}

void Stream::run(int rank) {
  for (Held& held : layers_) {
    level_.stream(held.layer, plan_, stored_, held.work.get(), rank);
    if (plan_.threads > 1) everybody_->wait();
  }
}

}  // namespace recurra
