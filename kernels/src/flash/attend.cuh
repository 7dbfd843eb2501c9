// Forward for both tile classes (mma.cuh, ffma.cuh): FlashAttention-2, algorithm 1.
#pragma once
#if MMA
#include "mma.cuh"
#else
#include "ffma.cuh"
#endif

// Online softmax of a thread's rows: running Σ 2^(slope·s − top) v, running maximum top = max(slope·s), and running
// Σ 2^(slope·s − top). `total` is the partial sum of this thread until `close`.
template <typename Tiles> struct State {
    typename Tiles::Wide sums;
    float top[Tiles::R], total[Tiles::R];

    __device__ void clear() {
        sums = {};
#pragma unroll
        for (int r = 0; r < Tiles::R; r++) {
            top[r] = -INFINITE;
            total[r] = 0.0f;
        }
    }

    __device__ void shrink(int r, float by) {
#pragma unroll
        for (int n = 0; n < Tiles::RUNS; n++)
#pragma unroll
            for (int i = 0; i < Tiles::RUN; i++) sums.at(r, n, i) *= by;
    }

    // Rescales the state to the maximum including a tile of scores, and turns the scores into p.
    __device__ void fold(typename Tiles::Factor &p, typename Tiles::Square &s, float slope, bool first) {
        float by[Tiles::R];
#pragma unroll
        for (int r = 0; r < Tiles::R; r++) {
            float most = s.at(r, 0);
#pragma unroll
            for (int c = 1; c < Tiles::C; c++) most = fmaxf(most, s.at(r, c));
            most = fmaxf(top[r], warp_max<Tiles::SHARING>(most) * slope);
            by[r] = grown(top[r] - most);
            float sum = s.at(r, 0) = power(s.at(r, 0), slope, most);
#pragma unroll
            for (int c = 1; c < Tiles::C; c++) sum += s.at(r, c) = power(s.at(r, c), slope, most);
            total[r] = fmaf(total[r], by[r], sum);
            top[r] = most;
            p.put(s, r);
        }
        if (first) return;
#pragma unroll
        for (int r = 0; r < Tiles::R; r++) shrink(r, by[r]);
    }

    __device__ void close() {
#pragma unroll
        for (int r = 0; r < Tiles::R; r++) total[r] = warp_sum<Tiles::SHARING>(total[r]);
    }
};

// Combination of two states of a row: x = x·older + y·newer, for sums and totals alike.
struct Join {
    float top, older, newer;
    __device__ Join(float before, float after) {
        top = fmaxf(before, after);
        older = grown(before - top);
        newer = grown(after - top);
    }
    __device__ float operator()(float x, float y) const { return fmaf(x, older, y * newer); }
};

// Closed states of splits in global memory. SHARED states are read by another block of the same launch.
struct Store {
    float *sums;  // (n, DP)
    float *stats; // (n, 2): top, total

    template <bool SHARED, int N> __device__ static void put(float *to, const float (&x)[N]) {
        if constexpr (SHARED) {
            store_shared_by_blocks(to, x);
        } else {
            store(to, x);
        }
    }

    template <bool SHARED, typename Tiles, typename At> __device__ void keep(State<Tiles> &s, At at) const {
        Tiles tiles;
#pragma unroll
        for (int r = 0; r < Tiles::R; r++) {
            int index = at(tiles.row(r));
            if (index < 0) continue;
#pragma unroll
            for (int n = 0; n < Tiles::RUNS; n++) {
                float x[Tiles::RUN];
#pragma unroll
                for (int i = 0; i < Tiles::RUN; i++) x[i] = s.sums.at(r, n, i);
                put<SHARED>(sums + i64(index) * DP + tiles.channel(n), x);
            }
            if (tiles.speaks()) put<SHARED, 2>(stats + i64(index) * 2, {s.top[r], s.total[r]});
        }
    }

    // Combines the stored state with s. One lane of several stored the stats, before a barrier of the block.
    template <typename Tiles, typename At> __device__ void join(State<Tiles> &s, At at) const {
        Tiles tiles;
#pragma unroll
        for (int r = 0; r < Tiles::R; r++) {
            int index = at(tiles.row(r));
            if (index < 0) continue;
            float before[2];
            load(before, stats + i64(index) * 2);
            Join join(before[0], s.top[r]);
            s.top[r] = join.top;
            s.total[r] = join(before[1], s.total[r]);
#pragma unroll
            for (int n = 0; n < Tiles::RUNS; n++) {
                float x[Tiles::RUN];
                load(x, sums + i64(index) * DP + tiles.channel(n));
#pragma unroll
                for (int i = 0; i < Tiles::RUN; i++) s.sums.at(r, n, i) = join(x[i], s.sums.at(r, n, i));
            }
        }
    }
};

// Parameters of a block's work. They lie in shared memory, where they take no registers.
template <bool CLIMB, typename Keys> struct Job {
    Slots<CLIMB> slots;
    Keys keys; // rows of the kv head
    int run;   // its number, in flash_pages
};

// Shared memory of a block.
extern __shared__ __align__(1024) u8 shared[];
template <typename Tiles, typename Job> struct Stage {
    Job *job;
    E *q; // (ROWS, DP)
    E *k; // (STAGES, TILE, DP)
    E *v; // (STAGES, TILE, DP)
    float *exchange;
    __device__ Stage() {
        job = reinterpret_cast<Job *>(shared);
        q = reinterpret_cast<E *>(shared + HEAD);
        k = q + Tiles::ROWS * DP;
        v = k + Tiles::STAGES * TILE * DP;
        exchange = reinterpret_cast<float *>(v + Tiles::STAGES * TILE * DP);
    }
};

// Place of the key that this thread finds out for the copy of a tile; negative where there is none.
template <typename Copy, typename Job> __device__ inline int place_of_key(const Job &job, int tile) {
    int row = Copy::row();
    return row < TILE && tile + row < job.slots.end() ? job.keys(tile + row) : -1;
}

// Tiles of keys and of values that a block copies one after another, as its shared memory has room for: with one stage
// the values of a tile are copied while its scores are computed, and the next keys while its values are summed; with
// two, the next keys and values while a tile is used.
template <typename Tiles, typename Job> struct Stream {
    static constexpr bool AHEAD = Tiles::STAGES > 1;
    typedef ::Copy<TILE, Tiles::WARPS> Copy;
    const Stage<Tiles, Job> &stage;
    const E *k, *v;
    int D;

    __device__ E *at(E *stages, int tile) const { return stages + tile / TILE % Tiles::STAGES * TILE * DP; }

    // Starts copying what a step begins with.
    __device__ void start(int tile) const {
        int place = place_of_key<Copy>(*stage.job, tile);
        if constexpr (AHEAD) {
            Copy::start_all({at(stage.k, tile), at(stage.v, tile)}, {k, v}, place, D);
        } else {
            Copy::start(stage.k, k, place, D);
        }
        copy_commit();
    }

    __device__ void start_next(int tile) const {
        if (tile + TILE < stage.job->slots.end()) start(tile + TILE);
    }

    __device__ void start_values(int tile) const {
        Copy::start(stage.v, v, place_of_key<Copy>(*stage.job, tile), D);
        copy_commit();
    }
};

// Starts copying the queries of the job.
template <typename Tiles, typename Job>
__device__ inline void copy_queries(const Stage<Tiles, Job> &stage, const E *q, int D) {
    typedef Copy<Tiles::ROWS, Tiles::WARPS> Copy;
    Copy::start(stage.q, q, stage.job->slots.at(Copy::row()), D);
}

// Causal mask: scores of keys after a row become so small that their exponentials are zero.
template <typename Tiles, typename Slots>
__device__ inline void hide(typename Tiles::Square &s, const Slots &slots, int tile) {
    Tiles tiles;
#pragma unroll
    for (int r = 0; r < tiles.R; r++)
#pragma unroll
        for (int c = 0; c < tiles.C; c++)
            if (tile + tiles.column(c) > slots.place(tiles.row(r))) s.at(r, c) = -1e30f;
}

// Computes the state of the split that begins at position `tile`, whose copy has started, and moves `tile` to its end.
template <typename Tiles, typename Job>
__device__ inline void attend(State<Tiles> &state, const Stream<Tiles, Job> &stream, int &tile, float slope) {
    constexpr bool AHEAD = Stream<Tiles, Job>::AHEAD;
    const Stage<Tiles, Job> &stage = stream.stage;
    const Job &job = *stage.job;
    state.clear();
    do {
        copy_wait<0>();
        __syncthreads(); // k is there (and v, if AHEAD), and the last v has been used
        if constexpr (!AHEAD) stream.start_values(tile);
        auto turn = [&] {
            if constexpr (!AHEAD) {
                copy_wait<0>();
                __syncthreads(); // v is there, and k has been used
            }
            stream.start_next(tile);
        };
        Tiles tiles;
        int first = tiles.first(), last = first + Tiles::SPAN - 1; // slots of the warp
        bool sees = job.slots.low <= last && first < job.slots.high && tile <= job.slots.place(last);
        if (sees) {
            typename Tiles::Square s;
            tiles.dots(s, stage.q, stream.at(stage.k, tile), stage.exchange);
            turn();
            if (tile + TILE - 1 > job.slots.place(first)) hide<Tiles>(s, job.slots, tile);
            typename Tiles::Factor p;
            state.fold(p, s, slope, tile % SPLIT == 0);
            tiles.gather(state.sums, p, stream.at(stage.v, tile), stage.exchange);
        } else {
            turn(); // a warp goes one of the two ways as a whole, and meets one of the two barriers
        }
        tile += TILE;
    } while (tile % SPLIT != 0 && tile < job.slots.end());
    tile = opaque(tile); // else the split's beginning would be kept, to compare it with
    state.close();
}

// o = sums / total, and −0 becomes 0: the sign of a zero depends on masked keys.
template <typename Tiles, typename Job>
__device__ inline void finish(E *o, State<Tiles> &state, const Stage<Tiles, Job> &stage, int D) {
    Tiles tiles;
#pragma unroll
    for (int r = 0; r < Tiles::R; r++) {
        float inverse = 1.0f / state.total[r];
#pragma unroll
        for (int n = 0; n < Tiles::RUNS; n++)
#pragma unroll
            for (int i = 0; i < Tiles::RUN; i++) state.sums.at(r, n, i) = fmaf(state.sums.at(r, n, i), inverse, 0.0f);
    }
    tiles.write(o, D, state.sums, [&](int slot) { return stage.job->slots.at(slot); }, stage.q, D);
}
