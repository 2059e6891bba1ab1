"""What ends TLS on loopback, as a load balancer's listener and RDS do, and passes on what is in it.

Simplified: what a balancer passes on stays as it is, so requests gain no X-Forwarded-For.
"""

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

# PostgreSQL's client asks for TLS in the clear, with this, and begins it once it is told S.
# https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
_SSL_REQUEST: Final = bytes.fromhex("00000008 04d2162f")
# What is said to those who do not, in the words of an RDS instance whose rds.force_ssl is 1.
_REFUSAL: Final = b"SFATAL\0C28000\0Mno pg_hba.conf entry for host, no encryption\0\0"


@dataclass(frozen=True)
class Front:
    """A front that listens.

    Attributes:
        address: where.
        close: ends it, and what it passes on.
    """

    address: Address
    close: Callable[[], None]


def listen(certificate: Certificate, behind: Callable[[], Address | None], at: Address, *, asks: bool = False) -> Front:
    """Listens until it is closed.

    Args:
        certificate: that it shows.
        behind: where the next connection goes; None where nobody is there, and the connection is closed.
        at: where to listen; port 0 takes a free one.
        asks: whether clients ask for TLS first, as PostgreSQL's do.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.certificate, certificate.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled when the front is closed, which is no error.
        silent = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*silent):
            if not asks or await _begin_tls(reader, writer, context):
                await _pass_both_ways(reader, writer, behind())

    loop = asyncio.new_event_loop()
    immediate = None if asks else context
    server = loop.run_until_complete(asyncio.start_server(serve, *at, ssl=immediate))
    thread = threading.Thread(target=loop.run_forever, name="tls", daemon=True)
    thread.start()

    def close() -> None:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    host, port = server.sockets[0].getsockname()[:2]
    return Front((host, port), close)


async def _begin_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> bool:
    if await reader.readexactly(len(_SSL_REQUEST)) != _SSL_REQUEST:
        writer.write(b"E" + (len(_REFUSAL) + 4).to_bytes(4, "big") + _REFUSAL)
        await writer.drain()
        return False
    writer.write(b"S")
    await writer.start_tls(context, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
    return True


async def _pass_both_ways(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: Address | None) -> None:
    if to is None:
        return
    behind_reader, behind_writer = await asyncio.open_connection(*to)
    async with asyncio.TaskGroup() as both:
        both.create_task(_pass_on(reader, behind_writer))
        both.create_task(_pass_on(behind_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
