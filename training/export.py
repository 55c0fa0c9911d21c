"""Write trained weights in DeepSeek's official checkpoint layout (BF16, F32, I64).

usage: python export.py CHECKPOINT.pt OUT_DIR [TOKENIZER_DIR]
"""

import json
import os
import shutil
import sys

import torch

import model as nano

# Everything else with one dimension or more is BF16, as in the published files.
F32 = ("hc_", "attn_sink", ".ape", "gate.bias")


def official_tensors(model):
    """Official name -> tensor, routed experts unstacked."""
    out = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        if name.endswith("tid2eid"):
            value = value.to(torch.int64)
        elif any(part in name for part in F32):
            value = value.float()
        else:
            value = value.to(torch.bfloat16)
        head, _, last = name.rpartition(".")
        if head.endswith(".ffn") and last in ("w1", "w2", "w3"):
            for expert, one in enumerate(value):
                out[f"{head}.experts.{expert}.{last}.weight"] = one.contiguous()
        else:
            out[name] = value
    return out


def load_official(folder):
    """A folder of `export` back as `model.Model` in f32."""
    from safetensors.torch import load_file

    cfg = nano.load_config(os.path.join(folder, "config.json"))
    model = nano.Model(cfg)
    stored = load_file(os.path.join(folder, "model.safetensors"))
    state = {}
    for name, value in model.state_dict().items():
        head, _, last = name.rpartition(".")
        if head.endswith(".ffn") and last in ("w1", "w2", "w3"):
            one = torch.stack([stored[f"{head}.experts.{e}.{last}.weight"] for e in range(cfg.n_routed_experts)])
        else:
            one = stored[name]
        state[name] = one.to(value.dtype)
    model.load_state_dict(state)
    return model.eval()


def export(model, out, tokenizer_dir):
    from safetensors.torch import save_file

    os.makedirs(out, exist_ok=True)
    save_file(official_tensors(model), os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(model.cfg.official(), file, indent=1)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(tokenizer_dir, name), os.path.join(out, name))


if __name__ == "__main__":
    trained = nano.Model(nano.load_config(os.path.join(os.path.dirname(os.path.abspath(__file__)), "config.json")))
    trained.load_state_dict(torch.load(sys.argv[1], map_location="cpu")["model"])
    export(trained, sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "work/tokenizer")
