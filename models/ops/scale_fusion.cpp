// The end of the scale aggregation on the CPU: see scale_fusion.py for the equation.
//
// Tensors are channels-last, [images, h, w, c] in memory, c a multiple of LANES. One pass: all
// that belongs to a pixel is read once and written once.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int LANES = 16;      // channels at a time: one AVX-512 or two AVX2 registers
constexpr float SLOPE = 0.2f;  // LeakyReLU

struct BFloat16 {
    uint16_t bits;
};

inline float load(float value) { return value; }
inline float load(BFloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline void store(float value, float *to) { *to = value; }
inline void store(float value, BFloat16 *to) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, even
    to->bits = value == value ? static_cast<uint16_t>(rounded) : 0x7fc0;
}

// Where torch's nearest interpolation reads: source of every target position.
std::vector<int64_t> nearest(int64_t from, int64_t to) {
    const float scale = static_cast<float>(from) / to;
    std::vector<int64_t> source(to);
    for (int64_t i = 0; i < to; ++i) {
        source[i] = std::min(static_cast<int64_t>(std::floor(i * scale)), from - 1);
    }
    return source;
}

struct Scale {
    int64_t h, w;
    std::vector<int64_t> row, column;
};

// sizes: height and width of every scale.
std::vector<Scale> read_scales(const int64_t *sizes, int64_t count, int64_t h, int64_t w) {
    std::vector<Scale> scales;
    for (int64_t k = 0; k < count; ++k) {
        const int64_t from_h = sizes[2 * k], from_w = sizes[2 * k + 1];
        scales.push_back({from_h, from_w, nearest(from_h, h), nearest(from_w, w)});
    }
    return scales;
}

template <typename T>
void forward(const T *first, const T *const *others, const T *residual, T *out, uint8_t *positive,
             const std::vector<Scale> &scales, int64_t images, int64_t h, int64_t w, int64_t c) {
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < images * h; ++line) {
        const int64_t image = line / h, y = line % h;
        for (int64_t x = 0; x < w; ++x) {
            const int64_t pixel = (line * w + x) * c;
            for (int64_t from = 0; from < c; from += LANES) {
                const int64_t at = pixel + from;
                float sum[LANES];
#pragma omp simd
                for (int i = 0; i < LANES; ++i) sum[i] = load(first[at + i]);
                for (size_t k = 0; k < scales.size(); ++k) {
                    const Scale &s = scales[k];
                    const T *other =
                        others[k] + ((image * s.h + s.row[y]) * s.w + s.column[x]) * c + from;
#pragma omp simd
                    for (int i = 0; i < LANES; ++i) sum[i] += load(other[i]);
                }
#pragma omp simd
                for (int i = 0; i < LANES; ++i) {
                    store(std::max(sum[i], SLOPE * sum[i]) + load(residual[at + i]), out + at + i);
                }
                if (positive) {
#pragma omp simd
                    for (int i = 0; i < LANES; ++i) positive[at + i] = sum[i] > 0;
                }
            }
        }
    }
}

// grad_others come zeroed and in float32: a coarse pixel gathers hundreds of fine ones.
template <typename T>
void backward(const T *grad, const uint8_t *positive, T *grad_first, float *const *grad_others,
              const std::vector<Scale> &scales, int64_t images, int64_t h, int64_t w, int64_t c) {
    // A task owns its channels of an image in every scale, so no two write to one place.
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t image = 0; image < images; ++image) {
        for (int64_t from = 0; from < c; from += LANES) {
            for (int64_t y = 0; y < h; ++y) {
                for (int64_t x = 0; x < w; ++x) {
                    const int64_t at = ((image * h + y) * w + x) * c + from;
                    float g[LANES];
#pragma omp simd
                    for (int i = 0; i < LANES; ++i) {
                        g[i] = load(grad[at + i]) * (positive[at + i] ? 1.0f : SLOPE);
                        store(g[i], grad_first + at + i);
                    }
                    for (size_t k = 0; k < scales.size(); ++k) {
                        const Scale &s = scales[k];
                        float *other = grad_others[k] +
                                       ((image * s.h + s.row[y]) * s.w + s.column[x]) * c + from;
#pragma omp simd
                        for (int i = 0; i < LANES; ++i) other[i] += g[i];
                    }
                }
            }
        }
    }
}

}  // namespace

extern "C" {

// others and grad_others: arrays of `count` pointers; positive may be null in the forward.
#define SCALE_FUSION(NAME, T)                                                                      \
    void scale_fusion_forward_##NAME(const T *first, const T *residual, T *out,                    \
                                     uint8_t *positive, const T *const *others,                    \
                                     const int64_t *sizes, int64_t count, int64_t images,          \
                                     int64_t h, int64_t w, int64_t c) {                            \
        forward(first, others, residual, out, positive, read_scales(sizes, count, h, w), images,   \
                h, w, c);                                                                          \
    }                                                                                              \
    void scale_fusion_backward_##NAME(const T *grad, const uint8_t *positive, T *grad_first,       \
                                      float *const *grad_others, const int64_t *sizes,             \
                                      int64_t count, int64_t images, int64_t h, int64_t w,         \
                                      int64_t c) {                                                 \
        backward(grad, positive, grad_first, grad_others, read_scales(sizes, count, h, w), images, \
                 h, w, c);                                                                         \
    }

SCALE_FUSION(float32, float)
SCALE_FUSION(bfloat16, BFloat16)

int64_t scale_fusion_lanes() { return LANES; }

}  // extern "C"
