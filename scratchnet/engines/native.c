/* The training step of `layers` in C: many steps of Mnist_NN in one call, on one core or several.
 *
 * Read it beside scratchnet/functional.py. Each function here carries the names of those that it
 * fuses; the formulas are theirs and are not derived again. What is added is where things lie:
 *
 *   x       (N, D)   a sample a row, of CHUNK samples at a time
 *   w1      (H, D)   a hidden unit a row
 *   h, dh   (H, N)   transposed: N lies in the lanes of a vector
 *   z       (C, N)   transposed; logits, then their gradient
 *   w2      (C, H)   a class a row
 *
 * - A bias is the weight of an input that is always 1: column D of x, and a last row of h. So it
 *   needs no code of its own, neither forward nor backward nor in Adam.
 * - Rows are padded with zeros to whole vectors and tiles, so that no loop has a remainder. Padding
 *   stays 0: its gradient is 0, its moments are, and Adam's step from them is.
 * - Every product is made of tiles of ROWS rows whose sums stay in registers. There are two kinds:
 *   `dot_products`, where both sides run along the sum, and `outer_products`, where one side runs
 *   along the result.
 *
 * Who owns what: each thread owns some hidden units, whose rows of w1, m, v and gradient so stay in
 * its core's cache. Each gathers all of x and computes all of the small second layer for itself,
 * which is cheaper than to exchange them. What they exchange is h, once a chunk:
 *
 *   thread 0:  gather  forward, rows 0-24   |  logits, loss, z   backward, Adam, rows 0-24
 *   thread 1:  gather  forward, rows 25-49  |  logits, loss, z   backward, Adam, rows 25-49
 *                                        all wait
 *
 * h has two buffers that take turns, so one wait is enough: nobody can overwrite the h of a chunk
 * before all have left it. Each number is computed by the same operations whoever owns it, so the
 * results don't depend on the number of threads, to the last bit.
 *
 * Compiled with -DREAL=float or -DREAL=double. */

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <tgmath.h>
#include <time.h>

typedef REAL real;
typedef int64_t integer;

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* ---------------------------------------------------------------- vectors, as wide as the CPU's */

#if defined(__AVX512F__)
#define BYTES 64
#define REGISTERS 32
#elif defined(__AVX__)
#define BYTES 32
#define REGISTERS 16
#elif defined(__aarch64__)
#define BYTES 16
#define REGISTERS 32
#else
#define BYTES 16
#define REGISTERS 16
#endif

enum {
    LANES = BYTES / sizeof(real),
    ROWS = 5, /* of every tile */
    /* Its columns, as many as leave registers for the factors: of dot products, and of outer
     * products along D and along N. */
    DOTS = REGISTERS == 32 ? 4 : 2,
    WIDE = REGISTERS == 32 ? 5 : 2,
    NARROW = REGISTERS == 32 ? 4 : 2,
    CHUNK = 64, /* samples; a multiple of NARROW * LANES */
    UNIT = 16,  /* a multiple of LANES and of DOTS */
    CACHE_LINE = 64,
    MOST_THREADS = 64,
};

#define VECTOR(name, bytes) typedef real name __attribute__((vector_size(bytes), may_alias))
VECTOR(vec, BYTES);
VECTOR(vec32, 32);
VECTOR(vec16, 16);

INLINE vec load(const real *at) { return *(const vec *)at; }
INLINE void store(real *at, vec x) { *(vec *)at = x; }

/* Keep a vector in its register. GCC would read it from memory again for each use. */
#if defined(__x86_64__)
#define KEEP(x) __asm__("" : "+v"(x))
#elif defined(__aarch64__)
#define KEEP(x) __asm__("" : "+w"(x))
#else
#define KEEP(x)
#endif

/* The sum of a vector's numbers: of its halves, and of theirs. */
INLINE real sum_of_lanes(vec x)
{
    union {
        vec whole;
        vec32 half[(BYTES + 31) / 32];
        vec16 quarter[BYTES / 16];
        real lane[LANES];
    } y = {x};
#if BYTES == 64
    y.half[0] += y.half[1];
#endif
#if BYTES >= 32
    y.quarter[0] += y.quarter[1];
#endif
    for (int last = 16 / sizeof(real) / 2; last; last /= 2)
        UNROLL for (int i = 0; i < last; i++) y.lane[i] += y.lane[i + last];
    return y.lane[0];
}

/* sum[r][c] = Σ_k left[r, k] · right[c, k], k < count. */
INLINE void dot_products(real sum[ROWS][DOTS], const real *left, integer left_stride,
                         const real *right, integer right_stride, integer count)
{
    vec part[ROWS][DOTS] = {0};
    for (integer k = 0; k < count; k += LANES) {
        vec column[DOTS];
        UNROLL for (int c = 0; c < DOTS; c++) column[c] = load(right + c * right_stride + k);
        UNROLL for (int r = 0; r < ROWS; r++) {
            vec row = load(left + r * left_stride + k);
            KEEP(row);
            UNROLL for (int c = 0; c < DOTS; c++) part[r][c] += row * column[c];
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int c = 0; c < DOTS; c++) sum[r][c] = sum_of_lanes(part[r][c]);
}

/* sum[r][c] += Σ_k left[r, k] · right[k, c], k < count, where c counts vectors. */
INLINE void outer_products(vec sum[ROWS][WIDE], int columns, const real *left, integer left_stride,
                           integer left_step, const real *right, integer right_stride,
                           integer count)
{
    for (integer k = 0; k < count; k++) {
        real row[ROWS];
        UNROLL for (int r = 0; r < ROWS; r++) row[r] = left[r * left_stride + k * left_step];
        UNROLL for (int c = 0; c < columns; c++) {
            vec column = load(right + k * right_stride + c * LANES);
            UNROLL for (int r = 0; r < ROWS; r++) sum[r][c] += row[r] * column;
        }
    }
}

/* -------------------------------------------------------------------------------- what is given */

/* A stretch of a run, within one epoch; native.py fills it in. */
typedef struct {
    integer inputs, hidden, classes;    /* D, H, C */
    integer samples, batch_size, steps; /* of the stretch; its last batch may be smaller */
    const uint8_t *images;              /* (all, D) */
    const integer *labels;              /* (all,) */
    const integer *order;               /* (samples,) which of them, in turn */
    double scale, shift;                /* an input is scale · pixel + shift */
    real *p, *m, *v;                    /* flat: w1, b1, w2, b2, and Adam's moments */
    const double *lrs;                  /* (steps,) */
    double beta1, beta2, eps, weight_decay;
    integer t;     /* how many steps Adam has made */
    integer renew; /* whether each step has a new Adam */
    double *losses;  /* (steps,) */
    double *seconds; /* (STAGES,) where thread 0's time went is added there; or NULL */
    char *arena;     /* (arena_size,) zeros at first, then as the last call has left it */
    integer threads; /* 1 to MOST_THREADS; fewer if the system gives no more */
} Stretch;

enum { GATHER, FORWARD, HEAD, BACKWARD, ADAM, WAIT, STAGES };

typedef struct {
    const Stretch *run;
    integer threads;
    integer wide, high, tall, classes; /* D + 1, H, H + 1 and C, padded */
    real *w1, *m1, *v1, *g1;           /* (high, wide) */
    real *h[2], *dh;                   /* (tall, CHUNK) */
    _Atomic integer ready, arrived, turn;
} Team;

typedef struct {
    Team *team;
    integer index, first, last; /* the hidden units it owns, in whole tiles */
    real *x, *z;                /* (CHUNK, wide), (classes, CHUNK) */
    real *w2, *m2, *v2, *g2;    /* (classes, tall) */
    struct timespec clock;
    pthread_t thread;
} Worker;

typedef struct {
    real keep1, take1, keep2, take2, rate, eps, shrink;
} Rates;

/* ----------------------------------------------------------------------------- stages of a step */

/* Normalization, of the images of a chunk; the next one's are called to the cache. */
static void gather(const Stretch *run, integer start, integer n, integer ahead, real *x,
                   integer wide)
{
    const real scale = run->scale, shift = run->shift;
    for (integer b = 0; b < n; b++) {
        const uint8_t *restrict image = run->images + run->order[start + b] * run->inputs;
        real *restrict row = x + b * wide;
        for (integer d = 0; d < run->inputs; d++) row[d] = image[d] * scale + shift;
        if (b < ahead) {
            const uint8_t *next = run->images + run->order[start + n + b] * run->inputs;
            for (integer d = 0; d < run->inputs; d += CACHE_LINE) __builtin_prefetch(next + d);
        }
    }
}

/* linear_forward and relu_forward, of the own units: h = max(0, w1 x). */
static void linear_relu_forward(const Worker *self, integer n, real *h)
{
    const Team *team = self->team;
    for (integer row = self->first; row < self->last; row += ROWS)
        for (integer b = 0; b < n; b += DOTS) {
            real y[ROWS][DOTS];
            dot_products(y, team->w1 + row * team->wide, team->wide, self->x + b * team->wide,
                         team->wide, team->wide);
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int c = 0; c < DOTS; c++)
                    h[(row + r) * CHUNK + b + c] = y[r][c] < 0 ? 0 : y[r][c];
        }
}

/* linear_forward: the logits z = w2 h. */
static void linear_forward(const Worker *self, integer n, const real *h)
{
    const Team *team = self->team;
    for (integer row = 0; row < team->classes; row += ROWS)
        for (integer b = 0; b < n; b += NARROW * LANES) {
            vec y[ROWS][WIDE] = {0};
            outer_products(y, NARROW, self->w2 + row * team->tall, team->tall, 1, h + b, CHUNK,
                           team->high + 1);
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int c = 0; c < NARROW; c++)
                    store(self->z + (row + r) * CHUNK + b + c * LANES, y[r][c]);
        }
}

/* cross_entropy_forward and cross_entropy_backward: returns the sum of the losses of n samples, and
 * leaves (softmax - one_hot) / batch in z, with 0 for the samples that are padding. */
static double cross_entropy(const Stretch *run, const integer *order, integer n, integer batch,
                            real *z)
{
    real top[CHUNK], sum[CHUNK] = {0};
    double loss = 0;
    memcpy(top, z, sizeof top);
    for (integer c = 1; c < run->classes; c++)
        for (integer b = 0; b < CHUNK; b++)
            top[b] = z[c * CHUNK + b] > top[b] ? z[c * CHUNK + b] : top[b];
    for (integer b = 0; b < n; b++) loss -= z[run->labels[order[b]] * CHUNK + b] - top[b];
    for (integer c = 0; c < run->classes; c++)
        for (integer b = 0; b < CHUNK; b++) {
            real e = exp(z[c * CHUNK + b] - top[b]);
            z[c * CHUNK + b] = e;
            sum[b] += e;
        }
    for (integer b = 0; b < n; b++) loss += log((double)sum[b]);
    for (integer b = 0; b < CHUNK; b++) sum[b] = b < n ? 1 / (sum[b] * batch) : 0;
    for (integer c = 0; c < run->classes; c++)
        for (integer b = 0; b < CHUNK; b++) z[c * CHUNK + b] *= sum[b];
    for (integer b = 0; b < n; b++) z[run->labels[order[b]] * CHUNK + b] -= (real)1 / batch;
    return loss;
}

/* linear_backward and relu_backward, to the own hidden units: dh = w2ᵀ z where h > 0. */
static void linear_relu_backward(const Worker *self, integer n, const real *h)
{
    const Team *team = self->team;
    for (integer row = self->first; row < self->last; row += ROWS)
        for (integer b = 0; b < n; b += NARROW * LANES) {
            vec grad[ROWS][WIDE] = {0};
            outer_products(grad, NARROW, self->w2 + row, 1, team->tall, self->z + b, CHUNK,
                           team->classes);
            real *to = team->dh + row * CHUNK + b;
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int c = 0; c < NARROW; c++)
                    store(to + r * CHUNK + c * LANES, grad[r][c]);
        }
    for (integer i = self->first * CHUNK; i < self->last * CHUNK; i++)
        team->dh[i] = h[i] <= 0 ? 0 : team->dh[i];
}

/* linear_backward, to the own rows of w1: g1 = dh x, added to what earlier chunks have left. */
static void linear_backward_1(const Worker *self, integer n, int add)
{
    const Team *team = self->team;
    for (integer d = 0; d < team->wide; d += WIDE * LANES)
        for (integer row = self->first; row < self->last; row += ROWS) {
            real *g = team->g1 + row * team->wide + d;
            vec grad[ROWS][WIDE] = {0};
            outer_products(grad, WIDE, team->dh + row * CHUNK, CHUNK, 1, self->x + d, team->wide,
                           n);
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int c = 0; c < WIDE; c++) {
                    real *to = g + r * team->wide + c * LANES;
                    if (add) grad[r][c] += load(to);
                    store(to, grad[r][c]);
                }
        }
}

/* linear_backward, to w2: g2 = z hᵀ. */
static void linear_backward_2(const Worker *self, const real *h, int add)
{
    const Team *team = self->team;
    for (integer row = 0; row < team->classes; row += ROWS)
        for (integer unit = 0; unit < team->tall; unit += DOTS) {
            real grad[ROWS][DOTS];
            dot_products(grad, self->z + row * CHUNK, CHUNK, h + unit * CHUNK, CHUNK, CHUNK);
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int c = 0; c < DOTS; c++) {
                    real *to = self->g2 + (row + r) * team->tall + unit + c;
                    *to = add ? *to + grad[r][c] : grad[r][c];
                }
        }
}

/* The factors of Adam's step t: p -= lr/c1 · m / (√v / c2 + eps), where c1 = 1 - β1ᵗ and c2 =
 * √(1 - β2ᵗ), is p -= (lr c2/c1) · m / (√v + eps c2). A new Adam forgets its moments; t is 1. */
static Rates rates_of(const Stretch *run, integer step)
{
    double t = run->renew ? 1 : run->t + step + 1, lr = run->lrs[step];
    double c1 = 1 - pow(run->beta1, t), c2 = sqrt(1 - pow(run->beta2, t));
    return (Rates){
        .keep1 = run->renew ? 0 : run->beta1,
        .take1 = 1 - run->beta1,
        .keep2 = run->renew ? 0 : run->beta2,
        .take2 = 1 - run->beta2,
        .rate = lr * c2 / c1,
        .eps = run->eps * c2,
        .shrink = 1 - lr * run->weight_decay,
    };
}

/* Adam.update, or AdamW's. */
static void adam(real *restrict p, real *restrict m, real *restrict v, const real *restrict g,
                 integer count, Rates by)
{
    for (integer i = 0; i < count; i++) {
        m[i] = by.keep1 * m[i] + by.take1 * g[i];
        v[i] = by.keep2 * v[i] + by.take2 * g[i] * g[i];
        p[i] = by.shrink * p[i] - by.rate * m[i] / (sqrt(v[i]) + by.eps);
    }
}

/* ----------------------------------------------------------------------------- threads and time */

/* Wait until all threads are here. They spin, since it takes less than a microsecond, but not for
 * long where the others' cores are busy with other work. */
static void wait_for_all(Team *team)
{
    const integer turn = atomic_load_explicit(&team->turn, memory_order_acquire);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == team->threads) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->turn, turn + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->turn, memory_order_acquire) == turn; spins++)
        if (spins > 10000) sched_yield();
}

/* Add the time since the last call to a stage's, if anybody wants to know. */
static void note(Worker *self, int stage)
{
    if (!self->team->run->seconds || self->index) return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    self->team->run->seconds[stage] +=
        (now.tv_sec - self->clock.tv_sec) + 1e-9 * (now.tv_nsec - self->clock.tv_nsec);
    self->clock = now;
}

/* Subnormal numbers, which moments become as they fade away, make some processors many times
 * slower. Let them be 0. Returns what the setting was. */
#if defined(__SSE2__)
#include <immintrin.h>
static uint64_t flush_subnormals(void)
{
    unsigned was = _mm_getcsr();
    _mm_setcsr(was | 0x8040); /* flush to zero, denormals are zero */
    return was;
}
static void restore(uint64_t was) { _mm_setcsr((unsigned)was); }
#elif defined(__aarch64__)
static uint64_t flush_subnormals(void)
{
    uint64_t was;
    __asm__ volatile("mrs %0, fpcr" : "=r"(was));
    __asm__ volatile("msr fpcr, %0" : : "r"(was | (uint64_t)1 << 24));
    return was;
}
static void restore(uint64_t was) { __asm__ volatile("msr fpcr, %0" : : "r"(was)); }
#else
static uint64_t flush_subnormals(void) { return 0; }
static void restore(uint64_t was) { (void)was; }
#endif

/* ------------------------------------------------------------------------------------- the loop */

static void work(Worker *self)
{
    Team *team = self->team;
    const Stretch *run = team->run;
    const uint64_t setting = flush_subnormals();
    integer chunks = 0;
    clock_gettime(CLOCK_MONOTONIC, &self->clock);
    for (integer step = 0; step < run->steps; step++) {
        const integer start = step * run->batch_size, left = run->samples - start;
        const integer batch = left < run->batch_size ? left : run->batch_size;
        double loss = 0;
        for (integer done = 0; done < batch; done += CHUNK) {
            const integer n = batch - done < CHUNK ? batch - done : CHUNK;
            const integer rest = left - done - n, ahead = rest < n ? rest : n;
            real *h = team->h[chunks++ % 2];
            gather(run, start + done, n, ahead, self->x, team->wide);
            note(self, GATHER);
            linear_relu_forward(self, n, h);
            note(self, FORWARD);
            wait_for_all(team);
            note(self, WAIT);
            linear_forward(self, n, h);
            loss += cross_entropy(run, run->order + start + done, n, batch, self->z);
            note(self, HEAD);
            linear_relu_backward(self, n, h);
            linear_backward_1(self, n, done > 0);
            linear_backward_2(self, h, done > 0);
            note(self, BACKWARD);
        }
        const Rates by = rates_of(run, step);
        const integer own = self->first * team->wide, size = self->last * team->wide - own;
        adam(team->w1 + own, team->m1 + own, team->v1 + own, team->g1 + own, size, by);
        adam(self->w2, self->m2, self->v2, self->g2, team->classes * team->tall, by);
        note(self, ADAM);
        if (self->index == 0) run->losses[step] = loss / batch;
    }
    restore(setting);
}

static void *start(void *worker)
{
    Worker *self = worker;
    while (!atomic_load_explicit(&self->team->ready, memory_order_acquire)) sched_yield();
    work(self);
    return NULL;
}

/* Copy a matrix with its bias between a flat array, (rows, columns) and then (rows,), and a padded
 * one whose bias is a column of its own. Returns where the flat array goes on. */
static real *copy(real *flat, real *padded, integer rows, integer columns, integer bias,
                  integer stride, int out)
{
    for (integer r = 0; r < rows; r++) {
        real *row = padded + r * stride, *weight = flat + r * columns;
        real *b = flat + rows * columns + r;
        memcpy(out ? weight : row, out ? row : weight, columns * sizeof(real));
        *(out ? b : row + bias) = *(out ? row + bias : b);
    }
    return flat + rows * (columns + 1);
}

static void copy_state(Team *team, Worker *worker, int out)
{
    const Stretch *run = team->run;
    real *flat[] = {run->p, run->m, run->v};
    real *first[] = {team->w1, team->m1, team->v1};
    real *second[] = {worker->w2, worker->m2, worker->v2};
    for (int i = 0; i < 3; i++) {
        real *rest =
            copy(flat[i], first[i], run->hidden, run->inputs, run->inputs, team->wide, out);
        copy(rest, second[i], run->classes, run->hidden, team->high, team->tall, out);
    }
}

static integer round_up(integer n, integer unit) { return (n + unit - 1) / unit * unit; }

/* The bytes left free behind each part of the arena. tests/native has some, and guards them. */
#ifndef AFTER_PART
#define AFTER_PART(part, size) 0
#endif

/* The next part of the arena, or with base NULL only its size. */
static real *take(char *base, integer *used, integer count)
{
    const integer size = count * sizeof(real);
    real *part = base ? (real *)(base + *used) : NULL;
    *used += round_up(size + AFTER_PART(part, size), CACHE_LINE);
    return part;
}

/* Divide the arena among so many threads. Returns the size of it all. */
static integer lay_out(const Stretch *run, integer threads, Team *team, Worker *workers)
{
    integer used = 0;
    char *base = run->arena;
    team->run = run;
    team->threads = threads;
    team->wide = round_up(run->inputs + 1, WIDE * LANES);
    team->high = round_up(run->hidden, ROWS);
    team->tall = round_up(team->high + 1, UNIT);
    team->classes = round_up(run->classes, ROWS);
    real **large[] = {&team->w1, &team->m1, &team->v1, &team->g1};
    for (int i = 0; i < 4; i++) *large[i] = take(base, &used, team->high * team->wide);
    real **activations[] = {&team->h[0], &team->h[1], &team->dh};
    for (int i = 0; i < 3; i++) *activations[i] = take(base, &used, team->tall * CHUNK);
    for (integer i = 0; i < threads; i++) {
        Worker *self = workers + i;
        self->index = i;
        self->first = team->high / ROWS * i / threads * ROWS;
        self->last = team->high / ROWS * (i + 1) / threads * ROWS;
        self->x = take(base, &used, CHUNK * team->wide);
        self->z = take(base, &used, team->classes * CHUNK);
        real **small[] = {&self->w2, &self->m2, &self->v2, &self->g2};
        for (int k = 0; k < 4; k++) *small[k] = take(base, &used, team->classes * team->tall);
    }
    return used;
}

/* How many bytes of arena a stretch needs; its pointers are not looked at. */
integer arena_size(const Stretch *run)
{
    Team team;
    Worker workers[MOST_THREADS];
    Stretch sizes = *run;
    sizes.arena = NULL;
    return lay_out(&sizes, run->threads, &team, workers);
}

/* Make the steps of a stretch. */
void train(const Stretch *run)
{
    Team team = {0};
    Worker workers[MOST_THREADS];
    for (integer i = 0; i < run->threads; i++) workers[i].team = &team;
    integer threads = 1;
    while (threads < run->threads &&
           !pthread_create(&workers[threads].thread, NULL, start, workers + threads))
        threads++;
    lay_out(run, threads, &team, workers);
    for (integer i = 0; i < threads; i++) {
        copy_state(&team, workers + i, 0);
        for (integer b = 0; b < CHUNK; b++) workers[i].x[b * team.wide + run->inputs] = 1;
    }
    for (int i = 0; i < 2; i++)
        for (integer b = 0; b < CHUNK; b++) team.h[i][team.high * CHUNK + b] = 1;
    atomic_store_explicit(&team.ready, 1, memory_order_release);
    work(workers);
    for (integer i = 1; i < threads; i++) pthread_join(workers[i].thread, NULL);
    copy_state(&team, workers, 1);
}
