"""A local HTTP server that answers while a test runs."""

import contextlib
import http.server
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def answering(server: http.server.ThreadingHTTPServer) -> Iterator[None]:
    """Run `server` in a thread during the block, then close it."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()
