"""Requests put together from parts, around keys and texts or tools and values; for the training alone.

A list of whole phrasings is soon known by heart, and then no other is understood.
"""

from phrasing import expand, fill

# ---------------------------------------------------------------- JSON

DO = ["(extract|take|pull out|collect|fetch|gather|pick out|list|note|find|determine|get out) ", "(give|hand|send|show|bring|make|produce|create|write|prepare|form) (me |)", "(I want|I'd like|we need|one wants|I am looking for|let me have|there should be) ", "(please |now |kindly )(extract|return|output|print|build|give|make|produce) ",
      "your (task|job|output|answer) (is|should be|must be)\\: ", "(answer|reply|respond|come back) with ", "(output|result|wanted|task|to do|format)\\: ", "(can|could|would) you (extract|return|give|make|write|find) ", "(summarize|describe|represent|encode|express|store|save|rewrite) it as ", "(what I need|all I need|the goal) is "]
JSON = ["JSON", "a JSON object", "one JSON object", "an object in JSON", "valid JSON", "a JSON record", "JSON only", "just JSON", "an object (JSON)", "a small JSON", "JSON data", "json", "plain JSON"]
WITH = [" with {keys}", " having {keys}", " containing {keys}", " that has {keys}", " whose (fields|keys|members|entries|properties) are {keys}", " with the (fields|members|entries|properties|attributes|names) {keys}", "\\: {keys}", " ({keys})", " (of|for|about) {keys}", " made of {keys}", ", (keys|fields)\\: {keys}",
        " under the (names|keys) {keys}", " that holds {keys}", ", exactly these keys\\: {keys}", " [{keys}]", " limited to {keys}", " with {keys} and nothing else", " listing {keys}", " filled with {keys}"]
FIRST = ["{keys}", "the (fields|values|properties) {keys}", "(fields|keys|wanted|columns)\\: {keys}\\.", "{keys}, (as|in) JSON", "only {keys}"]
BY = [" (by|after|along|under|following|according to|in line with|using) (the|this) schema {schema}", " (valid for|that fits|shaped like|of the form|obeying|conforming to) {schema}", "\\. (The schema|Form|Its schema|Shape|Format)\\: {schema}", " with {schema} as its (form|shape|description)", " (for|by) {schema}", "\\: {schema}"]
TEXT = ["{text}", "{text}", '"{text}"', "(Text|Input|Note|Message|Source|Document|Data|Mail|The text|Content)\\: {text}", "(Text|Input|Message|Note|Source)\\:\n{text}", "---\n{text}\n---", "<text>{text}</text>", "(Here is|This is|Here comes|Take|Look at|Given|See) (the|this|a) (text|note|message|report|mail)\\:\n{text}", "'{text}'", "> {text}", "(Someone wrote|I got this|It says|They say|I read)\\: {text}", "```\n{text}\n```"]
BETWEEN = ["\n", "\n\n", " ", "\n\n", "\n\n\n", "\n---\n"]
SIDES = ["", "", "", "", "(from|out of|for|of|about|to) (the text|this text|this|the note|the message|what follows|the following)", "(from|out of|for|of|about) (it|that|the above|the text above|this)"]


def capital(text):
    return text[:1].upper() + text[1:]


def around(rng, instruction, text):
    """The instruction before or behind the text."""
    shown = expand(rng, rng.choice(TEXT).replace("{text}", "\x03")).replace("\x03", text)
    end = rng.choice([".", ":", "", "."])
    if rng.random() < 0.5:
        return instruction + (end if instruction[-1].isalnum() else "") + rng.choice(BETWEEN) + shown
    return shown + rng.choice(BETWEEN) + instruction + ("." if end == "." and instruction[-1].isalnum() else "")


def filled(rng, template, **values):
    """Expanded, then filled: values may hold any sign."""
    return fill(expand(rng, template), values)


def keys_request(rng, keys, text):
    roll = rng.random()
    if roll < 0.12:
        instruction = filled(rng, rng.choice(FIRST), keys=keys)
    else:
        side = rng.choice(SIDES)
        instruction = expand(rng, rng.choice(DO)) + " "
        if rng.random() < 0.35:
            instruction += filled(rng, rng.choice(["{keys}", "the (fields|values|data|entries) {keys}"]), keys=keys) + " " + expand(rng, side) + " " + rng.choice(["as ", "in ", "into ", "in the form of "]) + rng.choice(JSON)
        else:
            instruction += f"{rng.choice(JSON)} {expand(rng, side)} {filled(rng, rng.choice(WITH), keys=keys)}"
        instruction = instruction.replace("  ", " ").replace(" :", ":").replace(" ,", ",").strip()
    return around(rng, capital(instruction) if rng.random() < 0.8 else instruction, text)


def schema_request(rng, schema, text):
    roll = rng.random()
    if roll < 0.2:
        instruction = filled(rng, rng.choice(["(Form|Shape|Use this schema|Wanted|Structure)\\: {schema}", "{schema}", "(I need|Make|Return) this\\: {schema}"]), schema=schema)
    else:
        instruction = expand(rng, rng.choice(DO)) + " " + rng.choice(JSON)
        instruction = capital(f"{instruction} {filled(rng, rng.choice(BY), schema=schema)}".replace(" :", ":").replace(" .", ".").replace("  ", " "))
    return around(rng, instruction, text)


def format_request(rng, text):
    instruction = expand(rng, rng.choice([
        "(Please |Now |)(fill|complete) the (form|object|fields|record)", "(As|In|To) JSON(, please|)", "(Do|Give) what the (schema|format) (asks|wants)", "(What|Which) (values|data) (are|do you find) in (it|there)\\?", "(Take|Collect|Gather|Pick out) the (facts|values|details)",
        "(Make|Build|Write) the (object|record)", "(Parse|Process|Analyse|Convert) (it|this)", "(Structured|JSON) (output|answer)(, please|)", "(Answer|Reply) in the (given|wanted) (form|format)",
    ]))
    return around(rng, instruction, text)


# ---------------------------------------------------------------- tools

PAIRS = ["{k}={v}", "{k} is {v}", "{k} should be {v}", "{v} for {k}", "{k} equal to {v}", "{k} being {v}", "{v} ({k})", "{v} in {k}", "a {k} of {v}", "{k} -> {v}", "`{k}` {v}", "{k} as {v}", "{v} goes into {k}", "my {k} {v}", "{k} must be {v}", "{k} to be {v}", "its {k}: {v}", "({k}) {v}", "{v} is the {k}", "{k} - {v}", "{k} gets {v}", "take {v} for the {k}", "{k} with {v}"]
CALLS = [
    "{tool}({pairs})", "run {tool} {pairs}", "(execute|trigger|fire|start|launch|activate|employ) {tool}( now|)(, arguments|, parameters|,|\\:| -| and) {pairs}", "[{tool}] {pairs}", "(I'd like|I want|we need|get) {tool} (called|run|started|used)(;|,|\\:) {pairs}", "do {tool}\\. {pairs}", "(arguments|parameters|values|input) for {tool}\\: {pairs}", "make a call (to|of) {tool} (having|using|and take) {pairs}",
    "{tool} (should|must|shall|may) (run|be called|be used)( now|) with {pairs}", "(given|having|taking) {pairs}, (call|start|run) {tool}", "{pairs} - (that is|these are|it is) for {tool}", "(with|by) {tool}, {verb} (the|a) {noun}( now|)(\\:|;|,) {pairs}", "(the|that|this) {noun}\\: {verb} it( now|)(\\:|;| -|,) {pairs}", "(go ahead|come on|okay|right) and {verb} (the|a|that) {noun}(\\:|,| -| using| given) {pairs}",
    "(what I want|the task|my wish) is to {verb} (the|a|that) {noun}(, with| using|\\:) {pairs}", "{verb} {noun} ({pairs})", "{verb} {noun}\\: {pairs}", "(a|the|one) {noun} (should|must) be (handled|done)\\: {verb} it, {pairs}", "(we|they|you) (have to|should|must|may) {verb} (the|a|our) {noun}(, given| with|\\:|, using) {pairs}", "use {pairs} (and|to) {verb} (the|a|my) {noun}", "(set|choose|take|note) {pairs}, (then|and) {verb} (the|a|my) {noun}",
    "(hello|good day)\\. {verb} (the|my|a) {noun}, (please|would you)\\: {pairs}", "(after that|meanwhile|as well|again)\\: {tool}, {pairs}", "{tool}, (please|now)\\. {pairs}", "{tool} {pairs}",
]
THEN = [
    "ask {a} for the {key} ({pair})(;|, and|\\:) (its answer|what it says) goes to {b} as {q}", "(one|step one)\\: {a}, {pair}(;|,) (two|step two)\\: {b}, whose {q} is the {key}( found| of step one|)", "take what {a} (says|returns) as {key} (when|for) {pair} and put it into the {q} of {b}", "with {pair}, {a} (tells|knows|finds) a {key}(;|, and) {b} wants it (for|in) {q}",
    "(start|launch|do) {a} ({pair})\\. (When|Once) the {key} is there, (start|launch|do) {b}, {q} being that {key}", "(chain|combine|connect) {a} and {b}\\: {pair}, then {q} = {key}", "(find out|determine|request) the {key} (by|through|from) {a} using {pair}, (afterwards|then|later) hand it over to {b} in {q}", "{b}'s {q} (comes from|is) {a}'s {key}(;|,) {pair}",
    "I (need|want) {b} called with the {key} (from|of) {a} in {q}, and {a} takes {pair}", "use {pair} on {a}(;|,) (whatever|the) {key} (comes out|it gives) is the {q} for {b}", "{a} gets {pair}\\. Its {key} is what {b} needs as {q}", "(feed|give) {pair} to {a}, (and|then) (feed|give) the {key} to {b}( under| as|, as) {q}",
]
BEFORE = ["task: ", "when you have time, ", "user request: ", "as soon as possible: ", "I was told to ask: ", "good evening, ", "right, ", "one thing: ", "listen, ", "for me: ", "again, ", "could somebody do this: ", "the next thing: ", "as agreed, ", "yes, ", "no wait, ", "dear assistant, ", "request: ", "so then, ", "to do: "]
BEHIND = [" - thanks", ", thank you", " if you can", ", would you", " for me", " at once", ", as soon as you can", ", that is all", " (it is important)", " today", ", ok", "?", " - can you do that", ", will you"]
