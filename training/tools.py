"""Conversations with tools: the right call from the schemas, several at once, none, and answers from results."""

import re

from encoding import dump, mark
from phrasing import choose, escaped, expand, fill, part, pseudo_word
import frames
import phrasing
import tool_composed
from tool_catalogue import CATALOGUE
from values import ADJECTIVES, NOUNS, VERBS, listed, value

STYLES = ["snake", "snake", "snake", "camel", "kebab"]
JSON_TYPES = {"bool": "boolean", "number": "number", "half": "number", "ints": "array", "words": "array"}
NO_TOOL = "I cannot do that: I have no tool for it."


def spell(words, style):
    if style == "snake":
        return "_".join(words)
    if style == "kebab":
        return "-".join(words)
    return words[0] + "".join(w.capitalize() for w in words[1:])


def spoken(name):
    """`max_rows`, `maxRows`, `max-rows` -> 'max rows'."""
    return re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("_", " ").replace("-", " ").lower()


def schema_of(rng, kind, description):
    name, _, rest = kind.partition(":")
    schema = {"type": JSON_TYPES.get(name, "integer" if name == "int" else "string")}
    if schema["type"] == "array":
        schema["items"] = {"type": "integer" if name == "ints" else "string"}
    if name == "enum":
        schema["enum"] = rest.split(",")
    if description:
        schema["description"] = description
    return schema


class Tool:
    """A tool with names drawn for one conversation."""

    def function(self):
        properties = {name: schema for name, schema, _, _ in self.parameters}
        out = {"name": self.name}
        if self.description:
            out["description"] = self.description
        out["parameters"] = {"type": "object", "properties": properties, "required": [n for n, _, _, required in self.parameters if required]}
        if self.closed:
            out["parameters"]["additionalProperties"] = False
        return out

    def results(self, rng):
        return {key: value(rng, kind) for key, kind in self.result.items()}


class Known(Tool):
    """A tool of the catalogue."""

    def __init__(self, rng, entry, style):
        names, self.description, parameters, self.requests, self.result, self.answer = entry
        self.kind, self.closed = names[0], rng.random() < 0.1
        roll = rng.random()
        self.name = rng.choice(names) if roll < 0.6 else spell([pseudo_word(rng), spoken(rng.choice(names)).replace(" ", "_")], "snake") if roll < 0.8 else spell([pseudo_word(rng), pseudo_word(rng)], style)
        bare = rng.random() < 0.2
        odd = rng.random() < 0.2
        self.parameters, used = [], set()
        for options, kind, description, required in parameters:
            name = rng.choice([o for o in options if o not in used])
            if odd and not bare:
                name = pseudo_word(rng)
            used.add(name)
            self.parameters.append((name, schema_of(rng, kind, "" if bare else description), kind, required))
        self.parameters_in_order = list(self.parameters)
        if rng.random() < 0.2:
            rng.shuffle(self.parameters)

    def request(self, rng):
        """-> (what the user says, the arguments)."""
        values = [value(rng, kind) for _, _, kind, _ in self.parameters_in_order]
        given = [required for *_, required in self.parameters_in_order]
        text = choose(rng, self.requests)

        def optional(match):
            keep = rng.random() < 0.6
            if keep:
                for index in re.findall(r"\{(?:onoff|k)?(\d)", match[1]):
                    given[int(index)] = True
            return match[1] if keep else ""

        text = expand(rng, re.sub(r"\[([^\]]*)\]", optional, text))
        slots = {}
        for i, ((name, *_), v) in enumerate(zip(self.parameters_in_order, values)):
            slots[str(i)] = ("true" if v else "false") if isinstance(v, bool) else listed(rng, v) if isinstance(v, list) else str(v)
            slots[f"k{i}"] = name if rng.random() < 0.5 else spoken(name)
            slots[f"onoff{i}"] = "on" if v is True else "off"
        text = fill(text.replace(":list}", "}"), slots)
        arguments = {name: v for (name, *_), v, g in zip(self.parameters_in_order, values, given) if g}
        self.slots = slots
        return text, {name: arguments[name] for name, *_ in self.parameters if name in arguments}

    def say(self, rng, results):
        return fill(self.answer, {**self.slots, **{k: mark(v) for k, v in results.items()}})


INVENTED = [
    "(use|call|run|invoke) {tool} with {pairs}", "(use|call|run) {tool}\\: {pairs}", "(I want to|please|now|I need to|can you|could you) {verb} the {noun} with {pairs}", "{verb} (a|the|my) {noun}, {pairs}", "{tool}\\: {pairs}",
    "(call|run) the tool {tool} and (set|pass|give it) {pairs}", "let {tool} (work|run) with {pairs}", "(I would like|it is time) to {verb} the {noun}\\. (Take|Use|Set) {pairs}\\.", "{verb} the {noun}\\. {Pairs}\\.", "with {pairs}, {verb} the {noun}",
    "the {noun} (needs|wants) the {verb} (tool|step) with {pairs}", "(start|do) the {verb} of the {noun} ({pairs})", "{pairs}\\: (use|take) these to {verb} the {noun}", "(would you|will you|do) {verb} the {noun} for me\\? {Pairs}\\.",
]
PAIRS = ["{k} {v}", "{k} {v}", "{k} = {v}", "{k} set to {v}", "{v} as {k}", "the {k} {v}", "{k}: {v}"]
DESCRIPTIONS = ["{Verb} the {noun}", "{Verb} a {noun}", "{Verb} the {noun} and report", "Tool to {verb} a {noun}", "{Verb} the {noun} of the user"]
INVENTED_KINDS = ["word", "word", "code", "phrase", "int:0:999", "int:0:99999", "number", "bool", "bool", "date", "time", "person", "city", "words", "ints", "path", "enum"]


class Invented(Tool):
    """A tool whose names mean nothing."""

    answer = None

    def __init__(self, rng, style):
        self.verb = pseudo_word(rng) if rng.random() < 0.4 else rng.choice(VERBS)
        self.noun = pseudo_word(rng) if rng.random() < 0.7 else rng.choice(NOUNS)
        self.kind, self.closed = "invented", rng.random() < 0.1
        roll = rng.random()
        self.name = spell([self.verb, self.noun], style) if roll < 0.6 else spell([pseudo_word(rng)], style) if roll < 0.8 else spell([pseudo_word(rng), pseudo_word(rng)], style)
        self.description = fill(choose(rng, DESCRIPTIONS), {"verb": self.verb, "Verb": self.verb.capitalize(), "noun": self.noun})
        self.parameters, used = [], set()
        for _ in range(rng.choice([1, 1, 2, 2, 3, 4])):
            words = [pseudo_word(rng) if rng.random() < 0.5 else rng.choice(NOUNS)]
            if rng.random() < 0.3:
                words = [rng.choice(ADJECTIVES)] + words
            name = spell(words, style)
            if name in used:
                continue
            used.add(name)
            kind = rng.choice(INVENTED_KINDS)
            if kind == "enum":
                kind = "enum:" + ",".join(dict.fromkeys(pseudo_word(rng) for _ in range(rng.randint(2, 4))))
            described = f"The {spoken(name)}" if rng.random() < 0.5 else ""
            self.parameters.append((name, schema_of(rng, kind, described), kind, rng.random() < 0.7))
        if not any(p[3] for p in self.parameters):
            self.parameters[0] = (*self.parameters[0][:3], True)
        self.result = {spell([pseudo_word(rng) if rng.random() < 0.6 else rng.choice(NOUNS)], style): rng.choice(["int:0:9999", "word", "code", "number", "phrase", "date"]) for _ in range(rng.choice([1, 1, 2]))}

    def request(self, rng):
        arguments, pairs = {}, []
        for name, _, kind, required in self.parameters:
            if not required and rng.random() < 0.5:
                continue
            v = arguments[name] = value(rng, kind)
            shown = ("true" if v else "false") if isinstance(v, bool) else " and ".join(str(x) for x in v) if isinstance(v, list) else str(v)
            if kind in ("phrase", "sentence") or rng.random() < 0.15 and isinstance(v, str):
                shown = f'"{shown}"'
            pairs.append(fill(drawn(rng, PAIRS, frames.PAIRS), {"k": name if rng.random() < 0.5 else spoken(name), "v": shown}))
        if rng.random() < 0.25:
            rng.shuffle(pairs)
        text = listed(rng, pairs)
        template = expand(rng, drawn(rng, INVENTED, frames.CALLS))
        copied = text.startswith(tuple(str(v) for v in arguments.values() if isinstance(v, str)))
        asked = fill(template, {"tool": self.name, "verb": self.verb, "noun": self.noun, "pairs": text, "Pairs": text if copied else text[:1].upper() + text[1:]})
        return asked, arguments

    def say(self, rng, results):
        return " and ".join(f"{'The' if i == 0 else 'the'} {spoken(k)} is {mark(v)}" for i, (k, v) in enumerate(results.items())) + "."


# Part of the tools that are composed, and of what no tool does; in training.
COMPOSED = 0.0
# How many requests a conversation has.
ROUNDS = [1, 1, 2, 2, 3, 4]


def more(rng):
    """Whether composed phrasings are to be used."""
    return COMPOSED and phrasing.SPLIT == "train" and rng.random() < COMPOSED


def drawn(rng, phrasings, others):
    """One of the phrasings, or of those that only training has."""
    return rng.choice(others) if more(rng) else choose(rng, phrasings)


def composed(rng, style):
    return tool_composed.make(rng, style, Tool, spell, schema_of, listed)


def offer(rng, count):
    """Tools of one conversation, their names distinct."""
    style = rng.choice(STYLES)
    tools, kinds = [], set()
    while len(tools) < count:
        if more(rng):
            tool = composed(rng, style)
        elif rng.random() < 0.5:
            # The evaluation has few tools of its own: others beside them, asked for in its own phrasings.
            entry = rng.choice(part(CATALOGUE) if phrasing.SPLIT == "train" or rng.random() < 0.5 else CATALOGUE)
            if entry[0][0] in kinds:
                continue
            tool = Known(rng, entry, style)
        else:
            tool = Invented(rng, style)
        if tool.name in {t.name for t in tools} or tool.name in kinds:
            continue
        kinds.add(tool.kind)
        tools.append(tool)
    return tools


def tidy(rng, text, arguments=()):
    """Casing, politeness and an end, without touching what is copied."""
    copied = text.startswith(tuple(str(v) for v in arguments if isinstance(v, str)))
    if more(rng) and rng.random() < 0.4:
        if rng.random() < 0.5:
            return rng.choice(frames.BEFORE) + text
        return text.rstrip("?.!") + rng.choice(frames.BEHIND) if text[-1] not in '"' else text
    if rng.random() < 0.12:
        text = rng.choice(["please ", "hi, ", "ok, ", "now ", "and ", "hey, ", "next: "]) + text
    if rng.random() < 0.7 and not copied and not text.startswith('"') and not re.match(r"\S*[_/.\d-]", text):
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.5 and text[-1].isalnum():
        text += rng.choice([".", ".", "!", " please", " now"])
    return text


def result_text(rng, results):
    roll = rng.random()
    if roll < 0.7:
        return dump(results)
    if roll < 0.85:
        return "\n".join(f"{k}: {dump(v) if not isinstance(v, str) else v}" for k, v in results.items())
    return dump({"result": results}) if roll < 0.93 else dump({"ok": True, **results})


ERRORS = ["not found", "permission denied", "timeout", "the service is down", "unknown id", "too many requests", "no connection", "invalid value", "disk full", "not allowed"]
JOIN = [" and ", ". Also ", ", then ", ". And ", " and also ", "; ", ". Then "]


class Steps:
    """Builds the messages of one conversation with tools."""

    def __init__(self, rng, tools, stripped):
        self.rng, self.tools, self.stripped = rng, tools, stripped
        self.messages, self.check, self.ids = [], None, 0

    def user(self, text):
        self.messages.append({"role": "user", "content": text})

    def assistant(self, reasoning, content, calls=(), train=True, needs=False):
        message = {"role": "assistant", "reasoning": reasoning, "content": content, "train": train, "needs_reasoning": needs}
        if calls:
            message["calls"] = list(calls)
        self.messages.append(message)

    def call(self, calls):
        names = [mark(name) for name, _ in calls]
        self.assistant(f"I call {' and '.join(dict.fromkeys(names))}.", "", calls)
        self.check = {"kind": "tool_calls", "calls": [{"name": n, "arguments": a} for n, a in calls]}

    def results(self, texts):
        for text in texts:
            self.messages.append({"role": "tool", "content": text})

    def answer(self, text, check):
        self.assistant("I have the result.", text)
        self.check = check


def values_check(*values):
    """Every value, as a whole."""
    return {"kind": "all", "patterns": [r"(?i)" + whole(str(v)) for v in values]}


def whole(text):
    edges = [r"\b" if re.match(r"\w", c) else "" for c in (text[0], text[-1])]
    return edges[0] + escaped(text) + edges[1]


def shown_value(v):
    return ("true" if v else "false") if isinstance(v, bool) else v


def ask_and_answer(steps, tool, with_result, rng):
    text, arguments = tool.request(rng)
    steps.user(tidy(rng, text, arguments.values()))
    steps.call([(tool.name, arguments)])
    if with_result:
        if rng.random() < 0.12:
            message = rng.choice(ERRORS)
            steps.results([dump({"error": message}) if rng.random() < 0.7 else f"Error: {message}"])
            steps.answer(f"That did not work: {mark(message)}.", values_check(message))
        else:
            results = tool.results(rng)
            steps.results([result_text(rng, results)])
            said = tool.say(rng, results)
            steps.answer(said, values_check(*[shown_value(v) for v in results.values() if str(shown_value(v)) in said]))


def parallel(steps, tools, with_result, rng):
    """Two or three calls at once: one tool with several values, or several tools."""
    chosen = [rng.choice(tools)] * rng.choice([2, 2, 3]) if len(tools) < 2 or rng.random() < 0.4 else rng.sample(tools, 2)
    asked, calls, said = [], [], []
    results = []
    for tool in chosen:
        text, arguments = tool.request(rng)
        if (tool.name, arguments) in calls:
            continue
        asked.append(text.rstrip("?."))
        calls.append((tool.name, arguments))
        results.append(tool.results(rng))
        said.append(tool.say(rng, results[-1]))
    joint = rng.choice(JOIN)
    steps.user(tidy(rng, joint.join(asked), [v for _, a in calls for v in a.values()]))
    steps.call(calls)
    if with_result:
        steps.results([result_text(rng, r) for r in results])
        text = " ".join(said)
        steps.answer(text, values_check(*[shown_value(v) for r in results for v in r.values() if str(shown_value(v)) in text]))


THEN = ["(first|) (call|use) {a} with {pair}, then (give|pass) its {key} to {b} as {q}", "(call|run) {a} with {pair} and (use|hand) the {key} that it gives (as|for) the {q} of {b}", "(get|ask) the {key} from {a} ({pair}) and (call|run) {b} with it as {q}",
        "{b} needs a {q}\\: (it is|take) the {key} that {a} gives for {pair}", "{a} with {pair} (gives|returns) a {key}\\. (Pass|Give) it to {b} as {q}\\.", "(look up|find) the {key} with {a}, {pair}, and send it to {b} as {q}"]


def chained(steps, rng, tools):
    """The second call takes its argument from the first result."""
    first, second = tools[:2]
    for tool in (first, second):
        name, _, _, _ = tool.parameters[0]
        tool.parameters = [(name, {"type": "string"}, "word", True)]
    key = next(iter(first.result))
    given, found = value(rng, "word"), value(rng, rng.choice(["word", "code"]))
    p, q = first.parameters[0][0], second.parameters[0][0]
    text = fill(expand(rng, drawn(rng, THEN, frames.THEN)), {"a": first.name, "b": second.name, "pair": fill(drawn(rng, PAIRS, frames.PAIRS), {"k": p, "v": given}), "key": key, "q": q})
    steps.user(tidy(rng, text))
    steps.call([(first.name, {p: given})])
    steps.results([dump({key: found})])
    steps.call([(second.name, {q: found})])


def no_tool(steps, rng, tools, plain_exchange):
    """Something that none of the tools does."""
    offered = {t.kind for t in tools}
    if more(rng):
        other = composed(rng, "snake")
        if other.description not in {t.description for t in tools}:
            steps.user(tidy(rng, other.request(rng)[0]))
            steps.assistant("None of the tools does that.", mark(NO_TOOL))
            steps.check = {"kind": "no_tool_call", "pattern": r"(?i)cannot|can't|no tool|do not know"}
            return
    if rng.random() < 0.5:
        entries = [entry for entry in part(CATALOGUE) if entry[0][0] not in offered] or [entry for entry in CATALOGUE if entry[0][0] not in offered]
        other = Known(rng, rng.choice(entries), "snake")
        steps.user(tidy(rng, other.request(rng)[0]))
        steps.assistant("None of the tools does that.", mark(NO_TOOL))
        steps.check = {"kind": "no_tool_call", "pattern": r"(?i)cannot|can't|no tool|do not know"}
        return
    while True:
        exchange, pattern = plain_exchange(rng)
        if not (offered & {"search_web", "calculate_sum"}) or "do not know" not in exchange.answer and not exchange.unreasoned:
            break
    for message in exchange.messages(steps.mode):
        steps.messages.append(message)
    steps.check = {"kind": "no_tool_call", "pattern": pattern}


def tools_talk(rng, mode, plain_exchange, count=None, last=None):
    """-> (messages, functions, check); `last` names the kind of the last step."""
    chain = last == "chain" or last is None and rng.random() < 0.08
    tools = [Invented(rng, "snake") for _ in range(2)] if chain else offer(rng, count or rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6]))
    if chain and tools[0].name == tools[1].name:
        tools[1].name += "_" + pseudo_word(rng)
    stripped = rng.random() < 0.5
    steps = Steps(rng, tools, stripped)
    steps.mode = mode
    rounds = rng.choice(ROUNDS) if last is None else rng.choice([1, 1, 1, 2, 3])
    if chain:
        extra = offer(rng, rng.choice([0, 0, 1, 2])) if rng.random() < 0.5 else []
        extra = [t for t in extra if t.name not in (tools[0].name, tools[1].name)]
        chained(steps, rng, tools)
        tools = tools + extra
    else:
        for i in range(rounds):
            final = i == rounds - 1
            kind = last if final and last else rng.choices(["call", "result", "parallel", "none"], [0.36, 0.3, 0.18, 0.16])[0]
            if kind == "none":
                no_tool(steps, rng, tools, plain_exchange)
            elif kind == "parallel":
                parallel(steps, tools, not final or last is None and rng.random() < 0.4, rng)
            else:
                ask_and_answer(steps, rng.choice(tools), not final or kind == "result", rng)
    shuffled = list(tools)
    rng.shuffle(shuffled)
    messages = steps.messages
    if stripped:
        final = max(i for i, m in enumerate(messages) if m["role"] == "user")
        for message in messages[:final]:
            if message["role"] == "assistant":
                message["stripped"] = True
                if message.get("needs_reasoning"):
                    message["train"] = False
    return messages, [t.function() for t in shuffled], steps.check
