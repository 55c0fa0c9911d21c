"""DeepSeek V4 forward pass in PyTorch, for training and as a readable reference.

Everything here follows the published architecture; the parameter names are those of the
official checkpoint (``layers.N.attn.wq_a.weight`` ...), except that the routed experts of a
layer are stacked in one tensor (``layers.N.ffn.w1`` is ``[experts, width, hidden]``).

Attention exists twice: with an explicit mask (any device, the readable one) and as block-sparse
FlexAttention for long rows on a GPU. `Layout` says which token sees which row for both.

Shapes in comments: B batch, T tokens, D hidden, H heads, d head dim, R = 64 rotary dims,
E experts, I expert width, n compressed rows.
"""

import json
import math
from dataclasses import asdict, dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from sinkhorn import normalise


@dataclass
class Config:
    """Shape of a model; field names are the keys of the official config.json."""

    vocab_size: int = 4096
    hidden_size: int = 256
    moe_intermediate_size: int = 64
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 1
    head_dim: int = 128
    qk_rope_head_dim: int = 64
    q_lora_rank: int = 128
    o_groups: int = 2
    o_lora_rank: int = 64
    n_routed_experts: int = 8
    n_shared_experts: int = 1
    num_experts_per_tok: int = 2
    num_hash_layers: int = 3
    routed_scaling_factor: float = 1.5
    swiglu_limit: float = 10.0
    sliding_window: int = 128
    index_n_heads: int = 4
    index_head_dim: int = 128
    index_topk: int = 64
    compress_ratios: list = field(default_factory=lambda: [0, 0, 4, 128, 4, 0, 0])
    compress_rope_theta: float = 160000.0
    rope_theta: float = 10000.0
    rope_factor: float = 16.0
    rope_original: int = 65536
    rope_beta_fast: float = 32.0
    rope_beta_slow: float = 1.0
    hc_mult: int = 4
    hc_sinkhorn_iters: int = 20
    hc_eps: float = 1e-6
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 16384
    num_nextn_predict_layers: int = 0

    @staticmethod
    def from_dict(source):
        """Build from the keys of an official config.json (unknown keys are ignored)."""
        known = {k: v for k, v in source.items() if k in Config.__dataclass_fields__}
        scaling = source.get("rope_scaling") or {}
        for key, name in [
            ("factor", "rope_factor"),
            ("original_max_position_embeddings", "rope_original"),
            ("beta_fast", "rope_beta_fast"),
            ("beta_slow", "rope_beta_slow"),
        ]:
            if key in scaling:
                known[name] = scaling[key]
        return Config(**known)

    def official(self):
        """The official config.json as a dict."""
        out = {
            "architectures": ["DeepseekV4ForCausalLM"],
            "model_type": "deepseek_v4",
            "scoring_func": "sqrtsoftplus",
            "topk_method": "noaux_tc",
            "norm_topk_prob": True,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "torch_dtype": "bfloat16",
            "use_cache": True,
        }
        for key, value in asdict(self).items():
            if not key.startswith("rope_") or key == "rope_theta":
                out[key] = value
        out["rope_scaling"] = {
            "type": "yarn",
            "factor": self.rope_factor,
            "original_max_position_embeddings": self.rope_original,
            "beta_fast": self.rope_beta_fast,
            "beta_slow": self.rope_beta_slow,
        }
        return out

    def ratio(self, layer):
        """Compression ratio of a layer: 0 (window only), 4 (CSA) or 128 (HCA)."""
        return self.compress_ratios[layer]


# ---------------------------------------------------------------- element-wise pieces


def rms(x, weight, eps):
    """RMS norm in f32, result f32; weight None = unweighted."""
    x = x.float()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return x if weight is None else x * weight


def hc_weights(m, scale, base, n, iters, eps):
    """Control projection m [.., 24] -> pre [.., n], post [.., n], comb [.., n source, n destination]."""
    pre = torch.sigmoid(m[..., :n] * scale[0] + base[:n]) + eps
    post = 2 * torch.sigmoid(m[..., n : 2 * n] * scale[1] + base[n : 2 * n])
    comb = (m[..., 2 * n :] * scale[2] + base[2 * n :]).unflatten(-1, (n, n))
    return pre, post, normalise(torch.softmax(comb, -1) + eps, iters, eps)


def hc_read(streams, pre):
    """streams [.., n, D], pre [.., n] -> [.., D]; the raw streams, not normalised ones."""
    return (pre.unsqueeze(-1) * streams).sum(-2)


def hc_write(streams, y, post, comb):
    """S'[k] = post[k] * y + sum_j comb[j][k] * S[j]."""
    mixed = (comb.unsqueeze(-1) * streams.unsqueeze(-2)).sum(-3)
    return mixed + post.unsqueeze(-1) * y.unsqueeze(-2)


def hc_project(streams, fn, eps):
    """fn @ (flattened streams, normalised to unit mean square), in f32."""
    flat = streams.flatten(-2)
    with torch.autocast(flat.device.type, enabled=False):
        return F.linear(flat, fn) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + eps)


def rope(x, cos, sin):
    """Rotate interleaved pairs of the last 64 dims; cos, sin broadcast to [.., 32]. Inverse: pass -sin."""
    r = 2 * cos.shape[-1]
    plain, turned = x[..., :-r], x[..., -r:].unflatten(-1, (-1, 2))
    x0, x1 = turned[..., 0], turned[..., 1]
    turned = torch.stack([x0 * cos - x1 * sin, x0 * sin + x1 * cos], -1).flatten(-2)
    return torch.cat([plain, turned], -1)


def swiglu(gate, up, limit):
    """Clamped SwiGLU: the gate only from above, before silu; up on both sides."""
    return F.silu(gate.float().clamp(max=limit)) * up.float().clamp(-limit, limit)


def sink_softmax(scores, mask, sink):
    """Softmax over [scores, sink]; scores [B,H,T,K], mask [..,T,K], sink [H] (not scaled, no value)."""
    scores = scores.float().masked_fill(~mask, float("-inf"))
    sink = sink.view(1, -1, 1, 1)
    top = torch.maximum(scores.amax(-1, keepdim=True), sink).detach()
    weight = torch.exp(scores - top)
    return weight / (weight.sum(-1, keepdim=True) + torch.exp(sink - top))


def fp8_simulate(x, r):
    """E4M3 with power-of-two scale per 64 values, all but the last r dims; straight-through gradient."""
    plain = x[..., :-r].unflatten(-1, (-1, 64)).detach()
    scale = torch.exp2(torch.ceil(torch.log2(plain.abs().amax(-1, keepdim=True).clamp(min=1e-4) / 448)))
    rounded = ((plain / scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(x.dtype) * scale).flatten(-2)
    return torch.cat([x[..., :-r] + (rounded - x[..., :-r]).detach(), x[..., -r:]], -1)


def work_type(x):
    """The type of matrix products: bf16 under autocast, else f32."""
    return torch.bfloat16 if torch.is_autocast_enabled(x.device.type) else torch.float32


# ---------------------------------------------------------------- who sees whom

BLOCK = 128  # tokens and rows of one block of the sparse masks


class Layout:
    """Conversations packed into rows of T tokens: positions, rotations, visibility.

    `starts` [T] holds, for every token, where its conversation begins. One of BLOCK tokens or more
    begins at a multiple of 128, a shorter one at a multiple of 4 and inside one block: so no
    compressed row that anyone sees mixes two conversations. None: one conversation.

    `sparse` selects the indexer's top rows only; otherwise all visible rows are attended (the dense
    first part of the training). `samples` are the query positions at which the indexer's loss is taken.
    """

    def __init__(self, cfg, length, device, starts=None, flex=False, sparse=True, samples=None):
        self.cfg, self.length, self.sparse, self.samples = cfg, length, sparse, samples
        here = torch.arange(length, device=device)
        self.starts = torch.zeros_like(here) if starts is None else starts.to(device)
        self.packed = starts is not None
        positions = here - self.starts
        self.tables = {0: rope_tables(cfg, 0, positions), 4: rope_tables(cfg, 4, positions)}
        # Rows of ratio 4 that begin a conversation have no previous window.
        heads = here[: length // 4 * 4 : 4]
        self.fresh = self.starts[heads] == heads
        self.masks = {}
        if flex:
            ratios = sorted(set(cfg.compress_ratios))
            self.blocks = {ratio: self.block_table(ratio) for ratio in ratios}
            self.masks = {ratio: self.block_mask(ratio) for ratio in ratios}

    def table(self, ratio):
        """cos and sin [T, 32] of a layer."""
        return self.tables[4 if ratio else 0]

    def sees(self, ratio):
        """mask_mod(b, h, q, k): the window for k < T, then compressed rows."""
        length, window, starts = self.length, self.cfg.sliding_window, self.starts

        def near(b, h, q, k):
            return (k <= q) & (q - k < window) & (k >= starts[q])

        def both(b, h, q, k):
            w = k - length
            # Row w is visible to the very token that completes it.
            far = (w < (q + 1) // ratio) & (w * ratio >= starts[q])
            inside = k < length
            return (inside & (k <= q) & (q - k < window) & (k >= starts[q])) | (~inside & far)

        return both if ratio else near

    def dense(self, ratio):
        """[T, T + n] bool."""
        rows = self.length + (self.length // ratio if ratio else 0)
        q = torch.arange(self.length, device=self.starts.device)[:, None]
        return self.sees(ratio)(None, None, q, torch.arange(rows, device=q.device))

    def block_table(self, ratio):
        """(partly, fully seen) [T / 128, rows / 128] bool."""
        i = torch.arange(self.length // BLOCK, device=self.starts.device)[:, None]
        first = self.starts[::BLOCK][:, None]
        begin = first // BLOCK
        j = i.T
        partly = (j <= i) & (j >= i - 1) & (j >= begin)
        fully = torch.zeros_like(partly)
        if ratio:
            whole = self.starts[BLOCK - 1 :: BLOCK][:, None] == first
            j = torch.arange(self.length // ratio // BLOCK, device=i.device)
            some = (ratio * j <= i) & (ratio * (j + 1) > begin)
            full = (ratio * (j + 1) <= i) & (ratio * j * BLOCK >= first) & whole
            partly = torch.cat([partly, some & ~full], -1)
            fully = torch.cat([fully, full], -1)
        return partly, fully

    def block_mask(self, ratio, chosen=None):
        """The FlexAttention mask; with `chosen` [T, rows of the longest conversation] of the selected rows only."""
        def ordered(table):
            count = table.sum(-1, dtype=torch.int32)
            order = torch.argsort(table.to(torch.uint8), dim=-1, descending=True, stable=True).to(torch.int32)
            return count[None, None].contiguous(), order[None, None].contiguous()

        partly, fully = self.blocks[ratio]
        sees = self.sees(ratio)
        if chosen is not None:
            partly, fully = partly | fully, torch.zeros_like(fully)
            length, starts, visible = self.length, self.starts, sees

            def selected(b, h, q, k):
                w = (k - length - starts[q] // ratio).clamp(0, chosen.shape[1] - 1)
                return visible(b, h, q, k) & ((k < length) | chosen[q, w])

            sees = selected
        return BlockMask.from_kv_blocks(
            *ordered(partly), *ordered(fully), BLOCK_SIZE=BLOCK, mask_mod=sees,
            seq_lengths=(self.length, self.length + (self.length // ratio if ratio else 0)),
        )


def rope_tables(cfg, ratio, positions):
    """cos and sin [T, 32] in f32 from f64 angles; compressed layers use their own base and YaRN."""
    half = cfg.qk_rope_head_dim // 2
    i = torch.arange(half, dtype=torch.float64, device=positions.device)
    if ratio == 0:
        freq = cfg.rope_theta ** (-i / half)
    else:
        base = cfg.compress_rope_theta ** (-i / half)

        def corner(turns):
            return cfg.qk_rope_head_dim * math.log(cfg.rope_original / (turns * 2 * math.pi)) / (
                2 * math.log(cfg.compress_rope_theta)
            )

        low = max(math.floor(corner(cfg.rope_beta_fast)), 0)
        high = min(math.ceil(corner(cfg.rope_beta_slow)), cfg.qk_rope_head_dim - 1)
        ramp = ((i - low) / max(high - low, 1e-3)).clamp(0, 1)
        freq = base / cfg.rope_factor * ramp + base * (1 - ramp)
    angle = positions.double().unsqueeze(-1) * freq
    return angle.cos().float(), angle.sin().float()


# Compiled on first use; inside a compiled block it becomes part of that.
attend = torch.compile(flex_attention, dynamic=False)

# ---------------------------------------------------------------- modules


def linear(inputs, outputs):
    """A bias-free projection, weight [outputs, inputs]."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return rms(x, self.weight, self.eps)


class Compressor(nn.Module):
    """Pools `ratio` tokens into one row per channel; ratio 4 also overlaps with the previous window."""

    def __init__(self, cfg, ratio, dim):
        super().__init__()
        self.ratio, self.dim = ratio, dim
        self.coff = 2 if ratio == 4 else 1
        self.wkv = linear(cfg.hidden_size, self.coff * dim)
        self.wgate = linear(cfg.hidden_size, self.coff * dim)
        self.ape = nn.Parameter(torch.randn(ratio, self.coff * dim) * 0.02)
        self.norm = Norm(dim, cfg.rms_norm_eps)

    def forward(self, a, cos, sin, fresh):
        """a [B,T,D], cos/sin at the rows' positions, fresh [n] -> rows [B, T // ratio, dim]."""
        n = a.shape[1] // self.ratio
        a = a[:, : n * self.ratio]
        c = self.wkv(a).float().unflatten(1, (n, self.ratio))
        z = self.wgate(a).float().unflatten(1, (n, self.ratio)) + self.ape
        if self.coff == 2:
            d = self.dim
            # The first half of the channels is a token's contribution to the next row.
            previous_c = F.pad(c[:, :-1, :, :d], (0, 0, 0, 0, 1, 0))
            previous_z = F.pad(z[:, :-1, :, :d], (0, 0, 0, 0, 1, 0))
            previous_z = previous_z.masked_fill(fresh.view(1, -1, 1, 1), float("-inf"))
            c = torch.cat([previous_c, c[..., d:]], 2)
            z = torch.cat([previous_z, z[..., d:]], 2)
        pooled = (torch.softmax(z, 2) * c).sum(2)
        return rope(self.norm(pooled), cos, sin)


class Indexer(nn.Module):
    """Scores compressed rows for the top-k selection of a ratio-4 layer."""

    def __init__(self, cfg, ratio):
        super().__init__()
        self.heads, self.dim = cfg.index_n_heads, cfg.index_head_dim
        self.wq_b = linear(cfg.q_lora_rank, self.heads * self.dim)
        self.weights_proj = linear(cfg.hidden_size, self.heads)
        self.compressor = Compressor(cfg, ratio, self.dim)

    def queries(self, a, qr, cos, sin):
        """-> q [B,T,heads,dim], weight [B,T,heads]."""
        q = self.wq_b(qr).float().unflatten(-1, (self.heads, self.dim))
        weight = self.weights_proj(a).float() * (self.dim * self.heads) ** -0.5
        return rope(q, cos.unsqueeze(1), sin.unsqueeze(1)), weight

    @staticmethod
    def scores(q, weight, keys):
        """q [B,T,heads,dim], keys [B,n,dim] -> [B,T,n] in f32."""
        work = work_type(q)
        dots = torch.einsum("bthd,bnd->bthn", q.to(work), keys.to(work))
        return torch.einsum("bthn,bth->btn", torch.relu(dots).float(), weight)


class Attention(nn.Module):
    def __init__(self, cfg, layer):
        super().__init__()
        self.cfg, self.ratio = cfg, cfg.ratio(layer)
        D, H, d = cfg.hidden_size, cfg.num_attention_heads, cfg.head_dim
        self.wq_a = linear(D, cfg.q_lora_rank)
        self.q_norm = Norm(cfg.q_lora_rank, cfg.rms_norm_eps)
        self.wq_b = linear(cfg.q_lora_rank, H * d)
        self.wkv = linear(D, d)
        self.kv_norm = Norm(d, cfg.rms_norm_eps)
        self.attn_sink = nn.Parameter(torch.zeros(H))
        self.wo_a = linear(H * d // cfg.o_groups, cfg.o_groups * cfg.o_lora_rank)
        self.wo_b = linear(cfg.o_groups * cfg.o_lora_rank, D)
        if self.ratio:
            self.compressor = Compressor(cfg, self.ratio, d)
        if self.ratio == 4:
            self.indexer = Indexer(cfg, self.ratio)

    def forward(self, a, layout, qat, trace):
        cfg = self.cfg
        T = a.shape[1]
        H, d = cfg.num_attention_heads, cfg.head_dim
        cos, sin = layout.table(self.ratio)
        qr = self.q_norm(self.wq_a(a))
        q = rms(self.wq_b(qr).unflatten(-1, (H, d)), None, cfg.rms_norm_eps)
        q = rope(q, cos.unsqueeze(1), sin.unsqueeze(1))
        rows = rope(self.kv_norm(self.wkv(a)), cos, sin)
        n = T // self.ratio if self.ratio else 0
        index = None
        if n:
            row_cos, row_sin = cos[: n * self.ratio : self.ratio], sin[: n * self.ratio : self.ratio]
            rows = torch.cat([rows, self.compressor(a, row_cos, row_sin, layout.fresh)], 1)
            if self.ratio == 4 and (self.training or layout.sparse):
                # The indexer learns from its own loss only.
                x = a.detach()
                index = *self.indexer.queries(x, qr.detach(), cos, sin), self.indexer.compressor(x, row_cos, row_sin, layout.fresh)
        if isinstance(qat, torch.Tensor):
            rows = torch.where(qat, fp8_simulate(rows, cfg.qk_rope_head_dim), rows)
        elif qat:
            rows = fp8_simulate(rows, cfg.qk_rope_head_dim)
        work = work_type(a)
        q, keys = q.to(work), rows.to(work)
        if layout.masks:
            o, loss = self.blocks(q, keys, layout, index)
        else:
            o, loss = self.plain(q, keys, layout, index, trace)
        o = rope(o.float(), cos.unsqueeze(1), -sin.unsqueeze(1))
        # Group-major low-rank output projection.
        groups = o.flatten(2).unflatten(-1, (cfg.o_groups, -1))
        wo_a = self.wo_a.weight.unflatten(0, (cfg.o_groups, -1))
        u = torch.einsum("btgi,goi->btgo", groups.to(work), wo_a.to(work)).flatten(2)
        if trace is not None:
            trace["rows"] = rows[:, T:]
        return self.wo_b(u), loss

    def plain(self, q, keys, layout, index, trace):
        """q [B,T,H,d], keys [B,K,d] -> o [B,T,H,d], the indexer's loss; materialises [B,H,T,K]."""
        cfg, T = self.cfg, q.shape[1]
        mask = layout.dense(self.ratio).unsqueeze(0)
        scores = None
        if index is not None:
            visible = mask[..., T:]
            scores = self.indexer.scores(*index).masked_fill(~visible, float("-inf"))
            if trace is not None:
                trace["index_scores"] = scores
            if layout.sparse and scores.shape[-1] > cfg.index_topk:
                top = scores.detach().topk(cfg.index_topk, -1).indices
                chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, top, True) & visible
                mask = torch.cat([mask[..., :T].expand(chosen.shape[0], -1, -1), chosen], -1)
        p = sink_softmax(torch.einsum("bthd,bkd->bhtk", q, keys) * cfg.head_dim**-0.5, mask.unsqueeze(1), self.attn_sink)
        loss = None
        if scores is not None and self.training:
            loss = index_loss(scores, p[..., T:].detach(), mask[..., T:])
        return torch.einsum("bhtk,bkd->bthd", p.to(keys.dtype), keys), loss

    def blocks(self, q, keys, layout, index):
        """As `plain`, for one packed row, block by block; no selection but `layout.sparse`'s."""
        cfg, T = self.cfg, q.shape[1]
        mask = layout.masks[self.ratio]
        if index is not None and layout.sparse:
            selected = select(layout, index, self.ratio)
            mask = mask if selected is None else selected
        turned, kv = q.transpose(1, 2), keys.unsqueeze(1)
        o, lse = attend(turned, kv, kv, block_mask=mask, scale=cfg.head_dim**-0.5, enable_gqa=True, return_lse=True)
        # The sink takes part in the sum of exponentials and has no value.
        o = o * torch.sigmoid(lse - self.attn_sink.view(1, -1, 1)).unsqueeze(-1).to(o.dtype)
        loss = None
        if index is not None and self.training and layout.samples is not None:
            at = layout.samples
            w = torch.arange(keys.shape[1] - T, device=q.device)
            t = at[:, None]
            visible = ((w < (t + 1) // self.ratio) & (w * self.ratio >= layout.starts[at][:, None])).unsqueeze(0)
            with torch.no_grad():
                total = torch.logaddexp(lse[..., at].float(), self.attn_sink.view(1, -1, 1)).unsqueeze(-1)
                s = torch.einsum("bhsd,bkd->bhsk", turned[:, :, at], keys[:, T:]).float() * cfg.head_dim**-0.5
                p = torch.exp(s - total).masked_fill(~visible.unsqueeze(1), 0)
            scores = self.indexer.scores(index[0][:, at], index[1][:, at], index[2])
            loss = index_loss(scores.masked_fill(~visible, float("-inf")), p, visible)
        return o.transpose(1, 2), loss


@torch.compiler.disable
@torch.no_grad()
def select(layout, index, ratio):
    """The block mask of the indexer's top rows, or None where every conversation has few rows."""
    top = layout.cfg.index_topk
    starts = layout.starts
    begins = torch.nonzero(starts == torch.arange(len(starts), device=starts.device))[:, 0].tolist() + [len(starts)]
    long = [(a, b) for a, b in zip(begins, begins[1:]) if (b - a) // ratio > top]
    if not long:
        return None
    q, weight, keys = index
    most = max(b - a for a, b in long) // ratio
    chosen = torch.ones(len(starts), most, dtype=torch.bool, device=starts.device)
    for a, b in long:
        own = keys[:, a // ratio : b // ratio]
        n = own.shape[1]
        for at in range(a + top * ratio, b, 2048):
            t = torch.arange(at, min(at + 2048, b), device=starts.device)
            scores = Indexer.scores(q[:, t], weight[:, t], own)[0]
            scores = scores.masked_fill(torch.arange(n, device=t.device) >= ((t - a + 1) // ratio)[:, None], float("-inf"))
            chosen[t, :n] = scores >= scores.topk(top, -1).values[:, -1:]
    return layout.block_mask(ratio, chosen)


def index_loss(scores, p, chosen):
    """KL(attention mass on the selected compressed rows || softmax of the indexer's scores)."""
    target = p.sum(1)
    mass = target.sum(-1, keepdim=True)
    has = chosen.any(-1) & (mass.squeeze(-1) > 1e-4)
    target = target / mass.clamp(min=1e-4)
    logp = torch.log_softmax(scores.masked_fill(~chosen, -1e9), -1)
    kl = (target * (torch.log(target.clamp(min=1e-6)) - logp)).sum(-1)
    return (kl * has).sum() / has.sum().clamp(min=1)


class Gate(nn.Module):
    def __init__(self, cfg, layer):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(cfg.n_routed_experts, cfg.hidden_size) * cfg.hidden_size**-0.5)
        self.hashed = layer < cfg.num_hash_layers
        if self.hashed:
            self.register_buffer(
                "tid2eid", torch.zeros(cfg.vocab_size, cfg.num_experts_per_tok, dtype=torch.int64)
            )
        else:
            self.register_buffer("bias", torch.zeros(cfg.n_routed_experts))


class MoE(nn.Module):
    """All experts are evaluated and weighted (zero where not chosen): simple, and cheap at this size."""

    def __init__(self, cfg, layer):
        super().__init__()
        self.cfg = cfg
        D, I, E = cfg.hidden_size, cfg.moe_intermediate_size, cfg.n_routed_experts
        self.gate = Gate(cfg, layer)
        self.w1 = nn.Parameter(torch.randn(E, I, D) * D**-0.5)
        self.w3 = nn.Parameter(torch.randn(E, I, D) * D**-0.5)
        self.w2 = nn.Parameter(torch.randn(E, D, I) * I**-0.5)
        self.shared_experts = nn.ModuleDict({"w1": linear(D, I), "w3": linear(D, I), "w2": linear(I, D)})

    def forward(self, b, tokens, trace):
        cfg = self.cfg
        with torch.autocast(b.device.type, enabled=False):
            scores = torch.sqrt(F.softplus(F.linear(b.float(), self.gate.weight)))  # [B,T,E]
        if self.gate.hashed:
            chosen = self.gate.tid2eid[tokens]
        else:
            chosen = (scores.detach() + self.gate.bias).topk(cfg.num_experts_per_tok, -1).indices
        picked = scores.gather(-1, chosen)
        picked = picked / picked.sum(-1, keepdim=True) * cfg.routed_scaling_factor
        weight = torch.zeros_like(scores).scatter(-1, chosen, picked)
        work = work_type(b)
        x = b.to(work)
        g = F.linear(x, self.w1.flatten(0, 1).to(work)).unflatten(-1, (cfg.n_routed_experts, -1))
        u = F.linear(x, self.w3.flatten(0, 1).to(work)).unflatten(-1, (cfg.n_routed_experts, -1))
        h = swiglu(g, u, cfg.swiglu_limit) * weight.unsqueeze(-1)
        out = F.linear(h.flatten(-2).to(work), self.w2.permute(1, 0, 2).flatten(1).to(work))
        shared = self.shared_experts
        h = swiglu(shared["w1"](x), shared["w3"](x), cfg.swiglu_limit)
        out = out.float() + shared["w2"](h.to(work)).float()
        if trace is not None:
            trace["experts"], trace["weights"] = chosen, picked
        return out, chosen, scores


class Block(nn.Module):
    def __init__(self, cfg, layer):
        super().__init__()
        self.cfg = cfg
        n, D = cfg.hc_mult, cfg.hidden_size
        mix = (2 + n) * n
        for name in ["attn", "ffn"]:
            base = torch.cat([torch.randn(2 * n) * 0.3, torch.eye(n).flatten() * 4.0])
            self.register_parameter(f"hc_{name}_fn", nn.Parameter(torch.randn(mix, n * D) * 0.3 * (n * D) ** -0.5))
            self.register_parameter(f"hc_{name}_base", nn.Parameter(base))
            self.register_parameter(f"hc_{name}_scale", nn.Parameter(torch.ones(3)))
            self.register_module(f"{name}_norm", Norm(D, cfg.rms_norm_eps))
        self.attn = Attention(cfg, layer)
        self.ffn = MoE(cfg, layer)

    def control(self, streams, name):
        return hc_weights(
            hc_project(streams, getattr(self, f"hc_{name}_fn"), self.cfg.rms_norm_eps),
            getattr(self, f"hc_{name}_scale"),
            getattr(self, f"hc_{name}_base"),
            self.cfg.hc_mult,
            self.cfg.hc_sinkhorn_iters,
            self.cfg.hc_eps,
        )

    def forward(self, streams, tokens, layout, qat, trace):
        pre, post, comb = self.control(streams, "attn")
        y, loss = self.attn(self.attn_norm(hc_read(streams, pre)), layout, qat, trace)
        streams = hc_write(streams, y.float(), post, comb)
        pre, post, comb = self.control(streams, "ffn")
        y, chosen, scores = self.ffn(self.ffn_norm(hc_read(streams, pre)), tokens, trace)
        return hc_write(streams, y, post, comb), loss, chosen, scores


class HyperHead:
    """What a model and an MTP block have in common: reading one row out of the streams."""

    def add_head(self, cfg):
        n, D = cfg.hc_mult, cfg.hidden_size
        self.norm = Norm(D, cfg.rms_norm_eps)
        self.hc_head_fn = nn.Parameter(torch.randn(n, n * D) * 0.3 * (n * D) ** -0.5)
        self.hc_head_base = nn.Parameter(torch.zeros(n))
        self.hc_head_scale = nn.Parameter(torch.ones(1))

    def read(self, streams):
        """streams [B,T,n,D] -> hidden [B,T,D] before the vocabulary."""
        m = hc_project(streams, self.hc_head_fn, self.cfg.rms_norm_eps)
        pre = torch.sigmoid(m * self.hc_head_scale + self.hc_head_base) + self.cfg.hc_eps
        return self.norm(hc_read(streams, pre))


class MultiToken(Block, HyperHead):
    """The MTP block: from the streams at t and the token at t + 1, the token at t + 2."""

    def __init__(self, cfg):
        super().__init__(cfg, cfg.num_hidden_layers)
        D = cfg.hidden_size
        self.enorm, self.hnorm = Norm(D, cfg.rms_norm_eps), Norm(D, cfg.rms_norm_eps)
        self.e_proj, self.h_proj = linear(D, D), linear(D, D)
        self.add_head(cfg)

    def forward(self, streams, embedded, tokens, layout, qat):
        """streams [B,T,n,D] of the main model, embedded [B,T,D] and tokens [B,T] of the next tokens."""
        u = self.e_proj(self.enorm(embedded)).unsqueeze(-2).float()
        streams = u + self.h_proj(self.hnorm(streams)).float()
        streams, _, chosen, scores = super().forward(streams, tokens, layout, qat, None)
        return self.read(streams), chosen, scores


class Model(nn.Module, HyperHead):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        D = cfg.hidden_size
        self.embed = nn.Embedding(cfg.vocab_size, D)
        nn.init.normal_(self.embed.weight, std=0.5)
        self.layers = nn.ModuleList(Block(cfg, i) for i in range(cfg.num_hidden_layers))
        self.head = linear(D, cfg.vocab_size)
        # A token's row starts out in the direction of its embedding, so that copying is easily learnt.
        self.head.weight.data.copy_(self.embed.weight * 0.5 * D**-0.5)
        self.add_head(cfg)
        self.mtp = nn.ModuleList(MultiToken(cfg) for _ in range(cfg.num_nextn_predict_layers))
        # Every block starts out as a small change of the streams.
        for name, p in self.named_parameters():
            if name.endswith(("wo_b.weight", "w2", "w2.weight")):
                p.data.mul_(0.2)

    def seed_hash_routes(self, seed):
        """Random tid2eid tables: different experts per token, evenly used."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers:
            if layer.ffn.gate.hashed:
                table = layer.ffn.gate.tid2eid
                order = torch.rand(table.shape[0], self.cfg.n_routed_experts, generator=generator).argsort(-1)
                table.copy_(order[:, : table.shape[1]])

    def forward(self, tokens, layout=None, qat=False, trace=None, ahead=False):
        """tokens [B,T] -> hidden [B,T,D] before the head, auxiliary values.

        `qat` rounds KV rows to FP8; as a tensor it can change without a new compilation. `trace`, a
        list, collects one dict per layer (rows, routes, streams) for tests. With `ahead`
        the auxiliary values hold the MTP block's hidden rows: row t predicts token t + 2.
        """
        if layout is None:
            layout = Layout(self.cfg, tokens.shape[1], tokens.device)
        streams = self.embed(tokens).float().unsqueeze(-2).expand(-1, -1, self.cfg.hc_mult, -1)
        aux = {"index_loss": [], "routes": []}
        for layer in self.layers:
            notes = None if trace is None else {}
            streams, loss, chosen, scores = layer(streams, tokens, layout, qat, notes)
            if loss is not None:
                aux["index_loss"].append(loss)
            aux["routes"].append((layer.ffn.gate, chosen, scores))
            if trace is not None:
                notes["streams"] = streams
                trace.append(notes)
        if ahead:
            following = tokens.roll(-1, 1)
            (block,) = self.mtp
            aux["ahead"], chosen, scores = block(streams, self.embed(following).float(), following, layout, qat)
            aux["routes"].append((block.ffn.gate, chosen, scores))
        return self.read(streams), aux

    def logits(self, tokens, qat=False, trace=None):
        """tokens [B,T] -> logits [B,T,V] in f32."""
        return self.head(self.forward(tokens, qat=qat, trace=trace)[0]).float()


def load_config(path):
    with open(path, encoding="utf-8") as file:
        return Config.from_dict(json.load(file))
