"""Batches for the training: generated in worker processes, packed into rows of one length."""

import os
import random
from multiprocessing import get_context

import numpy as np

import data
import drills
from rename import rename

ALIGN, BLOCK = 4, 128  # as `model.Layout` asks for
PAD = 2
LONG = 1024  # a conversation above it has mostly filler: flag 3 instead of 0

RENAMED, RENAMED_LATE = 0.5, 0.65  # part of the conversations whose copied words become new ones

_tokenizer = None


def pack(talks, length):
    """(ids, flags) pairs -> tokens, flags (-1: nothing), starts, all [length], and what did not fit."""
    tokens = np.full(length, PAD, dtype=np.int16)
    kinds = np.full(length, -1, dtype=np.int8)
    heads = []
    gaps, cursor, rest, misses = [], 0, [], 0
    for at, (ids, flags) in enumerate(talks):
        size = len(ids)
        room = -(-size // ALIGN) * ALIGN
        place = None
        if size >= BLOCK:
            if cursor + size <= length:
                place = cursor
                cursor = -(-(cursor + size) // BLOCK) * BLOCK
                gaps.append((place + room, min(cursor, length)))
        else:
            for i, (begin, end) in enumerate(gaps):
                if end - begin >= room:
                    place = begin
                    gaps[i] = (begin + room, end)
                    break
            else:
                if cursor + BLOCK <= length:
                    place, cursor = cursor, cursor + BLOCK
                    gaps.append((place + room, cursor))
            gaps = [g for g in gaps if g[1] - g[0] >= 16]
        if place is None:
            rest.append((ids, flags))
            misses += 1
            if misses > 40:
                rest += talks[at + 1 :]
                break
            continue
        flags = np.asarray(flags, dtype=np.int8)
        tokens[place : place + size] = ids
        kinds[place : place + size] = np.where(flags == 0, 3, flags) if size > LONG else flags
        heads.append(place)
    starts = np.zeros(length, dtype=np.int32)
    starts[heads] = heads
    return tokens, kinds, np.maximum.accumulate(starts), rest


def make_shard(job):
    """-> packed rows; depends on the job alone."""
    global _tokenizer
    path, seed, stage, index, length, rows, longest = job
    if _tokenizer is None:
        from tokenizers import Tokenizer

        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        _tokenizer = Tokenizer.from_file(path)
    wanted = int(length * rows * 1.03)
    name = f"{seed}/{stage}/{index}"
    if stage.startswith("drill"):
        longest = longest if stage == "drill_long" else min(longest, 2048)
        ordinary = [i for i in range(3, _tokenizer.get_vocab_size()) if not str(_tokenizer.id_to_token(i)).startswith("<")]
        talks = drills.generate(name, wanted, longest, ordinary)
    else:
        excluded = data.excluded_questions()
        vocabulary = (token.lstrip("Ġ").lower() for token in _tokenizer.get_vocab())
        pieces = sorted({piece for piece in vocabulary if piece.isascii() and piece.isalpha()})
        data.enter(stage, pieces)
        renamed = RENAMED_LATE if stage.startswith("work") else RENAMED
        rng = random.Random(name)
        talks, total, part = [], 0, 0
        while total < wanted:
            for talk in data.generate(f"{name}/{part}", 20 if stage.endswith("long") else 200, excluded):
                if rng.random() < renamed:
                    talk = rename(rng, talk, pieces)
                ids, flags = data.encode(_tokenizer, talk)
                if len(ids) <= longest:
                    talks.append((ids, flags))
                    total += len(ids)
            part += 1
        rng.shuffle(talks)
    out = []
    for _ in range(rows):
        tokens, kinds, starts, talks = pack(talks, length)
        out.append((tokens, kinds, starts))
    return out


class Feed:
    """One endless stream of rows per stage, each in an order that depends on the seed alone."""

    def __init__(self, pool, path, seed, length, longest, ahead, rows=4):
        self.pool, self.path, self.seed, self.length, self.longest = pool, path, seed, length, longest
        self.ahead, self.rows = ahead, rows
        self.jobs, self.issued, self.ready, self.taken = {}, {}, {}, {}

    def job(self, stage, shard):
        return self.path, self.seed, stage, shard, self.length, self.rows, self.longest

    def prepare(self, stage):
        """Keeps workers busy with the next shards of a stage."""
        jobs = self.jobs.setdefault(stage, [])
        while len(jobs) < self.ahead:
            shard = self.issued.get(stage, 0)
            self.issued[stage] = shard + 1
            jobs.append(self.pool.apply_async(make_shard, (self.job(stage, shard),)))

    def next(self, stage):
        """-> tokens, flags, starts [T]."""
        ready = self.ready.setdefault(stage, [])
        if not ready:
            self.prepare(stage)
            ready += self.jobs[stage].pop(0).get()
            self.prepare(stage)
        self.taken[stage] = self.taken.get(stage, 0) + 1
        return ready.pop(0)

    def skip(self, taken):
        """Goes on after the rows that an interrupted training took."""
        self.taken = dict(taken)
        for stage, count in self.taken.items():
            self.issued[stage] = -(-count // self.rows)
            if count % self.rows:
                self.ready[stage] = make_shard(self.job(stage, count // self.rows))[count % self.rows :]


def pool(workers):
    """Daemon processes, ended with the pool: none outlives the training."""
    return get_context("spawn").Pool(workers)
