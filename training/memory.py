"""What the user tells and asks for later, some of it changed in between, some never told."""

import re

import lexicon as lex
from encoding import mark
from exchange import Exchange
from phrasing import choose, expand, fill, pseudo_word, vary
from values import articles, value

# kind -> (statements, acknowledgement, questions, answer, gist, not told)
FACTS = {
    "name": (["my name is {x}", "I am {x}", "I'm {x}", "call me {x}", "my name's {x}", "I am called {x}", "you can call me {x}", "this is {x}", "the name is {x}", "people call me {x}", "(hello|hi), I am {x}", "(hello|hi|hey), my name is {x}", "(hello|hi), I'm {x}", "my first name is {x}", "I'm called {x}"],
             "Nice to meet you, {x}.",
             ["what is my name\\?", "what's my name\\?", "who am I\\?", "do you (know|remember|recall|still know|still remember) my name\\?", "how am I called\\?", "what am I called\\?", "say my name", "tell me my name", "my name\\?", "what did I say my name was\\?", "(can|could) you (repeat|say|tell me) my name\\?", "what was my name( again|)\\?", "what do people call me\\?", "who is (talking|speaking|writing) to you\\?", "do you (know|remember) (who I am|what I am called|how I am called)\\?", "which name did I (give|tell) you\\?", "and my name( is|)\\?"],
             "Your name is {x}.", "the name of the user is {x}", "You have not told me your name."),
    "city": (["I live in {x}", "I am from {x}", "my home is {x}", "my city is {x}", "I come from {x}", "I moved to {x}", "I'm from {x}", "my home town is {x}", "I am living in {x}", "I stay in {x}"],
             "I will remember that you live in {x}.",
             ["where do I live\\?", "where am I from\\?", "(which|what) (city|town|place) do I live in\\?", "in (which|what) (city|town|place) do I live\\?", "what is my (city|home town|home|town)\\?", "do you (know|remember|recall) where I (live|am from|come from)\\?", "tell me where I live", "where is my home\\?", "where did I say I live\\?", "where do I come from\\?", "(which|what) city did I (name|mention|tell you)\\?"],
             "You live in {x}.", "the user lives in {x}", "You have not told me where you live."),
    "colour": (["my favourite colour is {x}", "my favorite color is {x}", "I like {x} best of all colours", "the colour I like best is {x}", "I love the colour {x}", "I love the color {x}", "{x} is my favourite colour", "{x} is my favorite color"],
               "I will remember that your favourite colour is {x}.",
               ["what is my favou?rite colou?r\\?", "what's my favou?rite colou?r\\?", "which colou?r do I (like|prefer|love|like best|like most)\\?", "what colou?r do I (like|prefer|love|like best|like most)\\?", "do you (remember|know|recall) (my favou?rite colou?r|which colou?r I like|what colou?r I like|the colou?r I like|my colou?r)\\?", "tell me my favou?rite colou?r", "my favou?rite colou?r\\?", "(which|what) was my favou?rite colou?r( again|)\\?", "(which|what) colou?r (is|was) it\\?"],
               "Your favourite colour is {x}.", "the user's favourite colour is {x}", "You have not told me your favourite colour."),
    "food": (["my favourite food is {x}", "my favorite food is {x}", "I like to eat {x}", "I love {x}", "the food I like best is {x}", "I like {x} more than any other food", "I love eating {x}", "{x} is my favourite food"],
             "I will remember that your favourite food is {x}.",
             ["what is my favou?rite (food|dish|meal)\\?", "what's my favou?rite food\\?", "what do I like to eat\\?", "(which|what) food do I (like|love|prefer|like best)\\?", "do you (remember|know|recall) (what I like to eat|my favou?rite food|which food I like|what food I like|what I love to eat)\\?", "tell me my favou?rite food", "what do I love to eat\\?", "(which|what) was my favou?rite (food|dish)\\?", "what (meal|dish) do I like (best|most)\\?"],
             "Your favourite food is {x}.", "the user's favourite food is {x}", "You have not told me your favourite food."),
    "number": (["remember the number {x}", "my number is {x}", "the number is {x}", "my lucky number is {x}", "keep the number {x} in mind", "note the number {x}", "I choose the number {x}", "please remember {x}", "the code is {x}", "the password is {x}", "the secret code is {x}", "my code is {x}", "my PIN is {x}", "the secret number is {x}", "my password is {x}", "memorize the number {x}"],
               "I will remember {x}.",
               ["what (is|was) the (number|code|password|PIN|secret number|secret code)( again|)\\?", "what's the (number|code|password)\\?", "which (number|code|password) (was it|did I say|did I tell you|did I give you|did I choose|did I mention)\\?", "what (is|was) my (number|code|lucky number|password|PIN)\\?", "do you (remember|know|recall|still know) the (number|code|password|PIN)\\?", "tell me the (number|code|password)", "(repeat|say) the (number|code|password)", "the (number|code|password)\\?", "what (number|code) did I (give|tell|say to|mention to) you\\?", "(which|what) number (should|did) you remember\\?"],
               "It is {x}.", "the user told me {x}", "You have not told me that."),
    "word": (["remember the word {x}", "the secret word is {x}", "the word is {x}", "keep the word {x} in mind", "my word is {x}", "the password is {x}", "memorize the word {x}", "note the word {x}", "the magic word is {x}", "please remember the word {x}", "remember this word: {x}", "here is a word: {x}", "the code word is {x}", "keep this in mind: {x}", "remember this: {x}"],
             "I will remember {x}.",
             ["what (is|was) the (word|secret word|password|magic word|code word)( again|)\\?", "what's the word\\?", "which word (was it|did I say|did I tell you|did I give you|did I choose)\\?", "do you (remember|know|recall|still know) the (word|secret word|code word|magic word)\\?", "tell me the (word|secret word|code word)", "(repeat|say|give me) the (word|secret word|magic word)( now| again|)", "the word\\?", "what (was|is) my word\\?", "what word did I (say|tell you|give you|mention)\\?", "what did I (ask|tell) you to remember\\?", "(what|which word) should you remember\\?"],
             "It is {x}.", "the user told me {x}", "You have not told me that."),
    "job": (["I am a {x}", "I work as a {x}", "my job is {x}", "I'm a {x}", "I am working as a {x}", "my profession is {x}", "by profession I am a {x}", "I earn my money as a {x}"],
            "I will remember that you work as a {x}.",
            ["what is my job\\?", "what do I do( for a living| for work|)\\?", "what's my (job|profession|work)\\?", "what do I work as\\?", "do you (remember|know|recall) (my job|my profession|what I do|what my job is|what I work as)\\?", "which (job|profession) do I have\\?", "tell me my job", "what am I by profession\\?", "what was my (job|profession)\\?"],
            "You work as a {x}.", "the user works as a {x}", "You have not told me your job."),
    "pet": (["my {a} is called {x}", "my {a}'s name is {x}", "I have a {a} called {x}", "I have a {a} named {x}", "the name of my {a} is {x}", "my {a} is named {x}", "my {a} {x} is very nice", "we have a {a}, it is called {x}"],
            "I will remember that your {a} is called {x}.",
            ["what is the name of my {a}\\?", "what is my {a} called\\?", "what is my {a}'s name\\?", "how is my {a} called\\?", "what's my {a}'s name\\?", "do you (remember|know|recall) (the name of my {a}|my {a}'s name|what my {a} is called|how my {a} is called)\\?", "tell me the name of my {a}", "what did I call my {a}\\?", "what was (my {a}'s name|the name of my {a}|my {a} called)( again|)\\?", "my {a}'s name\\?", "which name has my {a}\\?"],
            "Your {a} is called {x}.", "the {a} of the user is called {x}", "You have not told me the name of your {a}."),
}


# Things remembered by a name that is drawn: {a} is the thing.
FACTS["thing"] = (
    ["remember that {a} is {x}", "{a} is {x}", "note that {a} is {x}", "keep in mind that {a} is {x}", "please remember: {a} is {x}", "for later: {a} is {x}", "{a}: {x}, please remember it", "don't forget that {a} is {x}"],
    "I will remember that {a} is {x}.",
    ["(what is|what's) {a}\\?", "what was {a}( again|)\\?", "do you (remember|know|still know) {a}\\?", "(tell me|say|repeat|give me) {a}( again| please|)", "{a}(\\?|, please)", "what did I say about {a}\\?", "what did I tell you {a} (is|was)\\?", "I forgot {a}, what is it\\?"],
    "{A} is {x}.", "{a} is {x}", "You have not told me that.")
THINGS = ["the door code", "the meeting room", "my shoe size", "the wifi password", "the name of my boss", "my birthday", "the bus number", "my flight number", "the parking level", "the deadline", "my desk number", "the project name",
          "the name of my sister", "the name of my brother", "the gate", "my seat", "the table number", "the budget", "the start time", "the branch name", "my host", "the server name", "the port", "the ticket number"]
MISSING = "(?i)not told|do not know|don't know"
CORRECT = ["no, {s}", "sorry, {s}", "correction: {s}", "I was wrong: {s}", "wait, {s}", "actually {s}", "that has changed: {s}", "now {s}"]


def fact_value(rng, kind):
    pools = {"name": lex.NAMES, "city": lex.CITIES, "colour": lex.COLOURS, "food": lex.FOODS, "word": lex.WORDS, "job": lex.JOBS, "pet": lex.PETS}
    if kind == "number":
        return str(rng.randint(0, 99) if rng.random() < 0.4 else rng.randint(100, 99999))
    if kind == "thing":
        return str(value(rng, rng.choice(["code", "word", "title", "int:1:999", "time", "date"])))
    # Words that are in no list teach copying rather than knowing.
    if rng.random() < 0.55 and kind != "job":
        word = pseudo_word(rng)
        return word.capitalize() if kind in ("name", "city", "pet") else word
    return rng.choice(pools[kind])


class Fact:
    """Something the user tells and asks back later."""

    def __init__(self, rng, kind=None, used=()):
        self.kind = kind or rng.choice([k for k in FACTS if k not in used or k == "thing"])
        self.value, self.thing = fact_value(rng, self.kind), rng.choice(lex.ANIMALS)
        if self.kind == "pet" and rng.random() < 0.3:
            self.thing = pseudo_word(rng)
        if self.kind == "thing":
            self.thing = rng.choice(THINGS) if rng.random() < 0.6 else f"the {pseudo_word(rng)}" if rng.random() < 0.5 else f"my {pseudo_word(rng)}"
        if rng.random() < 0.1:
            self.value = self.value.lower()
        self.keep = {self.value, *self.thing.split()}

    def fill(self, rng, text, marked=False):
        text = text.replace("u?", "u" if rng.random() < 0.5 else "")
        # The user's "my bus" is the assistant's "your bus".
        thing = re.sub(r"\bmy\b", "your", self.thing) if marked else self.thing
        filled = fill(expand(rng, text), {"x": mark(self.value) if marked else self.value, "a": thing, "A": thing[:1].upper() + thing[1:]})
        return filled if marked else articles(filled)

    def statement(self, rng):
        return self.fill(rng, choose(rng, FACTS[self.kind][0]))

    def tell(self, rng):
        text = self.statement(rng) + rng.choice(["", ".", ".", "!"])
        return Exchange(vary(rng, text, True, self.keep), "The user tells me something to remember.", self.fill(rng, FACTS[self.kind][1], True))

    def change(self, rng):
        """The same fact with another value."""
        self.value = fact_value(rng, self.kind)
        self.keep = {self.value, *self.thing.split()}
        text = fill(choose(rng, CORRECT), {"s": self.statement(rng)})
        return Exchange(vary(rng, text, True, self.keep), "The user tells me something to remember.", self.fill(rng, FACTS[self.kind][1], True))

    def ask(self, rng, before=""):
        _, _, questions, answer, gist, _ = FACTS[self.kind]
        question = self.fill(rng, choose(rng, questions))
        if before:
            joint = rng.choice([". ", ". ", ". ", ", ", "! ", ".\n", ". Now: ", ". And now: ", ". So, ", ". Now tell me: ", ". Question: "])
            question = before + joint + (question if rng.random() < 0.3 else question[:1].upper() + question[1:])
        return Exchange(vary(rng, question, True, self.keep), self.fill(rng, f"From before: {gist}.", True), self.fill(rng, answer, True), {"kind": "contains", "text": self.value})

    def tell_and_ask(self, rng):
        return self.ask(rng, self.statement(rng))

    def not_told(self, rng):
        questions, missing = FACTS[self.kind][2], FACTS[self.kind][5]
        return Exchange(vary(rng, self.fill(rng, choose(rng, questions)), True, self.keep), "The user has not told me that.", mark(missing), {"kind": "regex", "pattern": MISSING})


def memory_talk(rng, any_turn, turns=None):
    """-> exchanges: facts told, other talk between, facts asked for; the last one asks."""
    count = turns or rng.choice([2, 3, 4, 5, 6, 8, 10, 12, 16, 20])
    facts, used = [], set()
    for _ in range(max(1, min(count // 2, rng.choice([1, 1, 2, 2, 3, 4, 6, 8])))):
        fact = Fact(rng, used=used)
        if fact.kind == "thing" and any(f.thing == fact.thing for f in facts) or fact.kind in used and fact.kind != "thing":
            continue
        used.add(fact.kind)
        if fact.kind in ("number", "word"):
            used |= {"number", "word"}  # both may be called a password
        facts.append(fact)
    pending, told, out = list(facts), [], []
    while len(out) < count - 1:
        roll = rng.random()
        if pending and (roll < 0.45 or not told or len(pending) >= count - 1 - len(out)):
            told.append(pending.pop())
            out.append(told[-1].tell(rng))
        elif roll < 0.62:
            out.append(rng.choice(told).ask(rng))
        elif roll < 0.68:
            out.append(rng.choice(told).change(rng))
        else:
            out.append(any_turn(rng))
    if rng.random() < 0.08:
        kind = rng.choice([k for k in FACTS if k not in used and k != "thing"] or ["job"])
        if kind not in used:
            return out + [Fact(rng, kind).not_told(rng)]
    return out + [rng.choice(told or facts).ask(rng)] if told else [facts[0].tell(rng), facts[0].ask(rng)]
