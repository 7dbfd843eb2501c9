// GELU in its tanh form, forward and backward. All arrays have n elements.
//
// math    with u = 2√(2/π)·(x + 0.044715·x³) and s = 1/(1 + e^−u): y = x·s; dx = dy·s·(1 + x·u′·(1 − s))
// options E storage
#include "map.cuh"

__device__ inline float gate(float x) { return sigmoid<E>(1.595769f * (x + 0.044715f * x * x * x)); }

__device__ inline float value(float x) { return x * gate(x); }

__device__ inline float gradients(float dy, float x) {
    float s = gate(x), slope = 1.595769f * (1.0f + 3.0f * 0.044715f * x * x);
    return dy * s * (1.0f + x * slope * (1.0f - s));
}

extern "C" __global__ void gelu(E *y, const E *x, i64 n) { map<value>({y}, n, x); }

extern "C" __global__ void gelu_backward(E *dx, const E *dy, const E *x, i64 n) { map<gradients>({dx}, n, dy, x); }
