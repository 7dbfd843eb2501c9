// Split-K reduction: adds the partial products of the slices in their order.
//
// math    y_rc = scale · Σ_s parts_s,rc, s ascending in f32, plus what y holds, times its row's factor, if `add`
// launch  one thread per 4 columns
// options E storage of y
#include "prelude.cuh"

constexpr int VEC = 4;

extern "C" __global__ void sum(E *y,               // rows of y_pitch elements
                               const float *parts, // (slices, stride), each of rows of pitch elements
                               const float *factors, // of the old rows (rows), or null
                               i64 y_at, i64 at,   // elements to skip in y and in each part
                               i64 stride, int y_pitch, int pitch, int slices, int rows, int columns, float scale,
                               int add) {
    int packs = (columns + VEC - 1) / VEC;
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    if (i >= i64(rows) * packs) return;
    i64 row = i / packs;
    int c = i % packs * VEC, count = min(columns - c, VEC);
    y += y_at + row * y_pitch + c;
    parts += at + row * pitch + c;
    float x[VEC] = {}, factor = factors ? factors[row] : 1.0f;
    bool aligned = count == VEC && (at | stride | pitch) % VEC == 0;
    for (int s = 0; s < slices; s++, parts += stride) {
        float part[VEC] = {};
        if (aligned) {
            load(part, parts);
        } else {
#pragma unroll
            for (int e = 0; e < VEC; e++)
                if (e < count) part[e] = parts[e];
        }
#pragma unroll
        for (int e = 0; e < VEC; e++) x[e] += part[e];
    }
#pragma unroll
    for (int e = 0; e < VEC; e++) x[e] = scale * x[e] + (add && e < count ? factor * get(y[e]) : 0.0f);
    if (count == VEC && (y_at | y_pitch) % VEC == 0) {
        store(y, x);
    } else {
#pragma unroll
        for (int e = 0; e < VEC; e++)
            if (e < count) y[e] = put<E>(x[e]);
    }
}
