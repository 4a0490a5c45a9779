// The compiled core's door to Python: each function reads its arguments, unlocks, calls and returns.
//
// Arrays come as addresses with strides. They are checked where they are still tensors, in
// src/recurra/kernels/, whose core.py alone imports this module.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "call.h"
#include "levels.h"
#include "stream.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using recurra::Choice;
using recurra::Direction;
using recurra::index;
using recurra::Layer;
using recurra::Rows;
using recurra::Scan;

// Takes the items of a tuple one after another.
class Reader {
 public:
  explicit Reader(nb::tuple items) : items_(items) {}

  index number() { return nb::cast<index>(items_[next_++]); }
  double real() { return nb::cast<double>(items_[next_++]); }
  template <class T>
  T* address() {
    return reinterpret_cast<T*>(nb::cast<std::uintptr_t>(items_[next_++]));
  }
  template <class T>
  Rows<T> rows() {
    T* const data = address<T>();
    const index batch = number();
    return {data, batch, number()};
  }

 private:
  nb::tuple items_;
  size_t next_ = 0;
};

// weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_diagonal, h_0, c_0
void read_weights(Reader& read, Direction& d) {
  d.weight_ih = read.address<const void>();
  d.weight_hh = read.address<const void>();
  d.bias_ih = read.address<const void>();
  d.bias_hh = read.address<const void>();
  d.weight_hr = read.address<const void>();
  d.weight_diagonal = read.address<const void>();
  d.h_0 = read.address<const void>();
  d.c_0 = read.address<const void>();
}

// Items of a direction and of a scan when they are to go forward; more come with the way back.
constexpr size_t items_of_direction = 28, items_of_scan = 21;

Direction read_direction(nb::tuple items) {
  Reader read(items);
  Direction d;
  d.reverse = read.number() != 0;
  read_weights(read, d);
  d.mask = read.rows<const void>();
  d.zone_h = read.rows<const void>();
  d.zone_c = read.rows<const void>();
  d.keep_h = read.real();
  for (double& keep : d.keep_c) keep = read.real();
  d.y = read.rows<void>();
  d.saved = read.address<void>();
  if (nb::len(items) == items_of_direction) {
    d.h_n = read.address<void>();
    d.c_n = read.address<void>();
    return d;
  }
  d.d_y = read.rows<const void>();
  d.d_h_n = read.address<const void>();
  d.d_c_n = read.address<const void>();
  d.d_x = read.rows<void>();
  d.d_weight_ih = read.address<void>();
  d.d_weight_hh = read.address<void>();
  d.d_bias_ih = read.address<void>();
  d.d_bias_hh = read.address<void>();
  d.d_weight_hr = read.address<void>();
  d.d_weight_diagonal = read.address<void>();
  d.d_h_0 = read.address<void>();
  d.d_c_0 = read.address<void>();
  return d;
}

Layer read_layer(nb::tuple items, nb::tuple directions) {
  Reader read(items);
  Layer layer;
  layer.cell = static_cast<recurra::CellKind>(read.number());
  layer.is_double = read.number() != 0;
  layer.batch = read.number();
  layer.time = read.number();
  layer.input = read.number();
  layer.hidden = read.number();
  layer.output = read.number();
  layer.rebuild = read.number() != 0;
  layer.clip = read.real();
  layer.dt = read.real();
  layer.x = read.rows<const void>();
  layer.lengths = read.address<const std::int64_t>();
  layer.reset = read.rows<const bool>();
  layer.directions = static_cast<int>(nb::len(directions));
  for (int n = 0; n < layer.directions; ++n)
    layer.direction[n] = read_direction(nb::cast<nb::tuple>(directions[static_cast<size_t>(n)]));
  return layer;
}

const recurra::Level& level_named(const std::string& name) {
  const recurra::Level* const level = recurra::find_level(name.c_str());
  if (!level) throw nb::value_error(("this machine has no level of instructions called '" + name + "'").c_str());
  return *level;
}

Choice read_choice(nb::tuple items) {
  Choice choice;
  const auto name = nb::cast<std::string>(items[0]);
  choice.level = name.empty() ? &recurra::widest_level() : &level_named(name);
  choice.threads = nb::cast<int>(items[1]);
  choice.slices = nb::cast<int>(items[2]);
  choice.team = nb::cast<int>(items[3]);
  return choice;
}

void forward(nb::tuple choice, nb::tuple items, nb::tuple directions) {
  const Choice how = read_choice(choice);
  const Layer layer = read_layer(items, directions);
  const nb::gil_scoped_release unlocked;
  recurra::run_forward(layer, how);
}

void backward(nb::tuple choice, nb::tuple items, nb::tuple directions) {
  const Choice how = read_choice(choice);
  const Layer layer = read_layer(items, directions);
  const nb::gil_scoped_release unlocked;
  recurra::run_backward(layer, how);
}

index saved_size(nb::tuple choice, nb::tuple items, nb::tuple directions) {
  const Choice how = read_choice(choice);
  return how.level->saved_size(read_layer(items, directions));
}

nb::tuple outline(nb::tuple choice, nb::tuple items, nb::tuple directions) {
  const Choice how = read_choice(choice);
  const recurra::Plan plan = recurra::outline(read_layer(items, directions), how);
  return nb::make_tuple(plan.threads, plan.slices, plan.team);
}

void linear(nb::tuple choice, bool is_double, index rows, index inputs, index outputs, std::uintptr_t x, index x_stride,
            std::uintptr_t weight, std::uintptr_t bias, std::uintptr_t y) {
  const Choice how = read_choice(choice);
  const recurra::LinearCall call{is_double,
                             rows,
                             inputs,
                             outputs,
                             reinterpret_cast<const void*>(x),
                             x_stride,
                             reinterpret_cast<const void*>(weight),
                             reinterpret_cast<const void*>(bias),
                             reinterpret_cast<void*>(y)};
  const nb::gil_scoped_release unlocked;
  recurra::run_linear(call, how);
}

std::vector<std::string> supported_levels() {
  std::vector<std::string> names;
  for (const recurra::Level* level : recurra::levels)
    if (level->supported()) names.emplace_back(level->name);
  return names;
}

// A layer's sizes and parameters: (cell, is_double, input, hidden, output, dt, weight_ih, weight_hh,
// bias_ih, bias_hh, weight_hr, weight_diagonal, h, c, keep_h, keep_c of every part).
Layer read_stream_layer(nb::tuple items) {
  Reader read(items);
  Layer layer;
  layer.cell = static_cast<recurra::CellKind>(read.number());
  layer.is_double = read.number() != 0;
  layer.input = read.number();
  layer.hidden = read.number();
  layer.output = read.number();
  layer.dt = read.real();
  Direction& d = layer.direction[0];
  read_weights(read, d);
  d.keep_h = read.real();
  for (double& keep : d.keep_c) keep = read.real();
  return layer;
}

void make_stream(recurra::Stream* self, nb::tuple choice, nb::list items, index batch, int stored) {
  const Choice how = read_choice(choice);
  std::vector<Layer> layers;
  for (nb::handle item : items) layers.push_back(read_stream_layer(nb::cast<nb::tuple>(item)));
  new (self) recurra::Stream(std::move(layers), batch, static_cast<recurra::Stored>(stored), *how.level, how.threads);
}

void push(recurra::Stream& self, std::uintptr_t x, index x_batch, index x_time, std::uintptr_t y, index y_batch,
          index y_time, index time) {
  const nb::gil_scoped_release unlocked;
  self.push({reinterpret_cast<const void*>(x), x_batch, x_time}, {reinterpret_cast<void*>(y), y_batch, y_time}, time);
}

Scan read_scan(nb::tuple items) {
  Reader read(items);
  Scan scan;
  scan.kind = static_cast<recurra::ScanKind>(read.number());
  scan.is_double = read.number() != 0;
  scan.reverse = read.number() != 0;
  scan.batch = read.number();
  scan.time = read.number();
  scan.width = read.number();
  scan.a = read.rows<const void>();
  scan.b = read.rows<const void>();
  scan.h_0 = read.address<const void>();
  scan.lengths = read.address<const std::int64_t>();
  scan.reset = read.rows<const bool>();
  scan.h = read.rows<void>();
  if (nb::len(items) == items_of_scan) {
    scan.h_n = read.address<void>();
    return scan;
  }
  scan.d_h = read.rows<const void>();
  scan.d_h_n = read.address<const void>();
  scan.d_a = read.rows<void>();
  scan.d_b = read.rows<void>();
  scan.d_h_0 = read.address<void>();
  return scan;
}

void scan_forward(nb::tuple choice, nb::tuple items) {
  const Choice how = read_choice(choice);
  const Scan scan = read_scan(items);
  const nb::gil_scoped_release unlocked;
  recurra::run_scan_forward(scan, how);
}

void scan_backward(nb::tuple choice, nb::tuple items) {
  const Choice how = read_choice(choice);
  const Scan scan = read_scan(items);
  const nb::gil_scoped_release unlocked;
  recurra::run_scan_backward(scan, how);
}

}  // namespace

NB_MODULE(_core, module) {
  module.doc() = "Compiled core of recurra: the inner loops, independent of torch.";
  module.def("threads_allowed", &recurra::threads_allowed,
             "Number of CPUs that this process may run on (at least 1).");
  module.def("threads_usable", &recurra::threads_usable, "Most threads that a call may use now.");
  module.def("levels", &supported_levels, "Levels of instructions that this machine can run, widest first.");
  module.def(
      "vector_bits", [](const std::string& name) { return level_named(name).vector_bits; }, "level"_a,
      "Width of a level's vectors.");
  module.def("poison_workspaces", &recurra::poison_workspaces, "on"_a,
             "Fill workspaces with NaN before use, so that reading what was not written shows.");
  module.def("forward", &forward, "choice"_a, "layer"_a, "directions"_a);
  module.def("backward", &backward, "choice"_a, "layer"_a, "directions"_a);
  module.def("saved_size", &saved_size, "choice"_a, "layer"_a, "directions"_a,
             "Numbers that forward saves for backward, for each row and step.");
  module.def("outline", &outline, "choice"_a, "layer"_a, "directions"_a, "(threads, slices, team) of a call.");
  module.def("linear", &linear);
  module.def("scan_forward", &scan_forward, "choice"_a, "scan"_a);
  module.def("scan_backward", &scan_backward, "choice"_a, "scan"_a);

  nb::class_<recurra::Stream>(module, "Stream", "Layers that keep packed weights and state between calls.")
      .def("__init__", &make_stream, "choice"_a, "layers"_a, "batch"_a, "stored"_a)
      .def("push", &push);
}
