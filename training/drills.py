"""Exercises without language, from random tokens: repeat a passage, recall the value of a key.

They make attention learn to look things up before it meets sentences, and give many look-ups in one
long row where a conversation has one. Each exercise is (ids, flags) as `data.encode` gives them.
"""

import random

BOS, EOS = 0, 1


def token_source(rng, ordinary):
    """Draws tokens: a few of them often, as in text, and all of them sometimes."""
    common = rng.sample(ordinary, rng.randint(20, 200))
    return lambda: rng.choice(common) if rng.random() < 0.7 else rng.choice(ordinary)


def repeat(rng, ordinary, length):
    """A passage, then parts of it again, each after its first two tokens."""
    draw = token_source(rng, ordinary)
    half = max(12, length // 2)
    ids = [BOS] + [rng.choice(ordinary) for _ in range(half)] if rng.random() < 0.6 else [BOS] + [draw() for _ in range(half)]
    flags = [0] * len(ids)
    passage = ids[1:]
    while len(ids) < length:
        size = min(rng.randint(8, 64), len(passage))
        at = rng.randint(0, len(passage) - size)
        part = passage[at : at + size]
        ids += part
        flags += [0, 0] + [1] * (size - 2)
    return ids[:length] + [EOS], flags[:length] + [0]


def recall(rng, ordinary, length):
    """Keys with values between other tokens, then some of the keys again, each with its value."""
    draw = token_source(rng, ordinary)
    mark, end = rng.sample(ordinary, 2)
    digits = rng.sample(ordinary, 10)
    count = max(2, min(rng.randint(4, 64), length // 24))
    size, width = rng.randint(1, 3), rng.randint(1, 5)
    short = rng.random() < 0.5  # values of digits
    keys = {}
    while len(keys) < count:
        keys[tuple(rng.choice(ordinary) for _ in range(size))] = [rng.choice(digits if short else ordinary) for _ in range(width)]
    facts = [[*key, mark, *value, end] for key, value in keys.items()]
    asked = rng.sample(list(keys), max(2, min(24, count * 3 // 4)))
    tail, tail_flags = [], []
    for key in asked:
        tail += [*key, mark, *keys[key], end]
        tail_flags += [0] * (size + 1) + [2] * width + [1]
    filler = max(0, length - sum(map(len, facts)) - len(tail) - 1)
    cuts = sorted(rng.randint(0, filler) for _ in facts)
    ids, at = [BOS], 0
    for fact, cut in zip(facts, cuts):
        ids += [draw() for _ in range(cut - at)] + fact
        at = cut
    ids += [draw() for _ in range(filler - at)]
    return ids + tail + [EOS], [0] * len(ids) + tail_flags + [0]


def generate(seed, tokens, longest, ordinary):
    """Exercises of about `tokens` tokens together, the longest of `longest` tokens."""
    rng = random.Random(seed)
    out, total = [], 0
    while total < tokens:
        length = int(min(longest - 300, 32 * 2 ** (rng.random() * 9.1)))
        one = (repeat if rng.random() < 0.35 else recall)(rng, ordinary, length)
        out.append(one)
        total += len(one[0])
    return out
