"""Values of all kinds that questions hold and answers copy."""

import re

import lexicon as lex
from phrasing import pseudo_word

ADJECTIVES = """old new red green small large quiet bright cold warm secret broken empty heavy golden round dark early late
short long sharp soft wild plain northern southern second third last main spare""".split()
NOUNS = """report meeting window garden letter engine bridge ticket river lamp story picture valley market clock harbour tower
bottle mirror folder invoice parcel recipe ladder blanket camera signal schedule survey budget contract review backup release""".split()
VERBS = """check open close paint call move clean count sort plan write read test build repair send buy water order fetch
label weigh pack print sign file review update measure""".split()
ROOMS = ["kitchen", "bedroom", "hall", "office", "bathroom", "cellar", "garage", "library", "attic", "studio", "living room", "dining room"]
LANGUAGES = """French Spanish German Italian Latin Greek Dutch Polish Swedish Turkish Finnish Japanese Korean Russian
Danish Norwegian Welsh Czech Hungarian Basque""".split()
CURRENCIES = ["EUR", "USD", "GBP", "CHF", "JPY", "SEK", "NOK", "PLN", "CAD", "AUD"]
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
ENDINGS = ["txt", "md", "csv", "json", "py", "rs", "log", "toml", "yaml", "html"]


def word(rng):
    return pseudo_word(rng) if rng.random() < 0.6 else rng.choice(lex.WORDS)


def code(rng):
    roll = rng.random()
    if roll < 0.35:
        return f"{rng.choice(LETTERS)}{rng.choice(LETTERS)}-{rng.randint(10, 9999)}"
    if roll < 0.6:
        return f"{pseudo_word(rng)}-{rng.randint(1, 99)}"
    if roll < 0.8:
        return str(rng.randint(1000, 999999))
    return "".join(rng.choice(LETTERS + "0123456789") for _ in range(rng.randint(4, 7)))


def phrase(rng):
    roll = rng.random()
    if roll < 0.3:
        return f"{rng.choice(VERBS)} the {rng.choice(NOUNS)}"
    if roll < 0.6:
        return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
    if roll < 0.8:
        return f"{word(rng)} {rng.choice(NOUNS)}"
    return f"{rng.choice(NOUNS)} of {word(rng)}"


def sentence(rng):
    roll = rng.random()
    if roll < 0.3:
        return f"Please {rng.choice(VERBS)} the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}."
    if roll < 0.55:
        return f"The {rng.choice(NOUNS)} is {rng.choice(ADJECTIVES)}."
    if roll < 0.8:
        return f"{rng.choice(lex.NAMES)} will {rng.choice(VERBS)} the {word(rng)} at {time(rng)}."
    return f"Hello {rng.choice(lex.NAMES)}, I have the {word(rng)}."


def date(rng):
    return f"{rng.randint(2020, 2031)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def time(rng):
    return f"{rng.randint(0, 23):02d}:{rng.choice([0, 5, 10, 15, 20, 30, 40, 45, 50]):02d}"


def person(rng):
    first = pseudo_word(rng).capitalize() if rng.random() < 0.4 else rng.choice(lex.NAMES)
    return first if rng.random() < 0.4 else f"{first} {pseudo_word(rng).capitalize()}"


def city(rng):
    return pseudo_word(rng).capitalize() if rng.random() < 0.5 else rng.choice(lex.CITIES)


def path(rng):
    name = f"{word(rng)}.{rng.choice(ENDINGS)}"
    return name if rng.random() < 0.5 else f"{'/' if rng.random() < 0.3 else ''}{word(rng)}/{name}"


def folder(rng):
    return rng.choice(["{}", "/{}", "src/{}", "/home/{}", "{0}/{1}", "docs/{0}/{1}"]).format(word(rng), word(rng)) + ("/" if rng.random() < 0.2 else "")


def command(rng):
    return rng.choice(["ls {}", "cat {}.txt", "git {}", "make {}", "cargo test {}", "python {}.py", "echo {}", "wc -l {}.md", "grep {} notes.txt", "./{} --fast"]).format(word(rng))


def decimal(rng):
    roll = rng.random()
    return rng.randint(1, 999) if roll < 0.4 else rng.randint(10, 9999) / 10 if roll < 0.7 else rng.randint(100, 99999) / 100


MAKERS = {
    "word": word, "code": code, "phrase": phrase, "sentence": sentence, "date": date, "time": time, "person": person, "city": city,
    "path": path, "folder": folder, "command": command, "number": decimal,
    "email": lambda rng: f"{rng.choice(lex.NAMES).lower() if rng.random() < 0.5 else pseudo_word(rng)}@{pseudo_word(rng)}.{rng.choice(['com', 'org', 'net', 'io'])}",
    "bool": lambda rng: rng.random() < 0.6, "currency": lambda rng: rng.choice(CURRENCIES), "language": lambda rng: rng.choice(LANGUAGES),
    "room": lambda rng: rng.choice(ROOMS), "half": lambda rng: rng.randint(10, 27) + rng.choice([0, 0, 0.5]), "object": lambda rng: f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}s",
    "ticker": lambda rng: "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 4))), "ints": lambda rng: [rng.randint(1, 200) for _ in range(rng.randint(2, 5))],
    "words": lambda rng: [word(rng) for _ in range(rng.randint(2, 4))], "title": lambda rng: pseudo_word(rng).capitalize(),
    "image": lambda rng: f"{word(rng)}.{rng.choice(['png', 'jpg', 'webp', 'gif'])}", "host": lambda rng: f"{word(rng)}{rng.randint(1, 20)}",
    "phone": lambda rng: f"{rng.randint(100, 999)}-{rng.randint(1000, 9999)}", "url": lambda rng: f"https://{pseudo_word(rng)}.org/{pseudo_word(rng)}",
    "pseudo_phrase": lambda rng: f"{pseudo_word(rng)} {pseudo_word(rng)}", "colour": lambda rng: rng.choice(lex.COLOURS), "job": lambda rng: rng.choice(lex.JOBS),
}


def value(rng, kind):
    if kind in MAKERS:
        made = MAKERS[kind](rng)
        return int(made) if isinstance(made, float) and made.is_integer() else made
    name, _, rest = kind.partition(":")
    if name == "int":
        low, high = map(int, rest.split(":"))
        return rng.randint(low, high)
    return rng.choice(rest.split(","))  # enum, pick


def listed(rng, items):
    """'a, b and c'."""
    items = [str(i) for i in items]
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + rng.choice([" and ", " and ", ", "]) + items[-1]


_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")


def articles(text):
    """'a apple' -> 'an apple'."""
    return _ARTICLE.sub(r"\1n ", text)
