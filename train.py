"""Train an agent: ``python train.py --help`` says what can be set."""

from sdar.app import cli

if __name__ == "__main__":
    cli()
