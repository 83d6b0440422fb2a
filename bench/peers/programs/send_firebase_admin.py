"""firebase-admin: `send_each` with the 500 messages that it takes."""

from firebase_admin import credentials, initialize_app, messaging
from job import Job

_AT_ONCE = 500


def main():
    """Send to all, batch after batch."""
    job = Job()
    messaging._MessagingService.FCM_URL = job.url + "/v1/projects/{0}/messages:send"
    initialize_app(credentials.Certificate(job.info["service_account_file"]))
    notification = messaging.Notification(title=job.title, body=job.body)

    def send(tokens):
        messages = [
            messaging.Message(notification=notification, data=job.data, token=token) for token in tokens
        ]
        return messaging.send_each(messages).success_count

    send(job.tokens[:1])
    job.begin()
    job.end(sum(map(send, job.batches(_AT_ONCE))))


main()
