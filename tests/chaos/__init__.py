"""The chaos suite: the whole system on real servers, under a seeded adversary, and a reckoning at the end.

    python -m tests.chaos --seed 7 --devices 20000 --seconds 60 --scenario kill_sender --json

1. `world`: users, phones and what will be published and registered when, all drawn from the seed beforehand.
2. `stage`: PostgreSQL, Valkey, simulators for each app, workers; what dies is started again, unless it is held down.
3. `load`: publishes and registers as the world says, and publishes again until it is taken in.
4. `scenario`, `scenarios/`, `adversary`: what goes wrong when, drawn from the seed beforehand, too.
5. Everything is healed and quiet is waited for; `reckoning` compares the simulators' receipts with ledger and world.

Nothing in production code knows of it. Worker processes die at named points (`failpoints`) because `worker` gives
them a client that kills, and handlers of Celery's signals.
"""
