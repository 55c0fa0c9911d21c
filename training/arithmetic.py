"""Sums: easy ones at once, longer ones with their working written out.

The working of a chain says after a step what is left of it, so that no step needs more than what stands just before.
"""

import re

import lexicon as lex
from encoding import mark
from exchange import Exchange
from phrasing import choose, expand, fill, pseudo_word, say, vary
import phrasing
import stories

PLUS = ["what is {a} + {b}\\?", "{a} + {b}(\\?| =| = \\?|)", "{a}+{b}(\\?|=|=\\?|)", "what is {a} plus {b}\\?", "{a} plus {b}(\\?|)",
        "add {a} and {b}", "add {b} to {a}", "(compute|calculate|solve|work out|evaluate|find) {a} + {b}", "what('s| is) {a}+{b}\\?",
        "(what is|what's|give me|find|compute|calculate) the sum of {a} and {b}(\\?|)", "how much is {a} + {b}\\?",
        "how much (is|are|makes) {a} (plus|and) {b}\\?", "(can|could) you (add|sum) {a} and {b}\\?", "{a} and {b} (together|added)(\\?| is\\?| make\\?)",
        "(tell me|please tell me|I need|do you know) {a} (plus|\\+) {b}", "what (do I get|do you get|is the result|comes out) (if I|if you|when you|when I) add {a} and {b}\\?",
        "sum {a} and {b}", "{a} plus {b} (is|makes|equals)(\\?|)"]
MINUS = ["what is {a} - {b}\\?", "{a} - {b}(\\?| =| = \\?|)", "{a}-{b}(\\?|=|=\\?|)", "what is {a} minus {b}\\?", "{a} minus {b}(\\?|)",
         "subtract {b} from {a}", "take {b} (away |)from {a}", "(compute|calculate|solve|work out|evaluate|find) {a} (-|minus) {b}",
         "(what is|what's|find|give me|compute) the difference (between|of) {a} and {b}(\\?|)", "how much is {a} (-|minus) {b}\\?",
         "what('s| is) left (if I|when you) take {b} from {a}\\?", "(tell me|I need|do you know) {a} (minus|-) {b}", "{a} less {b}(\\?|)",
         "what (do I get|do you get) (if I|if you) subtract {b} from {a}\\?", "what('s| is) {a}-{b}\\?", "{a} minus {b} (is|makes|equals)(\\?|)"]
TIMES = ["what is {a} (\\*|x|times|×) {b}\\?", "{a} (\\*|x|times|×) {b}(\\?| =|)", "{a}(\\*|x|×){b}(\\?|=|)", "multiply {a} (by|with|and) {b}", "how much is {a} (times|\\*|x) {b}\\?",
         "(compute|calculate|solve|work out|evaluate|find) {a} (times|\\*|x) {b}", "(what is|what's|find|give me) the product of {a} and {b}(\\?|)",
         "what('s| is) {a}(\\*|x){b}\\?", "(tell me|I need|do you know) {a} (times|\\*) {b}", "what (do I get|do you get) (if I|if you|when I) multiply {a} (by|with|and) {b}\\?",
         "{a} times {b} (is|makes|equals)(\\?|)", "(can|could) you multiply {a} (by|and) {b}\\?"]
DIVIDED = ["what is {a} (/|divided by|÷) {b}\\?", "{a} (/|divided by|÷|:) {b}(\\?| =|)", "divide {a} by {b}", "how much is {a} (/|divided by) {b}\\?", "(compute|calculate|find) {a} / {b}",
           "how many times does {b} (go|fit) into {a}\\?", "(tell me|I need) {a} (divided by|/) {b}", "what (do I get|do you get) (if I|when you) divide {a} by {b}\\?"]
CHAIN = ["what is {e}\\?", "{e}(\\?| =| = \\?|)", "(compute|calculate|solve|work out|evaluate|find) {e}", "how much is {e}\\?", "what('s| is) the (value|result) of {e}\\?",
         "(tell me|give me|I need) (the result of |){e}", "(can|could) you (work out|compute|calculate) {e}( for me|)\\?", "please (compute|evaluate|calculate) {e}", "what does {e} (make|give|come to|equal)\\?",
         "{e} (is|makes|equals)(\\?|)", "(evaluate|simplify) the expression {e}", "do the sum {e}"]
# (story, steps): the steps are formulas over the names; each result is called r1, r2, ...
STORIES = [
    ("{n} has {a} {t}. {He} (buys|gets|finds|receives) {b} more. How many {t} does {n} have( now|)\\?", ["a+b"]),
    ("{n} has {a} {t} and (gives|sells|lends) {c} of them to {m}. How many {t} (are left|does {n} have left|does {n} still have)\\?", ["a-c"]),
    ("(There are|I see|We count) {a} {t} in (one|the first) {x} and {b} {t} in (another|the second) {x}. How many {t} are there (in all|altogether|together|in total)\\?", ["a+b"]),
    ("A {x} holds {k} {t}. How many {t} (are in|do we find in|fit into) {q} (such |){x}s\\?", ["k*q"]),
    ("{n} buys {q} {t} for {k} coins each. How (many coins|much) does {n} pay\\?", ["k*q"]),
    ("{n} has {a} {t}. {He} gets {b} from {m} and then loses {c}. How many {t} (are left|does {n} have now|remain)\\?", ["a+b", "r1-c"]),
    ("{n} has {a} {t}, {m} has {b} more than {n}. How many do they have together\\?", ["a+b", "a+r1"]),
    ("{n} has {q} {x}s with {k} {t} each and {b} loose {t}. How many {t} (is that|are there) (in all|altogether|in total)\\?", ["k*q", "r1+b"]),
    ("{n} buys {q} {t} at {k} coins each and pays with {z} coins. How many coins does {he} get back\\?", ["k*q", "z-r1"]),
    ("A (train|bus|lift) has {a} people in it. At the next stop {c} get out and {b} get in. How many people are in it now\\?", ["a-c", "r1+b"]),
    ("{s} {t} are shared (equally|evenly) (among|between) {q} children. How many does each child get\\?", ["s/q"]),
    ("{n} packs {s} {t} into {x}s of {q}. How many {x}s does {he} need\\?", ["s/q"]),
    ("{n} (reads|writes|walks|cycles) {k} (pages|miles) a day for {q} days and {b} more on the last day. How many is that in all\\?", ["k*q", "r1+b"]),
    ("(On Monday|In the morning) {n} sells {a} {t}, (on Tuesday|at noon) {b}, and (on Wednesday|in the evening) {d}. How many {t} (is that|did {n} sell) (in all|altogether|in total)\\?", ["a+b", "r1+d"]),
    ("{n} is {a} years old. {m} is {b} years older. How old is {m}\\?", ["a+b"]),
    ("{n} had {a} {t}, ate {c} and bought {q} {x}s of {k}. How many {t} are there now\\?", ["a-c", "k*q", "r1+r2"]),
    ("The {x} weighs {a} kilos, the {t} in it weigh {b} kilos. How much do they weigh together\\?", ["a+b"]),
    ("{n} needs {z} coins and has {a}. How many coins (are missing|does {n} still need)\\?", ["z-a"]),
]
OBJECTS = """apples pears marbles stamps books coins eggs cards pencils shells stones buttons beads cookies nuts plums tickets
photos bolts nails cups plates toys keys ribbons candles""".split()
BOXES = ["box", "bag", "basket", "crate", "tray", "jar", "case", "drawer", "bucket", "shelf"]


def add_reasoning(a, b):
    """Column addition from the right, written out."""
    steps, carry, x, y = [], 0, a, b
    while x or y or not steps:
        p, q = x % 10, y % 10
        total = p + q + carry
        step = f"{p} + {q}" + (f" + {carry}" if carry else "") + f" = {total}"
        steps.append(step)
        carry, x, y = total // 10, x // 10, y // 10
    return f"{a} + {b}: " + ", ".join(steps) + f", so {a + b}."


def subtract_reasoning(a, b):
    """Column subtraction from the right, written out; a >= b."""
    steps, borrow, x, y = [], 0, a, b
    while x or y or not steps:
        p, q = x % 10, y % 10 + borrow
        borrow = int(p < q)
        steps.append(f"{p + 10 * borrow} - {q} = {p + 10 * borrow - q}")
        x, y = x // 10, y // 10
    return f"{a} - {b}: " + ", ".join(steps) + f", so {a - b}."


def shown(a, operator, b):
    """The result of one operation, and its working: none where it is easy."""
    if operator == "+":
        easy = min(a, b) <= 10 and max(a, b) < 100 or a + b <= 20
        return a + b, "" if easy else add_reasoning(a, b)
    if operator == "-":
        easy = a <= 20 or b <= 10 and a < 100
        return a - b, "" if easy else subtract_reasoning(a, b)
    if operator == "/":
        return a // b, ""
    if min(a, b) <= 1 or max(a, b) <= 12:
        return a * b, ""
    if min(a, b) > 10 and min(a, b) % 10:
        big, small = max(a, b), min(a, b)
        tens, ones = small // 10 * 10, small % 10
        first, work = shown(big, "*", small // 10)
        second, other = shown(big, "*", ones)
        _, last = shown(first * 10, "+", second)
        steps = [work or f"{big} * {small // 10} = {first}.", f"{big} * {tens} = {first * 10}.", other or f"{big} * {ones} = {second}.",
                 last or f"{first * 10} + {second} = {first * 10 + second}."]
        return a * b, " ".join(steps) + f" So {a} * {b} = {a * b}."
    if min(a, b) > 10:  # a round number
        big, small = max(a, b), min(a, b)
        first, work = shown(big, "*", small // 10)
        return a * b, f"{work or f'{big} * {small // 10} = {first}.'} So {a} * {b} = {a * b}."
    big, small = max(a, b), min(a, b)
    parts = [int(d) * 10**i for i, d in reversed(list(enumerate(reversed(str(big))))) if d != "0"]
    products = [p * small for p in parts]
    if len(parts) == 1:
        return a * b, f"{big} * {small} = {products[0]}."
    steps, total = [f"{p} * {small} = {r}" for p, r in zip(parts, products)], products[0]
    for product in products[1:]:
        steps.append(f"{total} + {product} = {total + product}")
        total += product
    return a * b, f"{a} * {b}: " + ", ".join(steps) + f", so {a * b}."


def step(a, operator, b):
    value, work = shown(a, operator, b)
    return value, work or f"{a} {operator} {b} = {value}."


def finish(question, reasoning, answer, value, limit, rng):
    return Exchange(vary(rng, question, True), reasoning, answer, {"kind": "number", "value": value},
                    f"{reasoning} {answer}" if reasoning else "", limit)


# Part of the stories that are composed, and half of it of the other questions, in training.
COMPOSED = 0.0
# Up to which parts of all come simple sums, chains.
SHARES = (0.5, 0.75)


def asked(rng, phrasings, expression, **values):
    if COMPOSED and phrasing.SPLIT == "train" and rng.random() < COMPOSED / 2:
        return stories.ask(rng, expression)
    return say(rng, phrasings, **values)


def number(rng):
    roll = rng.random()
    return rng.randint(0, 20) if roll < 0.25 else rng.randint(0, 99) if roll < 0.6 else rng.randint(100, 999) if roll < 0.92 else rng.randint(1000, 9999)


def simple_sum(rng):
    kind = rng.random()
    if kind < 0.38:
        a, operator, b, asks = number(rng), "+", number(rng), PLUS
    elif kind < 0.7:
        (b, a), operator, asks = sorted([number(rng), number(rng)]), "-", MINUS
    elif kind < 0.78:
        b, q = rng.randint(2, 12), rng.randint(1, 12)
        a, operator, asks = b * q, "/", DIVIDED
    else:
        a, operator, b, asks = rng.randint(0, 12), "*", rng.randint(0, 12), TIMES
        roll = rng.random()
        if roll < 0.35:
            a, b = rng.randint(11, 999 if roll < 0.1 else 99), rng.randint(2, 9)
        elif roll < 0.5:
            a, b = rng.randint(11, 99), rng.randint(11, 99)
    value, work = shown(a, operator, b)
    text = asked(rng, asks, f"{a} {operator} {b}", a=a, b=b)
    return finish(text, work, f"{a} {operator} {b} = {mark(value)}.", value, 0 if work else 24, rng)


def chain(rng):
    """Three to five terms with precedence, or a pair in brackets; all steps stay at zero or above."""
    while True:
        count = rng.choice([3, 3, 3, 4, 4, 5])
        terms = [rng.randint(1, 20) if rng.random() < 0.5 else rng.randint(10, 99) for _ in range(count)]
        operators = [rng.choice("++-*") for _ in range(count - 1)]
        for i, operator in enumerate(operators):
            if operator == "*":
                terms[i], terms[i + 1] = (terms[i] if i and operators[i - 1] == "*" else rng.randint(2, 12)), rng.randint(2, 9)
        bracket = rng.randrange(count - 1) if rng.random() < 0.25 else None
        if operators.count("*") > 2:
            continue
        expression = " ".join(
            x for i, t in enumerate(terms) for x in ([("(" if i == bracket else "") + str(t) + (")" if bracket is not None and i == bracket + 1 else "")] + operators[i : i + 1])
        )
        steps, values, signs = [], list(terms), list(operators)

        def reduce(i):
            if signs[i] == "-" and values[i] < values[i + 1]:
                return False
            values[i], work = step(values[i], signs[i], values[i + 1])
            steps.append(work)
            del values[i + 1], signs[i]
            if len(signs) > 1 and phrasing.SPLIT == "train":  # the cases keep their texts
                left = " ".join(str(x) for pair in zip(values, [*signs, ""]) for x in pair)
                steps.append(f"Now {left.rstrip()}.")
            return values[i] < 5000

        fine = bracket is None or reduce(bracket)
        while fine and "*" in signs:
            fine = reduce(signs.index("*"))
        while fine and signs:
            fine = reduce(0)
        if fine:
            break
    text = asked(rng, CHAIN, expression, e=expression)
    return finish(text, " ".join(steps), f"{expression} = {mark(values[0])}.", values[0], 0, rng)


def worked(formulas, names):
    """-> (steps with their working, result), or None where a number would fall below zero."""
    steps, names = [], dict(names)
    for i, formula in enumerate(formulas):
        left, operator, right = re.match(r"(\w+)(.)(\w+)", formula).groups()
        a, b = names[left], names[right]
        if operator == "-" and a < b:
            return None
        names[f"r{i + 1}"], work = step(a, operator, b)
        steps.append(work)
    return steps, names[f"r{len(formulas)}"]


def composed_story(rng):
    while True:
        text, formulas, names = stories.composed(rng)
        found = worked(formulas, names)
        if found:
            return finish(text, " ".join(found[0]), f"The answer is {mark(found[1])}.", found[1], 0, rng)


def story(rng):
    if COMPOSED and phrasing.SPLIT == "train" and rng.random() < COMPOSED:
        return composed_story(rng)
    text, formulas = choose(rng, STORIES)
    while True:
        q, k = rng.randint(2, 9), rng.randint(2, 12)
        names = {"a": rng.randint(5, 99), "b": rng.randint(2, 60), "d": rng.randint(2, 60), "q": q, "k": k, "s": q * k, "z": rng.randint(60, 200)}
        names["c"] = rng.randint(1, names["a"] - 1)
        found = worked(formulas, names)
        if found:
            break
    steps, value = found
    female = rng.random() < 0.5
    person, other = rng.sample(lex.NAMES, 2)
    if rng.random() < 0.2:
        person = pseudo_word(rng).capitalize()
    box = rng.choice(BOXES)
    text = fill(expand(rng, text), {**names, "n": person, "m": other, "He": "She" if female else "He", "he": "she" if female else "he",
                                    "t": rng.choice(OBJECTS), "x": box})
    text = text.replace("boxs", "boxes").replace("shelfs", "shelves")
    return finish(text, " ".join(steps), f"The answer is {mark(value)}.", value, 0, rng)


def arithmetic_turn(rng):
    roll = rng.random()
    return simple_sum(rng) if roll < SHARES[0] else chain(rng) if roll < SHARES[1] else story(rng)
