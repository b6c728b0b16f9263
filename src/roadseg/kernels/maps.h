// Loops over maps: [pixels, channels], channels last in memory, of float or bfloat16.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <vector>

using Bfloat16 = uint16_t;
using Floats = std::vector<float>;

inline float value(float stored) { return stored; }

inline float value(Bfloat16 stored) {
    const uint32_t bits = uint32_t(stored) << 16;
    float all;
    std::memcpy(&all, &bits, sizeof all);
    return all;
}

inline void store(float &to, float value) { to = value; }

inline void store(Bfloat16 &to, float value) { // the nearest, of two the even one
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    to = Bfloat16(value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A loop over a pixel's channels would be too short for vector instructions: it goes over a tile, some whole pixels.
struct Map {
    long pixels, channels, threads;
    long tile = channels * std::max(1L, 256 / channels);

    // A number of each channel, once for each pixel of a tile.
    Floats tiled(const float *of_channel) const {
        Floats all(tile);
        for (long i = 0; i < tile; i += channels) std::copy_n(of_channel, channels, &all[i]);
        return all;
    }

    // work(thread, at, count) for each tile, of which the last may be cut short; `sums` are what it adds to.
    template <typename Work, typename... Sum> void each(Work work, Sum &...sums) const {
        const long total = pixels * channels, tiles = (total + tile - 1) / tile;
#pragma omp parallel num_threads(threads)
        {
            const long thread = omp_get_thread_num(), team = omp_get_num_threads();
            const long first = tiles * thread / team, end = tiles * (thread + 1) / team;
            for (long i = first; i < end; i++) {
                work(thread, i * tile, std::min(tile, total - i * tile));
                if (i + 1 == end || (i + 1 - first) % 128 == 0) (sums.flush(thread), ...);
            }
        }
    }
};

// N sums of each channel, in float over 128 tiles and in double over all: in float the millionth pixel hardly counts.
template <int N> class Sums {
    const Map &map;
    std::vector<Floats> short_; // of each thread, N tiles
    std::vector<double> long_;

  public:
    explicit Sums(const Map &map)
        : map(map), short_(map.threads, Floats(N * map.tile)), long_(map.threads * N * map.channels) {}

    // Where a thread adds its n-th sums, position by position in the tile.
    float *tile(long thread, int n) { return &short_[thread][n * map.tile]; }

    void flush(long thread) {
        for (int n = 0; n < N; n++)
            for (long i = 0; i < map.tile; i += map.channels)
                for (long c = 0; c < map.channels; c++)
                    long_[(thread * N + n) * map.channels + c] += tile(thread, n)[i + c];
        std::fill(short_[thread].begin(), short_[thread].end(), 0.0f);
    }

    double of(int n, long channel) const {
        double sum = 0;
        for (long thread = 0; thread < map.threads; thread++) sum += long_[(thread * N + n) * map.channels + channel];
        return sum;
    }
};
