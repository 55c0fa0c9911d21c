"""What the model writes: reasoning, then an answer or tool calls."""

import json

BAR = "\uff5cDSML\uff5c"


def thought(reasoning, answer=""):
    """Reasoning and what follows it; the prompt has opened the reasoning."""
    return f"{reasoning}</think>{answer}"


def invocations(*calls):
    """The inside of a block of tool calls, and its end. A call is (name, arguments)."""
    text = ""
    for name, arguments in calls:
        text += f'<{BAR}invoke name="{name}">\n'
        for key, value in arguments.items():
            is_text = isinstance(value, str)
            shown = value if is_text else json.dumps(value)
            kind = "true" if is_text else "false"
            text += f'<{BAR}parameter name="{key}" string="{kind}">{shown}</{BAR}parameter>\n'
        text += f"</{BAR}invoke>\n"
    return text + f"</{BAR}tool_calls>"


def tool_calls(*calls):
    """A block of tool calls after an answer's text."""
    return f"\n\n<{BAR}tool_calls>\n" + invocations(*calls)
