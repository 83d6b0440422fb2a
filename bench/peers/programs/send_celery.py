"""The plain design: a Celery task for each device, in which httpx sends one request over HTTP/2.

Two workers with many threads each, since a process for each task would wait for one answer at a time.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from uuid import uuid4

import celery
import httpx
import jwt
from job import Job

_WORKERS, _THREADS = 2, 50
_QUEUE = "peer"
_READY_SECONDS = 30

JOB = Job()
app = celery.Celery("send_celery", broker=JOB.broker_url)
app.conf.update(
    task_ignore_result=True, task_acks_late=True, task_default_queue=_QUEUE, worker_prefetch_multiplier=4
)


def _for_fcm():
    from google_token import access_token

    line = f"Bearer {access_token(JOB.info['service_account_file'], JOB.ca_file)}"
    url = f"{JOB.url}/v1/projects/{JOB.info['project_id']}/messages:send"
    message = {"notification": {"title": JOB.title, "body": JOB.body}, "data": JOB.data}
    return lambda token: (url, {"authorization": line}, {"message": {"token": token, **message}})


def _for_apns():
    claims = {"iss": JOB.info["team_id"], "iat": int(time.time())}
    key = Path(JOB.info["key_file"]).read_text()
    line = f"bearer {jwt.encode(claims, key, algorithm='ES256', headers={'kid': JOB.info['key_id']})}"
    payload = {"aps": {"alert": {"title": JOB.title, "body": JOB.body}}, **JOB.data}
    headers = {"authorization": line, "apns-topic": JOB.info["topic"], "apns-push-type": "alert"}
    return lambda token: (f"{JOB.url}/3/device/{token}", {**headers, "apns-id": str(uuid4())}, payload)


class _Sender:
    """One HTTP/2 client for all threads of a worker."""

    def __init__(self):
        self._client = httpx.Client(http2=True, verify=_context(), timeout=30)
        self._request = _for_fcm() if JOB.info["name"] == "fcm" else _for_apns()

    def send(self, token):
        url, headers, body = self._request(token)
        self._client.post(url, headers=headers, json=body).raise_for_status()


def _context():
    import ssl

    return ssl.create_default_context(cafile=JOB.ca_file)


_senders = []


@app.task(name="push", max_retries=3, autoretry_for=(httpx.TransportError,), retry_backoff=True)
def push(token):
    """Send to one device."""
    _senders[0].send(token)


def _accepted():
    with urllib.request.urlopen(JOB.info["control_url"] + "/stats") as answer:
        return json.loads(answer.read())["answers"].get("accepted", 0)


def _await_accepted(number, deadline):
    while (accepted := _accepted()) < number and time.perf_counter() < deadline:
        time.sleep(0.05)
    return accepted


def _publish():
    with app.producer_pool.acquire(block=True) as producer:
        for token in JOB.tokens:
            if JOB.is_over():
                return
            push.apply_async((token,), producer=producer)


def main():
    """Start the workers, publish a task for each device, and count what the provider accepted."""
    workers = [subprocess.Popen([sys.executable, __file__, sys.argv[1], "work"]) for _ in range(_WORKERS)]
    try:
        before = _accepted()
        push.delay(JOB.tokens[0])
        if _await_accepted(before + 1, time.perf_counter() + _READY_SECONDS) == before:
            raise SystemExit("the workers sent nothing")
        before = _accepted()
        JOB.begin()
        _publish()
        while not JOB.is_over() and _accepted() < before + len(JOB.tokens):
            time.sleep(0.05)
        JOB.end(_accepted() - before)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge(_QUEUE)


if __name__ == "__main__":
    if sys.argv[2:] == ["work"]:
        _senders.append(_Sender())
        app.worker_main(
            ["worker", "-P", "threads", "-c", str(_THREADS), "-l", "critical", "-n", f"peer{os.getpid()}@%h"]
        )
    else:
        main()
