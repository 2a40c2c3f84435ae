"""A server on the loopback address in place of an official host."""

import contextlib
import http.server
import threading
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve files by their names; gives the URL, which ends in "/", and the names asked for.

    Files may be added and taken away in the meantime.
    """
    requested: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/files/")
            requested.append(name)
            data = files.get(name)
            if data is None:
                self.send_error(404)
                return
            self.send_response(200)
            if "gzip" in self.headers.get("Accept-Encoding", ""):  # as some servers label .gz files
                self.send_header("Content-Encoding", "x-gzip")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/files/", requested
        server.shutdown()
        thread.join()
