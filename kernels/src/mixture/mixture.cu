// Gating of a mixture of LoRA experts, forward and backward.
//
// math    g = softmax(l) of a row; U_e = s g_e S_e. dS_e = s g_e dU_e; with h_e = s Σ_r dU_e S_e,
//         dl_e = g_e (h_e − Σ_f g_f h_f)
// launch  one warp per row, whose lanes stride over the columns
// options E storage
#include "prelude.cuh"

// Softmax of the logits of a row: g_e = e^(l_e − largest) / total.
struct Softmax {
    const E *logits;
    float largest, total;

    __device__ Softmax(const E *logits, int experts) : logits(logits), largest(-INFINITE), total(0.0f) {
        for (int e = lane(); e < experts; e += 32) largest = fmaxf(largest, get(logits[e]));
        largest = warp_max(largest);
        for (int e = lane(); e < experts; e += 32) total += exponential<E>(get(logits[e]) - largest);
        total = warp_sum(total);
    }

    __device__ float gate(int e) const { return exponential<E>(get(logits[e]) - largest) / total; }
};

// This warp's row.
__device__ inline i64 own_row() { return i64(blockIdx.x) * (blockDim.x / 32) + warp(); }

extern "C" __global__ void gate(E *u,            // (T, E·R)
                                const E *s,      // (T, E·R)
                                const E *logits, // (T, E)
                                float scale, int T, int experts, int R) {
    i64 t = own_row();
    if (t >= T) return; // the whole warp
    Softmax softmax(logits + t * experts, experts);
    int width = experts * R;
    for (int i = lane(); i < width; i += 32)
        u[t * width + i] = put<E>(scale * softmax.gate(i / R) * get(s[t * width + i]));
}

// h_e, the gradient of the gate of an expert, in every lane.
__device__ inline float gained(const E *du, const E *s, float scale, int R) {
    float sum = 0.0f;
    for (int r = lane(); r < R; r += 32) sum += get(du[r]) * get(s[r]);
    return scale * warp_sum(sum);
}

extern "C" __global__ void gate_backward(E *ds,           // (T, E·R)
                                         E *dl,           // (T, E)
                                         const E *du,     // (T, E·R)
                                         const E *s,      // (T, E·R)
                                         const E *logits, // (T, E)
                                         float scale, int T, int experts, int R) {
    i64 t = own_row();
    if (t >= T) return; // the whole warp
    Softmax softmax(logits + t * experts, experts);
    i64 first = t * experts * R;
    float mean = 0.0f;
    for (int e = 0; e < experts; e++) {
        float g = softmax.gate(e);
        mean += g * gained(du + first + e * R, s + first + e * R, scale, R);
        for (int r = lane(); r < R; r += 32) ds[first + e * R + r] = put<E>(scale * g * get(du[first + e * R + r]));
    }
    // The same h_e again, bit for bit: where one gate is near 1, h_e and the mean cancel.
    for (int e = 0; e < experts; e++) {
        float h = gained(du + first + e * R, s + first + e * R, scale, R);
        if (lane() == 0) dl[t * experts + e] = put<E>(softmax.gate(e) * (h - mean));
    }
}
