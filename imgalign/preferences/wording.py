"""Numbers of things in words."""


def counted(number: int, what: str) -> str:
    """Example: "1 image", "48 images", "4,000 images"."""
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def there_are(number: int, what: str) -> str:
    """Example: "1 image is", "48 images are"."""
    return f"{counted(number, what)} {'is' if number == 1 else 'are'}"
