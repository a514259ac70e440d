"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """Bad input: the message names both sides and how to mend it.

    The command line prints it without a traceback and exits with status 2 (``--debug`` shows the traceback).
    """


def choose(name: str, choices, what: str) -> str:
    """Return `name` if it is one of `choices`, else raise a `UserError` that lists them."""
    if name in choices:
        return name
    raise UserError(f"unknown {what} {name!r}; choose one of: {', '.join(sorted(choices))}")


def positive(name: str, value: int) -> None:
    """Raise a `UserError` that names the setting if its value is below 1."""
    if value < 1:
        raise UserError(f"{name} must be at least 1, got {value}")
