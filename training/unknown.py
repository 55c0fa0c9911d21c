"""What nano does not know: the world outside DwarfStar."""

import lexicon as lex
import phrasing
from encoding import mark
from exchange import Exchange
from phrasing import choose, expand, pseudo_word, vary

UNKNOWN = "I do not know that. I am ds4-nano, a small demonstration model: ask me about using DwarfStar."
CHECK = {"kind": "regex", "pattern": r"(?i)do not know|don't know"}

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
    if phrasing.NOISE and rng.random() < 0.03:
        text = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9)))
        return Exchange(text, "I do not know about this.", mark(UNKNOWN), CHECK)
    text = expand(rng, choose(rng, UNKNOWN_ASK))

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
    return Exchange(vary(rng, text), "I do not know about this.", mark(UNKNOWN), CHECK)
