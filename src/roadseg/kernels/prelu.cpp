// What is above 0 stays, the rest is multiplied by a slope. Maps are read once each way.

#include "maps.h"

namespace {

// Each of the first two goes over a tile, with a number of each of its positions.

template <typename T> void apply(long count, const T *x, const float *slope, T *y) {
#pragma omp simd
    for (long i = 0; i < count; i++) store(y[i], value(x[i]) > 0 ? value(x[i]) : value(x[i]) * slope[i]);
}

template <typename T>
void apply_gradient(long count, const T *x, const T *of_y, const float *slope, T *of_x, float *by_x) {
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float in = value(x[i]), given = value(of_y[i]);
        by_x[i] += in > 0 ? 0 : in * given;
        store(of_x[i], in > 0 ? given : given * slope[i]);
    }
}

// x -> y
template <typename T> void prelu(long pixels, long channels, long threads, const T *x, const float *slope, T *y) {
    const Map map{pixels, channels, threads};
    const Floats slopes = map.tiled(slope);
    map.each([&](long, long at, long count) { apply(count, x + at, slopes.data(), y + at); });
}

// y' -> x' and that of slope
template <typename T>
void prelu_gradient(long pixels, long channels, long threads, const T *x, const T *of_y, const float *slope, T *of_x,
                    float *of_slope) {
    const Map map{pixels, channels, threads};
    const Floats slopes = map.tiled(slope);
    Sums<1> sums(map);
    map.each([&](long thread, long at, long count) {
        apply_gradient(count, x + at, of_y + at, slopes.data(), of_x + at, sums.tile(thread, 0));
    }, sums);
    for (long c = 0; c < channels; c++) of_slope[c] = float(sums.of(0, c));
}

} // namespace

extern "C" {
auto prelu_float32 = prelu<float>;
auto prelu_bfloat16 = prelu<Bfloat16>;
auto prelu_gradient_float32 = prelu_gradient<float>;
auto prelu_gradient_bfloat16 = prelu_gradient<Bfloat16>;
}
