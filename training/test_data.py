"""Checks of the generators. usage: python test_data.py TOKENIZER.json [DS4_PROGRAM]

With the program, prompts and ids are compared with what `ds4 render` makes of the same conversations.
"""

import json
import re
import subprocess
import sys

from tokenizers import Tokenizer

import cases
import data
import encoding
import phrasing


def pieces_of(tokenizer_path):
    """Parts of the vocabulary, as `feed` gives them."""
    vocabulary = (token.lstrip("Ġ").lower() for token in Tokenizer.from_file(tokenizer_path).get_vocab())
    return sorted({piece for piece in vocabulary if piece.isascii() and piece.isalpha()})


def check_determinism(pieces, excluded):
    for stage in ("short", "focus", "work"):
        data.enter(stage, pieces)
        first, second = (data.generate("test/1", 60, excluded) for _ in range(2))
        assert first == second, stage
        assert first != data.generate("test/2", 60, excluded)


def check_render(tokenizer_path, program, pieces, excluded):
    """Whole conversations up to each answer, as the program renders them."""
    tokenizer = Tokenizer.from_file(tokenizer_path)
    lines, expected = [], []
    for stage, count in (("short", 250), ("focus", 30), ("work", 250)):
        data.enter(stage, pieces)
        for talk in data.generate("test/render", count, excluded):
            asked = {**talk, "messages": talk["messages"][:-1]}
            expected.append((encoding.prompt_text(asked), data.encode(tokenizer, asked)[0]))
            form = talk["response_format"]
            if form and form["type"] == "json_schema":
                form = {"type": "json_schema", "schema": form["json_schema"]["schema"]}
            lines.append({
                "messages": encoding.api_messages(asked["messages"]), "tools": encoding.api_tools(talk["tools"]), "response_format": form,
                "thinking_mode": "chat" if talk["mode"] == "off" else "thinking", "reasoning_effort": None if talk["mode"] == "off" else talk["mode"],
                "drop_thinking": talk["drop"],
            })
    run = subprocess.run([program, "render", "--tokenizer", tokenizer_path, "--vintage", "april"], input="\n".join(map(json.dumps, lines)), capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(rows) == len(expected), run.stderr
    for row, (text, ids) in zip(rows, expected):
        assert row.get("text") == text, f"text:\n{row}\n{text}"
        assert row["ids"] == ids, f"ids of {text}"
    print(f"render: {len(rows)} prompts equal, {sum(len(ids) for _, ids in expected)} tokens")


def check_lengths(tokenizer_path, pieces, excluded):
    tokenizer = Tokenizer.from_file(tokenizer_path)
    for stage, count, most in (("short", 400, 2500), ("long", 60, data.LONGEST), ("focus", 150, data.LONGEST), ("work", 400, data.LONGEST), ("work_long", 60, data.LONGEST)):
        data.enter(stage, pieces)
        rows = [data.encode(tokenizer, talk) for talk in data.generate("test/length", count, excluded)]
        lengths = sorted(len(ids) for ids, _ in rows)
        assert all(len(ids) == len(flags) for ids, flags in rows)
        assert all(2 in flags or 1 in flags for _, flags in rows)
        assert lengths[-1] <= most, (stage, lengths[-1])
        print(f"{stage}: median {lengths[len(lengths) // 2]}, 90% {lengths[len(lengths) * 9 // 10]}, longest {lengths[-1]} tokens")


def number_of(text):
    return float(re.findall(r"-?\d+(?:\.\d+)?", text)[-1])


def passes(check, message):
    """Whether the generator's own answer is right; a plain reading of what `crates/ds4-eval` does."""
    answer, kind = encoding.plain(message["content"]), check["kind"]
    calls = [{"name": n, "arguments": a} for n, a in message.get("calls", [])]
    if kind in ("regex", "all"):
        return all(re.search(p, answer) for p in check.get("patterns", [check.get("pattern")]))
    if kind == "number":
        return number_of(answer) == check["value"]
    if kind == "contains":
        return check["text"].lower() in answer.lower()
    if kind == "json":
        return json.loads(answer) == check["value"]
    if kind == "tool_calls":
        return sorted(map(encoding.dump, calls)) == sorted(map(encoding.dump, check["calls"]))
    return kind == "no_tool_call" and not calls and re.search(check.get("pattern", ""), answer) is not None


def check_answers(pieces, excluded):
    for stage in ("work", "short"):
        data.enter(stage, pieces)
        wrong = [t for t in data.generate("test/answers", 1500, excluded) if t["check"] and not passes(t["check"], t["messages"][-1])]
        assert not wrong, [(t["check"], t["messages"][-1]) for t in wrong[:3]]
    made = list(cases.all_cases(20261126))
    for case, answer in made:
        assert answer is None or passes(case["check"], answer), (case["check"], answer)
    print(f"answers: 3000 conversations and {sum(a is not None for _, a in made)} cases pass their own checks")
    return made


def asked(messages):
    """All that the user says."""
    return data.normal("\n".join(encoding.plain(m["content"]) for m in messages if m["role"] == "user"))


def check_disjoint(made, pieces, excluded):
    """No case is in training; for sums, which are few, the phrasing differs instead."""
    seen = set()
    for stage in ("work", "short"):
        data.enter(stage, pieces)
        seen |= {asked(t["messages"]) for t in data.generate("test/disjoint", 6000, excluded)}
    both = [case["id"] for case, _ in made if case["category"] != "arithmetic" and asked(case["messages"]) in seen]
    assert not both, both
    assert phrasing.SPLIT == "train"
    print("disjoint: no case is among 12000 conversations of the training")


def main():
    tokenizer_path, program = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    excluded, pieces = data.excluded_questions(), pieces_of(tokenizer_path)
    check_determinism(pieces, excluded)
    made = check_answers(pieces, excluded)
    check_disjoint(made, pieces, excluded)
    check_lengths(tokenizer_path, pieces, excluded)
    if program:
        check_render(tokenizer_path, program, pieces, excluded)


if __name__ == "__main__":
    main()
