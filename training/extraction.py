"""JSON out of sentences: by a list of keys, a schema in the prompt, or a response format."""

from encoding import dump, mark
from phrasing import choose, expand, fill, pseudo_word
import frames
import phrasing
from tool_composed import PARAMETERS
from values import articles, listed, value

# Attribute: (spellings of its key, kind, JSON type, ways to say it about {who}).
ATTRIBUTES = {
    "person": [
        (["age", "years"], "int:3:99", "integer", ["{who} is {v} years old", "{who} is {v}", "the age of {who} is {v}", "{who}, aged {v}, was there", "{who} turned {v} this week"]),
        (["city", "town", "home", "lives_in"], "city", "string", ["{who} lives in {v}", "{who} comes from {v}", "the home of {who} is {v}", "{who} moved to {v}", "{who} has a flat in {v}"]),
        (["job", "profession", "occupation"], "job", "string", ["{who} works as a {v}", "{who} is a {v}", "by profession {who} is a {v}", "the job of {who} is {v}", "{who} earns a living as a {v}"]),
        (["email", "mail", "email_address"], "email", "string", ["{who} can be reached at {v}", "the email of {who} is {v}", "write to {v} to reach {who}", "mail for {who} goes to {v}", "{who} uses the address {v}"]),
        (["phone", "phone_number", "telephone"], "phone", "string", ["the phone number of {who} is {v}", "call {who} at {v}", "{who} answers at {v}", "{v} is the number of {who}", "{who} has the number {v}"]),
        (["pet", "pet_name"], "title", "string", ["{who} has a pet called {v}", "the pet of {who} is called {v}", "{v} is the name of the pet of {who}", "{who} walks with {v} every day", "{who} owns {v}, a clever animal"]),
        (["member", "is_member", "active"], "bool", "boolean", ["{who} is {not}a member", "{who} is {not}an active member", "{who} is {not}in the club", "the club says that {who} is {not}a member", "as a member {who} is {not}listed"]),
        (["favourite_colour", "colour", "color"], "colour", "string", ["{who} likes {v} best", "the favourite colour of {who} is {v}", "{who} always wears {v}", "everything of {who} is {v}", "{v} is the colour of {who}"]),
        (["languages", "speaks"], "languages", "array", ["{who} speaks {v}", "the languages of {who} are {v}", "{who} knows {v}", "{v} are spoken by {who}", "{who} learnt {v}"]),
    ],
    "product": [
        (["price", "cost", "amount"], "number", "number", ["{who} costs {v} euros", "the price of {who} is {v}", "{who} is sold for {v}", "one pays {v} for {who}", "{who} is yours for {v}"]),
        (["colour", "color"], "colour", "string", ["{who} is {v}", "the colour of {who} is {v}", "{who} comes in {v}", "{who} is painted {v}", "they made {who} in {v}"]),
        (["quantity", "stock", "count", "pieces"], "int:0:900", "integer", ["there are {v} pieces of {who}", "we have {v} of {who} in stock", "{v} pieces of {who} are left", "the stock of {who} is {v}", "the shelf holds {v} of {who}"]),
        (["code", "sku", "article", "product_id"], "code", "string", ["the code of {who} is {v}", "{who} has the number {v}", "{v} is the article number of {who}", "{who} is listed as {v}", "order {who} under {v}"]),
        (["in_stock", "available"], "bool", "boolean", ["{who} is {not}available", "{who} is {not}in stock", "at present {who} is {not}available", "you can see that {who} is {not}there", "the shop says {who} is {not}in stock"]),
        (["maker", "brand", "manufacturer"], "title", "string", ["{who} is made by {v}", "{v} makes {who}", "the maker of {who} is {v}", "{who} comes from the house of {v}", "the brand of {who} is {v}"]),
        (["weight", "weight_kg", "kilos"], "half", "number", ["{who} weighs {v} kilos", "the weight of {who} is {v} kilos", "with {v} kilos {who} is heavy", "{who} brings {v} kilos on the scales", "carry {who}: it has {v} kilos"]),
        (["tags", "labels", "keywords"], "words", "array", ["{who} is tagged {v}", "the tags of {who} are {v}", "{who} has the labels {v}", "{v} are the tags of {who}", "people label {who} with {v}"]),
    ],
    "event": [
        (["date", "day"], "date", "string", ["{who} is on {v}", "the date of {who} is {v}", "{who} takes place on {v}", "note {v} for {who}", "{who} was moved to {v}"]),
        (["time", "start", "start_time"], "time", "string", ["{who} starts at {v}", "the start of {who} is at {v}", "at {v} {who} begins", "be at {who} by {v}", "{who} opens at {v}"]),
        (["place", "location", "room", "venue"], "room", "string", ["{who} is in the {v}", "the place of {who} is the {v}", "they meet for {who} in the {v}", "come to the {v} for {who}", "the {v} is where {who} will be"]),
        (["guests", "participants", "people"], "int:2:300", "integer", ["{v} people come to {who}", "{who} has {v} guests", "we expect {v} guests at {who}", "there are seats for {v} at {who}", "{who} is planned for {v} people"]),
        (["host", "organizer", "speaker"], "person", "string", ["{v} is the host of {who}", "{who} is organized by {v}", "the host of {who} is {v}", "{v} invites to {who}", "ask {v} about {who}"]),
        (["fee", "price", "ticket_price"], "number", "number", ["a ticket for {who} costs {v}", "the fee of {who} is {v}", "{who} costs {v}", "one pays {v} to enter {who}", "the price of {who} is {v}"]),
        (["public", "open_to_all"], "bool", "boolean", ["{who} is {not}open to all", "{who} is {not}public", "as decided {who} is {not}public", "the door says {who} is {not}public", "they say that {who} is {not}open to all"]),
    ],
}
NAME_KEYS = {"person": ["name", "person", "full_name", "who"], "product": ["name", "product", "item", "title"], "event": ["name", "event", "title", "subject"]}
INVENTED_WAYS = ["the {k} of {who} is {v}", "{who} has the {k} {v}", "{v} is the {k} of {who}", "as {k} of {who} we noted {v}", "{who}: {k} {v}", "for {who} the {k} is {v}"]
ASIDES = ["it rained all day", "nobody knew why", "the coffee was cold", "we talked for an hour", "this was written in haste", "more will follow", "the rest is not important", "please keep this", "there is more to tell",
          "the door was open", "all went well", "the list is long", "I hope you are well", "see you soon"]
JOINTS = [". ", ". ", ". ", ", and ", "; ", ".\n", ", "]
ASK = [
    "(extract|get|read|take|pull|find) {keys} from (this|the) text (as|into) (JSON|a JSON object)\\: {text}", "{text}\n\n(Return|Give me|Write|Print) a JSON object with (the keys|the fields) {keys}\\.", "(give|return|answer with|write) (only |)JSON with {keys}\\.\n\n{text}",
    "(Turn|Convert|Put) (this|the following) (into|in) JSON (with|using) (the keys|the fields) {keys}\\:\n{text}", "JSON with {keys}, please\\: {text}", "Text\\: {text}\nKeys\\: {keys}\nJSON\\:", "{text}\n(As|In) JSON with the keys {keys}(, please|)\\.", "(Fill in|Fill) the (fields|keys) {keys} as JSON\\. {text}",
    "(What are|Find) {keys} in this text\\? Answer in JSON\\.\n\"{text}\"", "(Make|Build) a JSON object ({keys}) (from|out of) the (note|message|text)\\: {text}", "(Read|Parse) the text and (return|give) the fields {keys} as JSON\\.\n{text}", "I need {keys} as JSON\\. {text}",
]
ASK_FORMAT = ["{text}", "{text}", "(Extract|Read|Get|Find) the (data|values|fields) (from|in|of) this text\\: {text}", "(Fill in|Use|Follow) the schema\\.\n{text}", "(Turn|Convert) this (text|note|message) (into|to) JSON\\: {text}", "What does the text say\\?\n{text}", "{text}\n\n(Extract|Return) the (data|values|fields)\\."]
SCHEMA_ASK = ["(Extract|Read) the (data|values) (from|in) the text as JSON (that matches|by) this schema\\: {schema}\n\n{text}", "{text}\n\n(Answer|Reply) with JSON for the schema {schema}", "Schema\\: {schema}\nText\\: {text}", "JSON Schema\\:\n{schema}\n\n(Fill it|Use it) (from|for) this text\\: {text}",
              "(Return|Give me) JSON for {schema} out of this\\: {text}", "With {schema} as the schema, (convert|read) this text\\:\n{text}"]


def object_text(pairs):
    """A JSON object, its values marked."""
    return "{" + ", ".join(f"{dump(k)}: {mark(dump(v))}" for k, v in pairs) + "}"


def said(v):
    return str(v) if not isinstance(v, bool) else ""


def entity(rng, domain):
    if domain == "person":
        return value(rng, "person")
    if domain == "product":
        return rng.choice(["{} lamp", "{} chair", "{} box", "model {}", "{} bag", "{} radio"]).format(pseudo_word(rng))
    return rng.choice(["{} meeting", "{} party", "{} talk", "{} concert", "{} fair", "{} race"]).format(pseudo_word(rng))


# Part of the records that are composed, in training.
COMPOSED = 0.0
BEINGS = ["is listed", "was booked", "is planned", "comes", "was sent", "is kept", "is registered", "was ordered", "is known", "was seen", "is filed", "was made", "is offered", "works", "runs", "was found", "stays", "is wanted"]
JSON_TYPES = {"int": "integer", "number": "number", "words": "array"}


def composed_record(rng, wanted):
    """A record whose values are said as tools' parameters are."""
    kind_of = rng.choice(["person", "product", "event"])
    name = entity(rng, kind_of)
    who = name if kind_of == "person" else "the " + name
    rows, used = [], set()
    for options, kind, _, ways in rng.sample(PARAMETERS, wanted):
        options = [o for o in options if o not in used]
        if kind in ("bool", "choice", "ints") or not options:
            continue
        key = rng.choice(options)
        used.add(key)
        v = value(rng, kind)
        if isinstance(v, list):
            v = list(dict.fromkeys(v))
        way = fill(rng.choice(ways), {"v": listed(rng, v) if isinstance(v, list) else v, "k": key})
        rows.append((key, JSON_TYPES.get(kind.partition(":")[0], "string"), v, f"{who if not rows or rng.random() < 0.5 else 'it'} {rng.choice(BEINGS)} {way}"))
    return rng.choice([k for k in NAME_KEYS[kind_of] if k not in used] or ["subject"]), name, rows


def record(rng, wanted):
    """-> (name key, name, [(key, kind type, value or None, sentence or '')])."""
    if COMPOSED and phrasing.SPLIT == "train" and rng.random() < COMPOSED:
        composed = composed_record(rng, wanted)
        if composed[2]:
            return composed
    domain = rng.choice(["person", "product", "event", "invented"])
    kind_of = domain if domain != "invented" else rng.choice(["person", "product", "event"])
    name = entity(rng, kind_of)
    who = name if kind_of == "person" else "the " + name
    rows = []
    if domain == "invented":
        used = set()
        while len(rows) < wanted:
            key = pseudo_word(rng)
            if key in used:
                continue
            used.add(key)
            kind = rng.choice(["word", "code", "int:0:9999", "number", "city", "date", "phrase"])
            v = value(rng, kind)
            rows.append((key, "number" if kind == "number" else "integer" if kind.startswith("int") else "string", v, fill(choose(rng, INVENTED_WAYS), {"k": key, "v": v, "who": who})))
        name_key = rng.choice(["name", "subject", "title"])
    else:
        name_key = rng.choice(NAME_KEYS[domain])
        used = {name_key}
        for spellings, kind, json_type, ways in rng.sample(ATTRIBUTES[domain], min(wanted, len(ATTRIBUTES[domain]))):
            options = [s for s in spellings if s not in used]
            if not options:
                continue
            key = rng.choice(options)
            used.add(key)
            v = [value(rng, "language") for _ in range(rng.randint(2, 3))] if kind == "languages" else value(rng, kind)
            if isinstance(v, list):
                v = list(dict.fromkeys(v))
            negated = "" if v is True else "not "
            rows.append((key, json_type, v, fill(choose(rng, ways), {"v": listed(rng, v) if isinstance(v, list) else said(v), "who": "{who}", "not": negated})))
    pronoun = {"product": "it", "event": "it"}.get(domain, who)
    out = []
    for i, (key, json_type, v, sentence) in enumerate(rows):
        subject = who if i == 0 or domain == "person" or rng.random() < 0.5 else pronoun
        out.append((key, json_type, v, sentence.replace("{who}", subject)))
    return name_key, name, out


def schema_for(rng, rows, nullable):
    properties = {}
    for key, json_type, _, _ in rows:
        schema = {"type": json_type}
        if json_type == "array":
            schema["items"] = {"type": "string"}
        if key in nullable:
            schema["type"] = [json_type, "null"]
        properties[key] = schema
    out = {"type": "object", "properties": properties, "required": list(properties)}
    if rng.random() < 0.5:
        out["additionalProperties"] = False
    return out


def extraction_turn(rng):
    """-> (question, answer, check, response format or None, system or None)."""
    name_key, who, rows = record(rng, rng.randint(1, 5))
    sentences = [s for *_, s in rows]
    if rng.random() < 0.35:
        sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(ASIDES))
    others = []
    if rng.random() < 0.25:
        _, _, others = record(rng, rng.randint(1, 2))
        sentences += [s for *_, s in others]
    # Some is not asked for, and some that is asked for is not said.
    asked = [(k, t, v) for k, t, v, _ in rows]
    if len(asked) > 1 and rng.random() < 0.3:
        asked.pop(rng.randrange(len(asked)))
    missing = set()
    if rng.random() < 0.2:
        key = rng.choice(["nickname", "comment", "country", "website", "rating", "note", pseudo_word(rng)])
        if key not in {k for k, *_ in asked}:
            asked.insert(rng.randrange(len(asked) + 1), (key, "string", None))
            missing.add(key)
    if rng.random() < 0.75:
        asked.insert(0, (name_key, "string", who))
    text, values = "", [(k, t, v) for k, t, v, _ in rows + others]
    for i, sentence in enumerate(sentences):
        joint = rng.choice(JOINTS) if i else ""
        # A value at the start keeps its case: it is copied as it stands.
        copied = any(isinstance(v, str) and sentence.startswith(v) for _, _, v in values)
        text += joint + (sentence[:1].upper() + sentence[1:] if not copied and (not joint or joint[0] == ".") else sentence)
    text = articles(text) + "."
    keys = [k for k, *_ in asked]
    pairs = [(k, v) for k, _, v in asked]
    names = listed(rng, [f'"{k}"' for k in keys] if rng.random() < 0.4 else [f"`{k}`" for k in keys] if rng.random() < 0.2 else keys)
    schema = schema_for(rng, [(*row, "") for row in asked], missing)
    roll = rng.random()
    form, system = None, None
    composed = COMPOSED and phrasing.SPLIT == "train" and rng.random() < 1.5 * COMPOSED
    if roll < 0.5 and composed:
        question = frames.keys_request(rng, names, text)
        if rng.random() < 0.3:
            form = {"type": "json_object"}
    elif roll < 0.5:
        question = fill(expand(rng, choose(rng, ASK)), {"keys": names, "text": text})
        if rng.random() < 0.3:
            form = {"type": "json_object"}
    elif roll < 0.75:
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        question = frames.format_request(rng, text) if composed else fill(expand(rng, choose(rng, ASK_FORMAT)), {"text": text})
    elif roll < 0.9:
        question = frames.schema_request(rng, dump(schema), text) if composed else fill(expand(rng, choose(rng, SCHEMA_ASK)), {"schema": dump(schema), "text": text})
    else:
        system = f"Answer with a JSON object with the keys {names}."
        if composed:
            system = expand(rng, rng.choice(["(Always |)(answer|reply|respond) (in|with) JSON(\\:| with|, keys) {keys}\\.", "(You|This service) (turn|turns|convert|converts) (texts|notes|messages) into JSON\\. (Keys|Fields)\\: {keys}\\.", "(Output|Return|Write) JSON with {keys} (only|for every text)\\.", "(Extract|Find) {keys} (as|in) JSON\\."])).replace("{keys}", names)
        question = text
    return question, object_text(pairs), {"kind": "json", "value": dict(pairs)}, form, system
