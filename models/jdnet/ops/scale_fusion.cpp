// The final sum of the scale aggregation (Eq. 9) on the CPU: see scale_fusion.py for the equation.
//
// Tensors are channels-last, [images, h, w, c] in memory, with c a multiple of LANES. Each pixel is
// read once and written once.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lanes.h"

namespace {

struct BFloat16 {
    uint16_t bits;
};

inline Floats load(const BFloat16 *from) {
    const auto bits = __builtin_convertvector(copy_from<Lanes<uint16_t>>(from), Lanes<uint32_t>);
    return reinterpret_cast<Floats>(bits << 16);
}

inline void store(Floats value, BFloat16 *to) {
    const auto bits = reinterpret_cast<Lanes<uint32_t>>(value);
    const auto rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
    const auto checked = value == value ? rounded : all(0x7fc0u);
    const auto half = __builtin_convertvector(checked, Lanes<uint16_t>);
    std::memcpy(to, &half, sizeof half);
}

// The source index of every target index in torch's nearest interpolation.
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

// sizes: height and width of each scale, alternating.
std::vector<Scale> read_scales(const int64_t *sizes, int64_t count, int64_t h, int64_t w) {
    std::vector<Scale> scales;
    for (int64_t k = 0; k < count; ++k) {
        const int64_t from_h = sizes[2 * k], from_w = sizes[2 * k + 1];
        scales.push_back({from_h, from_w, nearest(from_h, h), nearest(from_w, w)});
    }
    return scales;
}

template <typename T>
void fuse(const T *first, const T *const *others, const T *residual, T *out, uint8_t *positive,
          const std::vector<Scale> &scales, int64_t images, int64_t h, int64_t w, int64_t c) {
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < images * h; ++line) {
        const int64_t image = line / h, y = line % h;
        for (int64_t x = 0; x < w; ++x) {
            for (int64_t from = 0; from < c; from += LANES) {
                const int64_t at = (line * w + x) * c + from;
                Floats sum = load(first + at);
                for (size_t k = 0; k < scales.size(); ++k) {
                    const Scale &s = scales[k];
                    sum += load(others[k] + ((image * s.h + s.row[y]) * s.w + s.column[x]) * c +
                                from);
                }
                store(leaky_relu(sum) + load(residual + at), out + at);
                if (positive) {
                    const auto mask = __builtin_convertvector(sum > 0, Lanes<uint8_t>) & 1;
                    std::memcpy(positive + at, &mask, sizeof mask);
                }
            }
        }
    }
}

}  // namespace

extern "C" {

// others: `count` pointers; sizes: their heights and widths; positive is null without a backward.
#define SCALE_FUSION(NAME, T)                                                                      \
    void scale_fusion_##NAME(const T *first, const T *residual, T *out, uint8_t *positive,         \
                             const T *const *others, const int64_t *sizes, int64_t count,          \
                             int64_t images, int64_t h, int64_t w, int64_t c) {                    \
        fuse(first, others, residual, out, positive, read_scales(sizes, count, h, w), images, h,   \
             w, c);                                                                                \
    }

SCALE_FUSION(float32, float)
SCALE_FUSION(bfloat16, BFloat16)

int64_t scale_fusion_lanes() { return LANES; }

}  // extern "C"
