"""What goes wrong with a vault."""


class VaultFailed(Exception):
    """One line that says what is wrong and what to do. Never holds a key or what was sealed."""


class SealBroken(Exception):
    """What stands in a row was not sealed for this place, or is not as it was sealed. Names the place
    alone."""


class Erased(Exception):
    """Something was to be sealed with a key that has been erased."""


class VaultBehind(Exception):
    """A row is sealed under a master key that this process does not know yet: ask again in a moment."""
