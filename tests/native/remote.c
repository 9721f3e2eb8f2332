/* Makes the steps of a stretch for another process, perhaps one of another machine, which sends the
 * struct and what its pointers point to, and gets back what the steps have changed.
 *
 * tests/native/programs.py builds it with -DSOURCE='"native.c"' and the options of native.py. */

#include SOURCE
#include <stdio.h>
#include <stdlib.h>

static void *from_stdin(integer size)
{
    void *at = malloc(size);
    if (fread(at, 1, size, stdin) != (size_t)size) exit(2);
    return at;
}

static void to_stdout(const void *at, integer size)
{
    if (fwrite(at, 1, size, stdout) != (size_t)size) exit(2);
}

int main(void)
{
    Stretch *run = from_stdin(sizeof(Stretch));
    integer *images = from_stdin(sizeof(integer)); /* how many */
    const integer parameters = run->hidden * (run->inputs + 1) + run->classes * (run->hidden + 1);
    const integer numbers = parameters * sizeof(real);
    run->images = from_stdin(*images * run->inputs);
    run->labels = from_stdin(*images * sizeof(integer));
    run->order = from_stdin(run->samples * sizeof(integer));
    run->lrs = from_stdin(run->steps * sizeof(double));
    run->p = from_stdin(numbers), run->m = from_stdin(numbers), run->v = from_stdin(numbers);
    run->losses = calloc(run->steps, sizeof(double));
    run->seconds = NULL;
    const integer size = arena_size(run);
    run->arena = aligned_alloc(CACHE_LINE, size);
    memset(run->arena, 0, size);
    train(run);
    to_stdout(run->losses, run->steps * sizeof(double));
    to_stdout(run->p, numbers), to_stdout(run->m, numbers), to_stdout(run->v, numbers);
    return 0;
}
