// Embedding lookup, and the gradient of the table.
//
// math    y_t = table_{ids_t − first}, 0 where another rank holds that row; dtable_v = Σ dy_t over the tokens t with
//         ids_t = first + v, ascending
// launch  embed: one block per token. Backward: `embed_order` counts for each token how many come before it by id and
//         index, one thread per token; then one block per row of the table, which finds its tokens by binary search
// options W storage of the table, E storage of y and dy, VEC elements moved by one access of at most 16 bytes
#include "prelude.cuh"

extern "C" __global__ void embed(E *y,               // (T, C)
                                 const W *table,     // (V, C)
                                 const int *ids,     // (T)
                                 int first, int all, // index of the table's first row, and rows of all shards
                                 int V, int C) {
    i64 t = blockIdx.x;
    int id = ids[t], row = id - first;
    if (id < 0 || id >= all) __trap();
    for (int c = threadIdx.x * VEC; c < C; c += blockDim.x * VEC) {
        float v[VEC] = {};
        if (row >= 0 && row < V) load(v, table + i64(row) * C + c);
        store(y + t * C + c, v);
    }
}

// order = the tokens sorted by id, then by index.
extern "C" __global__ void embed_order(int *order,     // (T)
                                       const int *ids, // (T)
                                       int T) {
    __shared__ int tile[ORDER];
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    int id = t < T ? ids[t] : 0, rank = 0;
    for (int start = 0; start < T; start += blockDim.x) {
        int s = start + threadIdx.x;
        __syncthreads(); // the last tile has been read
        if (s < T) tile[threadIdx.x] = ids[s];
        __syncthreads();
        int end = min(int(blockDim.x), T - start);
        for (int i = 0; i < end; i++) rank += tile[i] < id || (tile[i] == id && start + i < t);
    }
    if (t < T) order[rank] = t;
}

// Number of tokens in `order` whose id is below `id`.
__device__ inline int below(int id, const int *order, const int *ids, int T) {
    int low = 0, high = T;
    while (low < high) {
        int middle = (low + high) / 2;
        if (ids[order[middle]] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

extern "C" __global__ void embed_backward(W *dtable,        // (V, C)
                                          const E *dy,      // (T, C)
                                          const int *order, // (T)
                                          const int *ids,   // (T)
                                          int first, int T, int C) {
    int row = blockIdx.x, id = first + row;
    int from = below(id, order, ids, T), to = below(id + 1, order, ids, T);
    for (int c = threadIdx.x * VEC; c < C; c += blockDim.x * VEC) {
        float sum[VEC] = {};
        for (int i = from; i < to; i++) {
            float v[VEC];
            load(v, dy + i64(order[i]) * C + c);
#pragma unroll
            for (int j = 0; j < VEC; j++) sum[j] += v[j];
        }
        store(dtable + i64(row) * C + c, sum);
    }
}
