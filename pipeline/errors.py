"""The one exception that is meant for the person at the keyboard."""


class PipelineError(Exception):
    """Something the user can put right; the message names the file or key, what was expected and the remedy."""
