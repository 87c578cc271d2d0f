"""One call at a broker that wants TLS or SASL, to hear within a deadline whether it takes us, and if not, why."""

from __future__ import annotations

import asyncio

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

from ._kafka_topics import MetadataRequest
from .security import Security

__all__ = ["called"]


def called(host: str, port: int, security: Security, timeout: float) -> list[tuple[str, int]]:
    """Where the brokers of the cluster behind this address tell clients to go.

    Raises OSError (in which TLS and time-outs are) where nothing answers, or it does not take us. Not for use in an event loop.
    """

    async def ask() -> list[tuple[str, int]]:
        async with asyncio.timeout(timeout):
            link = await create_conn(
                host, port, client_id="penstock", request_timeout_ms=int(timeout * 1000), **security.client()
            )
            try:
                answer = await link.send(MetadataRequest([]))
            finally:
                link.close()
        return [(name, int(number)) for _, name, number, *_ in answer.brokers]

    try:
        return asyncio.run(ask())
    except KafkaError as error:
        raise ConnectionError(str(error)) from error  # which begins with the error's name
