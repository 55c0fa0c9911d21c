"""Greedy answers to the held-out questions, scored per topic.

usage: python eval.py MODEL.gguf|OFFICIAL_DIR [--tokenizer FILE] [--mode think|nothink|both]
                      [--device cpu|cuda] [--fp8] [--sample SEED] [--report FILE.json]
"""

import argparse
import json
import os
import re
from collections import defaultdict

import torch
from tokenizers import Tokenizer

import data

EOS = 1


def prompts(tokenizer, mode, system):
    for item in data.held_out():
        text = data.BOS + system
        for question, answer in item.get("history", []):
            text += data.USER + question + data.ASSISTANT + data.NOTHINK + answer + data.EOS
        text += data.USER + item["question"] + data.ASSISTANT + (data.THINK if mode == "think" else data.NOTHINK)
        yield item, tokenizer.encode(text, add_special_tokens=False).ids


def choose(logits, generator):
    """Greedy, or temperature 1 with min-p 0.05 as in the command line's default."""
    if generator is None:
        return logits.argmax(-1)
    p = torch.softmax(logits.cpu(), -1)
    p = torch.where(p >= 0.05 * p.amax(-1, keepdim=True), p, 0)
    return torch.multinomial(p, 1, generator=generator)[:, 0].to(logits.device)


@torch.no_grad()
def generate(model, rows, limit, fp8, generator=None):
    """Token lists -> generated ids each; the whole text is computed anew for every token."""
    device = next(model.parameters()).device
    out = [list(row) for row in rows]
    alive = list(range(len(rows)))
    for _ in range(limit):
        width = max(len(out[i]) for i in alive)
        tokens = torch.full((len(alive), width), 2, dtype=torch.int64)
        for at, i in enumerate(alive):
            tokens[at, : len(out[i])] = torch.tensor(out[i])
        hidden, _ = model(tokens.to(device), qat=fp8)
        last = torch.tensor([len(out[i]) - 1 for i in alive], device=device)
        best = choose(model.head(hidden[torch.arange(len(alive), device=device), last]).float(), generator).tolist()
        for at, i in enumerate(alive):
            out[i].append(best[at])
        alive = [i for i, token in zip(alive, best) if token != EOS]
        if not alive:
            break
    return [full[len(row) :] for full, row in zip(out, rows)]


def evaluate(model, tokenizer, mode, fp8, system="", generator=None):
    items, rows = zip(*prompts(tokenizer, mode, system))
    answers = []
    for start in range(0, len(rows), 64):
        answers += generate(model, rows[start : start + 64], 110, fp8, generator)
    results = []
    for item, ids in zip(items, answers):
        text = tokenizer.decode(ids, skip_special_tokens=False)
        final = text.rpartition(data.NOTHINK)[2] if mode == "think" else text
        if item["topic"] == "arithmetic":
            final = final.rpartition("so ")[2]  # the result, not the working
        right = ids[-1] == EOS and all(re.search(pattern, final) for pattern in item["expect"])
        results.append({**item, "answer": text, "right": bool(right)})
    return results


def scores(results):
    table = defaultdict(list)
    for result in results:
        table[result["topic"]].append(result["right"])
    return {topic: (sum(hits), len(hits)) for topic, hits in table.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--tokenizer")
    parser.add_argument("--mode", default="both")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--system", default="")
    parser.add_argument("--fp8", action="store_true", help="KV rows rounded to FP8")
    parser.add_argument("--sample", type=int, help="temperature 1, min-p 0.05 with this seed")
    parser.add_argument("--report")
    args = parser.parse_args()
    if os.path.isdir(args.model):
        from export import load_official

        model = load_official(args.model)
        path = args.tokenizer or os.path.join(args.model, "tokenizer.json")
    else:
        from gguf_load import load_gguf

        model = load_gguf(args.model)
        path = args.tokenizer or "work/tokenizer/tokenizer.json"
    model = model.to(args.device)
    tokenizer = Tokenizer.from_file(path)
    report = {}
    for mode in ["think", "nothink"] if args.mode == "both" else [args.mode]:
        generator = None if args.sample is None else torch.Generator().manual_seed(args.sample)
        results = evaluate(model, tokenizer, mode, args.fp8, args.system, generator)
        table = scores(results)
        hits, total = sum(h for h, _ in table.values()), sum(n for _, n in table.values())
        for result in results:
            if not result["right"]:
                print(f"  wrong: {result['question']!r} -> {result['answer']!r}")
        print(f"{mode}: {hits}/{total} = {hits / total:.1%}  " + "  ".join(f"{t} {h}/{n}" for t, (h, n) in table.items()))
        report[mode] = {"right": hits, "of": total, "topics": table, "answers": results}
    if args.report:
        with open(args.report, "w", encoding="utf-8") as file:
            json.dump(report, file, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
