"""Webhooks on a real database, with a real receiver: order, repetition, rotation, and giving up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from events import DirectPush, InvalidWebhook, Message, verify_webhook
from providers.reach import LOOPBACK
from registry import users, webhooks
from registry.webhooks import Claim, State, Webhook
from tests.integration.ledger.scene import Scene, news
from tests.integration.workers.fakes import Killed
from tests.integration.workers.floor import NODE, Floor
from tests.integration.workers.receiver import Receiver, receiving
from workers import intake
from workers.credentials import CredentialStore
from workers.decide import RetryPolicy
from workers.dispatcher import Dispatcher
from workers.posting import Poster
from workers.signing import Signer
from workers.webhooks import BATCH, Teller

POLICY = RetryPolicy(max_attempts=3, base=timedelta(seconds=10), cap=timedelta(hours=1))


@dataclass(slots=True, kw_only=True)
class Hook:
    """The webhook `audit` of the app `shop`, its receiver, and a process that tells it."""

    scene: Scene
    receiver: Receiver
    teller: Teller

    def put(self, name: str = "audit", **more: Any) -> Webhook:
        """Make or change a webhook."""
        return webhooks.put(
            self.scene.connection, self.scene.app_id, name=name, **{"url": self.receiver.url, **more}
        )[0]

    @property
    def row(self) -> Webhook:
        """The webhook as it is now."""
        return webhooks.get(self.scene.connection, self.scene.app_id, "audit")

    @property
    def secret(self) -> str:
        """Its secret."""
        return self.teller.signer.secret(self.row.salt)

    def happen(self, *keys: str) -> None:
        """Let something happen to tokens, in this order, each in a transaction of its own."""
        for key in keys:
            self.scene.run(
                "INSERT INTO pushfan.feedback (app_id, channel_id, device_id, user_id, device_key, kind, reason,"
                " token_hash) VALUES (%s, %s, 7, 'u7', %s, 'retired', 'UNREGISTERED', 'ab12')",
                self.scene.app_id,
                self.scene.channel.id,
                key,
            )

    def claim(self) -> Claim:
        """Claim what is certainly due."""
        (claim,) = self.teller.claim(5)
        return claim

    def tell(self) -> int:
        """Tell everything that is due. Gives how many batches came through."""
        return sum(self.teller.tell(claim) for claim in self.teller.claim(5))

    def wait_is_over(self) -> None:
        """Let the time pass that a webhook rests."""
        self.scene.run("UPDATE pushfan.webhook SET due_at = now()")

    def told(self) -> list[str]:
        """Give the device keys of all feedback that came, in order."""
        return [event["feedback"]["device_key"] for event in self.receiver.events(self.secret)]


@pytest.fixture
def hook(scene: Scene, tmp_path: Path) -> Iterator[Hook]:
    """Give a webhook that has a receiver."""
    (tmp_path / "webhook-secret").write_text("k" * 40)
    with receiving() as receiver:
        teller = Teller(
            database=scene.database,
            poster=Poster(networks=LOOPBACK),
            signer=Signer(CredentialStore(tmp_path), "file:webhook-secret"),
            policy=POLICY,
            jitter=lambda ceiling: ceiling,
            timeout=timedelta(seconds=10),
            patience=timedelta(hours=72),
        )
        hook = Hook(scene=scene, receiver=receiver, teller=teller)
        hook.put()
        yield hook


def test_feedback_is_told_in_order_signed_and_without_a_token(hook: Hook) -> None:
    """What the receiver verifies is what `GET /v1/feedback` says."""
    hook.happen("a", "b", "c")
    assert hook.tell() == 1
    (document,) = hook.receiver.documents(hook.secret)
    assert (document["app"], document["webhook"]) == ("shop", "audit")
    assert document["id"] == hook.receiver.got[0].headers["webhook-id"]
    assert hook.told() == ["a", "b", "c"]
    event = document["events"][0]
    assert event["type"] == "feedback"
    assert event["feedback"] == {
        "device": 7, "user": "u7", "device_key": "a", "channel": hook.scene.channel.name, "kind": "retired",
        "reason": "UNREGISTERED", "token_hash": "ab12",
    }  # fmt: skip
    assert str(hook.row.told) == document["events"][-1]["cursor"]
    assert hook.row.last_told_at is not None
    assert hook.teller.claim(5) == []


def test_new_webhook_begins_with_what_happens_from_then_on(hook: Hook) -> None:
    """The past can be read from /v1/feedback; it is not poured over a new receiver."""
    hook.happen("before")
    hook.put("late")
    hook.happen("after")
    hook.scene.run("DELETE FROM pushfan.webhook WHERE name = 'audit'")
    assert hook.tell() == 1
    assert b"before" not in hook.receiver.got[0].body
    assert b"after" in hook.receiver.got[0].body


def test_batch_that_failed_is_repeated_the_same_and_nothing_overtakes_it(hook: Hook) -> None:
    """Same id, same entries, although more has happened since; that comes after it."""
    hook.receiver.answers = [500, 503, 200]
    hook.happen("a", "b")
    assert hook.tell() == 0
    hook.happen("c")
    assert hook.tell() == 0, "it rests before it is told again"
    hook.wait_is_over()
    assert hook.tell() == 0
    hook.wait_is_over()
    assert hook.tell() == 1
    assert hook.tell() == 1
    first, second, third, last = hook.receiver.documents(hook.secret)
    assert first == second == third
    assert [event["feedback"]["device_key"] for event in first["events"]] == ["a", "b"]
    assert [event["feedback"]["device_key"] for event in last["events"]] == ["c"]
    assert last["id"] != first["id"]


def test_rest_grows_with_failures_and_heeds_retry_after(hook: Hook) -> None:
    """Full jitter below an exponential ceiling, above what the receiver asks for."""
    rests = []
    hook.receiver.answers = [500]
    hook.happen("a")
    for retry_after in ("0", "0", "0", "600"):
        hook.receiver.headers = {"retry-after": retry_after}
        hook.tell()
        (row,) = hook.scene.run(
            "SELECT extract(epoch FROM due_at - now())::float AS seconds, failures FROM pushfan.webhook"
        )
        rests.append(round(row["seconds"]))
        hook.wait_is_over()
    assert rests == [10, 20, 40, 680]
    assert (hook.row.failures, hook.row.last_error) == (4, "the receiver answered 500")


def test_process_killed_after_the_receiver_had_it_repeats_the_batch(hook: Hook) -> None:
    """At least once: the same id tells the receiver that it has it. Until the claim's time is over nobody repeats."""

    def die() -> None:
        raise Killed

    class Dying(Poster):
        def post(self, *message: Any) -> None:
            super().post(*message)
            die()

    hook.happen("a", "b")
    dying = replace(hook.teller, poster=Dying(networks=LOOPBACK))
    with pytest.raises(Killed):
        dying.tell(hook.claim())
    hook.happen("c")
    assert hook.teller.claim(5) == []
    hook.wait_is_over()
    assert hook.tell() == 1
    assert hook.tell() == 1
    first, second, _ = hook.receiver.documents(hook.secret)
    assert first == second
    assert hook.told() == ["a", "b", "a", "b", "c"]


def test_who_lost_the_claim_moves_nothing(hook: Hook) -> None:
    """A teller that was stopped for too long neither confirms nor counts a failure, whatever its answer was."""
    hook.happen("a")
    stale = hook.claim()
    hook.wait_is_over()
    assert hook.tell() == 1
    hook.happen("b")
    before = hook.row
    assert hook.teller.tell(stale) == 0
    end = before.told
    assert not webhooks.confirm(hook.scene.connection, stale, replace(end, id=end.id + 100))
    never = {"error": "x", "delay": timedelta(0), "patience": timedelta(0), "reason": "x"}
    assert webhooks.fail(hook.scene.connection, stale, **never) is None  # type: ignore[arg-type]
    assert hook.row == before
    assert len(hook.receiver.got) == 1


def test_long_log_is_told_in_full_batches_one_after_the_other(hook: Hook) -> None:
    """One claim goes on while there is more; nothing is left out or told twice."""
    hook.scene.run(
        "INSERT INTO pushfan.feedback (app_id, channel_id, device_id, user_id, device_key, kind, reason, token_hash)"
        " SELECT %s, %s, n, 'u7', 'k' || n, 'retired', 'x', 'ab' FROM generate_series(1, %s) AS n",
        hook.scene.app_id,
        hook.scene.channel.id,
        2 * BATCH + 3,
    )
    assert hook.tell() == 3
    assert hook.told() == [f"k{n}" for n in range(1, 2 * BATCH + 4)]
    assert [len(one["events"]) for one in hook.receiver.documents(hook.secret)] == [BATCH, BATCH, 3]


def test_entry_committed_late_is_not_skipped(hook: Hook) -> None:
    """A transaction that is open holds back what came after it, so that the order holds too."""
    hook.happen("first")
    other = hook.scene.database.__class__(hook.scene.database.url)
    with other.transaction() as connection:
        connection.execute(
            "INSERT INTO pushfan.feedback (app_id, channel_id, device_id, user_id, device_key, kind, reason,"
            " token_hash) VALUES (%s, %s, 1, 'u', 'early', 'retired', 'x', 'ab')",
            [hook.scene.app_id, hook.scene.channel.id],
        )
        hook.happen("late")
        assert hook.tell() == 1
        assert hook.told() == ["first"]
        assert hook.tell() == 0
    other.close()
    assert hook.tell() == 1
    assert hook.told() == ["first", "early", "late"]


def test_finished_notifications_are_told_with_their_outcomes(hook: Hook, floor: Floor) -> None:
    """Those without recipients, too; once each, and never their content."""
    hook.scene.install(["a", "b"])
    hook.scene.subscribe(["a", "b"])
    secret = DirectPush(app="shop", id="nobody", users=["x"], message=Message(title="Secret"))
    taken = intake.take_in(floor.door(), [news(), secret])
    floor.deliver_all()
    hook.tell()
    events = {one["notification"]["id"]: one["notification"] for one in hook.receiver.events(hook.secret)}
    assert set(events) == {str(one.notification_id) for one in taken}
    nobody = next(one for one in events.values() if one["event_id"] == "nobody")
    sent = next(one for one in events.values() if one["event_id"] != "nobody")
    assert (sent["devices"], sent["outcomes"]["accepted"], sent["kind"]) == (2, 2, "topic")
    assert (nobody["devices"], nobody["warning"]) == (0, "none of the users has a device")
    assert nobody["finished_at"].endswith("Z")
    assert all(b"Secret" not in one.body for one in hook.receiver.got)
    assert hook.scene.run("SELECT id FROM pushfan.finish") == []


def test_webhook_hears_only_what_it_wants(hook: Hook, floor: Floor) -> None:
    """A log of finished notifications is kept only where somebody wants it, and until all have it."""
    hook.put(events=["feedback"])
    intake.take_in(floor.door(), [DirectPush(app="shop", users=["x"], message=Message(title="One"))])
    assert hook.scene.run("SELECT id FROM pushfan.finish") == []
    hook.put("finishes", events=["finished"], url=hook.receiver.url + "/finishes")
    hook.put("others", events=["finished"], url=hook.receiver.url + "/others")
    intake.take_in(floor.door(), [DirectPush(app="shop", users=["x"], message=Message(title="Two"))])
    hook.happen("a")
    claims = {claim.name: claim for claim in hook.teller.claim(5)}
    assert set(claims) == {"audit", "finishes", "others"}
    assert hook.teller.tell(claims["finishes"]) == 1
    assert len(hook.scene.run("SELECT id FROM pushfan.finish")) == 1
    assert hook.teller.tell(claims["others"]) == 1
    assert hook.scene.run("SELECT id FROM pushfan.finish") == []
    assert hook.teller.tell(claims["audit"]) == 1
    assert [one.path for one in hook.receiver.got] == ["/hook/finishes", "/hook/others", "/hook"]
    assert b'"finished"' not in hook.receiver.got[2].body


def test_another_apps_events_are_not_told(hook: Hook) -> None:
    """A webhook hears of its own app."""
    hook.scene.run("INSERT INTO pushfan.app (name) VALUES ('other')")
    hook.scene.run(
        "INSERT INTO pushfan.feedback (app_id, channel_id, device_id, user_id, device_key, kind, reason, token_hash)"
        " SELECT id, 0, 1, 'u', 'theirs', 'retired', 'x', 'ab' FROM pushfan.app WHERE name = 'other'"
    )
    assert hook.tell() == 0
    hook.happen("ours")
    hook.tell()
    assert hook.told() == ["ours"]


def test_what_was_forgotten_meanwhile_is_told_no_more(hook: Hook) -> None:
    """A user's right to be forgotten is stronger than the sameness of a batch."""
    hook.receiver.answers = [500, 200]
    hook.happen("a")
    hook.tell()
    users.forget(hook.scene.database, hook.scene.app_id, "u7")
    hook.wait_is_over()
    assert hook.tell() == 1
    assert len(hook.receiver.got) == 1
    assert hook.row.failures == 0


def test_both_secrets_sign_while_one_is_rotated(hook: Hook) -> None:
    """A receiver with either verifies; when the grace is over the old one signs no more."""
    old = hook.secret
    webhooks.rotate(hook.scene.connection, hook.scene.app_id, "audit", grace=timedelta(hours=1))
    assert hook.secret != old
    hook.happen("a")
    hook.tell()
    assert hook.receiver.documents(old) == hook.receiver.documents(hook.secret)
    hook.scene.run("UPDATE pushfan.webhook SET previous_until = now()")
    hook.happen("b")
    hook.tell()
    got = hook.receiver.got[1]
    verify_webhook(got.body, got.headers, hook.secret)
    with pytest.raises(InvalidWebhook):
        verify_webhook(got.body, got.headers, old)


def test_servers_secret_is_rotated_without_a_gap(hook: Hook, tmp_path: Path) -> None:
    """A new line above the old one: messages are signed by both, a new webhook's secret is by the new one."""
    old = hook.secret
    (tmp_path / "webhook-secret").write_text("n" * 40 + "\n" + "k" * 40)
    hook.happen("a")
    hook.tell()
    assert hook.secret != old
    assert hook.receiver.documents(old) == hook.receiver.documents(hook.secret)


def test_webhook_without_a_secret_waits_and_says_so(hook: Hook, tmp_path: Path) -> None:
    """Nothing is ever sent unsigned."""
    (tmp_path / "webhook-secret").write_text("short")
    hook.happen("a")
    assert hook.tell() == 0
    assert hook.receiver.got == []
    assert "32 bytes" in (hook.row.last_error or "")


def test_webhook_that_fails_for_too_long_is_disabled_and_goes_on_when_enabled(hook: Hook) -> None:
    """It says since when and why; feedback that came meanwhile is told then."""
    hook.receiver.answers = [500]
    hook.happen("a")
    hook.tell()
    assert hook.row.state == "active"
    hook.scene.run("UPDATE pushfan.webhook SET due_at = now(), failing_since = now() - interval '73 h'")
    hook.tell()
    assert hook.row.state == "disabled"
    assert hook.row.state_reason == "failed for 72 h, at last: the receiver answered 500"
    hook.wait_is_over()
    assert hook.teller.claim(5) == []
    hook.happen("b")
    hook.receiver.answers = [200]
    hook.receiver.got.clear()
    enabled = hook.put()
    assert enabled.state == "active"
    assert enabled.state_reason is None
    hook.tell()
    assert hook.told() == ["a", "b"]


def test_receiver_that_is_gone_is_disabled_at_once(hook: Hook) -> None:
    """410 is how a receiver says that nobody wants this any more."""
    hook.receiver.answers = [410]
    hook.happen("a")
    hook.tell()
    assert (hook.row.state, hook.row.state_reason) == (State.DISABLED, "the receiver answered 410 Gone")


def test_address_that_leads_inside_is_not_told(hook: Hook) -> None:
    """A name that resolves to a forbidden address fails like a receiver that is away, and says why."""
    hook.put(url=hook.receiver.url.replace("http://127.0.0.1", "https://localhost"))
    inside = replace(hook.teller, poster=Poster())
    hook.happen("a")
    assert sum(inside.tell(claim) for claim in inside.claim(5)) == 0
    assert "not allowed" in (hook.row.last_error or "")
    assert hook.receiver.got == []


def test_no_more_than_some_webhooks_for_an_app(hook: Hook) -> None:
    """Each costs requests; changing one is always possible."""
    for number in range(webhooks.MOST - 1):
        hook.put(f"more-{number}")
    with pytest.raises(webhooks.TooManyWebhooks), hook.scene.connection.transaction():
        hook.put("one-too-many")
    hook.put("more-1")


def test_dispatcher_tells_what_is_due(hook: Hook, floor: Floor) -> None:
    """It is a duty of every worker's dispatcher, done by threads of its own; a slow receiver holds up no duty."""
    directory = floor.settings.credentials_directory
    (directory / "webhook-secret").write_text("k" * 40)
    settings = floor.settings.model_copy(update={"allowed_networks": "127.0.0.0/8"})
    hook.happen("a")
    dispatcher = Dispatcher(settings, hook.scene.database, floor.notes, NODE)
    dispatcher.tick()
    dispatcher._tellers.close()
    for thread in dispatcher._tellers._threads:
        thread.join(20)
    assert hook.told() == ["a"]
    assert hook.row.last_told_at is not None
