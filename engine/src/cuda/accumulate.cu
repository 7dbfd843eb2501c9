// sum += g: accumulates the gradients of a value that is used more than once.
//
// math    sum_i = sum_i + g_i in f32, rounded once to the storage type E
// launch  one thread for 16 bytes of both, 256 threads a block; the last thread may have fewer elements
//
// It includes no header: the prelude belongs to the kernels crate, on which the engine does not depend.

struct bf16 {
    unsigned short bits;
};

__device__ inline float get(float x) { return x; }
__device__ inline float get(bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }

__device__ inline void put(float &to, float x) { to = x; }
__device__ inline void put(bf16 &to, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }

constexpr int N = 16 / sizeof(E);

struct alignas(16) Pack {
    E at[N];
};

extern "C" __global__ void accumulate(E *sum,     // (n)
                                      const E *g, // (n)
                                      long long n) {
    long long i = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * N;
    if (i + N <= n) {
        Pack s = *reinterpret_cast<Pack *>(sum + i), x = *reinterpret_cast<const Pack *>(g + i);
#pragma unroll
        for (int j = 0; j < N; j++) put(s.at[j], get(s.at[j]) + get(x.at[j]));
        *reinterpret_cast<Pack *>(sum + i) = s;
    } else {
        for (; i < n; i++) put(sum[i], get(sum[i]) + get(g[i]));
    }
}
