"""A proxy on loopback: terminates TLS as RDS does, or takes plain connections as a node does; forwards the bytes."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from ops.rehearsal.certificates import Certificate

Address: TypeAlias = tuple[str, int]

_CHUNK: Final = 65536
_HANDSHAKE_SECONDS: Final = 10

# A PostgreSQL client requests TLS with this plain message, and starts the handshake after the response S.
# https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
_SSL_REQUEST: Final = bytes.fromhex("00000008 04d2162f")
# The error for other clients: that of an RDS instance with rds.force_ssl = 1.
_NO_ENCRYPTION_ERROR: Final = b"SFATAL\0C28000\0Mno pg_hba.conf entry for host, no encryption\0\0"


@dataclass(frozen=True)
class TlsProxy:
    """A listening proxy.

    Attributes:
        address: where it listens.
        close: stops listening, and closes all connections.
    """

    address: Address
    close: Callable[[], None]


def listen(
    certificate: Certificate | None, upstream: Callable[[], Address | None], address: Address, *, starttls: bool = False
) -> TlsProxy:
    """Starts a proxy in a thread of its own.

    Args:
        certificate: for the TLS handshake, or None for plain connections.
        upstream: returns the address for the next connection, or None to close it.
        address: where to listen; port 0 means any free port.
        starttls: whether clients request TLS with a plain message first, as PostgreSQL's do.
    """
    context = _context(certificate) if certificate else None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Closing the proxy cancels this, which is no error.
        ignored = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*ignored):
            if not (starttls and context) or await _start_tls(reader, writer, context):
                await _forward_both_ways(reader, writer, upstream())

    loop = asyncio.new_event_loop()
    immediate_tls = None if starttls else context
    server = loop.run_until_complete(asyncio.start_server(serve, *address, ssl=immediate_tls))
    thread = threading.Thread(target=loop.run_forever, name="tls", daemon=True)
    thread.start()

    def close() -> None:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    host, port = server.sockets[0].getsockname()[:2]
    return TlsProxy((host, port), close)


def _context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


async def _start_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> bool:
    if await reader.readexactly(len(_SSL_REQUEST)) != _SSL_REQUEST:
        writer.write(b"E" + (len(_NO_ENCRYPTION_ERROR) + 4).to_bytes(4, "big") + _NO_ENCRYPTION_ERROR)
        await writer.drain()
        return False
    writer.write(b"S")
    await writer.start_tls(context, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
    return True


async def _forward_both_ways(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: Address | None
) -> None:
    if upstream is None:
        return
    upstream_reader, upstream_writer = await asyncio.open_connection(*upstream)
    async with asyncio.TaskGroup() as both:
        both.create_task(_forward(reader, upstream_writer))
        both.create_task(_forward(upstream_reader, writer))


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()


async def _close(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
