// Gradients of the factors A of adapters over x, for bf16 activations: dA = dSᵀ x̃.
//
// math    x̃ = mask/(1-p) ⊙ x. Each product is split into partial f32 sums over runs of rows (split-K), which fold.cu adds in
//         order, unless there is one run. 1/(1-p) is applied to the sum
// layout  dS as S in low_rank.cuh
// launch  per block GROUPS groups, 128 channels, a run of rows
// options ALIGNED 1 when rows of x are multiples of 16 bytes, else 0; GROUPS 1 to MAX_GROUPS
#include "prelude.cuh"
#include "mainloop.cuh"
#include "mask.cuh"
#include "targets.cuh"

constexpr int DA_GROUPS = GROUPS == 3 ? 4 : GROUPS; // lines of 48 columns do not divide into the threads of a block
typedef Product<TN, DA_SHAPE + DA_GROUPS / 2, bf16, ALIGNED> Channels;

// Tiles of x whose words of the mask are in shared memory, a pack of four for each row: those on their way, the one that is
// read, and the one before, which may still be.
constexpr int PACKED_TILES = Channels::STAGES + 1;
static_assert(Channels::BN == 128 && Channels::THREADS >= Channels::BK, "a thread copies the words of a row");

// Copies dS and x, and the words of the mask.
struct MaskedFeeds {
    Channels::Feeds operands;
    int tiles;
    const u32 *mask; // (rows, words) from this thread's row and the block's first word on
    u32 shared;      // address of the packs
    int rows, words, pitch, copied = 0;

    __device__ void copy(u32 stage) {
        if (copied < tiles && threadIdx.x < Channels::BK) {
            u32 to = shared + (copied % PACKED_TILES * Channels::BK + threadIdx.x) * 16;
            const u32 *from = mask + i64(copied) * Channels::BK * pitch;
            int count = copied * Channels::BK < rows ? words : 0;
            if (pitch % 4 == 0) {
                copy_async(to, from, count > 0 ? 16 : 0);
            } else {
                u32 bits[4];
#pragma unroll
                for (int w = 0; w < 4; w++) bits[w] = w < count ? from[w] : 0;
                store_shared(to, bits);
            }
        }
        copied++;
        operands.copy(stage);
    }
};

// Drops channels of x, which is the right operand: a warp's 32 columns are one word of each row's pack, and pairs along K
// are two rows.
struct DropRight {
    static constexpr bool EDITS = true;
    u32 shared; // address of the packs

    template <int MT, int COLUMNS>
    __device__ void operator()(u32 (&)[MT][4], u32 (&b)[COLUMNS][2], int tile, int step) const {
        static_assert(COLUMNS == 4, "a warp's columns are one word");
        u32 from = shared + Channels::warp_n() / 8 +
                   (tile % PACKED_TILES * Channels::BK + 16 * step + lane() % 4 * 2) * 16;
        int left = 7 - mask_bit(lane() / 4); // channel 8 j + lane / 4 has this bit of byte j
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 first = __float_as_uint(load_shared(from + 128 * half)) << left;
            u32 second = __float_as_uint(load_shared(from + 128 * half + 16)) << left;
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) b[j][half] &= spread_signs(first, second, 0xcc88 + j * 0x1111);
        }
    }
};

// The row of dA of a row of the padded columns of dS; null where there is none.
struct Gradients {
    float *da0, *da1, *da2, *da3; // (R, C)
    int r0, r1, r2, r3;

    __device__ float *line(int row, int C) const {
        for (int target = 0; target < TARGETS; target++) {
            int R = pick(target, r0, r1, r2, r3);
            if (row < R) return pick(target, da0, da1, da2, da3) + i64(row) * C;
            row -= round_up(R, RANK_GROUP);
            if (row < 0) return nullptr;
        }
        return nullptr;
    }
};

extern "C" __global__ void __launch_bounds__(Channels::THREADS, 1)
    lora_da(float *parts,                                   // (runs of rows, pitch, C), or null: there is one run
            float *da0, float *da1, float *da2, float *da3, // (R, C) of one run, null beyond the last linear
            const bf16 *ds,                                 // (T, pitch)
            const bf16 *x,                                  // (T, C)
            const u32 *mask,                                // (T, ⌈C/32⌉), or null
            int r0, int r1, int r2, int r3, float scale, int T, int C, int run, int pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    Channels block(memory, (GROUPS < MAX_GROUPS ? 0 : blockIdx.y) * Channels::BM, blockIdx.x * Channels::BN);
    int t = blockIdx.z * run, end = min(T, t + run);
    Channels::Feeds feeds(block, {ds, pitch, pitch, end}, {x, C, C, end}, t);
    Channels::Accumulators acc = {};
    if (mask) {
        int words = (C + 31) / 32, word = block.n / 32;
        u32 packs = block.shared + Channels::STAGES * Channels::STAGE;
        const u32 *from = mask + i64(t + threadIdx.x) * words + word;
        MaskedFeeds masked = {feeds, feeds.tiles, from, packs, end - t - int(threadIdx.x), words - word, words};
        block.fill(masked);
        block.run(acc, masked, DropRight{packs});
    } else {
        block.fill(feeds);
        block.run(acc, feeds);
    }
    if (parts) parts += i64(blockIdx.z) * pitch * C;
    Gradients gradients = {da0, da1, da2, da3, r0, r1, r2, r3};
    block.each(acc, [&](int row, int column, float x0, float x1) {
        float *to = row >= pitch ? nullptr : parts ? parts + i64(row) * C : gradients.line(row, C);
        if (!to) return;
        float pair[2] = {x0, x1};
        if (!parts) pair[0] = scale * x0, pair[1] = scale * x1;
        if (C % 2 == 0 && column < C) {
            store(to + column, pair);
        } else {
            if (column < C) to[column] = pair[0];
            if (column + 1 < C) to[column + 1] = pair[1];
        }
    });
}
