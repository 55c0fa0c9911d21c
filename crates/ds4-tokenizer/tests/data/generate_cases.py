"""Writes generated_cases.jsonl.gz: strings and the ids that Hugging Face's tokenizers give them.

Usage: python generate_cases.py  (beside deepseek-v4-tokenizer.json.gz; needs tokenizers==0.23.3)

A line is [kind, text, ids] or, where they differ, [kind, text, ids, ids without added tokens].
The character classes are asked of the same library's regex engine, so that every code point of
every class, and the code points at the edges of the classes, are in some string.
"""

import gzip
import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, pre_tokenizers

HERE = Path(__file__).parent
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
random.seed(20240611)


def members(pattern):
    """The code points that a class contains."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    found = []
    for start in range(0, len(CODE_POINTS), 4096):
        block = CODE_POINTS[start : start + 4096]
        kept = set()
        for _, (low, high) in split.pre_tokenize_str("".join(map(chr, block))):
            kept.update(range(low, high))
        found += [c for index, c in enumerate(block) if index not in kept]
    return found


def load():
    source = json.loads(gzip.open(HERE / "deepseek-v4-tokenizer.json.gz").read())
    with_added = Tokenizer.from_str(json.dumps(source))
    without = Tokenizer.from_str(json.dumps({**source, "added_tokens": []}))
    return source, with_added, without


def texts_of(vocabulary):
    """The tokens that are whole characters, decoded."""
    byte_of, extra = {}, 0
    for byte in range(256):
        printable = 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255
        byte_of[chr(byte if printable else 256 + extra)] = byte
        extra += not printable
    for token in list(vocabulary)[3:]:
        try:
            yield bytes(byte_of[c] for c in token).decode()
        except UnicodeDecodeError:
            pass


def strings(source):
    letters, marks, numbers, punctuation, symbols, spaces = (
        members(p) for p in (r"\p{L}", r"\p{M}", r"\p{N}", r"\p{P}", r"\p{S}", r"\s")
    )
    added = [token["content"] for token in source["added_tokens"]]
    tokens = list(texts_of(source["model"]["vocab"]))
    class_of = {c: "L" for c in letters} | {c: "M" for c in marks} | {c: "N" for c in numbers}
    class_of |= {c: "P" for c in punctuation + symbols} | {c: "W" for c in spaces}
    other = [c for c in CODE_POINTS if c not in class_of]
    control = [c for c in [*range(0x20), *range(0x7F, 0xA0), 0xAD, *range(0x200B, 0x200E), 0x2060,
                           0xFEFF, 0xFFFE, 0xFFFF, 0xE000, 0x10FFFF, 0x378] if c in other or c == 0xAD]
    cjk, kana = range(0x4E00, 0x9FA6), range(0x3040, 0x3100)
    edges = [0x4DFF, 0x4E00, 0x9FA5, 0x9FA6, 0x303F, 0x3040, 0x30FF, 0x3100, 0x3400, 0x20000]
    emoji = ["👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "1️⃣", "🤷🏻‍♂️", "e\u0301", "ñ", "n\u0303", "ก็", "한국어", "각",
             "नमस्ते", "العربية", "שָׁלוֹם", "\r\n", "\n\n", "\t", "  ", "   ", "don't", "I'LL", "x'y"]
    code = ["def f(x):\n    return x**2\n", "#include <stdio.h>\n", '{"a": [1, 2.5e-3], "b": null}',
            '</div>\n<p class="x">', 'fn main() {\n\tprintln!("{}", 0x1F);\n}', "```rust\n", "\\r\\n",
            "SELECT * FROM t WHERE a<>1;", "http://a.b/c?d=e&f=%20#g", "C:\\path\\file", "a->b::c()",
            "$x += @y;", "// ---- ", "/* é */", "==>", "!=", "...", "#!/bin/sh\n"]
    pools = [(22, letters), (8, marks), (8, numbers), (7, punctuation), (7, symbols), (8, spaces),
             (3, other), (3, control), (6, cjk), (5, kana), (1, edges), (12, range(0x20, 0x7F)),
             (10, [ord(c) for c in " \n\r09a."])]

    def character():
        (pool,) = random.choices([pool for _, pool in pools], [weight for weight, _ in pools])
        return chr(random.choice(pool))

    def repeat(low, high, make):
        return "".join(make() for _ in range(random.randint(low, high)))

    def around_added():
        kind, token = random.random(), random.choice(added)
        if kind < 0.4:
            return token
        if kind < 0.5:
            return token[: random.randint(1, len(token))]
        if kind < 0.6:
            return token[random.randint(0, len(token) - 1) :]
        if kind < 0.7:
            return random.choice(["<", "｜", "|", "▁", "</", ">", " ", "\n", "<<", "｜｜"])
        return repeat(1, 4, character)

    # Every code point with a class, but for the inside of the large uniform blocks.
    uniform = [(0x3401, 0x9FFE), (0xAC01, 0xD7A3), (0x17001, 0x18CFF), (0x20001, 0x323FF)]
    swept = [c for c in class_of if not any(low <= c <= high for low, high in uniform)]
    for start in range(0, len(swept), 64):
        block = list(map(chr, swept[start : start + 64]))
        yield "sweep", "".join(f"a{c}b" for c in block)
        yield "sweep", "".join(f" {c}{c}." for c in block)
        yield "sweep", "".join(f"1{c}\n" for c in block)
    for start in range(0, len(CODE_POINTS), 4096):
        yield "sweep", "".join(f" {chr(c)}é!" for c in CODE_POINTS[start : start + 4096 : 29])
    pairs = zip(CODE_POINTS, CODE_POINTS[1:])
    edge_pairs = [chr(c) for a, b in pairs if class_of.get(a) != class_of.get(b) for c in (a, b)]
    for start in range(0, len(edge_pairs), 60):
        yield "edge", "".join(f"x{c} {c}y" for c in edge_pairs[start : start + 60])

    mixed_spaces = [" ", " ", " ", "\n", "\r", "\t", "\r\n", "\u3000", "\xa0", "\x85", "\u2028",
                    "\x0b", "a", ".", "1", "中"]
    for _ in range(5000):
        yield "classes", repeat(1, 24, character)
    for _ in range(1200):
        yield "spaces", repeat(1, 16, lambda: random.choice(mixed_spaces))
    for _ in range(1500):
        yield "added", repeat(1, 8, around_added)
    for _ in range(1500):
        yield "vocabulary", repeat(1, 10, lambda: random.choice(tokens))
    for _ in range(800):
        yield "code", repeat(1, 6, lambda: random.choice(code + emoji))
    for _ in range(600):
        pool = emoji + ["\u200d", "\ufe0f"]
        yield "emoji", repeat(1, 10, lambda: random.choice([*pool, chr(random.choice(symbols))]))
    for _ in range(600):
        yield "case", repeat(1, 30, lambda: random.choice("aAbBzZ'\"._-() \n09éÉßﬁ"))
    for _ in range(300):
        piece = random.choice([character(), random.choice(emoji), random.choice(tokens)])
        yield "repeated", piece * random.randint(2, 90)
    for _ in range(300):
        yield "digits", repeat(1, 20, lambda: random.choice("0123456789.,- ٣५Ⅻ½²"))


def main():
    source, with_added, without = load()
    lines = []
    for kind, text in strings(source):
        ids = with_added.encode(text, add_special_tokens=False).ids
        plain = without.encode(text, add_special_tokens=False).ids
        row = [kind, text, ids] if ids == plain else [kind, text, ids, plain]
        lines.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    with gzip.GzipFile(HERE / "generated_cases.jsonl.gz", "wb", 9, mtime=0) as file:
        file.write("".join(lines).encode())
    print(len(lines), "cases")


if __name__ == "__main__":
    main()
