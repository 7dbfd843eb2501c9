// Up to four linears that share x: kernels take their pointers and sizes as separate parameters and pick one by index.
#pragma once

template <typename T> __device__ inline T pick(int i, T x0, T x1, T x2, T x3) {
    return i == 0 ? x0 : i == 1 ? x1 : i == 2 ? x2 : x3;
}
