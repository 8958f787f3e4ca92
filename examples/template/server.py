"""One page that says what the template was told, and how often it was asked: memory that every sandbox begins with."""
import http.server
import os

asked = 0


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        asked += 1
        text = f"{os.environ['GREETING']}: {asked}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
