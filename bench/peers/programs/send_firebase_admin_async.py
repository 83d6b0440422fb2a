"""firebase-admin: `send_each_async` with the 500 messages that it takes, over HTTP/2."""

import asyncio

from firebase_admin import credentials, initialize_app, messaging
from job import Job

_AT_ONCE = 500


async def main():
    """Send to all, batch after batch."""
    job = Job()
    messaging._MessagingService.FCM_URL = job.url + "/v1/projects/{0}/messages:send"
    initialize_app(credentials.Certificate(job.info["service_account_file"]))
    notification = messaging.Notification(title=job.title, body=job.body)

    async def send(tokens):
        messages = [
            messaging.Message(notification=notification, data=job.data, token=token) for token in tokens
        ]
        return (await messaging.send_each_async(messages)).success_count

    await send(job.tokens[:1])
    accepted = 0
    job.begin()
    for tokens in job.batches(_AT_ONCE):
        accepted += await send(tokens)
    job.end(accepted)


asyncio.run(main())
