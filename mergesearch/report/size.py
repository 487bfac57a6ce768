"""Bytes as people read them."""


def size(count: float) -> str:
    """'850 B', '12.3 kB', '4.56 GB': powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
