// Rotation of the heads of a token.
#pragma once
#include "prelude.cuh"

constexpr int LONGEST = 1024; // D

// Loads this thread's angles: pairs j..j + VEC of a row of the table (P, D).
__device__ inline void load_angles(float (&cos)[VEC], float (&sin)[VEC], const float *row, int j, int D) {
    if constexpr (VEC == 8) {
        // 32 bytes per thread: through shared memory, first fours before second fours, so that reads of the row are
        // coalesced and free of bank conflicts.
        __shared__ alignas(16) float fours[LONGEST];
        float v[4];
        for (int q = threadIdx.x; q < D / 4; q += blockDim.x) {
            load(v, row + q * 4);
            store(fours + (q % 2 * (D / 8) + q / 2) * 4, v);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < VEC; i += 4) {
            const float *at = fours + i / 4 * (D / 2) + j / 2;
            load(v, at);
#pragma unroll
            for (int k = 0; k < 4; k++) cos[i + k] = v[k];
            load(v, at + D / 4);
#pragma unroll
            for (int k = 0; k < 4; k++) sin[i + k] = v[k];
        }
    } else {
        load(cos, row + j);
        load(sin, row + D / 2 + j);
    }
}

// The work of one thread of a block that rotates whole heads by the angles of one position: the pairs j..j + VEC of
// head `head` of every `heads`. A thread whose `head` is `heads` or more has none.
struct Rotation {
    int j, head, heads;
    float cos[VEC], sin[VEC];

    __device__ Rotation(const float *table, // (P, D): cos, then sin
                        int position, int D, int P) {
        if (position < 0 || position >= P) __trap();
        int parts = D / 2 / VEC;
        heads = blockDim.x / parts;
        j = threadIdx.x % parts * VEC, head = threadIdx.x / parts;
        load_angles(cos, sin, table + i64(position) * D, j, D);
    }

    // y = x, rotated forwards or backwards.
    __device__ void turn(E *y,       // (D)
                         const E *x, // (D)
                         float direction, int D) const {
        float x0[VEC], x1[VEC];
        load(x0, x + j);
        load(x1, x + D / 2 + j);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            float sine = direction * sin[i], first = x0[i];
            x0[i] = first * cos[i] - x1[i] * sine;
            x1[i] = x1[i] * cos[i] + first * sine;
        }
        store(y + j, x0);
        store(y + D / 2 + j, x1);
    }

    // y = x.
    __device__ void copy(E *y,       // (D)
                         const E *x, // (D)
                         int D) const {
        typedef Pack<E, VEC> Packed;
        *reinterpret_cast<Packed *>(y + j) = *reinterpret_cast<const Packed *>(x + j);
        *reinterpret_cast<Packed *>(y + D / 2 + j) = *reinterpret_cast<const Packed *>(x + D / 2 + j);
    }
};
