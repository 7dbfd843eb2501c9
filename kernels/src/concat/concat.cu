// Copies a part into a range of columns of the result.
//
// math    y_{t, first + c} = x_{t, c}
// launch  one block per row
// options E storage, VEC elements moved by one access: 16 bytes, or 1 where a part is not aligned to that
#include "prelude.cuh"

extern "C" __global__ void concat(E *y,       // (T, columns)
                                  const E *x, // (T, width)
                                  int width, int first, int columns) {
    y += i64(blockIdx.x) * columns + first;
    x += i64(blockIdx.x) * width;
    for (int c = threadIdx.x * VEC; c < width; c += blockDim.x * VEC) {
        *reinterpret_cast<Pack<E, VEC> *>(y + c) = *reinterpret_cast<const Pack<E, VEC> *>(x + c);
    }
}
