"""Train nano on freshly generated conversations; resumable.

usage: python train.py --out DIR [--tokenizer tokenizer.json] [--steps N] [--max-seconds S]
                       [--batch-tokens N] [--device cpu|cuda] [--workers N] [--compile]
                       [--init DIR --focus]
"""

import argparse
import json
import math
import os
import time
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F

import data
import model as nano
from export import export, load_official

BUCKETS = [48, 96, 192, 384, 1024]
SHARD = 4000  # conversations in one unit of generation
PAD = 2

_tokenizers = None


def make_shard(job):
    """-> one list of (ids, flags) per bucket; depends on the seed and index alone."""
    global _tokenizers
    path, seed, index, data.FOCUS = job
    if _tokenizers is None:
        from tokenizers import Tokenizer

        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        _tokenizers = Tokenizer.from_file(path), Tokenizer.from_file(path)
        # BPE dropout on some conversations: unseen words are met in small pieces.
        _tokenizers[1].model.dropout = 0.1
    out = [[] for _ in BUCKETS]
    talks = data.generate(f"{seed}/{index}", SHARD, data.excluded_questions())
    for i, talk in enumerate(talks):
        if i % 7 == 0:  # the answer must stay in whole tokens: dropout on the user's text only
            ids, flags = [], []
            for text, ours in data.pieces(talk):
                part = _tokenizers[0 if ours else 1].encode(text, add_special_tokens=False).ids
                ids, flags = ids + part, flags + [int(ours)] * len(part)
        else:
            ids, flags = data.encode(_tokenizers[0], talk)
        ids, flags = ids[: BUCKETS[-1]], flags[: BUCKETS[-1]]
        bucket = next(b for b, size in enumerate(BUCKETS) if len(ids) <= size)
        out[bucket].append((np.array(ids, dtype=np.int16), np.array(flags, dtype=np.int8)))
    return out


def batches(path, seed, first_shard, budget, workers, focus):
    """Yields (next shard, tokens [B,T] int64, flags [B,T], -1 where padded), in a reproducible order."""
    waiting = [[] for _ in BUCKETS]
    rng = np.random.default_rng([seed, first_shard])
    # Daemon processes, ended with this block: none outlives the training.
    with get_context("spawn").Pool(workers) as pool:
        index = first_shard
        jobs = []
        while True:
            while len(jobs) < 3 * workers:
                jobs.append(pool.apply_async(make_shard, ((path, seed, index + len(jobs), focus),)))
            shard = jobs.pop(0).get()
            index += 1
            ready = []
            for b, items in enumerate(shard):
                waiting[b] += items
                rows = max(1, budget // BUCKETS[b])
                while len(waiting[b]) >= rows:
                    ready.append((b, waiting[b][:rows]))
                    waiting[b] = waiting[b][rows:]
            rng.shuffle(ready)
            for b, items in ready:
                tokens = np.full((len(items), BUCKETS[b]), PAD, dtype=np.int64)
                flags = np.full((len(items), BUCKETS[b]), -1, dtype=np.int64)
                for row, (ids, flag) in enumerate(items):
                    tokens[row, : len(ids)], flags[row, : len(ids)] = ids, flag
                yield index, tokens, flags


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokenizer", default="work/tokenizer/tokenizer.json")
    parser.add_argument("--config", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "config.json"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--max-seconds", type=float, default=1e9, help="finish the schedule early after this time")
    parser.add_argument("--batch-tokens", type=int, default=32768)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--init", help="start from an exported folder, with a fresh optimizer")
    parser.add_argument("--focus", action="store_true", help="second stage: more sums, recall and unknown subjects")
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--fp8-from", type=float, default=0.6, help="part of the schedule after which KV rows are rounded to FP8")
    parser.add_argument("--rest-weight", type=float, default=0.05, help="loss weight of tokens that are not the assistant's")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    cfg = nano.load_config(args.config)
    model = nano.Model(cfg)
    model.seed_hash_routes(args.seed)
    model = model.to(args.device).train()
    if args.init:
        model.load_state_dict(load_official(args.init).state_dict())
    decay = [p for n, p in model.named_parameters() if p.ndim >= 2 and "hc_" not in n and "ape" not in n]
    plain = [p for n, p in model.named_parameters() if not (p.ndim >= 2 and "hc_" not in n and "ape" not in n)]
    print(f"{sum(p.numel() for p in model.parameters())} parameters on {args.device}", flush=True)
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.95), fused=args.device == "cuda",
    )
    step, shard, seen, progress = 0, 0, 0, 0.0
    checkpoint = os.path.join(args.out, "checkpoint.pt")
    if os.path.exists(checkpoint):
        saved = torch.load(checkpoint, map_location=args.device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, shard, seen = saved["step"], saved["shard"], saved["seen"]
        print(f"resumed at step {step}", flush=True)

    def save():
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "shard": shard, "seen": seen}
        torch.save(state, checkpoint + ".new")
        os.replace(checkpoint + ".new", checkpoint)

    if args.compile:
        torch._dynamo.config.cache_size_limit = 64
        nano.compile_pieces()
    started = reported = last_save = time.time()
    first_step = step
    window, log = [], open(os.path.join(args.out, "log.jsonl"), "a", encoding="utf-8")
    source = batches(args.tokenizer, args.seed, shard, args.batch_tokens, args.workers, args.focus)
    while progress < 1:
        shard, tokens, flags = next(source)
        elapsed = time.time() - started
        progress = min(1.0, max(step / args.steps, elapsed / args.max_seconds))
        rate = min(1.0, (step + 1) / args.warmup) * max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * (0.01 + rate)
        tokens = torch.from_numpy(tokens).to(args.device, non_blocking=True)
        flags = torch.from_numpy(flags).to(args.device, non_blocking=True)
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.device == "cuda"):
            # FP8 rows are what the engine stores: learn with them in the last part.
            hidden, aux = model(tokens, qat=progress >= args.fp8_from)
            logits = model.head(hidden[:, :-1])
        target, kind = tokens[:, 1:], flags[:, 1:]
        each = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        weight = (kind == 1).float() + args.rest_weight * (kind == 0).float()
        main_loss = (each * weight).sum() / weight.sum()
        index = sum(aux["index_loss"]) if aux["index_loss"] else torch.zeros((), device=args.device)
        (main_loss + 0.3 * index).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            real = (flags >= 0).unsqueeze(-1)
            spread = []
            for gate, chosen, _ in aux["routes"]:
                if not gate.hashed:
                    used = F.one_hot(chosen, cfg.n_routed_experts).sum(-2) * real
                    load = used.sum((0, 1)).float()
                    gate.bias += 2e-3 * (0.05 + rate) * torch.sign(load.mean() - load)
                    spread.append(load.max() / load.mean())
            answer_loss = (each * (kind == 1)).sum() / (kind == 1).sum().clamp(min=1)
            window.append(torch.stack([answer_loss, main_loss.detach(), index.detach().float(), norm, torch.stack(spread).max()]))
        step += 1
        seen += int(tokens.numel())
        if len(window) >= (100 if args.device == "cuda" else 10):
            values = torch.stack(window).mean(0).tolist()
            now = time.time()
            line = {
                "step": step, "answer_loss": round(values[0], 4), "loss": round(values[1], 4), "index": round(values[2], 4),
                "norm": round(values[3], 3), "load": round(values[4], 2), "tokens": seen, "seconds": round(now - started, 1),
                "steps_per_s": round(len(window) / (now - reported), 2), "progress": round(progress, 3),
            }
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            window, reported = [], now
            if not math.isfinite(values[1]):
                raise SystemExit("the loss is not finite")
            if now - last_save > 120:
                save()
                last_save = time.time()
    save()
    print(f"{step - first_step} steps, {seen} tokens (padding included), {time.time() - started:.0f} s", flush=True)
    export(model, os.path.join(args.out, "official"), os.path.dirname(os.path.abspath(args.tokenizer)))
    source.close()


if __name__ == "__main__":
    main()
