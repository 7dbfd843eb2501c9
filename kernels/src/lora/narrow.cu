// Low-rank products of adapters over x, for bf16 activations: S = s x̃ Aᵀ and dA = dSᵀ x̃.
//
// math    x̃ = mask/(1-p) ⊙ x. Each product is split into partial f32 sums over a fixed length (split-K), which gemm's
//         `sum` (S) and fold.cu (dA) add in order. Factors of 1/(1-p) and s are applied to S here, and to dA by its fold
// layout  that of low_rank.cuh, dS as S
// launch  per block, lora_s: 128 rows, GROUPS groups of one adapter that they have chosen, SLICE channels; the first of a
//         row's blocks store the mask. lora_da: GROUPS groups, 128 channels, a run of rows
// options ALIGNED 1 when rows of x and a are multiples of 16 bytes, else 0; GROUPS 1 to MAX_GROUPS
#include "prelude.cuh"
#include "mainloop.cuh"
#include "mask.cuh"
#include "low_rank.cuh"

// ---- S

typedef Product<NT, S_SHAPE + GROUPS - 1, float, ALIGNED> Rows;

// The dropout mask of a block's rows: makes the words of a tile of x while the one before is multiplied, and zeroes the
// dropped channels of x, the left operand, where pairs along K are channels 2i and 2i + 1 of a word.
struct MaskedRows {
    static constexpr int WORDS = Rows::BK / 32, BYTES = Rows::BM * WORDS * 4;
    static_assert(Rows::THREADS == Rows::BM && WORDS == 2, "a thread makes the two words of a row");

    ChannelWords random; // of this thread's row
    u32 threshold, channel; // the block's first channel, in the unsharded input
    u32 shared; // address of the words of MASK_TILES: one is read, one may still be, and one is made
    u32 *mask;  // (words left): this thread's row from the block's first word on
    int words, tiles;
    bool packs; // rows of the mask are multiples of 16 bytes
    u32 before[WORDS];
    u32 shifted[Rows::MT][2][2]; // the words of a fragment's rows, this thread's even and odd channels as signs of bytes

    __device__ u32 place(int tile) const { return shared + tile % MASK_TILES * BYTES; }

    __device__ void make(int tile) {
        if (tile >= tiles) return;
        u32 bits[WORDS];
        mask_words(bits, random, threshold, channel + 32 * tile * WORDS);
        store_shared(place(tile) + threadIdx.x * WORDS * 4, bits[0], bits[1]);
        keep(tile, bits);
    }

    // Stores the words of two tiles at once, if rows of the mask are whole packs.
    __device__ void keep(int tile, const u32 (&bits)[WORDS]) {
        int first = tile * WORDS;
        if (packs && tile % 2 == 1) {
            if (first < words) *reinterpret_cast<Pack<u32, 4> *>(mask + first - WORDS) = {before[0], before[1], bits[0], bits[1]};
            return;
        }
        before[0] = bits[0], before[1] = bits[1];
        if (packs) return; // the last tile is odd
#pragma unroll
        for (int w = 0; w < WORDS; w++)
            if (first + w < words) mask[first + w] = bits[w];
    }

    template <int MT, int COLUMNS>
    __device__ void operator()(u32 (&a)[MT][4], u32 (&)[COLUMNS][2], int tile, int step) {
        if (step == 0) make(tile + 1);
        if (step % 2 == 0) shift(tile, step / 2);
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const u32 (&signs)[2] = shifted[i][e % 2];
                a[i][e] &= spread_signs(signs[0], signs[1], 0xcc88 + (step % 2 * 2 + e / 2) * 0x1111);
            }
    }

    // Loads a word of each row, which two steps use: a byte of it is eight channels of a fragment.
    __device__ void shift(int tile, int word) {
        u32 from = place(tile) + ((Rows::warp_m() + lane() / 4) * WORDS + word) * 4;
        int left = 7 - lane() % 4;
#pragma unroll
        for (int i = 0; i < Rows::MT; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                u32 bits = __float_as_uint(load_shared(from + (16 * i + 8 * half) * WORDS * 4));
                shifted[i][half][0] = bits << left;
                shifted[i][half][1] = bits << (left - 4);
            }
    }
};

extern "C" __global__ void __launch_bounds__(Rows::THREADS)
    lora_s(float *parts,      // (slices, T, pitch)
           u32 *mask,         // (T, ⌈C/32⌉), or null
           const bf16 *x,     // (T, C)
           const int *tokens, // (T): id of each token; or null without dropout
           const int *choice, // (T): each row's adapter; or null, and there is one
           const float *a0, const float *a1, const float *a2, const float *a3,     // (adapters, R, C)
           int r0, int r1, int r2, int r3, float s0, float s1, float s2, float s3, // scales of S
           u64 seed, u32 step, u32 site, u32 threshold, int first, int adapters, int T, int C, int slice, int pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    // There is one block along the columns unless a block has as many groups as it can.
    int columns = GROUPS < MAX_GROUPS ? 1 : round_up(pitch, Rows::BN) / Rows::BN;
    int nth = blockIdx.y / columns, column = blockIdx.y % columns;
    Rows block(memory, blockIdx.x * Rows::BM, column * Rows::BN);
    int adapter = Chosen(choice, block.m, Rows::BM, T, adapters).nth(nth);
    if (adapter == Chosen::NONE && nth > 0) return;
    int k = blockIdx.z * slice, end = min(C, k + slice);
    Factors factors = {a0, a1, a2, a3, r0, r1, r2, r3, s0, s1, s2, s3};
    GroupFeeds<Rows, ALIGNED> feeds(block, x, factors, adapter, T, C, k, end);
    Rows::Accumulators acc = {};
    block.fill(feeds);
    if (tokens) {
        int row = block.m + threadIdx.x, words = (C + 31) / 32;
        bool stores = row < T && column == 0;
        MaskedRows masked = {ChannelWords(seed, step, site, row < T ? tokens[row] : 0), threshold, u32(first + k)};
        masked.shared = block.shared + Rows::STAGES * Rows::STAGE;
        masked.mask = mask + i64(row) * words + k / 32;
        masked.words = stores ? words - k / 32 : 0;
        masked.tiles = feeds.tiles;
        masked.packs = words % 4 == 0;
        masked.make(0);
        block.run(acc, feeds, masked);
    } else {
        block.run(acc, feeds);
    }
    parts += i64(blockIdx.z) * T * pitch;
    each_pair(block, acc, factors, choice, adapter, nth == 0, parts, T, pitch,
              [](float *to, const float (&pair)[2]) { store(to, pair); });
}

// ---- dA

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

extern "C" __global__ void __launch_bounds__(Channels::THREADS) lora_da(float *parts,    // (runs of rows, pitch, C)
                                                                        const bf16 *ds,  // (T, pitch)
                                                                        const bf16 *x,   // (T, C)
                                                                        const u32 *mask, // (T, ⌈C/32⌉), or null
                                                                        int T, int C, int run, int pitch) {
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
    parts += i64(blockIdx.z) * pitch * C;
    block.each(acc, [&](int row, int column, float x0, float x1) {
        if (row >= pitch) return;
        float *to = parts + i64(row) * C + column;
        if (C % 2 == 0 && column < C) {
            float pair[2] = {x0, x1};
            store(to, pair);
        } else {
            if (column < C) to[0] = x0;
            if (column + 1 < C) to[1] = x1;
        }
    });
}
