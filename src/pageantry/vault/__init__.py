"""Passphrases that need not be stored, derived as vault(1) derives them.

    derive("correct horse battery staple", "example.org", length=30)

`derive` is the whole scheme and needs nothing else. Beside it: `phrase.phrase_from` makes a phrase of an SSH key in an
agent, `store.Store` keeps settings, `settings` says what holds for a service, `foreign.load` reads vault(1)'s stores.
"""

from .derive import derive

__all__ = ["derive"]
