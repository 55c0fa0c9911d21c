"""The evaluation cases of nano, as JSON lines for `ds4 eval nano`.

usage: python cases.py --seed 20261126 --out nano_cases.jsonl.gz

Cases are drawn from seeds that training never uses ("eval/..."), with the phrasings, tools and invented words that
are held out of it, and from the hand-written questions of `heldout.jsonl`.
"""

import argparse
import gzip
import json
import random

import data
import encoding
import needle
import phrasing
from arithmetic import arithmetic_turn, chain, simple_sum, story
from extraction import extraction_turn
from help_desk import KEYS, explain_turn, topic_turn
from memory import Fact, memory_talk
from small_talk import HONEST, identity_turn
from tools import tools_talk
from unknown import unknown_turn

HELP, TOOLS, ARITHMETIC, JSON, MEMORY, UNKNOWN, IDENTITY = 380, 150, 150, 80, 80, 60, 20
NEEDLES = (("needle_512", 520, 60), ("needle_2k", 2100, 60), ("needle_8k", 7900, 40), ("needle_16k", 15000, 20))
# Where the hand-written questions belong.
CATEGORIES = {"arithmetic": "arithmetic", "recall": "memory", "unknown": "unknown", "identity": "identity"}


def case(category, messages, check, mode, most, tools=(), form=None, limit=0):
    """-> (case without id, the answer of the generator)."""
    out = {"category": category, "messages": encoding.api_messages(messages[:-1])}
    if tools:
        out["tools"] = encoding.api_tools(tools)
    if form:
        out["response_format"] = form
    out |= {"thinking": mode, "max_tokens": most, "check": check}
    if limit and mode != "off":
        out["reasoning_max_tokens"] = limit
    return out, messages[-1]


def single(category, exchange, mode, most, before=()):
    messages = [m for e in (*before, exchange) for m in e.messages(mode)]
    return case(category, messages, exchange.check, mode, most, limit=exchange.limit)


def handwritten():
    for index, item in enumerate(data.held_out()):
        category = CATEGORIES.get(item["topic"], "help")
        messages = []
        for question, answer in item.get("history", []):
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        messages.append({"role": "user", "content": item["question"]})
        patterns = item["expect"]
        check = {"kind": "regex", "pattern": patterns[0]} if len(patterns) == 1 else {"kind": "all", "patterns": patterns}
        if category == "arithmetic":
            check = {"kind": "number", "value": int(patterns[0].replace("\\b", ""))}
        elif category == "memory":
            check = {"kind": "contains", "text": patterns[0].replace("\\b", "")}
        elif category == "identity":
            check = {"kind": "regex", "pattern": HONEST}
        elif category == "unknown":
            check = {"kind": "regex", "pattern": "(?i)do not know|don't know"}
        yield {"category": category, "messages": messages, "thinking": ("off", "high")[index % 2], "max_tokens": 300, "check": check}, None


def mode_of(rng):
    return rng.choice(("high", "off"))


def help_cases(rng, count):
    keys = list(KEYS)
    rng.shuffle(keys)
    for i in range(count):
        exchange = explain_turn(rng) if i % 8 == 7 else topic_turn(rng, keys[i % len(keys)])
        yield single("help", exchange, mode_of(rng), 200)


def tool_cases(rng, count):
    for i in range(count):
        mode = mode_of(rng)
        last = ["call", "call", "call", "parallel", "result", "none", "call", "call", "parallel", "chain"][i % 10]
        while True:
            messages, functions, check = tools_talk(rng, mode, data.plain_exchange, last=last)
            if check["kind"] != "all" or check["patterns"]:
                break
        yield case("tools", messages, check, mode, 500, functions)


def arithmetic_cases(rng, count):
    for i in range(count):
        make = (simple_sum, chain, story, arithmetic_turn)[i % 4]
        yield single("arithmetic", make(rng), "off" if i % 5 == 4 else "high", 500)


def needle_cases(rng, category, tokens, count):
    for i in range(count):
        mode = mode_of(rng)
        messages, check = needle.needle_talk(rng, mode, tokens, rng.choice([1, 1, 1, 2]), absent=0.1)
        yield case(category, messages, check, mode, 120)


def json_cases(rng, count):
    for i in range(count):
        mode = mode_of(rng)
        question, answer, check, form, system = extraction_turn(rng)
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield case("json", messages, check, mode, 300, form=form)


def memory_cases(rng, count):
    for i in range(count):
        mode = mode_of(rng)
        exchanges = memory_talk(rng, data.any_turn, rng.randint(3, 14)) if i % 4 else [Fact(rng).tell_and_ask(rng)]
        yield single("memory", exchanges[-1], mode, 120, exchanges[:-1])


def unknown_cases(rng, count):
    for i in range(count):
        yield single("unknown", Fact(rng).not_told(rng) if i % 6 == 5 else unknown_turn(rng), mode_of(rng), 150)


def identity_cases(rng, count):
    for i in range(count):
        yield single("identity", identity_turn(rng), mode_of(rng), 150)


def all_cases(seed):
    """(case, the generator's answer or None) of every category, without two that ask the same."""
    written = list(handwritten())

    def left(category, wanted):
        return wanted - sum(c["category"] == category for c, _ in written)

    def stream(name):
        return random.Random(f"eval/{seed}/{name}")

    phrasing.SPLIT = "eval"
    data.STAGE = "short"
    try:
        made = written + [
            *help_cases(stream("help"), max(60, left("help", HELP))),
            *tool_cases(stream("tools"), TOOLS),
            *arithmetic_cases(stream("arithmetic"), left("arithmetic", ARITHMETIC)),
            *(c for name, tokens, count in NEEDLES for c in needle_cases(stream(name), name, tokens, count)),
            *json_cases(stream("json"), JSON),
            *memory_cases(stream("memory"), left("memory", MEMORY)),
            *unknown_cases(stream("unknown"), left("unknown", UNKNOWN)),
            *identity_cases(stream("identity"), left("identity", IDENTITY)),
        ]
    finally:
        phrasing.SPLIT = "train"
    counts = {}
    for item, answer in sorted(made, key=lambda row: row[0]["category"]):
        counts[item["category"]] = counts.get(item["category"], 0) + 1
        yield {"id": f"{item['category']}/{counts[item['category']]:04}", **item}, answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item, _ in all_cases(args.seed))
    raw = text.encode()
    with open(args.out, "wb") as file:
        # No time and no name, so that the same cases give the same bytes.
        file.write(gzip.compress(raw, 9, mtime=0) if args.out.endswith(".gz") else raw)
    print(f"{text.count(chr(10))} cases, {len(raw)} bytes")


if __name__ == "__main__":
    main()
