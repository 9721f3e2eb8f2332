// A training step of Mnist_NN in three kernels, for any width and batch size.
//
//   hidden_layer        a warp a tile       images, W1, b1  -> hidden (N, H)
//   head                a warp a sample     hidden, W2, b2  -> loss (N,), grad_logits (N, C),
//                                                              grad_hidden (N, H)
//   backward_and_adam   a thread a number   all of these    -> p, m, v
//
// In between the data lie in global memory, which for one batch means in the L2 cache. A kernel
// starts when the one before it has ended, and that is all the synchronization there is.
//
// A CUDA graph repeats launches exactly as they were, with the same arguments. So the number of the
// update is not an argument but a counter in memory. hidden_layer reads `next` and notes it in
// `now`; the other two read `now`; head moves `next` on. So no kernel writes a counter that it reads.
//
// Sums run in a fixed order, so results are the same in each run. Constants, by -D: REAL, and
// INPUTS (D), UNITS (H), CLASSES (C).

#include "ptx.cuh"
#include "functional.cuh"

struct Progress {
    int now, next;                  // the number of the update, counted from 0
    int samples;                    // of all updates
};

struct Args {
    const unsigned char *images;    // (samples, D)
    const int *labels;              // (samples,)
    const int *order;               // the samples of all updates, in the order of their use
    const Step *steps;              // of each update
    real *p, *m, *v;                // flat: W1 (H, D), b1 (H), W2 (C, H), b2 (C)
    real *hidden;                   // (batch, H), after relu
    real *grad_logits;              // (batch, C)
    real *grad_hidden;              // (batch, H), before relu
    real *losses;                   // (updates, batch), of each sample
    Progress *progress;
    int batch;                      // samples an update; the last one may have fewer
    real scale, shift;              // pixels to inputs
    Optimizer optimizer;
};

constexpr int W1 = 0, B1 = W1 + UNITS * INPUTS, W2 = B1 + UNITS, B2 = W2 + CLASSES * UNITS;
constexpr int PARAMETERS = B2 + CLASSES;

__device__ __forceinline__ int batch_size(const Args &a, int update)
{
    return min(a.batch, a.progress->samples - update * a.batch);
}

// The pixels of sample s of an update.
__device__ __forceinline__ const unsigned char *image(const Args &a, int update, int s)
{
    return a.images + size_t(a.order[update * a.batch + s]) * INPUTS;
}

// ------------------------------------------------------------------------------------------------
// linear_forward and relu_forward of the first layer. A warp makes a tile of TILE x TILE numbers:
// its lanes share out the D inputs, and each input that a lane loads serves TILE of them.

constexpr int TILE = 4;
constexpr int UNIT_TILES = ceil_div(UNITS, TILE);

extern "C" __global__ void hidden_layer(Args a)
{
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, lane = thread % WARP;
    const int update = a.progress->next, n = batch_size(a, update);
    const int first_sample = thread / WARP / UNIT_TILES * TILE;
    const int first_unit = thread / WARP % UNIT_TILES * TILE;
    if (thread == 0)
        a.progress->now = update;
    if (first_sample >= n)
        return;

    // Past the end a tile repeats the last sample or unit, and throws the results away.
    const unsigned char *x[TILE];
    const real *w[TILE];
#pragma unroll
    for (int i = 0; i < TILE; ++i) {
        x[i] = image(a, update, min(first_sample + i, n - 1));
        w[i] = a.p + W1 + min(first_unit + i, UNITS - 1) * INPUTS;
    }
    real sum[TILE][TILE] = {};
    for (int d = lane; d < INPUTS; d += WARP)
#pragma unroll
        for (int i = 0; i < TILE; ++i)
#pragma unroll
            for (int j = 0; j < TILE; ++j)
                sum[i][j] += to_input(x[i][d], a.scale, a.shift) * w[j][d];

    // Lane i TILE + j takes the number of sample i and unit j.
    real mine = 0;
#pragma unroll
    for (int i = 0; i < TILE * TILE; ++i) {
        const real total = warp_sum(sum[i / TILE][i % TILE]);
        mine = lane == i ? total : mine;
    }
    const int sample = first_sample + lane / TILE, unit = first_unit + lane % TILE;
    if (lane < TILE * TILE && sample < n && unit < UNITS)
        a.hidden[sample * UNITS + unit] = relu_forward(mine + a.p[B1 + unit]);
}

// ------------------------------------------------------------------------------------------------
// linear_forward of the second layer, cross_entropy_forward and _backward, and then for the first
// layer's output linear_backward and relu_backward. A warp has a sample; its lanes share out the H
// units, and every lane has all C logits.

extern "C" __global__ void head(Args a)
{
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, lane = thread % WARP;
    const int sample = thread / WARP;
    const int update = a.progress->now, n = batch_size(a, update);
    if (thread == 0)
        a.progress->next = update + 1;
    if (sample >= n)
        return;

    const real *hidden = a.hidden + sample * UNITS;
    real z[CLASSES] = {};
    for (int h = lane; h < UNITS; h += WARP)
#pragma unroll
        for (int c = 0; c < CLASSES; ++c)
            z[c] += hidden[h] * a.p[W2 + c * UNITS + h];
#pragma unroll
    for (int c = 0; c < CLASSES; ++c)
        z[c] = warp_sum(z[c]) + a.p[B2 + c];

    const int label = a.labels[a.order[update * a.batch + sample]];
    const real loss = cross_entropy(z, label, a.steps[update].inverse_n);
    if (lane == 0)
        a.losses[update * a.batch + sample] = loss;
#pragma unroll
    for (int c = 0; c < CLASSES; ++c)
        if (lane == c % WARP)
            a.grad_logits[sample * CLASSES + c] = z[c];

    for (int h = lane; h < UNITS; h += WARP) {
        real grad = 0;
#pragma unroll
        for (int c = 0; c < CLASSES; ++c)
            grad += z[c] * a.p[W2 + c * UNITS + h];
        a.grad_hidden[sample * UNITS + h] = relu_backward(grad, hidden[h]);
    }
}

// ------------------------------------------------------------------------------------------------
// linear_backward for the parameters of both layers, and Adam.update. Each thread has one
// parameter, whose gradient collects a term from each sample.

__device__ __forceinline__ real gradient(const Args &a, int i, int update, int n)
{
    real sum = 0;
    if (i < B1) {
        const int h = i / INPUTS, d = i % INPUTS;
        for (int s = 0; s < n; ++s)
            sum += a.grad_hidden[s * UNITS + h] * to_input(image(a, update, s)[d], a.scale, a.shift);
    } else if (i < W2) {
        for (int s = 0; s < n; ++s)
            sum += a.grad_hidden[s * UNITS + i - B1];
    } else if (i < B2) {
        const int c = (i - W2) / UNITS, h = (i - W2) % UNITS;
        for (int s = 0; s < n; ++s)
            sum += a.grad_logits[s * CLASSES + c] * a.hidden[s * UNITS + h];
    } else {
        for (int s = 0; s < n; ++s)
            sum += a.grad_logits[s * CLASSES + i - B2];
    }
    return sum;
}

extern "C" __global__ void backward_and_adam(Args a)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= PARAMETERS)
        return;
    const int update = a.progress->now;
    const real g = gradient(a, i, update, batch_size(a, update));
    a.p[i] = adam(a.p[i], g, a.m[i], a.v[i], a.optimizer, a.steps[update]);
}
