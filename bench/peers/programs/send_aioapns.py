"""aioapns: coroutines for as many pushes as its connections have streams."""

import asyncio
import logging
import ssl
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsProductionClientProtocol
from job import Job

_AT_ONCE = 500


async def main(job, key):
    """Send to all, `_AT_ONCE` at a time."""
    logging.disable(logging.CRITICAL)
    parts = urlsplit(job.url)
    APNsProductionClientProtocol.APNS_SERVER = parts.hostname
    APNsProductionClientProtocol.APNS_PORT = parts.port
    context = ssl.create_default_context(cafile=job.ca_file)
    context.set_alpn_protocols(["h2"])
    client = APNs(
        key=key,
        key_id=job.info["key_id"],
        team_id=job.info["team_id"],
        topic=job.info["topic"],
        max_connections=2,
        ssl_context=context,
    )
    message = {"aps": {"alert": {"title": job.title, "body": job.body}}, **job.data}

    async def send(token):
        request = NotificationRequest(
            device_token=token, message=message, notification_id=str(uuid4()), push_type=PushType.ALERT
        )
        return (await client.send_notification(request)).is_successful

    await send(job.tokens[0])
    waiting, accepted = iter(job.tokens), 0

    async def work():
        nonlocal accepted
        for token in waiting:
            if job.is_over():
                return
            is_accepted = await send(token)  # not in one line with the sum, which others change meanwhile
            accepted += is_accepted

    job.begin()
    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    job.end(accepted)


JOB = Job()
asyncio.run(main(JOB, Path(JOB.info["key_file"]).read_text()))
