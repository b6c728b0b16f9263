// Loops over logits, [images, classes, pixels], class by class, and their target, [images, pixels]: a class or `ignore`.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

constexpr long TILE = 512; // pixels, whose logits stay in the cache while the classes are gone over

// Of a number that is not positive, to 2e-7 of it: 2^n times Taylor's series around 0.
inline float exponential(float x) {
    const float number = x > -87 ? x : -87; // below, 2^n would be no normal number; nor has NaN an n
    const float n = (number * 1.44269504f + 12582912.0f) - 12582912.0f; // x / ln 2, rounded: 1.5 * 2^23 has no fraction
    const float r = (x < -87 ? -87 : x) - n * 0.693359375f + n * 2.12194440e-4f; // x - n ln 2, in two parts; NaN stays
    float sum = 1.0f / 720, power;
    for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) sum = sum * r + term;
    const uint32_t bits = uint32_t(int32_t(n) + 127) << 23;
    std::memcpy(&power, &bits, sizeof power);
    return sum * power;
}

// work(image, first, count) for each tile.
template <typename Work> void each(long images, long pixels, long threads, Work work) {
    const long tiles = (pixels + TILE - 1) / TILE;
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < images * tiles; i++) {
        const long first = i % tiles * TILE;
        work(i / tiles, first, std::min(TILE, pixels - first));
    }
}

// Of `count` pixels, the largest logit.
inline void find_largest(long classes, long pixels, long count, const float *logit, float *most) {
    std::copy_n(logit, count, most);
    for (long c = 1; c < classes; c++)
#pragma omp simd
        for (long i = 0; i < count; i++) most[i] = std::max(most[i], logit[c * pixels + i]);
}
