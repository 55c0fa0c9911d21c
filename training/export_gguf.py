"""Write a GGUF (v3, `deepseek4`, Q8_0) from the official layout that export.py wrote. numpy only.

usage: python export_gguf.py OFFICIAL_DIR OUT.gguf

The metadata satisfies both dialects of DeepSeek V4 files (the published reference files and
llama.cpp's converter). Types: Q8_0 for matrices, F16 for the embedding, the router, the
hyper-connection projections and the position biases of the compressors, F32 for vectors.
"""

import json
import os
import struct
import sys

import numpy as np

from gguf_names import BLOCK, TOP

ALIGNMENT = 32
F32, F16, Q8_0, I32 = 0, 1, 8, 26
# GGUF value types.
U32, I32_VALUE, FLOAT, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}<｜User｜>{{ m.content }}"
    "{% else %}<｜Assistant｜></think>{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% if enable_thinking is defined and not enable_thinking %}"
    "</think>{% else %}<think>{% endif %}{% endif %}"
)


def read_safetensors(path):
    """name -> array; BF16 comes back as f32."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        body = file.read()
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        raw = body[entry["data_offsets"][0] : entry["data_offsets"][1]]
        if entry["dtype"] == "BF16":
            value = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            value = np.frombuffer(raw, {"F32": np.float32, "I64": np.int64}[entry["dtype"]])
        out[name] = value.reshape(entry["shape"])
    return out


def quantize_q8_0(value):
    """Blocks of 32 along the last dimension: an f16 scale and 32 signed bytes."""
    blocks = np.ascontiguousarray(value, np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    scaled = blocks * inverse
    codes = (np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))).astype(np.int8)
    out = np.empty((blocks.shape[0], 34), np.uint8)
    out[:, :2] = scale.astype(np.float16).view(np.uint8)
    out[:, 2:] = codes.view(np.uint8)
    return out.tobytes()


def tensor_type(name, value):
    if name.endswith("tid2eid.weight"):
        return I32
    if value.ndim == 1:
        return F32
    if name == "token_embd.weight" or "hc_" in name or "_ape" in name or "ffn_gate_inp" in name or value.shape[-1] % 32:
        return F16
    return Q8_0


def encode(kind, value):
    if kind == Q8_0:
        return quantize_q8_0(value)
    return np.ascontiguousarray(value, {F32: "<f4", F16: "<f2", I32: "<i4"}[kind]).tobytes()


def text(value):
    raw = value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def metadata_value(kind, value):
    if kind == STRING:
        return text(value)
    return struct.pack({U32: "<I", I32_VALUE: "<i", FLOAT: "<f", BOOL: "<?"}[kind], value)


def metadata_entry(key, kind, value):
    """One key and value; a list becomes an array of `kind`."""
    if isinstance(value, list):
        body = struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(metadata_value(kind, v) for v in value)
    else:
        body = struct.pack("<I", kind) + metadata_value(kind, value)
    return text(key) + body


def model_metadata(config):
    layers, scaling = config["num_hidden_layers"], config["rope_scaling"]
    d = "deepseek4."
    return [
        ("general.architecture", STRING, "deepseek4"),
        ("general.type", STRING, "model"),
        ("general.name", STRING, "ds4-nano v0"),
        ("general.description", STRING, "A small demonstration model of the DeepSeek V4 architecture, for DwarfStar"),
        ("general.license", STRING, "mit"),
        ("general.quantization_version", U32, 2),
        ("general.file_type", U32, 7),
        ("general.alignment", U32, ALIGNMENT),
        (d + "block_count", U32, layers),
        (d + "embedding_length", U32, config["hidden_size"]),
        (d + "embedding_length_out", U32, config["hc_mult"] * config["hidden_size"]),
        (d + "vocab_size", U32, config["vocab_size"]),
        (d + "context_length", U32, config["max_position_embeddings"]),
        (d + "attention.head_count", U32, config["num_attention_heads"]),
        (d + "attention.head_count_kv", U32, config["num_key_value_heads"]),
        (d + "attention.key_length", U32, config["head_dim"]),
        (d + "attention.value_length", U32, config["head_dim"]),
        (d + "rope.dimension_count", U32, config["qk_rope_head_dim"]),
        (d + "attention.q_lora_rank", U32, config["q_lora_rank"]),
        (d + "attention.output_lora_rank", U32, config["o_lora_rank"]),
        (d + "attention.output_group_count", U32, config["o_groups"]),
        (d + "expert_count", U32, config["n_routed_experts"]),
        (d + "expert_used_count", U32, config["num_experts_per_tok"]),
        (d + "expert_feed_forward_length", U32, config["moe_intermediate_size"]),
        (d + "expert_shared_count", U32, config["n_shared_experts"]),
        (d + "expert_gating_func", U32, 4),
        (d + "expert_weights_scale", FLOAT, config["routed_scaling_factor"]),
        (d + "expert_weights_norm", BOOL, True),
        (d + "hash_layer_count", U32, config["num_hash_layers"]),
        (d + "attention.sliding_window", U32, config["sliding_window"]),
        (d + "attention.indexer.head_count", U32, config["index_n_heads"]),
        (d + "attention.indexer.key_length", U32, config["index_head_dim"]),
        (d + "attention.indexer.top_k", U32, config["index_topk"]),
        (d + "hyper_connection.count", U32, config["hc_mult"]),
        (d + "hyper_connection.sinkhorn_iterations", U32, config["hc_sinkhorn_iters"]),
        (d + "hyper_connection.epsilon", FLOAT, config["hc_eps"]),
        (d + "attention.compress_ratios", I32_VALUE, config["compress_ratios"]),
        (d + "attention.compress_rope_freq_base", FLOAT, config["compress_rope_theta"]),
        (d + "rope.freq_base", FLOAT, config["rope_theta"]),
        (d + "rope.scaling.type", STRING, "yarn"),
        (d + "rope.scaling.factor", FLOAT, scaling["factor"]),
        (d + "rope.scaling.original_context_length", U32, scaling["original_max_position_embeddings"]),
        (d + "rope.scaling.yarn_beta_fast", FLOAT, scaling["beta_fast"]),
        (d + "rope.scaling.yarn_beta_slow", FLOAT, scaling["beta_slow"]),
        (d + "attention.layer_norm_rms_epsilon", FLOAT, config["rms_norm_eps"]),
        (d + "swiglu_clamp_exp", FLOAT, [config["swiglu_limit"]] * layers),
        (d + "swiglu_clamp_shexp", FLOAT, [config["swiglu_limit"]] * layers),
    ]


def tokenizer_metadata(tokenizer):
    vocabulary = dict(tokenizer["model"]["vocab"])
    kinds = {}
    for added in tokenizer["added_tokens"]:
        vocabulary[added["content"]] = added["id"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    tokens = sorted(vocabulary, key=vocabulary.get)
    if [vocabulary[t] for t in tokens] != list(range(len(tokens))):
        raise ValueError("token ids are not 0 .. n-1 without gaps")
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    k = "tokenizer.ggml."
    return len(tokens), [
        (k + "model", STRING, "gpt2"),
        (k + "pre", STRING, "joyai-llm"),
        (k + "tokens", STRING, tokens),
        (k + "token_type", I32_VALUE, [kinds.get(i, NORMAL) for i in range(len(tokens))]),
        (k + "merges", STRING, merges),
        (k + "bos_token_id", U32, 0),
        (k + "eos_token_id", U32, 1),
        (k + "padding_token_id", U32, 2),
        (k + "add_bos_token", BOOL, True),
        (k + "add_eos_token", BOOL, False),
        ("tokenizer.chat_template", STRING, CHAT_TEMPLATE),
    ]


def gguf_tensors(stored, config):
    """GGUF name -> array, routed experts stacked."""
    from_official = {**TOP, **BLOCK}
    out = {}
    for name, value in stored.items():
        if ".ffn.experts." in name:
            continue
        if name in from_official:
            out[from_official[name]] = value
        else:
            _, layer, rest = name.split(".", 2)
            out[f"blk.{layer}.{from_official[rest]}"] = value
    for layer in range(config["num_hidden_layers"]):
        for part, target in (("w1", "ffn_gate_exps"), ("w3", "ffn_up_exps"), ("w2", "ffn_down_exps")):
            names = [f"layers.{layer}.ffn.experts.{e}.{part}.weight" for e in range(config["n_routed_experts"])]
            out[f"blk.{layer}.{target}.weight"] = np.stack([stored[n] for n in names])
    return out


def write(folder, path):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
        count, tokenizer = tokenizer_metadata(json.load(file))
    if count != config["vocab_size"]:
        raise ValueError(f"tokenizer.json has {count} tokens, config.json says {config['vocab_size']}")
    entries = model_metadata(config) + tokenizer
    tensors = gguf_tensors(read_safetensors(os.path.join(folder, "model.safetensors")), config)
    directory, data, offset = b"", [], 0
    for name, value in tensors.items():
        kind = tensor_type(name, value)
        raw = encode(kind, value)
        directory += text(name) + struct.pack("<I", value.ndim)
        directory += struct.pack(f"<{value.ndim}Q", *reversed(value.shape)) + struct.pack("<IQ", kind, offset)
        raw += bytes(-len(raw) % ALIGNMENT)
        data.append(raw)
        offset += len(raw)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(entries))
    head += b"".join(metadata_entry(*entry) for entry in entries) + directory
    head += bytes(-len(head) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(head)
        for raw in data:
            file.write(raw)
    print(f"{path}: {len(tensors)} tensors, {len(head) + offset} bytes")


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2])
