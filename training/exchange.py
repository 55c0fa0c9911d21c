"""One question with its answer, as the generators of single turns make them."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Exchange:
    """`answer` and `reasoning` may hold marks (see `encoding`)."""

    question: str
    reasoning: str
    answer: str
    # What makes an answer right, in the form of `cases.py`.
    check: dict = field(default_factory=dict)
    # The answer's form where there is no reasoning before it; "" for the same.
    unreasoned: str = ""
    # Most tokens of reasoning that are in proportion, 0 for no limit.
    limit: int = 0

    def messages(self, mode, trained=True):
        answer = self.unreasoned if self.unreasoned and mode == "off" else self.answer
        return [
            {"role": "user", "content": self.question},
            {"role": "assistant", "reasoning": self.reasoning, "content": answer, "train": trained, "needs_reasoning": bool(self.unreasoned)},
        ]
