// A row of a tile of logits in the registers of a block: PACKS packs of four elements a thread.
//
// options E storage of a stored tile
#pragma once
#include "prelude.cuh"

typedef float Tile[PACKS][4];

__device__ inline int column(int pack) { return (pack * THREADS + threadIdx.x) * 4; }

// Loads the thread's elements of a row of a tile, `fill` beyond its end.
__device__ inline void load_tile(Tile &z, const float *row, int width, float fill) {
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        if (width % 4 == 0 && column(p) < width) {
            load(z[p], row + column(p));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) z[p][i] = column(p) + i < width ? row[column(p) + i] : fill;
        }
    }
}

__device__ inline void store_tile(E *row, const Tile &p, int width) {
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        if (width % 4 == 0 && column(k) < width) {
            store(row + column(k), p[k]);
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (column(k) + i < width) row[column(k) + i] = put<E>(p[k][i]);
        }
    }
}
