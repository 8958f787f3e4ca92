#!/bin/bash
# The boundary from inside: the probe as `user`, as the sandbox's root, through sudo and on a terminal, and what the host sees.
cd "$(dirname "$0")" && PYTHONPATH=../lib exec /usr/bin/python3 run.py "$@"
