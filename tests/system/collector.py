"""A collector of traces on this machine."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

# A collector on this machine, whatever proxy is set up.
DIRECT = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
PATIENCE_S = 30


class Collector:
    """Takes spans as an OpenTelemetry collector does: OTLP over HTTP, in protobuf."""

    def __init__(self):
        self.spans = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            """Reads one message a request."""

            def do_POST(self):
                """Keeps the spans, with the replica that sent them."""
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                message = ExportTraceServiceRequest()
                message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in message.resource_spans:
                    sender = texts(resource.resource.attributes)
                    assert sender["service.name"] == "medsearch" and sender["service.version"]
                    for scope in resource.scope_spans:
                        collector.spans += [(sender["service.instance.id"], span) for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def wait(self, wanted):
        """The spans, once they are as wanted."""
        end = time.monotonic() + PATIENCE_S
        while not wanted(self.spans):
            assert time.monotonic() < end, [(sender, span.name) for sender, span in self.spans]
            time.sleep(0.1)
        return list(self.spans)

    def stop(self):
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def texts(attributes):
    """Attributes by name, as text."""
    value = {"string_value": str, "int_value": str, "double_value": str, "bool_value": str}
    found = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        assert each.key not in found, f"{each.key} stands there twice"
        found[each.key] = value[kind](getattr(each.value, kind))
    return found
