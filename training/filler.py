"""Cheap, varied text that says nothing: what needles lie in."""

import lexicon as lex
from phrasing import pseudo_word
from values import ADJECTIVES, NOUNS, ROOMS, VERBS, time

PLACES = ["in the garden", "on the table", "near the river", "behind the house", "at the station", "in the old town", "under the bridge", "on the hill", "by the window", "at the market", "in the north", "next door"]
WHEN = ["today", "yesterday", "in the morning", "at night", "last week", "in winter", "every day", "after lunch", "before dinner", "for an hour", "all day", "once a month", "on Monday", "in May"]
PAST = """saw found carried painted sold opened closed moved cleaned counted wrote read tested built repaired sent bought washed
ordered weighed packed printed signed filed measured liked missed watched kept drew forgot described""".split()
HOW = ["slowly", "quickly", "with care", "again", "without a word", "at once", "in silence", "together", "alone", "with a smile", "by hand", "as always"]
LEVELS = ["INFO", "INFO", "INFO", "DEBUG", "WARN"]


def plain_sentence(rng):
    roll = rng.random()
    if roll < 0.3:
        return f"{rng.choice(lex.NAMES)} {rng.choice(PAST)} the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {rng.choice(PLACES)}."
    if roll < 0.5:
        return f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {rng.choice(PLACES)} was {rng.choice(ADJECTIVES)} {rng.choice(WHEN)}."
    if roll < 0.65:
        return f"They {rng.choice(PAST)} a {rng.choice(NOUNS)} and a {rng.choice(lex.WORDS)} {rng.choice(WHEN)}."
    if roll < 0.8:
        return f"{rng.choice(WHEN).capitalize()} the {rng.choice(lex.JOBS)} {rng.choice(PAST)} the {rng.choice(lex.WORDS)} {rng.choice(HOW)}."
    if roll < 0.9:
        return f"A {rng.choice(lex.JOBS)} and a {rng.choice(lex.JOBS)} {rng.choice(PAST)} the {rng.choice(NOUNS)} of {rng.choice(lex.NAMES)}."
    return f"The {rng.choice(NOUNS)} was {rng.choice(ADJECTIVES)}, the {rng.choice(lex.WORDS)} {rng.choice(ADJECTIVES)}."


def log_line(rng):
    return f"{time(rng)} {rng.choice(LEVELS)} {rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.choice(['done', 'started', 'ok', 'waiting', 'finished', 'skipped'])}"


def list_line(rng):
    return f"- {rng.choice(VERBS)} the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def code_line(rng):
    a, b = rng.choice(lex.WORDS), rng.choice(lex.WORDS)
    return rng.choice([f"let {a} = {b} + 1;", f"if {a} > {b} {{", "}", f"    {a}.{rng.choice(VERBS)}({b});", f"fn {rng.choice(VERBS)}_{a}() {{", f"// {rng.choice(VERBS)} the {b}", f"return {a};"])


def room_line(rng):
    return f"The {rng.choice(ROOMS)} has a {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} and {rng.choice(['two', 'three', 'four', 'five', 'no'])} {rng.choice(NOUNS)}s."


def odd_sentence(rng):
    return f"{pseudo_word(rng).capitalize()} {rng.choice(PAST)} the {pseudo_word(rng)} {rng.choice(PLACES)}."


# (a line, what joins lines, about how many tokens it has)
STYLES = [
    (plain_sentence, " ", 11), (plain_sentence, " ", 11), (plain_sentence, "\n", 12), (log_line, "\n", 10), (list_line, "\n", 7), (code_line, "\n", 8), (room_line, " ", 11),
    (odd_sentence, " ", 14),
]


def lines(rng, tokens):
    """-> (lines of about so many tokens in all, joint)."""
    line, joint, cost = rng.choice(STYLES)
    fresh = min(tokens // cost + 1, 60)
    pool = [line(rng) for _ in range(fresh)]
    out = []
    for _ in range(tokens // cost):
        # New lines mostly; some again, as in real text.
        out.append(line(rng) if rng.random() < 0.8 else rng.choice(pool))
    return out, joint
