/* The Hopper loop's launches: what of the GPU and the driver they need, tensor maps,
 * arguments. */
#include "cuda/sm90/block.cuh"

const void *lik_cuda_sm90_kernel_f16(int argmax, int two_bands);
const void *lik_cuda_sm90_kernel_bf16(int argmax, int two_bands);
const void *lik_cuda_sm90_kernel_f32(int argmax, int two_bands);

const void *lik_cuda_sm90_kernel_decoded_f16(int argmax);
const void *lik_cuda_sm90_kernel_decoded_bf16(int argmax);

const void *lik_cuda_sm90_kernel_whole_f16(int two_bands);
const void *lik_cuda_sm90_kernel_whole_bf16(int two_bands);

const void *lik_cuda_sm90_kernel_ahead_f16(int argmax);
const void *lik_cuda_sm90_kernel_ahead_bf16(int argmax);

const void *lik_cuda_sm90_kernel_widened_f16(int argmax);
const void *lik_cuda_sm90_kernel_widened_bf16(int argmax);

const void *lik_cuda_sm90_kernel_i8(int argmax, int two_bands);

/* Of documents of 8 bits, as the query's elements want them. */
static const void *widened_kernel_of(int q_dtype, int argmax)
{
    return q_dtype == LIK_BF16 ? lik_cuda_sm90_kernel_widened_bf16(argmax)
                               : lik_cuda_sm90_kernel_widened_f16(argmax);
}

/* Of decoded or widened documents. */
static const void *decoded_kernel_of(int dtype, int argmax)
{
    return dtype == LIK_F16 ? lik_cuda_sm90_kernel_decoded_f16(argmax)
                            : lik_cuda_sm90_kernel_decoded_bf16(argmax);
}

/* Of short documents. */
static const void *whole_kernel_of(int dtype, int two_bands)
{
    return dtype == LIK_F16 ? lik_cuda_sm90_kernel_whole_f16(two_bands)
                            : lik_cuda_sm90_kernel_whole_bf16(two_bands);
}

/* Where every document or so meets other query rows. */
static const void *ahead_kernel_of(int dtype, int argmax)
{
    return dtype == LIK_F16 ? lik_cuda_sm90_kernel_ahead_f16(argmax)
                            : lik_cuda_sm90_kernel_ahead_bf16(argmax);
}

static const void *kernel_of(int dtype, int argmax, int two_bands)
{
    switch (dtype) {
    case LIK_F16: return lik_cuda_sm90_kernel_f16(argmax, two_bands);
    case LIK_BF16: return lik_cuda_sm90_kernel_bf16(argmax, two_bands);
    default: return lik_cuda_sm90_kernel_f32(argmax, two_bands);
    }
}

int lik_cuda_sm90_prepare(struct lik_gpu *gpu)
{
    gpu->limits.hopper = 0;
    if (gpu->limits.arch != 90)
        return LIK_OK;
    cudaFuncAttributes attributes;
    cudaError_t e = cudaFuncGetAttributes(&attributes, kernel_of(LIK_BF16, false, false));
    if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorInvalidDeviceFunction ||
        (e == cudaSuccess && attributes.sharedSizeBytes < sizeof(struct shared))) {
        cudaGetLastError(); /* this build has no sm_90a, or the kernel without its body: mma.sync it is */
        return LIK_OK;
    }
    void *encode = NULL;
    cudaDriverEntryPointQueryResult found;
    if (e == cudaSuccess)
        e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault,
                                             &found);
    if (e != cudaSuccess || !encode)
        return lik_cuda_status(e == cudaSuccess ? cudaErrorSymbolNotFound : e, "cuTensorMapEncodeTiled");
    for (int i = 0; i < 12 && e == cudaSuccess; i++)
        e = cudaFuncSetAttribute(kernel_of(LIK_F32 + i / 4, i & 1, i & 2),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(gpu->limits.shared_bytes - sizeof(struct shared)));
    for (int i = 0; i < 4 && e == cudaSuccess; i++)
        e = cudaFuncSetAttribute(decoded_kernel_of(LIK_F16 + i / 2, i & 1),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(gpu->limits.shared_bytes - sizeof(struct shared)));
    for (int i = 0; i < 4 && e == cudaSuccess; i++)
        e = cudaFuncSetAttribute(widened_kernel_of(LIK_F16 + i / 2, i & 1),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(gpu->limits.shared_bytes - sizeof(struct shared)));
    for (int i = 0; i < 4 && e == cudaSuccess; i++)
        e = cudaFuncSetAttribute(whole_kernel_of(LIK_F16 + i / 2, i & 1),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(gpu->limits.shared_bytes - sizeof(struct shared)));
    for (int i = 0; i < 4 && e == cudaSuccess; i++)
        e = cudaFuncSetAttribute(ahead_kernel_of(LIK_F16 + i / 2, i & 1),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(gpu->limits.shared_bytes - sizeof(struct shared)));
    for (int i = 0; i < 4 && e == cudaSuccess; i++)
        e = cudaFuncSetAttribute(lik_cuda_sm90_kernel_i8(i & 1, i & 2),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(gpu->limits.shared_bytes - sizeof(struct shared)));
    gpu->encode_tensor_map = encode;
    gpu->limits.hopper = e == cudaSuccess;
    return lik_cuda_status(e, "cudaFuncSetAttribute");
}

typedef CUresult (*encode_tensor_map)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                      const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                      const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

int lik_cuda_sm90_map(const struct lik_gpu *gpu, const struct lik_tokens *d, int elements, int rows,
                      int sequences, CUtensorMap *map)
{
    int64_t members = d->group_size > 0 ? d->group_size : d->count;
    cuuint64_t shape[4] = {(cuuint64_t)d->dim, (cuuint64_t)d->len_max, (cuuint64_t)members,
                           (cuuint64_t)(d->count / members)};
    if (d->offsets) {
        shape[1] = (cuuint64_t)d->total;
        shape[2] = shape[3] = 1;
    }
    cuuint64_t bytes = lik_dtype_bytes(d->dtype);
    static const CUtensorMapDataType types[] = {
        CU_TENSOR_MAP_DATA_TYPE_FLOAT32, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        CU_TENSOR_MAP_DATA_TYPE_UINT8};
    int64_t steps[3] = {d->strides.token, d->strides.sequence, d->strides.group};
    cuuint64_t strides[3];
    /* a stride that is never used may be anything, but the map wants it in range */
    for (int i = 0; i < 3; i++)
        strides[i] =
            shape[i + 1] > 1 ? (cuuint64_t)steps[i] * bytes : (cuuint64_t)(d->dim * bytes + 15) / 16 * 16;
    cuuint32_t ones[4] = {1, 1, 1, 1},
               box[4] = {(cuuint32_t)elements, (cuuint32_t)rows, (cuuint32_t)sequences, 1};
    CUresult e = ((encode_tensor_map)gpu->encode_tensor_map)(
        map, types[bytes == 1 ? 3 : d->dtype - LIK_F32], 4, (void *)d->data, shape, strides, box, ones,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (e != CUDA_SUCCESS)
        return lik_fail(LIK_EDEVICE, "cuTensorMapEncodeTiled failed (%d) for d: %lld x %lld x %lld", (int)e,
                        (long long)d->count, (long long)d->len_max, (long long)d->dim);
    return LIK_OK;
}

/* Of the one box of a uniform stream, or of each box height. */
static int make_maps(const struct lik_gpu *gpu, struct sm90_args *a)
{
    int status = LIK_OK;
    for (int b = 0; b < (a->uniform ? 1 : BOXES) && !status; b++)
        status = lik_cuda_sm90_map(gpu, &a->score.op.d, a->slab_elements,
                                   a->uniform ? 8 * a->octets_per_piece : 8 << b,
                                   a->uniform ? a->documents_per_tile : 1, &a->maps[b]);
    return status;
}

static void take_plan(struct sm90_args *a, const struct sm90_plan *p)
{
    const struct sm90_regime *r = &p->regime;
    a->slabs = r->slabs;
    a->row_slabs = r->row_slabs;
    a->steps_per_stage = r->steps_per_stage;
    a->slab_elements = r->slab_elements;
    a->planes = r->planes;
    a->rows_in_memory = r->rows_in_memory;
    a->group_size = r->group_size;
    a->column_factors = r->column_factors;
    a->uniform = r->uniform;
    const struct sm90_tile *t = &p->tile;
    a->warpgroups = t->warpgroups;
    a->octets_per_tile = t->octets_per_tile;
    a->octets_per_piece = t->octets_per_piece;
    a->documents_per_tile = t->documents_per_tile;
    a->loose = t->loose;
    a->one_width = t->one_width;
    const struct sm90_ring *g = &p->ring;
    a->stages = g->stages;
    a->slabs_per_stage = g->slabs_per_stage;
    a->slab_bytes = g->slab_bytes;
    a->stage_bytes = g->stage_bytes;
    a->token_warpgroups = g->token_warpgroups;
    a->norm_warps = g->norm_warps;
    a->norm_teams = g->norm_teams;
    const struct sm90_schedule *s = &p->schedule;
    a->blocks_per_row_tile = s->blocks_per_row_tile;
    a->in_turn = s->in_turn;
    a->by_tokens = s->by_tokens;
    a->pairs_extra = s->pairs_extra;
    a->pairs_each = s->pairs_each;
}

int lik_cuda_sm90_launch(const struct lik_gpu *gpu, const struct score_args *score,
                         const struct score_plan *plan, char *, cudaStream_t stream)
{
    const struct sm90_plan *p = &plan->sm90;
    struct sm90_args a = {};
    a.score = *score;
    take_plan(&a, p);
    int status = make_maps(gpu, &a);
    if (status)
        return status;
    const int argmax = score->op.argmax != NULL, two_bands = p->tile.bands > 1;
    const struct lik_tokens *q = &score->op.q, *d = &score->op.d;
    const int dtype = d->dtype, wide = lik_dtype_bytes(dtype) > 1;
    const int from_workspace = wide && p->regime.narrow && !p->regime.planes;
    const void *kernel = p->regime.rows_ahead ? ahead_kernel_of(dtype, argmax)
                         : p->tile.whole      ? whole_kernel_of(dtype, two_bands)
                         : from_workspace     ? decoded_kernel_of(dtype, argmax)
                         : wide               ? kernel_of(dtype, argmax, two_bands)
                         : p->regime.planes   ? widened_kernel_of(q->dtype, argmax)
                                              : lik_cuda_sm90_kernel_i8(argmax, two_bands);
    return lik_cuda_launch_early(gpu, kernel, "score_sm90", (unsigned)p->schedule.blocks,
                                 128 * (unsigned)(p->tile.warpgroups + p->ring.token_warpgroups + 1),
                                 (size_t)p->ring.shared_bytes, stream, &a);
}
