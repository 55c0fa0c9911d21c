"""Facts hidden in long text, asked for at its end or some turns later; some are not there."""

import lexicon as lex
from encoding import mark
from exchange import Exchange
from filler import lines
from phrasing import choose, expand, fill, pseudo_word, vary
import phrasing
from values import ADJECTIVES, NOUNS, articles, code, value

# Family: (what is asked for, ways to state it, ways to ask, the answer, kind of key, kinds of values).
FAMILIES = [
    ("code", ["the code for {k} is {v}", "the code of {k} is {v}", "{k} has the code {v}", "for {k} the code is {v}", "code {v} belongs to {k}", "{k}: code {v}", "use the code {v} for {k}", "note: the code for {k} is {v}"],
     ["(what is|what's) the code (for|of) {k}\\?", "which code (belongs to|has) {k}\\?", "(tell me|give me|I need|repeat) the code (for|of) {k}", "the code (for|of) {k}(\\?|, please)", "do you (know|remember) the code (for|of) {k}\\?", "{k}\\: (which|what) code\\?", "what code does {k} have\\?", "what did the text say is the code (for|of) {k}\\?"],
     "The code for {k} is {v}.", "word", ["code", "code", "code", "word"]),
    ("number", ["the number of {k} is {v}", "{k} has the number {v}", "number {v} belongs to {k}", "call {k} under {v}", "{k} can be reached at {v}", "{v} is the number of {k}"],
     ["(what is|what's) the number of {k}\\?", "which number (has|belongs to) {k}\\?", "(tell me|give me|I need) the number of {k}", "under which number (do I reach|can I call) {k}\\?", "the number of {k}(\\?|, please)", "what number does {k} have\\?"],
     "The number of {k} is {v}.", "name", ["int:1000:999999", "phone", "int:10:999"]),
    ("place", ["{k} lives in {v}", "the home of {k} is {v}", "{k} comes from {v}", "{k} moved to {v}", "you find {k} in {v}", "{v} is the home of {k}"],
     ["where does {k} live\\?", "(what is|which city is) the home of {k}\\?", "in which (city|town|place) does {k} live\\?", "where is {k} from\\?", "where (do I|can I) find {k}\\?", "tell me where {k} lives"],
     "{k} lives in {v}.", "name", ["city"]),
    ("password", ["the password of {k} is {v}", "the password for {k} is {v}", "{k} uses the password {v}", "log in to {k} with {v}", "{k} opens with the password {v}", "password for {k}: {v}"],
     ["(what is|what's) the password (of|for) {k}\\?", "which password (opens|does one need for|is for) {k}\\?", "(tell me|give me|I need|I forgot) the password (of|for) {k}", "the password (for|of) {k}(\\?|, please)", "how do I log in to {k}\\?", "what password does {k} use\\?"],
     "The password for {k} is {v}.", "word", ["code", "word", "pseudo_phrase"]),
    ("colour", ["the {k} is painted {v}", "the colour of the {k} is {v}", "the {k} is {v} all over", "they painted the {k} in {v}", "the {k} has the colour {v}", "someone made the {k} {v}"],
     ["(what|which) colour (is|has) the {k}\\?", "(what is|what's) the colour of the {k}\\?", "tell me the colour of the {k}", "in which colour did they paint the {k}\\?", "the colour of the {k}(\\?|, please)", "how is the {k} painted\\?"],
     "The {k} is {v}.", "thing", ["colour"]),
    ("keeper", ["the {k} is kept by {v}", "{v} keeps the {k}", "the {k} belongs to {v}", "the owner of the {k} is {v}", "{v} has the {k}", "the {k} is with {v}"],
     ["who (keeps|has|owns) the {k}\\?", "to whom does the {k} belong\\?", "(who is|tell me) the owner of the {k}(\\?|)", "with whom is the {k}\\?", "(whose|who) is the {k} with\\?", "the owner of the {k}(\\?|, please)"],
     "{v} has the {k}.", "thing", ["person", "title"]),
    ("date", ["{k} is due on {v}", "the date of {k} is {v}", "{k} ends on {v}", "the last day for {k} is {v}", "{k} takes place on {v}", "on {v} we have {k}"],
     ["when is {k}( due|)\\?", "(what is|what's) the date of {k}\\?", "on which day is {k}\\?", "(tell me|give me) the date of {k}", "what day (is|was) (given|named|set) for {k}\\?", "the date of {k}(\\?|, please)"],
     "The date of {k} is {v}.", "word", ["date"]),
    ("attribute", ["the {a} of {k} is {v}", "{k} has the {a} {v}", "as {a} of {k} we noted {v}", "{k} ({a}: {v})", "the {a} for {k} is {v}", "{v} is the {a} of {k}"],
     ["(what is|what's) the {a} of {k}\\?", "which {a} has {k}\\?", "(tell me|give me|I need) the {a} of {k}", "{a} of {k}(\\?|, please)", "what {a} does {k} have\\?", "what did the text say about the {a} of {k}\\?"],
     "The {a} of {k} is {v}.", "name", ["word", "code", "int:0:9999", "phrase"]),
]
# More of them, for the training alone: what is asked for is {r}.
RELATIONS = {
    "person": ["boss", "owner", "brother", "sister", "teacher", "doctor", "neighbour", "partner", "author", "keeper", "leader", "friend", "heir", "pilot", "tenant", "contact"],
    "city": ["birthplace", "destination", "headquarters", "home port", "station", "next stop", "origin", "capital", "office", "address"],
    "date": ["birthday", "deadline", "start", "release date", "anniversary", "last service", "next review", "departure"],
    "time": ["arrival", "opening time", "alarm", "lunch break", "closing time", "next bus"],
    "int:1:99999": ["weight", "height", "price", "salary", "budget", "size", "speed", "age", "score", "rent", "distance", "limit", "room number", "balance", "year"],
    "code": ["key", "pin", "serial number", "licence", "ticket", "reference", "registration", "customer number", "access code", "account"],
    "word": ["nickname", "drink", "hobby", "symbol", "motto", "favourite word", "project", "topic", "plant", "material"],
    "colour": ["paint", "favourite colour", "flag", "hair", "cover"], "phone": ["phone", "extension", "fax", "hotline"], "email": ["mail address", "email", "login"], "path": ["log file", "home folder", "script", "source"],
    "pseudo_phrase": ["passphrase", "slogan", "secret", "full name"], "phrase": ["title", "task", "order", "plan", "duty"],
}
TELL = ["the {r} of {k} is {v}", "{k} has {v} as {r}", "{v} is the {r} of {k}", "for {k}, the {r} is {v}", "as {r} of {k} they named {v}", "{k}: {r} {v}", "we know that the {r} of {k} is {v}", "{k} got a new {r}: {v}", "in the file of {k} one finds the {r} {v}",
        "somebody wrote {v} as the {r} of {k}", "the {r} belonging to {k} is {v}", "{v} was given as the {r} of {k}", "{k} told us the {r}, {v}", "do not forget {v}, the {r} of {k}", "{r} of {k} = {v}", "{k} ({r} {v}) was here", "let it be known that {v} is the {r} of {k}", "{k} chose {v} for a {r}", "under {r}, {k} entered {v}"]
WANT = ["(what|which) is (the|noted as the) {r} of {k}\\?", "(what's|name|state|find|look up|give) the {r} of {k}(\\?|)", "{k} has (what|which) {r}\\?", "(which|what) {r} (does|did) {k} have\\?", "(and |)the {r} of {k}\\?", "(can|could) you (find|see|tell me|say|name) the {r} of {k}\\?", "I (want|have|would like) to know the {r} of {k}",
        "(as to|about|regarding) {k}\\: (what|which) {r}\\?", "(what|which) (was|is|did they give) as the {r} of {k}\\?", "{k}'s {r}(\\?|, please)", "(what|which) is {k}'s {r}\\?", "what do (you|we) know about the {r} of {k}\\?", "(search|check|read) the text for the {r} of {k}", "{r} of {k}(\\?| please|)", "(does it say|is there) (what the|a) {r} of {k}( is|)\\?", "who or what is the {r} of {k}\\?", "for {k}, (what|which) is the {r}\\?"]
LIST_ASK = ["(what is|what's) the value of {k}\\?", "{k}\\?", "which value (has|belongs to|stands for|is next to) {k}\\?", "(look up|find|give me|tell me|read out) {k}( in the list|)", "the value (of|for) {k}(\\?|, please)", "what does the list (say|give) for {k}\\?", "what (stands|is) (at|behind|next to) {k}\\?", "{k} (is|has) which value\\?"]
LIST_HEADS = ["Here is a list:", "The list:", "Values:", "Table:", "Settings:", "These are the entries:", "Data:", "Configuration:"]
HEADS = ["Read this text:", "Here is a text:", "Text:", "Please remember this:", "My notes:", "The document:", "Read the following and answer the question.", "Notes:", "This is the protocol:", "Keep this in mind:"]
ACKNOWLEDGE = "I have read it."
BEFORE = ["\n\nQuestion: ", "\n\n", "\n\nNow: ", "\n\nNow answer: ", "\n", "\n\nMy question: ", "\n---\n"]
ABSENT = "I do not know that: the text does not say it."


def key(rng, kind):
    if kind == "name":
        return pseudo_word(rng).capitalize() if rng.random() < 0.6 else rng.choice(lex.NAMES) + (" " + pseudo_word(rng).capitalize() if rng.random() < 0.5 else "")
    if kind == "thing":
        return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}" if rng.random() < 0.6 else f"{pseudo_word(rng)} {rng.choice(NOUNS)}"
    roll = rng.random()
    return pseudo_word(rng) if roll < 0.6 else f"{pseudo_word(rng)} {pseudo_word(rng)}" if roll < 0.75 else code(rng) if roll < 0.85 else f"the {pseudo_word(rng)} {rng.choice(NOUNS)}"


def capital(text):
    return text[:1].upper() + text[1:]


# Part of the facts of composed families, and of the texts to repeat that are in no language; in training.
COMPOSED = 0.0


def composed_family(rng):
    """A family of one relation."""
    kind = rng.choice(list(RELATIONS))
    relation = rng.choice(RELATIONS[kind]) if rng.random() < 0.8 else pseudo_word(rng)
    tell, want = ([text.replace("{r}", relation) for text in texts] for texts in (rng.sample(TELL, 3), rng.sample(WANT, 3)))
    return relation, tell, want, f"The {relation} of {{k}} is {{v}}.", rng.choice(["name", "name", "word", "thing"]), [kind]


# What the families above are about.
KNOWN = {"code": "code", "number": "number", "place": "home", "password": "password", "colour": "colour", "keeper": "owner", "date": "date", "attribute": ""}


def known(row):
    """Key and relation of a fact, for `TELL` and `WANT`."""
    family, k, _, a = row
    return {"k": ("the " if family[4] == "thing" else "") + k, "r": KNOWN[family[0]] or a}


def more(rng):
    """Whether composed phrasings are to be used."""
    return COMPOSED and phrasing.SPLIT == "train" and rng.random() < COMPOSED


def one_of(rng, texts):
    """`choose`, which would remember the lists of composed families for ever."""
    return rng.choice(texts) if len(texts) < phrasing.LEAST_SPLIT else choose(rng, texts)


class Facts:
    """Facts of one text, told apart by family and key."""

    def __init__(self, rng, count, alike):
        self.rows, seen = [], set()
        one = composed_family(rng) if more(rng) else rng.choice(FAMILIES)
        attribute = pseudo_word(rng) if rng.random() < 0.5 else rng.choice(NOUNS)
        while len(self.rows) < count:
            family = one if alike else composed_family(rng) if more(rng) else rng.choice(FAMILIES)
            k = key(rng, family[4])
            if k in seen or not alike and k.lower() in {s.lower() for s in seen}:
                continue
            seen.add(k)
            self.rows.append((family, k, value(rng, rng.choice(family[5])), attribute))
        self.seen = seen

    def statement(self, rng, row):
        family, k, v, a = row
        if family[0] in KNOWN and more(rng):
            return capital(fill(rng.choice(TELL), {"v": v, **known(row)})) + "."
        return capital(fill(one_of(rng, family[1]), {"k": k, "v": v, "a": a})) + "."

    def question(self, rng, row, absent=False):
        family, k, v, a = row
        if absent:
            while k in self.seen:
                k = key(rng, family[4])
        if family[0] in KNOWN and more(rng):
            text = fill(expand(rng, rng.choice(WANT)), known((family, k, v, a)))
        else:
            text = fill(expand(rng, one_of(rng, family[2])), {"k": k, "a": a})
        text = vary(rng, text, True, {w for part in (k, a) for w in part.split()})
        if absent:
            return Exchange(text, "The text does not say it.", mark(ABSENT), {"kind": "all", "patterns": ["(?i)do not know|does not say|not mention"]})
        answer = capital(fill(family[3], {"k": k, "v": mark(v), "a": a}))
        return Exchange(text, "I look for it in the text.", answer, {"kind": "contains", "text": str(v)})


def prose(rng, tokens, count):
    """Facts between lines of filler. -> (text, facts)."""
    facts = Facts(rng, count, alike=rng.random() < 0.4)
    rows, joint = lines(rng, max(0, tokens - 14 * count))
    stated = [facts.statement(rng, row) for row in facts.rows]
    cuts = sorted(rng.randint(0, len(rows)) for _ in stated)
    out, at = [], 0
    for cut, sentence in zip(cuts, stated):
        out += rows[at:cut]
        out.append(sentence)
        at = cut
    out += rows[at:]
    return articles(joint.join(out)), facts


def listing(rng, tokens):
    """A list of keys with values, each of which may be asked for. -> (text, pairs)."""
    style = rng.choice(["{k}: {v}", "{k} = {v}", "{k} -> {v}", "- {k}: {v}", "{k}, {v}", "| {k} | {v} |", '"{k}": "{v}"'])
    kind = rng.choice(["code", "word", "int:0:99999", "city", "word", "code"])
    key_kind = rng.choice(["word", "word", "name", "thing"])
    count = max(2, tokens // (14 if kind in ("code", "word") else 12))
    pairs = {}
    while len(pairs) < count:
        k = key(rng, key_kind)
        if k.lower() not in pairs:
            pairs[k.lower() if key_kind == "word" else k] = value(rng, kind)
    text = "\n".join(style.replace("{k}", k).replace("{v}", str(v)) for k, v in pairs.items())
    return text, pairs


def list_question(rng, pairs, absent=False):
    k = rng.choice(list(pairs))
    if absent:
        while k in pairs:
            k = pseudo_word(rng)
    if more(rng):
        asked = fill(expand(rng, rng.choice(WANT)), {"k": k, "r": rng.choice(["value", "entry", "content", "item", "right side", "setting", "number", "word"])})
    else:
        asked = fill(expand(rng, choose(rng, LIST_ASK)), {"k": k})
    text = vary(rng, asked, True, set(k.split()))
    if absent:
        return Exchange(text, "The text does not say it.", mark(ABSENT), {"kind": "all", "patterns": ["(?i)do not know|does not say|not mention"]})
    v = pairs[k]
    return Exchange(text, "I look for it in the text.", f"{capital(k)}: {mark(v)}.", {"kind": "contains", "text": str(v)})


def needle_talk(rng, mode, tokens, questions, absent=0.12, interlude=None):
    """-> (messages, check): a text of about so many tokens, and questions about it."""
    if rng.random() < 0.3:
        text, pairs = listing(rng, tokens)
        head = rng.choice(LIST_HEADS)
        asks = [list_question(rng, pairs, rng.random() < absent) for _ in range(questions)]
    else:
        text, facts = prose(rng, tokens, max(questions if rng.random() < 0.6 else questions // 2 + 1, rng.choice([1, 2, 3, 5, 8, 12]) if tokens > 300 else rng.choice([1, 2, 3])))
        head = rng.choice(HEADS)
        asks = [facts.question(rng, rng.choice(facts.rows), rng.random() < absent) for _ in range(questions)]
    document = text if rng.random() < 0.25 else f"{head}\n{text}"
    messages = []
    roll = rng.random()
    if roll < 0.6:
        asks[0].question = document + rng.choice(BEFORE) + asks[0].question
    elif roll < 0.7:
        asks[0].question = f"{asks[0].question}\n\n{document}"
    elif roll < 0.78:
        messages.append({"role": "system", "content": document})
    else:
        messages += [{"role": "user", "content": document}, {"role": "assistant", "reasoning": "The user gives me a text.", "content": ACKNOWLEDGE}]
    for i, exchange in enumerate(asks):
        if i and interlude and rng.random() < 0.15:
            messages += interlude(rng).messages(mode)
        messages += exchange.messages(mode)
    return messages, asks[-1].check


REPEAT = ["repeat( exactly|)\\: {x}", "(say|write|copy|echo) (this|the following)( again| exactly|)\\: {x}", "{x}\n\n(Repeat|Copy|Write) (that|the text above|it)( exactly|)\\.", "repeat after me\\: {x}", "copy this text\\: {x}", "echo {x}", "(return|give back) (this|exactly this)\\: {x}"]


def odd_text(rng):
    """Words, numbers and signs in any order and spelling."""
    out = []
    for _ in range(rng.randint(2, 28)):
        roll, word = rng.random(), pseudo_word(rng)
        if roll < 0.35:
            out.append(word)
        elif roll < 0.5:
            out.append(word.capitalize())
        elif roll < 0.55:
            out.append(word.upper())
        elif roll < 0.65:
            out.append(word + rng.choice(["_", "-", ".", "/", ":", "@", ""]) + pseudo_word(rng).capitalize())
        elif roll < 0.8:
            out.append(str(value(rng, rng.choice(["code", "path", "date", "time", "phone", "number", "email"]))))
        else:
            out.append(rng.choice([",", ".", "-", "+", "=", "(", ")", ":", ";", "/", "#", "*", "|", "&", "%", "<", ">"]) * rng.choice([1, 1, 1, 2]))
    return rng.choice([" ", " ", "  ", "\n", ", "]).join(out)


def copy_turn(rng):
    """Repeating a text."""
    if more(rng):
        text = odd_text(rng)
        return Exchange(fill(expand(rng, choose(rng, REPEAT)), {"x": text}), "I repeat it.", mark(text), {"kind": "contains", "text": text})
    roll = rng.random()
    if roll < 0.4:
        text = " ".join(pseudo_word(rng) for _ in range(rng.randint(2, 24)))
    elif roll < 0.6:
        text = " ".join(str(rng.randint(0, 999)) for _ in range(rng.randint(2, 16)))
    elif roll < 0.8:
        text = ", ".join(value(rng, rng.choice(["code", "city", "email", "path"])) for _ in range(rng.randint(1, 8)))
    else:
        rows, joint = lines(rng, rng.randint(12, 90))
        text = articles(joint.join(rows))
    return Exchange(fill(expand(rng, choose(rng, REPEAT)), {"x": text}), "I repeat it.", mark(text), {"kind": "contains", "text": text})
