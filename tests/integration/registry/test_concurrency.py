"""Registrations, answers and batches at the same time, from several connections."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest

from registry import devices, subscriptions, suspects
from registry.database import Connection, Database
from registry.devices import Install
from registry.subscriptions import Target, TargetKind
from tests.integration.registry.shop import Shop

ROUNDS = 200
SEED = 20_260_131
MOST_AT_ONCE = 6

Work = Callable[[Connection], object]


class Crowd:
    """Threads with a connection each, which do things all at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE)

    def do(self, *works: Work) -> None:
        """Run each work in a transaction of its own, all at once, and raise what any of them raises."""
        barrier = Barrier(len(works))
        for future in [self._pool.submit(self._run, work, barrier) for work in works]:
            future.result(timeout=30)

    def leave(self) -> None:
        """Close the connections."""
        barrier = Barrier(MOST_AT_ONCE)
        for future in [self._pool.submit(self._close, barrier) for _ in range(MOST_AT_ONCE)]:
            future.result(timeout=30)
        self._pool.shutdown()

    def _run(self, work: Work, barrier: Barrier) -> None:
        with self._database.transaction() as connection:
            connection.execute("SELECT 1")  # the transaction has begun for all before any goes on
            barrier.wait(timeout=10)
            work(connection)

    def _close(self, barrier: Barrier) -> None:
        barrier.wait(timeout=10)
        self._database.close()


@pytest.fixture
def crowd(database: Database) -> Iterator[Crowd]:
    """Give a crowd in this test's database."""
    crowd = Crowd(database)
    yield crowd
    crowd.leave()


def install(call: Install) -> Work:
    """Make a work of an install call."""
    return partial(devices.install, call=call)


def test_two_users_who_install_one_token_leave_one_owner(shop: Shop, crowd: Crowd) -> None:
    """Whoever comes second owns the token, and exactly one row is active, in every round."""
    for number in range(ROUNDS):
        token = f"token-{number}"
        crowd.do(*(install(shop.call(user, f"{user}-{number}", token)) for user in ("ann", "bob")))
        statement = "SELECT state FROM pushfan.device WHERE token = %s ORDER BY state"
        rows = shop.connection.execute(statement, [token]).fetchall()
        assert [row["state"] for row in rows] == ["active", "retired"]
    assert len(shop.feedback()) == ROUNDS


def test_installs_that_cross_keys_and_tokens_do_not_deadlock(shop: Shop, crowd: Crowd) -> None:
    """Any calls over the same few keys and tokens take their locks in one order."""
    chance = random.Random(SEED)
    for _ in range(ROUNDS):
        calls = [
            shop.call(*(chance.choice(names) for names in (["ann", "bob"], ["k1", "k2"], ["t1", "t2"])))
            for _ in range(3)
        ]
        crowd.do(*map(install, calls))
        shop.tokens()


def test_batches_installs_and_answers_do_not_deadlock(shop: Shop, crowd: Crowd) -> None:
    """Batches in any order run beside single installs, answers to their devices and the pass over suspects."""
    chance = random.Random(SEED)
    names = [(f"u{n}", f"key-{n}", f"token-{n}") for n in range(40)]
    devices.install_many(shop.connection, [shop.call(*name) for name in names])
    for _ in range(ROUNDS // 4):
        rows = shop.connection.execute("SELECT id FROM pushfan.device WHERE state <> 'retired'").fetchall()
        answers = [shop.answer(row["id"]) for row in chance.choices(rows, k=20)]
        crowd.do(
            *(
                partial(
                    devices.install_many,
                    calls=[
                        shop.call(f"u{chance.randrange(40)}", key, f"token-{chance.randrange(40)}")
                        for _, key, _ in chance.sample(names, 20)
                    ],
                )
                for _ in range(2)
            ),
            partial(devices.retire, answers=answers[:10]),
            partial(devices.mark_suspect, channel_id=shop.ios.id, answers=answers[10:], generation=0),
            partial(suspects.judge, channel_id=shop.ios.id),
            install(shop.call(*chance.choice(names))),
        )
        shop.tokens()


@pytest.mark.parametrize(
    ("settle", "before"),
    [(devices.retire, "active"), (devices.confirm, "suspect")],
    ids=["retire", "confirm"],
)
def test_answers_in_any_order_do_not_deadlock(
    shop: Shop, crowd: Crowd, settle: Callable[..., object], before: str
) -> None:
    """Chunks that hold the same devices in different orders lock them in one."""
    chance = random.Random(SEED)
    calls = [shop.call(f"u{n}", f"key-{n}", f"token-{n}") for n in range(50)]
    ids = [done.device_id for done in devices.install_many(shop.connection, calls)]
    answers = [shop.answer(device_id) for device_id in ids]
    for _ in range(ROUNDS // 4):
        shop.connection.execute("UPDATE pushfan.device SET state = %s", [before])
        orders = [chance.sample(answers, len(answers)) for _ in range(3)]
        crowd.do(*(partial(settle, answers=order) for order in orders))


def test_subscriptions_in_any_order_do_not_deadlock(shop: Shop, crowd: Crowd) -> None:
    """Callers with the same pairs in different orders, over several statements each, store them in one order."""
    topic = Target(kind=TargetKind.TOPIC, name="news")
    for number in range(8):
        pairs = [(topic, f"round-{number}-{user:05}") for user in range(subscriptions.BATCH + 1_000)]
        crowd.do(
            partial(subscriptions.subscribe_many, app_id=shop.app_id, pairs=pairs),
            partial(subscriptions.subscribe_many, app_id=shop.app_id, pairs=pairs[::-1]),
        )
    [found] = subscriptions.list_targets(shop.connection, shop.app_id)
    assert found.users == 8 * (subscriptions.BATCH + 1_000)
