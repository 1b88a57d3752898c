"""Passphrases that need not be stored, derived as vault(1) derives them.

`derive` is the whole scheme; the rest keeps settings (`Store`), brings them over from elsewhere (`load_foreign`)
and turns an SSH key into a phrase (`phrase_from`).
"""

from .derive import derive

__all__ = ["derive"]
