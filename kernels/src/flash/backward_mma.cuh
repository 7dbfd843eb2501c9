// Products of the backward on tensor cores. The warps of a block form a grid of four by two over ROWS keys and COLS rows
// of q:
//
//   Sᵀ, dPᵀ  a warp has 32 keys and 32 rows of q
//   dv, dk   its 32 keys and half of the channels. Pᵀ and dSᵀ of its own rows of q are operands as they are; those of the
//            warp beside it come from a tile in shared memory
//   dq       its 32 rows of q and a quarter of the channels, over all keys
//
// So a fragment that is loaded serves two products of each of 16 rows or 16 columns, and no warp holds more than a
// quarter of the block's keys.
#pragma once
#include "mma.cuh"

struct Keys : Thread {
    static constexpr int ROWS = TILES[KEYS][0], COLS = TILES[KEYS][1], WARPS = TILES[KEYS][3], SPAN = 32;
    static constexpr int R = 4, C = 8;
    static constexpr int RUNS = DP / 16, RUN = 2; // channels of dk and dv
    static constexpr int EXCHANGE = ROWS * COLS, EXCHANGE_BYTES = COLS * 2;
    static_assert(ROWS == 128 && COLS == 64 && WARPS == 8, "four by two warps of 32 keys and 32 rows");

    // (ROWS, COLS): scores, probabilities and their gradients.
    struct Square {
        float x[2][4][4];
        __device__ float &at(int r, int c) { return x[r / 2][c / 2][r % 2 * 2 + c % 2]; }
    };
    // The same, as the a operand of two steps of a product over rows of q.
    struct Factor {
        u32 x[2][2][4];
    };
    // (ROWS, DP): sums.
    struct Wide {
        float x[2][RUNS][4];
        __device__ float &at(int r, int n, int i) { return x[r / 2][n][r % 2 * 2 + i]; }
    };
    // (COLS, DP): sums of dq.
    struct Queries {
        float x[2][DP / 32][4];
    };

    __device__ int half() const { return warp() % 2; }
    __device__ int quarter() const { return warp() / 2; }
    __device__ int first() const { return quarter() * SPAN; }
    __device__ int row(int r) const { return first() + r * 8 + lane() / 4; }
    __device__ int column(int c) const { return half() * 32 + c / 2 * 8 + lane() % 4 * 2 + c % 2; }
    __device__ int channel(int n) const { return half() * (DP / 2) + n * 8 + lane() % 4 * 2; }

    // Chunk c of row r of an exchanged tile (ROWS, COLS), swizzled.
    __device__ static E *exchanged(E *tile, int r, int c) { return tile + (r * (COLS / 8) + (c ^ (r & 7))) * 8; }

    // The numbers (COLS) of the warp's columns.
    __device__ void of_columns(float (&x)[C], const float *from) const {
#pragma unroll
        for (int c = 0; c < C; c += 2) {
            float two[2];
            load(two, from + column(c));
            x[c] = two[0];
            x[c + 1] = two[1];
        }
    }

    // s = a (ROWS, D) · bᵀ (COLS, D)
    __device__ void dots(Square &s, const E *a, const E *b) const {
        u32 rows = rows_of_a(a, first(), lane()), columns = rows_of_b(b, half() * 32, lane());
        s = {};
        auto load_a = [&](u32 (&x)[2][4], int k) {
#pragma unroll
            for (int i = 0; i < 2; i++) load_matrices(x[i], (rows ^ k * 32) + i * 16 * ROW_BYTES);
        };
        accumulate<DP / 16>(s.x, load_a, [&](u32 (&x)[4], int k, int n) {
            load_matrices(x, (columns ^ k * 32) + n * 16 * ROW_BYTES);
        });
    }

    // Rounds s to bf16, and stores it in an exchanged tile.
    __device__ Factor put(E *tile, const Square &s) const {
        Factor p;
        u32 to = shared_address(exchanged(tile, first() + lane() / 4, half() * 4)) + lane() % 4 * 4;
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int k = 0; k < 2; k++) {
                factor(p.x[i][k], s.x[i][2 * k], s.x[i][2 * k + 1]);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    store_shared((to ^ (2 * k + j / 2) * 16) + (i * 16 + j % 2 * 8) * EXCHANGE_BYTES, p.x[i][k][j]);
            }
        return p;
    }

    // w += p (ROWS, COLS) · b (COLS, D), its own rows of b first.
    __device__ void gather(Wide &w, const Factor &p, E *tile, const E *b) const {
        u32 rows = shared_address(exchanged(tile, first() + lane() % 16, lane() / 16)) ^ (1 - half()) * 64;
        u32 columns = rows_of_a(b, 0, lane()) ^ half() * DP;
        auto load_a = [&](u32 (&x)[2][4], int k) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (k < 2) {
#pragma unroll
                    for (int j = 0; j < 4; j++) x[i][j] = p.x[i][k][j];
                } else {
                    load_matrices(x[i], (rows ^ (k - 2) * 32) + i * 16 * EXCHANGE_BYTES);
                }
            }
        };
        accumulate<4>(w.x, load_a, [&](u32 (&x)[4], int k, int n) {
            int from = (k < 2 ? half() : 1 - half()) * 32 + k % 2 * 16;
            load_matrices_transposed(x, (columns ^ n * 32) + from * ROW_BYTES);
        });
    }

    // w += pᵀ (COLS, ROWS) · b (ROWS, D), over the first `reach` keys.
    __device__ void gather_transposed(Queries &w, E *tile, const E *b, int reach) const {
        u32 rows = shared_address(exchanged(tile, lane() % 8 + lane() / 16 * 8, half() * 4 + lane() / 8 % 2));
        u32 columns = rows_of_a(b, 0, lane()) ^ quarter() * (DP / 2);
#pragma unroll
        for (int first = 0; first < ROWS; first += 32) {
            if (first >= reach) break;
            auto load_a = [&](u32 (&x)[2][4], int k) {
#pragma unroll
                for (int i = 0; i < 2; i++)
                    load_matrices_transposed(x[i], (rows ^ i * 32) + (first + k * 16) * EXCHANGE_BYTES);
            };
            accumulate<2>(w.x, load_a, [&](u32 (&x)[4], int k, int n) {
                load_matrices_transposed(x, (columns ^ n * 32) + (first + k * 16) * ROW_BYTES);
            });
        }
    }

    // Calls f(strip, offset in it, four sums) for the sums of each strip of 16 rows.
    template <typename F> __device__ void in_strips(Queries &w, F f) const {
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int n = 0; n < DP / 32; n++)
                f(half() * 2 + i, ((quarter() * (DP / 32) + n) * 32 + lane()) * 4, w.x[i][n]);
    }

    // Row at(row of q) of `to` (…, stride) = that of w, scaled.
    template <typename At> __device__ void write(E *to, int stride, Queries &w, At at, float scale, int D) const {
#pragma unroll
        for (int r = 0; r < 4; r++) {
            int index = at(half() * 32 + r * 8 + lane() / 4);
#pragma unroll
            for (int n = 0; n < DP / 32; n++) {
                int channel = quarter() * (DP / 4) + n * 8 + lane() % 4 * 2;
                const float *x = w.x[r / 2][n] + r % 2 * 2;
                if (index >= 0 && channel < D) store(to + i64(index) * stride + channel, {x[0] * scale, x[1] * scale});
            }
        }
    }

    // Row at(key) of `to` (…, stride) = that of w, through the warp's own part of a tile that is no longer read.
    template <typename At> __device__ void write(E *to, int stride, Wide &w, At at, E *tile, int D) const {
        constexpr int PARTS = CHUNKS / 2; // chunks of half of the channels
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int n = 0; n < RUNS; n++)
                *reinterpret_cast<u32 *>(chunk(tile, row(r), half() * PARTS + n) + lane() % 4 * 2) =
                    pair(w.at(r, n, 0), w.at(r, n, 1));
        __syncwarp();
        int c = half() * PARTS + lane() % PARTS;
#pragma unroll 4
        for (int i = lane() / PARTS; i < SPAN; i += 32 / PARTS) {
            int slot = first() + i, index = at(slot);
            if (index >= 0 && c * CHUNK < D)
                *reinterpret_cast<uint4 *>(to + i64(index) * stride + c * CHUNK) =
                    *reinterpret_cast<const uint4 *>(chunk(tile, slot, c));
        }
    }
};
