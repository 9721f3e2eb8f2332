// CUDA C++ on a CPU, in the place of ptx.cuh: runs a kernel's threads under schedules that are
// legal and unkind, so that a synchronization which is missing shows as a wrong number.
//
// Each CUDA thread is a fiber: a stack of its own, and a place where it goes on. A fiber runs until
// it has to wait for others; then the schedule picks who goes on. The blocks of a group run
// together, the groups one after another. All choices are drawn from a seed, so that a run can be
// repeated.
//
// It does not see: in which order other threads see plain writes to memory (fences), convergence
// beyond what warp-level functions ask for, bank conflicts, and time.
//
// Kernels are compiled with what comes first, CUDA's names; with EMULATE_MACHINE defined, the rest
// is compiled too, once, and with EMULATE_ASAN so that AddressSanitizer knows of the stacks.
// emulator.py does all this, and starts the launches.

#ifndef EMULATE_H
#define EMULATE_H

#include <cmath>
#include <cstddef>
#include <cstring>

#define __host__
#define __device__
#define __constant__
#define __global__ __attribute__((noinline, used))    // emulator.py finds kernels by this
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(4) uchar4 {
    unsigned char x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::exp;
using std::fabs;
using std::fma;
using std::log;
using std::sqrt;

inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline float min(float a, float b) { return std::fmin(a, b); }    // x, of x and nan
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

template <class T> inline T __ldcg(const T *p) { return *p; }
template <class T> inline void __stcg(T *p, T x) { *p = x; }

// Counts bytes that are to arrive in this block's shared memory. What it has counted is kept
// elsewhere; here is only a mark by which to tell that it is one.
struct alignas(8) Mbarrier {
    unsigned long long mark;
};

// Launches have one dimension. These are set whenever another thread goes on.
struct EmulatedIndex {
    unsigned x;
};
extern EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace emulate {

constexpr unsigned ALL_LANES = 0xffffffffu;

// Where in the source a function of CUDA's was called.
struct Site {
    const char *function, *file;
    int line;
};

struct Launch {            // emulator.py has the same
    const void *arguments;
    size_t bytes;          // of the arguments
    char *stacks;          // memory for together * threads of them
    size_t stack;          // bytes of each
    int blocks, threads;
    int shared;            // bytes of dynamic shared memory
    int together;          // blocks of a group
    int cooperative;
    unsigned seed;
    int schedule;
    int late;              // whether stores land only when nothing else can happen
    int flush;             // whether numbers below the normal range count as 0
};

void *shared(size_t size, const Site &site);
void meet_block(const Site &site);
void meet_warp(unsigned mask, const Site &site);
void meet_cluster(const Site &site);
void meet_grid(const unsigned *counter, const Site &site);
void shuffle(void *value, size_t size, unsigned mask, int from, const Site &site);
int rank();
void init(Mbarrier *mbarrier, const Site &site);
void expect(Mbarrier *mbarrier, int bytes, const Site &site);
void wait(Mbarrier *mbarrier, int parity, const Site &site);
void store(float *where, int block, const void *numbers, size_t size, Mbarrier *arrived,
           const Site &site);

// Runs a kernel; null, or what was wrong.
const char *run(const Launch &launch, size_t bytes, void (*kernel)(const void *));

}    // namespace emulate

#define SHARED(Type, name)                                                                \
    Type &name = *static_cast<Type *>(                                                    \
        emulate::shared(sizeof(Type), emulate::Site{"SHARED", __FILE__, __LINE__}))

// Parameters that nobody gives: they tell where the call is.
#define EMULATE_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define EMULATE_SITE (emulate::Site{__func__, file, line})

inline void __syncthreads(EMULATE_HERE) { emulate::meet_block(EMULATE_SITE); }

inline void __syncwarp(unsigned mask = emulate::ALL_LANES, EMULATE_HERE)
{
    emulate::meet_warp(mask, EMULATE_SITE);
}

template <class T> inline T __shfl_sync(unsigned mask, T value, int lane, EMULATE_HERE)
{
    static_assert(sizeof value == 4 || sizeof value == 8, "what CUDA can exchange");
    emulate::shuffle(&value, sizeof value, mask, lane, EMULATE_SITE);
    return value;
}

template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, EMULATE_HERE)
{
    static_assert(sizeof value == 4 || sizeof value == 8, "what CUDA can exchange");
    emulate::shuffle(&value, sizeof value, mask, threadIdx.x ^ lane_mask, EMULATE_SITE);
    return value;
}

inline int cluster_rank() { return emulate::rank(); }

inline void cluster_sync(EMULATE_HERE) { emulate::meet_cluster(EMULATE_SITE); }

inline void grid_sync(unsigned *counter, EMULATE_HERE)
{
    emulate::meet_grid(counter, EMULATE_SITE);
}

inline void mbarrier_init(Mbarrier *mbarrier, EMULATE_HERE)
{
    emulate::init(mbarrier, EMULATE_SITE);
}

inline void mbarrier_expect(Mbarrier *mbarrier, int bytes, EMULATE_HERE)
{
    emulate::expect(mbarrier, bytes, EMULATE_SITE);
}

inline void mbarrier_wait(Mbarrier *mbarrier, int parity, EMULATE_HERE)
{
    emulate::wait(mbarrier, parity, EMULATE_SITE);
}

inline void store_async(float *where, int block, float value, Mbarrier *arrived, EMULATE_HERE)
{
    emulate::store(where, block, &value, sizeof value, arrived, EMULATE_SITE);
}

inline void store_async(float *where, int block, float4 value, Mbarrier *arrived, EMULATE_HERE)
{
    emulate::store(where, block, &value, sizeof value, arrived, EMULATE_SITE);
}

// ================================================================================================
#ifdef EMULATE_MACHINE

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#ifdef EMULATE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace emulate {

constexpr int WARP = 32;

static bool operator==(const Site &a, const Site &b)
{
    return a.line == b.line && !strcmp(a.function, b.function) && !strcmp(a.file, b.file);
}

// ------------------------------------------------------------------------------------------------
// Stacks.

struct Stack {
    void *top = nullptr;         // of what is on it while it is left
    const void *memory = nullptr;
    size_t size = 0;
    void *fake = nullptr;        // AddressSanitizer's own
};

// Leaves its stack pointer at `leave`, and goes on where `enter` was left.
extern "C" __attribute__((visibility("hidden"))) void emulate_switch(void **leave, void *enter);

#if defined(__x86_64__)
asm(R"(
.pushsection .text
.type emulate_switch, @function
emulate_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulate_switch, . - emulate_switch
.popsection
)");
constexpr int SAVED = 8, RETURN = 6;    // words on a stack that is left; the one to go on at
#elif defined(__aarch64__)
asm(R"(
.pushsection .text
.type emulate_switch, %function
emulate_switch:
    sub sp, sp, #160
    stp x29, x30, [sp, #0]
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x29, x30, [sp, #0]
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emulate_switch, . - emulate_switch
.popsection
)");
constexpr int SAVED = 20, RETURN = 1;
#else
#error "the emulator knows x86-64 and aarch64 only"
#endif

// ------------------------------------------------------------------------------------------------
// What there is.

struct Thread;
struct Block;

// All of some threads wait here for one another.
struct Meeting {
    Thread *first;               // of the threads that meet
    int expected;
    int count = 0;               // how often they have met
    Site site = {};              // of those who wait
    std::vector<Thread *> waiting = {};
};

struct Warp {
    Meeting meeting;
    unsigned char given[2][WARP][8];    // by each lane to a shuffle, in turns
};

// The state of an Mbarrier.
struct Phases {
    Block *block;
    size_t offset;               // in its shared memory
    int phase = 0;               // the present one
    bool expected = false;       // whether mbarrier_expect has come in this phase
    long bytes = 0;              // expected, less those that have come
    std::vector<Thread *> waiting = {};
};

struct Block {
    int index;                   // in the grid
    int running;                 // threads that have not ended
    char *shared;
    Meeting meeting;
    std::vector<Warp> warps;
    std::deque<Phases> mbarriers;
};

struct Thread {
    unsigned index;              // in its block
    Block *block;
    Warp *warp;
    int rank;                    // in the schedule
    Stack *stack = nullptr;      // none until it begins
    bool ended = false;
    Site site = {};              // where it waits, and for one of these:
    Meeting *meeting = nullptr;
    Phases *phases = nullptr;
};

// A store_async that is under way.
struct Store {
    unsigned char numbers[sizeof(float4)];
    size_t size;
    char *to;
    Phases *arrived;
    Site site;
};

// xorshift64*, of Vigna, "An experimental exploration of Marsaglia's xorshift generators".
struct Random {
    uint64_t state = 1;

    size_t below(size_t n)
    {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return (state * 0x2545f4914f6cdd1d >> 32) * n >> 32;
    }
};

enum Schedule {
    RANDOM,       // whoever
    RUN_AHEAD,    // one block runs as far as it can, then the next
    STARVE,       // one warp of each block runs only when nobody else can
};

struct Machine {
    Launch launch;
    void (*kernel)(const void *);
    Random random;
    std::vector<Block> blocks;                    // of the present group
    std::vector<Thread> threads;                  // of all its blocks
    Meeting meeting;                              // of all these threads
    std::vector<std::vector<Thread *>> ready;     // by rank; the lowest has its turn first
    std::vector<Store> under_way;
    size_t delay;                                 // one lands at every so manieth turn
    std::vector<const unsigned *> counters;       // of grid_sync, by group
    std::deque<Stack> stacks;
    std::vector<Stack *> idle;
    Stack outside;                                // of whoever launches
    std::string error;
};

static Machine machine;
static Thread *now;    // the thread that runs

// ------------------------------------------------------------------------------------------------
// From stack to stack.

static void begin_here();

static void switch_stacks(Stack &from, Stack &to)
{
#ifdef EMULATE_ASAN
    __sanitizer_start_switch_fiber(&from.fake, to.memory, to.size);
#endif
    emulate_switch(&from.top, to.top);
#ifdef EMULATE_ASAN
    __sanitizer_finish_switch_fiber(from.fake, nullptr, nullptr);
#endif
}

static Stack *new_stack()
{
    const size_t number = machine.stacks.size(), size = machine.launch.stack;
    char *memory = machine.launch.stacks + number * size;
#ifdef EMULATE_ASAN
    __asan_unpoison_memory_region(memory, size);    // a launch that failed has left frames here
#endif
    // Not all at the same distance from a page, or else they would share their sets of the cache.
    void **top = reinterpret_cast<void **>(memory + size - number * 320 % 4096) - SAVED;
    for (int i = 0; i < SAVED; ++i)
        top[i] = i == RETURN ? reinterpret_cast<void *>(begin_here) : nullptr;
    machine.stacks.push_back({top, memory, size});
    return &machine.stacks.back();
}

static Stack *idle_stack()
{
    if (machine.idle.empty())
        return new_stack();
    Stack *stack = machine.idle.back();
    machine.idle.pop_back();
    return stack;
}

// Leave `own` for the stack of `next`, or for the outside if there is no next.
static void go_on(Stack *own, Thread *next)
{
    Stack *stack = &machine.outside;
    if (next) {
        now = next;
        threadIdx.x = next->index;
        blockIdx.x = next->block->index;
        if (!next->stack)
            next->stack = idle_stack();
        stack = next->stack;
    }
    if (stack != own)
        switch_stacks(*own, *stack);
}

// Ends the launch; the stacks are left as they are.
[[noreturn]] static void fail(const std::string &what)
{
    machine.error = what;
    go_on(now->stack, nullptr);
    std::abort();    // nobody comes back
}

// ------------------------------------------------------------------------------------------------
// Words for errors.

static std::string text(long n) { return std::to_string(n); }

static std::string text(const Site &site)
{
    const char *slash = strrchr(site.file, '/');
    return std::string(site.function) + " (" + (slash ? slash + 1 : site.file) + ":" +
           text(site.line) + ")";
}

static std::string text(const Thread &thread)
{
    return "thread " + text(thread.index) + " of block " + text(thread.block->index);
}

[[noreturn]] static void fail_at(const Site &site, const std::string &what)
{
    fail(text(site) + " by " + text(*now) + ": " + what);
}

// ------------------------------------------------------------------------------------------------
// The schedule.

static void make_ready(Thread *thread) { machine.ready[thread->rank].push_back(thread); }

static void make_ready(std::vector<Thread *> &waiting)
{
    for (Thread *thread : waiting)
        make_ready(thread);
    waiting.clear();
}

template <class T> static T take_any(std::vector<T> &from)
{
    std::swap(from[machine.random.below(from.size())], from.back());
    T taken = from.back();
    from.pop_back();
    return taken;
}

static void end_phase_if_complete(Phases &phases)
{
    if (!phases.expected || phases.bytes)
        return;
    ++phases.phase;
    phases.expected = false;
    make_ready(phases.waiting);
}

static void land_a_store()
{
    const Store store = take_any(machine.under_way);
    Phases &arrived = *store.arrived;
    if (!arrived.block->running)
        fail(text(store.site) + " arrives in block " + text(arrived.block->index) +
             ", which has ended; expected it to wait for the bytes, or for a cluster_sync");
    memcpy(store.to, store.numbers, store.size);
    arrived.bytes -= store.size;
    end_phase_if_complete(arrived);
}

// Who goes on; null if nobody can.
static Thread *next_thread()
{
    if (!machine.under_way.empty() && !machine.launch.late && !machine.random.below(machine.delay))
        land_a_store();
    for (;;) {
        for (auto &ready : machine.ready)
            if (!ready.empty())
                return take_any(ready);
        if (machine.under_way.empty())
            return nullptr;
        land_a_store();
    }
}

static void let_others_go_on(const Site &site)
{
    now->site = site;
    go_on(now->stack, next_thread());
}

// The bottom of each stack: it runs one thread after another.
static void begin_here()
{
#ifdef EMULATE_ASAN
    Stack &outside = machine.outside;
    __sanitizer_finish_switch_fiber(nullptr, outside.size ? nullptr : &outside.memory,
                                    outside.size ? nullptr : &outside.size);
#endif
    for (;;) {
        machine.kernel(machine.launch.arguments);
        now->ended = true;
        --now->block->running;
        Stack *own = now->stack;
        machine.idle.push_back(own);
        go_on(own, next_thread());
    }
}

// ------------------------------------------------------------------------------------------------
// Meetings.

static void meet(Meeting &meeting, const Site &site)
{
    meeting.site = site;
    meeting.waiting.push_back(now);
    now->meeting = &meeting;
    if (int(meeting.waiting.size()) == meeting.expected) {
        ++meeting.count;
        make_ready(meeting.waiting);
    }
    let_others_go_on(site);
    now->meeting = nullptr;
}

// The same, for those that have to come to the same place in the source.
static void meet_at_one_place(Meeting &meeting, const Site &site)
{
    if (!meeting.waiting.empty() && !(meeting.site == site))
        fail_at(site, text(*meeting.waiting[0]) + " waits at " + text(meeting.site) +
                          "; expected all to come to the same");
    meet(meeting, site);
}

void meet_block(const Site &site) { meet_at_one_place(now->block->meeting, site); }

void meet_warp(unsigned mask, const Site &site)
{
    if (mask != ALL_LANES)
        fail_at(site, "mask is " + text(mask) + "; expected all lanes, 0xffffffff");
    meet_at_one_place(now->warp->meeting, site);
}

// The lanes give to one of two places in turns: nobody can give to the first again before all have
// given to the second, and so have taken from the first. A lane that does not exist gives bytes of
// 0xff, of which nan is made.
void shuffle(void *value, size_t size, unsigned mask, int from, const Site &site)
{
    auto &given = now->warp->given[now->warp->meeting.count % 2];
    memcpy(given[now->index % WARP], value, size);
    meet_warp(mask, site);
    memcpy(value, given[unsigned(from) % WARP], size);
}

static void check_group(const Site &site)
{
    if (int(machine.blocks.size()) != machine.launch.together)
        fail_at(site, "the launch has " + text(machine.launch.blocks) +
                          " blocks; expected a multiple of BLOCKS, which is " +
                          text(machine.launch.together));
}

void meet_cluster(const Site &site)
{
    check_group(site);
    meet(machine.meeting, site);
}

// Each group has a counter to itself: the others run at the same time on a GPU.
static void check_counter(const unsigned *counter, const Site &site)
{
    const size_t group = now->block->index / machine.launch.together;
    if (machine.counters.size() == group) {
        for (size_t other = 0; other < group; ++other)
            if (machine.counters[other] == counter)
                fail_at(site, "another group of blocks has the same counter");
        if (*counter % machine.launch.together)
            fail_at(site, "the counter is " + text(*counter) + "; expected 0 at first");
        machine.counters.push_back(counter);
    }
    if (machine.counters[group] != counter)
        fail_at(site, "other threads of the group have another counter");
}

void meet_grid(const unsigned *counter, const Site &site)
{
    check_group(site);
    if (!machine.launch.cooperative)
        fail_at(site, "the launch is not cooperative; expected that, or else a block may wait for "
                      "one that can't begin");
    check_counter(counter, site);
    meet(machine.meeting, site);
}

// ------------------------------------------------------------------------------------------------
// Shared memory, and stores into that of other blocks.

void *shared(size_t size, const Site &site)
{
    if (size > size_t(machine.launch.shared))
        fail_at(site, "it has " + text(size) + " bytes; the launch gives it " +
                          text(machine.launch.shared));
    return now->block->shared;
}

static size_t offset_in_shared(const void *p, size_t size, const char *name, const Site &site)
{
    const uintptr_t at = uintptr_t(p), first = uintptr_t(now->block->shared);
    if (at < first || at + size > first + machine.launch.shared)
        fail_at(site, std::string(name) + " is not in the block's own shared memory");
    if (at % size)
        fail_at(site, std::string(name) + " is not at a multiple of " + text(size) + " bytes");
    return at - first;
}

static unsigned long long &mark_at(const Block &block, size_t offset)
{
    return reinterpret_cast<Mbarrier *>(block.shared + offset)->mark;
}

static unsigned long long mark_of(size_t offset) { return 0x7265697272616226 + offset; }

static size_t offset_of(const Mbarrier *mbarrier, const Site &site)
{
    return offset_in_shared(mbarrier, sizeof *mbarrier, "the mbarrier", site);
}

static Phases *find(Block &block, size_t offset)
{
    for (Phases &phases : block.mbarriers)
        if (phases.offset == offset)
            return &phases;
    return nullptr;
}

// The state of a block's mbarrier at the place where the present block has `mbarrier`.
static Phases &phases_of(const Mbarrier *mbarrier, Block &block, const Site &site)
{
    const size_t offset = offset_of(mbarrier, site);
    Phases *phases = find(block, offset);
    if (!phases)
        fail_at(site, "block " + text(block.index) +
                          " has not initialized the mbarrier; expected mbarrier_init by one of its "
                          "threads, and a barrier in between");
    if (mark_at(block, offset) != mark_of(offset))
        fail_at(site, "block " + text(block.index) + " has written over the mbarrier");
    return *phases;
}

void init(Mbarrier *mbarrier, const Site &site)
{
    Block &block = *now->block;
    const size_t offset = offset_of(mbarrier, site);
    if (find(block, offset))
        fail_at(site, "the mbarrier has been initialized before");
    mark_at(block, offset) = mark_of(offset);
    block.mbarriers.push_back({&block, offset});
}

void expect(Mbarrier *mbarrier, int bytes, const Site &site)
{
    Phases &phases = phases_of(mbarrier, *now->block, site);
    if (phases.expected)
        fail_at(site, "phase " + text(phases.phase) + " has had one; expected one a phase");
    phases.expected = true;
    phases.bytes += bytes;
    end_phase_if_complete(phases);
}

// Whoever sees a phase's end only when the next has ended too takes it for not ended, as on a GPU.
void wait(Mbarrier *mbarrier, int parity, const Site &site)
{
    Phases &phases = phases_of(mbarrier, *now->block, site);
    if (parity != 0 && parity != 1)
        fail_at(site, "parity is " + text(parity) + "; expected 0 or 1");
    now->phases = &phases;
    while (phases.phase % 2 == parity) {
        phases.waiting.push_back(now);
        let_others_go_on(site);
    }
    now->phases = nullptr;
}

void store(float *where, int block, const void *numbers, size_t size, Mbarrier *arrived,
           const Site &site)
{
    check_group(site);
    const size_t offset = offset_in_shared(where, size, "the address", site);
    if (block < 0 || block >= machine.launch.together)
        fail_at(site, "block is " + text(block) + "; expected 0 to " +
                          text(machine.launch.together - 1));
    Block &to = machine.blocks[block];
    Phases &phases = phases_of(arrived, to, site);
    if (!to.running)
        fail_at(site, "block " + text(to.index) +
                          " has ended; expected it to wait for a cluster_sync before that");
    Store store = {{}, size, to.shared + offset, &phases, site};
    memcpy(store.numbers, numbers, size);
    machine.under_way.push_back(store);
}

int rank() { return now->block->index % machine.launch.together; }

// ------------------------------------------------------------------------------------------------
// What is left when nobody can go on.

static std::string why_not_met(const Meeting &meeting)
{
    for (int i = 0; i < meeting.expected; ++i) {
        const Thread &thread = meeting.first[i];
        if (thread.ended)
            return text(thread) + " has ended";
        if (thread.meeting != &meeting)
            return text(thread) + " is at " + text(thread.site);
    }
    return "";
}

static std::string why_not_complete(const Phases &phases)
{
    const std::string bytes = text(std::labs(phases.bytes)) + " bytes too " +
                              (phases.bytes < 0 ? "many" : "few");
    return "phase " + text(phases.phase) + " has had " +
           (phases.expected ? bytes : "no mbarrier_expect, and " + bytes);
}

// Of the threads that wait at one place: how many they are, and why the first of them waits.
static std::string stuck_at(const Site &site)
{
    const Thread *first = nullptr;
    int n = 0;
    for (const Thread &thread : machine.threads)
        if (!thread.ended && thread.site == site && !n++)
            first = &thread;
    return text(n) + " at " + text(site) + ", as " + text(*first) + ": " +
           (first->phases ? why_not_complete(*first->phases) : why_not_met(*first->meeting));
}

static std::string stuck()
{
    std::vector<Site> sites;
    for (const Thread &thread : machine.threads) {
        bool seen = thread.ended;
        for (const Site &site : sites)
            seen |= site == thread.site;
        if (!seen)
            sites.push_back(thread.site);
    }
    std::string what;
    for (const Site &site : sites)
        what += (what.empty() ? "threads wait for ever; " : "; ") + stuck_at(site);
    return what;
}

static std::string left_over()
{
    for (const Block &block : machine.blocks)
        for (const Phases &phases : block.mbarriers)
            if (phases.bytes)
                return "the kernel has ended, but in block " + text(block.index) +
                       " an mbarrier's " + why_not_complete(phases);
    return "";
}

// ------------------------------------------------------------------------------------------------
// A launch.

// The rank of a thread of a block.
static int rank_of(int block, int index, const std::vector<int> &order, int starved)
{
    if (machine.launch.schedule == RUN_AHEAD)
        return order[block];
    return machine.launch.schedule == STARVE && index / WARP == starved;
}

static std::vector<int> any_order(int n)
{
    std::vector<int> left(n), order(n);
    for (int i = 0; i < n; ++i)
        left[i] = i;
    for (int &place : order)
        place = take_any(left);
    return order;
}

static void begin_block(int number, int index, char *shared)
{
    Block &block = machine.blocks[number];
    const int threads = machine.launch.threads, warps = (threads + WARP - 1) / WARP;
    Thread *first = &machine.threads[number * threads];
    memset(shared, 0xff, machine.launch.shared);
    block = {index, threads, shared, {first, threads}, std::vector<Warp>(warps), {}};
    for (int w = 0; w < warps; ++w) {
        block.warps[w].meeting = {first + w * WARP, min(threads - w * WARP, WARP)};
        memset(block.warps[w].given, 0xff, sizeof block.warps[w].given);
    }
}

static void begin_threads()
{
    const int blocks = machine.blocks.size(), threads = machine.launch.threads;
    const std::vector<int> order = any_order(blocks);
    const int starved = machine.random.below((threads + WARP - 1) / WARP);
    machine.ready.resize(blocks + 1);
    for (int b = 0; b < blocks; ++b)
        for (int i = 0; i < threads; ++i) {
            Block &block = machine.blocks[b];
            Thread &thread = machine.threads[b * threads + i];
            thread = {unsigned(i), &block, &block.warps[i / WARP], rank_of(b, i, order, starved)};
            make_ready(&thread);
        }
}

static void run_group(int first, const std::vector<char *> &shared)
{
    const int blocks = min(machine.launch.together, machine.launch.blocks - first);
    machine.blocks.resize(blocks);
    machine.threads.resize(blocks * machine.launch.threads);
    machine.meeting = {machine.threads.data(), int(machine.threads.size())};
    for (int b = 0; b < blocks; ++b)
        begin_block(b, first + b, shared[b]);
    begin_threads();
    go_on(&machine.outside, next_thread());
    for (auto *check : {stuck, left_over})
        if (machine.error.empty())
            machine.error = check();
}

static void run_groups()
{
    const int together = machine.launch.together;
    std::vector<char *> shared(min(together, machine.launch.blocks));
    for (char *&memory : shared)    // of exactly this size, for AddressSanitizer
        memory = static_cast<char *>(malloc(machine.launch.shared));
    for (int first = 0; first < machine.launch.blocks && machine.error.empty(); first += together)
        run_group(first, shared);
    for (char *memory : shared)
        free(memory);
}

// As under -ftz=true, which CuPy compiles with. Returns what the setting was.
#if defined(__x86_64__)
static uint64_t flush_subnormals()
{
    const unsigned was = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(was | 0x8040);    // flush to zero, denormals are zero
    return was;
}
static void restore(uint64_t was) { __builtin_ia32_ldmxcsr(unsigned(was)); }
#elif defined(__aarch64__)
static uint64_t flush_subnormals()
{
    uint64_t was;
    asm volatile("mrs %0, fpcr" : "=r"(was));
    asm volatile("msr fpcr, %0" ::"r"(was | uint64_t(1) << 24));
    return was;
}
static void restore(uint64_t was) { asm volatile("msr fpcr, %0" ::"r"(was)); }
#else
#error "how this processor flushes subnormal numbers is not known here"
#endif

static void run_groups_flushing()
{
    const uint64_t was = flush_subnormals();
    run_groups();
    restore(was);
}

const char *run(const Launch &launch, size_t bytes, void (*kernel)(const void *))
{
    machine = Machine();
    machine.launch = launch;
    machine.kernel = kernel;
    machine.random.state = (launch.seed + 1ull) * 0x9e3779b97f4a7c15;
    machine.delay = size_t(1) << machine.random.below(8);
    blockDim.x = launch.threads;
    gridDim.x = launch.blocks;
    if (launch.bytes == bytes)
        launch.flush ? run_groups_flushing() : run_groups();
    else
        machine.error = "the arguments have " + text(launch.bytes) +
                        " bytes; expected those of the kernel's struct, " + text(bytes);
    return machine.error.empty() ? nullptr : machine.error.c_str();
}

}    // namespace emulate

#endif
#endif
