"""The model server behind the gateway: one door, and two clients that open it."""
