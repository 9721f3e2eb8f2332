/* Trains on made-up data through many shapes, for the sanitizers to watch, and checks what needs no
 * second opinion: any number of threads and any cut into calls give the same bits, what is given
 * stays as it is, and padding stays 0.
 *
 * tests/test_native.py builds it with -DSOURCE='"native.c"' and the options of native.py. */

#define AFTER_PART(part, size) leave_gap(part, size)
static long leave_gap(void *part, long size);

#define _GNU_SOURCE
#include <pthread.h>

/* How many more threads there may be, as if the system were short of them. */
static int creatable;
#define pthread_create(...) (creatable-- > 0 ? (pthread_create)(__VA_ARGS__) : 1)

#include SOURCE
#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON 1
#endif
#endif

#ifdef POISON
void __asan_poison_memory_region(const volatile void *at, size_t size);
#endif

/* Behind each part of the arena lies a gap in which nobody has any business. */
static long leave_gap(void *part, long size)
{
    const long gap = 4 * CACHE_LINE;
    (void)part, (void)size;
#ifdef POISON
    if (part) __asan_poison_memory_region((char *)part + size, gap);
#endif
    return gap;
}

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))
/* 15 and 80 leave no row of h or of w2 to spare; 799 inputs, with the bias, leave none of w1. */
static const integer HIDDEN[] = {1, 4, 5, 6, 15, 50, 80, 83};
static const integer BATCH[] = {1, 3, 4, 63, 64, 65, 130};
static const integer INPUTS[] = {784, 1, 17, 799, 800};
static const integer CLASSES[] = {10, 1, 2, 5, 11, 16};
static const double LRS[] = {1e-2, 3e-3, 1e-3};
enum { STEPS = COUNT(LRS), THREADS = 5 };

static uint64_t state = 1;

/* 31 random bits, by Knuth's MMIX generator. */
static integer draw(void)
{
    state = state * 6364136223846793005 + 1442695040888963407;
    return (integer)(state >> 33);
}

/* A case: what is given, each array in memory of its own. */
typedef struct {
    Stretch run;
    integer all, parameters;
    uint8_t *images;
    integer *labels, *order;
    real *first; /* parameters */
} Case;

/* What a training leaves. p, m and v begin one number into their memory, so that they are aligned
 * as their type asks for and no better. */
typedef struct {
    real *p, *m, *v;
    double losses[STEPS], seconds[STAGES];
} Result;

static void fail(const Case *of, const char *what)
{
    const Stretch *run = &of->run;
    printf("D=%ld H=%ld C=%ld batch=%ld threads=%ld renew=%ld: %s\n", (long)run->inputs,
           (long)run->hidden, (long)run->classes, (long)run->batch_size, (long)run->threads,
           (long)run->renew, what);
    exit(1);
}

static Case make_case(integer inputs, integer hidden, integer classes, integer batch, integer renew)
{
    const integer samples = STEPS * batch - batch / 2; /* so the last batch is smaller */
    Case of = {.all = samples + 3, .parameters = hidden * (inputs + 1) + classes * (hidden + 1)};
    of.images = malloc(of.all * inputs);
    of.labels = malloc(of.all * sizeof(integer));
    of.order = malloc(samples * sizeof(integer));
    of.first = malloc(of.parameters * sizeof(real));
    for (integer i = 0; i < of.all * inputs; i++) of.images[i] = draw() % 3 ? 0 : draw() % 256;
    for (integer i = 0; i < of.all; i++) of.labels[i] = i ? draw() % classes : classes - 1;
    for (integer i = 0; i < samples; i++) of.order[i] = i ? draw() % of.all : 0;
    for (integer i = 0; i < of.parameters; i++) of.first[i] = draw() / 1e10 - 0.1;
    of.run = (Stretch){
        .inputs = inputs, .hidden = hidden, .classes = classes, .samples = samples,
        .batch_size = batch, .images = of.images, .labels = of.labels, .order = of.order,
        .scale = 1. / 255, .shift = -0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8,
        .weight_decay = 0.01, .renew = renew,
    };
    return of;
}

static void free_case(Case *of)
{
    free(of->images), free(of->labels), free(of->order), free(of->first);
}

static Result make_result(const Case *of)
{
    Result made = {0};
    real **each[] = {&made.p, &made.m, &made.v};
    for (int i = 0; i < 3; i++) *each[i] = (real *)calloc(of->parameters + 1, sizeof(real)) + 1;
    memcpy(made.p, of->first, of->parameters * sizeof(real));
    return made;
}

static void free_result(Result *made) { free(made->p - 1), free(made->m - 1), free(made->v - 1); }

/* FNV-1a of all that is given. */
static uint64_t checksum(const Case *of)
{
    const struct { const void *at; integer size; } given[] = {
        {of->images, of->all * of->run.inputs},
        {of->labels, of->all * sizeof(integer)},
        {of->order, of->run.samples * sizeof(integer)},
        {LRS, sizeof LRS},
    };
    uint64_t sum = 14695981039346656037u;
    for (int i = 0; i < COUNT(given); i++)
        for (integer k = 0; k < given[i].size; k++)
            sum = (sum ^ ((const uint8_t *)given[i].at)[k]) * 1099511628211u;
    return sum;
}

/* Whether rows x columns of a padded matrix are all that is not 0; column `bias` may be too. */
static int is_padded(const real *at, integer rows, integer columns, integer bias, integer all_rows,
                     integer stride)
{
    for (integer r = 0; r < all_rows; r++)
        for (integer c = 0; c < stride; c++)
            if ((r >= rows || (c >= columns && c != bias)) && at[r * stride + c] != 0) return 0;
    return 1;
}

static void check_padding(const Case *of)
{
    const Stretch *run = &of->run;
    Team team;
    Worker workers[MOST_THREADS];
    lay_out(run, run->threads, &team, workers);
    const real *large[] = {team.w1, team.m1, team.v1, team.g1};
    for (int i = 0; i < COUNT(large); i++)
        if (!is_padded(large[i], run->hidden, run->inputs, run->inputs, team.high, team.wide))
            fail(of, "the padding of the first layer is not 0");
    for (integer k = 0; k < run->threads; k++) {
        const real *small[] = {workers[k].w2, workers[k].m2, workers[k].v2, workers[k].g2};
        for (int i = 0; i < COUNT(small); i++)
            if (!is_padded(small[i], run->classes, run->hidden, team.high, team.classes, team.tall))
                fail(of, "the padding of the second layer is not 0");
    }
}

/* Make the steps in calls of so many, on one arena. */
static Result trained(Case *of, integer threads, integer steps_a_call, int timed)
{
    Result made = make_result(of);
    const integer samples = of->run.samples, batch = of->run.batch_size;
    Stretch *run = &of->run;
    run->threads = threads;
    const integer size = arena_size(run);
    run->arena = aligned_alloc(CACHE_LINE, size);
    memset(run->arena, 0, size);
    run->p = made.p, run->m = made.m, run->v = made.v;
    run->seconds = timed ? made.seconds : NULL;
    for (integer done = 0; done < STEPS; done += run->steps) {
        run->steps = STEPS - done < steps_a_call ? STEPS - done : steps_a_call;
        run->samples = run->steps * batch;
        if (run->samples > samples - done * batch) run->samples = samples - done * batch;
        run->order = of->order + done * batch;
        run->t = done;
        run->lrs = LRS + done;
        run->losses = made.losses + done;
        const Stretch before = *run;
        const int may = creatable;
        train(run);
        creatable = may;
        if (memcmp(run, &before, sizeof before)) fail(of, "what was asked for is not the same");
        check_padding(of);
    }
    run->samples = samples;
    free(run->arena);
    return made;
}

static void check_result(const Case *of, const Result *made, int timed)
{
    double seconds = 0;
    for (int i = 0; i < STAGES; i++) seconds += made->seconds[i];
    if ((seconds > 0) != timed) fail(of, "the seconds are wrong");
    for (int i = 0; i < STEPS; i++)
        if (!isfinite(made->losses[i])) fail(of, "a loss is not finite");
    if (!memcmp(made->p, of->first, of->parameters * sizeof(real))) fail(of, "nothing is learnt");
}

static void check_equal(const Case *of, const Result *a, const Result *b)
{
    const integer size = of->parameters * sizeof(real);
    if (memcmp(a->losses, b->losses, sizeof a->losses)) fail(of, "other losses");
    if (memcmp(a->p, b->p, size)) fail(of, "other parameters");
    if (memcmp(a->m, b->m, size) || memcmp(a->v, b->v, size)) fail(of, "other moments");
}

static void check_case(Case of, int number)
{
    const uint64_t given = checksum(&of);
    const int timed = number / 2 % 2;
    Result alone = trained(&of, 1, STEPS, timed);
    check_result(&of, &alone, timed);
    for (integer threads = 2; threads <= THREADS; threads++) {
        creatable = number % 4 ? THREADS : threads / 2;
        Result shared = trained(&of, threads, 1 + (number + threads) % STEPS, !timed);
        check_equal(&of, &alone, &shared);
        free_result(&shared);
    }
    if (checksum(&of) != given) fail(&of, "what was given is not the same");
    free_result(&alone);
    free_case(&of);
}

/* All cases, or of them each so manieth. */
int main(int argc, char **argv)
{
    const int every = argc > 1 ? atoi(argv[1]) : 1;
    int checked = 0;
    for (int i = 0; i < COUNT(HIDDEN) * COUNT(BATCH); i += every, checked++)
        check_case(make_case(INPUTS[i % COUNT(INPUTS)], HIDDEN[i / COUNT(BATCH)],
                             CLASSES[i % COUNT(CLASSES)], BATCH[i % COUNT(BATCH)], i / 3 % 2),
                   i);
    printf("%d cases\n", checked);
    return 0;
}
