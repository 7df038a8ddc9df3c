"""Train an agent: ``python train.py --help`` says what can be set."""

from sdar.commands.train import cli

if __name__ == "__main__":
    cli()
