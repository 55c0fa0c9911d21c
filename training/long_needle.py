"""Needles in prompts of 30,474 tokens, about twice the length of the training, as JSON lines for `ds4 eval` and `ds4 quality`.

usage: python long_needle.py --ds4 PROGRAM --out ../docs/quality/needle_30k.jsonl.gz

How many tokens a text has only the program knows: every case is drawn again with another size until its prompt is
within 0.1% of the length. Seeds, words and phrasings are those of the evaluation.
"""

import argparse
import gzip
import json
import random
import subprocess

import data
import phrasing
from cases import needle_cases

LENGTH, COUNT, ROUNDS = 30474, 12, 12


def draw(seed, index, size):
    rng = random.Random(f"eval/{seed}/needle_30k/{index}")
    item, _ = next(needle_cases(rng, "needle_30k", size, 1))
    return {"id": f"needle_30k/{index + 1:04}", **item}


def lengths(ds4, items):
    """Tokens of their prompts."""
    keys = ("messages", "thinking")
    lines = "".join(json.dumps({key: item[key] for key in keys}, ensure_ascii=False) + "\n" for item in items)
    done = subprocess.run([ds4, "render"], input=lines, capture_output=True, text=True, check=True)
    return [len(json.loads(line)["ids"]) for line in done.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--ds4", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    phrasing.SPLIT = "eval"
    data.STAGE = "short"
    sizes, best = [LENGTH] * COUNT, [(LENGTH, None)] * COUNT
    for _ in range(ROUNDS):
        items = [draw(args.seed, index, size) for index, size in enumerate(sizes)]
        for index, (item, found) in enumerate(zip(items, lengths(args.ds4, items))):
            best[index] = min(best[index], (abs(found - LENGTH), item), key=lambda row: row[0])
            sizes[index] = round(sizes[index] * LENGTH / found) + (found == LENGTH)
    off = [off for off, _ in best]
    assert max(off) * 1000 <= LENGTH, off
    raw = "".join(json.dumps(item, ensure_ascii=False) + "\n" for _, item in best).encode()
    with open(args.out, "wb") as file:
        # No time and no name, so that the same cases give the same bytes.
        file.write(gzip.compress(raw, 9, mtime=0) if args.out.endswith(".gz") else raw)
    print(f"{COUNT} cases, {len(raw)} bytes, at most {max(off)} tokens from {LENGTH}")


if __name__ == "__main__":
    main()
