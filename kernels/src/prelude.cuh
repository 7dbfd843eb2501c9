// Device functions shared by all kernels. No kernel includes a CUDA header, so NVRTC needs no toolkit.
//
//   storage     bf16, get / put: elements are widened to f32 on load and rounded once, to nearest even, on store
//   packs       N consecutive elements moved by one access of up to 16 bytes
//   random      Philox, keyed as on the host
//   reductions  over a warp or a block in a fixed order: the same values give the same bits
//   tiles       shared memory addresses, cp.async, ldmatrix, mma.sync m16n8k16 (Ampere and later)
//
// A kernel is compiled for one storage type at a time: options define E (and others) as `bf16` or `float`.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

enum : u32 { FULL = 0xffffffff }; // every lane of a warp
#define INFINITE __int_as_float(0x7f800000)

// ---- storage

struct bf16 {
    u16 bits;
};

__device__ inline float get(float x) { return x; }
__device__ inline float get(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

template <typename Elem> __device__ inline Elem put(float x);
template <> __device__ inline float put<float>(float x) { return x; }
template <> __device__ inline bf16 put<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// e^x as exact as storage in Elem needs: to two ulps for f32; for bf16 faster, with an error far below its rounding.
template <typename Elem> __device__ inline float exponential(float x);
template <> __device__ inline float exponential<float>(float x) { return expf(x); }
template <> __device__ inline float exponential<bf16>(float x) { return __expf(x); }

// 1 / (1 + e^−x), with the same accuracy.
template <typename Elem> __device__ inline float sigmoid(float x);
template <> __device__ inline float sigmoid<float>(float x) { return 1.0f / (1.0f + expf(-x)); }
template <> __device__ inline float sigmoid<bf16>(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

// SwiGLU: silu(gate) · up.
template <typename Elem> __device__ inline float gated(float gate, float up) { return gate * sigmoid<Elem>(gate) * up; }

// Two elements in one register: `low` comes first in memory.
__device__ inline u32 pair(float low, float high) {
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

// 2^x with a relative error below 2⁻²²; 0 for −∞.
__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- packs

// N elements, aligned so that one access moves them.
template <typename Elem, int N> struct alignas(sizeof(Elem) * N) Pack {
    Elem at[N];
};

// Elements in 16 bytes.
template <typename Elem> constexpr int WIDE = 16 / sizeof(Elem);

// x[0..N] = the N elements from p, which is aligned for a Pack.
template <int N> __device__ inline void load(float (&x)[N], const float *p) {
    Pack<float, N> pack = *reinterpret_cast<const Pack<float, N> *>(p);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = pack.at[i];
}
template <int N> __device__ inline void load(float (&x)[N], const bf16 *p) {
    if constexpr (N == 1) {
        x[0] = get(*p);
    } else {
        Pack<u32, N / 2> pack = *reinterpret_cast<const Pack<u32, N / 2> *>(p);
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = __uint_as_float(i % 2 ? pack.at[i / 2] & 0xffff0000 : pack.at[i / 2] << 16);
    }
}

template <int N> __device__ inline void store(float *p, const float (&x)[N]) {
    Pack<float, N> pack;
#pragma unroll
    for (int i = 0; i < N; i++) pack.at[i] = x[i];
    *reinterpret_cast<Pack<float, N> *>(p) = pack;
}
template <int N> __device__ inline void store(bf16 *p, const float (&x)[N]) {
    if constexpr (N == 1) {
        *p = put<bf16>(x[0]);
    } else {
        Pack<u32, N / 2> pack;
#pragma unroll
        for (int i = 0; i < N / 2; i++) pack.at[i] = pair(x[2 * i], x[2 * i + 1]);
        *reinterpret_cast<Pack<u32, N / 2> *>(p) = pack;
    }
}

// ---- blocks of one launch

// Loads and stores of 2 or 4 floats that one block writes and another reads, after `is_last`.
__device__ inline void store_shared_by_blocks(float *p, const float (&x)[2]) {
    asm volatile("st.relaxed.gpu.global.v2.f32 [%0], {%1, %2};" ::"l"(p), "f"(x[0]), "f"(x[1]) : "memory");
}
__device__ inline void store_shared_by_blocks(float *p, const float (&x)[4]) {
    asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(x[0]), "f"(x[1]), "f"(x[2]),
                 "f"(x[3])
                 : "memory");
}
__device__ inline void load_shared_by_blocks(float (&x)[2], const float *p) {
    asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];" : "=f"(x[0]), "=f"(x[1]) : "l"(p) : "memory");
}
__device__ inline void load_shared_by_blocks(float (&x)[4], const float *p) {
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x[0]), "=f"(x[1]), "=f"(x[2]), "=f"(x[3])
                 : "l"(p)
                 : "memory");
}

// True in the block that is the last of `others` + 1 to arrive: it sees what all of them stored before. `arrivals`, which
// was 0, is 0 again.
__device__ inline bool is_last(u32 *arrivals, u32 others) {
    __shared__ bool last;
    __syncthreads(); // the block has stored
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicInc(arrivals, others) == others;
        __threadfence();
    }
    __syncthreads();
    return last;
}

// Turns: blocks that add to the same floats one after another. A block waits, adds, and ends its turn after a barrier; it
// waits for such blocks only as started before it. `turns` counts the turns that have ended.
__device__ inline void wait_for_turn(const u32 *turns, u32 turn) {
    u32 ended;
    for (;;) {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(ended) : "l"(turns) : "memory");
        if (ended >= turn) return;
        asm volatile("nanosleep.u32 64;");
    }
}
__device__ inline void end_turn(u32 *turns) {
    __threadfence();
    asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(turns) : "memory");
}

// First element of this thread's pack of N in a flat array that the whole grid covers.
template <int N> __device__ inline i64 flat() { return (i64(blockIdx.x) * blockDim.x + threadIdx.x) * N; }

// ---- random numbers

// Four random words of (seed, step, site) for a token and a block of channels: Philox 4x32, as on the host.
struct Words {
    u32 at[4];
};

// The two words of a · b, and x ^ y ^ z: what a round of Philox is made of, one instruction each.
__device__ inline void multiply_wide(u32 &low, u32 &high, u32 a, u32 b) {
    asm("{ .reg .u64 p; mul.wide.u32 p, %2, %3; mov.b64 {%0, %1}, p; }" : "=r"(low), "=r"(high) : "r"(a), "r"(b));
}
__device__ inline u32 xor3(u32 x, u32 y, u32 z) {
    u32 w;
    asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(w) : "r"(x), "r"(y), "r"(z));
    return w;
}

constexpr u32 PHILOX_A = 0xD2511F53u, PHILOX_C = 0xCD9E8D57u, PHILOX_KEY0 = 0x9E3779B9u, PHILOX_KEY1 = 0xBB67AE85u;

// Rounds FIRST to END of Philox.
template <int FIRST, int END> __device__ inline Words philox_rounds(Words x, u64 seed) {
    u32 k0 = u32(seed) + FIRST * PHILOX_KEY0, k1 = u32(seed >> 32) + FIRST * PHILOX_KEY1;
#pragma unroll
    for (int round = FIRST; round < END; round++) {
        u32 p_low, p_high, q_low, q_high;
        multiply_wide(p_low, p_high, PHILOX_A, x.at[0]);
        multiply_wide(q_low, q_high, PHILOX_C, x.at[2]);
        x = {{xor3(q_high, x.at[1], k0), q_low, xor3(p_high, x.at[3], k1), p_low}};
        k0 += PHILOX_KEY0;
        k1 += PHILOX_KEY1;
    }
    return x;
}

__device__ inline Words random_words(u64 seed, u32 step, u32 site, u32 token, u32 block) {
    return philox_rounds<0, 10>({{block, token, site, step}}, seed);
}

// The top 24 bits of a word as a number in [0, 1).
__device__ inline float unit(u32 word) { return (word >> 8) * (1.0f / (1 << 24)); }

// ---- reductions

__device__ inline int lane() { return threadIdx.x % 32; }
__device__ inline int warp() { return threadIdx.x / 32; }

// Sum over the warp, or over each group of LANES in it, in every lane: a butterfly, so all lanes get the same bits.
template <int LANES = 32> __device__ inline float warp_sum(float x) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

template <int LANES = 32> __device__ inline float warp_max(float x) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(FULL, x, step));
    return x;
}

// Sum over a block of whole warps, in every thread. Every thread of the block must call it.
__device__ inline float block_sum(float x) {
    __shared__ float parts[32];
    x = warp_sum(x);
    __syncthreads(); // the parts of an earlier call have been read
    if (lane() == 0) parts[warp()] = x;
    __syncthreads();
    return warp_sum(lane() < blockDim.x / 32 ? parts[lane()] : 0.0f);
}

__device__ inline float block_max(float x) {
    __shared__ float parts[32];
    x = warp_max(x);
    __syncthreads();
    if (lane() == 0) parts[warp()] = x;
    __syncthreads();
    return warp_max(lane() < blockDim.x / 32 ? parts[lane()] : -INFINITE);
}

// ---- tiles

// Shared-memory address of 32 bits, as ldmatrix, cp.async and mbarriers take it.
__device__ inline u32 shared_address(const void *p) { return u32(__cvta_generic_to_shared(p)); }

// Hides the origin of x from the compiler: values computed from it inside a loop are not hoisted out of it, where they
// would occupy registers.
__device__ inline u32 opaque(u32 x) {
    asm volatile("" : "+r"(x));
    return x;
}

// Loads and stores of shared memory at such an address.
__device__ inline float load_shared(u32 from) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from) : "memory");
    return x;
}
__device__ inline void load_shared(float (&x)[2], u32 from) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x[0]), "=f"(x[1]) : "r"(from) : "memory");
}
__device__ inline void load_shared(u32 (&x)[4], u32 from) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(from)
                 : "memory");
}
__device__ inline void store_shared(u32 to, u32 x) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}
__device__ inline void store_shared(u32 to, u32 x0, u32 x1) {
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(to), "r"(x0), "r"(x1) : "memory");
}
__device__ inline void store_shared(u32 to, float x0, float x1) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x0), "f"(x1) : "memory");
}
__device__ inline void store_shared(u32 to, const u32 (&x)[4]) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
}

// Starts an asynchronous copy of 16 bytes to shared memory, bypassing registers and L1; the last 16 − `bytes` become
// zero.
__device__ inline void copy_async(u32 to, const void *from, int bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// Starts an asynchronous copy of 4 bytes, through L1.
__device__ inline void copy_async_word(u32 to, const void *from, int bytes = 4) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// Commits the copies started since the last commit as one group.
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's groups are in flight. Other threads see the data after a barrier.
template <int N> __device__ inline void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Loads four 8x8 matrices of bf16 (ldmatrix); lane i gives the address of row i % 8 of matrix i / 8. Register j holds,
// in lane l, elements 2·(l % 4) and 2·(l % 4) + 1 of row l / 4 of matrix j.
__device__ inline void load_matrices(u32 (&x)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(row)
                 : "memory");
}

// Loads four 8x8 matrices, each transposed.
__device__ inline void load_matrices_transposed(u32 (&x)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(row)
                 : "memory");
}

// Loads two matrices; lanes 0 to 15 give the addresses of their rows.
template <bool TRANSPOSED> __device__ inline void load_two_matrices(u32 (&x)[2], u32 row) {
    if constexpr (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(x[0]), "=r"(x[1])
                     : "r"(row)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                     : "=r"(x[0]), "=r"(x[1])
                     : "r"(row)
                     : "memory");
    }
}

// c (16, 8) += a (16, 16) · b (16, 8), f32 accumulation. With g = lane / 4 and t = lane % 4:
//   a  row g     columns 2t, 2t+1 | row g + 8 the same | row g columns 2t+8, 2t+9 | row g + 8 the same
//   b  column g  rows 2t, 2t+1 | rows 2t+8, 2t+9
//   c  row g     columns 2t, 2t+1 | row g + 8 the same
__device__ inline void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c = a · b, which needs no zeros in registers.
__device__ inline void mma_from_zero(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
                 : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}
