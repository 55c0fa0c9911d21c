"""Read a GGUF back into `model.Model`, every weight expanded to f32 (needs the `gguf` package).

usage: python gguf_load.py MODEL.gguf OUT_DIR [TOKENIZER_DIR]    writes the official layout, to train on from it
"""

import sys

import numpy as np
import torch

from gguf_names import gguf_name
from model import Config, Model


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
        num_nextn_predict_layers=int(any(t.name == "mtp.0.e_proj.weight" for t in reader.tensors)),
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


if __name__ == "__main__":
    from export import export

    export(load_gguf(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "tokenizer")
