"""A conversation as a terminal keeps it: its turns, what is left out of the prompt, and how it is saved."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warmline.companion import Reading
from warmline.data.template import Message
from warmline.errors import WarmlineError
from warmline.runs import write_text
from warmline.safety.guard import assess
from warmline.tasks import TASKS


@dataclass
class TalkTurn:
    """What the user said and what came back.

    Attributes:
        user: The user's words.
        reply: The tuned model's, or the base's where it is alone; empty when it said nothing.
        base_reply: The untuned model's to the same prompt; None when it was not asked.
        reading: What the heads said of the conversation up to it.
        stopped: The user cut the reply short.
    """

    user: str
    reply: str = ""
    base_reply: str | None = None
    reading: Reading | None = None
    stopped: bool = False

    def read(self, reads: str) -> dict[str, dict[str, float] | None]:
        """What each head says that reads the `user`, or the `assistant`; None where nothing was read."""
        said = self.reading or {}
        return {name: said.get(name) for name, task in TASKS.items() if task.reads == reads}


@dataclass
class Talk:
    """A conversation: its turns, oldest first.

    Attributes:
        turns: All of them.
        left_out: How many of the oldest no longer fit the model's context.
    """

    turns: list[TalkTurn] = field(default_factory=list)
    left_out: int = 0

    def messages(self) -> list[Message]:
        """What the model sees."""
        messages = []
        for turn in self.turns[self.left_out :]:
            messages.append(Message(role="user", content=turn.user))
            if turn.reply:
                messages.append(Message(role="assistant", content=turn.reply))
        return messages

    def leave_out_oldest(self) -> bool:
        """Leave one more turn out of `messages`; False when only the newest is left."""
        if self.left_out + 1 >= len(self.turns):
            return False
        self.left_out += 1
        return True

    def undo(self) -> TalkTurn | None:
        """Take the newest turn back; None when there is none."""
        if not self.turns:
            return None
        turn = self.turns.pop()
        self.left_out = min(self.left_out, max(0, len(self.turns) - 1))
        return turn

    @property
    def said(self) -> list[str]:
        """The user's turns, all of them: a risk that was said in one left out by now is not gone."""
        return [turn.user for turn in self.turns]

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write it as JSON or text, by the name's suffix.

        Args:
            path: Must not be there yet.
            about: What stands at the head of the file, among it `run` and `base_model`.

        Raises:
            WarmlineError: the file is there, has another suffix, or cannot be written.
        """
        if path.suffix not in (".json", ".txt"):
            raise WarmlineError(f"{path}: expected a name that ends in .json or .txt")
        if path.exists():
            raise WarmlineError(f"{path}: is there already and was not changed; give another name")
        write_text(path, self._json(about) if path.suffix == ".json" else self._text(about))

    def _json(self, about: dict[str, Any]) -> str:
        messages: list[dict[str, Any]] = []
        for turn in self.turns:
            risk = assess(turn.user)
            heard = {**turn.read("user"), "risk": risk.level, "heard": risk.categories}
            messages.append({"role": "user", "content": turn.user, **heard})
            if turn.reply:
                made = {**turn.read("assistant"), "stopped": turn.stopped, "base_reply": turn.base_reply}
                messages.append({"role": "assistant", "content": turn.reply, **made})
        return json.dumps({**about, "messages": messages}, indent=2, ensure_ascii=False) + "\n"

    def _text(self, about: dict[str, Any]) -> str:
        lines = [f"A conversation with an AI, not a therapist: {about['run']}, base {about['base_model']}", ""]
        for turn in self.turns:
            lines.append(f"you: {turn.user}")
            if turn.reading is not None:
                lines.append(f"     ({in_words(turn.reading)})")
            if turn.base_reply is not None:
                lines.append(f"base: {turn.base_reply}")
            lines += [f"reply: {turn.reply}{' [stopped]' if turn.stopped else ''}", ""]
        return "\n".join(lines)


def in_words(reading: Reading) -> str:
    """The likeliest label of each head: `heard sadness 62 %, leans to Question 41 %`."""
    return ", ".join(TASKS[name].told(probabilities) for name, probabilities in reading.items())
