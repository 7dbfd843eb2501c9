// Elementwise ops: addition, ReLU, and conversion of the storage type. All arrays have n elements.
//
// math    add: y = a + b in f32, rounded once. relu: y = x where `of` is above 0, else 0. convert: y = x, rounded
// options E storage
#include "map.cuh"

// The storage type that is not E.
template <typename Elem> struct Other {
    using Type = float;
};
template <> struct Other<float> {
    using Type = bf16;
};

__device__ inline float sum(float a, float b) { return a + b; }
__device__ inline float masked(float x, float of) { return of > 0.0f ? x : 0.0f; }
__device__ inline float same(float x) { return x; }

extern "C" __global__ void add(E *y, const E *a, const E *b, i64 n) { map<sum>({y}, n, a, b); }

extern "C" __global__ void relu(E *y, const E *x, const E *of, i64 n) { map<masked>({y}, n, x, of); }

// Packs of 4 are 16 bytes of the wider type: both arrays are accessed without gaps.
extern "C" __global__ void convert(Other<E>::Type *y, const E *x, i64 n) { map<same, 4>({y}, n, x); }
