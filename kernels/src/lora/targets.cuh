// Up to four linears that share x: kernels take their pointers and sizes as separate parameters and pick one by index.
#pragma once

template <typename T> __device__ inline T pick(int i, T x0, T x1, T x2, T x3) {
    return i == 0 ? x0 : i == 1 ? x1 : i == 2 ? x2 : x3;
}

__device__ inline int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Elements of the parts of one linear: dS (strips of columns, T, padded), dB (runs of rows, N, padded).
__device__ inline i64 ds_parts(int T, int N, int padded) {
    return i64(round_up(N, STRIP_COLUMNS) / STRIP_COLUMNS) * T * padded;
}
__device__ inline i64 db_parts(int T, int N, int padded, int run) { return i64(round_up(T, run) / run) * N * padded; }
