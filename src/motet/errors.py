"""Errors that a person can act on: one sentence, naming the fix. Knows nothing of the rest of the package."""


class UserError(Exception):
    """Something the user can put right; the command line prints it as one sentence and exits 1."""


class UsageError(UserError):
    """A value the user passed is not legal; the command line exits 2."""
