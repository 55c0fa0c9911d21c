"""Other words for what a conversation copies: names, keys and values become strings that nobody knows.

A small model would rather learn a generator's words than learn to copy; what is new every time can only
be copied.
"""

import re

from encoding import MARK, UNMARK
from phrasing import held

WORD = re.compile(r"[A-Za-z]{3,}")
# Words of JSON schemas and of what the program itself reads.
KEPT = set("""true false null string number integer boolean array object required enum type properties description
parameters items name arguments user assistant system tool
json schema function answer the and for with from that this what who does did not say know have has told you your are was its text model""".split())
KINDS = {"needle", "memory", "json", "tools", "copy"}


def strings(value):
    """All strings in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from strings(inner)


def mapped(value, change):
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(inner, change) for inner in value)
    return value


def new_word(rng, pieces):
    """A word that training may use."""
    while True:
        word = any_word(rng, pieces).lower()
        if not held(word):
            return word


def any_word(rng, pieces):
    """Letters, syllables, or `pieces` of the vocabulary put together."""
    roll = rng.random()
    if roll < 0.2:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9)))
    if roll < 0.45:
        return "".join(rng.choice("bcdfghjklmnpqrstvwxyz") + rng.choice("aeiouy") + rng.choice(["", "", "n", "r", "s", "lt"]) for _ in range(rng.randint(2, 4)))
    return "".join(rng.choice(pieces) for _ in range(rng.randint(1, 3)))


def rename(rng, talk, pieces):
    """The talk with most of the words that its answers copy replaced, each by the same word everywhere."""
    if talk["kind"] not in KINDS:
        return talk
    given, copied = set(), set()
    for message in talk["messages"]:
        if message["role"] == "assistant":
            for part in message["content"].split(MARK)[1:]:
                copied.update(word.lower() for word in WORD.findall(part.partition(UNMARK)[0]))
            for call in message.get("calls") or ():
                copied.update(word.lower() for text in strings(call) for word in WORD.findall(text))
        else:
            given.update(word.lower() for word in WORD.findall(message["content"]))
    words = sorted((copied & given) - KEPT)
    table = {word: new_word(rng, pieces) for word in words if rng.random() < 0.75}
    if not table:
        return talk

    def one(match):
        word = match[0]
        other = table.get(word.lower())
        if other is None:
            return word
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other

    def change(text):
        return WORD.sub(one, text)

    messages = []
    for message in talk["messages"]:
        message = dict(message)
        for key in ("content", "reasoning"):
            if key in message:
                message[key] = change(message[key])
        if message.get("calls"):
            message["calls"] = [(change(name), mapped(arguments, change)) for name, arguments in message["calls"]]
        messages.append(message)
    return {**talk, "messages": messages, "tools": mapped(talk["tools"], change), "response_format": mapped(talk["response_format"], change)}
