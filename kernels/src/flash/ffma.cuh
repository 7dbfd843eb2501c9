// Products of tiles by fused multiply-adds: f32 throughout. The terms of an element are summed one by one, k ascending,
// so a row has the same bits for any RT.
#pragma once
#include "tiles.cuh"

constexpr int TILES[][5] = FFMA_TILES; // rows, columns, stride of exchanged scores, warps, stages

// A half-warp has RT rows to itself, with all WIDTH columns of a tile: lane l of it has columns l, l + 16, ….
template <int RT, int KIND> struct Rows : Thread {
    static constexpr int COLS = TILES[KIND][1], WARPS = TILES[KIND][3], STAGES = TILES[KIND][4];
    static constexpr int SPAN = 2 * RT, ROWS = WARPS * SPAN, SHARING = 16;
    static constexpr int R = RT, C = COLS / 16;
    static constexpr int RUNS = DP / 64, RUN = 4;
    static constexpr int STRIDE = TILES[KIND][2];  // padded: the rows of a warp's halves fall into other banks
    static constexpr int EXCHANGE = ROWS * STRIDE; // elements

    struct Square {
        float x[RT][C];
        __device__ float &at(int r, int c) { return x[r][c]; }
    };
    // p, as `gather` takes it.
    struct Factor : Square {
        __device__ void put(const Square &p, int r) {
#pragma unroll
            for (int c = 0; c < C; c++) this->x[r][c] = p.x[r][c];
        }
    };
    struct Wide {
        float x[RT][RUNS][RUN];
        __device__ float &at(int r, int n, int i) { return x[r][n][i]; }
    };

    __device__ int first() const { return warp() * SPAN; }
    __device__ int row(int r) const { return index / 16 * RT + r; }
    __device__ int column(int c) const { return c * 16 + lane() % 16; }
    __device__ int channel(int n) const { return (n * 16 + lane() % 16) * 4; }
    __device__ bool speaks() const { return lane() % 16 == 0; }

    // s = a (ROWS, D) · bᵀ (COLS, D)
    __device__ void dots(Square &s, const E *a, const E *b, float *) const {
        s = {};
#pragma unroll 4
        for (int k = 0; k < CHUNKS; k++) {
            float x[RT][4], y[C][4];
#pragma unroll
            for (int r = 0; r < RT; r++) load(x[r], chunk(a, row(r), k));
#pragma unroll
            for (int c = 0; c < C; c++) load(y[c], chunk(b, column(c), k));
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int r = 0; r < RT; r++)
#pragma unroll
                    for (int c = 0; c < C; c++) s.x[r][c] = fmaf(x[r][i], y[c][i], s.x[r][c]);
        }
    }

    // w += p (ROWS, COLS) · b (COLS, D); the half-warp exchanges p through `tile`, which is no longer read by others:
    // there is a barrier of the block between two calls.
    __device__ void gather(Wide &w, const Square &p, const E *b, float *tile) const {
        exchange(tile, p);
        __syncwarp();
        sum(w, tile, b);
    }

    __device__ void exchange(float *tile, const Square &p) const {
#pragma unroll
        for (int r = 0; r < RT; r++)
#pragma unroll
            for (int c = 0; c < C; c++) tile[row(r) * STRIDE + column(c)] = p.x[r][c];
    }

    // w += p, which has been exchanged · b
    __device__ void sum(Wide &w, const float *tile, const E *b) const {
#pragma unroll 2
        for (int k = 0; k < COLS; k += 4) {
            float x[RT][4];
#pragma unroll
            for (int r = 0; r < RT; r++) load(x[r], tile + row(r) * STRIDE + k);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int n = 0; n < RUNS; n++) {
                    float y[4];
                    load(y, chunk(b, k + i, n * 16 + lane() % 16));
#pragma unroll
                    for (int r = 0; r < RT; r++)
#pragma unroll
                        for (int j = 0; j < 4; j++) w.x[r][n][j] = fmaf(x[r][i], y[j], w.x[r][n][j]);
                }
        }
    }

    // Row at(slot) of `to` (…, stride) = that of w.
    template <typename At> __device__ void write(E *to, int stride, Wide &w, At at, E *, int D) const {
#pragma unroll
        for (int r = 0; r < RT; r++) {
            int index = at(row(r));
#pragma unroll
            for (int n = 0; n < RUNS; n++)
                if (index >= 0 && channel(n) < D) store(to + i64(index) * stride + channel(n), w.x[r][n]);
        }
    }
};

template <int KIND> using Tiled = Rows<TILES[KIND][0] / (2 * TILES[KIND][3]), KIND>;
typedef Tiled<DECODE> Decode;
typedef Tiled<DIAGONAL> Diagonal; // of flash_delta
