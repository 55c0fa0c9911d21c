"""Questions about using DwarfStar, and what a command or option does."""

import re

import lexicon as lex
import topics
import topics_files
import topics_server
from encoding import mark
from exchange import Exchange
from phrasing import CLOSERS, FRAMES, choose, escaped, expand, gerund, pseudo_word, vary

EXPLAIN_ASK = topics.EXPLAIN_ASK
EXPLAIN = {**topics.EXPLAIN, **topics_files.EXPLAIN, **topics_server.EXPLAIN}
TOPICS = {**topics.TOPICS, **topics_files.TOPICS, **topics_server.TOPICS}

# Words inside backticks that only stand for a value.
_PLACEHOLDER = re.compile(r"<\w+>|\b[A-Z][A-Z_]{0,9}\b(?!=)")


def commands(answer):
    """The commands and options in backticks, without what stands for a value."""
    found = []
    for text in re.findall(r"`([^`]+)`", answer):
        flag = re.search(r"(?<![\w-])(--?[a-z][\w-]*|/[a-z][\w-]*)", text)
        command = re.match(r"ds4 [a-z]+", text)
        text = command[0] if command else flag[1] if flag and text.startswith(("ds4 -", "-", "/")) else _PLACEHOLDER.sub("", text)
        found.append(" ".join(text.split()))
    return [f for f in dict.fromkeys(found) if f]


def pattern(text):
    """A regular expression that finds a command as a whole."""
    return escaped(text).replace(" ", r"\s+") + (r"\b" if text[-1].isalnum() else "")


def expected(topic, values):
    """What an answer must hold: the topic's own pattern or one of its commands, and the values given."""
    first = topic.get("expect") or "|".join(pattern(c) for c in commands(topic["answer"])) or "."
    return {"kind": "all", "patterns": [first] + [escaped(v) for v in values]} if values else {"kind": "regex", "pattern": first}


def topic_turn(rng, key=None):
    key = key or rng.choice(KEYS)
    topic = TOPICS[key]
    if topic["do"] and (rng.random() < 0.68 or not topic["ask"]):
        v = expand(rng, choose(rng, topic["do"]))
        text = expand(rng, choose(rng, FRAMES)).replace("{v}", v).replace("{g}", gerund(v))
    else:
        text = expand(rng, choose(rng, topic["ask"]))
    answer, keep, drawn = topic["answer"], set(), []
    for name, draw in VALUES.items():
        if name in text:
            shown = draw(rng, topic)
            text = text.replace(name, shown)
            keep.add(shown)
            if name in answer:
                answer = answer.replace(name, mark(shown))
                drawn.append(shown)
        answer = answer.replace(name, name[1:-1])
    # The command decides.
    answer = re.sub(r"`([^`]+)`", lambda m: m[0] if "\x01" in m[1] else f"`{mark(m[1])}`", answer)
    return Exchange(vary(rng, text, bool(keep), keep, CLOSERS), f"The user wants to {topic['gist']}.", answer, expected(topic, drawn))


VALUES = {
    "<N>": lambda rng, topic: rng.choice(topic["number"]) if rng.random() < 0.5 or "." in topic["number"][0] else str(rng.randint(1, 999)),
    "<NAME>": lambda rng, _: rng.choice(lex.SESSION_NAMES) if rng.random() < 0.5 else pseudo_word(rng),
    "<FILE>": lambda rng, topic: rng.choice(lex.MODEL_FILES if topic.get("file") else lex.FILES) if rng.random() < 0.6 else pseudo_word(rng) + (".gguf" if topic.get("file") else rng.choice([".txt", ".md", ".json"])),
}
KEYS = [key for key in TOPICS if key != "identity"]
_STOP = set("the a an of to is in on that with for and it as n name file text or one from by not no".split())


def explained(command):
    """A pattern of the words that say what it does."""
    words = [w for w in re.findall(r"[a-z]{4,}", re.sub(r"`[^`]*`", "", EXPLAIN[command])) if w not in _STOP]
    return "(?i)" + "|".join(dict.fromkeys(w[:6] for w in words))


def explain_turn(rng):
    command = rng.choice(list(EXPLAIN))
    shown = command
    if rng.random() < 0.35:
        shown = f"`{command}`"
    elif rng.random() < 0.25 and command.startswith("-"):
        shown = rng.choice(["the flag ", "the option ", "option ", "the switch "]) + command
    elif rng.random() < 0.25 and command.startswith("/"):
        shown = rng.choice(["the command ", "the slash command ", "command ", "typing "]) + command
    elif rng.random() < 0.15 and command.startswith("-"):
        shown = "ds4 " + command
    text = expand(rng, choose(rng, EXPLAIN_ASK)).replace("{c}", shown)
    return Exchange(vary(rng, text, keep_case=True), f"The user asks about {command}.", mark(EXPLAIN[command]), {"kind": "regex", "pattern": explained(command)})
