"""A proxy on loopback that writes down what a client asks and what usage the server reports."""

import http.client
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Lengths are given anew, and the answer is passed on unpacked.
NOT_PASSED_ON = {"connection", "content-length", "host", "transfer-encoding", "accept-encoding"}


class Exchange:
    """A request for an answer, and the tokens of prompt, cache and answer that were reported."""

    def __init__(self, path, body):
        self.path = path
        self.body = body
        self.status = 0
        self.prompt = self.cached = self.completion = None

    def take_usage(self, answer):
        """Reads the usage out of an answer, streamed or not; the last word counts."""
        for line in answer.decode("utf-8", "replace").splitlines():
            line = line.removeprefix("data: ").strip()
            if not line.startswith("{"):
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue
            usage = event.get("usage") or (event.get("response") or {}).get("usage")
            if not usage:
                continue
            if "prompt_tokens" in usage:
                self.prompt = usage["prompt_tokens"]
                self.cached = usage["prompt_tokens_details"]["cached_tokens"]
                self.completion = usage["completion_tokens"]
            elif "cache_read_input_tokens" in usage:
                self.cached = usage["cache_read_input_tokens"]
                self.prompt = usage["input_tokens"] + self.cached
                self.completion = usage["output_tokens"]
            else:
                self.prompt = usage["input_tokens"]
                self.cached = usage["input_tokens_details"]["cached_tokens"]
                self.completion = usage["output_tokens"]


class Recorder:
    """Passes requests with tools on to `main`, the others (titles, summaries) to `side`."""

    def __init__(self, main, side):
        self.exchanges = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                exchange, origin = None, main
                if self.command == "POST":
                    try:
                        parsed = json.loads(body)
                    except ValueError:
                        parsed = {}
                    exchange = Exchange(self.path, parsed)
                    if not parsed.get("tools"):
                        exchange, origin = None, side
                recorder.pass_on(self, origin, body, exchange)

            do_GET = do_POST = do_HEAD = do_DELETE = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def pass_on(self, handler, origin, body, exchange):
        place = urllib.parse.urlsplit(origin)
        upstream = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in NOT_PASSED_ON}
        upstream.request(handler.command, handler.path, body, headers)
        answer = upstream.getresponse()
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in NOT_PASSED_ON:
                handler.send_header(name, value)
        handler.send_header("connection", "close")
        handler.end_headers()
        handler.close_connection = True
        whole = bytearray()
        while part := answer.read1(65536):
            whole += part
            handler.wfile.write(part)
            handler.wfile.flush()
        upstream.close()
        if exchange is not None:
            exchange.status = answer.status
            exchange.take_usage(bytes(whole))
            self.exchanges.append(exchange)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
