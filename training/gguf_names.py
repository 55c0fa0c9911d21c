"""Tensor names: official checkpoint <-> GGUF, and reading a GGUF back into `model.Model`."""

import numpy as np
import torch

from model import Config, Model

TOP = {
    "embed.weight": "token_embd.weight",
    "head.weight": "output.weight",
    "norm.weight": "output_norm.weight",
    "hc_head_fn": "output_hc_fn.weight",
    "hc_head_base": "output_hc_base.weight",
    "hc_head_scale": "output_hc_scale.weight",
}
BLOCK = {
    "hc_attn_fn": "hc_attn_fn.weight",
    "hc_attn_base": "hc_attn_base.weight",
    "hc_attn_scale": "hc_attn_scale.weight",
    "hc_ffn_fn": "hc_ffn_fn.weight",
    "hc_ffn_base": "hc_ffn_base.weight",
    "hc_ffn_scale": "hc_ffn_scale.weight",
    "attn_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "attn.wq_a.weight": "attn_q_a.weight",
    "attn.q_norm.weight": "attn_q_a_norm.weight",
    "attn.wq_b.weight": "attn_q_b.weight",
    "attn.wkv.weight": "attn_kv.weight",
    "attn.kv_norm.weight": "attn_kv_a_norm.weight",
    "attn.attn_sink": "attn_sinks.weight",
    "attn.wo_a.weight": "attn_output_a.weight",
    "attn.wo_b.weight": "attn_output_b.weight",
    "attn.compressor.wkv.weight": "attn_compressor_kv.weight",
    "attn.compressor.wgate.weight": "attn_compressor_gate.weight",
    "attn.compressor.ape": "attn_compressor_ape.weight",
    "attn.compressor.norm.weight": "attn_compressor_norm.weight",
    "attn.indexer.wq_b.weight": "indexer.attn_q_b.weight",
    "attn.indexer.weights_proj.weight": "indexer.proj.weight",
    "attn.indexer.compressor.wkv.weight": "indexer_compressor_kv.weight",
    "attn.indexer.compressor.wgate.weight": "indexer_compressor_gate.weight",
    "attn.indexer.compressor.ape": "indexer_compressor_ape.weight",
    "attn.indexer.compressor.norm.weight": "indexer_compressor_norm.weight",
    "ffn.gate.weight": "ffn_gate_inp.weight",
    "ffn.gate.bias": "exp_probs_b.bias",
    "ffn.gate.tid2eid": "ffn_gate_tid2eid.weight",
    "ffn.w1": "ffn_gate_exps.weight",
    "ffn.w3": "ffn_up_exps.weight",
    "ffn.w2": "ffn_down_exps.weight",
    "ffn.shared_experts.w1.weight": "ffn_gate_shexp.weight",
    "ffn.shared_experts.w3.weight": "ffn_up_shexp.weight",
    "ffn.shared_experts.w2.weight": "ffn_down_shexp.weight",
}


def gguf_name(name):
    """GGUF name of a parameter of `model.Model`."""
    if name in TOP:
        return TOP[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{BLOCK[rest]}"


def read_config(reader):
    """The shape of a model from a GGUF's `deepseek4.*` keys."""

    def get(key):
        return reader.fields["deepseek4." + key].contents()

    return Config(
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data),
        hidden_size=get("embedding_length"),
        moe_intermediate_size=get("expert_feed_forward_length"),
        num_hidden_layers=get("block_count"),
        num_attention_heads=get("attention.head_count"),
        head_dim=get("attention.key_length"),
        qk_rope_head_dim=get("rope.dimension_count"),
        q_lora_rank=get("attention.q_lora_rank"),
        o_groups=get("attention.output_group_count"),
        o_lora_rank=get("attention.output_lora_rank"),
        n_routed_experts=get("expert_count"),
        num_experts_per_tok=get("expert_used_count"),
        num_hash_layers=get("hash_layer_count"),
        routed_scaling_factor=get("expert_weights_scale"),
        swiglu_limit=get("swiglu_clamp_exp")[0],
        sliding_window=get("attention.sliding_window"),
        index_n_heads=get("attention.indexer.head_count"),
        index_head_dim=get("attention.indexer.key_length"),
        index_topk=get("attention.indexer.top_k"),
        compress_ratios=list(get("attention.compress_ratios")),
        compress_rope_theta=get("attention.compress_rope_freq_base"),
        rope_theta=get("rope.freq_base"),
        rope_factor=get("rope.scaling.factor"),
        rope_original=get("rope.scaling.original_context_length"),
        rope_beta_fast=get("rope.scaling.yarn_beta_fast"),
        rope_beta_slow=get("rope.scaling.yarn_beta_slow"),
        max_position_embeddings=get("context_length"),
    )


def load_gguf(path):
    """A GGUF as `Model`, every weight expanded to f32 (needs the `gguf` package)."""
    import gguf

    reader = gguf.GGUFReader(path)
    model = Model(read_config(reader))
    stored = {t.name: t for t in reader.tensors}
    state = {}
    for name, value in model.state_dict().items():
        tensor = stored[gguf_name(name)]
        if tensor.tensor_type == gguf.GGMLQuantizationType.I32:
            data = np.array(tensor.data)
        else:
            data = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        state[name] = torch.from_numpy(data.reshape(value.shape)).to(value.dtype)
    model.load_state_dict(state)
    return model.eval()
