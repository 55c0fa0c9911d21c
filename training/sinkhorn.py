"""Sinkhorn normalisation of the hyper-connections' mixing matrices: plain, and as one Triton kernel."""

import torch


def plain(comb, iters, eps):
    """Columns, then `iters - 1` times rows and columns; comb [.., n, n] positive."""
    comb = comb / (comb.sum(-2, keepdim=True) + eps)
    for _ in range(iters - 1):
        comb = comb / (comb.sum(-1, keepdim=True) + eps)
        comb = comb / (comb.sum(-2, keepdim=True) + eps)
    return comb


def normalise(comb, iters, eps):
    if not comb.is_cuda:
        return plain(comb, iters, eps)
    flat = comb.reshape(-1, 4, 4)
    return sinkhorn(flat, iters, eps)[0].view(comb.shape)


# The kernels keep 4 x 4 values of a block of tokens in registers. The divisors are stored for the
# backward pass: a normalisation y = x / s with s = sum(x) + eps has dx = (dy - sum(dy * y)) / s, and
# x = y * s leads one step back.

try:
    import triton
    import triton.language as tl
except ImportError:  # no GPU, no kernels
    triton = None

if triton:

    @triton.jit
    def _forward(x_ptr, y_ptr, s_ptr, count, eps, iters: tl.constexpr, BLOCK: tl.constexpr):
        t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        i = tl.arange(0, 4)
        at = t[:, None, None] * 16 + i[None, :, None] * 4 + i[None, None, :]
        live = (t < count)[:, None, None] & (i >= 0)[None, :, None] & (i >= 0)[None, None, :]
        x = tl.load(x_ptr + at, mask=live, other=1.0)
        side = t[:, None] * 4 + i[None, :]
        there = (t < count)[:, None] & (i >= 0)[None, :]
        for k in range(2 * iters - 1):
            if k % 2 == 0:
                s = tl.sum(x, 1) + eps
                x = x / s[:, None, :]
            else:
                s = tl.sum(x, 2) + eps
                x = x / s[:, :, None]
            tl.store(s_ptr + k * count * 4 + side, s, mask=there)
        tl.store(y_ptr + at, x, mask=live)

    @triton.jit
    def _backward(y_ptr, s_ptr, dy_ptr, dx_ptr, count, iters: tl.constexpr, BLOCK: tl.constexpr):
        t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        i = tl.arange(0, 4)
        at = t[:, None, None] * 16 + i[None, :, None] * 4 + i[None, None, :]
        live = (t < count)[:, None, None] & (i >= 0)[None, :, None] & (i >= 0)[None, None, :]
        y = tl.load(y_ptr + at, mask=live, other=0.25)
        g = tl.load(dy_ptr + at, mask=live, other=0.0)
        side = t[:, None] * 4 + i[None, :]
        there = (t < count)[:, None] & (i >= 0)[None, :]
        for step in range(2 * iters - 1):
            k = 2 * iters - 2 - step
            s = tl.load(s_ptr + k * count * 4 + side, mask=there, other=1.0)
            if k % 2 == 0:
                g = (g - tl.sum(g * y, 1)[:, None, :]) / s[:, None, :]
                y = y * s[:, None, :]
            else:
                g = (g - tl.sum(g * y, 2)[:, :, None]) / s[:, :, None]
                y = y * s[:, :, None]
        tl.store(dx_ptr + at, g, mask=live)

    TOKENS = 64

    @torch.library.custom_op("nano::sinkhorn", mutates_args=())
    def sinkhorn(x: torch.Tensor, iters: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.contiguous()
        y = torch.empty_like(x)
        s = torch.empty(2 * iters - 1, x.shape[0], 4, dtype=x.dtype, device=x.device)
        _forward[(triton.cdiv(x.shape[0], TOKENS),)](x, y, s, x.shape[0], eps, iters=iters, BLOCK=TOKENS)
        return y, s

    @sinkhorn.register_fake
    def _(x, iters, eps):
        return torch.empty(x.shape, dtype=x.dtype, device=x.device), x.new_empty(2 * iters - 1, x.shape[0], 4)

    @torch.library.custom_op("nano::sinkhorn_backward", mutates_args=())
    def sinkhorn_backward(y: torch.Tensor, s: torch.Tensor, dy: torch.Tensor, iters: int) -> torch.Tensor:
        dy = dy.contiguous()
        dx = torch.empty_like(y)
        _backward[(triton.cdiv(y.shape[0], TOKENS),)](y, s, dy, dx, y.shape[0], iters=iters, BLOCK=TOKENS)
        return dx

    @sinkhorn_backward.register_fake
    def _(y, s, dy, iters):
        return torch.empty_like(y)

    def _keep(ctx, inputs, output):
        ctx.save_for_backward(*output)
        ctx.iters = inputs[1]

    def _gradient(ctx, dy, _):
        return torch.ops.nano.sinkhorn_backward(*ctx.saved_tensors, dy, ctx.iters), None, None

    sinkhorn.register_autograd(_gradient, setup_context=_keep)
