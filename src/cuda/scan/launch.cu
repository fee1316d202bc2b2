/* The scan's launches: the centroids laid out as its lanes hold them, and the pass. */
#include "cuda/scan/group_i8.cuh"

/* Sixteen bytes of the table a thread: those of one lane and chunk. */
static __global__ void lay_out_centroids(const __grid_constant__ struct lik_codec codec, int dtype, int dim,
                                         uint4 *out)
{
    let_next_kernel_begin();
    const int64_t stride = codec.centroid_stride ? codec.centroid_stride : dim;
    const int per_row = dim / 8;
    const int64_t count = (codec.centroid_count + 1) * per_row;
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < count;
         n += (int64_t)gridDim.x * blockDim.x) {
        const int64_t c = n / per_row;
        const int at = (int)(n - c * per_row), first = at / 4 * 32 + at % 4 * 4;
        uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            word[i] = 0;
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const int k = first + i / 2 * 16 + i % 2 * 2 + e;
                float x = __uint_as_float(0x7fc00000u); /* the last row */
                if (c < codec.centroid_count)
                    x = load_element(codec.centroids, codec.centroids_dtype, c * stride + k);
                word[i] |= (dtype == LIK_BF16 ? half_bits<LIK_BF16>(x) : half_bits<LIK_F16>(x)) << 16 * e;
            }
        }
        out[n] = make_uint4(word[0], word[1], word[2], word[3]);
    }
}

/* The same of f32, in their own order. */
static __global__ void lay_out_f32(const __grid_constant__ struct lik_codec codec, int dim, float *out)
{
    let_next_kernel_begin();
    const int64_t stride = codec.centroid_stride ? codec.centroid_stride : dim;
    const int64_t count = (codec.centroid_count + 1) * dim;
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < count;
         n += (int64_t)gridDim.x * blockDim.x) {
        const int64_t c = n / dim;
        out[n] = c < codec.centroid_count
                     ? load_element(codec.centroids, codec.centroids_dtype, c * stride + n - c * dim)
                     : __uint_as_float(0x7fc00000u);
    }
}

/* As integers, a warp each: elements, four words of lane t and then four more; the weights that
 * the bits of an element stand for; the unit. group_i8.cuh says what they are. */
static __global__ void lay_out_integers(const __grid_constant__ struct lik_codec codec, int dtype,
                                        uint32_t *out)
{
    let_next_kernel_begin();
    const bool colbert = codec.bit_order == LIK_BITS_COLBERT;
    const int lane = (int)threadIdx.x & 31, bits = codec.bits, n = lane >> 4 << 2 | (lane & 3);
    const int64_t stride = codec.centroid_stride ? codec.centroid_stride : GROUP_DIM;
    float weight = 0.0f; /* of a lane's bits */
    if (bits && lane < 1 << bits)
        weight = round_to(dtype, load_element(codec.weights, codec.weights_dtype,
                                              colbert ? lik_reversed_bits(lane, bits) : lane));
    const float heaviest = __uint_as_float(most_of_lanes(__float_as_uint(weight) & 0x7fffffffu));
    for (int64_t c = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32; c <= codec.centroid_count;
         c += (int64_t)gridDim.x * blockDim.x / 32) {
        float v[4];
        uint32_t most = 0, word = 0;
        for (int j = 0; j < 4; j++) {
            v[j] = __uint_as_float(0x7fc00000u); /* the last row */
            if (c < codec.centroid_count)
                v[j] = round_to(dtype,
                                load_element(codec.centroids, codec.centroids_dtype,
                                             c * stride + i8_element(bits, colbert, lane >> 2 & 3, n, j)));
            most = max(most, __float_as_uint(v[j]) & 0x7fffffffu);
        }
        const float largest = __uint_as_float(most_of_lanes(most));
        float unit = __fdiv_rn(__fadd_rn(largest, heaviest), 126.0f);
        const bool bad = !(unit < INFINITY);
        unit = bad ? __uint_as_float(0x7fc00000u) : unit < 0x1p-100f ? 0.0f : unit;
        const float inverse = unit > 0.0f ? __fdiv_rn(1.0f, unit) : 0.0f;
        const int own = bad ? 0 : __float2int_rn(__fmul_rn(weight, inverse)),
                  offset = (int)most_of_lanes((uint32_t)abs(own));
        for (int j = 0; j < 4; j++) {
            int x = bad ? -128 : __float2int_rn(__fmul_rn(v[j], inverse));
            x += bits ? 128 - offset : 0;
            word |= (uint32_t)(x & 255) << 8 * j;
        }
        uint32_t *row = out + c * (GROUP_I8_CENTROID / 4);
        row[lane] = word;
        word = 0;
        for (int j = 0; j < 4; j++)
            word |= (uint32_t)(__shfl_sync(~0u, own, (lane & 3) * 4 + j) + offset) << 8 * j;
        if (lane < (bits == 4 ? 4 : 1))
            row[I8_WEIGHTS + lane] = word;
        if (lane == 0)
            row[I8_UNIT_WORD(bits)] = __float_as_uint(unit);
    }
}

static scan_kernel kernel_of(int dtype, int bits, int way)
{
    switch (bits) {
    case 0: return lik_cuda_scan_kernel_0(dtype, way);
    case 1: return lik_cuda_scan_kernel_1(dtype, way);
    case 2: return lik_cuda_scan_kernel_2(dtype, way);
    case 4: return lik_cuda_scan_kernel_4(dtype, way);
    default: return lik_cuda_scan_kernel_8(dtype, way);
    }
}

/* Integers have the place of a dtype: 0. */
static scan_kernel group_kernel_of(int dtype, int bits, int rows, int norms, int argmax)
{
    if (!dtype)
        switch (bits) {
        case 0: return lik_cuda_group_i8_kernel_0(rows, norms, argmax);
        case 1: return lik_cuda_group_i8_kernel_1(rows, norms, argmax);
        case 2: return lik_cuda_group_i8_kernel_2(rows, norms, argmax);
        default: return lik_cuda_group_i8_kernel_4(rows, norms, argmax);
        }
    if (dtype == LIK_F32)
        return lik_cuda_group_kernel_f32(bits, norms == GROUP_UNIT, argmax);
    switch (bits) {
    case 0: return lik_cuda_group_kernel_0(dtype, rows, norms, argmax);
    case 1: return lik_cuda_group_kernel_1(dtype, rows, norms, argmax);
    case 2: return lik_cuda_group_kernel_2(dtype, rows, norms, argmax);
    default: return lik_cuda_group_kernel_4(dtype, rows, norms, argmax);
    }
}

/* Of all kernels of groups, n of them; NULL behind the last. */
static scan_kernel nth_group_kernel(int n)
{
    static const int bits[] = {0, 1, 2, 4}, rows[] = {32, 128, 256, 32};
    const int norms = n % GROUP_NORMS, form = n / GROUP_NORMS % 4, b = n / GROUP_NORMS / 4 % 4,
              dtype = n / GROUP_NORMS / 16;
    return dtype > LIK_BF16 ? NULL : group_kernel_of(dtype, bits[b], rows[form], norms, form == 3);
}

int lik_cuda_scan_prepare(struct lik_gpu *gpu)
{
    static const int bits[] = {0, 1, 2, 4, 8};
    cudaError_t e = cudaSuccess;
    for (int i = 0; nth_group_kernel(i) && e == cudaSuccess && gpu->limits.hopper; i++)
        e = cudaFuncSetAttribute((const void *)nth_group_kernel(i),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, (int)gpu->limits.shared_bytes);
    for (int i = 0; i < 2 * 5 * SCAN_WAYS && e == cudaSuccess && gpu->limits.hopper; i++) {
        scan_kernel kernel = kernel_of(LIK_F16 + i / (5 * SCAN_WAYS), bits[i / SCAN_WAYS % 5], i % SCAN_WAYS);
        e = cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)gpu->limits.shared_bytes - 1024); /* what it has itself */
    }
    return lik_cuda_status(e, "preparing the scan's kernels");
}

int lik_cuda_lay_out_centroids(const struct lik_tokens *x, void *out, cudaStream_t stream)
{
    if (x->dtype == LIK_F32) {
        lay_out_f32<<<lik_cuda_blocks((x->codec->centroid_count + 1) * x->dim / 4), 256, 0, stream>>>(
            *x->codec, (int)x->dim, (float *)out);
        return lik_cuda_launched("lay_out_f32");
    }
    lay_out_centroids<<<lik_cuda_blocks((x->codec->centroid_count + 1) * x->dim / 8), 256, 0, stream>>>(
        *x->codec, x->dtype, (int)x->dim, (uint4 *)out);
    return lik_cuda_launched("lay_out_centroids");
}

static int lay_out_as_integers(const struct lik_tokens *x, void *out, cudaStream_t stream)
{
    lay_out_integers<<<lik_cuda_blocks((x->codec->centroid_count + 1) * 32), 256, 0, stream>>>(
        *x->codec, x->dtype, (uint32_t *)out);
    return lik_cuda_launched("lay_out_integers");
}

int lik_cuda_scan_launch(const struct lik_gpu *gpu, const struct score_args *score,
                         const struct score_plan *plan, char *workspace, cudaStream_t stream)
{
    const struct scan_plan *p = &plan->scan;
    const struct lik_tokens *d = &score->op.d;
    struct scan_args a = {};
    a.score = *score;
    a.codec = *d->codec;
    a.centroids = workspace + plan->centroids;
    a.chunks = (int32_t)(d->dim / 32);
    a.row_bytes = (int32_t)lik_residual_bytes(d->dim, a.codec.bits);
    a.code_bytes = (int32_t)lik_dtype_bytes(d->codes_dtype);
    a.copy_bytes = p->copy_bytes;
    a.ring_row = p->ring_row;
    a.items = (int32_t)(plan->tiling.tiles * plan->columns);
    int status = p->integers ? lay_out_as_integers(d, workspace + plan->centroids, stream)
                             : lik_cuda_lay_out_centroids(d, workspace + plan->centroids, stream);
    if (status)
        return status;
    if (p->group_rows) {
        const int norms = d->normalize ? GROUP_UNIT : d->scale ? GROUP_STORED : GROUP_PLAIN;
        a.listed = score->op.pairing == LIK_LIST;
        a.tiles = (int32_t)(a.listed ? plan->tiling.parts : plan->tiling.tiles);
        a.items = (int32_t)(a.listed ? score->op.list_count : plan->columns);
        a.scale_bytes = !d->scale ? 0 : d->scale_dtype == LIK_F16 ? 2 : 4;
        const int64_t last =
            d->offsets ? d->total - 1 : lik_tokens_base(d, &d->scale_strides, d->count - 1) + d->len_max - 1;
        a.scales_end = (const char *)d->scale + (last + 1) * a.scale_bytes;
        a.score.op.pairing = LIK_ALL; /* all documents meet query 0, if not all queries */
        const void *kernel = (const void *)group_kernel_of(p->integers ? 0 : d->dtype, a.codec.bits,
                                                           p->group_rows, norms, score->op.argmax != NULL);
        const int warps = p->integers ? GROUP_I8_WARPS(p->group_rows) : GROUP_WARPS(p->group_rows);
        return lik_cuda_launch_early(gpu, kernel, "scan_group", (unsigned)p->blocks, 32 * (unsigned)warps,
                                     (size_t)p->shared_bytes, stream, &a);
    }
    const int plain = d->dim == 16 * BLOCKS && p->copy_bytes == 16 && !score->op.argmax;
    const int way = score->op.argmax ? SCAN_ANY_ARGMAX
                    : !plain         ? SCAN_ANY
                    : d->normalize   ? SCAN_NORMALIZED
                                     : SCAN_PLAIN;
    const void *kernel = (const void *)kernel_of(d->dtype, a.codec.bits, way);
    return lik_cuda_launch_early(gpu, kernel, "scan", (unsigned)p->blocks, 32 * SCAN_WARPS,
                                 (size_t)p->shared_bytes, stream, &a);
}
