"""What Pushfan costs, measured on the machine that this runs on: `python -m bench`.

A measurement (`suite/`) sets up an arena: PostgreSQL, broker, workers and simulators as in production, durable. It
plays a load and returns figures by name; a name's ending is its unit. `table` shows them, `results` keeps them,
`baseline` compares those that do not depend on the machine with recorded ones.
"""
