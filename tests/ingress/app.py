#!/usr/bin/python3
"""The application that tests preview: a web server in a sandbox that tells exactly what reached it."""
import asyncio
import base64
import hashlib
import json
import struct
import sys
import urllib.parse

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
connections = 0


def plain(status, body, *fields):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def read_body(reader, fields):
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            size = int((await reader.readline()).strip(), 16)
            body += await reader.readexactly(size)
            await reader.readline()
            if not size:
                return body
    return await reader.readexactly(int(fields.get("content-length", 0)))


async def websocket(reader, writer, fields, path):
    key = base64.b64encode(hashlib.sha1(fields["sec-websocket-key"].encode() + GUID).digest()).decode()
    writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {key}\r\n"
                 "Set-Cookie: socket=1; Domain=localhost\r\n\r\n".encode())
    while True:
        first, second = await reader.readexactly(2)
        length = second & 127
        if length == 126:
            length, = struct.unpack(">H", await reader.readexactly(2))
        elif length == 127:
            length, = struct.unpack(">Q", await reader.readexactly(8))
        mask = await reader.readexactly(4)
        data = await reader.readexactly(length)
        data = bytes(b ^ mask[i % 4] for i, b in enumerate(data[:65536])) + data[65536:]
        if first & 15 == 8:
            return
        head = bytes([first]) + (bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length) if length < 65536
                                 else b"\x7f" + struct.pack(">Q", length))
        writer.write(head + data)
        await writer.drain()


async def events(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for n in range(100000):
        text = f"data: {n}\n\n".encode()
        writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def big(writer, query):
    size = int(query["n"])
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
    piece = b"x" * 65536
    while size:
        writer.write(piece[:size])
        size -= min(size, len(piece))
        await writer.drain()


async def answer(reader, writer, method, target, fields, head):
    path, _, text = target.partition("?")
    query = dict(urllib.parse.parse_qsl(text))
    if path == "/ws":
        await websocket(reader, writer, fields, path)
        return False
    if path == "/events":
        await events(writer)
        return False
    if path == "/early":  # answers before the body is there
        writer.write(plain(413, b"no"))
        return False
    body = await read_body(reader, fields)
    if path == "/big":
        await big(writer, query)
    elif path == "/raw":  # says exactly this
        writer.write(base64.urlsafe_b64decode(query["bytes"]))
        await writer.drain()
        return "keep" in query
    elif path == "/silent":
        await asyncio.sleep(1000)
    elif path == "/count":
        writer.write(plain(200, str(connections).encode()))
    elif path == "/sum":
        writer.write(plain(200, json.dumps({"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}).encode()))
    elif path == "/page":
        page = b"<!doctype html><title>app</title><h1 id=hello>It works</h1>"
        writer.write(plain(200, page, "Content-Type: text/html"))
    else:
        told = json.dumps({"head": head.decode("latin-1"), "body": base64.b64encode(body[:65536]).decode()}).encode()
        writer.write(plain(200, b"" if method == "HEAD" else told, "Content-Type: application/json", "X-App: yes"))
    await writer.drain()
    return fields.get("connection") != "close"


async def serve(reader, writer):
    global connections
    connections += 1
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
            if not await answer(reader, writer, method, target, fields, head):
                break
    except (asyncio.IncompleteReadError, ConnectionError, ValueError, KeyError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
    async with server:
        await server.serve_forever()


asyncio.run(main())
