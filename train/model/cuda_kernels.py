"""Attention inside segments on CUDA, as Triton kernels.

A program computes one block of queries or keys of one head and window. It visits only the blocks that its segments
reach, so neither a mask nor a matrix of scores is stored. There are no atomic additions, so results are the same on
every run. The recurrences are those of FlashAttention-2 (Dao, 2023), with logarithms of base 2.

Only `cuda_attention.py` imports this module, because Triton comes only with torch's CUDA builds. Axes: I queries,
J keys, K width of a head, padded to a power of 2.
"""

# mypy cannot check the types of what `@triton.jit` compiles.
# mypy: ignore-errors

import triton
import triton.language as tl

_LOG2_E = tl.constexpr(1.4426950408889634)
_LOW = tl.constexpr(1048576.0)  # 2^20: the unit of a time's high part, in seconds


@triton.jit
def _place(num_blocks, H: tl.constexpr):
    """Block, head and window of this program. Neighbouring programs take blocks of one head, which read the same keys.
    The grid has one axis, because CUDA limits the others to 65,535."""
    program = tl.program_id(0)
    return program % num_blocks, program // num_blocks % H, program // (num_blocks * H)


@triton.jit
def _terms(token_i, token_j, times, size, inside_i, inside_j):
    """(I, J) each: ln(1 + |lag|), ln(1 + |Δt|), [Δt = 0]; the last two are 0 if either time is unknown."""
    high_i = tl.load(times + token_i, mask=inside_i, other=0.0)[:, None]
    high_j = tl.load(times + token_j, mask=inside_j, other=0.0)[None, :]
    low_i = tl.load(times + size + token_i, mask=inside_i, other=0.0)[:, None]
    low_j = tl.load(times + size + token_j, mask=inside_j, other=0.0)[None, :]
    known_i = tl.load(times + 2 * size + token_i, mask=inside_i, other=0.0)[:, None]
    known_j = tl.load(times + 2 * size + token_j, mask=inside_j, other=0.0)[None, :]
    both = known_i * known_j
    lag = tl.abs(token_i[:, None] - token_j[None, :]).to(tl.float32)
    apart = tl.abs((high_i - high_j) * _LOW + (low_i - low_j))
    return tl.log(1.0 + lag), both * tl.log(1.0 + apart), tl.where(apart == 0.0, both, 0.0)


@triton.jit
def _scores(q, k, coefficients, head, lag, since, tie, visible, SCALE, BIAS: tl.constexpr):
    """(I, J): the input of a softmax of base 2; -inf where a query does not see a key."""
    score = tl.dot(q, tl.trans(k), input_precision="ieee") * SCALE
    if BIAS:
        score += tl.load(coefficients + 3 * head) * lag
        score += tl.load(coefficients + 3 * head + 1) * since
        score += tl.load(coefficients + 3 * head + 2) * tie
    return tl.where(visible, score * _LOG2_E, float("-inf"))


@triton.jit
def _rows(pointer, token, inside, stride, K: tl.constexpr, PADDED: tl.constexpr):
    """(tokens, PADDED): one head's values of the given tokens, 0 after column K."""
    column = tl.arange(0, PADDED)
    at = pointer + token[:, None].to(tl.int64) * stride + column[None, :]
    return tl.load(at, mask=inside[:, None] & (column < K)[None, :], other=0.0)


@triton.jit
def _store_rows(pointer, token, inside, stride, values, K: tl.constexpr, PADDED: tl.constexpr):
    column = tl.arange(0, PADDED)
    at = pointer + token[:, None].to(tl.int64) * stride + column[None, :]
    tl.store(at, values.to(pointer.dtype.element_ty), mask=inside[:, None] & (column < K)[None, :])


@triton.jit
def forward(
    qkv,
    coefficients,
    ranges,
    times,
    out,
    lse,
    T,
    size,
    SCALE,
    H: tl.constexpr,
    K: tl.constexpr,
    PADDED: tl.constexpr,
    BIAS: tl.constexpr,
    I_BLOCK: tl.constexpr,
    J_BLOCK: tl.constexpr,
):
    """Writes outputs (B, T, H, K) and log2 Σ 2^score (B, H, T). A query that sees no key gets the output 0 and inf.

    qkv (B, T, 3, H, K); coefficients (H, 3); ranges (4, B, T) int32: start and end of the keys that a query sees,
    start and end of the queries that see a key; times (3, B, T) float32: high part, low part, known; size: B * T.
    """
    block, head, window = _place(tl.cdiv(T, I_BLOCK), H)
    start = window * T
    of_head = qkv + head * K
    i = block * I_BLOCK + tl.arange(0, I_BLOCK)
    inside_i, token_i = i < T, start + i
    key_start = tl.load(ranges + token_i, mask=inside_i, other=T)
    key_stop = tl.load(ranges + size + token_i, mask=inside_i, other=0)
    q = _rows(of_head, token_i, inside_i, 3 * H * K, K, PADDED)
    highest = tl.full([I_BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([I_BLOCK], tl.float32)
    summed = tl.zeros([I_BLOCK, PADDED], tl.float32)
    for first in range(tl.min(key_start, 0) // J_BLOCK * J_BLOCK, tl.max(key_stop, 0), J_BLOCK):
        j = first + tl.arange(0, J_BLOCK)
        inside_j, token_j = j < T, start + j
        k = _rows(of_head + H * K, token_j, inside_j, 3 * H * K, K, PADDED)
        v = _rows(of_head + 2 * H * K, token_j, inside_j, 3 * H * K, K, PADDED)
        lag, since, tie = 0.0, 0.0, 0.0
        if BIAS:
            lag, since, tie = _terms(token_i, token_j, times, size, inside_i, inside_j)
        visible = (j[None, :] >= key_start[:, None]) & (j[None, :] < key_stop[:, None])
        score = _scores(q, k, coefficients, head, lag, since, tie, visible, SCALE, BIAS)
        higher = tl.maximum(highest, tl.max(score, 1))
        finite = tl.where(higher == float("-inf"), 0.0, higher)  # a query that has seen no key yet: -inf + inf is NaN
        weight = tl.exp2(score - finite[:, None])
        kept = tl.exp2(highest - finite)
        total = total * kept + tl.sum(weight, 1)
        summed = summed * kept[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        highest = higher
    is_empty = total == 0.0
    total = tl.where(is_empty, 1.0, total)
    _store_rows(out + head * K, token_i, inside_i, H * K, summed / total[:, None], K, PADDED)
    log_sum = tl.where(is_empty, float("inf"), highest + tl.log2(total))
    tl.store(lse + (window * H + head) * T + i, log_sum, mask=inside_i)


@triton.jit
def backward_queries(
    grad_out,
    qkv,
    coefficients,
    ranges,
    times,
    out,
    lse,
    delta,
    grad_qkv,
    grad_parts,
    T,
    size,
    SCALE,
    H: tl.constexpr,
    K: tl.constexpr,
    PADDED: tl.constexpr,
    BIAS: tl.constexpr,
    I_BLOCK: tl.constexpr,
    J_BLOCK: tl.constexpr,
):
    """Writes the gradients of queries; those of the coefficients for each block, grad_parts (B, blocks, H, 3); and
    `delta` (B, H, T), the dot products of outputs and their gradients."""
    block, head, window = _place(tl.cdiv(T, I_BLOCK), H)
    start = window * T
    of_head = qkv + head * K
    i = block * I_BLOCK + tl.arange(0, I_BLOCK)
    inside_i, token_i = i < T, start + i
    key_start = tl.load(ranges + token_i, mask=inside_i, other=T)
    key_stop = tl.load(ranges + size + token_i, mask=inside_i, other=0)
    q = _rows(of_head, token_i, inside_i, 3 * H * K, K, PADDED)
    o = _rows(out + head * K, token_i, inside_i, H * K, K, PADDED)
    grad_o = _rows(grad_out + head * K, token_i, inside_i, H * K, K, PADDED)
    log_sum = tl.load(lse + (window * H + head) * T + i, mask=inside_i, other=float("inf"))
    product = tl.sum(o.to(tl.float32) * grad_o.to(tl.float32), 1)
    tl.store(delta + (window * H + head) * T + i, product, mask=inside_i)
    grad_q = tl.zeros([I_BLOCK, PADDED], tl.float32)
    of_lag = tl.zeros([I_BLOCK], tl.float32)
    of_since = tl.zeros([I_BLOCK], tl.float32)
    of_tie = tl.zeros([I_BLOCK], tl.float32)
    for first in range(tl.min(key_start, 0) // J_BLOCK * J_BLOCK, tl.max(key_stop, 0), J_BLOCK):
        j = first + tl.arange(0, J_BLOCK)
        inside_j, token_j = j < T, start + j
        k = _rows(of_head + H * K, token_j, inside_j, 3 * H * K, K, PADDED)
        v = _rows(of_head + 2 * H * K, token_j, inside_j, 3 * H * K, K, PADDED)
        lag, since, tie = 0.0, 0.0, 0.0
        if BIAS:
            lag, since, tie = _terms(token_i, token_j, times, size, inside_i, inside_j)
        visible = (j[None, :] >= key_start[:, None]) & (j[None, :] < key_stop[:, None])
        score = _scores(q, k, coefficients, head, lag, since, tie, visible, SCALE, BIAS)
        weight = tl.exp2(score - log_sum[:, None])
        grad_weight = tl.dot(grad_o, tl.trans(v), input_precision="ieee")
        grad_score = weight * (grad_weight - product[:, None])
        grad_q += tl.dot(grad_score.to(k.dtype), k, input_precision="ieee")
        if BIAS:
            of_lag += tl.sum(grad_score * lag, 1)
            of_since += tl.sum(grad_score * since, 1)
            of_tie += tl.sum(grad_score * tie, 1)
    _store_rows(grad_qkv + head * K, token_i, inside_i, 3 * H * K, grad_q * SCALE, K, PADDED)
    if BIAS:
        part = grad_parts + ((window * tl.cdiv(T, I_BLOCK) + block) * H + head) * 3
        tl.store(part, tl.sum(of_lag, 0))
        tl.store(part + 1, tl.sum(of_since, 0))
        tl.store(part + 2, tl.sum(of_tie, 0))


@triton.jit
def backward_keys(
    grad_out,
    qkv,
    coefficients,
    ranges,
    times,
    lse,
    delta,
    grad_qkv,
    T,
    size,
    SCALE,
    H: tl.constexpr,
    K: tl.constexpr,
    PADDED: tl.constexpr,
    BIAS: tl.constexpr,
    I_BLOCK: tl.constexpr,
    J_BLOCK: tl.constexpr,
):
    """Writes the gradients of keys and values into `grad_qkv`."""
    block, head, window = _place(tl.cdiv(T, J_BLOCK), H)
    start = window * T
    of_head = qkv + head * K
    j = block * J_BLOCK + tl.arange(0, J_BLOCK)
    inside_j, token_j = j < T, start + j
    query_start = tl.load(ranges + 2 * size + token_j, mask=inside_j, other=T)
    query_stop = tl.load(ranges + 3 * size + token_j, mask=inside_j, other=0)
    k = _rows(of_head + H * K, token_j, inside_j, 3 * H * K, K, PADDED)
    v = _rows(of_head + 2 * H * K, token_j, inside_j, 3 * H * K, K, PADDED)
    grad_k = tl.zeros([J_BLOCK, PADDED], tl.float32)
    grad_v = tl.zeros([J_BLOCK, PADDED], tl.float32)
    for first in range(tl.min(query_start, 0) // I_BLOCK * I_BLOCK, tl.max(query_stop, 0), I_BLOCK):
        i = first + tl.arange(0, I_BLOCK)
        inside_i, token_i = i < T, start + i
        q = _rows(of_head, token_i, inside_i, 3 * H * K, K, PADDED)
        grad_o = _rows(grad_out + head * K, token_i, inside_i, H * K, K, PADDED)
        key_start = tl.load(ranges + token_i, mask=inside_i, other=T)
        key_stop = tl.load(ranges + size + token_i, mask=inside_i, other=0)
        log_sum = tl.load(lse + (window * H + head) * T + i, mask=inside_i, other=float("inf"))
        product = tl.load(delta + (window * H + head) * T + i, mask=inside_i, other=0.0)
        lag, since, tie = 0.0, 0.0, 0.0
        if BIAS:
            lag, since, tie = _terms(token_i, token_j, times, size, inside_i, inside_j)
        visible = (j[None, :] >= key_start[:, None]) & (j[None, :] < key_stop[:, None])
        score = _scores(q, k, coefficients, head, lag, since, tie, visible, SCALE, BIAS)
        weight = tl.exp2(score - log_sum[:, None])
        grad_v += tl.dot(tl.trans(weight.to(grad_o.dtype)), grad_o, input_precision="ieee")
        grad_weight = tl.dot(grad_o, tl.trans(v), input_precision="ieee")
        grad_score = weight * (grad_weight - product[:, None])
        grad_k += tl.dot(tl.trans(grad_score.to(q.dtype)), q, input_precision="ieee")
    _store_rows(grad_qkv + H * K + head * K, token_j, inside_j, 3 * H * K, grad_k * SCALE, K, PADDED)
    _store_rows(grad_qkv + 2 * H * K + head * K, token_j, inside_j, 3 * H * K, grad_v, K, PADDED)
