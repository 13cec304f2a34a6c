// A training step of the modern LeNet-5 in two kernels, which NVRTC compiles at run time. A third kernel draws the
// distortions of an epoch's images.
//
// `gradient` computes the forward and backward passes of a batch. A team of 128 threads processes one image, and a
// block has TEAMS teams. Activations and their gradients stay in shared memory. The weights of the linear layers do
// not fit there, so a block reads them from the L2 cache once for all its images. `update` computes the gradients of
// the linear layers' weights, adds up those of the convolutions, and updates all parameters.
//
// The order of all additions depends only on the sizes, so results are the same to the bit each time.
//
// The host defines TEAMS (1, 2 or 4), CLASSES (1 to 128), RELU (otherwise tanh), MAX (max pooling, otherwise average
// pooling) and CORNER (the network for 28x28: the image is in the upper left corner of the 32x32 input, and c5 has no
// weights for the last row and column of s4).
//
// Comments call the derivative of the loss with respect to a value its gradient. A layer's activation is applied to
// its weighted sums (its sums).

// The ranges of the distortions in core/src/training/distortions.rs, and what else they depend on. `scale` and
// `squeeze` hold logarithms.
struct Ranges {
  double scale[2];
  double squeeze[2];
  double shear;
  double shift;
  double rotation;
  double elastic;
  unsigned long long seed;
  unsigned long long epoch;
};

// The arguments of all kernels, with the layout of KernelArguments in src/engine/cuda.rs.
struct Arguments {
  // The pixels of a data set of `size` x `size` images: (N, size, size).
  const unsigned char *grey;
  // The network's input for each grey value: (256).
  const float *levels;
  // The distortions of the batch's images: (count, DISTORTION). Null if images are not distorted.
  float *distortions;
  // The indices of the batch's images in the data set: (count).
  const long long *indices;
  // The labels of the data set: (N).
  const long long *labels;
  // The weights and biases of c1, c3, c5, f6 and output, in PyTorch's layout. The optimizer's state has the same order.
  float *parameters;
  float *state[2];
  // The inputs of c5, f6 and output for each image, and the gradients of their sums.
  float *inputs[3];
  float *derivatives[3];
  // The gradients of the convolutions' parameters for each block, in the order of `parameters`.
  float *convolutions;
  // If this is not null, `gradient` writes the logits here and does nothing else.
  float *logits;
  // The loss of each image, and whether it was misclassified.
  float *losses;
  unsigned char *misclassified;
  int count;
  int size;
  // The row and the column of an image's first pixel in the input.
  int offset;
  // The part of the input that is distorted: `side` x `side` pixels from row and column `frame`.
  int side;
  int frame;
  // The value of the input around the image.
  float border;
  // The constants of the update rule: see `StepConstants` in core/src/kernels/batch/update.rs.
  float step[8];
  // 0 for SGD, 1 for Adam and AdamW.
  int rule;
  Ranges ranges;
};

namespace {

static_assert(TEAMS == 1 || TEAMS == 2 || TEAMS == 4, "the work of a block divides evenly");
static_assert(CLASSES >= 1 && CLASSES <= 128, "Image::output has room for them");

constexpr int WARP = 32;
constexpr int TEAM = 128;
constexpr int THREADS = TEAM * TEAMS;
constexpr int WARPS = THREADS / WARP;

// The index of each parameter tensor in `parameters`.
constexpr int C1_BIAS = 6 * 25;
constexpr int C3_WEIGHT = C1_BIAS + 6;
constexpr int C3_BIAS = C3_WEIGHT + 16 * 150;
constexpr int C5_WEIGHT = C3_BIAS + 16;
constexpr int C5_BIAS = C5_WEIGHT + 120 * 400;
constexpr int F6_WEIGHT = C5_BIAS + 120;
constexpr int F6_BIAS = F6_WEIGHT + 84 * 120;
constexpr int OUTPUT_WEIGHT = F6_BIAS + 84;
constexpr int OUTPUT_BIAS = OUTPUT_WEIGHT + CLASSES * 84;

// The distances between rows and between maps in shared memory, in floats. They are larger than the rows and maps, so
// that the threads of a warp read from different banks, and multiples of 4, for loads of 16 bytes.
constexpr int INPUT_ROW = 36;   // for 32 values
constexpr int C1_ROW = 28;      // for 28
constexpr int C1_MAP = 788;     // for 28 rows, 784
constexpr int S2_ROW = 20;      // for 14
constexpr int S2_MAP = 292;     // for 14 rows, 280
constexpr int C3_ROW = 12;      // for 10
constexpr int C3_MAP = 136;     // for 10 rows, 120
constexpr int C3_WEIGHTS = 404; // for 25 taps of 16 maps, 400
// The index of the gradients of s2 in Image::s2, after the values.
constexpr int S2_BACK = 6 * S2_MAP;

// A distortion: the two rows of three numbers of an affine map, then the displacements of the control points of an
// elastic distortion, first all horizontal ones, then all vertical ones, 2 x 8 x 8 at most.
constexpr int DISPLACEMENTS = 6;
constexpr int DISTORTION = DISPLACEMENTS + 2 * 64 + 2;
// The distance of the control points, in pixels.
constexpr int CELL = 8;

// The part of the shared memory that belongs to one team.
struct Image {
  float input[32 * INPUT_ROW];
  // Values; after the backward pass of the pooling, the gradients of their sums.
  float c1[6 * C1_MAP];
  float c3[16 * C3_MAP];
  // Values. From S2_BACK on first partial sums of the linear layers' backward passes, then the gradients of s2. At the
  // end partial sums of the gradients of c1's parameters.
  float s2[6 * S2_MAP + 1600];
  float s4[400]; // values, then their gradients
  float c5[120];
  float c5_back[120];
  float f6[84];
  float f6_back[84];
  float output[128]; // values, then their gradients
};

struct Shared {
  // The weights of c1 by tap and map: three maps, one unused number, three maps.
  float c1[25][8];
  // The weights of c3 by input map, tap and map; at the end their gradients, in the order of `parameters`.
  float c3[6][C3_WEIGHTS];
  Image images[TEAMS];
};

// The distance between the same values of two images of a block, in floats.
constexpr int STRIDE = sizeof(Image) / sizeof(float);

template <int N> struct alignas(4 * N) Pack {
  float v[N];
};

template <int N> __device__ Pack<N> load(const float *from) {
  return *reinterpret_cast<const Pack<N> *>(from);
}

template <int N> __device__ void store(float *to, const float *from) {
  Pack<N> pack;
#pragma unroll
  for (int k = 0; k < N; ++k) pack.v[k] = from[k];
  *reinterpret_cast<Pack<N> *>(to) = pack;
}

// Loads N floats, from an address that is a multiple of 16 bytes.
template <int N> __device__ void load_row(const float *from, float *row) {
#pragma unroll
  for (int k = 0; k + 4 <= N; k += 4) {
    const Pack<4> four = load<4>(from + k);
#pragma unroll
    for (int j = 0; j < 4; ++j) row[k + j] = four.v[j];
  }
  if (N % 4 == 2) {
    const Pack<2> two = load<2>(from + N - 2);
    row[N - 2] = two.v[0];
    row[N - 1] = two.v[1];
  }
}

// Returns the sum over LANES neighbouring threads, a power of 2.
template <int LANES> __device__ float sum_over(float x) {
#pragma unroll
  for (int other = LANES / 2; other > 0; other /= 2) x += __shfl_xor_sync(~0u, x, other);
  return x;
}

// Adds up two numbers over two threads at a distance of `other`. The upper thread gets the sum of `high`, the lower
// thread that of `low`.
__device__ float share(bool upper, float low, float high, int other) {
  return (upper ? high : low) + __shfl_xor_sync(~0u, upper ? low : high, other);
}

// Adds up N numbers, a power of 2, over a warp. Each thread gets the sum of number `thread / (32 / N)`. In each step,
// threads at a distance of OTHER divide the numbers between them, until each thread has one.
template <int N, int OTHER = WARP / 2> __device__ float sums_over_warp(float *x) {
  if constexpr (N == 1) {
    return sum_over<2 * OTHER>(x[0]);
  } else {
    const bool upper = (threadIdx.x & OTHER) != 0;
#pragma unroll
    for (int k = 0; k < N / 2; ++k) x[k] = share(upper, x[k], x[k + N / 2], OTHER);
    return sums_over_warp<N / 2, OTHER / 2>(x);
  }
}

__device__ float largest(float x) {
#pragma unroll
  for (int other = WARP / 2; other > 0; other /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, other));
  return x;
}

__device__ float activate(float sum) { return RELU ? fmaxf(sum, 0.0f) : tanhf(sum); }

// Returns the gradient of a unit's sum, from its value and the gradient `d` of its value.
__device__ float activate_back(float value, float d) {
  return RELU ? (value > 0.0f ? d : 0.0f) : d * (1.0f - value * value);
}

// Pools four values, two in each of two rows.
__device__ float pool(const float *top, const float *bottom) {
  if (MAX) return fmaxf(fmaxf(top[0], top[1]), fmaxf(bottom[0], bottom[1]));
  return 0.25f * ((top[0] + top[1]) + (bottom[0] + bottom[1]));
}

// Replaces the 2x2 values of a pooling window, whose rows are `row` floats apart, by the gradients of their sums. With
// max pooling the first of the largest values gets the whole gradient.
__device__ void pool_back(float *top, int row, float d) {
  const Pack<2> above = load<2>(top), below = load<2>(top + row);
  const float four[4] = {above.v[0], above.v[1], below.v[0], below.v[1]};
  const float pooled = pool(four, four + 2);
  float back[4];
  bool left = true;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const bool takes = !MAX || (left && four[k] == pooled);
    left = left && !takes;
    back[k] = takes ? activate_back(four[k], MAX ? d : 0.25f * d) : 0.0f;
  }
  store<2>(top, back);
  store<2>(top + row, back + 2);
}

// Loads 6x8 values, whose rows are `stride` floats apart.
__device__ void load_window(const float *from, int stride, float window[6][8]) {
#pragma unroll
  for (int y = 0; y < 6; ++y) load_row<8>(from + y * stride, window[y]);
}

// Writes image number `image` of the batch to `width` x `width` values, whose rows are `stride` floats apart. The
// first pixel is at row and column `offset`, and around the image the values are `border`.
__device__ void gather(
    const Arguments &a, int image, int offset, int width, int stride, float border, int lane, float *to) {
  const int size = a.size;
  const unsigned char *grey = a.grey + a.indices[image] * size * size;
#pragma unroll 4
  for (int k = lane; k < width * width; k += TEAM) {
    const int row = k / width - offset, column = k % width - offset;
    const bool inside = row >= 0 && row < size && column >= 0 && column < size;
    to[k / width * stride + k % width] = inside ? a.levels[grey[row * size + column]] : border;
  }
}

// Computes the weights, by a cubic B-spline, of the four control points around a row or column of pixels. Returns the
// index of the first one.
__device__ int spline(int pixel, float weights[4]) {
  const float t = pixel % CELL * (1.0f / CELL), t2 = t * t, t3 = t2 * t;
  weights[0] = (1.0f - 3.0f * t + 3.0f * t2 - t3) / 6.0f;
  weights[1] = (4.0f - 6.0f * t2 + 3.0f * t3) / 6.0f;
  weights[2] = (1.0f + 3.0f * t + 3.0f * t2 - 3.0f * t3) / 6.0f;
  weights[3] = t3 / 6.0f;
  return pixel / CELL;
}

// Writes the distorted image to `input`, from the image with a border in `sheet`. core/src/kernels/distortion.rs has the
// same computation.
__device__ void distort(
    const Arguments &a, const float *sheet, const float *distortion, int lane, float *input) {
  const int side = a.side, width = side + 2, points = side / CELL + 4;
  const float half = 0.5f * side;
  for (int k = lane; k < 32 * 32; k += TEAM) {
    const int row = k / 32 - a.frame, column = k % 32 - a.frame;
    float &pixel = input[k / 32 * INPUT_ROW + k % 32];
    if (row < 0 || row >= side || column < 0 || column >= side) {
      pixel = a.border;
      continue;
    }
    float from[2] = {column + 0.5f, row + 0.5f};
    if (a.ranges.elastic > 0.0) {
      float across[4], down[4];
      const int first = spline(row, down) * points + spline(column, across);
#pragma unroll
      for (int direction = 0; direction < 2; ++direction) {
        const float *points_moved = distortion + DISPLACEMENTS + direction * points * points + first;
        float moved = 0.0f;
#pragma unroll
        for (int x = 0; x < 4; ++x) {
          float sum = 0.0f;
#pragma unroll
          for (int y = 0; y < 4; ++y) sum += down[y] * points_moved[y * points + x];
          moved += across[x] * sum;
        }
        from[direction] += moved;
      }
    }
    from[0] = from[0] / half - 1.0f;
    from[1] = from[1] / half - 1.0f;
    // Coordinates in the sheet, in pixels. The centre of the first pixel has the coordinate 0.
    int corner[2];
    float fraction[2];
#pragma unroll
    for (int direction = 0; direction < 2; ++direction) {
      const float *map = distortion + 3 * direction;
      float coordinate = (map[0] * from[0] + map[1] * from[1] + map[2] + 1.0f) * half + 0.5f;
      coordinate = fminf(fmaxf(coordinate, 0.0f), side + 1.0f);
      corner[direction] = static_cast<int>(fminf(coordinate, static_cast<float>(side)));
      fraction[direction] = coordinate - corner[direction];
    }
    const float *top = sheet + corner[1] * width + corner[0], *bottom = top + width;
    const float above = top[0] + fraction[0] * (top[1] - top[0]);
    const float below = bottom[0] + fraction[0] * (bottom[1] - bottom[0]);
    pixel = above + fraction[1] * (below - above);
  }
}

// Random numbers by SplitMix64, as in core/src/training/distortions.rs.
struct Random {
  unsigned long long state;

  __device__ Random(unsigned long long seed, unsigned long long epoch, unsigned long long index)
      : state(mix(mix(mix(seed) ^ epoch) ^ index)) {}

  static __device__ unsigned long long mix(unsigned long long state) {
    unsigned long long z = state + 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

  __device__ double between(double low, double high) {
    state = mix(state);
    return low + (high - low) * static_cast<double>(state >> 11) / 9007199254740992.0;
  }
};

// The forward pass of c1 and s2. Each thread computes two neighbouring values of s2 in all maps, three maps at a time,
// with the 2x4 values of c1 below them. Eight threads compute a row of s2, so that their loads are adjacent; the last
// of them has nothing to do.
__device__ void c1_forward(const Shared &shared, const float *bias, int lane, Image &image) {
  const int row = lane / 8, pair = lane % 8;
  if (row >= 14 || pair >= 7) return;
  float window[6][8];
  load_window(image.input + 2 * row * INPUT_ROW + 4 * pair, INPUT_ROW, window);
#pragma unroll 1
  for (int first = 0; first < 6; first += 3) {
    float sums[3][2][4];
#pragma unroll
    for (int map = 0; map < 3; ++map) {
#pragma unroll
      for (int k = 0; k < 8; ++k) sums[map][k / 4][k % 4] = bias[first + map];
    }
#pragma unroll
    for (int tap = 0; tap < 25; ++tap) {
      const float *three = &shared.c1[tap][first / 3 * 4];
      const Pack<2> two = load<2>(three);
      const float weights[3] = {two.v[0], two.v[1], three[2]};
#pragma unroll
      for (int map = 0; map < 3; ++map) {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          sums[map][k / 4][k % 4] += weights[map] * window[tap / 5 + k / 4][tap % 5 + k % 4];
        }
      }
    }
#pragma unroll
    for (int map = 0; map < 3; ++map) {
#pragma unroll
      for (int k = 0; k < 8; ++k) sums[map][k / 4][k % 4] = activate(sums[map][k / 4][k % 4]);
      const auto &[top, bottom] = sums[map];
      float *to = image.c1 + (first + map) * C1_MAP + 2 * row * C1_ROW + 4 * pair;
      store<4>(to, top);
      store<4>(to + C1_ROW, bottom);
      const float pooled[2] = {pool(top, bottom), pool(top + 2, bottom + 2)};
      store<2>(image.s2 + (first + map) * S2_MAP + row * S2_ROW + 2 * pair, pooled);
    }
  }
}

// The forward pass of c3 and s4. Two threads compute two neighbouring values of s4 in four maps, with the 2x4 values of
// c3 below them: each thread adds up over three of the six maps of s2, and then finishes two of the four maps. s4 has
// five columns, so the values of a sixth one, which come from beyond s2, are dropped.
__device__ void c3_forward(const Shared &shared, const float *bias, int lane, Image &image) {
  const int item = min(lane, 119), half = item % 2, first = item / 30 * 4;
  const int row = item / 2 % 5, pair = item / 10 % 3;
  float sums[4][8] = {};
#pragma unroll 1
  for (int from = 3 * half; from < 3 * half + 3; ++from) {
    float window[6][8];
    load_window(image.s2 + from * S2_MAP + 2 * row * S2_ROW + 4 * pair, S2_ROW, window);
#pragma unroll
    for (int tap = 0; tap < 25; ++tap) {
      const Pack<4> weights = load<4>(shared.c3[from] + tap * 16 + first);
#pragma unroll
      for (int map = 0; map < 4; ++map) {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          sums[map][k] += weights.v[map] * window[tap / 5 + k / 4][tap % 5 + k % 4];
        }
      }
    }
  }
#pragma unroll
  for (int map = 0; map < 2; ++map) {
    const int own = first + 2 * half + map;
    float values[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      values[k] = activate(share(half == 1, sums[map][k], sums[map + 2][k], 1) + bias[own]);
    }
    if (lane == item) {
      float *to = image.c3 + own * C3_MAP + 2 * row * C3_ROW + 4 * pair;
      store<4>(to, values);
      store<4>(to + C3_ROW, values + 4);
      float *pooled = image.s4 + own * 25 + row * 5 + 2 * pair;
      pooled[0] = pool(values, values + 4);
      if (pair < 2) pooled[1] = pool(values + 2, values + 6);
    }
  }
}

// The forward pass of a linear layer, for all images of the block. Each warp computes ROWS outputs at a time.
template <int INPUTS, int OUTPUTS, bool ACTIVATE>
__device__ void linear(const float *weight, const float *bias, const float *from, float *to) {
  constexpr int ROWS = 4;
  const int lane = threadIdx.x % WARP;
  for (int first = threadIdx.x / WARP * ROWS; first < OUTPUTS; first += WARPS * ROWS) {
    float sums[ROWS * TEAMS] = {};
#pragma unroll
    for (int part = 0; part < INPUTS; part += 4 * WARP) {
      const int k = part + 4 * lane;
      if (k < INPUTS) {
        Pack<4> inputs[TEAMS];
#pragma unroll
        for (int team = 0; team < TEAMS; ++team) inputs[team] = load<4>(from + team * STRIDE + k);
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
          const Pack<4> weights = load<4>(weight + min(first + row, OUTPUTS - 1) * INPUTS + k);
#pragma unroll
          for (int team = 0; team < TEAMS; ++team) {
#pragma unroll
            for (int j = 0; j < 4; ++j) sums[row * TEAMS + team] += weights.v[j] * inputs[team].v[j];
          }
        }
      }
    }
    const float sum = sums_over_warp<ROWS * TEAMS>(sums);
    const int which = lane / (WARP / (ROWS * TEAMS)), output = first + which / TEAMS;
    if (lane % (WARP / (ROWS * TEAMS)) == 0 && output < OUTPUTS) {
      const float value = sum + bias[output];
      to[which % TEAMS * STRIDE + output] = ACTIVATE ? activate(value) : value;
    }
  }
}

// The backward pass of a linear layer, for all images of the block: from the gradients of its outputs in `from` to those
// of its inputs in `to`. Each thread computes four inputs from one of PARTS parts of the outputs. If there is more than
// one part, their sums go through `parts`.
template <int INPUTS, int OUTPUTS, int PARTS>
__device__ void linear_back(const float *weight, const float *from, float *to, float *parts) {
  constexpr int COLUMNS = INPUTS / 4, SHARE = (OUTPUTS + PARTS - 1) / PARTS;
  static_assert(COLUMNS * PARTS <= THREADS && INPUTS * PARTS <= 1600, "there are enough threads and memory");
  const int column = threadIdx.x % COLUMNS * 4, part = threadIdx.x / COLUMNS;
  if (part < PARTS) {
    float sums[TEAMS][4] = {};
    // It begins with the last output, as `linear` read those weights last and they are likely to be in the L1 cache.
#pragma unroll(SHARE < 24 ? SHARE : 10)
    for (int k = SHARE - 1; k >= 0; --k) {
      const int output = part * SHARE + k;
      if (OUTPUTS % PARTS != 0 && output >= OUTPUTS) continue;
      const Pack<4> weights = load<4>(weight + output * INPUTS + column);
#pragma unroll
      for (int team = 0; team < TEAMS; ++team) {
        const float d = from[team * STRIDE + output];
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[team][j] += d * weights.v[j];
      }
    }
    float *sum = PARTS == 1 ? to : parts + part * INPUTS;
#pragma unroll
    for (int team = 0; team < TEAMS; ++team) store<4>(sum + team * STRIDE + column, sums[team]);
  }
  __syncthreads();
  if constexpr (PARTS > 1) {
    for (int item = threadIdx.x; item < INPUTS * TEAMS; item += THREADS) {
      const int team = item / INPUTS, input = item % INPUTS;
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < PARTS; ++k) sum += parts[team * STRIDE + k * INPUTS + input];
      to[team * STRIDE + input] = sum;
    }
    __syncthreads();
  }
}

// The forward pass of the block's images. Each team processes image number `own` of the batch.
__device__ void forward(const Arguments &a, int own, int lane, Shared &shared) {
  Image &image = shared.images[threadIdx.x / TEAM], &images = shared.images[0];
  const float *p = a.parameters;
  for (int k = threadIdx.x; k < C1_BIAS; k += THREADS) shared.c1[k % 25][k / 75 * 4 + k / 25 % 3] = p[k];
  for (int k = threadIdx.x; k < C3_BIAS - C3_WEIGHT; k += THREADS) {
    shared.c3[k / 25 % 6][k % 25 * 16 + k / 150] = p[C3_WEIGHT + k];
  }
  if (a.distortions == nullptr) {
    gather(a, own, a.offset, 32, INPUT_ROW, a.border, lane, image.input);
  } else {
    // The image gets a border of background, one pixel wide.
    const int width = a.side + 2;
    gather(a, own, a.offset - a.frame + 1, width, width, a.levels[0], lane, image.c1);
    for (int k = lane; k < DISTORTION; k += TEAM) image.s2[k] = a.distortions[own * DISTORTION + k];
    __syncthreads();
    distort(a, image.c1, image.s2, lane, image.input);
  }
  __syncthreads();
  c1_forward(shared, p + C1_BIAS, lane, image);
  __syncthreads();
  c3_forward(shared, p + C3_BIAS, lane, image);
  __syncthreads();
  linear<400, 120, true>(p + C5_WEIGHT, p + C5_BIAS, images.s4, images.c5);
  __syncthreads();
  linear<120, 84, true>(p + F6_WEIGHT, p + F6_BIAS, images.c5, images.f6);
  __syncthreads();
  linear<84, CLASSES, false>(p + OUTPUT_WEIGHT, p + OUTPUT_BIAS, images.f6, images.output);
  __syncthreads();
}

// Computes the cross-entropy of one image, with one warp. The logits in `output` become their gradients, of the mean
// loss of the batch. `real` is false if the image is not part of the batch.
__device__ void loss(const Arguments &a, int image, bool real, int lane, float *output) {
  const int label = static_cast<int>(a.labels[a.indices[image]]);
  float most = output[0];
  for (int k = lane; k < CLASSES; k += WARP) most = fmaxf(most, output[k]);
  most = largest(most);
  float sum = 0.0f, predicted = CLASSES;
  for (int k = lane; k < CLASSES; k += WARP) {
    sum += expf(output[k] - most);
    if (output[k] == most) predicted = fminf(predicted, static_cast<float>(k));
  }
  sum = sum_over<WARP>(sum);
  predicted = -largest(-predicted); // the smallest index of the largest logit
  if (real && lane == 0) {
    a.losses[image] = logf(sum) + most - output[label];
    a.misclassified[image] = static_cast<int>(predicted) != label;
  }
  __syncwarp();
  for (int k = lane; k < CLASSES; k += WARP) {
    output[k] = (expf(output[k] - most) / sum - (k == label ? 1.0f : 0.0f)) / a.count;
  }
}

// The gradients of c3's weights. Each thread computes one row of weights of one input map, in four maps.
__device__ void c3_weights(int lane, const Image &image, float sums[4][5]) {
  const int item = min(lane, 119), first = item / 30 * 4, from = item % 30 / 5, row = item % 5;
#pragma unroll 1
  for (int y = 0; y < 10; ++y) {
    float inputs[14];
    load_row<14>(image.s2 + from * S2_MAP + (y + row) * S2_ROW, inputs);
#pragma unroll
    for (int map = 0; map < 4; ++map) {
      float d[10];
      load_row<10>(image.c3 + (first + map) * C3_MAP + y * C3_ROW, d);
#pragma unroll
      for (int k = 0; k < 5; ++k) {
#pragma unroll
        for (int x = 0; x < 10; ++x) sums[map][k] += d[x] * inputs[x + k];
      }
    }
  }
}

// The gradients of s2. Four threads compute the rows `base` and `base + 10` of two maps: for each row of weights, exactly
// one of these rows gets a contribution. Each of the four threads adds up over every fourth map of c3, and then
// finishes half a row of one map.
__device__ void c3_back(const Shared &shared, int lane, Image &image) {
  const int item = min(lane, 119), quarter = item % 4, first = item / 4 % 3 * 2, base = item / 12;
  const bool second = quarter / 2 == 1, right = quarter % 2 == 1;
  float sums[2][14] = {};
#pragma unroll 1
  for (int ky = 0; ky < 5; ++ky) {
    const int row = base >= ky ? base - ky : base - ky + 10;
#pragma unroll 1
    for (int from = quarter; from < 16; from += 4) {
      float d[10];
      load_row<10>(image.c3 + from * C3_MAP + row * C3_ROW, d);
#pragma unroll
      for (int map = 0; map < 2; ++map) {
#pragma unroll
        for (int k = 0; k < 5; ++k) {
          const float weight = shared.c3[first + map][(ky * 5 + k) * 16 + from];
#pragma unroll
          for (int x = 0; x < 10; ++x) sums[map][x + k] += d[x] * weight;
        }
      }
    }
    const bool done = ky == base || ky == 4;
    if (!__any_sync(~0u, done)) continue;
    float own[14];
#pragma unroll
    for (int x = 0; x < 14; ++x) own[x] = share(second, sums[0][x], sums[1][x], 2);
    float *to = image.s2 + S2_BACK + (first + second) * 196 + (base >= ky ? base : base + 10) * 14 + 7 * right;
#pragma unroll
    for (int x = 0; x < 7; ++x) {
      const float sum = share(right, own[x], own[x + 7], 1);
      if (done && lane == item) to[x] = sum;
    }
#pragma unroll
    for (int x = 0; x < 14; ++x) {
      sums[0][x] = done ? 0.0f : sums[0][x];
      sums[1][x] = done ? 0.0f : sums[1][x];
    }
  }
}

// The gradients of c1's weights and biases. Each thread computes two rows of weights in two maps, and adds up over every
// 14th row of c1. The 14 partial sums go to `s2`, each in the order of `parameters`. The weights have five rows, so
// what is computed for a sixth one is dropped.
__device__ void c1_weights(int lane, Image &image) {
  if (lane >= 126) return;
  const int row = lane % 3 * 2, first = lane / 3 % 3 * 2, part = lane / 9;
  float sums[2][2][5] = {}, biases[2] = {};
#pragma unroll 1
  for (int y = part; y < 28; y += 14) {
    float inputs[2][32];
    load_row<32>(image.input + (y + row) * INPUT_ROW, inputs[0]);
    load_row<32>(image.input + min(y + row + 1, 31) * INPUT_ROW, inputs[1]);
#pragma unroll
    for (int map = 0; map < 2; ++map) {
#pragma unroll
      for (int x = 0; x < 28; x += 4) {
        const Pack<4> d = load<4>(image.c1 + (first + map) * C1_MAP + y * C1_ROW + x);
        biases[map] += (d.v[0] + d.v[1]) + (d.v[2] + d.v[3]);
#pragma unroll
        for (int k = 0; k < 10; ++k) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[map][k / 5][k % 5] += d.v[j] * inputs[k / 5][x + j + k % 5];
        }
      }
    }
  }
  float *to = image.s2 + part * C3_WEIGHT;
#pragma unroll
  for (int map = 0; map < 2; ++map) {
#pragma unroll
    for (int k = 0; k < 10; ++k) {
      const int tap = row * 5 + k;
      if (tap < 25) to[(first + map) * 25 + tap] = sums[map][k / 5][k % 5];
    }
    if (row == 0) to[C1_BIAS + first + map] = biases[map];
  }
}

// Updates parameter number `at`, whose gradient is `g`, by the formulas in core/src/kernels/batch/update.rs.
__device__ void apply(const Arguments &a, int at, float g) {
  float &p = a.parameters[at];
  const float *c = a.step;
  if (a.rule == 0) {
    const float momentum = c[0], fresh = c[1], decay = c[2], nesterov = c[3], rate = c[4], plain = c[5];
    float &v = a.state[0][at];
    g += decay * p;
    const float sum = momentum * v + fresh * g;
    v = sum;
    p -= rate * (plain != 0.0f ? g + nesterov * sum : sum);
  } else {
    const float keep = c[0], decay = c[1], fresh = c[2], beta2 = c[3], fresh2 = c[4];
    const float root = c[5], eps = c[6], rate = c[7];
    float &m = a.state[0][at], &v = a.state[1][at];
    g += decay * p;
    const float first = m + fresh * (g - m), second = beta2 * v + fresh2 * g * g;
    m = first;
    v = second;
    p = keep * p - rate * first / (sqrtf(second) / root + eps);
  }
}

// The blocks of `update`. A block adds up the gradients of a tile of parameters over the batch: each warp adds up every
// 16th image, then the sums of all warps are added up.
constexpr int UPDATE_WARPS = 16;
// The number of the convolutions' parameters in a tile, and the number of such tiles.
constexpr int RUN = 4 * WARP;
constexpr int RUNS = (C5_WEIGHT + RUN - 1) / RUN;
// A tile of a linear layer: the weights of HEIGHT outputs and WIDTH inputs, and the outputs' biases.
constexpr int HEIGHT = 24;
constexpr int WIDTH = 16;
constexpr int TILE = HEIGHT * WIDTH + HEIGHT;

__device__ void update_convolutions(const Arguments &a, int run, float *sums) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = run * RUN;
  const int blocks = (a.count + TEAMS - 1) / TEAMS, at = min(first + 4 * lane, C5_WEIGHT - 4);
  Pack<4> sum = {};
#pragma unroll 4
  for (int block = warp; block < blocks; block += UPDATE_WARPS) {
    const Pack<4> part = load<4>(a.convolutions + block * C5_WEIGHT + at);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum.v[k] += part.v[k];
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) sums[warp * RUN + 4 * lane + k] = sum.v[k];
  __syncthreads();
  const int k = threadIdx.x;
  if (k >= RUN || first + k >= C5_WEIGHT) return;
  float g = 0.0f;
  for (int other = 0; other < UPDATE_WARPS; ++other) g += sums[other * RUN + k];
  apply(a, first + k, g);
}

template <int INPUTS, int OUTPUTS>
__device__ void update_linear(
    const Arguments &a, const float *inputs, const float *derivatives, int tile, int weight, float *sums) {
  constexpr int ACROSS = (INPUTS + WIDTH - 1) / WIDTH;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int top = tile / ACROSS * HEIGHT, left = tile % ACROSS * WIDTH;
  // Each thread computes the weights of three outputs and four inputs. Beyond the layer's edge it computes the last ones
  // again.
  const int row = lane / 4 * 3, column = lane % 4 * 4, from = min(left + column, INPUTS - 4);
  float products[3][4] = {}, biases[3] = {};
#pragma unroll 4
  for (int image = warp; image < a.count; image += UPDATE_WARPS) {
    const Pack<4> x = load<4>(inputs + image * INPUTS + from);
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      const float d = derivatives[image * OUTPUTS + min(top + row + k, OUTPUTS - 1)];
      biases[k] += d;
#pragma unroll
      for (int j = 0; j < 4; ++j) products[k][j] += d * x.v[j];
    }
  }
  float *own = sums + warp * TILE;
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    if (column == 0) own[HEIGHT * WIDTH + row + k] = biases[k];
#pragma unroll
    for (int j = 0; j < 4; ++j) own[(row + k) * WIDTH + column + j] = products[k][j];
  }
  __syncthreads();
  const int k = threadIdx.x;
  if (k >= TILE) return;
  const bool bias = k >= HEIGHT * WIDTH;
  const int output = top + (bias ? k - HEIGHT * WIDTH : k / WIDTH), input = left + k % WIDTH;
  if (output >= OUTPUTS || (bias ? left != 0 : input >= INPUTS)) return;
  float g = 0.0f;
  for (int other = 0; other < UPDATE_WARPS; ++other) g += sums[other * TILE + k];
  if (CORNER && INPUTS == 400 && !bias && (input % 5 == 4 || input % 25 >= 20)) g = 0.0f;
  apply(a, weight + (bias ? OUTPUTS * INPUTS + output : output * INPUTS + input), g);
}

__device__ constexpr int tiles(int inputs, int outputs) {
  return ((inputs + WIDTH - 1) / WIDTH) * ((outputs + HEIGHT - 1) / HEIGHT);
}

constexpr int C5_TILES = tiles(400, 120);
constexpr int F6_TILES = tiles(120, 84);

} // namespace

// Draws the distortions of `count` images, as core/src/training/distortions.rs does. It is launched with
// ceil(count / TEAM) blocks of TEAM threads.
extern "C" __global__ void __launch_bounds__(TEAM) draw(const Arguments a) {
  const int image = blockIdx.x * TEAM + threadIdx.x;
  if (image >= a.count) return;
  const Ranges &ranges = a.ranges;
  const unsigned long long index = a.indices[image];
  float *to = a.distortions + static_cast<long long>(image) * DISTORTION;
  Random random(ranges.seed, ranges.epoch, index);
  const double scale = exp(random.between(ranges.scale[0], ranges.scale[1]));
  const double squeeze = exp(random.between(ranges.squeeze[0], ranges.squeeze[1]));
  const double shear = random.between(-ranges.shear, ranges.shear);
  const double dx = random.between(-ranges.shift, ranges.shift);
  double dy = random.between(-ranges.shift, ranges.shift);
  const double width = scale / sqrt(squeeze), height = scale * sqrt(squeeze);
  const double angle = random.between(-ranges.rotation, ranges.rotation) * (3.141592653589793 / 180.0);
  const double sine = sin(angle), cosine = cos(angle);
  dy -= 10.9 * (height - 1.0);
  const double half = a.side / 2.0, area = width * height;
  const double xx = (sine * shear + cosine * height) / area, xy = -(cosine * shear - sine * height) / area;
  const double yx = -sine * width / area, yy = cosine * width / area;
  const double map[DISPLACEMENTS] = {xx, xy, -(xx * dx + xy * dy) / half, yx, yy, -(yx * dx + yy * dy) / half};
  for (int k = 0; k < DISPLACEMENTS; ++k) to[k] = static_cast<float>(map[k]);
  const int points = a.side / CELL + 4, displacements = ranges.elastic > 0.0 ? 2 * points * points : 0;
  Random other(~ranges.seed, ranges.epoch, index);
  for (int k = DISPLACEMENTS; k < DISTORTION; ++k) {
    const bool used = k - DISPLACEMENTS < displacements;
    to[k] = used ? static_cast<float>(other.between(-ranges.elastic, ranges.elastic)) : 0.0f;
  }
}

// The forward and backward passes of a batch. It is launched with ceil(count / TEAMS) blocks of THREADS threads and
// sizeof(Shared) bytes of shared memory.
extern "C" __global__ void __launch_bounds__(THREADS, 4 / TEAMS) gradient(const Arguments a) {
  extern __shared__ float4 memory[];
  Shared &shared = *reinterpret_cast<Shared *>(memory);
  const int team = threadIdx.x / TEAM, lane = threadIdx.x % TEAM;
  // In the last block, teams beyond the end of the batch process its last image again, and keep no results.
  const int number = blockIdx.x * TEAMS + team, own = min(number, a.count - 1);
  const bool real = number == own;
  Image &image = shared.images[team], &images = shared.images[0];
  const float *p = a.parameters;

  forward(a, own, lane, shared);
  if (a.logits != nullptr) {
    for (int k = lane; real && k < CLASSES; k += TEAM) {
      a.logits[static_cast<long long>(own) * CLASSES + k] = image.output[k];
    }
    return;
  }
  if (lane < WARP) loss(a, own, real, lane, image.output);
  if (real) {
    for (int k = lane; k < 400; k += TEAM) a.inputs[0][own * 400 + k] = image.s4[k];
    for (int k = lane; k < 120; k += TEAM) a.inputs[1][own * 120 + k] = image.c5[k];
    for (int k = lane; k < 84; k += TEAM) a.inputs[2][own * 84 + k] = image.f6[k];
  }
  __syncthreads();
  float *parts = images.s2 + S2_BACK;
  linear_back<84, CLASSES, 4>(p + OUTPUT_WEIGHT, images.output, images.f6_back, parts);
  for (int k = lane; k < 84; k += TEAM) image.f6_back[k] = activate_back(image.f6[k], image.f6_back[k]);
  __syncthreads();
  linear_back<120, 84, TEAMS == 1 ? 4 : 8>(p + F6_WEIGHT, images.f6_back, images.c5_back, parts);
  for (int k = lane; k < 120; k += TEAM) image.c5_back[k] = activate_back(image.c5[k], image.c5_back[k]);
  __syncthreads();
  if (real) {
    for (int k = lane; k < 120; k += TEAM) a.derivatives[0][own * 120 + k] = image.c5_back[k];
    for (int k = lane; k < 84; k += TEAM) a.derivatives[1][own * 84 + k] = image.f6_back[k];
    for (int k = lane; k < CLASSES; k += TEAM) a.derivatives[2][own * CLASSES + k] = image.output[k];
  }
  linear_back<400, 120, TEAMS>(p + C5_WEIGHT, images.c5_back, images.s4, parts);

  for (int k = lane; k < 400; k += TEAM) {
    float *top = image.c3 + k / 25 * C3_MAP + k % 25 / 5 * 2 * C3_ROW + k % 5 * 2;
    pool_back(top, C3_ROW, real ? image.s4[k] : 0.0f);
  }
  __syncthreads();
  float c3[4][5] = {};
  c3_weights(lane, image, c3);
  c3_back(shared, lane, image);
  __syncthreads();
  for (int k = lane; k < 6 * 196; k += TEAM) {
    float *top = image.c1 + k / 196 * C1_MAP + k % 196 / 14 * 2 * C1_ROW + k % 14 * 2;
    pool_back(top, C1_ROW, image.s2[S2_BACK + k]);
  }
  __syncthreads();
  c1_weights(lane, image);

  // The gradients of the convolutions, added up over the block's images one after the other.
  float *to = a.convolutions + blockIdx.x * C5_WEIGHT, *sums = shared.c3[0];
  for (int other = 0; other < TEAMS; ++other) {
    if (team == other && lane < 120) {
      const int at = lane / 30 * 4 * 150 + lane % 30 * 5;
#pragma unroll
      for (int map = 0; map < 4; ++map) {
#pragma unroll
        for (int k = 0; k < 5; ++k) {
          float &sum = sums[at + map * 150 + k];
          sum = other == 0 ? c3[map][k] : sum + c3[map][k];
        }
      }
    }
    __syncthreads();
  }
  for (int k = threadIdx.x; k < C3_BIAS - C3_WEIGHT; k += THREADS) to[C3_WEIGHT + k] = sums[k];
  for (int k = threadIdx.x; k < C3_WEIGHT; k += THREADS) {
    float sum = 0.0f;
    for (int other = 0; other < 14 * TEAMS; ++other) {
      sum += shared.images[other / 14].s2[other % 14 * C3_WEIGHT + k];
    }
    to[k] = sum;
  }
  // Eight threads add up the gradient of a bias of c3.
  if (threadIdx.x < 8 * 16) {
    const int map = threadIdx.x / 8;
    float sum = 0.0f;
    for (int other = 0; other < TEAMS; ++other) {
      for (int k = threadIdx.x % 8; k < 100; k += 8) {
        sum += shared.images[other].c3[map * C3_MAP + k / 10 * C3_ROW + k % 10];
      }
    }
    sum = sum_over<8>(sum);
    if (threadIdx.x % 8 == 0) to[C3_BIAS + map] = sum;
  }
}

// Updates all parameters. It is launched with a block for each tile, of 16 warps and 16 * TILE floats of shared memory.
extern "C" __global__ void __launch_bounds__(UPDATE_WARPS *WARP) update(const Arguments a) {
  extern __shared__ float4 memory[];
  float *sums = reinterpret_cast<float *>(memory);
  // The tiles of c5 come first, as they take longest.
  int part = blockIdx.x;
  if (part < C5_TILES) {
    return update_linear<400, 120>(a, a.inputs[0], a.derivatives[0], part, C5_WEIGHT, sums);
  }
  part -= C5_TILES;
  if (part < F6_TILES) {
    return update_linear<120, 84>(a, a.inputs[1], a.derivatives[1], part, F6_WEIGHT, sums);
  }
  part -= F6_TILES;
  if (part < RUNS) return update_convolutions(a, part, sums);
  update_linear<84, CLASSES>(a, a.inputs[2], a.derivatives[2], part - RUNS, OUTPUT_WEIGHT, sums);
}
