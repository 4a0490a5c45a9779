"""Translation: from sentences with their translations to a network that writes new ones."""

from recurra.tasks.translation.model import Translator as Translator

__all__ = ["Translator"]
