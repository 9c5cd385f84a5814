"""Training: `optimizer` and its schedule, `losses`, one `step`, the `loop` around it, and the resumable `state`."""
