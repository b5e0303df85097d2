"""Checks of settings. A value that does not fit is a `UserError` that names its flag."""

from utils.errors import UserError


def require(holds: bool, message: str) -> None:
    """Raise a `UserError` with this message unless the condition holds."""
    if not holds:
        raise UserError(message)


def require_finite(section: object, *names: str) -> None:
    """Require that fields of a section are finite and not negative."""
    for name in names:
        value = getattr(section, name)
        message = f"{flag(name)} must not be negative or infinite, got {value}"
        require(0 <= value < float("inf"), message)


def require_positive(section: object, *names: str) -> None:
    """Require that fields of a section are positive and finite, or None."""
    for name in names:
        value = getattr(section, name)
        fits = value is None or 0 < value < float("inf")
        require(fits, f"{flag(name)} must be positive and finite, got {value}")


def flag(field: str) -> str:
    """Name of a field on the command line."""
    return "--" + field.replace("_", "-")
