/* The Hopper loop's producer, one warp: it walks the documents, plans column tiles and copies
 * them. It is the only one that knows of layouts, masks, lists and offsets. */
#ifndef LIK_CUDA_SM90_PRODUCER_CUH
#define LIK_CUDA_SM90_PRODUCER_CUH

#include "cuda/sm90/schedule.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Its place in the stream, the same in all lanes but for what is said to be of a lane. */
struct walk {
    int64_t left; /* documents still to open */
    int row_tile;
    int64_t column;
    int octets_left, piece;  /* of the open document, 0: none is open; of each of its pieces but the last */
    int length, done, first; /* of its tokens up to the last kept one; those in tiles; the first kept one */
    bool holes, loose;       /* some before the last are dropped; pieces are LOOSE */
    uint32_t window;         /* of a lane: which of 32 tokens are kept, from window_from + 32 lane on */
    int window_from;         /* (if there are holes) */
    /* the next or open document in struct batch; 32 or more: the batch is to be read */
    int from;
};

/* One copy of 8 << map rows. */
struct box {
    const CUtensorMap *map; /* NULL: none */
    int octet, row, sequence, group;
};

/* The box of `octets` octets of rows that bit `bit` of them stands for; the largest come first.
 * `at`: where the first of them goes and is. */
LIK_DEVICE struct box cut_box(const struct sm90_args &a, struct box at, int octets, int bit)
{
    int before = octets >> (bit + 1) << (bit + 1);
    at.map = octets >> bit & 1 ? &a.maps[bit] : NULL;
    at.octet += before;
    at.row += before * 8;
    return at;
}

/* The first n of 32 bits. */
LIK_DEVICE uint32_t first_bits(int n)
{
    return n >= 32 ? ~0u : n > 0 ? (1u << n) - 1u : 0u;
}

/* Which of 1024 tokens from `from` on are kept, 32 a lane. */
LIK_DEVICE uint32_t read_mask(const struct lik_tokens &d, int64_t base, int from, int length, int lane)
{
    const uint8_t *mask = d.mask + base + (from + lane) * d.mask_strides.token;
    int left = length - from - lane;
    uint32_t kept = 0;
#pragma unroll 1
    for (int w = 0; w < 32 && from + w * 32 < length; w += 16) {
        uint32_t keep[16];
#pragma unroll
        for (int i = 0; i < 16; i++, left -= 32, mask += 32 * d.mask_strides.token)
            keep[i] = load_byte_if(left > 0, mask);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            uint32_t ballot = __ballot_sync(~0u, keep[i]);
            kept = lane == w + i ? ballot : kept;
        }
    }
    return kept;
}

/* The same of all documents of a batch, where they are short; their lengths become those up to
 * the last kept token. */
LIK_DEVICE void read_masks(struct batch &batch, const struct lik_tokens &d, int documents, int lane)
{
#pragma unroll 1
    for (int from = 0; from < documents; from += 2) {
        uint8_t keep[2][SM90_SHORT_TOKENS / 32] = {};
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (batch.length[from + i] > 0)
#pragma unroll
                for (int k = 0; k < SM90_SHORT_TOKENS / 32; k++)
                    keep[i][k] =
                        d.mask[batch.mask[from + i] +
                               min(k * 32 + lane, batch.length[from + i] - 1) * d.mask_strides.token];
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int k = 0; k < SM90_SHORT_TOKENS / 32; k++)
                batch.kept[from + i][k] =
                    __ballot_sync(~0u, keep[i][k]) & first_bits(batch.length[from + i] - k * 32);
    }
    __syncwarp();
    int length = min(batch.length[lane], 0);
#pragma unroll
    for (int k = 0; k < SM90_SHORT_TOKENS / 32; k++)
        if (lane < documents && batch.length[lane] > 0 && batch.kept[lane][k])
            length = k * 32 + 32 - __clz(batch.kept[lane][k]);
    batch.length[lane] = length;
    __syncwarp();
}

LIK_DEVICE void read_batch(struct walk &w, struct batch &batch, const struct sm90_args &a, int lane)
{
    const struct score_args &score = a.score;
    const struct lik_tokens &d = score.op.d;
    const int64_t column = w.column + lane, query = score.tiling.parts ? w.row_tile / score.tiling.parts : 0;
    int length = 0, row = 0, sequence = 0, group = 0;
    w.from = 0;
    if (column < score.columns) {
        int64_t i = lik_score_document(&score.op, query, column);
        length = sequence_length(d, i);
        if (length >= 0 && d.offsets) {
            row = (int)lik_offset_at(&d, i);
        } else if (length >= 0) {
            group = d.group_size > 0 ? (int)(i / a.group_size) : 0;
            sequence = (int)(i - (int64_t)group * a.group_size);
        }
        if (length >= 0 && d.mask) {
            batch.mask[lane] = lik_tokens_base(&d, &d.mask_strides, i);
            for (int t = 0; t < min(length, 4096) && lane < w.left && d.mask_strides.token == 1; t += 128)
                prefetch_l2(d.mask + batch.mask[lane] + t);
        }
    }
    batch.length[lane] = length;
    batch.row[lane] = row;
    batch.sequence[lane] = sequence;
    batch.group[lane] = group;
    __syncwarp();
    if (d.mask && d.len_max <= SM90_SHORT_TOKENS)
        read_masks(batch, d, (int)min(min(w.left, score.columns - w.column), (int64_t)32), lane);
}

/* Where the open document's last kept token is, and its first, and whether some between are
 * dropped. */
LIK_DEVICE void look_at_mask(struct walk &w, const struct batch &batch, const struct lik_tokens &d, int lane)
{
    int length = w.length, solid = 0; /* tokens before the first that is dropped */
    w.length = 0;
#pragma unroll 1
    for (w.window_from = 0; w.window_from < length; w.window_from += 1024) {
        if (d.len_max <= SM90_SHORT_TOKENS)
            w.window = lane < SM90_SHORT_TOKENS / 32 ? batch.kept[w.from][lane] : 0;
        else
            w.window = read_mask(d, batch.mask[w.from], w.window_from, length, lane);
        unsigned some = __ballot_sync(~0u, w.window), part = __ballot_sync(~0u, ~w.window);
        if (!some)
            continue;
        int last = 31 - __clz(some), first = __ffs(some) - 1, open = part ? __ffs(part) - 1 : 31;
        if (solid == w.window_from)
            solid += open * 32 + __clz(__brev(~__shfl_sync(~0u, w.window, open)));
        if (w.length == 0)
            w.first = w.window_from + first * 32 + __ffs(__shfl_sync(~0u, w.window, first)) - 1;
        w.length = w.window_from + last * 32 + 32 - __clz(__shfl_sync(~0u, w.window, last));
    }
    w.window_from -= 1024;
    w.holes = solid < w.length;
}

/* Octets of a document of so many tokens: none has one as well, and so has one out of range
 * (-1). */
LIK_DEVICE int document_octets(int length)
{
    return max((length + 7) / 8, 1);
}

LIK_DEVICE void open_document(struct walk &w, const struct batch &batch, const struct sm90_args &a, int lane)
{
    const struct lik_tokens &d = a.score.op.d;
    w.length = max(batch.length[w.from], 0);
    w.holes = false;
    w.first = w.done = 0;
    if (d.mask && w.length > 0)
        look_at_mask(w, batch, d, lane);
    w.octets_left = document_octets(w.length);
    w.piece = w.octets_left;
    if (w.piece > a.octets_per_tile) {
        int pieces = (w.piece + a.octets_per_tile - 1) / a.octets_per_tile;
        w.piece = (w.piece + pieces - 1) / pieces;
    }
    w.loose |= w.holes;
}

/* How many documents, from the next one on, share a tile: of those that can, as many as it
 * holds; `octets`: of a lane, of all documents up to the lane-th. */
LIK_DEVICE int count_joint(const struct walk &w, const struct batch &batch, const struct sm90_args &a,
                           int &octets, int lane)
{
    if (a.documents_per_tile == 1)
        return 1;
    int most = (int)min(min(w.left, a.score.columns - w.column), (int64_t)a.documents_per_tile);
    int own = document_octets(batch.length[min(w.from + lane, 31)]);
    bool can = lane < min(most, 32 - w.from) && own <= SM90_JOINT_OCTETS;
    octets = can ? own : 0;
#pragma unroll
    for (int o = 1; o < SM90_DOCUMENTS; o *= 2) {
        int before = __shfl_up_sync(~0u, octets, o);
        octets += lane >= o ? before : 0;
    }
    return __ffs(~__ballot_sync(~0u, can && octets <= a.octets_per_tile)) - 1;
}

/* Plans a tile of the next `n` documents: the head, and each lane's box; returns its octets. */
LIK_DEVICE int plan_joint(struct walk &w, const struct batch &batch, const struct sm90_args &a,
                          struct head &head, struct box &box, int n, int octets, int lane)
{
    int used = __shfl_sync(~0u, octets, n - 1), length = batch.length[min(w.from + lane, 31)];
    uint32_t ends = __reduce_or_sync(~0u, lane < n ? 1u << (octets - 1) : 0);
    uint32_t empty = __ballot_sync(~0u, lane < n && length <= 0),
             bad = __ballot_sync(~0u, lane < n && length < 0);
    if (lane < used) { /* a lane an octet: the document that it is of, and which of its eight columns count */
        uint32_t before = ends & ((1u << lane) - 1u);
        int document = w.from + __popc(before), octet = lane - (32 - __clz(before));
        uint32_t counts = first_bits(min(batch.length[document] - octet * 8, 8));
        if (a.score.op.d.mask)
            counts &= batch.kept[document][octet / 4] >> octet % 4 * 8;
        ((uint8_t *)head.counts)[lane] = (uint8_t)counts;
    }
    int document = min(lane / 4, n - 1); /* four lanes a document: a box each */
    int end = __shfl_sync(~0u, octets, document);
    document += w.from;
    int own = document_octets(batch.length[document]);
    box = {NULL, end - own, batch.row[document], batch.sequence[document], batch.group[document]};
    box = cut_box(a, box, lane / 4 < n ? own : 0, 3 - lane % 4);
    if (lane == 0) {
        *(int4 *)&head = make_int4(0, used | n << 8 | JOINT, w.row_tile, 0);
        head.ends = ends;
        head.empty = empty;
        head.bad = bad;
        head.column = w.column;
    }
    w.column += n;
    w.from += n;
    w.left -= n;
    return used;
}

/* Plans a tile of the next documents, `octets_per_piece` octets of it for each; returns the
 * octets that are copied. */
LIK_DEVICE int plan_slots(struct walk &w, const struct batch &batch, const struct sm90_args &a,
                          struct head &head, struct box &box, int lane)
{
    const int most = (int)min(min(w.left, a.score.columns - w.column), (int64_t)a.documents_per_tile);
    const int n = min(most, 32 - w.from), slot = a.octets_per_piece;
    const int length = lane < n ? batch.length[w.from + lane] : 0;
    const uint32_t empty = __ballot_sync(~0u, lane < n && length <= 0),
                   bad = __ballot_sync(~0u, lane < n && length < 0);
    const int used = (int)__reduce_add_sync(~0u, lane < n ? (unsigned)document_octets(length) : 0u);
    if (lane < n * slot) { /* a lane an octet: which of its eight columns count */
        const int document = w.from + lane / slot, octet = lane % slot;
        uint32_t counts = first_bits(min(batch.length[document] - octet * 8, 8));
        if (a.score.op.d.mask)
            counts &= batch.kept[document][octet / 4] >> octet % 4 * 8;
        ((uint8_t *)head.counts)[lane] = (uint8_t)counts;
    }
    const int i = min(lane / 4, n - 1), document = w.from + i; /* four lanes a document: a box each */
    box = {NULL, i * slot, batch.row[document], batch.sequence[document], batch.group[document]};
    box = cut_box(a, box, lane / 4 < n ? document_octets(batch.length[document]) : 0, 3 - lane % 4);
    if (lane == 0) {
        *(int4 *)&head = make_int4(0, n * slot | n << 8, w.row_tile, 0);
        head.empty = empty;
        head.bad = bad;
        head.column = w.column;
    }
    w.column += n;
    w.from += n;
    w.left -= n;
    return used;
}

/* Octets that are multiplied for those of a piece; `piece`: of each of the document's pieces
 * but the last. */
LIK_DEVICE int width_of_piece(const struct sm90_args &a, bool loose, int octets, int piece)
{
    return octets + (a.one_width && !loose && octets == piece - 1);
}

/* Plans a tile of the next piece of the open document. */
template <bool scaled>
LIK_DEVICE int plan_piece(struct walk &w, const struct batch &batch, const struct sm90_args &a,
                          struct head &head, struct box &box, int lane)
{
    int take = min(w.piece, w.octets_left), columns = min(take * 8, w.length - w.done);
    bool last = take == w.octets_left;
    box = {NULL, 0, batch.row[w.from] + w.done, batch.sequence[w.from], batch.group[w.from]};
    box = cut_box(a, box, lane < BOXES ? take : 0, max(BOXES - 1 - lane, 0));
    if (w.holes) {
        if (w.done < w.window_from || w.done + columns > w.window_from + 1024) {
            w.window_from = w.done & ~31;
            w.window = read_mask(a.score.op.d, batch.mask[w.from], w.window_from, w.length, lane);
        }
        int word = (w.done - w.window_from) / 32 + lane;
        uint32_t low = __shfl_sync(~0u, w.window, word), high = __shfl_sync(~0u, w.window, word + 1);
        if (lane < 8)
            head.counts[lane] = __funnelshift_r(low, high, w.done & 31) & first_bits(columns - lane * 32);
    } else if (w.loose && lane < 8) {
        head.counts[lane] = first_bits(columns - lane * 32);
    }
    if (lane == 0) {
        int width = width_of_piece(a, w.loose, take, w.piece);
        *(int4 *)&head = make_int4(columns, width | last << 8 | (w.loose ? LOOSE : 0), w.row_tile, w.done);
        if (last) {
            head.empty = w.length == 0;
            head.bad = batch.length[w.from] < 0;
            head.first = w.first;
        }
        if (last)
            head.column = w.column;
        if (scaled) {
            head.row = a.score.op.d.offsets ? batch.row[w.from] : batch.sequence[w.from];
            head.group = batch.group[w.from];
        }
    }
    w.done += take * 8;
    w.octets_left -= take;
    w.column += last;
    w.from += last;
    w.left -= last;
    return take;
}

/* Plans the next tile: the head, and each lane's box; returns its octets, 0 at the end of the
 * stream. `slots`: by plan_slots. */
template <bool scaled, bool slots>
LIK_DEVICE int plan_tile(struct walk &w, struct batch &batch, const struct sm90_args &a, struct head &head,
                         struct box &box, int lane)
{
    int used, n = 1, octets = 0;
    if (w.octets_left == 0) {
        if (w.left == 0)
            return 0;
        if (w.column == a.score.columns) {
            w.column = 0;
            w.row_tile++;
            w.from = 32; /* the documents may depend on the query */
        }
        if (w.from >= 32)
            read_batch(w, batch, a, lane);
        if constexpr (slots) {
            used = plan_slots(w, batch, a, head, box, lane);
            __syncwarp();
            return used;
        }
        n = count_joint(w, batch, a, octets, lane);
        if (n <= 1)
            open_document(w, batch, a, lane);
    }
    used = n > 1 ? plan_joint(w, batch, a, head, box, n, octets, lane)
                 : plan_piece<scaled>(w, batch, a, head, box, lane);
    __syncwarp();
    return used;
}

/* Starts the copies of one box of the stage that begins with `slab`. */
LIK_DEVICE void copy_box(const struct sm90_args &a, struct shared &sm, char *ring, const struct place &at,
                         const struct box &box, int slab)
{
    char *to = ring + at.stage * a.stage_bytes + box.octet * SM90_OCTET_BYTES;
    for (int i = 0; i < a.slabs_per_stage; i++)
        tensor_copy(to + i * a.slab_bytes, box.map, &sm.full[at.stage], (slab + i) * a.slab_elements, box.row,
                    box.sequence, box.group);
}

/* Tells those who wait for a tile that there is none: a team that takes every other tile may
 * wait for the one after. */
LIK_DEVICE void end_stream(const struct sm90_args &a, struct shared &sm, struct place at, int tile)
{
    for (int i = 0; i < a.norm_teams; i++) {
        mbarrier_wait(&sm.empty[at.stage], at.parity);
        sm.heads[(tile + i) % SM90_HEADS].row_tile = -1;
        mbarrier_arrive(&sm.full[at.stage]);
        for (int slab = 0; slab < a.slabs; slab += a.slabs_per_stage)
            advance(at, a.stages);
    }
}

/* Where a document of a tile lies, as in struct batch; its tokens, -1: out of range. */
struct tile_document {
    int row, group, length;
};

/* The columns' factors, where those are their scales; document(k) is the k-th of the tile's.
 * The copies arrive at the tile's barrier by themselves: no one waits for them but who
 * multiplies. */
template <class Document>
LIK_DEVICE void bring_scales(const struct sm90_args &a, struct shared &sm, float *factors, int most, int tile,
                             Document document)
{
    const struct lik_tokens &d = a.score.op.d;
    const struct lik_strides &s = d.scale_strides;
    const struct head &head = sm.heads[tile];
    const int lane = (int)threadIdx.x & 31, columns = (head.shape & 0xff) * 8;
    float *to = &factors[tile * most + lane];
    auto base_of = [&](const struct tile_document &x) {
        return d.offsets ? x.row * s.token : x.group * s.group + x.row * s.sequence;
    };
    if (!(head.shape & JOINT)) { /* brief: every tile waits for it */
        const struct tile_document x = document(0);
        const int token = head.token + lane;
        const float *from = d.scale + base_of(x) + token * s.token;
#pragma unroll 1
        for (int c = lane, left = x.length - token; c < columns; c += 32, left -= 32) {
            copy_async_4_if(left > 0, to, left > 0 ? from : d.scale);
            to += 32;
            from += 32 * s.token;
        }
    } else {
        for (int c = lane; c < columns; c += 32, to += 32) {
            const uint32_t before = head.ends & ((1u << c / 8) - 1u); /* ends before the column's octet */
            const int token = c - (32 - __clz(before)) * 8;
            const struct tile_document x = document(__popc(before));
            const bool there = token < x.length;
            copy_async_4_if(there, to, d.scale + (there ? base_of(x) + token * s.token : 0));
        }
    }
    copy_async_arrive(&sm.factors_ready[tile]);
}

/* All documents have d.len_max tokens, all of which count: no walk, and a tile is one box. One
 * thread does it, or if scales are wanted (`scaled`) all do, the first the work of one.
 * `factors`: of `most` columns a tile. Long because the head is written in the loop. */
template <bool scaled>
LIK_DEVICE void produce_uniform(const struct sm90_args &a, struct shared &sm, char *ring, float *factors,
                                int most, const struct share &mine)
{
    const bool first = (threadIdx.x & 31) == 0;
    if (!scaled && !first)
        return;
    const struct lik_score &op = a.score.op;
    const int length = (int)op.d.len_max, piece = a.octets_per_piece, together = a.documents_per_tile;
    const uint32_t bytes = (uint32_t)(piece * together * a.slabs_per_stage) * SM90_OCTET_BYTES;
    uint32_t counts[SM90_OCTETS / 4] = {}, ends = 0;
    if (together > 1)
#pragma unroll
        for (int j = 0; j < SM90_OCTETS; j++) {
            bool last = j % piece == piece - 1;
            counts[j / 4] |= (last ? 0xffu >> (-length & 7) : 0xffu) << j % 4 * 8;
            ends |= (uint32_t)last << j;
        }
    struct place at = {0, 1};
    struct box box = {&a.maps[0]}; /* its row is the token */
    int row_tile = mine.row_tile;
    int64_t column = mine.column, left = mine.count;
    auto locate = [&]() {
        int64_t row = a.score.tiling.parts ? row_tile / a.score.tiling.parts : 0;
        int document = (int)lik_score_document(&op, row, column);
        box.group = op.d.group_size > 0 ? document / a.group_size : 0;
        box.sequence = document - box.group * a.group_size;
    };
    locate();
    tensor_map_prefetch(&a.maps[0]);
    wait_for_kernels_before();
    int tile = 0;
    for (; left > 0; tile = (tile + 1) % SM90_HEADS) {
        struct head &head = sm.heads[tile];
        if (column == a.score.columns) {
            column = 0;
            row_tile++;
            locate();
        }
        int token = box.row;
        int columns = min(piece * 8, length - token), documents = token + columns == length;
        int octets = width_of_piece(a, false, (columns + 7) / 8, piece);
        if (together > 1) {
            documents = (int)min((int64_t)together, min(left, a.score.columns - column));
            octets = documents * piece;
        }
        mbarrier_wait(&sm.empty[at.stage], at.parity);
        if (!scaled || first) {
            *(int4 *)&head =
                make_int4(columns, octets | documents << 8 | (documents > 1 ? JOINT : 0), row_tile, token);
            if (documents) {
                head.ends = octets == 32 ? ends : ends & ((1u << octets) - 1u);
                head.empty = head.bad = 0;
                head.column = column;
                if (documents > 1) {
                    *(uint4 *)&head.counts[0] = make_uint4(counts[0], counts[1], counts[2], counts[3]);
                    *(uint4 *)&head.counts[4] = make_uint4(counts[4], counts[5], counts[6], counts[7]);
                }
            }
            if (scaled) {
                head.row = box.sequence;
                head.group = box.group;
            }
        }
        for (int slab = 0; slab < a.slabs; slab += a.slabs_per_stage) {
            if (slab)
                mbarrier_wait(&sm.empty[at.stage], at.parity);
            if (!scaled || first) {
                mbarrier_arrive_expect(&sm.full[at.stage], bytes);
                copy_box(a, sm, ring, at, box, slab);
            }
            if (scaled)
                __syncwarp();
            if (scaled && slab == 0 && a.norm_warps == 1)
                bring_scales(a, sm, factors, most, tile,
                             [&](int k) { return tile_document{box.sequence + k, box.group, length}; });
            advance(at, a.stages);
        }
        box.row += columns;
        if (documents) {
            box.row = 0;
            int64_t next = documents + (a.in_turn ? (int64_t)together * (a.blocks_per_row_tile - 1) : 0);
            column += next;
            left -= documents;
            box.sequence += (int)next;
            if (op.d.group_size > 0)
                locate();
        }
    }
    if (!scaled || first)
        end_stream(a, sm, at, tile);
}

/* Any other documents; the whole warp walks them. */
template <bool scaled, bool slots>
LIK_DEVICE void produce(const struct sm90_args &a, struct shared &sm, char *ring, float *factors, int most,
                        struct share mine)
{
    const struct lik_tokens &d = a.score.op.d;
    int lane = (int)threadIdx.x & 31;
    struct place at = {0, 1};
    if (lane < BOXES)
        tensor_map_prefetch(&a.maps[lane]);
    wait_for_kernels_before();
    share_tokens(a, mine);
    struct walk w = {};
    w.left = mine.count;
    w.row_tile = mine.row_tile;
    w.column = mine.column;
    w.from = 32;
    w.loose = a.loose;
    int tile = 0;
    for (;; tile = (tile + 1) % SM90_HEADS) {
        struct box box = {};
        int used = plan_tile<scaled, slots>(w, sm.batch, a, sm.heads[tile], box, lane);
        if (used == 0)
            break;
        for (int slab = 0; slab < a.slabs; slab += a.slabs_per_stage) {
            mbarrier_wait(&sm.empty[at.stage], at.parity);
            if (lane == 0)
                mbarrier_arrive_expect(&sm.full[at.stage],
                                       (uint32_t)(used * a.slabs_per_stage) * SM90_OCTET_BYTES);
            __syncwarp();
            if (box.map)
                copy_box(a, sm, ring, at, box, slab);
            __syncwarp();
            if (scaled && slab == 0 && a.norm_warps == 1)
                bring_scales(a, sm, factors, most, tile, [&](int k) {
                    const int i = w.from - (sm.heads[tile].shape >> 8 & 0xff) + k;
                    return tile_document{d.offsets ? sm.batch.row[i] : sm.batch.sequence[i],
                                         sm.batch.group[i], sm.batch.length[i]};
                });
            advance(at, a.stages);
        }
    }
    if (lane == 0)
        end_stream(a, sm, at, tile);
}

#endif

#endif
