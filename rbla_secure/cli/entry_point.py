"""From a command line to an exit code."""

import argparse
import json
import sys
from collections.abc import Sequence

from protocols.errors import ProtocolError
from rbla_secure.cli.parser import build_parser
from rbla_secure.errors import RblaSecureError
from rbla_secure.identities.passphrases import take_passphrase

DONE, FAILED = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Args:
        arguments: The arguments after ``rbla-secure``; None takes those of this process.

    Raises:
        SystemExit: With 0 after ``--version`` and ``--help``, with 2 after a bad command line.
    """
    # Whatever a command starts, and whatever a library starts for it, must not inherit a passphrase.
    passphrase = take_passphrase()
    options = build_parser().parse_args(arguments)
    options.variable = passphrase
    try:
        result = options.run(options)
    except (RblaSecureError, ProtocolError) as error:
        return _fail(options, type(error).__name__, str(error))
    except OSError as error:
        return _fail(
            options, type(error).__name__, f"{error.filename or 'system'}: {error.strerror or error}"
        )
    except KeyboardInterrupt:
        return _fail(options, "Interrupted", "interrupted; 'rbla-secure resume' goes on from the last round")
    if options.json:
        print(json.dumps(result), flush=True)
    return DONE


def _fail(options: argparse.Namespace, kind: str, message: str) -> int:
    text = " ".join(message.split())
    print(f"rbla-secure: {text}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"error": kind, "message": text}), flush=True)
    return FAILED
