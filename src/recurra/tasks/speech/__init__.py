"""Speech recognition: from recordings and transcripts to a transcriber."""

from recurra.tasks.speech.model import Transcriber as Transcriber

__all__ = ["Transcriber"]
