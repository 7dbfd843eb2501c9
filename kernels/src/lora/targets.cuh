// Sizes of the parts of up to four linears that share x (group.cuh).
#pragma once
#include "group.cuh"

__device__ inline int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Elements of the parts of one linear: dS (strips of columns, T, padded), dB (runs of rows, N, padded).
__device__ inline i64 ds_parts(int T, int N, int padded) {
    return i64(round_up(N, STRIP_COLUMNS) / STRIP_COLUMNS) * T * padded;
}
__device__ inline i64 db_parts(int T, int N, int padded, int run) { return i64(round_up(T, run) / run) * N * padded; }
