"""Floor 3, the doors: command line, HTTP API and the standalone stack; composes all floors below."""
