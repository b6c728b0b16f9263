// Batch norm by the batch's own statistics, and the activation after it: what is above 0 stays, the rest is multiplied by
// a slope, 0 for a ReLU and 1 for none. Maps are read twice each way.

#include <cmath>

#include "maps.h"

namespace {

// Each of the first four goes over a tile, with a number of each of its positions.

template <typename T>
void add_up(long count, const T *x, const float *nearby, float *plain, float *squared) {
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float off = value(x[i]) - nearby[i];
        plain[i] += off;
        squared[i] += off * off;
    }
}

template <typename T>
void apply(long count, const T *x, const float *scale, const float *shift, const float *slope, T *y) {
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float normed = value(x[i]) * scale[i] + shift[i];
        store(y[i], normed > 0 ? normed : normed * slope[i]);
    }
}

template <typename T>
void add_up_gradient(long count, const T *x, const T *of_y, const float *scale, const float *shift, const float *slope,
                     const float *mean, float *plain, float *by_x, float *by_normed) {
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float in = value(x[i]), given = value(of_y[i]), normed = in * scale[i] + shift[i];
        const float gradient = normed > 0 ? given : given * slope[i];
        plain[i] += gradient;
        by_x[i] += gradient * (in - mean[i]);
        by_normed[i] += normed > 0 ? 0 : given * normed;
    }
}

template <typename T>
void apply_gradient(long count, const T *x, const T *of_y, const float *scale, const float *shift, const float *slope,
                    const float *factor, const float *constant, T *of_x) {
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float in = value(x[i]), given = value(of_y[i]), normed = in * scale[i] + shift[i];
        const float gradient = normed > 0 ? given : given * slope[i];
        store(of_x[i], scale[i] * gradient + factor[i] * in + constant[i]);
    }
}

// x -> y; mean and (biased) variance are the batch's, towards which the running ones move by a share `momentum`.
template <typename T>
void norm(long pixels, long channels, long threads, const T *x, const float *weight, const float *bias,
          const float *slope, float epsilon, float momentum, float *running_mean, float *running_variance, T *y,
          float *mean, float *variance) {
    const Map map{pixels, channels, threads};
    Floats scale(channels), shift(channels);
    const long samples = std::min(pixels, 64L); // about the mean: squares far from it would cost digits
    std::fill_n(mean, channels, 0.0f);
    for (long i = 0; i < samples; i++)
        for (long c = 0; c < channels; c++) mean[c] += value(x[i * pixels / samples * channels + c]) / samples;
    const Floats nearby = map.tiled(mean);
    Sums<2> sums(map);
    map.each([&](long thread, long at, long count) {
        add_up(count, x + at, nearby.data(), sums.tile(thread, 0), sums.tile(thread, 1));
    }, sums);
    for (long c = 0; c < channels; c++) {
        const double off = sums.of(0, c) / pixels;
        mean[c] = float(mean[c] + off);
        variance[c] = float(std::max(sums.of(1, c) / pixels - off * off, 0.0)); // in this order NaN stays
        running_mean[c] += momentum * (mean[c] - running_mean[c]);
        running_variance[c] += momentum * (variance[c] * (float(pixels) / (pixels - 1)) - running_variance[c]);
        scale[c] = weight[c] / std::sqrt(variance[c] + epsilon);
        shift[c] = bias[c] - mean[c] * scale[c];
    }
    const Floats scales = map.tiled(scale.data()), shifts = map.tiled(shift.data()), slopes = map.tiled(slope);
    map.each([&](long, long at, long count) {
        apply(count, x + at, scales.data(), shifts.data(), slopes.data(), y + at);
    });
}

// y' -> x' and those of weight, bias and slope. With g the gradient before the activation and n = (x - mean) / deviation,
// weight' = sum(g n), bias' = sum(g), x' = weight / deviation * (g - bias' / pixels - n weight' / pixels).
template <typename T>
void norm_gradient(long pixels, long channels, long threads, const T *x, const T *of_y, const float *weight,
                   const float *bias, const float *slope, float epsilon, const float *mean, const float *variance,
                   T *of_x, float *of_weight, float *of_bias, float *of_slope) {
    const Map map{pixels, channels, threads};
    Floats scale(channels), shift(channels), factor(channels), constant(channels);
    for (long c = 0; c < channels; c++) {
        scale[c] = weight[c] / std::sqrt(variance[c] + epsilon);
        shift[c] = bias[c] - mean[c] * scale[c];
    }
    const Floats scales = map.tiled(scale.data()), shifts = map.tiled(shift.data()), slopes = map.tiled(slope);
    const Floats means = map.tiled(mean);
    Sums<3> sums(map);
    map.each([&](long thread, long at, long count) {
        add_up_gradient(count, x + at, of_y + at, scales.data(), shifts.data(), slopes.data(), means.data(),
                        sums.tile(thread, 0), sums.tile(thread, 1), sums.tile(thread, 2));
    }, sums);
    for (long c = 0; c < channels; c++) {
        const double deviation = std::sqrt(variance[c] + epsilon);
        of_bias[c] = float(sums.of(0, c));
        of_weight[c] = float(sums.of(1, c) / deviation);
        of_slope[c] = float(sums.of(2, c));
        factor[c] = float(-scale[c] * sums.of(1, c) / (deviation * deviation) / pixels);
        constant[c] = float(-scale[c] * sums.of(0, c) / pixels - double(factor[c]) * mean[c]);
    }
    const Floats factors = map.tiled(factor.data()), constants = map.tiled(constant.data());
    map.each([&](long, long at, long count) {
        apply_gradient(count, x + at, of_y + at, scales.data(), shifts.data(), slopes.data(), factors.data(),
                       constants.data(), of_x + at);
    });
}

} // namespace

extern "C" {
auto norm_float32 = norm<float>;
auto norm_bfloat16 = norm<Bfloat16>;
auto norm_gradient_float32 = norm_gradient<float>;
auto norm_gradient_bfloat16 = norm_gradient<Bfloat16>;
}
