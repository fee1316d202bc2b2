/* Rows to their centroids, as the plan says: copied, then scored, the argmax being the codes.
 * Which kernel multiplies is the plan of that score. */
#include "cuda/codec/assign.cuh"

int lik_cuda_assign_begin(const struct assign_plan *p, const struct lik_codec *codec, char *workspace,
                          cudaStream_t stream)
{
    struct row_copy copy = {};
    const struct lik_tokens centroids = lik_centroids(codec, p->dim);
    copy.source = row_source_of(&centroids);
    copy.count = copy.copies = p->centroid_count;
    copy.out = workspace + p->centroids;
    copy.stride = p->stride;
    copy.dtype = p->dtype;
    return lik_cuda_copy_rows(&copy, stream);
}

int lik_cuda_assign_chunk(const struct lik_gpu *gpu, const struct assign_plan *p, struct row_copy rows,
                          char *workspace, int32_t *codes, cudaStream_t stream)
{
    rows.copies = lik_round_up(rows.count, LIK_STRIP_ROWS);
    rows.out = workspace + p->rows;
    rows.stride = p->stride;
    rows.dtype = p->dtype;
    int status = lik_cuda_copy_rows(&rows, stream);
    if (status)
        return status;
    const struct lik_score op = lik_cuda_assign_score(p, workspace, rows.copies, codes);
    return lik_cuda_score_run(gpu, &op, rows.copies == p->rows_per_chunk ? &p->score : &p->last,
                              workspace + p->score_workspace, stream);
}
