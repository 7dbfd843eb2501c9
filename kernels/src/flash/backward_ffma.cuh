// Products of the backward by fused multiply-adds. A half-warp has its own keys, with all rows of q of a tile, and its own
// rows of q for dq.
#pragma once
#include "ffma.cuh"

struct Keys : Tiled<KEYS> {
    static constexpr int OWN = COLS / (2 * WARPS); // rows of q of a half-warp
    static_assert(COLS == 2 * 16 && WARPS == 8, "strips of 16 rows for four warps");

    struct Factor {};
    // (COLS, DP): sums of dq.
    struct Queries {
        float x[OWN][RUNS][RUN];
    };

    // The numbers (COLS) of the warp's columns.
    __device__ void of_columns(float (&x)[C], const float *from) const {
#pragma unroll
        for (int c = 0; c < C; c++) x[c] = from[column(c)];
    }

    __device__ void dots(Square &s, const E *a, const E *b) const { Tiled<KEYS>::dots(s, a, b, nullptr); }

    __device__ Factor put(E *tile, const Square &s) const {
        exchange(tile, s);
        return {};
    }

    // w += p (ROWS, COLS), which has been exchanged · b (COLS, D)
    __device__ void gather(Wide &w, Factor, const E *tile, const E *b) const { sum(w, tile, b); }

    // w += pᵀ (COLS, ROWS) · b (ROWS, D), over the first `reach` keys.
    __device__ void gather_transposed(Queries &w, const E *tile, const E *b, int reach) const {
#pragma unroll 4
        for (int k = 0; k < reach; k++) {
            float x[OWN];
            load(x, tile + k * STRIDE + index / 16 * OWN);
#pragma unroll
            for (int n = 0; n < RUNS; n++) {
                float y[4];
                load(y, chunk(b, k, n * 16 + lane() % 16));
#pragma unroll
                for (int r = 0; r < OWN; r++)
#pragma unroll
                    for (int j = 0; j < 4; j++) w.x[r][n][j] = fmaf(x[r], y[j], w.x[r][n][j]);
            }
        }
    }

    // Calls f(strip, offset in it, four sums) for the sums of each strip of 16 rows.
    template <typename F> __device__ void in_strips(Queries &w, F f) const {
#pragma unroll
        for (int r = 0; r < OWN; r++)
#pragma unroll
            for (int n = 0; n < RUNS; n++)
                f(warp() / 4, (((warp() % 4 * OWN + r) * RUNS + n) * 32 + lane()) * 4, w.x[r][n]);
    }

    // Row at(row of q) of `to` (…, stride) = that of w, scaled.
    template <typename At> __device__ void write(E *to, int stride, Queries &w, At at, float scale, int D) const {
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            int row = at(index / 16 * OWN + r);
#pragma unroll
            for (int n = 0; n < RUNS; n++) {
                float x[4];
#pragma unroll
                for (int j = 0; j < 4; j++) x[j] = w.x[r][n][j] * scale;
                if (row >= 0 && channel(n) < D) store(to + i64(row) * stride + channel(n), x);
            }
        }
    }
    using Tiled<KEYS>::write;
};
