"""Train nano on freshly generated conversations; resumable.

usage: python train.py --out DIR [--tokenizer tokenizer.json] [--steps N] [--max-seconds S]
                       [--stop-after S] [--row-tokens N] [--device cpu|cuda] [--workers N]
                       [--init DIR] [--curriculum NAME]

The schedule ends after --steps or --max-seconds, whichever comes first. --stop-after ends this
call earlier, with a checkpoint; the same command then goes on.
"""

import argparse
import json
import math
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

import feed
import model as nano
from export import export, load_official
from muon import Muon

# Until which part of the schedule which share of the rows comes from which stage.
CURRICULA = {
    "full": [
        (0.10, {"drill": 0.35, "short": 0.65}),
        (0.35, {"drill": 0.08, "short": 0.92}),
        (0.60, {"drill_long": 0.08, "long": 0.22, "short": 0.7}),
        (1.01, {"long": 0.4, "focus": 0.3, "short": 0.3}),
    ],
    "short": [(0.1, {"drill": 0.3, "short": 0.7}), (1.01, {"short": 1.0})],
    "focus": [(1.01, {"long": 0.4, "focus": 0.6})],
    "copy": [(1.01, {"drill": 0.04, "long": 0.24, "focus": 0.36, "short": 0.36})],
    "work": [(0.6, {"drill": 0.04, "drill_long": 0.02, "work_long": 0.2, "work": 0.74}), (1.01, {"work_long": 0.22, "work": 0.78})],
}


def stage_of(curriculum, progress, seed, step):
    shares = next(shares for until, shares in CURRICULA[curriculum] if progress < until)
    return random.Random(f"{seed}/{step}").choices(list(shares), list(shares.values()))[0]


def rate_at(progress, step, warmup, decay_from):
    """Warm-up, constant, then straight down to 2%."""
    down = 1 - 0.98 * max(0.0, progress - decay_from) / (1 - decay_from)
    return min(1.0, (step + 1) / warmup) * down


def token_losses(hidden, weight, target):
    """Cross-entropy of each row, [T]."""
    return F.cross_entropy(F.linear(hidden, weight).float(), target, reduction="none")


# Learning rates of AdamW's parameters, as parts of Muon's. The projections that steer (routes, streams)
# are small beside their wide inputs and would jump about with more.
RATES = [("embed.weight", 2.0), ("head.weight", 0.75), ("_fn", 0.06), ("ffn.gate.weight", 0.1), ("weights_proj", 0.2), ("", 0.5)]


def optimizers(model, lr, device):
    """Muon for the matrices of the blocks, AdamW for everything else."""
    matrices, groups, others = [], {}, {}
    for name, p in model.named_parameters():
        part = next(rate for part, rate in RATES if part in name)
        if p.ndim < 2 or ".ape" in name or part != RATES[-1][1]:
            others.setdefault(part, []).append(p)
        else:
            matrices.append(p)
            if "wo_a" in name:
                groups[p] = model.cfg.o_groups
    adam = torch.optim.AdamW(
        [{"params": own, "lr": lr * part} for part, own in others.items()],
        betas=(0.9, 0.95), weight_decay=0.0, fused=device == "cuda",
    )
    return [adam, Muon(matrices, lr, groups)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokenizer", default="work/tokenizer/tokenizer.json")
    parser.add_argument("--config", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "config.json"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--max-seconds", type=float, default=1e9, help="length of the schedule, all calls together, without compiling")
    parser.add_argument("--stop-after", type=float, default=1e9, help="end this call after so many seconds, with a checkpoint")
    parser.add_argument("--row-tokens", type=int, default=32768, help="tokens of a packed row; on a GPU a multiple of 16384")
    parser.add_argument("--longest", type=int, default=16384, help="longer conversations are left out")
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--init", help="start from an exported folder, with a fresh optimizer")
    parser.add_argument("--curriculum", default="full", choices=CURRICULA)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--decay-from", type=float, default=0.55)
    parser.add_argument("--fp8-from", type=float, default=0.7, help="part of the schedule after which KV rows are rounded to FP8")
    parser.add_argument("--sparse-from", type=float, default=2, help="part of the schedule after which only the indexer's rows are attended")
    parser.add_argument("--rest-weight", type=float, default=0.05, help="loss weight of tokens that are not the assistant's")
    parser.add_argument("--decisive-weight", type=float, default=1.5, help="loss weight of tokens that decide whether an answer is right")
    parser.add_argument("--mtp-weight", type=float, default=0.3)
    parser.add_argument("--report", type=int, default=0, help="steps between two lines of the log")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    cuda = args.device == "cuda"
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    cfg = nano.load_config(args.config)
    model = nano.Model(cfg)
    model.seed_hash_routes(args.seed)
    if args.init:
        model.load_state_dict(load_official(args.init).state_dict())
    model = model.to(args.device).train()
    print(f"{sum(p.numel() for p in model.parameters())} parameters on {args.device}", flush=True)
    tools = optimizers(model, args.lr, args.device)
    for tool in tools:
        for group in tool.param_groups:
            group["base"] = group["lr"]
    losses = token_losses
    step, seen, spent, taken = 0, 0, 0.0, {}
    checkpoint = os.path.join(args.out, "checkpoint.pt")
    if os.path.exists(checkpoint):
        saved = torch.load(checkpoint, map_location=args.device)
        model.load_state_dict(saved["model"])
        for tool, state in zip(tools, saved["optimizers"]):
            tool.load_state_dict(state)
        step, seen, spent, taken = saved["step"], saved["seen"], saved["spent"], saved["taken"]
        print(f"resumed at step {step} after {spent:.0f} s", flush=True)

    def upload(values):
        """To the device as int64, without waiting for what runs there."""
        values = torch.from_numpy(values.astype(np.int64))
        return (values.pin_memory() if cuda else values).to(args.device, non_blocking=True)

    def save():
        state = {
            "model": model.state_dict(), "optimizers": [tool.state_dict() for tool in tools],
            "step": step, "seen": seen, "spent": spent + time.time() - started, "taken": source.taken,
        }
        torch.save(state, checkpoint + ".new")
        os.replace(checkpoint + ".new", checkpoint)

    if cuda:
        torch._dynamo.config.cache_size_limit = 64
        for block in [*model.layers, *model.mtp]:
            block.compile(dynamic=False)
        losses = torch.compile(token_losses, dynamic=False)
    # Flags -1: nothing, 0: not the assistant's, 1: the assistant's, 2: decisive, 3: not the assistant's, in a long text.
    weights = torch.tensor([args.rest_weight, 1.0, args.decisive_weight, args.rest_weight / 10, 0.0], device=args.device)
    began = started = reported = last_save = time.time()
    first_step = step
    window, log = [], open(os.path.join(args.out, "log.jsonl"), "a", encoding="utf-8")
    with feed.pool(args.workers) as pool:
        source = feed.Feed(pool, args.tokenizer, args.seed, args.row_tokens, args.longest, max(3, args.workers))
        source.skip(taken)
        while True:
            now = time.time()
            progress = max(step / args.steps, (spent + now - started) / args.max_seconds)
            if progress >= 1 or now - began >= args.stop_after:
                break
            rate = rate_at(progress, step, args.warmup, args.decay_from)
            for tool in tools:
                for group in tool.param_groups:
                    group["lr"] = group["base"] * rate
            stage = stage_of(args.curriculum, progress, args.seed, step)
            row = source.next(stage)
            waited = time.time() - now
            tokens, flags, starts = (upload(part) for part in row)
            # The indexer's loss is taken where it matters: half of the positions are decisive ones.
            decisive = np.flatnonzero(row[1] == 2)
            draw = np.random.default_rng([args.seed, step])
            samples = draw.integers(0, args.row_tokens, 512)
            if len(decisive):
                samples[::2] = draw.choice(decisive, 256) - 1
            layout = nano.Layout(
                cfg, args.row_tokens, args.device, starts, flex=cuda, sparse=progress >= args.sparse_from,
                samples=upload(np.maximum(samples, 0)),
            )
            with torch.autocast(args.device, torch.bfloat16, enabled=cuda):
                hidden, aux = model(tokens[None], layout, qat=flags.new_full((), progress >= args.fp8_from, dtype=torch.bool), ahead=bool(model.mtp))
                weight = model.head.weight.to(torch.bfloat16) if cuda else model.head.weight

                def mean_loss(rows, distance):
                    """Weighted mean of the losses of the tokens `distance` ahead, and the losses."""
                    target, kind = tokens.roll(-distance), flags.roll(-distance)
                    counts = weights[kind] * (starts.roll(-distance) == starts)
                    each = losses(rows[0].to(weight.dtype), weight, target)
                    return (each * counts).sum() / counts.sum().clamp(min=1), each.detach(), kind

                main_loss, each, kind = mean_loss(hidden, 1)
                total = main_loss
                ahead_loss = torch.zeros((), device=args.device)
                if model.mtp:
                    ahead_loss, _, _ = mean_loss(aux["ahead"], 2)
                    total = total + args.mtp_weight * (1 if progress < 0.7 else 0.4) * ahead_loss
                index = sum(aux["index_loss"]) if aux["index_loss"] else torch.zeros((), device=args.device)
            (total + 0.3 * index).backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for tool in tools:
                tool.step()
                tool.zero_grad(set_to_none=True)
            with torch.no_grad():
                real = (flags >= 0).view(1, -1, 1)
                spread = []
                for gate, chosen, _ in aux["routes"]:
                    if not gate.hashed:
                        load = torch.zeros(cfg.n_routed_experts, device=args.device).scatter_add_(
                            0, chosen.flatten(), real.expand_as(chosen).flatten().float()
                        )
                        gate.bias += 5e-3 * (0.1 + rate) * torch.sign(load.mean() - load)
                        spread.append(load.max() / load.mean())
                answer = (each * (kind == 1)).sum() / (kind == 1).sum().clamp(min=1)
                key = (each * (kind == 2)).sum() / (kind == 2).sum().clamp(min=1)
                window.append((stage, waited, torch.stack([answer, key, main_loss.detach(), ahead_loss.detach(), index.detach().float(), norm, torch.stack(spread).max()])))
            if step == first_step and cuda:  # compiling is no training
                torch.cuda.synchronize()
                print(f"first step after {time.time() - began:.0f} s", flush=True)
                started = reported = time.time()
            step += 1
            seen += int((row[1] >= 0).sum())
            if len(window) >= (args.report or (100 if cuda else 10)):
                values = torch.stack([w[2] for w in window]).mean(0).tolist()
                now = time.time()
                line = dict(zip(["answer", "key", "loss", "mtp", "index", "norm", "load"], (round(v, 4) for v in values)))
                by_stage = {}
                for s, _, v in window:
                    by_stage.setdefault(s, []).append(v[:2])
                line["stages"] = {s: [round(x, 4) for x in torch.stack(v).mean(0).tolist()] + [len(v)] for s, v in by_stage.items()}
                line = {
                    "step": step, **line, "tokens": seen, "seconds": round(spent + now - started, 1),
                    "steps_per_s": round(len(window) / (now - reported), 2), "waited": round(sum(w[1] for w in window), 1),
                    "progress": round(progress, 3),
                }
                print(json.dumps(line), flush=True)
                log.write(json.dumps(line) + "\n")
                log.flush()
                window, reported = [], now
                if not math.isfinite(values[2]):
                    raise SystemExit("the loss is not finite")
                if now - last_save > 120:
                    save()
                    last_save = time.time()
        save()
    print(f"{step - first_step} steps, {seen} tokens without padding in all, {time.time() - started:.0f} s", flush=True)
    export(model, os.path.join(args.out, "official"), os.path.dirname(os.path.abspath(args.tokenizer)))


if __name__ == "__main__":
    main()
