// Batch norm by the batch's own statistics, a shortcut added to it, and the activation after them. Maps are read twice
// each way, a shortcut once.

#include <cmath>

#include "maps.h"

namespace {

enum Activation { NONE, RELU, PRELU };

template <Activation A> float activated(float made, float slope) {
    if (A == PRELU) return made > 0 ? made : made * slope;
    return A == RELU && made < 0 ? 0 : made; // NaN stays
}

template <Activation A> float gradient_before(float made, float given, float slope) {
    if (A == PRELU) return made > 0 ? given : given * slope;
    return A == RELU && made <= 0 ? 0 : given;
}

// Each of the next four goes over a tile, with a number of each of its positions.

template <typename T>
void add_up(long count, const T *x, const float *nearby, float *plain, float *squared) {
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float off = value(x[i]) - nearby[i];
        plain[i] += off;
        squared[i] += off * off;
    }
}

template <typename T, Activation A, bool ADDED>
void apply(long count, const T *x, const T *shortcut, const float *scale, const float *shift, const float *slope,
           T *y) {
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float made = value(x[i]) * scale[i] + shift[i] + (ADDED ? value(shortcut[i]) : 0);
        store(y[i], activated<A>(made, slope[i]));
    }
}

template <typename T, Activation A, bool ADDED>
void add_up_gradient(long count, const T *x, const T *shortcut, const T *of_y, const float *scale, const float *shift,
                     const float *slope, const float *mean, T *of_shortcut, float *plain, float *by_x, float *by_made) {
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float in = value(x[i]), given = value(of_y[i]);
        const float made = in * scale[i] + shift[i] + (ADDED ? value(shortcut[i]) : 0);
        const float gradient = gradient_before<A>(made, given, slope[i]);
        if (ADDED) store(of_shortcut[i], gradient);
        plain[i] += gradient;
        by_x[i] += gradient * (in - mean[i]);
        if (A == PRELU) by_made[i] += made > 0 ? 0 : given * made;
    }
}

template <typename T, Activation A>
void apply_gradient(long count, const T *x, const T *of_y, const float *scale, const float *shift, const float *slope,
                    const float *factor, const float *constant, T *of_x) {
#pragma omp simd
    for (long i = 0; i < count; i++) {
        const float in = value(x[i]), given = value(of_y[i]);
        const float gradient = gradient_before<A>(in * scale[i] + shift[i], given, slope[i]);
        store(of_x[i], scale[i] * gradient + factor[i] * in + constant[i]);
    }
}

// What x is multiplied by, and what is added then, before a shortcut is.
struct Line {
    Floats scale, shift;

    Line(long channels, const float *weight, const float *bias, const float *mean, const float *variance,
         float epsilon)
        : scale(channels), shift(channels) {
        for (long c = 0; c < channels; c++) {
            scale[c] = weight[c] / std::sqrt(variance[c] + epsilon);
            shift[c] = bias[c] - mean[c] * scale[c];
        }
    }

    // work(image, where it starts, tiles of its scale and shift) for each; both are multiplied by `kept`, [images, C].
    template <typename Work> void each(long images, const Map &map, const float *kept, Work work) const {
        for (long image = 0; image < images; image++, kept += map.channels) {
            Floats scales = map.tiled(scale.data()), shifts = map.tiled(shift.data());
            for (long i = 0; i < map.tile; i++) {
                scales[i] *= kept[i % map.channels];
                shifts[i] *= kept[i % map.channels];
            }
            work(image, image * map.pixels * map.channels, scales.data(), shifts.data());
        }
    }
};

// x -> y; mean and (biased) variance are the batch's, towards which the running ones move by a share `momentum`. What
// is normed of each image, [pixels, channels], is multiplied by `kept`, [images, channels]. `shortcut` is read where it
// is added.
template <typename T, Activation A>
void norm(long images, long pixels, long channels, long threads, long added, const T *x, const T *shortcut,
          const float *kept, const float *weight, const float *bias, const float *slope, float epsilon, float momentum,
          float *running_mean, float *running_variance, T *y, float *mean, float *variance) {
    const Map all{images * pixels, channels, threads}, map{pixels, channels, threads};
    const long samples = std::min(all.pixels, 64L); // about the mean: squares far from it would cost digits
    std::fill_n(mean, channels, 0.0f);
    for (long i = 0; i < samples; i++)
        for (long c = 0; c < channels; c++) mean[c] += value(x[i * all.pixels / samples * channels + c]) / samples;
    const Floats nearby = all.tiled(mean);
    Sums<2> sums(all);
    all.each([&](long thread, long at, long count) {
        add_up(count, x + at, nearby.data(), sums.tile(thread, 0), sums.tile(thread, 1));
    }, sums);
    for (long c = 0; c < channels; c++) {
        const double off = sums.of(0, c) / all.pixels;
        mean[c] = float(mean[c] + off);
        variance[c] = float(std::max(sums.of(1, c) / all.pixels - off * off, 0.0)); // in this order NaN stays
        running_mean[c] += momentum * (mean[c] - running_mean[c]);
        running_variance[c] +=
            momentum * (variance[c] * (float(all.pixels) / (all.pixels - 1)) - running_variance[c]);
    }
    const Line line(channels, weight, bias, mean, variance, epsilon);
    const Floats slopes = map.tiled(slope);
    line.each(images, map, kept, [&](long, long start, const float *scale, const float *shift) {
        map.each([&](long, long at, long count) {
            at += start;
            const auto loop = added ? apply<T, A, true> : apply<T, A, false>;
            loop(count, x + at, shortcut + at, scale, shift, slopes.data(), y + at);
        });
    });
}

// y' -> x' and those of shortcut, weight, bias and slope. With g the gradient before the activation, times what is
// kept, and n = (x - mean) / deviation, weight' = sum(g n), bias' = sum(g), x' = weight / deviation * (g - bias' /
// pixels - n weight' / pixels). The shortcut is read, and its gradient written, where `gated`: an activation came after
// their sum.
template <typename T, Activation A>
void norm_gradient(long images, long pixels, long channels, long threads, long gated, const T *x, const T *shortcut,
                   const T *of_y, const float *kept, const float *weight, const float *bias, const float *slope,
                   float epsilon, const float *mean, const float *variance, T *of_x, T *of_shortcut, float *of_weight,
                   float *of_bias, float *of_slope) {
    const Map map{pixels, channels, threads};
    const Line line(channels, weight, bias, mean, variance, epsilon);
    const Floats slopes = map.tiled(slope), means = map.tiled(mean);
    std::vector<double> plain(channels), by_x(channels), by_made(channels);
    line.each(images, map, kept, [&](long image, long start, const float *scale, const float *shift) {
        Sums<3> sums(map);
        map.each([&](long thread, long at, long count) {
            at += start;
            const auto loop = gated ? add_up_gradient<T, A, true> : add_up_gradient<T, A, false>;
            loop(count, x + at, shortcut + at, of_y + at, scale, shift, slopes.data(), means.data(),
                 of_shortcut + at, sums.tile(thread, 0), sums.tile(thread, 1), sums.tile(thread, 2));
        }, sums);
        for (long c = 0; c < channels; c++) {
            plain[c] += kept[image * channels + c] * sums.of(0, c);
            by_x[c] += kept[image * channels + c] * sums.of(1, c);
            by_made[c] += sums.of(2, c);
        }
    });
    Floats factor(channels), constant(channels);
    for (long c = 0; c < channels; c++) {
        const double deviation = std::sqrt(variance[c] + epsilon);
        of_bias[c] = float(plain[c]);
        of_weight[c] = float(by_x[c] / deviation);
        of_slope[c] = float(by_made[c]);
        factor[c] = float(-line.scale[c] * by_x[c] / (deviation * deviation) / (images * pixels));
        constant[c] = float(-line.scale[c] * plain[c] / (images * pixels) - double(factor[c]) * mean[c]);
    }
    const Floats factors = map.tiled(factor.data()), constants = map.tiled(constant.data());
    line.each(images, map, kept, [&](long, long start, const float *scale, const float *shift) {
        map.each([&](long, long at, long count) {
            at += start;
            const T *given = gated ? of_shortcut : of_y; // that of the shortcut has gone through the activation
            const auto loop = gated ? apply_gradient<T, NONE> : apply_gradient<T, A>;
            loop(count, x + at, given + at, scale, shift, slopes.data(), factors.data(), constants.data(), of_x + at);
        });
    });
}

} // namespace

extern "C" {
auto norm_none_float32 = norm<float, NONE>;
auto norm_relu_float32 = norm<float, RELU>;
auto norm_prelu_float32 = norm<float, PRELU>;
auto norm_none_bfloat16 = norm<Bfloat16, NONE>;
auto norm_relu_bfloat16 = norm<Bfloat16, RELU>;
auto norm_prelu_bfloat16 = norm<Bfloat16, PRELU>;
auto norm_none_gradient_float32 = norm_gradient<float, NONE>;
auto norm_relu_gradient_float32 = norm_gradient<float, RELU>;
auto norm_prelu_gradient_float32 = norm_gradient<float, PRELU>;
auto norm_none_gradient_bfloat16 = norm_gradient<Bfloat16, NONE>;
auto norm_relu_gradient_bfloat16 = norm_gradient<Bfloat16, RELU>;
auto norm_prelu_gradient_bfloat16 = norm_gradient<Bfloat16, PRELU>;
}
