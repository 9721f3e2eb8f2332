// Many updates of Mnist_NN in one launch. Nothing of the model leaves the chip in between: BLOCKS
// thread blocks hold it in shared memory and registers, and send one another what they need.
//
// Who owns what. The D pixels, and the input that is always 1 and whose weight is the bias, are dealt
// out to the blocks: SLICE of them each, with their rows of W1 transposed. Block r also owns SAMPLES
// of the N samples of each batch. W2 is small, and every block has all of it, with b2 as the weights
// of a hidden unit that is always 1; all blocks make the same update of it.
//
//                 block 0          block 1         ...      what it costs to know the rest
//     inputs      0 .. SLICE-1     SLICE ..        ...      (a block never needs other rows of W1)
//     x           its pixels of all samples
//     samples     0 .. SAMPLES-1   SAMPLES ..      ...      two exchanges an update
//
// An update, with the functions of functional.py and optim.py that its stages are made of:
//
//   1 forward     sums over the block's own inputs, for all samples     linear_forward
//     ==== partial sums go to the block that owns the sample ====>
//   2 head        for the block's own samples, a warp each              relu_forward, linear_forward,
//                 loss and grad_logits                                  cross_entropy_forward/_backward
//     ==== hidden and grad_logits go to all blocks ====>
//   3 backward    grad_hidden of all samples, in every block            linear_backward, relu_backward
//     ---- __syncthreads ----
//   4 update      gradients of the block's rows of W1, and of W2        linear_backward, Adam.update
//     ---- __syncthreads ----
//
// With CLUSTER (Hopper and later) the blocks are a thread-block cluster. A block writes straight
// into the others' inboxes with st.async, and whoever waits, waits for bytes to arrive: no barrier
// of the cluster is in the loop, for which a sender would have to wait until its stores are in L2.
// (The two waits of an update do empty the L1 cache.) Why an inbox can't be overwritten too early:
// a block sends partial sums of update t+1 only after it has had the heads of update t from all
// blocks, and a block sends its heads when it has read its partial sums; it sends heads of update
// t+1 only after it has had the partial sums of t+1 from all blocks, and a block sends those when
// it has done with update t. Without CLUSTER the launch is cooperative, the inboxes are in global
// memory, and a barrier of the grid stands in the place of each exchange.
//
// The next batch's pixels are under way while the present one is computed. Networks that train side
// by side, of other seeds or learning rates, are other groups of BLOCKS blocks. Sums run in a fixed
// order, so results are the same in each run.
//
// Constants, by -D: CLUSTER (1 or 0), BLOCKS, BATCH, INPUTS (D), UNITS (H), CLASSES (C), SHARED_BYTES.

#define REAL float
#include "ptx.cuh"
#include "functional.cuh"

// ------------------------------------------------------------------------------------------------
// Sizes. Everything is padded to whole tiles, with zeros.

constexpr int WARPS = 13;                                       // 416 threads: two for each forward
constexpr int THREADS = WARPS * WARP;                           // tile of 64 samples and 52 units
constexpr int SLICE = ceil_div(INPUTS + 1, BLOCKS);             // inputs of a block
constexpr int ROWS = round_up(SLICE, 4);
constexpr int SAMPLES = round_up(ceil_div(BATCH, BLOCKS), 4);   // samples of a block
constexpr int N = BLOCKS * SAMPLES;                             // a multiple of 32
constexpr int H = round_up(UNITS + 1, 4);                       // with the unit that is always 1
constexpr int C = round_up(CLASSES, 4);
constexpr int BUFFERS = CLUSTER ? 2 : 1;                        // of pixels; older GPUs have less room

// What the heads of all blocks have found out about a batch.
struct Heads {
    float hidden[N][H];          // after relu; unit UNITS is 1
    float grad_logits[N][C];
};

// Sums over the inputs of each block, for the samples of the block whose inbox it is.
struct Partial {
    float from[BLOCKS][SAMPLES][H];
};

struct Shared {
    float x[BUFFERS][ROWS][N + 4];   // + 4, or else rows would share their banks
    float w1[ROWS][H];
    float w2[C][H];
    Heads heads;
    float grad_hidden[N][H];         // before relu
#if CLUSTER
    Partial partial;
    Mbarrier partial_arrived, heads_arrived;
#endif
};
static_assert(sizeof(Shared) == SHARED_BYTES, "cuda_epoch.py has computed another size");

struct Network {
    const int *order;            // the samples of all updates, in the order of their use
    const Step *steps;           // of each update
    float *p, *m, *v;            // flat: W1 (H, D), b1 (H), W2 (C, H), b2 (C)
    float *losses;               // (updates, BATCH), of each sample
    unsigned char *pixels;       // (updates, BLOCKS, SLICE, N), made by gather
    int *labels;                 // (updates, N), made by gather; -1 for no sample
    Partial *partial;            // (BLOCKS,), the inboxes without CLUSTER
    Heads *heads;                // and the common one
    unsigned *barrier;           // 0
};

struct Args {
    const Network *networks;
    const unsigned char *images;    // (samples, D)
    const int *labels;              // (samples,)
    int updates;
    int samples;                    // of all updates; the last one may have fewer than BATCH
    float scale, shift;             // pixels to inputs
    Optimizer optimizer;
};

// ------------------------------------------------------------------------------------------------
// The exchange.

struct Exchange {
    Shared &s;
    const Network &network;
    int rank;
};

#if CLUSTER

__device__ __forceinline__ int rank_of_block() { return cluster_rank(); }

__device__ __forceinline__ void send_partial(const Exchange &e, int sample, int unit, float4 sum)
{
    store_async(&e.s.partial.from[e.rank][sample % SAMPLES][unit], sample / SAMPLES, sum,
                &e.s.partial_arrived);
}

__device__ __forceinline__ float4 received_partial(const Exchange &e, int from, int own, int unit)
{
    return *(const float4 *)&e.s.partial.from[from][own][unit];
}

// `where` is in this block's own Heads.
__device__ __forceinline__ void send_to_all(const Exchange &e, float *where, float4 x)
{
    for (int block = 0; block < BLOCKS; ++block)
        store_async(where, block, x, &e.s.heads_arrived);
}

__device__ __forceinline__ void wait_for(Mbarrier *arrived, int bytes, int t)
{
    if (threadIdx.x == 0)
        mbarrier_expect(arrived, bytes);
    mbarrier_wait(arrived, t % 2);
}

__device__ __forceinline__ void receive_partial(const Exchange &e, int t)
{
    wait_for(&e.s.partial_arrived, sizeof(Partial), t);
}

__device__ __forceinline__ void receive_heads(const Exchange &e, int t)
{
    wait_for(&e.s.heads_arrived, sizeof(Heads), t);
}

// No block sends before all are there to receive.
__device__ __forceinline__ void begin_exchange(const Exchange &e)
{
    if (threadIdx.x == 0) {
        mbarrier_init(&e.s.partial_arrived);
        mbarrier_init(&e.s.heads_arrived);
    }
    cluster_sync();
}

// No block ends, and its shared memory with it, before all have.
__device__ __forceinline__ void end_exchange() { cluster_sync(); }

#else

__device__ __forceinline__ int rank_of_block() { return blockIdx.x % BLOCKS; }

__device__ __forceinline__ void send_partial(const Exchange &e, int sample, int unit, float4 sum)
{
    Partial &inbox = e.network.partial[sample / SAMPLES];
    __stcg((float4 *)&inbox.from[e.rank][sample % SAMPLES][unit], sum);
}

__device__ __forceinline__ float4 received_partial(const Exchange &e, int from, int own, int unit)
{
    return __ldcg((const float4 *)&e.network.partial[e.rank].from[from][own][unit]);
}

__device__ __forceinline__ void send_to_all(const Exchange &e, float *where, float4 x)
{
    float *common = (float *)e.network.heads + (where - (float *)&e.s.heads);
    __stcg((float4 *)common, x);
}

__device__ __forceinline__ void receive_partial(const Exchange &e, int)
{
    grid_sync(e.network.barrier);
}

__device__ __forceinline__ void receive_heads(const Exchange &e, int)
{
    grid_sync(e.network.barrier);
    for (int i = threadIdx.x; i < int(sizeof(Heads) / sizeof(float4)); i += THREADS)
        ((float4 *)&e.s.heads)[i] = __ldcg((const float4 *)e.network.heads + i);
    __syncthreads();
}

__device__ __forceinline__ void begin_exchange(const Exchange &) { __syncthreads(); }
__device__ __forceinline__ void end_exchange() {}

#endif

// ------------------------------------------------------------------------------------------------
// Pixels. gather deals them out beforehand, transposed, so that in the loop a thread gets 16 samples
// of one pixel with one load.

constexpr int CHUNK = 16;
constexpr int CHUNKS = SLICE * (N / CHUNK);              // of a batch, for a block
constexpr int LOADS = ceil_div(CHUNKS, THREADS);         // for a thread

extern "C" __global__ void gather(Args a)
{
    const int chunks = a.updates * BLOCKS * CHUNKS, blocks = ceil_div(chunks, blockDim.x);
    const Network &network = a.networks[blockIdx.x / blocks];
    const int i = blockIdx.x % blocks * blockDim.x + threadIdx.x;
    if (i >= chunks)
        return;
    const int t = i / (BLOCKS * CHUNKS), input = i / (N / CHUNK) % (BLOCKS * SLICE);
    const int first_sample = i % (N / CHUNK) * CHUNK;
    unsigned words[CHUNK / 4] = {};
#pragma unroll
    for (int s = 0; s < CHUNK; ++s) {
        const int sample = first_sample + s, place = t * BATCH + sample;
        const bool exists = sample < BATCH && place < a.samples;
        const int number = exists ? network.order[place] : -1;
        if (exists && input < INPUTS)
            words[s / 4] |= unsigned(a.images[size_t(number) * INPUTS + input]) << s % 4 * 8;
        if (input == 0)
            network.labels[t * N + sample] = exists ? a.labels[number] : -1;
    }
    ((uint4 *)network.pixels)[i] = make_uint4(words[0], words[1], words[2], words[3]);
}

// This thread's chunks of update t.
__device__ __forceinline__ void load_pixels(uint4 (&pixels)[LOADS], const Exchange &e, int t)
{
    const uint4 *own = (const uint4 *)e.network.pixels + (size_t(t) * BLOCKS + e.rank) * CHUNKS;
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
        const int chunk = threadIdx.x + i * THREADS;
        if (chunk < CHUNKS)
            pixels[i] = own[chunk];
    }
}

__device__ __forceinline__ float4 to_inputs(unsigned four, const Args &a)
{
    return make_float4(to_input(four & 255, a.scale, a.shift),
                       to_input(four >> 8 & 255, a.scale, a.shift),
                       to_input(four >> 16 & 255, a.scale, a.shift),
                       to_input(four >> 24, a.scale, a.shift));
}

// Into x; the rows of the bias and of padding stay as they are.
__device__ __forceinline__ void unpack(float (&x)[ROWS][N + 4], const uint4 (&pixels)[LOADS],
                                       const Args &a, int rank)
{
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
        const int chunk = threadIdx.x + i * THREADS, row = chunk / (N / CHUNK);
        if (chunk < CHUNKS && rank * SLICE + row < INPUTS) {
            float4 *to = (float4 *)&x[row][chunk % (N / CHUNK) * CHUNK];
            to[0] = to_inputs(pixels[i].x, a);
            to[1] = to_inputs(pixels[i].y, a);
            to[2] = to_inputs(pixels[i].z, a);
            to[3] = to_inputs(pixels[i].w, a);
        }
    }
}

// ------------------------------------------------------------------------------------------------
// 1. linear_forward of the first layer, over the block's own inputs: tiles of 4 samples and 4 units.
// Two neighbouring threads share a tile, each with half of the rows; then each completes two of its
// samples and sends them to their owner.

__device__ __forceinline__ float get(float4 v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

__device__ __forceinline__ float4 to_float4(const float (&v)[4])
{
    return make_float4(v[0], v[1], v[2], v[3]);
}

__device__ __forceinline__ void forward(const Exchange &e, const float (&x)[ROWS][N + 4])
{
    constexpr int TILES = (N / 4) * (H / 4);
    for (int i = threadIdx.x; i < round_up(2 * TILES, WARP); i += THREADS) {
        const int half = i % 2, tile = min(i / 2, TILES - 1);
        // A warp has 8 tiles of samples by 2 of units, which spares its loads from shared memory.
        const int unit = tile / 8 % (H / 4) * 4;
        const int sample = (tile / (8 * (H / 4)) * 8 + tile % 8) * 4;

        float sum[4][4] = {};
#pragma unroll 5
        for (int k = half * (ROWS / 2); k < (half + 1) * (ROWS / 2); ++k) {
            const float4 samples = *(const float4 *)&x[k][sample];
            const float4 units = *(const float4 *)&e.s.w1[k][unit];
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int u = 0; u < 4; ++u)
                    sum[j][u] += get(samples, j) * get(units, u);
        }

        // Lane 2q keeps samples 0 and 1 of the tile, lane 2q + 1 the other two.
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            float total[4];
#pragma unroll
            for (int u = 0; u < 4; ++u) {
                const float kept = half ? sum[j + 2][u] : sum[j][u];
                const float given = half ? sum[j][u] : sum[j + 2][u];
                total[u] = kept + __shfl_xor_sync(ALL_LANES, given, 1);
            }
            if (i / 2 < TILES)
                send_partial(e, sample + 2 * half + j, unit, to_float4(total));
        }
    }
}

// ------------------------------------------------------------------------------------------------
// 2. relu_forward, linear_forward of the second layer, cross_entropy_forward and _backward, for the
// block's own samples. A warp has a sample; its lanes share out the units, four each, and every lane
// has all logits. Of a sample that does not exist all units are 0, or else its logits, which may
// overflow though no others do, would make nan of gradients in spite of the factor 0.

constexpr int GROUPS = ceil_div(H / 4, WARP);   // of four units, for a lane

__device__ __forceinline__ float hidden_unit(float z, int unit)
{
    return unit < UNITS ? relu_forward(z) : unit == UNITS ? 1.0f : 0.0f;
}

__device__ __forceinline__ float4 hidden_units(const Exchange &e, int own, int unit, bool exists)
{
    float4 z = received_partial(e, 0, own, unit);
#pragma unroll
    for (int from = 1; from < BLOCKS; ++from) {
        const float4 part = received_partial(e, from, own, unit);
        z.x += part.x;
        z.y += part.y;
        z.z += part.z;
        z.w += part.w;
    }
    unit = exists ? unit : H;    // as if it were past the last
    return make_float4(hidden_unit(z.x, unit), hidden_unit(z.y, unit + 1),
                       hidden_unit(z.z, unit + 2), hidden_unit(z.w, unit + 3));
}

constexpr int SAMPLES_OF_WARP = ceil_div(SAMPLES, WARPS);

// Of this warp's samples of update t.
__device__ __forceinline__ void load_labels(int (&labels)[SAMPLES_OF_WARP], const Exchange &e, int t)
{
#pragma unroll
    for (int i = 0; i < SAMPLES_OF_WARP; ++i) {
        const int own = threadIdx.x / WARP + i * WARPS;
        if (own < SAMPLES)
            labels[i] = e.network.labels[t * N + e.rank * SAMPLES + own];
    }
}

__device__ __forceinline__ void head(const Exchange &e, const int (&labels)[SAMPLES_OF_WARP],
                                     const Step &step, int t)
{
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < SAMPLES_OF_WARP; ++j) {
        const int own = threadIdx.x / WARP + j * WARPS, sample = e.rank * SAMPLES + own;
        const int label = labels[j];
        if (own >= SAMPLES)
            break;

        float z[CLASSES] = {};
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) {
            const int unit = 4 * (lane + i * WARP);
            if (unit < H) {
                const float4 y = hidden_units(e, own, unit, label >= 0);
                send_to_all(e, &e.s.heads.hidden[sample][unit], y);
#pragma unroll
                for (int c = 0; c < CLASSES; ++c) {
                    const float4 w = *(const float4 *)&e.s.w2[c][unit];
                    z[c] += y.x * w.x + y.y * w.y + y.z * w.z + y.w * w.w;
                }
            }
        }
#pragma unroll
        for (int c = 0; c < CLASSES; ++c)
            z[c] = warp_sum(z[c]);

        const float loss = cross_entropy(z, label, label < 0 ? 0.0f : step.inverse_n);
        if (lane == 0 && label >= 0)
            e.network.losses[t * BATCH + sample] = loss;
        // Lane q sends the classes 4q to 4q + 3.
        float grad[4] = {};
#pragma unroll
        for (int c = 0; c < CLASSES; ++c)
            grad[c % 4] = lane == c / 4 ? z[c] : grad[c % 4];
        if (lane < C / 4)
            send_to_all(e, &e.s.heads.grad_logits[sample][4 * lane], to_float4(grad));
    }
}

// ------------------------------------------------------------------------------------------------
// 3. linear_backward of the second layer for its input, and relu_backward, for all samples. The unit
// that is always 1 gets a gradient too, and weights by it, which nothing reads.

__device__ __forceinline__ void backward(Shared &s)
{
    for (int i = threadIdx.x; i < N * (H / 4); i += THREADS) {
        const int sample = i / (H / 4), unit = i % (H / 4) * 4;
        float4 grad = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int c = 0; c < CLASSES; ++c) {
            const float g = s.heads.grad_logits[sample][c];
            const float4 w = *(const float4 *)&s.w2[c][unit];
            grad.x += g * w.x;
            grad.y += g * w.y;
            grad.z += g * w.z;
            grad.w += g * w.w;
        }
        const float4 y = *(const float4 *)&s.heads.hidden[sample][unit];
        *(float4 *)&s.grad_hidden[sample][unit] =
            make_float4(relu_backward(grad.x, y.x), relu_backward(grad.y, y.y),
                        relu_backward(grad.z, y.z), relu_backward(grad.w, y.w));
    }
}

// ------------------------------------------------------------------------------------------------
// 4. linear_backward for the parameters, and Adam.update. The block's rows of W1, and then W2, are
// cut into tiles of HEIGHT rows (inputs or classes) and 4 units. A thread has the same tiles in every
// update, and their m and v in registers.

constexpr int WIDTH = H / 4;
constexpr int HEIGHT = ROWS / 4 * WIDTH <= THREADS / 2 ? 2 : 4;
constexpr int W1_TILES = ROWS / HEIGHT * WIDTH, TILES = W1_TILES + C / HEIGHT * WIDTH;
constexpr int TILES_OF_THREAD = ceil_div(TILES, THREADS);
static_assert(TILES_OF_THREAD <= 2, "m and v must fit into registers: see cuda_epoch.py");
static_assert(C / 4 <= WARP, "head: the lanes of a warp send four classes each");
static_assert(N % 32 == 0, "forward: a warp has 8 tiles of samples");

struct Tile {
    bool exists, of_w1;
    int row, unit;               // where it begins
};

__device__ __forceinline__ Tile tile_of_thread(int i)
{
    const int tile = threadIdx.x + i * THREADS;
    const bool of_w1 = tile < W1_TILES;
    const int within = of_w1 ? tile : tile - W1_TILES;
    return {tile < TILES, of_w1, within / WIDTH * HEIGHT, within % WIDTH * 4};
}

// The place in the flat buffers of a weight in shared memory; -1 for padding.
__device__ __forceinline__ int place_in_w1(int rank, int row, int unit)
{
    const int input = rank * SLICE + row;
    if (row >= SLICE || input > INPUTS || unit >= UNITS)
        return -1;
    return input < INPUTS ? unit * INPUTS + input : UNITS * INPUTS + unit;
}

__device__ __forceinline__ int place_in_w2(int c, int unit)
{
    constexpr int W2 = UNITS * INPUTS + UNITS, B2 = W2 + CLASSES * UNITS;
    if (c >= CLASSES || unit > UNITS)
        return -1;
    return unit < UNITS ? W2 + c * UNITS + unit : B2 + c;
}

__device__ __forceinline__ int place_of(const Tile &tile, int rank, int i, int j)
{
    return tile.of_w1 ? place_in_w1(rank, tile.row + i, tile.unit + j)
                      : place_in_w2(tile.row + i, tile.unit + j);
}

__device__ __forceinline__ void add_product(float (&sum)[4], float x, float4 grad)
{
    sum[0] += x * grad.x;
    sum[1] += x * grad.y;
    sum[2] += x * grad.z;
    sum[3] += x * grad.w;
}

// grad_W1, of the tile's inputs and units.
__device__ __forceinline__ void gradient_of_w1(float (&sum)[HEIGHT][4], const Shared &s,
                                               const float (&x)[ROWS][N + 4], const Tile &tile)
{
#pragma unroll 2
    for (int n = 0; n < N; n += 4) {
        float4 inputs[HEIGHT];
#pragma unroll
        for (int i = 0; i < HEIGHT; ++i)
            inputs[i] = *(const float4 *)&x[tile.row + i][n];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const float4 grad = *(const float4 *)&s.grad_hidden[n + k][tile.unit];
#pragma unroll
            for (int i = 0; i < HEIGHT; ++i)
                add_product(sum[i], get(inputs[i], k), grad);
        }
    }
}

// grad_W2, of the tile's classes and units.
__device__ __forceinline__ void gradient_of_w2(float (&sum)[HEIGHT][4], const Shared &s,
                                               const Tile &tile)
{
#pragma unroll 4
    for (int n = 0; n < N; ++n) {
        const float4 y = *(const float4 *)&s.heads.hidden[n][tile.unit];
#pragma unroll
        for (int i = 0; i < HEIGHT; ++i)
            add_product(sum[i], s.heads.grad_logits[n][tile.row + i], y);
    }
}

struct Moments {
    float m[TILES_OF_THREAD][HEIGHT][4], v[TILES_OF_THREAD][HEIGHT][4];
};

__device__ __forceinline__ void update(Shared &s, const float (&x)[ROWS][N + 4], Moments &moments,
                                       const Optimizer &optimizer, const Step &step)
{
#pragma unroll
    for (int q = 0; q < TILES_OF_THREAD; ++q) {
        const Tile tile = tile_of_thread(q);
        if (!tile.exists)
            continue;
        float grad[HEIGHT][4] = {};
        if (tile.of_w1)
            gradient_of_w1(grad, s, x, tile);
        else
            gradient_of_w2(grad, s, tile);
        float(*w)[H] = tile.of_w1 ? &s.w1[tile.row] : &s.w2[tile.row];
#pragma unroll
        for (int i = 0; i < HEIGHT; ++i) {
            float4 *four = (float4 *)&w[i][tile.unit];
            float p[4];
#pragma unroll
            for (int j = 0; j < 4; ++j)
                p[j] = adam(get(*four, j), grad[i][j], moments.m[q][i][j], moments.v[q][i][j],
                            optimizer, step);
            *four = to_float4(p);
        }
    }
}

// ------------------------------------------------------------------------------------------------
// The model comes onto the chip, and goes back.

__device__ __forceinline__ void load_model(const Exchange &e, Moments &moments)
{
    Shared &s = e.s;
    for (int i = threadIdx.x; i < ROWS * H; i += THREADS) {
        const int place = place_in_w1(e.rank, i / H, i % H);
        s.w1[i / H][i % H] = place < 0 ? 0.0f : e.network.p[place];
    }
    for (int i = threadIdx.x; i < C * H; i += THREADS) {
        const int place = place_in_w2(i / H, i % H);
        s.w2[i / H][i % H] = place < 0 ? 0.0f : e.network.p[place];
    }
    for (int i = threadIdx.x; i < BUFFERS * ROWS * (N + 4); i += THREADS) {
        const int row = i / (N + 4) % ROWS;
        const bool is_bias = row < SLICE && e.rank * SLICE + row == INPUTS;
        s.x[i / (ROWS * (N + 4))][row][i % (N + 4)] = is_bias ? 1.0f : 0.0f;
    }
#pragma unroll
    for (int q = 0; q < TILES_OF_THREAD; ++q)
#pragma unroll
        for (int i = 0; i < HEIGHT; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const Tile tile = tile_of_thread(q);
                const int place = tile.exists ? place_of(tile, e.rank, i, j) : -1;
                moments.m[q][i][j] = place < 0 ? 0.0f : e.network.m[place];
                moments.v[q][i][j] = place < 0 ? 0.0f : e.network.v[place];
            }
}

// Each thread stores its tiles; of W2, which all blocks have, those of the first block.
__device__ __forceinline__ void store_model(const Exchange &e, const Moments &moments)
{
#pragma unroll
    for (int q = 0; q < TILES_OF_THREAD; ++q)
#pragma unroll
        for (int i = 0; i < HEIGHT; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const Tile tile = tile_of_thread(q);
                const int place = tile.exists ? place_of(tile, e.rank, i, j) : -1;
                if (place < 0 || !(tile.of_w1 || e.rank == 0))
                    continue;
                const float(*w)[H] = tile.of_w1 ? &e.s.w1[tile.row] : &e.s.w2[tile.row];
                e.network.p[place] = w[i][tile.unit + j];
                e.network.m[place] = moments.m[q][i][j];
                e.network.v[place] = moments.v[q][i][j];
            }
}

// ------------------------------------------------------------------------------------------------

#if CLUSTER
#define IN_CLUSTERS __cluster_dims__(BLOCKS, 1, 1)
#else
#define IN_CLUSTERS
#endif

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS, 1) train(Args a)
{
    SHARED(Shared, s);
    const Exchange e = {s, a.networks[blockIdx.x / BLOCKS], rank_of_block()};
    Moments moments;
    uint4 pixels[LOADS];

    load_model(e, moments);
    load_pixels(pixels, e, 0);
    __syncthreads();
    unpack(s.x[0], pixels, a, e.rank);
    begin_exchange(e);

    for (int t = 0; t < a.updates; ++t) {
        float(&x)[ROWS][N + 4] = s.x[t % BUFFERS];
        const Step step = e.network.steps[t];
        const bool more = t + 1 < a.updates;
        if (more)
            load_pixels(pixels, e, t + 1);

        forward(e, x);
        if (BUFFERS == 2 && more)
            unpack(s.x[(t + 1) % 2], pixels, a, e.rank);    // while partial sums are under way
        int labels[SAMPLES_OF_WARP];
        load_labels(labels, e, t);    // which are there when the wait is over
        receive_partial(e, t);
        head(e, labels, step, t);
        receive_heads(e, t);
        backward(s);
        __syncthreads();
        update(s, x, moments, a.optimizer, step);
        __syncthreads();

        if (BUFFERS == 1 && more) {
            unpack(s.x[0], pixels, a, e.rank);
            __syncthreads();
        }
    }
    store_model(e, moments);
    end_exchange();
}
