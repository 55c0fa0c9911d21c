"""Sums in words of all kinds, and told as stories that are put together from events; for the training alone."""

import re
import lexicon as lex
from phrasing import expand, fill, pseudo_word

OBJECTS = """apples pears marbles stamps books coins eggs cards pencils shells stones buttons beads cookies nuts plums tickets photos
bolts nails cups plates toys keys ribbons candles oranges lemons potatoes tomatoes leaves flowers stickers balloons bottles
letters chairs tables sheep ducks hens fish magnets screws tiles bricks socks gloves spoons forks pens crayons badges
postcards biscuits carrots onions cherries grapes pebbles feathers lamps ropes planks jars boxes parcels""".split()
BOXES = ["box", "bag", "basket", "crate", "tray", "jar", "case", "drawer", "bucket", "pack", "packet", "sack", "row", "bundle", "tin", "set", "pile", "carton"]
PLACES = ["in the shop", "on the table", "in the cellar", "in the garden", "at school", "on the shelf", "in the kitchen", "at the market", "in the van", "on the ship", "in the hall", "in the library", "behind the house"]
TIMES = ["day", "week", "hour", "month", "morning", "evening", "night", "lesson", "trip", "round", "minute", "year"]

STARTS = [
    "{n} (starts with|owns|begins with|collects|keeps|holds|carries|counts|brings|had|got) {a} {t}\\.", "(At first|In the beginning|Yesterday|Today|This morning) {n} (has|had|owns|counts) {a} {t}\\.", "{a} {t} (are|lie|were) {p}\\.",
    "There (are|were) {a} {t} {p}\\.", "{n} (has|keeps|finds) {a} {t} {p}\\.", "We (have|own|count|see) {a} {t} {p}\\.", "I (have|own|had|bought) {a} {t}\\.", "(A|The) (shop|farmer|teacher|family|club|baker) (has|had|owns) {a} {t}\\.",
    "The number of {t} {p} is {a}\\.", "{n} and {m} (own|have|share) {a} {t}\\.", "{a} {t} (belong to|are owned by) {n}\\.", "Someone left {a} {t} {p}\\.",
]
GAINS = [
    "{m} (brings|gives|adds|sends|lends) (another |)({b}|{b} more)\\.", "Then {b} (more are added|are added|more come|more arrive|come back|are found)\\.", "(Later|Then|After that|Next|Soon) {he} (buys|finds|gets|makes|wins|receives|picks up|takes|orders) {b} (more|others|new ones|{t})\\.", "Another {b} (arrive|come|are bought|are put there|follow)\\.",
    "{b} (new ones|others|more|further {t}) (come|arrive|are delivered|join them)\\.", "{He} (adds|gets|earns|collects) {b}( more| from {m}|)\\.", "(From|Through) {m} (come|there are|we get) {b} more\\.", "(The number|It) (rises|grows|goes up) by {b}\\.", "{He} (is given|is sent) {b}( as a present| by {m}|)\\.",
]
LOSSES = [
    "(Then|Later|After that|Next) {he} (loses|sells|uses|eats|drops|spends|breaks|returns|gives away|throws away) {c}( of them|)\\.", "{m} (takes|borrows|steals|buys|gets|wants|needs) {c}( of them|) (away|)\\.", "{c} (of them |)(break|are broken|are lost|are missing|are sold|are used up|are taken away|disappear|fall down|go to {m}|have to go)\\.",
    "{He} (gives|hands|sends|lends|passes|sells) {c}( of them|) to {m}\\.", "(The number|It) (falls|goes down|drops) by {c}\\.", "(Sadly|But|Now) {c} (are gone|are bad|were stolen|get lost)\\.", "{He} (puts {c} away|leaves {c} behind|cannot use {c})\\.", "{c} fewer (are there|remain) after (lunch|a day|the storm)\\.",
]
PACK_GAINS = [
    "(Then|Later|Next) {he} (buys|gets|finds|orders) {q} {x}s (of|with|holding) {k}( each|)\\.", "{m} (brings|gives|sends) {q} {x}s with {k} (each|in each|{t} each)\\.", "{q} {x}s of {k} (are added|arrive|come)\\.", "(For|During) {q} {w}s {k} more come (every|each|per) {w}\\.",
    "{He} (makes|collects|finds) {k} (a|every|each|per) {w} for {q} {w}s\\.",
]
PACK_LOSSES = [
    "{He} (gives|hands|sells) {k} to each of {q} (friends|children|people|guests)\\.", "(Each|Every one) of {q} (friends|children|guests|people) (takes|gets|eats|buys) {k}\\.", "{q} {x}s (of|with) {k}( each|) are (sold|lost|taken away|given away)\\.", "(For|During) {q} {w}s {he} (uses|eats|loses|sells) {k} (every|each|a|per) {w}\\.",
]
ENDS = [
    "How many {t} (are there|are there now|does that make|are there in the end|is that|remain|are there at last)\\?", "How many (are left|remain|are there now|is it now|are there in the end|are still there)\\?", "What is the number of {t} (now|in the end|after that)\\?", "How many {t} (do we have|can we count|do we count) (now|in the end|at the end)\\?",
    "(Count|Find|Work out|Tell me) (how many {t} there are now|the number of {t} in the end|how many there are|the {t} that are there now)\\.", "(And now|So|In the end)\\: how many {t}\\?", "With how many {t} does (it|the story|the day) end\\?",
]
# (text, steps) as in `arithmetic.STORIES`.
TOLD = [
    ("{n} (owns|keeps|counts) {a} {t}(,| and) {m} {b} more( than that|)\\. How many (does {m} own|has {m}|belong to {m})\\?", ["a+b"]),
    ("{n} (owns|keeps|counts) {a} {t}(,| and) {m} {c} (fewer|less)( than that|)\\. How many (does {m} own|has {m}|belong to {m})\\?", ["a-c"]),
    ("{m} has {c} {t} (fewer|less) than {n}, who has {a}\\. How many (do both have|do the two have together|is that for both)\\?", ["a-c", "a+r1"]),
    ("{n} has {k} {t}, {m} (has|owns) {q} times as many\\. How many (does {m} have|are with {m}|has {m})\\?", ["k*q"]),
    ("{n} has {k} {t}, {m} (has|owns) {q} times as many\\. How many (do both have|do the two have together|is that in sum)\\?", ["k*q", "k+r1"]),
    ("{m} was born {b} years before {n}, who is {a}( years old|)\\. (What is the age of {m}|What age has {m})\\?", ["a+b"]),
    ("{n} is {a}, {m} is {c} years younger\\. (How old is {m}|What is the age of {m})\\?", ["a-c"]),
    ("In {b} years {n} will be how old, if {he} is {a} (now|today)\\?", ["a+b"]),
    ("{n} (wants|plans|has) to (collect|make|read|pack) {z} {t}\\. So far {he} has {a}\\. How many (more must come|more are needed|are still to come|does {he} lack)\\?", ["z-a"]),
    ("{n} (saves|saved) {a} coins and gets {c} from {m}\\. (A|The) {o} costs {z}\\. How many coins (does {he} lack|must {he} still save|does {he} still need)\\?", ["a+c", "z-r1"]),
    ("(A|One) {o} costs {k} coins\\. What (do|will) {q} of them cost\\?", ["k*q"]),
    ("(A|One) {o} costs {k} coins, a {x} costs {b}\\. What (do|will) {q} {o}s and one {x} cost( together|)\\?", ["k*q", "r1+b"]),
    ("{n} (pays|spends) {a} coins (on|for) {t} and {b} (on|for) a {x}\\. How many coins (does {he} spend|does that cost|is that) (together|in sum|in all)\\?", ["a+b"]),
    ("{n} (pays|spends) {c} of {his} {a} coins( at the market| in the shop|)\\. What (remains|is left|does {he} keep)\\?", ["a-c"]),
    ("{n} (goes|went) shopping with {z} coins and (pays|spends) {k} for each of {q} {t}\\. (What remains|How many coins remain|What is left)\\?", ["k*q", "z-r1"]),
    ("{n} (earns|saves|gets) {k} coins (a|every|each|per) {w}\\. How many (is that|coins does {he} have) after {q} {w}s\\?", ["k*q"]),
    ("{n} has {a} coins and (earns|saves|gets) {k} (a|every|each|per) {w}\\. How many (coins are there|does {he} have) after {q} {w}s\\?", ["k*q", "a+r1"]),
    ("{n} (paints|walks|swims|writes|solves) {k} (pages|miles|tasks|lines|rounds) (a|every|each|per) {w}\\. How many in {q} {w}s\\?", ["k*q"]),
    ("(A|The) (hall|room|bus|train|cinema) has {q} rows (of|with) {k} seats\\. How many seats (are there|has it|is that)\\?", ["k*q"]),
    ("(A|The) (hall|room|cinema|plane) has {q} rows of {k} seats(,| and) {e} (are taken|are full|are broken)\\. How many (are free|seats are free|can be used)\\?", ["k*q", "r1-e"]),
    ("{q} (friends|children|people|teams) (share|divide|split) {s} {t} (fairly|in equal parts|so that all get the same)\\. How many (for each|does each of them have|are there for one)\\?", ["s/q"]),
    ("{s} {t} (are put|go|are sorted) into {q} {x}s, the same number in each\\. How many (are in one|are in each {x}|does a {x} hold)\\?", ["s/q"]),
    ("{s} {t} (are put|go) into {q} {x}s, the same number in each\\. {b} more are (put into|added to) the first {x}\\. How many are in (it|the first {x})\\?", ["s/q", "r1+b"]),
    ("How many {x}s of {q} {t} can (be filled|{n} fill|one make) (from|with|out of) {s} {t}\\?", ["s/q"]),
    ("{n} (has|brings) {q} {x}s of {k} {t}, {m} (has|brings) {a} {t}\\. How many (do they have|is that|are there) (in sum|for both|together)\\?", ["k*q", "r1+a"]),
    ("{n} (has|brings) {q} {x}s of {k} {t}, {m} {g} {x}s of {h}\\. How many {t} (do they have|is that|are there) (in sum|for both|together)\\?", ["k*q", "g*h", "r1+r2"]),
    ("{a} (people|birds|children|guests) are (in the room|in the park|at the party|on the roof)\\. {c} (leave|go|go home|walk away)\\. How many (stay|are still there|remain)\\?", ["a-c"]),
    ("{a} (people|birds|children|guests) are (in the room|in the park|at the party|on the roof)\\. {b} (come|join them|arrive)(, then|, and) {d} more\\. How many (is that|are there now)\\?", ["a+b", "r1+d"]),
    ("(A|The) (bus|tram|boat|ship|train) (carries|starts with) {a} people\\. {c} leave it(,| and) {b} (come on board|get on)\\. How many (does it carry now|are on it now|travel on)\\?", ["a-c", "r1+b"]),
    ("(A|The) (rope|road|wall|board|cable) is {a} metres long\\. {n} cuts off {c}\\. How (long is the rest|many metres are left)\\?", ["a-c"]),
    ("(One|The first) (rope|road|wall|board|cable) is {a} metres long, (another|the second) {b}\\. (How long are they|What is the length of both) (together|in sum|in all)\\?", ["a+b"]),
    ("{n} (sold|read|wrote|made|found|counted) {a} {t} on (Monday|Friday|one day) and {b} on (Tuesday|Sunday|the next)\\. (What is the sum|How many is that in sum|How many were it)\\?", ["a+b"]),
    ("{n} (has read|has written|has done) {c} of {a} pages\\. How many (are left|pages are left|does {he} still have to do)\\?", ["a-c"]),
    ("(Of|Out of) {a} {t}, {c} are (red|broken|old|sold|wet)\\. How many are not\\?", ["a-c"]),
    ("{n} has {a} red, {b} blue and {d} green {t}\\. How many( {t}|) (is that|does {he} have|are there)( together| in sum|)\\?", ["a+b", "r1+d"]),
    ("{n} (picks|collects|finds) {a} {t}, {m} {b}, and they (eat|lose|sell) {e} of them\\. How many (are left|do they keep|remain)\\?", ["a+b", "r1-e"]),
]


# Ways to ask for the value of an expression.
ASKS = [
    "{e} makes what\\?", "(the |)(answer|solution) (to|of|for) {e}(\\?|, please|)", "(the |)outcome of {e}(\\?|)", "I wonder what {e} (gives|makes|is)(\\.|)", "(my homework|the exercise|the task|the next one) (says|is|asks for) {e}(\\.|)", "(quick|fast|now|next|easy|and)\\: {e}(\\?|)", "do {e}( now|)",
    "{e} - what (is that|does it give|comes out)\\?", "(can|could) you (tell|see|say) what {e} (comes to|makes|is)\\?", "so (what is|how much is|what does it make)\\: {e}( now|)\\?", "how many is {e}\\?", "if I (type|put|enter) {e} into a (pocket |)calculator, what does it (show|say)\\?", "help me with {e}(\\.|, please|)", "(reckon|total|do|check) {e}(\\.|)",
    "{e} (=|is) what\\?", "(what|which) number (is|equals|do we get for) {e}\\?", "(give|state|write|name) the (value|number)\\: {e}", "I need help with (the sum |){e}", "(tell|show) me what {e} (amounts to|makes|gives)", "{e} (equals|is) which number\\?", "(a sum|a question|a task|one more)( for you|)\\: {e}", "(in my head|on paper) I cannot do {e}\\. You\\?",
    "(we|I) (have|had|need) {e}\\. (What is it|How much|What does that make|Result)\\?", "let('s| us) (do|see)\\: {e}", "suppose we (take|have) {e}, what is (it|that)\\?", "(someone|my son|my teacher) asks\\: {e}\\?", "the (number|figure) that {e} (gives|makes)(\\?|)", "(with|by) a calculator, {e} is\\?", "{e}\\. (Answer|Result|How much|And)\\?", "how would you (do|solve) {e}\\?",
]
SIGNS = {"+": ["+", "+", "plus"], "-": ["-", "-", "minus"], "*": ["*", "*", "x", "times", "×"], "/": ["/", "/", "divided by", ":", "÷"]}


def ask(rng, expression):
    """A question for the value of `expression`, its signs and spaces in a way of their own."""
    signs = {sign: rng.choice(ways) for sign, ways in SIGNS.items()}
    shown = re.sub(r" ([-+*/]) ", lambda m: f" {signs[m[1]]} ", expression)
    if rng.random() < 0.25 and not re.search("[a-z]{2}", shown):
        shown = shown.replace(" ", "")
    return expand(rng, rng.choice(ASKS).replace("{e}", "\x03")).replace("\x03", shown)


def names_of(rng, low=5, high=99):
    q, k = rng.randint(2, 9), rng.randint(2, 12)
    a = rng.randint(low, high)
    return {"a": a, "b": rng.randint(2, 60), "d": rng.randint(2, 60), "e": rng.randint(1, 12), "q": q, "k": k, "g": rng.randint(2, 9), "h": rng.randint(2, 12), "s": q * k,
            "z": rng.randint(60, 250), "c": rng.randint(1, a - 1)}


def told(rng):
    """-> (text, steps, numbers) of a story as a whole."""
    text, steps = rng.choice(TOLD)
    return text, steps, names_of(rng)


def events(rng):
    """-> (text, steps, numbers): a start, one to four events, a question."""
    a = rng.randint(5, 99) if rng.random() < 0.8 else rng.randint(100, 400)
    parts, steps, numbers, now, value = [rng.choice(STARTS)], [], {"a": a}, "a", a
    for i in range(rng.choice([1, 1, 2, 2, 2, 3, 3, 4])):
        roll = rng.random()
        k, q = rng.randint(2, 12), rng.randint(2, 9)
        packed = rng.random() < 0.25
        amount = k * q if packed else rng.randint(1, 60) if rng.random() < 0.9 else rng.randint(61, 250)
        gain = roll < 0.5 or amount > value
        text = rng.choice((PACK_GAINS if gain else PACK_LOSSES) if packed else GAINS if gain else LOSSES)
        for mark, number in (("k", k), ("q", q)) if packed else (("b" if gain else "c", amount),):
            text = text.replace("{%s}" % mark, "{%s%d}" % (mark, i))
            numbers[f"{mark}{i}"] = number
        if packed:
            steps.append(f"k{i}*q{i}")
        other = f"r{len(steps)}" if packed else f"b{i}" if gain else f"c{i}"
        steps.append(f"{now}{'+' if gain else '-'}{other}")
        now, value = f"r{len(steps)}", value + amount if gain else value - amount
        parts.append(text)
    return " ".join([*parts, rng.choice(ENDS)]), steps, numbers


def composed(rng):
    """-> (text, steps, numbers), the text without marks."""
    text, steps, numbers = (events if rng.random() < 0.6 else told)(rng)
    person, other = (pseudo_word(rng).capitalize() if rng.random() < 0.3 else name for name in rng.sample(lex.NAMES, 2))
    he, his = rng.choice([("he", "his"), ("she", "her")])
    t, x = rng.choice(OBJECTS), rng.choice(BOXES)
    marks = {"n": person, "m": other, "he": he, "He": he.capitalize(), "his": his, "t": t, "x": x, "o": rng.choice(["lamp", "book", "ticket", "chair", "bike", "radio", "bag", "pen", "map", "cup"]),
             "p": rng.choice(PLACES), "w": rng.choice(TIMES)}
    text = fill(expand(rng, text), {**numbers, **marks})
    return text.replace("boxs", "boxes").replace("  ", " ").replace(" .", "."), steps, numbers
