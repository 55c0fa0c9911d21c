"""A quick score by teacher forcing: of the answers of generated conversations that training never sees,
how many have all their decisive tokens right. The figures that count are those of `ds4 eval nano`.

usage: python eval.py OFFICIAL_DIR [--tokenizer FILE] [--device cuda] [--rows N] [--top-k N ...] [--fp8]

Only rows of a multiple of 16384 tokens are evaluated, on a GPU. Top-k 0 attends all compressed rows.
"""

import argparse
import os
from collections import defaultdict

import numpy as np
import torch

import data
import feed
import model as nano
from export import load_official

LENGTHS = [(0, "512"), (768, "2k"), (3072, "8k"), (10240, "16k")]


def talks(path, stage, tokens, longest):
    """[(kind, (ids, flags))] of about so many tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    data.STAGE = stage
    out, total, part = [], 0, 0
    while total < tokens:
        for talk in data.generate(f"eval/quick/{stage}/{part}", 10, data.excluded_questions()):
            pair = data.encode(tokenizer, talk)
            if len(pair[0]) <= longest:
                out.append((talk["kind"], pair))
                total += len(pair[0])
        part += 1
    return out


def answers(flags):
    """[(first, end)] of the assistant's turns."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (np.asarray(flags) > 0).astype(int), [0]])))
    return list(zip(edges[::2], edges[1::2]))


@torch.no_grad()
def score(model, items, length, device, sparse, fp8):
    """-> {kind: [right or not]}."""
    table = defaultdict(list)
    rest = list(items)
    while rest:
        # The kinds travel with the talks, as an attribute of their flags' identity.
        kinds = {id(pair[0]): kind for kind, pair in rest}
        tokens, _, starts, left = feed.pack([pair for _, pair in rest], length)
        kept = {id(pair[0]) for pair in left}
        placed = [(kinds[id(pair[0])], pair) for _, pair in rest if id(pair[0]) not in kept]
        rest = [(kinds[id(pair[0])], pair) for pair in left]
        if not placed:
            break
        layout = nano.Layout(model.cfg, length, device, torch.from_numpy(starts.astype(np.int64)), flex=True, sparse=sparse)
        row = torch.from_numpy(tokens.astype(np.int64)).to(device)[None]
        with torch.autocast(device, torch.bfloat16):
            hidden, _ = model(row, layout, qat=fp8)
            best = torch.cat([model.head(part).argmax(-1) for part in hidden[0].split(8192)]).cpu().numpy()
        heads = np.flatnonzero(starts == np.arange(length))
        for kind, (ids, flags) in placed:
            ids, flags = np.asarray(ids), np.asarray(flags)
            at = next(h for h in heads if h + len(ids) <= length and (tokens[h : h + len(ids)] == ids).all())
            for first, end in answers(flags):
                decisive = np.flatnonzero(flags[first:end] == 2) + first
                if len(decisive) == 0:
                    decisive = np.arange(first, end)
                right = bool((best[at + decisive - 1] == ids[decisive]).all())
                name = kind
                if kind == "needle":
                    name += "_" + next(label for least, label in reversed(LENGTHS) if first >= least)
                table[name].append(right)
    return table


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--tokenizer")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=6, help="rows of 32768 tokens per stage")
    parser.add_argument("--top-k", type=int, nargs="+", default=[0])
    parser.add_argument("--fp8", action="store_true", help="KV rows rounded to FP8")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    model = load_official(args.model).to(args.device)
    path = args.tokenizer or os.path.join(args.model, "tokenizer.json")
    items = talks(path, "short", 32768 * args.rows, 16384) + talks(path, "long", 2 * 32768 * args.rows, 16384)
    for top in args.top_k:
        model.cfg.index_topk = top or 1
        table = score(model, items, 32768, args.device, top > 0, args.fp8)
        print(f"top-k {top or 'all'}: " + "  ".join(f"{k} {sum(v)}/{len(v)} {sum(v) / len(v):.1%}" for k, v in sorted(table.items())), flush=True)


if __name__ == "__main__":
    main()
