"""One transaction around several statements, whether or not the caller has one already."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from psycopg.pq import TransactionStatus

from .database import Connection


def atomic(connection: Connection) -> AbstractContextManager[object]:
    """Open a transaction unless the caller has one; then add nothing, since a savepoint costs two trips."""
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        return connection.transaction()
    return nullcontext()
