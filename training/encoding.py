"""Conversations as the program renders them: the V4 chat encoding, and which tokens are the assistant's.

A talk is `{"messages": [...], "tools": [...], "response_format": None | {...}, "mode": "off" | "high" | "max",
"drop": bool}`. Messages have a role and content; an assistant's also `reasoning`, `calls` as (name, arguments)
and `train`: False where it is only context. `MARK` and `UNMARK` in an assistant's text enclose what decides
whether an answer is right; they are not written. The program's own encoder is `crates/ds4-chat/src/render`;
`test_data.py` compares the two.
"""

import json

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
THINK, NOTHINK, DSML = "<think>", "</think>", "｜DSML｜"
MARK, UNMARK = "\x01", "\x02"
# The prefix of the official encoding for the greatest reasoning effort.
MAX_EFFORT = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, "
    "rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered alternative, "
    "and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n"
)
TOOLS_INTRODUCTION = f"""## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<{DSML}tool_calls>" block like the following:

<{DSML}tool_calls>
<{DSML}invoke name="$TOOL_NAME">
<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{DSML}parameter>
...
</{DSML}invoke>
<{DSML}invoke name="$TOOL_NAME2">
...
</{DSML}invoke>
</{DSML}tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by {THINK}), you MUST output your complete reasoning inside {THINK}...{NOTHINK} BEFORE any tool calls or final response.

Otherwise, output directly after {NOTHINK} with tool calls or final response.

### Available Tool Schemas

"""
TOOLS_CLOSING = "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n"
RESPONSE_SCHEMA = "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"
RESPONSE_JSON = "\n\nYou are a helpful assistant designed to output JSON.\n## Response Format:\n\nReply with JSON object ONLY."


def dump(value):
    """JSON as the encoder writes it."""
    return json.dumps(value, ensure_ascii=False)


def mark(text):
    return f"{MARK}{text}{UNMARK}"


def plain(text):
    return text.replace(MARK, "").replace(UNMARK, "")


def calls_text(calls):
    """A block of calls, the names and values marked."""
    out = [f"<{DSML}tool_calls>\n"]
    for name, arguments in calls:
        out.append(f'<{DSML}invoke name="{mark(name)}">\n')
        lines = []
        for key, value in arguments.items():
            text, string = (value, "true") if isinstance(value, str) else (dump(value), "false")
            lines.append(f'<{DSML}parameter name="{mark(key)}" string="{string}">{mark(text)}</{DSML}parameter>')
        out.append("\n".join(lines) + f"\n</{DSML}invoke>\n")
    out.append(f"</{DSML}tool_calls>")
    return "".join(out)


def leading_text(talk):
    """What stands before the first user message: instructions, tools, form of the answer."""
    text = "".join(m["content"] for m in talk["messages"] if m["role"] == "system")
    if talk["tools"]:
        schemas = "\n".join(dump(tool) for tool in talk["tools"])
        text += "\n\n" + TOOLS_INTRODUCTION + schemas + TOOLS_CLOSING
    form = talk["response_format"]
    if form:
        text += RESPONSE_JSON if form["type"] == "json_object" else RESPONSE_SCHEMA + dump(form["json_schema"]["schema"])
    return text


def turns(messages):
    """Neighbouring user messages and tool results become one turn."""
    out = []
    for message in messages:
        if message["role"] == "system":
            continue
        if message["role"] == "assistant":
            out.append((None, message))
            continue
        text = message["content"] if message["role"] == "user" else f"<tool_result>{message['content']}</tool_result>"
        if out and out[-1][1] is None:
            out[-1] = (out[-1][0] + "\n\n" + text, None)
        else:
            out.append((text, None))
    return out


def pieces(talk):
    """The conversation as [(text, 0 | 1)], 1 where the text is the assistant's to learn; marks are still in it."""
    thinking = talk["mode"] != "off"
    drops = talk["drop"] and not talk["tools"]
    rows = turns(talk["messages"])
    last = max((i for i, (text, _) in enumerate(rows) if text is not None), default=-1)
    out = [(BOS + (MAX_EFFORT if talk["mode"] == "max" and rows else "") + leading_text(talk), 0)]
    for i, (text, message) in enumerate(rows):
        if text is not None:
            opens = thinking and (not drops or i >= last)
            out.append((USER + text + ASSISTANT + (THINK if opens else NOTHINK), 0))
            continue
        flag = int(message.get("train", True))
        reasoning = message.get("reasoning", "")
        shown = thinking and (not drops or i > last)
        answer = message["content"] + ("\n\n" + calls_text(message["calls"]) if message.get("calls") else "") + EOS
        if shown and message.get("stripped"):
            # Clients often send no reasoning back: its absence is nothing to learn.
            out += [(NOTHINK, 0), (answer, flag)]
        elif shown:
            out.append((reasoning + NOTHINK + answer, flag))
        else:
            # An answer that needed working cannot be learnt without it.
            out.append((answer, flag if thinking is False or not message.get("needs_reasoning") else 0))
    return out


def encode(tokenizer, talk):
    """-> (ids, flags): 0 not the assistant's, 1 the assistant's, 2 the assistant's and decisive."""
    parts, bounds, kinds, at = [], [], [], 0
    for text, flag in pieces(talk):
        if not flag:
            parts.append(plain(text))
            at += len(parts[-1])
            bounds.append(at)
            kinds.append(0)
            continue
        for j, section in enumerate(text.split(MARK)):
            decisive, _, rest = section.partition(UNMARK) if j else ("", "", section)
            for piece, kind in ((decisive, 2), (rest, 1)):
                if piece:
                    parts.append(piece)
                    at += len(piece)
                    bounds.append(at)
                    kinds.append(kind)
    encoding = tokenizer.encode("".join(parts), add_special_tokens=False)
    flags, place = [], 0
    for _, end in encoding.offsets:
        while bounds[place] < end:
            place += 1
        flags.append(kinds[place])
    return encoding.ids, flags


def prompt_text(talk):
    return plain("".join(text for text, _ in pieces(talk)))


def api_messages(messages):
    """Messages in the form of OpenAI's chat API, with the reasoning that the program would be given."""
    out, ids, waiting = [], 0, []
    for message in messages:
        row = {"role": message["role"], "content": plain(message["content"])}
        if message["role"] == "assistant":
            if message.get("reasoning") and not message.get("stripped"):
                row["reasoning_content"] = plain(message["reasoning"])
            if message.get("calls"):
                waiting = []
                for name, arguments in message["calls"]:
                    ids += 1
                    waiting.append(f"call_{ids}")
                    row.setdefault("tool_calls", []).append(
                        {"id": waiting[-1], "type": "function", "function": {"name": name, "arguments": dump(arguments)}}
                    )
        elif message["role"] == "tool":
            row["tool_call_id"] = waiting.pop(0)
        out.append(row)
    return out


def api_tools(tools):
    return [{"type": "function", "function": tool} for tool in tools]
