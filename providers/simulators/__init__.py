"""Imitations of FCM, APNs and JPush that check what the vendors check and misbehave when told to.

Each simulator is one process with three doors: the vendor's API over TLS (HTTP/2 and, but for APNs,
HTTP/1.1), a control API over plain HTTP on the loopback, and a log of receipts:

1. An engine (`fast`: for load, cheaper than what it serves; `fault`: h2, strict and with all faults that frames can
   have) turns bytes into a `Request` and plays a `Decision` back.
2. A vendor (`fcm`, `apns`, `jpush`) decides: credentials, headers, body, quota, known tokens, then rules.
3. Rules (`rules`) say which tokens get which bad answer, for how long or how often.
4. Each push that the real vendor would deliver is one line of the receipts log (`receipts`), written when the
   decision falls, thus also when the answer is lost. The log is what tests compare everything else with.

Start one with `python -m providers.simulators fcm --state-dir DIR`, or from code:

    with launch("apns", directory, engine="fault") as apns:
        apns.rules([{"share": 0.1, "answer": "throttled", "first": 1, "retry_after": 5}])
        ...  # push to apns.url with the credentials in apns.info
        apns.receipts()

The control API is described at `control.Control`, the fields of a rule at `rules.Rule`, the answers at each vendor.
Nothing here imports the code that it tests.
"""

from .launch import Running, launch

__all__ = ["Running", "launch"]
