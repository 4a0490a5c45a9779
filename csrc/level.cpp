// The kernels at one level of instructions; compiled once for each, with RECURRA_LEVEL as the name of
// its namespace.
#include "backward.h"
#include "elman.h"
#include "forward.h"
#include "gru.h"
#include "ind_rnn.h"
#include "lem.h"
#include "levels.h"
#include "linear.h"
#include "lstm.h"
#include "scan.h"
#include "slstm.h"

namespace recurra::RECURRA_LEVEL {

namespace {

// Calls body(Cell) with the type that the call names.
template <class T, class Body>
auto with_cell(const Layer& layer, const Body& body) {
  switch (layer.cell) {
    case CellKind::elman_tanh: return body(Elman<T, false>{});
    case CellKind::elman_relu: return body(Elman<T, true>{});
    case CellKind::gru: return body(Gru<T>{});
    case CellKind::gru_reset_before: return body(GruResetBefore<T>{});
    case CellKind::ind_rnn_relu: return body(IndRnn<T, true>{});
    case CellKind::ind_rnn_tanh: return body(IndRnn<T, false>{});
    case CellKind::lem: return body(Lem<T>{});
    case CellKind::slstm_sigmoid: return body(Slstm<T, false>{});
    case CellKind::slstm_exp: return body(Slstm<T, true>{});
    case CellKind::lstm: break;
  }
  return layer.output == layer.hidden ? body(Lstm<T, false>{}) : body(Lstm<T, true>{});
}

template <class Body>
auto with_cell_and_type(const Layer& layer, const Body& body) {
  return layer.is_double ? with_cell<double>(layer, body) : with_cell<float>(layer, body);
}

index saved(const Layer& layer) {
  return with_cell_and_type(layer, [&](auto cell) { return saved_size<decltype(cell)>(layer); });
}

index prepare(const Layer& layer, const Plan& plan, bool backward, char* work) {
  return with_cell_and_type(layer, [&](auto cell) {
    using W = Workspace<decltype(cell)>;
    const W laid_out(layer, plan, backward, work);
    if (work) *reinterpret_cast<W*>(work) = laid_out;
    return laid_out.total;
  });
}

void forward(const Layer& layer, const Plan& plan, const char* work, int rank) {
  with_cell_and_type(layer, [&](auto cell) { run_forward<decltype(cell)>(layer, plan, work, rank); });
}

void backward(const Layer& layer, const Plan& plan, const char* work, int rank) {
  with_cell_and_type(layer, [&](auto cell) { run_backward<decltype(cell)>(layer, plan, work, rank); });
}

// A stream keeps the workspace of `forward`, with weights packed once. `full` is room for weights that
// are yet to be rounded; both sizes are returned for null pointers.
template <class Cell, class Storage>
StreamMemory prepare_stored(const Layer& layer, const Plan& plan, char* work, char* full) {
  const Workspace<Cell, Storage> laid_out(layer, plan, false, work);
  Arena arena{full};
  const Team alone{};
  if constexpr (!Storage::rounded) {
    if (work) Cell::pack(laid_out.sizes, layer.direction[0], laid_out.packed[0], alone);
  } else {
    const auto packed = take_packed<Cell, Full<float>>(laid_out.sizes, arena);
    if (full) {
      Cell::pack(laid_out.sizes, layer.direction[0], packed, alone);
      round_packed<Cell>(laid_out.sizes, packed, laid_out.packed[0]);
    }
  }
  if (work) *reinterpret_cast<Workspace<Cell, Storage>*>(work) = laid_out;
  return {laid_out.total, arena.used};
}

template <class Cell, class Storage>
void forward_stored(const Layer& layer, const Plan& plan, const char* work, int rank) {
  loop_forward(layer, plan, *reinterpret_cast<const Workspace<Cell, Storage>*>(work), rank);
}

// Calls body(Cell, Storage); fewer bits are for float.
template <class Body>
auto with_storage(const Layer& layer, Stored stored, const Body& body) {
  if (layer.is_double) return with_cell<double>(layer, [&](auto cell) { return body(cell, Full<double>{}); });
  return with_cell<float>(layer, [&](auto cell) {
    if (stored == Stored::bfloat16) return body(cell, Bfloat16{});
    if (stored == Stored::int8) return body(cell, Int8{});
    return body(cell, Full<float>{});
  });
}

StreamMemory prepare_stream(const Layer& layer, const Plan& plan, Stored stored, char* work, char* full) {
  return with_storage(layer, stored, [&](auto cell, auto storage) {
    return prepare_stored<decltype(cell), decltype(storage)>(layer, plan, work, full);
  });
}

void stream(const Layer& layer, const Plan& plan, Stored stored, const char* work, int rank) {
  with_storage(layer, stored, [&](auto cell, auto storage) {
    forward_stored<decltype(cell), decltype(storage)>(layer, plan, work, rank);
  });
}

index scratch_of_linear(const LinearCall& call) {
  return call.is_double ? linear_scratch<double>(call) : linear_scratch<float>(call);
}

void linear(const LinearCall& call, char* scratch, int rank, int threads) {
  if (call.is_double) run_linear<double>(call, scratch, rank, threads);
  else run_linear<float>(call, scratch, rank, threads);
}

void scan_forward(const Scan& scan, int share, int shares) {
  with_kind(scan, [&](auto kind) {
    using Kind = decltype(kind);
    for_tiles<typename Kind::Element>(scan, share, shares, [&](const Tile& tile) { tile_forward<Kind>(scan, tile); });
  });
}

void scan_backward(const Scan& scan, int share, int shares) {
  with_kind(scan, [&](auto kind) {
    using Kind = decltype(kind);
    for_tiles<typename Kind::Element>(scan, share, shares, [&](const Tile& tile) { tile_backward<Kind>(scan, tile); });
  });
}

bool supported() {
#if defined(RECURRA_LEVEL_AVX512)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
#elif defined(RECURRA_LEVEL_AVX2)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

#define RECURRA_TEXT(name) #name
#define RECURRA_NAME(name) RECURRA_TEXT(name)

}  // namespace

const Level level{RECURRA_NAME(RECURRA_LEVEL), vector_bytes * 8, supported, saved, prepare, forward, backward,
                  prepare_stream, stream, scratch_of_linear, linear, scan_forward, scan_backward};

}  // namespace recurra::RECURRA_LEVEL
