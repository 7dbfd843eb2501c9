// Rotary position embedding: every head rotated by the angles of its token, forwards or backwards.
//
// math    y_j = x_j·cos a_j − x_{j+D/2}·sin a_j, y_{j+D/2} = x_{j+D/2}·cos a_j + x_j·sin a_j for j < D/2
// launch  one block per token; a thread rotates VEC pairs of every few heads
// options E storage, VEC pairs per thread: 16 bytes of each half, or 1 where half a head is not a multiple of that
#include "rope.cuh"

extern "C" __global__ void rope(E *y,                 // (T, H·D)
                                const E *x,           // (T, H·D)
                                const int *positions, // (T)
                                const float *table,   // (P, D): cos, then sin
                                float direction, int H, int D, int P) {
    i64 t = blockIdx.x;
    Rotation rotation(table, positions[t], D, P);
    if (rotation.head >= rotation.heads) return;
    for (int head = rotation.head; head < H; head += rotation.heads)
        rotation.turn(y + (t * H + head) * D, x + (t * H + head) * D, direction, D);
}
