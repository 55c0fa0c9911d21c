"""The conversations that nano learns from, all generated from a seed.

`python data.py [SEED] [COUNT] [STAGE]` prints examples. Each kind of conversation has a module of its own;
here they are mixed. `encoding.py` says what a conversation is.
"""

import gzip
import json
import os
import random
import re
import sys

import arithmetic
import extraction
import needle
import phrasing
import tools
from arithmetic import arithmetic_turn
from encoding import ASSISTANT, BOS, EOS, MAX_EFFORT, NOTHINK, THINK, USER, encode, plain, prompt_text  # noqa: F401
from extraction import extraction_turn
from help_desk import explain_turn, topic_turn
from memory import Fact, memory_talk
from needle import copy_turn, needle_talk
from small_talk import identity_turn, small_talk_turn
from tools import tools_talk
from unknown import unknown_turn

SYSTEMS = """You are a helpful assistant.|You are a helpful coding assistant.|You are DwarfStar.|Answer briefly.|Be concise.
|You are a friendly assistant. Keep answers short.|You are an expert.|Help the user.|Answer in one sentence.
|You are a helpful assistant running on the user's machine.|Be polite.|You are a teacher.|You are an assistant for DwarfStar.
|Always answer in English.|You are a calm and careful assistant. Do not invent facts."""
SYSTEMS = [s.strip() for s in SYSTEMS.replace("\n", " ").split("|")]

HERE = os.path.dirname(os.path.abspath(__file__))

# "short": mostly below 1024 tokens. "long": up to LONGEST. "focus": more of what is weak. "work" and "work_long":
# the same once more, with strange words, and tools, stories and texts that are composed.
STAGE = "short"
LONGEST = 16384
# Shares of the conversations.
MIXTURE = {
    "short": {"help": 26, "arithmetic": 12, "tools": 18, "needle": 16, "json": 9, "memory": 8, "unknown": 5, "identity": 2, "chat": 2, "copy": 2},
    "long": {"help": 12, "arithmetic": 6, "tools": 12, "needle": 50, "json": 5, "memory": 9, "unknown": 3, "identity": 1, "chat": 1, "copy": 1},
    "focus": {"help": 20, "arithmetic": 18, "tools": 22, "needle": 18, "json": 9, "memory": 7, "unknown": 4, "identity": 1, "chat": 1},
    "work": {"help": 28, "arithmetic": 26, "tools": 18, "needle": 14, "json": 11, "memory": 6, "unknown": 5, "identity": 2, "chat": 1, "copy": 4},
    "work_long": {"help": 12, "arithmetic": 6, "tools": 12, "needle": 45, "json": 6, "memory": 9, "unknown": 3, "identity": 1, "chat": 1, "copy": 4},
}


def enter(stage, pieces):
    """Sets up the generators for a stage; `pieces` are parts of the vocabulary in letters."""
    global STAGE
    STAGE = stage
    late = stage.startswith("work")
    phrasing.STRANGE, phrasing.PIECES = (0.7 if late else 0.0), pieces
    arithmetic.COMPOSED, arithmetic.SHARES = (0.6, (0.3, 0.65)) if late else (0.0, (0.5, 0.75))
    tools.COMPOSED, tools.ROUNDS = (0.4, [1, 2, 2, 3, 3, 4, 5]) if late else (0.0, [1, 1, 2, 2, 3, 4])
    extraction.COMPOSED = needle.COMPOSED = 0.4 if late else 0.0


def any_turn(rng):
    """One question of any kind that needs no text before it."""
    roll = rng.random()
    if roll < 0.42:
        return topic_turn(rng)
    if roll < 0.5:
        return explain_turn(rng)
    if roll < 0.75:
        return arithmetic_turn(rng)
    if roll < 0.88:
        return unknown_turn(rng)
    if roll < 0.94:
        return identity_turn(rng)
    return small_talk_turn(rng)


def plain_exchange(rng):
    """A question that needs no tool, and what its answer matches."""
    exchange = any_turn(rng)
    if exchange.check.get("kind") == "number":
        pattern = rf"\b{exchange.check['value']}\b"
    else:
        pattern = exchange.check.get("pattern") or (exchange.check.get("patterns") or ["."])[0]
    return exchange, pattern


def system_text(rng):
    roll = rng.random()
    return "" if roll < 0.45 else "You are a helpful assistant" if roll < 0.75 else rng.choice(SYSTEMS)


def joined(exchanges, mode):
    return [message for exchange in exchanges for message in exchange.messages(mode)]


def needle_size(rng):
    """(tokens of the text, questions) by stage."""
    if STAGE in ("long", "work_long"):
        roll = rng.random()
        if roll < 0.25:
            tokens = rng.randint(100, 1500)
        elif roll < 0.4:
            tokens = rng.randint(LONGEST // 2, int(LONGEST * 0.91))
        else:
            tokens = int(1500 * (LONGEST * 0.9 / 1500) ** rng.random())
        return tokens, rng.randint(4, 12)
    if STAGE == "focus":
        tokens = int(100 * 80 ** rng.random())
        return tokens, rng.randint(3, 10)
    if STAGE == "work":
        return int(60 * 60 ** rng.random()), rng.randint(3, 10)
    return int(40 * 22 ** rng.random()), rng.choice([1, 1, 2, 3, 4, 6])


def build(rng, kind, mode):
    """-> (messages, tools, response format, check of the last answer)."""
    if kind == "tools":
        messages, functions, check = tools_talk(rng, mode, plain_exchange)
        return messages, functions, None, check
    if kind == "needle":
        tokens, questions = needle_size(rng)
        messages, check = needle_talk(rng, mode, tokens, questions, interlude=any_turn)
        return messages, [], None, check
    if kind == "json":
        question, answer, check, form, system = extraction_turn(rng)
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": "user", "content": question}, {"role": "assistant", "reasoning": "I take the values from the text.", "content": answer}]
        while form is None and not system and rng.random() < (0.5 if STAGE == "work" else 0.3):
            question, answer, other, again, instruction = extraction_turn(rng)
            if again is None and not instruction:
                check = other
                messages += [{"role": "user", "content": question}, {"role": "assistant", "reasoning": "I take the values from the text.", "content": answer}]
        return messages, [], form, check
    if kind == "memory":
        if rng.random() < 0.3:
            exchanges = [Fact(rng).tell_and_ask(rng) if rng.random() < 0.85 else Fact(rng).not_told(rng)]
        else:
            exchanges = memory_talk(rng, any_turn, rng.randint(16, 60) if STAGE in ("long", "work_long") and rng.random() < 0.6 else None)
    else:
        one = {"arithmetic": arithmetic_turn, "unknown": unknown_turn, "identity": identity_turn, "chat": any_turn, "copy": copy_turn,
               "help": lambda rng: topic_turn(rng) if rng.random() < 0.85 else explain_turn(rng)}[kind]
        exchanges = [one(rng)]
        # Short conversations of several questions cost less than as many of one.
        while rng.random() < 0.35:
            exchanges.append(one(rng) if rng.random() < 0.6 else any_turn(rng))
    return joined(exchanges, mode), [], None, exchanges[-1].check


def conversation(rng, kind=None, mode=None):
    if kind is None:
        mixture = MIXTURE[STAGE]
        kind = rng.choices(list(mixture), list(mixture.values()))[0]
    mode = mode or rng.choices(["high", "off", "max"], [0.5, 0.45, 0.05])[0]
    messages, functions, form, check = build(rng, kind, mode)
    system = system_text(rng)
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return {"kind": kind, "mode": mode, "drop": rng.random() < 0.7, "messages": messages, "tools": functions, "response_format": form, "check": check}


def normal(text):
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def held_out():
    """The hand-written questions: of the chat, and of the workshop, the server and the rest."""
    out = []
    for name in ("heldout.jsonl", "heldout_workshop.jsonl"):
        with open(os.path.join(HERE, name), encoding="utf-8") as file:
            out += map(json.loads, file)
    return out


# Categories of cases that are one question each, right or wrong whatever was said before.
QUESTIONS = ("help", "unknown", "identity")


def excluded_questions():
    """The hand-written questions, and those of the evaluation cases."""
    out = {normal(item["question"]) for item in held_out()}
    path = os.path.join(HERE, "nano_cases.jsonl.gz")
    if os.path.exists(path):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for item in map(json.loads, file):
                if item["category"] in QUESTIONS:
                    out.add(normal(item["messages"][-1]["content"]))
    return out


def generate(seed, count, excluded):
    """`count` conversations without any held-out question, from one seed."""
    rng = random.Random(str(seed))
    out = []
    while len(out) < count:
        talk = conversation(rng)
        if not any(m["role"] == "user" and len(m["content"]) < 200 and normal(m["content"]) in excluded for m in talk["messages"]):
            out.append(talk)
    return out


if __name__ == "__main__":
    enter(sys.argv[3] if len(sys.argv) > 3 else STAGE, [])
    for item in generate(sys.argv[1] if len(sys.argv) > 1 else "0", int(sys.argv[2]) if len(sys.argv) > 2 else 30, excluded_questions()):
        print(prompt_text(item), "\n")
