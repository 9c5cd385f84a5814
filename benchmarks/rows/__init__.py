"""The rows of the table; each module's `cases(device)` names its lines and builds each of them on demand."""
