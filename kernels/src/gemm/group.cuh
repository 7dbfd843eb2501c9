// Up to four products that share their left operand, in one launch: kernels take pointers and sizes as separate
// parameters and pick one by index.
#pragma once
#include "mainloop.cuh"

template <typename T> __device__ inline T pick(int i, T x0, T x1, T x2, T x3) {
    return i == 0 ? x0 : i == 1 ? x1 : i == 2 ? x2 : x3;
}

// Tile of this block: the products' tiles of columns lie side by side, a missing product has none.
struct GroupPlace {
    int target, m, n; // first row and column in the product of that number

    __device__ GroupPlace(int block, int M, int n0, int n1, int n2, int n3, int BM, int BN) {
        auto tiles = [&](int i) { return (pick(i, n0, n1, n2, n3) + BN - 1) / BN; };
        Place all(block, M, (tiles(0) + tiles(1) + tiles(2) + tiles(3)) * BN, BM, BN);
        m = all.m, n = all.n, target = 0;
        while (target < 3 && n >= tiles(target) * BN) n -= tiles(target++) * BN;
    }
};
