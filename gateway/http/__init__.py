"""The HTTP door: FastAPI on granian. Every module here is one noun; what they know together is the `Desk`."""
