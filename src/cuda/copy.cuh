/* Data movement of the CUDA kernels, the PTX of it and nothing else: 16-byte asynchronous
 * copies (sm_80), mbarriers and the bulk tensor copies of Hopper (sm_90), named barriers.
 * Shared-memory addresses are 32-bit offsets in the shared window, as PTX takes them. */
#ifndef LIK_CUDA_COPY_CUH
#define LIK_CUDA_COPY_CUH

#include <cuda.h>
#include <stdint.h>

#define LIK_DEVICE static __device__ __forceinline__
#define LIK_MEMBER __device__ __forceinline__

LIK_DEVICE uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Copies `bytes` (0 to 16) from global to shared memory and zeroes the rest of the 16 bytes. */
LIK_DEVICE void copy_async_16(void *to, const void *from, int bytes)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(bytes)
                 : "memory");
#else
    *(uint4 *)to = bytes ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
#endif
}

/* The same of 8 bytes, aligned to as many. */
LIK_DEVICE void copy_async_8(void *to, const void *from, int bytes)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(bytes)
                 : "memory");
#else
    *(uint2 *)to = bytes ? *(const uint2 *)from : make_uint2(0, 0);
#endif
}

/* Copies 16, 8 or 4 bytes, aligned to as many. */
LIK_DEVICE void copy_async(void *to, const void *from, int bytes)
{
#if __CUDA_ARCH__ >= 800
    const uint32_t at = shared_address(to);
    if (bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
    else if (bytes == 8)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(at), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from) : "memory");
#else
    for (int i = 0; i < bytes; i += 4)
        *(uint32_t *)((char *)to + i) = *(const uint32_t *)((const char *)from + i);
#endif
}

#if __CUDA_ARCH__ >= 900
/* Copies 4 bytes, or writes zeros. */
LIK_DEVICE void copy_async_4_if(bool copy, void *to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(copy ? 4 : 0)
                 : "memory");
}

/* This thread arrives at the barrier as soon as the copies that it has started are done. */
LIK_DEVICE void copy_async_arrive(uint64_t *barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}
#endif

LIK_DEVICE void copy_async_commit()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Waits until at most `pending` groups of this thread are under way. */
template <int pending> LIK_DEVICE void copy_async_wait()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

/* A barrier of `threads` threads of the block, other than __syncthreads' own (id 1 to 15). */
LIK_DEVICE void named_barrier(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* A kernel that lik_cuda_launch_early launched begins while those before it in the stream still
 * run, as soon as all their blocks have let it: it waits before it touches what they may write,
 * or read. */
LIK_DEVICE void let_next_kernel_begin()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* A byte, or 0. Volatile: such loads are under way in the order that they are written, with one
 * address at a time. */
LIK_DEVICE uint32_t load_byte_if(bool load, const uint8_t *from)
{
    uint32_t byte;
    asm volatile(
        "{\n.reg .pred load;\nsetp.ne.b32 load, %2, 0;\nmov.b32 %0, 0;\n@load ld.global.u8 %0, [%1];\n}"
        : "=&r"(byte)
        : "l"(from), "r"((int)load));
    return byte;
}

LIK_DEVICE void prefetch_l2(const void *from)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

LIK_DEVICE void wait_for_kernels_before()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#if __CUDA_ARCH__ >= 900
LIK_DEVICE void mbarrier_init(uint64_t *barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
                 : "memory");
}

/* Makes the initialized barriers visible to the copy engine. */
LIK_DEVICE void mbarrier_init_done()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

LIK_DEVICE void mbarrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

/* Arrives and announces `bytes` that copies will deliver in this phase. */
LIK_DEVICE void mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

/* Waits for the end of the phase of this parity. */
LIK_DEVICE void mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

/* One box of a 4-D tensor map, from element (x, row, sequence, group), to shared memory; counts
 * on `barrier`. */
LIK_DEVICE void tensor_copy(void *to, const CUtensorMap *map, uint64_t *barrier, int x, int row, int sequence,
                            int group)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(row), "r"(sequence), "r"(group)
                 : "memory");
}

LIK_DEVICE void tensor_map_prefetch(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* Orders this thread's ordinary writes to shared memory before later reads by the tensor cores
 * and the copy engine. */
LIK_DEVICE void fence_async_shared()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
#endif

#endif
