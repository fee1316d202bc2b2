"""Checks of top-k and gradients, of streams and threads, and of what is refused."""

import ctypes
import os
import threading

import torch
from harness import PAIRINGS, Device, fail, grad_problem, gradients, problem, score
from problems import DTYPES, Guarded, Operand, lik

NAN = float("nan")


def check_topk(device, args):
    for dtype, nq, nd, k, smallest, pairing in (
        ("bf16", 3, 50, 10, 0, "all"),
        ("bf16", 8, 9000, 100, 0, "all"),
        ("f32", 2, 700, 5, 1, "all"),
        ("bf16", 5, 40, 64, 0, "all"),
        ("f16", 4, 6000, 3000, 0, "all"),
        ("bf16", 6, 30, 7, 0, "candidates"),
        ("bf16", 1100, 17000, 20, 0, "all"),
        ("bf16", 3, 9000, 50, 0, "packed"),
    ):
        g = torch.Generator(device="cuda").manual_seed(5)
        per = nd if pairing == "candidates" else 0
        q = Operand(g, nq, 8, 64, dtype, "ints")
        d = Operand(g, nq * nd if per else nd, 6, 64, dtype, "ints")
        if nd > 20 and dtype != "i8":
            d.data.data.view(DTYPES[dtype][1]).view(-1, 6, 64)[11] = NAN
        op = problem(q, d, PAIRINGS.get(pairing, lik.ALL), per)
        if pairing == "packed":
            offsets = torch.arange(nd + 1, device="cuda") * 6
            op.d.offsets, op.d.offsets_dtype, op.d.total = offsets.data_ptr(), lik.I64, nd * 6
        whole, _, _ = score(device, op)
        values, ids = Guarded(nq * k, torch.float32), Guarded(nq * k, torch.int64)
        top = lik.TopK(
            struct_size=ctypes.sizeof(lik.TopK),
            score=op,
            k=k,
            id_base=1000,
            smallest=smallest,
            values=values.ptr(),
            ids=ids.ptr(),
        )
        plan, workspace = device.launch("topk", top)
        torch.cuda.synchronize()
        key = whole.double().nan_to_num(float("inf") if smallest else -float("inf"))
        order = key.sort(dim=1, descending=not smallest, stable=True)[1][:, :k]
        n = order.shape[1]
        name = f"topk {dtype} {nq}x{nd} k {k} [{plan.variant.decode()}]"
        fail(values.intact() and ids.intact() and workspace.intact(), f"{name}: wrote past a buffer")
        got_ids, got = ids.data.view(nq, k), values.data.view(nq, k)
        fail(
            torch.equal(got_ids[:, :n], order + 1000),
            f"{name}: ids {got_ids[0, :8].tolist()} want {(order[0, :8] + 1000).tolist()}",
        )
        fail(
            torch.equal(got[:, :n].nan_to_num(7e7), whole.gather(1, order).nan_to_num(7e7)), f"{name}: values"
        )
        fail(bool((got_ids[:, n:] == -1).all()) and bool(got[:, n:].isnan().all()), f"{name}: filler")
    print("topk: done", flush=True)


# Long because its cases share the forward pass that they differentiate.
def check_grad(device, args):
    """Gradients of problems too large for the C suite against autograd in f64 at the same
    argmax; 100 runs alike.
    """
    for dtype, nq, nd, q_len, d_len, dim, per_query, kind in (
        ("bf16", 64, 64, 32, 300, 128, 0, "unit"),
        ("bf16", 256, 16, 32, 300, 128, 0, "unit"),  # 27 winners a token, some more than 32, some less
        ("bf16", 256, 300, 16, 100, 128, 0, "unit"),  # several tokens a warp, of 40 winners
        ("f16", 200, 280, 16, 120, 24, 0, "ints"),  # some of hundreds, most of few
        (
            "f32",
            900,
            150,
            16,
            90,
            40,
            0,
            "ints",
        ),  # several windows of a block's entries, of several tokens a warp
        (
            "bf16",
            40,
            6,
            300,
            520,
            128,
            0,
            "unit",
        ),  # more entries a document than a window holds, fewer a block
        ("f16", 600, 2, 99, 3, 128, 0, "normalized"),  # twenty thousand a token, many windows
        ("f16", 300, 5, 32, 1030, 128, 0, "normalized"),
        ("f32", 70, 4, 130, 64, 320, 0, "normalized"),  # rows of several slices, more entries than a window
        ("bf16", 3, 12, 17, 300, 1024, 4, "normalized"),
        ("f16", 5, 15, 33, 100, 64, 3, "unit"),
        ("f32", 9, 11, 20, 70, 36, 0, "unit"),
        ("bf16", 2, 3, 5, 9, 4096, 0, "normalized"),
        ("f16", 32, 9, 128, 3000, 128, 0, "unit"),  # less than two entries a token
        ("bf16", 50, 7, 40, 3, 128, 0, "unit"),  # hundreds a token
        *(
            (("bf16", "f32")[n % 2], 7, 21, n, 37, 96, 3, "normalized" if n == 64 else "unit")
            for n in (1, 32, 64, 65, 128, 129)
        ),  # few a document
    ):
        normalize = kind == "normalized"
        kind = "ints" if kind == "ints" else "unit"
        g = torch.Generator(device="cuda").manual_seed(11)
        q, d = (
            Operand(g, n, m, dim, dtype, kind, normalize=normalize) for n, m in ((nq, q_len), (nd, d_len))
        )
        op = problem(q, d, lik.CANDIDATES if per_query else lik.ALL, per_query)
        _, at, _ = score(device, op, torch.int16)
        columns = per_query or nd
        grad_scores = torch.randn(nq, columns, generator=g, device="cuda")
        (grad_q, grad_d), variant = gradients(device, op, q, d, grad_scores, at)
        how = "normalized " if normalize else ""
        name = f"grad {dtype} {nq}x{q_len} {nd}x{d_len} dim {dim} {how}[{variant}]"
        x, y = (torch.stack(o.rows).double().requires_grad_() for o in (q, d))
        u, v = (torch.nn.functional.normalize(t, dim=-1) if normalize else t for t in (x, y))
        total = 0
        for j in range(columns):
            documents = v.view(nq, per_query, d_len, dim)[:, j] if per_query else v[j].expand(nq, -1, -1)
            won = documents.gather(1, at[:, j].long()[..., None].expand(-1, -1, dim))
            total = total + (grad_scores[:, j].double() * (u * won).sum((1, 2))).sum()
        total.backward()
        eps = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}[dtype]
        for what, got, want in (("grad_q", grad_q, x.grad), ("grad_d", grad_d, y.grad)):
            error = (got.double() - want).abs()
            bound = (
                eps * want.abs() + 1e-5 * want.norm(dim=-1, keepdim=True) + (6e-8 if dtype == "f16" else 0)
            )
            fail(
                bool((error <= bound).all()),
                f"{name}: {what} off by {float((error - bound).max()):.2e} beyond its bound",
            )
        for _ in range(100 if dim <= 128 else 5):
            again, _ = gradients(device, op, q, d, grad_scores, at)
            if not fail(
                torch.equal(again[0], grad_q) and torch.equal(again[1], grad_d), f"{name}: two runs differ"
            ):
                break
    print("grad: done", flush=True)


def check_streams(device, args):
    """Graph capture and replay, two streams at once, nothing on the default stream."""
    g = torch.Generator(device="cuda").manual_seed(9)
    for dtype, dim, q_len in (("bf16", 128, 32), ("bf16", 128, 300), ("f32", 40, 20)):
        q, d = (
            Operand(g, 8, q_len, dim, dtype, normalize=True),
            Operand(g, 200, 90, dim, dtype, "unit", "packed", normalize=True),
        )
        op = problem(q, d)
        want, _, variant = score(device, op)
        out = [Guarded(8 * 200, torch.float32) for _ in range(2)]
        streams = [torch.cuda.Stream(), torch.cuda.Stream()]
        plans = [device.plan("score", op) for _ in range(40)]
        torch.cuda.synchronize()
        for n, (_, _, how) in enumerate(plans):
            op.scores = out[n % 2].ptr()
            with torch.cuda.stream(streams[n % 2]):
                device.run("score", op, how)
        torch.cuda.synchronize()
        for s in range(2):
            fail(torch.equal(out[s].data.view(8, 200), want), f"streams {variant}: stream {s} differs")
        out[0].data.fill_(0)
        graph = torch.cuda.CUDAGraph()
        op.scores = out[0].ptr()
        with torch.cuda.graph(graph):
            device.run("score", op, plans[0][2])
        torch.cuda.synchronize()
        fail(bool((out[0].data == 0).all()), f"graph {variant}: capture ran something")
        graph.replay()
        torch.cuda.synchronize()
        fail(torch.equal(out[0].data.view(8, 200), want), f"graph {variant}: the replay differs")
        # a whole step, beside other work: each kernel may begin while the one before it ends
        d = Operand(g, 50, 140, dim, dtype, normalize=True)
        op = problem(q, d)
        _, at, variant = score(device, op, torch.int16)
        grad_scores = torch.randn(8, 50, generator=g, device="cuda")
        want = gradients(device, op, q, d, grad_scores, at)[0]
        scores, again = torch.empty(8, 50, device="cuda"), torch.empty_like(at)
        op.scores, op.argmax = scores.data_ptr(), again.data_ptr()
        got = [torch.empty_like(x) for x in want]
        grad = grad_problem(op, grad_scores, *(x.data_ptr() for x in got))
        steps = [("score", op, device.plan("score", op)), ("grad", grad, device.plan("grad", grad))]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(3):
                again.fill_(-1)
                for x in got:
                    x.fill_(NAN)
                for kind, operation, (_, _, how) in steps:
                    device.run(kind, operation, how)
        for _ in range(5):
            graph.replay()
            torch.cuda.synchronize()
            same = torch.equal(again, at) and all(torch.equal(x, y) for x, y in zip(got, want))
            if not fail(same, f"graph {variant}: a replayed step differs"):
                break
    print("streams: done", flush=True)


def fresh(name, function, *arguments):
    """Calls a function of the library as the first CUDA call of a thread, whose own current
    device stays as it was. Waits for the GPU and returns the status."""
    out = []

    def body():
        try:
            out.append(function(*arguments))
            out.append(torch.cuda.current_device())
        except Exception as error:
            out.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    fail(out[1:] == [0], f"threads: {name} in a fresh thread: {out!r}")
    return out[0]


def fresh_operations(index, gpu, dtype, normalize):
    """Score, top-k and gradients in fresh threads; the scores are those of this thread."""
    g = torch.Generator(device="cuda").manual_seed(5)
    q, d = (Operand(g, n, length, 128, dtype, normalize=normalize) for n, length in ((4, 32), (50, 64)))
    op = problem(q, d)
    scores, want = torch.empty(2, 4, 50, device="cuda")
    at = torch.empty(4, 50, 32, device="cuda", dtype=torch.int32)
    op.scores, op.argmax, op.argmax_dtype = scores.data_ptr(), at.data_ptr(), lik.I32
    values, ids = torch.empty(4, 5, device="cuda"), torch.empty(4, 5, device="cuda", dtype=torch.int64)
    best = lik.TopK(
        struct_size=ctypes.sizeof(lik.TopK), score=op, k=5, values=values.data_ptr(), ids=ids.data_ptr()
    )
    operations = {"score": op, "topk": best}
    if dtype != "i8":
        grads = [torch.empty(4, 32, 128, device="cuda"), torch.empty(50, 64, 128, device="cuda")]
        weights = torch.ones(4, 50, device="cuda")
        operations["grad"] = grad_problem(op, weights, *(x.data_ptr() for x in grads))
    for kind, operation in operations.items():
        _, workspace, how = gpu.plan(kind, operation)
        how.stream = torch.cuda.current_stream().cuda_stream
        torch.cuda.synchronize()
        name = f"{kind} of {dtype} on cuda:{index}"
        run = getattr(gpu.c.c, f"lik_{kind}_run")
        for _ in range(3):
            status = fresh(name, run, gpu.c.context, ctypes.byref(operation), ctypes.byref(how))
            fail(status == 0, f"threads: {name} returned {status}")
        fail(workspace.intact(), f"threads: {name} wrote past its workspace")
    op.scores, op.argmax = want.data_ptr(), None
    gpu.launch("score", op)
    torch.cuda.synchronize()
    fail(torch.equal(scores, want), f"threads: scores of {dtype} on cuda:{index} differ")


def fresh_memory(index, gpu):
    """Memory and streams in fresh threads."""
    memory, stream = ctypes.c_void_p(), ctypes.c_void_p()
    back, there = ctypes.create_string_buffer(1000), ctypes.create_string_buffer(bytes(range(250)) * 4, 1000)
    free, total, size = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_size_t(1000)

    def call(name, *arguments):
        status = fresh(f"{name} on cuda:{index}", getattr(gpu.c.c, name), gpu.c.context, *arguments)
        fail(
            "free" in name or "destroy" in name or status == 0,
            f"threads: {name} on cuda:{index} returned {status}",
        )

    call("lik_memory_alloc", size, ctypes.byref(memory))
    call("lik_memory_copy", memory, there, size)
    call("lik_memory_copy", back, memory, size)
    call("lik_memory_info", ctypes.byref(free), ctypes.byref(total))
    call("lik_memory_free", memory)
    call("lik_stream_create", ctypes.byref(stream))
    call("lik_stream_synchronize", stream)
    call("lik_stream_destroy", stream)
    fail(back.raw == there.raw and total.value >> 30, f"threads: memory of cuda:{index}")


def check_threads(device, args):
    """Each function of the library as the first CUDA call of a fresh thread, on every GPU."""
    for index in range(torch.cuda.device_count()):
        gpu = fresh(f"lik_context_create on cuda:{index}", Device, args.lib, f"cuda:{index}")
        with torch.cuda.device(index):
            for dtype, normalize in (("bf16", False), ("f32", True), ("i8", False)):
                fresh_operations(index, gpu, dtype, normalize)
        fresh_memory(index, gpu)
    print(f"threads: done on {torch.cuda.device_count()} GPUs", flush=True)


def check_refused(device, args):
    """With LIK_CHECK=1 what lies on the device is looked at, and refused by name; a GPU that is
    not there always is.
    """

    def refused(text, action):
        try:
            action()
        except lik.LikError as error:
            fail(text in str(error), f"refused: {error}, expected {text!r}")
        else:
            fail(False, f"refused: nothing was, expected {text!r}")

    count = torch.cuda.device_count()
    refused(f"this machine has {count} GPU", lambda: lik.Library(args.lib, f"cuda:{count}"))
    if os.environ.get("LIK_CHECK") != "1":
        return
    g = torch.Generator(device="cuda").manual_seed(3)
    q, d = Operand(g, 3, 8, 64, "bf16"), Operand(g, 5, 20, 64, "bf16")
    lists = torch.tensor([0, 2], device="cuda"), torch.tensor([1, 5], device="cuda")
    refused("list_d[1] is 5, must be 0 to 4", lambda: score(device, problem(q, d, lik.LIST, 0, lists)))
    op = problem(q, d)
    for values, text in (
        ([0, 20, 10, 60, 80, 100], "d.offsets[2] is 10, less than d.offsets[1], which is 20"),
        ([1, 21, 41, 61, 81, 101], "d.offsets[5] is 101, d.total is 100"),
        ([0, 20, 60, 60, 80, 100], "d.len_max is 20, sequence 1 has 40 tokens"),
    ):
        offsets = torch.tensor(values, device="cuda")
        op.d.offsets, op.d.offsets_dtype, op.d.total = offsets.data_ptr(), lik.I64, 100
        refused(text, lambda: score(device, op))
    print("refused: done", flush=True)
