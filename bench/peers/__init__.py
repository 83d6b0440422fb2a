"""Other senders, on the same simulators: who they are, how they are installed, and the programs that drive them.

A program gets a job as a JSON file: where to send with which credentials, to which tokens, and for how long. It ends
with one line of JSON: what was accepted in how many seconds, and how much CPU that took if it knows.
"""
