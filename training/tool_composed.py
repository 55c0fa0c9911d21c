"""Tools put together from a verb, a noun and parameters that people say in their own ways; for the training alone.

The catalogue has few tools, and how they are asked for is soon known by heart. Here both are new every time.
"""

import re

from phrasing import expand, fill, pseudo_word
from values import ADJECTIVES, NOUNS, VERBS, value

MORE_VERBS = """add archive assign block book cancel change check collect compare copy create delete deliver describe download draft
edit estimate export fetch find follow forward generate get group hide import index insert inspect invite issue join launch
list load lock log look_up merge monitor mount notify pay pause play post publish query rate record refund register release
remove rename render repair report request reserve reset resize restart return rotate run save scan schedule search select share
show shut_down sign skip sort split start stop store submit subscribe summarize sync tag test track transfer transcribe
translate unlock update upload validate verify watch withdraw write""".split()
MORE_NOUNS = """account alarm album appointment archive article backup badge booking branch bucket build campaign card cart channel
chart clip comment conference contact container course customer dashboard database delivery device diary document door draft
employee entry expense feed flight form friend game goal graph group guest habit image inbox item job journal key label
lecture lesson license light list loan machine member memo menu message monitor movie network note notice notification
number offer order package page password payment permit photo plant playlist podcast poll post printer process product
profile project property queue quiz quote receipt record refund reminder rental request room route rule salary sample
sensor server session shift shipment shop sink site song speaker station stock student subscription table tag task taxi
team template tenant thermostat thread tour train translation trip user vehicle video visit volume voucher wallet washer
website workout""".split()

# (names, kind, description, how it is said in a request, between other words).
PARAMETERS = [
    (["recipient", "receiver", "to", "send_to", "person"], "person", "Who gets it", ["to {v}", "for {v}", "and give it to {v}", "so that {v} gets it"]),
    (["owner", "assignee", "responsible", "user", "member"], "person", "Who is responsible", ["by {v}", "of {v}", "under the name of {v}", "that belongs to {v}", "with {v} as the owner"]),
    (["city", "place", "location", "town"], "city", "City where it is", ["in {v}", "at {v}", "near {v}", "over in {v}"]),
    (["origin", "from", "start", "departure", "from_city"], "city", "Where it starts", ["from {v}", "starting in {v}", "leaving {v}", "which starts at {v}"]),
    (["destination", "to_city", "target", "arrival", "goal"], "city", "Where it goes", ["to {v}", "towards {v}", "bound for {v}", "that goes to {v}"]),
    (["date", "day", "on_date", "when"], "date", "Date as YYYY-MM-DD", ["on {v}", "for {v}", "on the day {v}", "dated {v}"]),
    (["deadline", "due", "until", "due_date", "end_date"], "date", "Last day, YYYY-MM-DD", ["by {v}", "until {v}", "due on {v}", "no later than {v}", "before {v}"]),
    (["since", "after", "start_date", "from_date"], "date", "First day, YYYY-MM-DD", ["since {v}", "from {v} on", "after {v}", "beginning with {v}"]),
    (["time", "at", "hour", "start_time"], "time", "Time as HH:MM", ["at {v}", "at {v} sharp", "around {v}", "starting at {v}"]),
    (["count", "amount", "quantity", "number", "how_many"], "int:1:500", "How many", ["{v} times", "with {v} pieces", "in a quantity of {v}", "for {v} units", "with a count of {v}"]),
    (["limit", "max_results", "maximum", "top"], "int:1:100", "Most results", ["with at most {v} results", "but no more than {v}", "up to {v} of them", "limited to {v}"]),
    (["minutes", "duration", "length", "duration_minutes"], "int:1:240", "Length in minutes", ["for {v} minutes", "lasting {v} minutes", "over {v} minutes", "of {v} minutes"]),
    (["days", "day_count", "period", "within_days"], "int:1:60", "Number of days", ["for {v} days", "over the next {v} days", "within {v} days", "of the last {v} days"]),
    (["price", "budget", "max_price", "cost"], "number", "Price in euros", ["for {v} euros", "at a price of {v}", "costing {v}", "worth {v} euros"]),
    (["percent", "level", "rate", "share"], "int:0:100", "Percent", ["at {v} percent", "to {v} percent", "with a level of {v}", "by {v} %"]),
    (["path", "file", "filename", "source"], "path", "Path of the file", ["from the file {v}", "in {v}", "stored as {v}", "using {v}"]),
    (["output", "target_path", "save_as", "out"], "path", "Where to write", ["into the file {v}", "and write it to {v}", "and save it as {v}", "with the output in {v}"]),
    (["folder", "directory", "dir", "root"], "folder", "Folder to work in", ["in the folder {v}", "below {v}", "inside {v}", "within the directory {v}"]),
    (["url", "link", "address", "page"], "url", "Address of the page", ["at {v}", "from {v}", "behind the link {v}", "given at {v}"]),
    (["email", "mail", "contact", "reply_to"], "email", "Email address", ["to {v}", "for {v}", "with the address {v}", "and mail {v}"]),
    (["phone", "caller", "phone_number"], "phone", "Phone number", ["to the number {v}", "of {v}", "and call {v}", "with the phone {v}"]),
    (["title", "name", "subject", "label"], "phrase", "Title", ["called \"{v}\"", "with the title \"{v}\"", "named \"{v}\"", "titled \"{v}\""]),
    (["query", "keyword", "term", "search"], "phrase", "What to look for", ["about \"{v}\"", "matching \"{v}\"", "that mentions \"{v}\"", "with \"{v}\" in it"]),
    (["text", "message", "content", "comment"], "sentence", "The text", ["saying \"{v}\"", "with the text \"{v}\"", "that reads \"{v}\"", "and write \"{v}\""]),
    (["id", "code", "reference", "key", "order_id"], "code", "Its code", ["with the code {v}", "{v}", "number {v}", "under the reference {v}", "with id {v}"]),
    (["tag", "category", "topic", "kind", "group"], "word", "Category", ["tagged {v}", "in the category {v}", "of the kind {v}", "under {v}", "from the group {v}"]),
    (["name", "nickname", "alias", "project"], "word", "Its name", ["called {v}", "named {v}", "as {v}", "with the name {v}"]),
    (["host", "server", "machine", "node"], "host", "Name of the machine", ["on {v}", "from the machine {v}", "at the server {v}", "running on {v}"]),
    (["room", "area", "zone"], "room", "Room", ["in the {v}", "for the {v}", "over in the {v}", "belonging to the {v}"]),
    (["language", "lang", "locale"], "language", "Language", ["in {v}", "into {v}", "written in {v}", "for readers of {v}"]),
    (["currency", "unit", "money"], "currency", "Currency", ["in {v}", "paid in {v}", "given in {v}"]),
    (["colour", "color", "paint"], "colour", "Colour", ["in {v}", "with the colour {v}", "painted {v}"]),
    (["tags", "labels", "keywords", "members"], "words", "Several words", ["with the words {v}", "for {v}", "tagged {v}", "containing {v}"]),
    (["numbers", "ids", "values", "items"], "ints", "Several numbers", ["for the numbers {v}", "with {v}", "from the values {v}"]),
    (["urgent", "important", "high_priority"], "bool", "Whether it is urgent", ["(urgent: {v})", "with urgent {v}", "and urgent set to {v}"]),
    (["notify", "send_mail", "alert", "public", "private"], "bool", "Whether to do so", ["({k}: {v})", "with {k} {v}", "and {k} set to {v}", "with {k} = {v}"]),
    (["priority", "mode", "size", "importance"], "choice", "One of the values", ["with {k} {v}", "in {k} {v}", "({k} {v})", "and {v} as {k}"]),
]
CHOICES = [["low", "medium", "high"], ["small", "large"], ["fast", "slow"], ["draft", "final"], ["asc", "desc"], ["light", "dark"], ["daily", "weekly", "monthly"], ["red", "green", "blue"], ["S", "M", "L", "XL"]]
FRAMES = [
    "{verb} (the|a|my|that|this|our) {noun} {said}", "(please|now|now please|kindly|just) {verb} (the|a|my|that|our) {noun} {said}", "(can|could|would|will) you {verb} (the|a|my|this) {noun} {said}\\?", "I (want|need|would like|have|'d like) to {verb} (the|a|my|our) {noun} {said}",
    "{said}\\: {verb} (the|a|my) {noun}", "(I need|we need|it is time for|let us have) (the|a) {noun} {said}, (please |){verb} it", "(is it possible to|would it be possible to|are you able to) {verb} (the|a|my) {noun} {said}\\?", "{verb} {noun} {said}",
    "(make sure to|don't forget to|remember to|go and|help me to|help me) {verb} (the|a|my|our) {noun} {said}", "(my boss|my friend|a colleague|someone|the team) (wants|asked) me to {verb} (the|a|our) {noun} {said}", "(use|call|run|take) {tool} {said}", "(use|call|take) {tool} to {verb} (the|a|my) {noun} {said}",
    "(the|my|our) {noun} {said}\\: (please |){verb} it", "(let's|let us|we should|you should|someone must|I'll have you) {verb} (the|a|my|this) {noun} {said}", "{noun} to {verb}\\: {said}", "(there is|I have|we have) a {noun} {said}\\. (Please |Can you |Could you |){verb} it\\.",
    "(how about|what about|next task|todo|job)\\: {verb} (the|a|my) {noun} {said}", "{verb} (it|one), (I mean|that is,) the {noun}, {said}",
]
DESCRIBED = ["{Verb} (the|a) {noun}", "{Verb} (the|a|one) {noun}( for the user| and report| at once| of the account| in the system)", "(Lets you|Can|Used to) {verb} (the|a) {noun}", "A tool to {verb} (the|a) {noun}", "{Noun}\\: {verb} it"]
RESULTS = {
    "status": "pick:done,ok,queued,sent,open,closed,accepted,waiting,ready,started", "id": "code", "total": "int:0:9999", "price": "number", "owner": "person", "name": "word", "date": "date", "time": "time",
    "path": "path", "city": "city", "title": "phrase", "count": "int:0:300", "reference": "code", "host": "host", "phone": "phone", "colour": "colour", "room": "room", "next": "word", "score": "number", "message": "phrase",
}


def spoken(words):
    return " ".join(words)


def make(rng, style, base, spell, schema_of, listed):
    """A subclass of `base` (`tools.Tool`), drawn anew; the rest are functions of `tools`."""
    verb = (rng.choice(VERBS + MORE_VERBS) if rng.random() < 0.8 else pseudo_word(rng)).split("_")
    noun = [rng.choice(NOUNS + MORE_NOUNS) if rng.random() < 0.75 else pseudo_word(rng)]
    if rng.random() < 0.2:
        noun.insert(0, rng.choice(ADJECTIVES))
    tool = base()
    tool.kind, tool.closed = "composed", rng.random() < 0.1
    roll = rng.random()
    words = verb + noun if roll < 0.5 else noun + verb if roll < 0.6 else noun if roll < 0.65 else [pseudo_word(rng)] + noun if roll < 0.8 else [pseudo_word(rng), pseudo_word(rng)]
    tool.name = spell(words, style)
    described = {"verb": spoken(verb), "Verb": spoken(verb).capitalize(), "noun": spoken(noun), "Noun": spoken(noun).capitalize()}
    bare = rng.random() < 0.2
    tool.description = "" if bare and tool.name == spell(verb + noun, style) else fill(expand(rng, rng.choice(DESCRIBED)), described)
    odd = not bare and rng.random() < 0.25
    tool.parameters, tool.said, used = [], {}, set()
    for options, kind, description, ways in rng.sample(PARAMETERS, rng.choice([1, 1, 2, 2, 2, 3, 3, 4])):
        free = [o for o in options if o not in used]
        if not free:
            continue
        name = pseudo_word(rng) if odd else spell(rng.choice(free).split("_"), style)
        if name in used:
            continue
        used.add(name)
        if kind == "choice":
            kind = "enum:" + ",".join(rng.choice(CHOICES))
        tool.parameters.append((name, schema_of(rng, kind, "" if bare else description), kind, rng.random() < 0.75))
        tool.said[name] = ways
    if not any(p[3] for p in tool.parameters):
        tool.parameters[0] = (*tool.parameters[0][:3], True)
    tool.result = {spell([key], style): kind for key, kind in rng.sample(list(RESULTS.items()), rng.choice([1, 1, 2, 2, 3]))}

    def request(rng):
        arguments, parts = {}, []
        for name, _, kind, required in tool.parameters:
            if not required and rng.random() < 0.5:
                continue
            v = arguments[name] = value(rng, kind)
            shown = ("true" if v else "false") if isinstance(v, bool) else listed(rng, v) if isinstance(v, list) else str(v)
            key = name if rng.random() < 0.4 else re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("_", " ").replace("-", " ").lower()
            parts.append(fill(rng.choice(tool.said[name]), {"v": shown, "k": key}))
        if rng.random() < 0.5:
            rng.shuffle(parts)
        text = expand(rng, rng.choice(FRAMES))
        said = rng.choice([" ", " ", ", "]).join(parts)
        text = fill(text, {**described, "tool": tool.name, "said": said})
        return text, arguments

    def say(rng, results):
        from encoding import mark

        return " and ".join(f"{'The' if i == 0 else 'the'} {re.sub(r'([a-z])([A-Z])', lambda m: m[1] + ' ' + m[2], k).replace('_', ' ').replace('-', ' ').lower()} is {mark(v)}" for i, (k, v) in enumerate(results.items())) + "."

    tool.request, tool.say = request, say
    return tool
