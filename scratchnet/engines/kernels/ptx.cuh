// What CUDA C++ has no words for: the instructions of a thread-block cluster, in PTX, and a barrier
// for a whole grid. Clusters need compute capability 9.0 (Hopper). Source: NVIDIA, "PTX ISA",
// sections on mbarrier, st.async, mapa and barrier.cluster.

// The block's dynamic shared memory, seen as a struct.
#define SHARED(Type, name)                      \
    extern __shared__ float4 shared_memory[];   \
    Type &name = *reinterpret_cast<Type *>(shared_memory)

// Counts bytes that are to arrive in this block's shared memory. Its phases have numbers from 0 on:
// a phase ends when all the bytes that were expected in it have come.
struct Mbarrier {
    unsigned long long state;
};

__device__ __forceinline__ unsigned shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

#if __CUDA_ARCH__ >= 900

// The number of this block in its cluster.
__device__ __forceinline__ int cluster_rank()
{
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// No thread of the cluster goes on before all have come, and sees what they have written.
__device__ __forceinline__ void cluster_sync()
{
    __syncwarp();    // aligned: a warp arrives as one
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// For one thread, before a cluster_sync.
__device__ __forceinline__ void mbarrier_init(Mbarrier *b)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(b)) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// For one thread, once a phase: so many bytes are to come. Some may have come already.
__device__ __forceinline__ void mbarrier_expect(Mbarrier *b, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
                 "r"(bytes)
                 : "memory");
}

// Wait until the phase with this parity has ended. What it costs beside the waiting: to acquire what
// others in the cluster have written, the L1 cache of global memory is emptied, so that what is read
// from there next comes from L2.
__device__ __forceinline__ void mbarrier_wait(Mbarrier *b, int parity)
{
    unsigned done;
    do {
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}"
                     : "=r"(done)
                     : "r"(shared_address(b)), "r"(parity)
                     : "memory");
    } while (!done);
}

// The place in another block of the cluster that in this one has the address `own`.
__device__ __forceinline__ unsigned peer_address(const void *own, int block)
{
    unsigned address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(address)
        : "r"(shared_address(own)), "r"(block));
    return address;
}

// Write four numbers into another block's shared memory, and have them counted by its mbarrier.
// The writer needs no fence and goes on; the reader waits for the bytes.
__device__ __forceinline__ void store_async(float *own, int block, float4 x, Mbarrier *arrived)
{
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
            peer_address(own, block)),
        "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w), "r"(peer_address(arrived, block))
        : "memory");
}

#endif

#ifdef BLOCKS

// A barrier for the BLOCKS blocks of a network in a cooperative launch. The counter is 0 at first.
__device__ __forceinline__ void grid_sync(unsigned *counter)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        const unsigned before = atomicAdd(counter, 1u);
        const unsigned complete = (before / BLOCKS + 1) * BLOCKS;
        while (int(*(volatile unsigned *)counter - complete) < 0) {
        }
        __threadfence();
    }
    __syncthreads();
}

#endif
