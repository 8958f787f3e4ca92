"""A client of HTTP/2: an honest one (python3-h2), and frames for one that is not."""
import socket
import struct
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
NO_ERROR, PROTOCOL, INTERNAL, FLOW, CALM = 0, 1, 2, 3, 11


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


BEGIN = PREFACE + frame(SETTINGS)


def literal(name, value):
    """A header without indexing, of any length."""
    def text(s):
        n = len(s)
        if n < 127:
            return bytes([n]) + s
        n -= 127
        out = b"\x7f"
        while n >= 128:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n]) + s
    return b"\0" + text(name) + text(value)


def frames(data):
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        yield data[3], data[4], int.from_bytes(data[5:9], "big") & 0x7fffffff, data[9:9 + length]
        data = data[9 + length:]


def goaway(data):
    """The error code of the GOAWAY that is there, or None."""
    return next((int.from_bytes(payload[4:8], "big") for kind, _, _, payload in frames(data) if kind == GOAWAY), None)


def resets(data):
    """{stream: error code}"""
    return {stream: int.from_bytes(payload, "big") for kind, _, stream, payload in frames(data) if kind == RST}


def answered(stream):
    """For read(): the stream has come to an end."""
    return lambda data: any(at == stream and (kind == RST or flags & END_STREAM) for kind, flags, at, _ in frames(data) if kind in (DATA, HEADERS, RST))


def read(s, wait, until=None):
    """Read until the end, or until nothing came for `wait`, or until this is enough -> (what came, True if it was closed)."""
    s.settimeout(wait)
    data = b""
    try:
        while not (until and until(data)):
            piece = s.recv(1 << 18)
            if not piece:
                return data, True
            data += piece
    except TimeoutError:
        pass
    except OSError:
        return data, True
    return data, False


class Answer:
    def __init__(self):
        self.status, self.headers, self.body = 0, [], bytearray()
        self.ended, self.reset = False, None

    @property
    def over(self):
        return self.ended or self.reset is not None

    def get(self, name):
        return next((value for n, value in self.headers if n == name), None)


class H2:
    """One connection. `strict`: what h2 itself would refuse to send is an error. `reads`: bodies are taken as they come."""

    def __init__(self, ingress, name, strict=True, reads=True, tls=True, **settings):
        self.name, self.reads, self.scheme = name, reads, "https" if tls else "http"
        self.socket = ingress.connect(tls, ["h2", "http/1.1"] if tls else None, name=name)
        if tls:
            assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="latin-1", validate_outbound_headers=strict, normalize_outbound_headers=strict))
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values={
                getattr(h2.settings.SettingCodes, name.upper()): value for name, value in settings.items()})
        self.h2.initiate_connection()
        self.answers = {}
        self.continued = set()
        self.goaway = None
        self.closed = False
        self.unread = {}
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def begin(self, method, path, *fields, host=None, end=True):
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, [(":method", method), (":scheme", self.scheme), (":authority", host or self.name), (":path", path), *fields],
                             end_stream=end)
        self.flush()
        return stream

    def send(self, stream, data, end=False, wait=10.0):
        """As the windows allow -> how much was sent before `wait` was over, or the stream."""
        sent, until = 0, time.monotonic() + wait
        while sent < len(data) or (end and not data):
            if self.answers[stream].over:
                return sent
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room > 0 or not data:
                piece = data[sent:sent + room]
                sent += len(piece)
                self.h2.send_data(stream, piece, end_stream=end and sent == len(data))
                self.flush()
                if not data:
                    break
            elif not self.pump(until - time.monotonic()):
                break
        return sent

    def pump(self, wait):
        """Take what comes, once. False: nothing did."""
        if self.closed or wait <= 0:
            return False
        self.socket.settimeout(wait)
        try:
            data = self.socket.recv(1 << 18)
        except (TimeoutError, socket.timeout):
            return False
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.h2.receive_data(data):
            self.see(event)
        self.flush()
        return True

    def see(self, event):
        answer = self.answers.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = event.headers
            answer.status = int(answer.get(":status"))
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self.continued.add(event.stream_id)
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.reads:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                self.unread[event.stream_id] = self.unread.get(event.stream_id, 0) + event.flow_controlled_length
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code)

    def take(self, stream):
        """Give back the window of what was not read yet."""
        n = self.unread.pop(stream, 0)
        if n:
            self.h2.acknowledge_received_data(n, stream)
            self.flush()

    def until(self, condition, wait=10.0):
        until = time.monotonic() + wait
        while not condition() and self.pump(until - time.monotonic()):
            pass
        return condition()

    def finish(self, stream, wait=10.0):
        answer = self.answers[stream]
        self.until(lambda: answer.over, wait)
        return answer

    def ask(self, method, path, *fields, body=None, host=None, wait=10.0):
        stream = self.begin(method, path, *fields, host=host, end=body is None)
        if body is not None:
            self.send(stream, body, end=True)
        return self.finish(stream, wait)
