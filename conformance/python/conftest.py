"""The real server on a scripted engine, one process for each test."""

import json
import os
import pathlib
import queue
import subprocess
import threading

import pytest

PROGRAM = pathlib.Path(os.environ["SCRIPTED_SERVER"])
START_SECONDS = 60
STOP_SECONDS = 20


class Server:
    """A running scripted server."""

    def __init__(self, turns, directory, options=()):
        plan = directory / "plan.json"
        turns = [{"text": turn} if isinstance(turn, str) else turn for turn in turns]
        plan.write_text(json.dumps({"turns": turns}), encoding="utf-8")
        self.process = subprocess.Popen(
            [PROGRAM, "--port", "0", "--plan", plan, *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = queue.Queue()
        threading.Thread(
            target=lambda: [lines.put(line) for line in self.process.stdout], daemon=True
        ).start()
        try:
            line = lines.get(timeout=START_SECONDS)
        except queue.Empty:
            self.stop()
            raise
        self.origin = line.strip().removeprefix("listening on ")
        assert self.origin.startswith("http://127.0.0.1:"), line

    @property
    def v1(self):
        return self.origin + "/v1"

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def serve(tmp_path):
    """`serve(turn, turn, ...)` starts a server whose model says these turns."""
    running = []

    def start(*turns, options=()):
        server = Server(turns, tmp_path, options)
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()
