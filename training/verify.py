"""Check model.py against logits that another implementation computed from the same GGUF.

usage: python verify.py MODEL.gguf ORACLE.safetensors [SEQ ...]
The oracle file holds `seqN.ids`, `seqN.logits` and optionally routes, rows and hidden streams.
"""

import sys

import torch
from safetensors import safe_open

from gguf_load import load_gguf

LIMIT = 1e-3


def main():
    path, oracle = sys.argv[1:3]
    model = load_gguf(path)
    worst = 0.0
    with safe_open(oracle, "pt") as golden, torch.no_grad():
        keys = set(golden.keys())
        for seq in sys.argv[3:] or ["5", "37", "300"]:
            ids = golden.get_tensor(f"seq{seq}.ids").long().view(1, -1)
            trace = []
            ours = model.logits(ids, trace=trace)[0]
            name = f"seq{seq}.logits"
            if name not in keys:
                name = f"seq{seq}.logits_last100"
            theirs = golden.get_tensor(name).float().view(-1, ours.shape[-1])
            ours = ours[-theirs.shape[0] :]
            error = (ours - theirs).abs().max().item()
            agree = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
            worst = max(worst, error)
            line = f"seq {seq}: max abs {error:.2e}, argmax {agree:.2%}"
            name = f"seq{seq}.route_expert"
            if name in keys:
                routes = torch.stack([t["experts"][0].sort(-1).values for t in trace])
                line += f", routes {(routes == golden.get_tensor(name)).all(-1).float().mean():.2%}"
            for layer, t in enumerate(trace):
                name = f"seq{seq}.layer{layer}.comp_kv.compressor"
                if name in keys and t["rows"].shape[1]:
                    rows = golden.get_tensor(name).view_as(t["rows"][0])
                    line += f", rows[{layer}] {(t['rows'][0] - rows).abs().max():.2e}"
                name = f"seq{seq}.layer{layer}.hc_out"
                if name in keys:
                    streams = golden.get_tensor(name)
                    line += f", streams[{layer}] {(t['streams'][0] - streams).abs().max():.2e}"
            print(line)
    if worst > LIMIT:
        sys.exit(f"worst difference {worst:.2e} is above {LIMIT}")


main()
