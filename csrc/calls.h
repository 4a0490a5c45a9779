// What a caller hands to the compiled core: sizes, strides and addresses, nothing owned.
//
// Strides are in elements. The last axis of every array is contiguous. A null address means that the
// part is absent, or for an initial state that it is zero. Element type: float, or double where
// Layer::is_double. Time steps are counted in the order of processing where a comment says `step`,
// and along the axis of x elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>

namespace recurra {

using index = std::ptrdiff_t;

enum class CellKind : int {
  elman_tanh, elman_relu, lstm, gru, gru_reset_before, ind_rnn_relu, ind_rnn_tanh, lem, slstm_sigmoid, slstm_exp
};

// Parts of a state beside h, at most: c of LSTM, z of LEM; c, n and m of sLSTM. They lie side by side in
// c_0, c_n and zone_c.
inline constexpr int most_parts = 3;

// Rows of features, one for each batch element and time step.
template <class T>
struct Rows {
  T* data = nullptr;
  index batch_stride = 0;
  index time_stride = 0;
};

// One direction of one layer.
struct Direction {
  bool reverse = false;
  const void* weight_ih = nullptr;  // (gates * hidden, input)
  const void* weight_hh = nullptr;  // (gates * hidden, output)
  const void* bias_ih = nullptr;    // (gates * hidden)
  const void* bias_hh = nullptr;
  const void* weight_hr = nullptr;  // (output, hidden): of LSTM with projection, of LEM for z
  const void* weight_diagonal = nullptr;  // (hidden) of IndRNN; (3 * hidden) of an LSTM's peepholes, i f o
  const void* h_0 = nullptr;        // (batch, output)
  const void* c_0 = nullptr;        // (batch, parts * hidden)
  Rows<const void> mask;            // on h before the recurrent product
  Rows<const void> zone_h;          // 1 keeps the old value, 0 takes the new one
  Rows<const void> zone_c;
  double keep_h = 0;  // the same as one number for all, where there are no rows
  double keep_c[most_parts] = {};

  Rows<void> y;
  void* h_n = nullptr;
  void* c_n = nullptr;              // as c_0
  void* saved = nullptr;  // (time, batch, saved_size), by step; null when nothing is to be saved

  Rows<const void> d_y;
  const void* d_h_n = nullptr;
  const void* d_c_n = nullptr;
  Rows<void> d_x;
  void* d_weight_ih = nullptr;
  void* d_weight_hh = nullptr;
  void* d_bias_ih = nullptr;
  void* d_bias_hh = nullptr;
  void* d_weight_hr = nullptr;
  void* d_weight_diagonal = nullptr;
  void* d_h_0 = nullptr;
  void* d_c_0 = nullptr;
};

// One layer over one batch, in one or both directions.
struct Layer {
  CellKind cell = CellKind::lstm;
  bool is_double = false;
  index batch = 0;
  index time = 0;
  index input = 0;
  index hidden = 0;
  index output = 0;  // hidden, or the size of the projection
  bool rebuild = false;  // save c's parts alone, and compute the gates again on the way back
  double clip = 0;       // the gradient at each step's incoming state is cut off at ±clip; 0: it is not
  double dt = 0;         // of LEM
  Rows<const void> x;
  const std::int64_t* lengths = nullptr;  // (batch)
  Rows<const bool> reset;
  int directions = 1;
  Direction direction[2];
};

// A scan over time without weights, h = a ⊙ h + b; see scan.h. In the gated kinds a and b hold the
// pre-activations of gate and candidate. Strides, null addresses and steps are as above.
enum class ScanKind : int { linear, min_gru, min_gru_plain };

struct Scan {
  ScanKind kind = ScanKind::linear;
  bool is_double = false;
  bool reverse = false;
  index batch = 0;
  index time = 0;
  index width = 0;
  Rows<const void> a;
  Rows<const void> b;
  const void* h_0 = nullptr;              // (batch, width)
  const std::int64_t* lengths = nullptr;  // (batch)
  Rows<const bool> reset;
  Rows<void> h;
  void* h_n = nullptr;

  Rows<const void> d_h;
  const void* d_h_n = nullptr;
  Rows<void> d_a;
  Rows<void> d_b;
  void* d_h_0 = nullptr;
};

// y = x Wᵀ + b over rows; see linear.h.
struct LinearCall {
  bool is_double = false;
  index rows = 0;
  index inputs = 0;
  index outputs = 0;
  const void* x = nullptr;
  index x_stride = 0;
  const void* weight = nullptr;  // (outputs, inputs)
  const void* bias = nullptr;    // (outputs), or null
  void* y = nullptr;             // (rows, outputs)
};

// How a stream stores its weights.
enum class Stored : int { full, bfloat16, int8 };

}  // namespace recurra
