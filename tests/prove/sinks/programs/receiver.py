"""Take events until a byte comes in, and print what the CloudEvents SDK reads of them.

The first line printed is the port. The SDK has no batches, so the list is taken apart by json, and
each event of it is read by the SDK.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat

seen = []


def note(kind, event):
    seen.append(
        {
            "content_type": kind,
            "id": event.get_id(),
            "source": event.get_source(),
            "type": event.get_type(),
            "specversion": event.get_specversion(),
            "time": event.get_time().isoformat(),
            "data": event.get_data(),
        }
    )


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"].partition(";")[0]
        if kind == "application/cloudevents-batch+json":
            events = [JSONFormat().read(None, json.dumps(item)) for item in json.loads(body)]
        else:
            events = [from_http_event(HTTPMessage(dict(self.headers), body))]
        for event in events:
            note(kind, event)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read(1)
print(json.dumps(seen))
