// Vectors of LANES floats, using the vector extension of GCC and Clang.
//
// A sum in such a variable stays in a register. A sum in an array goes through memory at every
// iteration, even if its loops vectorize, and takes up to three times as long.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

// One register. GCC takes up to five times as long for vectors of two, because it builds them in
// memory.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

constexpr float SLOPE = 0.2f;  // LeakyReLU

template <typename T>
using Lanes [[gnu::vector_size(LANES * sizeof(T))]] = T;
using Floats = Lanes<float>;

template <typename Vector, typename T>
inline Vector copy_from(const T *from, int64_t count = LANES) {
    Vector lanes{};
    std::memcpy(&lanes, from, count * sizeof(T));
    return lanes;
}

template <typename T>
inline Lanes<T> all(T value) {
    return Lanes<T>{} + value;
}

inline Floats load(const float *from) { return copy_from<Floats>(from); }
inline void store(Floats value, float *to) { std::memcpy(to, &value, sizeof value); }

// A maximum is one instruction; in this order it keeps NaN.
inline Floats leaky_relu(Floats x) {
    const Floats low = SLOPE * x;
    return low > x ? low : x;
}

}  // namespace
