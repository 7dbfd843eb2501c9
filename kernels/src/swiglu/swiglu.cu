// The gated activation, forward and backward. All arrays have n elements, those of (T, F).
//
// math    with s = 1/(1 + e^−gate): y = gate·s·up; dup = dy·gate·s, dgate = dy·up·s·(1 + gate·(1 − s))
// options E storage
#include "map.cuh"

__device__ inline float value(float gate, float up) { return gated<E>(gate, up); }

__device__ inline Values<2> gradients(float dy, float gate, float up) {
    float s = sigmoid<E>(gate);
    return {dy * up * s * (1.0f + gate * (1.0f - s)), dy * gate * s};
}

extern "C" __global__ void swiglu(E *y, const E *gate, const E *up, i64 n) { map<value>({y}, n, gate, up); }

extern "C" __global__ void swiglu_backward(E *dgate, E *dup, const E *dy, const E *gate, const E *up, i64 n) {
    map<gradients>({dgate, dup}, n, dy, gate, up);
}
