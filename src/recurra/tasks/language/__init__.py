"""Language models: from text files to a model that scores, writes and adapts."""

from recurra.tasks.language.model import LanguageModel as LanguageModel

__all__ = ["LanguageModel"]
