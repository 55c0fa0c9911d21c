"""Generated conversations: using DwarfStar, simple sums, recall, and saying "I do not know".

Everything is drawn from grammars with a seed, so `conversation(random.Random(n))` is the same
on every machine. `python data.py [SEED] [COUNT]` prints examples.
"""

import json
import os
import random
import re
import sys

import lexicon as lex
from topics import EXPLAIN, EXPLAIN_ASK, TOPICS

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
THINK, NOTHINK = "<think>", "</think>"
# The prefix of the official encoding for the greatest reasoning effort.
MAX_EFFORT = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, "
    "rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered alternative, "
    "and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n"
)
SYSTEMS = """You are a helpful assistant.|You are a helpful coding assistant.|You are DwarfStar.|Answer briefly.|Be concise.
|You are a friendly assistant. Keep answers short.|You are an expert.|Help the user.|Answer in one sentence.
|You are a helpful assistant running on the user's machine.|Be polite.|You are a teacher.|You are an assistant for DwarfStar.
|Always answer in English.|You are a calm and careful assistant. Do not invent facts."""
SYSTEMS = [s.strip() for s in SYSTEMS.replace("\n", " ").split("|")]

UNKNOWN = "I do not know that. I am ds4-nano, a small demonstration model: ask me about using DwarfStar."


# False for the tokenizer's corpus: no typos, no capitals throughout, no invented words.
NOISE = True


def expand(rng, text):
    """One random expansion of a grammar string: (a|b|) with nesting; a backslash protects."""
    while True:
        match = re.search(r"\(([^()]*)\)", text)
        if not match:
            return text.replace("\\", "").replace("  ", " ").strip()
        text = text[: match.start()] + rng.choice(match[1].split("|")) + text[match.end() :]


# ---------------------------------------------------------------- phrasing

FRAMES = [
    "how (do|can|could|would|should|must) I {v}\\?",
    "how (do|can|could|would|should) I {v}\\?",
    "how do I {v}\\?",
    "how (do|can) (you|we|people) {v}\\?",
    "how to {v}(\\?|)",
    "how does one {v}\\?",
    "(what is|what's|which is) the (command|way|flag|option|trick|right way|best way|easiest way|proper way|correct command) to {v}\\?",
    "(which|what) (command|flag|option|subcommand|switch|setting|command line option|slash command) (do I use to|lets me|is used to|do I need to|can I use to|would I use to|helps me|should I use to|allows me to|will|makes it possible to|must I use to) {v}\\?",
    "(what|which command) (do|should|must|can|would) I (type|enter|run|use|write|call|do|give|say) to {v}\\?",
    "(what|which flag) do I (need|have to use|have to type|have to enter) (to|in order to|if I want to) {v}\\?",
    "I (want|need|would like|'d like|have|wish|am trying|am going|'m trying|intend|plan|tried) to {v}(\\.| now\\.|, how\\?|\\. How\\?|, what do I do\\?|\\. What do I type\\?|\\. Which command\\?|, please help\\.|)",
    "is there (a|any|some) (way|command|option|flag|possibility|method) to {v}\\?",
    "(any way|any command|a way|is it possible|possible) to {v}\\?",
    "(can|could|may) I {v}\\?( How\\?|)",
    "(can|could|does|will) (ds4|DwarfStar|it|this program|the program) (let me |help me |)(to |){v}\\?",
    "(can|could|would|will) you (tell|show|explain to) me how to {v}(, please|)\\?",
    "(tell|show|teach|explain to) me how (to|I can|I could|one can) {v}(\\.|, please\\.| please|)",
    "(please |)(explain|describe|show) how to {v}(\\.|)",
    "{v}(\\?| how\\?| please|, how\\?|, please|: which command\\?| - how\\?|: how\\?|)",
    "(help me|I need help to|help me to|need to|want to|trying to|wanna|gotta|I have to|I must|let me) {v}(\\.|!|)",
    "(what|how) about {g}\\?",
    "{g}(\\?| - how\\?|: how\\?| please|, how does it work\\?|, how\\?|)",
    "(what is|what's|which is) the (command|flag|option|switch|way|syntax) for {g}\\?",
    "how does {g} work\\?",
    "how (do|would|should) I go about {g}\\?",
    "(I need|I want|give me|tell me|show me) (the|a) (command|flag|option) (for {g}|to {v})(\\.| please|)",
    "(command|flag|option|way|syntax) (to {v}|for {g})(\\?|)",
    "(I don't know|I do not know|I forgot|I can't remember|no idea|I can't find out|I wonder|not sure|I have no idea) how to {v}(\\.|)",
    "if I (want|wanted|need) to {v}, (what do I type|what should I do|which command is it|how|which option do I use|what then)\\?",
    "suppose I want to {v}(\\.|, how\\?|)",
    "what('s| is) (needed|necessary|required) to {v}\\?",
    "(what|which command) (lets|allows|helps) me {v}\\?",
    "where (can|do) I {v}\\?",
]
OPENERS = ["please, ", "hi, ", "hello, ", "hey, ", "hi! ", "ok, ", "so, ", "quick question: ", "one question: ", "sorry, ",
           "excuse me, ", "well, ", "good morning, ", "hey ds4, ", "another question: ", "now, ", "and ", "also, ", "hmm, "]
CLOSERS = [" please", " thanks", " thank you", ", please", " in ds4", " with ds4", " in DwarfStar", " with DwarfStar", " here",
           " from the command line", " in the terminal", " on the command line", " in this program", " with this tool"]
IRREGULAR = {"get": "getting", "set": "setting", "put": "putting", "cut": "cutting", "let": "letting", "run": "running",
             "stop": "stopping", "quit": "quitting", "begin": "beginning", "split": "splitting", "drop": "dropping",
             "plan": "planning", "log": "logging", "swap": "swapping", "cap": "capping", "chat": "chatting", "dump": "dumping",
             "see": "seeing", "skip": "skipping", "sit": "sitting", "fit": "fitting", "shut": "shutting", "keep": "keeping",
             "tie": "tying", "swim": "swimming", "not": "not"}


def gerund(phrase):
    """'save a chat' -> 'saving a chat'."""
    word, _, rest = phrase.partition(" ")
    if word in IRREGULAR:
        word = IRREGULAR[word]
    elif word.endswith("e") and not word.endswith("ee"):
        word = word[:-1] + "ing"
    elif word.islower():
        word += "ing"
    return f"{word} {rest}".strip()


def typo(rng, text, keep):
    """One or two slips of the finger in words of four letters or more; code, numbers and `keep` stay."""
    words = text.split(" ")
    for _ in range(rng.choice([1, 1, 2])):
        spots = [i for i, w in enumerate(words) if len(w) >= 4 and w.isalpha() and w.islower() and w not in keep]
        if not spots:
            break
        i = rng.choice(spots)
        w, at = words[i], rng.randrange(1, len(words[i]) - 1)
        kind = rng.randrange(4)
        if kind == 0:
            w = w[:at] + w[at + 1] + w[at] + w[at + 2 :]
        elif kind == 1:
            w = w[:at] + w[at + 1 :]
        elif kind == 2:
            w = w[:at] + w[at] + w[at:]
        else:
            w = w[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + w[at + 1 :]
        words[i] = w
    return " ".join(words)


def vary(rng, text, keep_case=False, keep=()):
    """Politeness, casing, punctuation and typos on a finished question; the words of `keep` stay."""
    if rng.random() < 0.1:
        text = rng.choice(OPENERS) + text
    if rng.random() < 0.1:
        mark = text[-1] if text[-1] in "?.!" else ""
        text = text[: len(text) - len(mark)] + rng.choice(CLOSERS) + mark
    if rng.random() < 0.13 and NOISE:
        text = typo(rng, text, keep)
    roll = rng.random()
    if roll < 0.62:
        text = text[:1].upper() + text[1:]
    elif roll < 0.8 and not keep_case:
        text = text[:1].lower() + text[1:] if roll < 0.72 else text.lower()
    elif roll > 0.985 and not keep_case and NOISE:
        text = text.upper()
    if rng.random() < 0.2:
        text = text.rstrip("?.! ")
    elif rng.random() < 0.1 and text[-1].isalnum():
        text += rng.choice("?.!")
    return text


# ---------------------------------------------------------------- kinds of turns
# Each returns (question, reasoning, answer).


def pseudo_word(rng):
    if not NOISE:
        return rng.choice(lex.WORDS)
    return "".join(rng.choice(lex.SYLLABLES) for _ in range(rng.randint(2, 3)))


def topic_turn(rng, key=None):
    key = key or rng.choice(list(TOPICS))
    topic = TOPICS[key]
    if topic["do"] and (rng.random() < 0.72 or not topic["ask"]):
        v = expand(rng, rng.choice(topic["do"]))
        text = expand(rng, rng.choice(FRAMES)).replace("{v}", v).replace("{g}", gerund(v))
    else:
        text = expand(rng, rng.choice(topic["ask"]))
    answer = topic["answer"]
    values = {
        "<N>": lambda: rng.choice(topic["number"]) if rng.random() < 0.5 or "." in topic["number"][0] else str(rng.randint(1, 999)),
        "<NAME>": lambda: rng.choice(lex.SESSION_NAMES) if rng.random() < 0.6 else pseudo_word(rng),
        "<FILE>": lambda: rng.choice(lex.MODEL_FILES if topic.get("file") else lex.FILES),
    }
    fixed, keep = False, set()
    for mark, draw in values.items():
        if mark in text:
            value = draw()
            text, answer, fixed = text.replace(mark, value), answer.replace(mark, value), True
            keep.add(value)
        answer = answer.replace(mark, mark[1:-1])
    gist = topic["gist"]
    reason = f"The user wants to {gist}."
    return vary(rng, text, fixed, keep), reason, answer


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
    text = expand(rng, rng.choice(EXPLAIN_ASK)).replace("{c}", shown)
    return vary(rng, text, keep_case=True), f"The user asks about {command}.", EXPLAIN[command]


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


def number(rng):
    return rng.randint(0, 20) if rng.random() < 0.25 else rng.randint(0, 99) if rng.random() < 0.5 else rng.randint(10, 999)


def arithmetic_turn(rng):
    kind = rng.random()
    if kind < 0.4:
        a, b = number(rng), number(rng)
        text, reason, answer = rng.choice(PLUS), add_reasoning(a, b), f"{a} + {b} = {a + b}."
    elif kind < 0.75:
        a, b = sorted([number(rng), number(rng)], reverse=True)
        text, reason, answer = rng.choice(MINUS), subtract_reasoning(a, b), f"{a} - {b} = {a - b}."
    else:
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        reason = f"{a} * {b} is {a * b}."
        if rng.random() < 0.25:
            a, b = rng.randint(11, 99), rng.randint(2, 9)
            tens, ones = a // 10 * 10, a % 10
            reason = f"{a} * {b}: {tens} * {b} = {tens * b}, {ones} * {b} = {ones * b}, {tens * b} + {ones * b} = {a * b}."
        text, answer = rng.choice(TIMES), f"{a} * {b} = {a * b}."
    text = expand(rng, text).replace("{a}", str(a)).replace("{b}", str(b))
    return vary(rng, text), reason, answer


UNKNOWN_ASK = [
    "what is the (capital|population|flag|language|currency|area|history|climate|president|highest mountain|largest city|national dish|king|longest river) of {place}\\?",
    "who (is|was|are|killed|invented|discovered|married|painted|founded|wrote about|taught|likes|met) {person}\\?", "when (was|did) {person} (born|die|live|famous|write this)\\?",
    "who (invented|discovered|wrote|built|painted|made|won|likes|owns|sells|paid for|started|ended) {thing}\\?", "what (is|are|was|were|causes|means|do you think of|do you know about) {thing}\\?",
    "(explain|describe|define|tell me about|tell me something about|talk about|discuss|summarize) {thing}( to me| briefly| in detail|)", "how (does|do|did|old is|big is|far is|expensive is|important is|tall is|fast is) {thing}( work| start| end|)\\?",
    "why (is|are|was|do people like|do we need|did they build|do people hate) {thing}( important| so popular| blue| so expensive|)\\?",
    "(write|compose|make up|tell|give) (me |)(a|some|one) (poem|story|song|joke|essay|tale|haiku|letter|fairy tale|rhyme|novel|article|report) about {thing}",
    "(where|when) (is|was|are|can I buy|can I find|do I get|did they find) {thing}\\?", "where is {place}\\?", "how (big|far|old|warm|large|rich) is {place}\\?",
    "(which|what) {thing} (is|are) (best|better|the best|the oldest|cheaper)\\?", "do you (like|know|love|hate|understand|want|remember|believe in) {thing}\\?", "(who|which team|which country) (won|lost) the (world cup|war|election|race|match|final|championship|prize|game|league) in {year}\\?",
    "(what happened|who was king|who was president|what was invented|who ruled|what did people wear) in {year}( in {place}|)\\?", "what (will|is|was) the weather( be|) (like |)(tomorrow|today|in {place}|now|next week|yesterday)\\?",
    "(what|which) (day|date|year|time|month) is (it|today)( now|)\\?", "(what time|how late) is it( in {place}|)\\?",
    "translate {word} (into|to) (French|Spanish|German|Latin|Chinese|Russian|Italian|Greek)", "how do you (say|spell|write|pronounce) {word} in (French|Spanish|German|Latin|Chinese|Greek)\\?", "what does {word} mean\\?",
    "how do I {do}\\?", "how (can|could|should|would) I {do}\\?", "how to {do}(\\?|)", "(can you|please) (help me|show me how|tell me how|explain how) to {do}(\\?|)", "I want to {do}", "what is the best way to {do}\\?",
    "(what do I need|which tool do I need|is it hard|how long does it take|how much does it cost) to {do}\\?", "I (would like|need|'d like|have|am trying) to {do}(, how\\?|\\.|)", "{do}(\\?|, please| please|)",
    "(recommend|suggest|name|list|give) (me |)(a|some|three|five|a good|ten) (books|films|songs|restaurants|hotels|games|recipes|places|museums|restaurant|hotel|book|film|recipe|present|doctor|museum)( about {thing}| in {place}| for {thing}|)",
    "(is|are) {thing} (good|bad|dangerous|healthy|real|true|expensive|old|beautiful|alive)\\?", "(is|was) {person} (alive|dead|rich|married|happy|a good man|from {place})\\?", "how (old|tall|rich|famous|smart) (is|was) {person}\\?",
    "what (did|does|would) {person} (say|do|eat|think|invent|write|like|discover)( about {thing}|)\\?", "{thing}(\\?|\\.|)", "{place}(\\?|\\.|)", "{person}(\\?|\\.|)", "{word} {word2}(\\?|\\.|)",
    "(I am|I feel|she is|he is|they are|everybody is) (sad|happy|tired|bored|hungry|angry|sick|lonely|in love|afraid|cold|thirsty)", "(my|the|her|his) (car|dog|house|phone|boss|wife|husband|head|child|neighbour) (is|was|hurts|is very|makes me) (broken|sick|red|old|angry|loud|sad)",
    "who (will win|is) the (president|king|queen|chancellor|best player|richest man|tallest man|mayor|pope)( of {place}|)\\?", "how many (people|{thing}|days|bones|countries|stars|legs|miles|cities|languages|birds) (are there|live|exist)( in {place}|)\\?",
    "(do you think|is it true|I read|they say|I believe|did you know) that {thing} (is|are) (bad|good|dangerous|healthy|coming|over)(\\?|)", "(should I|can I|may I|must I) (eat|buy|sell|learn|study|try|read about|trust|avoid) {thing}\\?",
    "what (colour|color|size|shape|price|age|weight) (is|are|has|have) {thing}\\?", "what is the (meaning|price|origin|future|purpose|colour|name|definition|formula|speed|temperature|size|point) of {thing}\\?", "what's the (news|latest news|score|price of {thing}|weather)\\?", "{thing} (or|versus|against) {thing2}\\?",
    "(sing|dance|draw|paint|cook|fly|swim|jump|laugh) (for me|now|please|a picture|something)", "(a|the) (poem|joke|story|song|recipe|picture)( about {thing}| of {thing}| with {thing}|)(,| )please",
    "(how|why|when|where|who) (did|does|would|will|can) {person} (go|come|die|win|lose|know|start|leave)( to {place}|)\\?", "the (opposite|plural|past tense|synonym|root|history) of {word}(\\?|)", "(the boiling point|the chemical symbol|the density|the price|the discovery) of (gold|iron|{thing})(\\?|)",
    "(write|give me|show me) (a|some|the) (program|function|code|script|class|query|regular expression|web page) (in Python|in Java|in Rust|in C|for {thing}|that sorts numbers|for a game|to {do})", "(solve|prove|derive|integrate|differentiate|factor|simplify) (the equation|x squared|this|the theorem|the function|the integral)( of {thing}| please|)",
]


def unknown_turn(rng):
    if rng.random() < 0.03 and NOISE:
        text = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9)))
        return text, "I do not know about this.", UNKNOWN
    text = expand(rng, rng.choice(UNKNOWN_ASK))

    def fill(mark, words, pseudo):
        nonlocal text
        while mark in text:
            word = rng.choice(words).replace("_", " ")
            if mark == "{thing}" and rng.random() < 0.25:
                # Two words, often never seen together.
                word = f"{rng.choice(lex.FIELDS)} {word if rng.random() < 0.6 else pseudo_word(rng)}"
            if rng.random() < pseudo:
                word = pseudo_word(rng)
                word = word.capitalize() if mark in ("{place}", "{person}") else word
            text = text.replace(mark, word, 1)

    fill("{place}", lex.PLACES + lex.CITIES, 0.3)
    fill("{person}", lex.PEOPLE + lex.NAMES[:40], 0.3)
    fill("{thing}", lex.THINGS + lex.FOODS, 0.15)
    fill("{thing2}", lex.THINGS, 0.15)
    fill("{word}", lex.WORDS, 0.15)
    fill("{word2}", lex.WORDS, 0.2)
    fill("{do}", lex.ACTIVITIES, 0.0)
    fill("{year}", [str(y) for y in range(1400, 2030)], 0.0)
    return vary(rng, text), "I do not know about this.", UNKNOWN


SMALL_TALK = [
    (["hello", "hi", "hey", "good (morning|evening|day|afternoon)", "hello (there|ds4|nano|you)", "hi (there|ds4|nano)", "greetings", "hey there"],
     "The user says hello.", "Hello! Ask me about using DwarfStar, or give me a simple sum."),
    (["how are you( doing| today|)\\?", "how is it going\\?", "how do you do\\?", "are you (well|ok|fine)\\?", "what's up\\?", "how do you feel( today|)\\?"],
     "The user asks how I am.", "I am well, thank you. How can I help you with DwarfStar?"),
    (["thanks( a lot| very much|)", "thank you( very much| so much|)", "(great|perfect|good|nice|ok|cool|wonderful), thanks", "thx", "that (helps|helped|was helpful)( a lot|)", "(great|perfect|well done|good job|nice work|very good|excellent)( answer|)"],
     "The user thanks me.", "You are welcome."),
    (["bye", "goodbye", "see you( later| tomorrow| soon|)", "good night", "bye bye", "farewell", "so long"],
     "The user says goodbye.", "Goodbye! Type `/quit` to leave."),
    (["(yes|no|ok|okay|maybe|sure|fine|right|I see|good|hm|aha)"], "The user says little.", "Ask me about using DwarfStar, or give me a simple sum."),
]


def small_talk_turn(rng):
    texts, reason, answer = rng.choice(SMALL_TALK)
    return vary(rng, expand(rng, rng.choice(texts)) + rng.choice(["", "", "!", "."])), reason, answer


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


def fact_value(rng, kind):
    pool = {"name": lex.NAMES, "city": lex.CITIES, "colour": lex.COLOURS, "food": lex.FOODS, "word": lex.WORDS, "job": lex.JOBS, "pet": lex.PETS}
    if kind == "number":
        return str(rng.randint(0, 99) if rng.random() < 0.4 else rng.randint(100, 99999))
    # Words that are in no list teach copying rather than knowing.
    if rng.random() < 0.5 and kind != "job":
        word = pseudo_word(rng)
        if kind in ("word", "colour", "food") and rng.random() < 0.6:
            return rng.choice(lex.WORDS)
        return word.capitalize() if kind in ("name", "city", "pet") else word
    return rng.choice(pool[kind])


class Fact:
    """Something the user tells and asks back later."""

    def __init__(self, rng, kind=None):
        self.kind = kind or rng.choice(list(FACTS))
        self.value, self.animal = fact_value(rng, self.kind), rng.choice(lex.ANIMALS)
        if self.kind == "pet" and rng.random() < 0.3:
            self.animal = pseudo_word(rng)
        if rng.random() < 0.12:
            self.value = self.value.lower()
        self.keep = {self.value, self.animal}

    def fill(self, rng, text):
        british = rng.random() < 0.5
        text = text.replace("u?", "u" if british else "")
        return expand(rng, text).replace("{x}", self.value).replace("{a}", self.animal)

    def tell(self, rng):
        statements, reply = FACTS[self.kind][:2]
        text = self.fill(rng, rng.choice(statements))
        return vary(rng, text + rng.choice(["", ".", ".", "!"]), True, self.keep), "The user tells me something to remember.", self.fill(rng, reply)

    def ask(self, rng):
        _, _, questions, answer, gist, _ = FACTS[self.kind]
        return vary(rng, self.fill(rng, rng.choice(questions)), True, self.keep), self.fill(rng, f"From before: {gist}."), self.fill(rng, answer)

    def tell_and_ask(self, rng):
        statements, _, questions, answer, gist, _ = FACTS[self.kind]
        first, second = self.fill(rng, rng.choice(statements)), self.fill(rng, rng.choice(questions))
        joint = rng.choice([". ", ". ", ". ", ", ", "! ", ".\n", ". Now: ", ". And now: ", ". So, ", ". Now tell me: ", ". Question: "])
        text = first + joint + (second if rng.random() < 0.3 else second[:1].upper() + second[1:])
        return vary(rng, text, True, self.keep), self.fill(rng, f"From before: {gist}."), self.fill(rng, answer)

    def not_told(self, rng):
        questions, missing = FACTS[self.kind][2], FACTS[self.kind][5]
        return vary(rng, self.fill(rng, rng.choice(questions)), True, self.keep), "The user has not told me that.", self.fill(rng, missing)


# True in the second stage of training: more of what is harder (sums, recall, unknown subjects).
FOCUS = False


def any_turn(rng):
    roll = rng.random()
    if FOCUS and rng.random() < 0.5:
        return arithmetic_turn(rng) if rng.random() < 0.6 else unknown_turn(rng)
    if roll < 0.6:
        return topic_turn(rng)
    if roll < 0.7:
        return explain_turn(rng)
    if roll < 0.84:
        return arithmetic_turn(rng)
    if roll < 0.97:
        return unknown_turn(rng)
    return small_talk_turn(rng)


def conversation(rng):
    """-> dict(system, mode, turns [(question, reasoning, answer)])."""
    roll = rng.random()
    if roll < 0.72:
        turns = [any_turn(rng)]
        if rng.random() < (0.35 if FOCUS else 0.13):
            fact = Fact(rng)
            turns = [fact.tell_and_ask(rng) if rng.random() < 0.85 else fact.not_told(rng)]
    else:
        count = rng.choice([2, 2, 2, 3, 3, 4, 5, 6, 8, 10, 14, 20])
        kinds = rng.sample(list(FACTS), rng.choice([0, 1, 1, 2, 2, 3]))
        if "number" in kinds and "word" in kinds:
            kinds.remove("word")
        facts = [Fact(rng, k) for k in kinds]
        turns = []
        pending, told = list(facts), []
        for _ in range(max(count, 2 * len(facts))):
            roll = rng.random()
            if pending and roll < 0.4:
                told.append(pending.pop())
                turns.append(told[-1].tell(rng))
            elif told and roll < 0.62:
                turns.append(rng.choice(told).ask(rng))
            elif not facts and rng.random() < 0.04:
                turns.append(Fact(rng).not_told(rng))
            else:
                turns.append(any_turn(rng))
        if told and rng.random() < 0.7:
            turns.append(rng.choice(told).ask(rng))
    roll = rng.random()
    system = "" if roll < 0.5 else "You are a helpful assistant" if roll < 0.78 else rng.choice(SYSTEMS)
    mode = rng.choices(["think", "nothink", "max"], [0.52, 0.42, 0.06])[0]
    return {"system": system, "mode": mode, "turns": turns, "drop": rng.random() < 0.4}


# Reasoning that is the written working of a sum.
WORKING = re.compile(r"\d+ [-+*] \d+: ")


def pieces(talk):
    """A conversation as [(text, is the assistant's)], in the V4 chat encoding."""
    out = [(BOS + (MAX_EFFORT if talk["mode"] == "max" else "") + talk["system"], False)]
    for i, (question, reasoning, answer) in enumerate(talk["turns"]):
        last = i == len(talk["turns"]) - 1
        if talk["mode"] == "nothink" and WORKING.match(reasoning):
            answer = reasoning  # without thinking, the working of a sum is in the answer
        out.append((USER + question + ASSISTANT, False))
        if talk["mode"] == "nothink" or (talk["drop"] and not last):
            out += [(NOTHINK, False), (answer + EOS, True)]
        else:
            out += [(THINK, False), (reasoning + NOTHINK + answer + EOS, True)]
    return out


def normal(text):
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def held_out():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "heldout.jsonl")
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def encode(tokenizer, talk):
    """-> (ids, flags): flag 1 where a token is the assistant's."""
    ids, flags = [], []
    for text, ours in pieces(talk):
        part = tokenizer.encode(text, add_special_tokens=False).ids
        ids += part
        flags += [int(ours)] * len(part)
    return ids, flags


def generate(seed, count, excluded):
    """`count` conversations without any held-out question, from one seed."""
    rng = random.Random(seed)
    out = []
    while len(out) < count:
        talk = conversation(rng)
        if not any(normal(q) in excluded for q, _, _ in talk["turns"]):
            out.append(talk)
    return out


# Short questions that anybody would ask; they may be in both sets, and are marked in the report.
def excluded_questions():
    return {normal(item["question"]) for item in held_out()}


if __name__ == "__main__":
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    for item in generate(seed, int(sys.argv[2]) if len(sys.argv) > 2 else 30, excluded_questions()):
        print("".join(text for text, _ in pieces(item)), "\n")
