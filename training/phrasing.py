"""How things are said: grammar strings, their split into training and evaluation, politeness and slips.

A grammar string chooses with `(a|b|)`, nestable; a backslash protects a character. A list of them is
split by a stable hash: about one in eight is never used in training, and `SPLIT = "eval"` uses only those.
Invented words are split in the same way.
"""

import re
import zlib

import lexicon as lex

# "train" or "eval".
SPLIT = "train"
# False for the tokenizer's corpus: no typos, no capitals throughout.
NOISE = True
# Shorter lists are used whole in both parts.
LEAST_SPLIT = 5

_parts = {}


def held(text):
    """Whether a phrasing or a word belongs to the evaluation."""
    return zlib.crc32(text.encode()) % 8 == 0


def part(templates):
    """The templates of the present part of the split."""
    key = (id(templates), SPLIT)
    if key not in _parts:
        wanted = [t for t in templates if held(str(t)) == (SPLIT == "eval")]
        use = wanted if wanted and len(templates) >= LEAST_SPLIT else list(templates)
        _parts[key] = (templates, use)  # keeps the list alive, so that its id stays its own
    return _parts[key][1]


def choose(rng, templates):
    return rng.choice(part(templates))


_ALTERNATIVES = re.compile(r"\(([^()]*)\)")


def expand(rng, text):
    """One random expansion of a grammar string."""
    while True:
        match = _ALTERNATIVES.search(text)
        if not match:
            if "\\" in text:
                text = text.replace("\\", "")
            return text.replace("  ", " ").strip()
        text = text[: match.start()] + rng.choice(match[1].split("|")) + text[match.end() :]


def say(rng, templates, **values):
    """A phrasing of the present part, expanded, its {marks} filled in one pass."""
    text = expand(rng, choose(rng, templates))
    return fill(text, values)


_MARK = re.compile(r"\{(\w+)\}")


def fill(text, values):
    return _MARK.sub(lambda m: str(values[m[1]]) if m[1] in values else m[0], text)


def escaped(text):
    """A regular expression for just this text, in every dialect."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


ONSETS = """b d f g h k l m n p r s t v w z""".split()
CLUSTERS = """br dr fl gr kl pl sk st tr th sh ch qu j""".split()
VOWELS = "a e i o u a e i o u ai oo".split()
CODAS = "n r l s x m t nd lt rk sh".split()


def syllable(rng):
    roll = rng.random()
    text = (rng.choice(ONSETS) if roll < 0.8 else rng.choice(CLUSTERS)) + rng.choice(VOWELS)
    return text + rng.choice(CODAS) if rng.random() < 0.3 else text


# Words of sentences, which no name may be.
COMMON = set("""the and for with from that this what who does did not say know have has told you your are was its use call run
set get let tell give where when which how can could with all one two but they him her his she""".split())
# In training, the part of the invented words that are strange ones. Those of the syllables above are so few
# that a model learns which of them there are, and holds those that it never met for wrong.
STRANGE = 0.0
# Parts of the vocabulary in letters, for strange words.
PIECES = []


def strange_word(rng):
    """Letters, syllables of any kind, or pieces of the vocabulary put together."""
    roll = rng.random()
    if roll < 0.2:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 8)))
    if roll < 0.5 or not PIECES:
        onsets = rng.choice(["bcdfghjklmnpqrstvwxyz", ONSETS + CLUSTERS])
        codas = rng.choice(["bcdfgklmnprstxz", CODAS])
        return "".join(
            (rng.choice(onsets) if rng.random() < 0.9 else "") + rng.choice(VOWELS if rng.random() < 0.8 else "aeiouy") + (rng.choice(codas) if rng.random() < 0.3 else "")
            for _ in range(rng.choice([1, 2, 2, 2, 3, 3, 4]))
        )
    if roll < 0.65:  # as usual, and changed a little
        word = list(syllable(rng) + syllable(rng))
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.randrange(len(word))
            word[at : at + rng.choice([0, 1, 1])] = rng.choice("abcdefghijklmnopqrstuvwxyz")
        return "".join(word)
    return "".join(rng.choice(PIECES) for _ in range(rng.choice([1, 2, 2, 2, 3])))


def pseudo_word(rng):
    """A word that is in no list: it can only be copied."""
    while True:
        if STRANGE and SPLIT == "train" and rng.random() < STRANGE:
            word = strange_word(rng)
            if not 3 <= len(word) <= 14 or word in COMMON:
                continue
        else:
            word = syllable(rng) + syllable(rng)
            if rng.random() < 0.35:
                word += syllable(rng)
        if held(word) == (SPLIT == "eval"):
            return word


# ---------------------------------------------------------------- questions of "how do I"

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
    "(any idea|no clue|remind me|I can't figure out|could somebody explain|I keep forgetting|please tell me|what's the trick,|I never learnt|I'd love to know) how to {v}(\\?|)",
    "(newbie|beginner|stupid|simple|short|another) question\\: how do I {v}\\?",
    "is {g} (possible|supported|hard|allowed|something that ds4 can do)\\?( How\\?|)",
    "(does|can) (ds4|DwarfStar|it|the program) (support|do|handle|manage) {g}\\?",
    "(my goal is|the idea is|my plan is|what I want is|all I want is|my boss wants me) to {v}(\\.|, what do I run\\?|\\. Which command does that\\?|)",
    "(for {g}|to {v}), (what do I run|what do I type|do I need a flag|which command is there|what is the way|which option is it)\\?",
    "(steps|instructions|recipe|guide|how-to|commands) (to {v}|for {g})(\\?|, please|)",
    "(where is|where's|is there) the (option|command|switch|setting|flag) (to {v}|for {g})\\?",
    "(I've|I have) been trying to {v} (for an hour|all day|without success|in vain)(\\.|, help|, how does it work\\?|)",
    "(somebody|someone|a friend|my colleague) (asked me|wants|told me) to {v}(\\.|, how\\?|, which command is that\\?|)",
    "(which of the commands|which one of your commands|which part of ds4) (is for {g}|lets me {v}|is used to {v})\\?",
    "before I (forget|leave|start)\\: how do I {v}\\?",
    "(how do you|how does anybody|how can somebody like me) {v}(\\?| here\\?| in ds4\\?)",
    "what would (you|I|one) (type|do|run|use) to {v}\\?",
    "{v}\\. (How|Which command|What do I type|Possible|Which flag)\\?",
    "it would be (nice|good|great) to {v}(\\.|, how\\?|, is that possible\\?|)",
]
OPENERS = ["please, ", "hi, ", "hello, ", "hey, ", "hi! ", "ok, ", "so, ", "quick question: ", "one question: ", "sorry, ",
           "excuse me, ", "well, ", "good morning, ", "hey ds4, ", "another question: ", "now, ", "and ", "also, ", "hmm, "]
POLITE = [" please", " thanks", " thank you", ", please"]
CLOSERS = POLITE + [" in ds4", " with ds4", " in DwarfStar", " with DwarfStar", " here",
           " from the command line", " in the terminal", " on the command line", " in this program", " with this tool"]
IRREGULAR = {"get": "getting", "set": "setting", "put": "putting", "cut": "cutting", "let": "letting", "run": "running",
             "stop": "stopping", "quit": "quitting", "begin": "beginning", "split": "splitting", "drop": "dropping",
             "plan": "planning", "log": "logging", "swap": "swapping", "cap": "capping", "chat": "chatting", "dump": "dumping",
             "see": "seeing", "skip": "skipping", "sit": "sitting", "fit": "fitting", "shut": "shutting", "keep": "keeping",
             "tie": "tying", "be": "being", "swim": "swimming", "not": "not"}


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


def vary(rng, text, keep_case=False, keep=(), closers=POLITE):
    """Politeness, casing, punctuation and typos on a finished question; the words of `keep` stay."""
    if rng.random() < 0.1:
        text = rng.choice(OPENERS) + text
    if rng.random() < 0.1:
        mark = text[-1] if text[-1] in "?.!" else ""
        text = text[: len(text) - len(mark)] + rng.choice(closers) + mark
    if NOISE and rng.random() < 0.13:
        text = typo(rng, text, keep)
    roll = rng.random()
    if roll < 0.62:
        text = text[:1].upper() + text[1:]
    elif roll < 0.8 and not keep_case:
        text = text[:1].lower() + text[1:] if roll < 0.72 else text.lower()
    elif NOISE and roll > 0.985 and not keep_case:
        text = text.upper()
    if rng.random() < 0.2:
        text = text.rstrip("?.! ")
    elif rng.random() < 0.1 and text[-1].isalnum():
        text += rng.choice("?.!")
    return text
