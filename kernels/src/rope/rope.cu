// Rotary position embedding: every head turned by its token's angles, forwards or back.
//
// math    y_j = x_j·cos a_j − x_{j+D/2}·sin a_j, y_{j+D/2} = x_{j+D/2}·cos a_j + x_j·sin a_j for j < D/2
// launch  one thread for VEC pairs of one head of one token, 256 threads a block
// options E storage, VEC pairs a thread: 16 bytes of each half, or 1 where half a head is no multiple of that
#include "rope.cuh"

extern "C" __global__ void rope(E *y,                 // (T, H·D)
                                const E *x,           // (T, H·D)
                                const int *positions, // (T)
                                const float *table,   // (P, D): cos, then sin
                                float direction, int T, int H, int D, int P) {
    i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    int parts = D / 2 / VEC;
    if (i >= i64(T) * H * parts) return;
    int t = i / (H * parts), j = i % parts * VEC;
    i64 head = i / parts * D; // of all tokens' heads
    turn(y + head + j, x + head + j, angles(table, positions[t], P, D) + j, direction, D / 2);
}
