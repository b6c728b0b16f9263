// Logits, [images, classes, old_height, old_width], held against a target, [images, height, width]: where sizes differ
// they are enlarged bilinearly, pixel centres aligned (`align_corners=False`), a tile at a time.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <vector>

using Floats = std::vector<float>;

constexpr long TILE = 512; // pixels, whose logits stay in the cache while the classes are gone over

// Of a number that is not positive, to 2e-7 of it: 2^n times a polynomial, its largest error the least around 0.
inline float exponential(float x) {
    const float number = x < -87 ? -87 : x;                // below, 2^n would be no normal number; NaN stays
    const float shifted = number * 1.44269504f + 12582912; // x / ln 2, rounded: 1.5 * 2^23 has no fraction
    const float n = shifted - 12582912;
    const float r = number - n * 0.693359375f + n * 2.12194440e-4f; // x - n ln 2, in two parts
    float sum = 0.00831252f, power;
    for (const float term : {0.04189016f, 0.16667115f, 0.49999231f, 1.0f, 1.0f}) sum = sum * r + term;
    uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000; // n + 127 where a float has its exponent
    std::memcpy(&power, &bits, sizeof power);
    return sum * power;
}

// Where `now` positions lie between `old` ones: after one of these, `share` of the way to the next. Those after the
// n-th are from starts[n] to starts[n + 1].
struct Positions {
    Floats share;
    std::vector<long> starts;

    Positions(long old, long now) : share(now), starts(old + 1) {
        for (long i = 0; i < now; i++) {
            const float at = std::max(0.0f, (i + 0.5f) * (float(old) / now) - 0.5f);
            const long before = std::min(long(at), old - 1);
            share[i] = at - before;
            starts[before + 1] = i + 1;
        }
        for (long n = 1; n <= old; n++) starts[n] = std::max(starts[n], starts[n - 1]);
    }

    long old() const { return long(starts.size()) - 1; }
    long next(long n) const { return std::min(n + 1, old() - 1); }

    // A row's numbers, at the new positions.
    void stretch(const float *row, float *to) const {
        for (long n = 0; n < old(); n++) {
            const float first = row[n], step = row[next(n)] - first;
            for (long i = starts[n]; i < starts[n + 1]; i++) to[i] = first + share[i] * step;
        }
    }

    // The gradient of `stretch`.
    void fold(const float *of_stretched, float *to) const {
        std::fill_n(to, old(), 0.0f);
        for (long n = 0; n < old(); n++) {
            float of_first = 0, of_second = 0;
            for (long i = starts[n]; i < starts[n + 1]; i++) {
                of_first += (1 - share[i]) * of_stretched[i];
                of_second += share[i] * of_stretched[i];
            }
            to[n] += of_first;
            to[next(n)] += of_second;
        }
    }
};

inline void blend(long count, const float *first, const float *second, float share, float *to) {
#pragma omp simd
    for (long i = 0; i < count; i++) to[i] = first[i] + share * (second[i] - first[i]);
}

inline void add(long count, float factor, const float *from, float *to) {
#pragma omp simd
    for (long i = 0; i < count; i++) to[i] += factor * from[i];
}

// Pixels of the target that are side by side, and their logits.
struct Tile {
    long number, pixel, count; // which of all tiles, its first pixel, and how many it has
    long stride;               // from a class to the next
    const float *logits;
    float *gradient; // of the logits, if it is asked for; where they are enlarged, these are their own place
};

struct Logits {
    long images, classes, old_height, old_width, height, width, threads;
    const float *numbers;

    bool enlarged() const { return old_height != height || old_width != width; }

    long tiles() const {
        const long rows = enlarged() ? height : 1, row = enlarged() ? width : height * width;
        return images * rows * ((row + TILE - 1) / TILE);
    }

    // work(tile) for each tile. `found`: where its gradient goes.
    template <typename Work> void each(Work work, float *found = nullptr) const {
        enlarged() ? each_enlarged(work, found) : each_own(work, found);
    }

  private:
    template <typename Work> void each_own(Work work, float *found) const {
        const long pixels = height * width, of_image = (pixels + TILE - 1) / TILE;
#pragma omp parallel for num_threads(threads)
        for (long i = 0; i < images * of_image; i++) {
            const long image = i / of_image, first = i % of_image * TILE, at = image * classes * pixels + first;
            work(Tile{i, image * pixels + first, std::min(TILE, pixels - first), pixels, numbers + at,
                      found ? found + at : nullptr});
        }
    }

    // In strips, of the rows that lie between the same two old ones. The gradient of a strip's lower row is kept apart
    // from that of the next one's upper row, which is the same, since another thread may make it.
    template <typename Work> void each_enlarged(Work work, float *found) const {
        const Positions rows(old_height, height), columns(old_width, width);
        const long strips = images * old_height, of_row = (width + TILE - 1) / TILE;
        Floats found_lower(found ? strips * classes * old_width : 0);
#pragma omp parallel num_threads(threads)
        {
            const long thread = omp_get_thread_num(), team = omp_get_num_threads();
            const long begin = strips * thread / team, end = strips * (thread + 1) / team;
            Floats upper(classes * width), lower(upper), of_upper(upper), of_lower(upper), made(classes * TILE);
            for (long strip = begin; strip < end; strip++) {
                const long image = strip / old_height, row = strip % old_height;
                if (strip > begin && row > 0)
                    std::swap(upper, lower);
                else
                    stretch(columns, image, row, upper);
                stretch(columns, image, rows.next(row), lower);
                std::fill(of_upper.begin(), of_upper.end(), 0.0f);
                std::fill(of_lower.begin(), of_lower.end(), 0.0f);
                for (long i = rows.starts[row] * of_row; i < rows.starts[row + 1] * of_row; i++) {
                    const long r = i / of_row, first = i % of_row * TILE, count = std::min(TILE, width - first);
                    for (long c = 0; c < classes; c++) {
                        const long at = c * width + first;
                        blend(count, &upper[at], &lower[at], rows.share[r], &made[c * TILE]);
                    }
                    const long pixel = (image * height + r) * width + first;
                    work(Tile{image * height * of_row + i, pixel, count, TILE, made.data(), made.data()});
                    for (long c = 0; c < classes && found; c++) {
                        const long at = c * width + first;
                        add(count, 1 - rows.share[r], &made[c * TILE], &of_upper[at]);
                        add(count, rows.share[r], &made[c * TILE], &of_lower[at]);
                    }
                }
                for (long c = 0; c < classes && found; c++) {
                    const long to = ((image * classes + c) * old_height + row) * old_width;
                    columns.fold(&of_upper[c * width], found + to);
                    columns.fold(&of_lower[c * width], &found_lower[to]);
                }
            }
        }
        for (long i = 0; i < images * classes * old_height && found; i++) {
            const long row = i % old_height;
            add(old_width, 1, &found_lower[i * old_width], found + (i - row + rows.next(row)) * old_width);
        }
    }

    void stretch(const Positions &columns, long image, long row, Floats &to) const {
        for (long c = 0; c < classes; c++)
            columns.stretch(numbers + ((image * classes + c) * old_height + row) * old_width, &to[c * width]);
    }
};

// Of a tile's pixels, the largest logit.
inline void find_largest(long classes, const Tile &tile, float *most) {
    std::copy_n(tile.logits, tile.count, most);
    for (long c = 1; c < classes; c++)
#pragma omp simd
        for (long i = 0; i < tile.count; i++) most[i] = std::max(most[i], tile.logits[c * tile.stride + i]);
}
