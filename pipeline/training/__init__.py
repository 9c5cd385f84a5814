"""Training: `schedule`, `optimizer`, `losses`, one `step`, the `loop` around it, and the resumable `state`."""
