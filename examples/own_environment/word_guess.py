"""Guess a secret word of four letters; after each guess one is told which of its letters are right."""

import re

from sdar.environments.multi_turn import Example, MultiTurnEnvironment, Reply

WORDS = """bird blue bone cake card city coal cold corn dark dust farm fish flag gold hand iron jump kind lake lamp land
lion milk mint nest pony rain road rice rose salt sand ship silk snow song star tide wind wolf word yard zinc""".split()
RULES = f"""Guess the secret word, one of: {" ".join(WORDS)}.
After each guess you are told which letters are in place, elsewhere or absent. Answer with <action>word</action>."""


def mark(letter, right, secret):
    return f"{letter} {'in place' if letter == right else 'elsewhere' if letter in secret else 'absent'}"


class WordEnvironment(MultiTurnEnvironment):
    name, max_turns, solved_return = "word_guess", 6, 10.0

    def examples(self, split):
        words = [word for i, word in enumerate(WORDS) if (i % 4 == 3) == (split == "valid")]
        return [Example(RULES, answer=word, kind="word") for word in words]

    def begin(self, example):
        return example.answer

    def play(self, secret, guess):
        if guess == secret:
            return Reply("Right.", solved=True)
        if guess not in WORDS:
            return Reply("That is none of the words.", refused=True)
        return Reply(f"{guess}: {', '.join(mark(*pair, secret) for pair in zip(guess, secret, strict=True))}")

    def action(self, response):
        guess = re.search(r"<action>\s*([a-z]+)\s*</action>", response.lower())
        return guess[1] if guess else None

    def expert(self, task):
        return [task.payload.answer]
