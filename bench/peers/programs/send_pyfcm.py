"""PyFCM: `async_notify_multiple_devices`, its way for many devices."""

from job import Job
from pyfcm import FCMNotification
from pyfcm.baseapi import BaseAPI

_AT_ONCE = 100


def main():
    """Send to all, batch after batch."""
    job = Job()
    BaseAPI.FCM_END_POINT_BASE = job.url + "/v1/projects"
    client = FCMNotification(job.info["service_account_file"], job.info["project_id"])

    def send(tokens):
        answers = client.async_notify_multiple_devices(
            [
                {
                    "fcm_token": token,
                    "notification_title": job.title,
                    "notification_body": job.body,
                    "data_payload": job.data,
                }
                for token in tokens
            ],
            timeout=60,
        )
        return sum("name" in answer for answer in answers)

    if send(job.tokens[:1]) != 1:
        raise SystemExit("PyFCM's push was not accepted")
    job.begin()
    job.end(sum(map(send, job.batches(_AT_ONCE))))


main()
